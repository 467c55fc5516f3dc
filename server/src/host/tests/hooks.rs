//! Requests and results.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use gatepost_protocol::plugin::{Host, Wants};
use gatepost_protocol::wire::{Cancel, Entry, EventMessage, Goodbye, Late};
use gatepost_protocol::{
    Address, Answer, Args, Change, Departure, Disposition, EnhancedCode, Field, FieldSet, Hook,
    Outcome, Parameters, Value, Verdict,
};

use super::super::results::{self, Turn};
use super::fake::{
    ALL, Desk, Fake, LONG, Says, call, core, hook, ready, said, session, until, vip,
};
use crate::report::{self, Limit};

#[tokio::test]
async fn a_hook_carries_what_was_subscribed_and_the_outcome_what_was_answered() {
    let mut pair = vip(&[hook("rcpt")]).await;
    let mut session = session("3f9a1c");
    session.connection.remote = Some("192.0.2.1:4711".parse().unwrap());
    session.connection.karma = 3;
    session
        .connection
        .notes
        .insert("geo".into(), Value::from("NZ"));
    session
        .connection
        .notes
        .insert("private".into(), Value::from(1));
    session.transaction.number = 2;
    session.transaction.sender = Some(Address::null());
    let wants = Wants {
        fields: FieldSet::of(&[Field::RemoteIp, Field::Immune, Field::Sender, Field::Size]),
        notes: vec!["geo".to_owned()],
    };
    let address = Address::parse("bob@example.org").unwrap();
    let parameters = Parameters::from([("NOTIFY".to_owned(), Some("NEVER".to_owned()))]);
    let args = Args::Address {
        address: Cow::Borrowed(&address),
        parameters: Cow::Borrowed(&parameters),
    };
    let mut call = call(Hook::Rcpt, &session, Duration::from_secs(30));
    call.args = &args;
    let process = pair.process().clone();
    let (outcomes, ()) = tokio::join!(process.ask(&["vip"], &wants, &call), async {
        let hook = pair.peer.hook().await;
        assert_eq!((&*hook.hook, &*hook.session), ("rcpt", "3f9a1c"));
        assert_eq!(
            (hook.plugins, hook.transaction),
            (vec!["vip".into()], Some(2))
        );
        assert!((29_000..=30_000).contains(&hook.deadline_ms.unwrap()));
        assert_eq!(hook.args.address.unwrap().as_str(), "bob@example.org");
        assert_eq!(
            hook.args.parameters.unwrap()["NOTIFY"].as_deref(),
            Some("NEVER")
        );
        let connection = hook.connection.unwrap();
        assert_eq!(connection.remote_ip.as_deref(), Some("192.0.2.1"));
        assert_eq!((connection.remote_port, connection.karma), (None, None));
        let transaction = hook.transaction_fields.unwrap();
        assert!(transaction.sender.unwrap().is_null());
        assert_eq!((transaction.size, hook.resumed), (None, None));
        let notes = hook.notes.unwrap();
        assert_eq!(*notes.connection["geo"], Value::from("NZ"));
        assert_eq!((notes.connection.len(), notes.transaction.len()), (1, 0));
        let entry = Entry {
            disposition: Some(Disposition::Fail),
            verdict: Some(Verdict::DenySoft),
            code: Some(450),
            enhanced: Some(EnhancedCode(4, 7, 1)),
            reply: Some(vec!["later".to_owned()]),
            changes: Some(vec![Change::Karma { add: -1 }]),
            values: Some(vec!["value".to_owned()]),
            settings: Some([("max_size".to_owned(), "1KB".into())].into()),
            ..said("vip", "greylisted")
        };
        pair.peer.answer(hook.id, vec![entry]);
    });
    let [outcome] = outcomes.as_slice() else {
        panic!("one outcome: {outcomes:?}");
    };
    assert_eq!(outcome.disposition, Some(Disposition::Fail));
    assert_eq!(outcome.verdict, Some(Verdict::DenySoft));
    assert_eq!(
        (outcome.code, outcome.enhanced),
        (Some(450), Some(EnhancedCode(4, 7, 1)))
    );
    assert_eq!(
        (&*outcome.message, &*outcome.reply),
        ("greylisted", &["later".to_owned()][..])
    );
    assert_eq!(outcome.changes, [Change::Karma { add: -1 }]);
    assert_eq!(outcome.values, ["value"]);
    let settings = [("max_size".to_owned(), "1KB".into())];
    assert_eq!(outcome.settings, settings.into());
}

#[tokio::test]
async fn without_features_one_is_asked_at_a_time_and_nothing_is_cancelled_or_deferred() {
    let says = Says {
        features: &[],
        ready: ready(
            8,
            &[("one", &[hook("connect")]), ("two", &[hook("connect")])],
        ),
    };
    let mut pair = Fake::new()
        .start(&["one", "two"], &says, Arc::new(Desk::default()))
        .await
        .unwrap();
    let process = pair.process().clone();
    let session = session("s");
    let (wants, call) = (
        Wants::default(),
        call(Hook::Connect, &session, Duration::from_millis(50)),
    );
    let (outcomes, ()) = tokio::join!(process.ask(&["one", "two"], &wants, &call), async {
        let hook = pair.peer.hook().await;
        assert_eq!(hook.plugins, ["one"]);
        let defer = Entry {
            defer: Some(Hook::Rcpt),
            ..said("one", "")
        };
        pair.peer.answer(hook.id, vec![defer]);
    });
    assert_eq!(outcomes.len(), 1);
    assert!(
        outcomes[0]
            .message
            .contains("`defer` is a feature that both sides name")
    );
    let silent = process.ask(&["one"], &wants, &call).await;
    assert_eq!(silent[0].message, "no answer within 50 ms");
    pair.peer.hook().await;
    assert!(pair.peer.is_quiet().await, "no cancel is sent");
}

#[tokio::test]
async fn a_deferred_answer_comes_with_a_verdict_or_ends_as_an_error() {
    let mut pair = vip(&[hook("connect")]).await;
    let process = pair.process().clone();
    let session = session("s");
    let defer = async |pair: &mut super::fake::Pair, deadline| {
        let (wants, call) = (Wants::default(), call(Hook::Connect, &session, deadline));
        let (mut outcomes, id) = tokio::join!(process.ask(&["vip"], &wants, &call), async {
            let hook = pair.peer.hook().await;
            let entry = Entry {
                defer: Some(Hook::Rcpt),
                ..said("vip", "")
            };
            pair.peer.answer(hook.id, vec![entry]);
            hook.id.unwrap()
        });
        let deferred = outcomes.remove(0).defer.expect("it was deferred");
        assert_eq!(deferred.until, Hook::Rcpt);
        (deferred.outcome, id)
    };
    let (answer, id) = defer(&mut pair, LONG).await;
    let result = Entry {
        disposition: Some(Disposition::Fail),
        ..said("vip", "listed")
    };
    pair.peer.send(&Late { id, result });
    let outcome = answer.await;
    assert_eq!(
        (outcome.disposition, &*outcome.message),
        (Some(Disposition::Fail), "listed")
    );
    // A second one is for nothing.
    let result = said("vip", "listed");
    pair.peer.send(&Late { id, result });
    until("it is counted", || process.counts().late == 1).await;

    let (answer, id) = defer(&mut pair, Duration::from_millis(50)).await;
    assert_eq!(answer.await.disposition, Some(Disposition::Error));
    let cancel: Cancel = pair.peer.next("cancel").await;
    assert_eq!((cancel.id, &*cancel.reason), (id, "timeout"));

    let (answer, id) = defer(&mut pair, LONG).await;
    drop(answer);
    let cancel: Cancel = pair.peer.next("cancel").await;
    assert_eq!((cancel.id, &*cancel.reason), (id, "disconnect"));

    let (answer, _) = defer(&mut pair, LONG).await;
    drop(pair.peer);
    assert_eq!(answer.await.message, "no answer: it closed the connection");
}

#[tokio::test]
async fn a_queue_plugin_is_told_that_the_client_is_gone_and_its_answer_counts() {
    let mut pair = vip(&[hook("queue"), hook("data_post")]).await;
    let process = pair.process().clone();
    let (session, wants, departure) = (session("s"), Wants::default(), Departure::new());
    let mut call = call(Hook::Queue, &session, LONG);
    call.departure = &departure;
    let (outcomes, ()) = tokio::join!(process.ask(&["vip"], &wants, &call), async {
        let id = pair.peer.hook().await.id;
        departure.announce();
        let cancel: Cancel = pair.peer.next("cancel").await;
        assert_eq!((Some(cancel.id), &*cancel.reason), (id, "disconnect"));
        // It is told once, and owes its answer no sooner than before.
        assert!(pair.peer.is_quiet().await);
        tokio::time::sleep(2 * core(Arc::new(Desk::default())).patience.owed).await;
        pair.peer.answer(id, vec![said("vip", "kept already")]);
    });
    assert_eq!(outcomes[0].message, "kept already");
    assert_eq!((process.counts().late, process.counts().restarts), (0, 0));
    // At another hook it is nobody's business.
    call.hook = Hook::DataPost;
    let (outcomes, ()) = tokio::join!(process.ask(&["vip"], &wants, &call), async {
        let id = pair.peer.hook().await.id;
        assert!(pair.peer.is_quiet().await);
        pair.peer.answer(id, vec![said("vip", "looked at")]);
    });
    assert_eq!(outcomes[0].message, "looked at");
}

#[tokio::test]
async fn what_is_dropped_is_cancelled_and_its_answer_ignored() {
    let mut pair = vip(&[hook("rcpt")]).await;
    let process = pair.process().clone();
    let session = session("s");
    let (wants, call) = (Wants::default(), call(Hook::Rcpt, &session, LONG));
    let id = tokio::select! {
        _ = process.ask(&["vip"], &wants, &call) => panic!("nobody answered"),
        hook = pair.peer.hook() => hook.id,
    };
    let cancel: Cancel = pair.peer.next("cancel").await;
    assert_eq!((Some(cancel.id), &*cancel.reason), (id, "shutdown"));
    pair.peer.answer(id, vec![said("vip", "too late")]);
    until("it is counted", || process.counts().late == 1).await;
    assert_eq!(
        (process.counts().timeouts, process.counts().restarts),
        (0, 0)
    );
}

#[tokio::test]
async fn what_goes_beyond_the_concurrency_waits_and_its_deadline_runs() {
    let says = Says {
        features: ALL,
        ready: ready(1, &[("vip", &[hook("rcpt")])]),
    };
    let mut pair = Fake::new()
        .start(&["vip"], &says, Arc::new(Desk::default()))
        .await
        .unwrap();
    let process = pair.process().clone();
    let (one, two, three) = (session("1"), session("2"), session("3"));
    let wants = Wants::default();
    let first = call(Hook::Rcpt, &one, LONG);
    let second = call(Hook::Rcpt, &two, LONG);
    let third = call(Hook::Rcpt, &three, Duration::from_millis(30));
    let (first, second, third, ()) = tokio::join!(
        process.ask(&["vip"], &wants, &first),
        process.ask(&["vip"], &wants, &second),
        process.ask(&["vip"], &wants, &third),
        async {
            let hook = pair.peer.hook().await;
            assert!(pair.peer.is_quiet().await, "one at a time");
            pair.peer.answer(hook.id, vec![said("vip", "first")]);
            let hook = pair.peer.hook().await;
            pair.peer.answer(hook.id, vec![said("vip", "second")]);
        }
    );
    assert_eq!(
        [&*first[0].message, &*second[0].message],
        ["first", "second"]
    );
    assert!(
        third[0]
            .message
            .ends_with("its worker was busy all the time"),
        "{third:?}"
    );
}

#[tokio::test]
async fn events_come_in_order_with_hooks_and_are_dropped_for_who_does_not_read() {
    let mut pair = vip(&[hook("rcpt"), hook("deny")]).await;
    let process = pair.process().clone();
    let session = session("s");
    let (wants, rcpt) = (Wants::default(), call(Hook::Rcpt, &session, LONG));
    let args = Args::Decided {
        plugin: "other".into(),
        hook: Hook::Mail,
        verdict: Verdict::DenyDisconnect,
        message: "x".repeat(1000).into(),
    };
    let mut deny = call(Hook::Deny, &session, LONG);
    deny.args = &args;
    process.tell(&["vip"], &wants, &deny);
    tokio::join!(process.ask(&["vip"], &wants, &rcpt), async {
        let EventMessage(event) = pair.peer.next("event").await;
        assert_eq!(
            (&*event.hook, event.id, event.deadline_ms),
            ("deny", None, None)
        );
        assert_eq!(event.args.verdict, Some(Verdict::DenyDisconnect));
        assert_eq!(
            (event.args.hook, event.args.plugin.as_deref()),
            (Some(Hook::Mail), Some("other"))
        );
        let hook = pair.peer.hook().await;
        pair.peer.answer(hook.id, vec![said("vip", "")]);
    });
    // Neither the socket's buffer nor what may wait in memory takes two megabytes.
    for _ in 0..2000 {
        process.tell(&["vip"], &wants, &deny);
    }
    let dropped = process.counts().dropped_events;
    assert!((500..2000).contains(&dropped), "{dropped}");
    assert!(report::exceeded(Limit::PluginEvents) >= dropped);
    assert_eq!(process.counts().restarts, 0);
}

#[tokio::test]
async fn no_more_than_a_thousand_requests_wait() {
    let says = Says {
        features: ALL,
        ready: ready(1, &[("vip", &[hook("rcpt")])]),
    };
    let pair = Fake::new()
        .start(&["vip"], &says, Arc::new(Desk::default()))
        .await
        .unwrap();
    let (process, wants) = (pair.process().clone(), Wants::default());
    let sessions: Vec<_> = (0..1026).map(|at| session(&at.to_string())).collect();
    let calls: Vec<_> = sessions
        .iter()
        .map(|session| call(Hook::Rcpt, session, LONG))
        .collect();
    let refused = report::exceeded(Limit::PluginRequests);
    let asking = calls
        .iter()
        .map(|call| Box::pin(process.ask(&["vip"], &wants, call)));
    // One is asked, and the others wait but for the last.
    let (outcomes, last, _) = futures_util::future::select_all(asking).await;
    assert_eq!(last, 1025);
    assert!(
        outcomes[0]
            .message
            .contains("1024 requests wait for its workers already"),
        "{outcomes:?}"
    );
    assert_eq!(report::exceeded(Limit::PluginRequests), refused + 1);
}

#[tokio::test]
async fn at_shutdown_what_runs_is_finished_and_nothing_begun() {
    let mut pair = vip(&[hook("rcpt")]).await;
    let process = pair.process().clone();
    let session = session("s");
    let (wants, rcpt) = (Wants::default(), call(Hook::Rcpt, &session, LONG));
    let processes = &pair.processes;
    let peer = &mut pair.peer;
    let (outcomes, (), ()) = tokio::join!(
        process.ask(&["vip"], &wants, &rcpt),
        async {
            tokio::task::yield_now().await;
            processes.shutdown(LONG).await;
        },
        async {
            let hook = peer.hook().await;
            let _: Goodbye = peer.next("goodbye").await;
            let refused = process.ask(&["vip"], &wants, &rcpt).await;
            assert!(
                refused[0].message.ends_with("the server is shutting down"),
                "{refused:?}"
            );
            peer.answer(hook.id, vec![said("vip", "done")]);
            peer.ends().await;
        }
    );
    assert_eq!(outcomes[0].message, "done");
}

#[tokio::test]
async fn a_plugin_alone_is_asked_through_its_process() {
    let mut pair = vip(&[hook("rcpt"), hook("reset_transaction")]).await;
    let plugin = pair.started[0].plugin.clone();
    let session = session("s");
    let event = call(Hook::ResetTransaction, &session, LONG);
    assert!(matches!(plugin.call(&event), Answer::Now(_)));
    let _: EventMessage = pair.peer.next("event").await;
    let rcpt = call(Hook::Rcpt, &session, LONG);
    let Answer::Later(answer) = plugin.call(&rcpt) else {
        panic!("it takes a while");
    };
    let (outcome, ()) = tokio::join!(answer, async {
        let hook = pair.peer.hook().await;
        pair.peer.answer(hook.id, vec![said("vip", "hello")]);
    });
    assert_eq!(outcome.message, "hello");
}

#[test]
fn a_result_is_a_prefix_of_its_segment() {
    let segment = ["a", "b", "c"];
    let verdict = |plugin: &str, verdict| Entry {
        verdict: Some(verdict),
        ..said(plugin, plugin)
    };
    let found = |plugin: &str, disposition| Entry {
        disposition: Some(disposition),
        ..said(plugin, plugin)
    };
    let (ok, declined) = (Verdict::Ok, Verdict::Declined);
    let cases: Vec<(Vec<Entry>, &[&str])> = vec![
        (
            vec![said("a", "a"), said("b", "b"), said("c", "c")],
            &["a", "b", "c"],
        ),
        (vec![said("a", "a"), verdict("b", ok)], &["a", "b"]),
        // The policy may refuse, or let it pass and have the rest asked.
        (vec![found("a", Disposition::Fail)], &["a"]),
        (vec![found("a", Disposition::Error)], &["a"]),
        (vec![], &["!no entry for `a`"]),
        (vec![said("a", "a")], &["a", "!no entry for `b`"]),
        (vec![verdict("a", declined)], &["a", "!no entry for `b`"]),
        (
            vec![said("b", "b")],
            &["!an entry of `b` where `a` was to answer"],
        ),
        (
            vec![said("a", "a"), said("a", "a")],
            &["a", "!an entry of `a` where `b` was to answer"],
        ),
        (
            vec![said("a", "a"), verdict("b", ok), said("c", "c")],
            &["a", "!entries behind"],
        ),
        (
            vec![found("a", Disposition::Fail), said("b", "b")],
            &["!entries behind"],
        ),
        (
            vec![
                said("a", "a"),
                said("b", "b"),
                said("c", "c"),
                said("d", "d"),
            ],
            &["a", "b", "!entries behind"],
        ),
        (
            vec![Entry {
                code: Some(99),
                ..said("a", "a")
            }],
            &["!99 is no reply code"],
        ),
        (
            vec![Entry {
                code: Some(550),
                enhanced: Some(EnhancedCode(4, 0, 0)),
                ..said("a", "a")
            }],
            &["!the codes 550 and 4.0.0 are of different classes"],
        ),
        (
            vec![Entry {
                defer: Some(Hook::Rcpt),
                ..verdict("a", ok)
            }],
            &["!`defer` together with"],
        ),
    ];
    for (entries, expected) in cases {
        let shown = format!("{entries:?}");
        let turns = results::turns(entries.into_iter().map(Ok).collect(), &segment, true);
        assert_eq!(turns.len(), expected.len(), "{shown}");
        for (Turn { outcome, .. }, expected) in turns.iter().zip(expected) {
            match expected.strip_prefix('!') {
                Some(wrong) => {
                    assert_eq!(outcome.disposition, Some(Disposition::Error), "{shown}");
                    let wrong = format!("protocol error: {wrong}");
                    assert!(
                        outcome.message.starts_with(&wrong),
                        "{}: {shown}",
                        outcome.message
                    );
                }
                None => assert_eq!(outcome.message, *expected, "{shown}"),
            }
        }
    }
    let broken = vec![
        Ok(said("a", "a")),
        Err("unknown variant".to_owned()),
        Ok(said("c", "c")),
    ];
    let turns = results::turns(broken, &segment, true);
    assert_eq!(
        turns.len(),
        2,
        "what stands before it counts, nothing behind it"
    );
    let Outcome { message, .. } = &turns[1].outcome;
    assert_eq!(message, "protocol error: unknown variant");
}
