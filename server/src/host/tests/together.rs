//! Several plugins, and two hooks, in one request.

use std::borrow::Cow;
use std::time::Duration;

use gatepost_protocol::plugin::{Host, Then, Wants};
use gatepost_protocol::wire::{Entry, ResultMessage, Unfinished};
use gatepost_protocol::{Address, Args, Disposition, Field, FieldSet, Hook, Parameters, Verdict};

use super::fake::{ALL, LONG, able, call, hook, said, session, vip};

#[tokio::test]
async fn two_hooks_go_in_one_request_and_fail_together() {
    let mut pair = vip(&[hook("mail_pre"), hook("mail")]).await;
    let session = session("s");
    let sender = Address::parse("bob@example.org").unwrap();
    let parameters = Parameters::new();
    let args = Args::Address {
        address: Cow::Borrowed(&sender),
        parameters: Cow::Borrowed(&parameters),
    };
    let wants = |field| Wants {
        fields: FieldSet::of(&[field]),
        notes: Vec::new(),
    };
    let (here, there) = (wants(Field::Karma), wants(Field::RelayClient));
    let then = Then {
        hook: Hook::Mail,
        plugins: &["vip"],
        wants: &there,
        args: &args,
        transaction: 1,
    };
    let mut call = call(Hook::MailPre, &session, Duration::from_millis(200));
    let line = Args::Line("<bob@example.org>".into());
    call.args = &line;
    let process = pair.process().clone();
    let (answers, ()) = tokio::join!(process.ask_then(&["vip"], &here, &call, &then), async {
        let hook = pair.peer.hook().await;
        let then = hook.then.unwrap();
        assert_eq!((&*hook.hook, hook.transaction), ("mail_pre", None));
        assert_eq!((&*then.hook, then.transaction), ("mail", Some(1)));
        assert_eq!(then.plugins, ["vip"]);
        // All that either of the two needs.
        assert_eq!(hook.args.line.as_deref(), Some("<bob@example.org>"));
        assert_eq!(hook.args.address.unwrap().as_str(), "bob@example.org");
        let connection = hook.connection.unwrap();
        assert_eq!(
            (connection.karma, connection.relay_client),
            (Some(0), Some(false))
        );
        let then = vec![said("vip", "then")];
        pair.peer
            .answer_both(hook.id, vec![said("vip", "")], Some(then));
    });
    assert_eq!(answers.here.len(), 1);
    assert_eq!(answers.then.unwrap()[0].message, "then");

    let answers = process.ask_then(&["vip"], &here, &call, &then).await;
    let why = "no answer within 200 ms (mail_pre and mail were one request)";
    assert_eq!(answers.here[0].message, why);
    assert_eq!(answers.then.unwrap()[0].message, why);
}

#[tokio::test]
async fn a_process_that_says_where_it_ended_is_heard_up_to_there() {
    let here = |plugin: &str, message: &str| Entry {
        disposition: Some(Disposition::Error),
        ..said(plugin, message)
    };
    let hooks: &[_] = &[hook("mail_pre"), hook("mail")];
    // In the hook at hand, in the next one, and with a last word that is no error.
    for (results, then, expected) in [
        (
            vec![said("a", "heard"), here("b", "line 2")],
            None,
            "[heard, it closed the connection: line 2]",
        ),
        (
            vec![said("a", ""), said("b", "")],
            Some(vec![here("a", "line 1")]),
            "[, ] [it closed the connection: line 1]",
        ),
        (
            vec![Entry {
                verdict: Some(Verdict::Ok),
                ..said("a", "")
            }],
            None,
            "(2 plugins were asked together)",
        ),
    ] {
        let mut pair = able(ALL, &["a", "b"], hooks).await;
        let process = pair.process().clone();
        let session = session("s");
        let call = call(Hook::MailPre, &session, LONG);
        let wants = Wants::default();
        let both = Then {
            hook: Hook::Mail,
            plugins: &["a", "b"],
            wants: &wants,
            args: &Args::None,
            transaction: 1,
        };
        let asked = process.ask_then(&["a", "b"], &wants, &call, &both);
        let (answers, ()) = tokio::join!(asked, async move {
            let id = pair.peer.hook().await.id.unwrap();
            let result = ResultMessage { id, results, then };
            pair.peer.say_last(&Unfinished(result)).await;
        });
        let mut said = String::new();
        for outcomes in [Some(answers.here), answers.then].into_iter().flatten() {
            let texts: Vec<String> = outcomes.into_iter().map(|it| it.message).collect();
            said.push_str(&format!("[{}] ", texts.join(", ")));
        }
        assert!(said.contains(expected), "{said}");
    }
}

#[tokio::test]
async fn who_cannot_do_two_hooks_at_once_is_asked_one() {
    let hooks = [hook("mail_pre"), hook("mail")];
    let mut pair = able(&["segments"], &["vip"], &hooks).await;
    let process = pair.process().clone();
    let session = session("s");
    let call = call(Hook::MailPre, &session, LONG);
    let wants = Wants::default();
    let then = Then {
        hook: Hook::Mail,
        plugins: &["vip"],
        wants: &wants,
        args: &Args::None,
        transaction: 1,
    };
    let (answers, ()) = tokio::join!(process.ask_then(&["vip"], &wants, &call, &then), async {
        let hook = pair.peer.hook().await;
        assert_eq!(hook.then, None);
        // What it was not asked it does not answer.
        let then = Some(vec![said("vip", "then")]);
        pair.peer.answer_both(hook.id, vec![said("vip", "")], then);
    });
    assert_eq!((answers.here.len(), answers.then.is_none()), (1, true));
}
