//! The chain with small plugins and a host that only remembers what it was asked.

mod ahead;
mod flags;
mod timing;

use std::sync::{Arc, Mutex};

use gatepost_protocol::plugin::{Answers, Host, Subscription, Then, Wants};
use gatepost_protocol::{
    Address, Answer, Args, BoxFuture, Call, Change, Field, Hook, Immune, OnError, Outcome, Plugin,
    Policy, Reject, Scope, Session, Verdict,
};

use super::{
    Chain, Decision, Distinct, Distinctions, Entry, Made, Profile, Rules, Special, Visit, agree,
};

type Respond = dyn Fn(&Call<'_>) -> Outcome + Send + Sync;

/// A plugin made of a closure.
struct Small {
    subscriptions: Vec<Subscription>,
    respond: Box<Respond>,
    host: Option<Arc<Recorder>>,
}

impl Plugin for Small {
    fn subscriptions(&self) -> Vec<Subscription> {
        self.subscriptions.clone()
    }

    fn call<'a>(&'a self, call: &'a Call<'a>) -> Answer<'a> {
        (self.respond)(call).into()
    }

    fn host(&self) -> Option<Arc<dyn Host>> {
        self.host.clone().map(|host| host as Arc<dyn Host>)
    }
}

/// A host: `fail-*` fails, `ok-*` says ok, others decline. It stops as docs/protocol.md §4 says.
#[derive(Default)]
struct Recorder {
    asked: Mutex<Vec<String>>,
    told: Mutex<Vec<String>>,
}

impl Recorder {
    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut *self.asked.lock().unwrap())
    }
}

impl Host for Recorder {
    fn ask<'a>(
        &'a self,
        plugins: &'a [&'a str],
        wants: &'a Wants,
        call: &'a Call<'a>,
    ) -> BoxFuture<'a, Vec<Outcome>> {
        let fields: Vec<&str> = wants.fields.iter().map(Field::name).collect();
        self.asked.lock().unwrap().push(format!(
            "{} {} [{}]",
            call.hook,
            plugins.join(","),
            fields.join(",")
        ));
        let mut outcomes = Vec::new();
        for plugin in plugins {
            let kind = plugin.split('-').next();
            outcomes.push(match kind {
                Some("fail") => Outcome::fail(format!("{plugin} failed")),
                Some("ok") => Outcome::ok("fine"),
                _ => Outcome::declined(),
            });
            if matches!(kind, Some("fail" | "ok")) {
                break;
            }
        }
        Box::pin(async move { outcomes })
    }

    /// Goes on where all declined.
    fn ask_then<'a>(
        &'a self,
        plugins: &'a [&'a str],
        wants: &'a Wants,
        call: &'a Call<'a>,
        then: &'a Then<'a>,
    ) -> BoxFuture<'a, Answers> {
        Box::pin(async move {
            let here = self.ask(plugins, wants, call).await;
            let next = Call {
                hook: then.hook,
                args: then.args,
                ..*call
            };
            let goes_on = here.iter().all(|outcome| outcome.disposition.is_none());
            let there = match goes_on {
                true => Some(self.ask(then.plugins, then.wants, &next).await),
                false => None,
            };
            if goes_on {
                self.asked.lock().unwrap().push("(at once)".to_owned());
            }
            Answers { here, then: there }
        })
    }

    fn tell(&self, plugins: &[&str], _wants: &Wants, call: &Call<'_>) {
        let what = match call.args {
            Args::Decided {
                plugin, verdict, ..
            } => format!(" {plugin} {}", verdict.name()),
            _ => String::new(),
        };
        self.told
            .lock()
            .unwrap()
            .push(format!("{} {}{what}", call.hook, plugins.join(",")));
    }
}

fn entry(name: &str, plugin: Small, policy: Policy) -> Entry {
    let rules = Rules::new(policy, Policy::default(), None, None);
    Entry {
        name: name.into(),
        plugin: Arc::new(plugin),
        rules,
        origins: Default::default(),
        when: None,
    }
}

fn local(
    name: &str,
    hook: Hook,
    respond: impl Fn(&Call<'_>) -> Outcome + Send + Sync + 'static,
) -> Entry {
    let subscriptions = vec![Subscription::to(hook, &[])];
    entry(
        name,
        Small {
            subscriptions,
            respond: Box::new(respond),
            host: None,
        },
        Policy::default(),
    )
}

fn foreign(
    name: &str,
    host: &Arc<Recorder>,
    hooks: &[Hook],
    fields: &[Field],
    policy: Policy,
) -> Entry {
    let subscriptions = hooks
        .iter()
        .map(|hook| Subscription::to(*hook, fields))
        .collect();
    let plugin = Small {
        subscriptions,
        respond: Box::new(|_| Outcome::declined()),
        host: Some(host.clone()),
    };
    entry(name, plugin, policy)
}

async fn run(chain: &Chain, visit: &mut Visit, hook: Hook) -> Decision {
    chain.run(visit, hook, &Args::None, None).await
}

fn tolerated() -> Policy {
    Policy {
        reject: Some(Reject::Tolerate),
        ..Policy::default()
    }
}

#[tokio::test]
async fn the_first_that_does_not_decline_decides_and_the_next_sees_what_it_changed() {
    let chain = Chain::new(vec![
        local("one", Hook::Rcpt, |_| {
            Outcome::pass("").with_change(Change::Karma { add: 3 })
        }),
        local("two", Hook::Rcpt, |call| {
            assert_eq!(call.session.connection.karma, 3);
            Outcome::fail("no such user here")
        }),
        local("three", Hook::Rcpt, |_| panic!("is never asked")),
    ]);
    let decision = run(&chain, &mut Visit::default(), Hook::Rcpt).await;
    assert_eq!(decision.verdict, Verdict::Deny);
    assert_eq!(decision.plugin.as_deref(), Some("two"));
    assert_eq!(decision.lines, ["no such user here"]);
    assert!(!chain.asks(Hook::Mail));
}

#[tokio::test]
async fn neighbours_in_one_process_are_one_request_and_a_stranger_between_them_parts_it() {
    let host = Arc::new(Recorder::default());
    let hooks = [Hook::Mail];
    let chain = Chain::new(vec![
        foreign("a", &host, &hooks, &[Field::RemoteIp], Policy::default()),
        foreign("b", &host, &hooks, &[Field::Karma], Policy::default()),
        local("x", Hook::Mail, |_| Outcome::declined()),
        foreign("c", &host, &hooks, &[], Policy::default()),
    ]);
    assert_eq!(
        chain.asked_at(Hook::Mail).collect::<Vec<_>>(),
        [vec!["a", "b"], vec!["x"], vec!["c"]]
    );
    run(&chain, &mut Visit::default(), Hook::Mail).await;
    assert_eq!(
        *host.asked.lock().unwrap(),
        ["mail a,b [remote_ip,karma]", "mail c []"]
    );
    assert!(chain.wants(Field::Karma) && !chain.wants(Field::Path));
}

#[tokio::test]
async fn what_stands_behind_a_tolerated_failure_is_asked_too() {
    let host = Arc::new(Recorder::default());
    let hooks = [Hook::Mail];
    let chain = Chain::new(vec![
        foreign("a", &host, &hooks, &[], Policy::default()),
        foreign("fail-b", &host, &hooks, &[], tolerated()),
        foreign("c", &host, &hooks, &[], Policy::default()),
        foreign("ok-d", &host, &hooks, &[], Policy::default()),
        foreign("e", &host, &hooks, &[], Policy::default()),
    ]);
    let decision = run(&chain, &mut Visit::default(), Hook::Mail).await;
    assert_eq!(decision.plugin.as_deref(), Some("ok-d"));
    assert_eq!(
        *host.asked.lock().unwrap(),
        ["mail a,fail-b,c,ok-d,e []", "mail c,ok-d,e []"]
    );
}

#[tokio::test]
async fn naughty_keeps_the_first_failure() {
    let policy = Policy {
        reject: Some(Reject::Naughty),
        ..Policy::default()
    };
    let host = Arc::new(Recorder::default());
    let chain = Chain::new(vec![
        foreign("fail-a", &host, &[Hook::Connect], &[], policy),
        foreign("fail-b", &host, &[Hook::Connect], &[], policy),
    ]);
    let mut visit = Visit::default();
    assert_eq!(
        run(&chain, &mut visit, Hook::Connect).await.verdict,
        Verdict::Declined
    );
    let naughty = visit.session.connection.naughty.unwrap();
    assert_eq!(
        (&*naughty.plugin, &*naughty.message, naughty.verdict),
        ("fail-a", "fail-a failed", Verdict::Deny)
    );
}

#[tokio::test]
async fn a_deferred_answer_counts_at_the_hook_it_names() {
    let chain = Chain::new(vec![local("dnsbl", Hook::Connect, |_| {
        Outcome::defer(Hook::Rcpt, async {
            Outcome::fail("listed").with_change(Change::Karma { add: -1 })
        })
    })]);
    let mut visit = Visit::default();
    assert_eq!(
        run(&chain, &mut visit, Hook::Connect).await.verdict,
        Verdict::Declined
    );
    assert_eq!(
        run(&chain, &mut visit, Hook::Mail).await.verdict,
        Verdict::Declined
    );
    let decision = run(&chain, &mut visit, Hook::Rcpt).await;
    assert_eq!(
        (decision.verdict, decision.plugin.as_deref()),
        (Verdict::Deny, Some("dnsbl"))
    );
    assert_eq!(visit.session.connection.karma, -1);
    assert_eq!(
        run(&chain, &mut visit, Hook::Rcpt).await.verdict,
        Verdict::Deny,
        "it holds for every recipient"
    );
    assert_eq!(visit.session.connection.karma, -1, "it came once");
}

#[tokio::test(start_paused = true)]
async fn a_plugin_that_panics_or_never_answers_is_an_error_of_its_own() {
    let never = Small {
        subscriptions: vec![Subscription::to(Hook::Mail, &[])],
        respond: Box::new(|_| Outcome::defer(Hook::Mail, std::future::pending())),
        host: None,
    };
    let chain = Chain::new(vec![
        local("bad", Hook::Connect, |_| panic!("on purpose")),
        local("later", Hook::Helo, |_| {
            Outcome::defer(Hook::Mail, async { panic!("on purpose") })
        }),
        entry("never", never, Policy::default()),
    ]);
    let mut visit = Visit::default();
    assert_eq!(
        run(&chain, &mut visit, Hook::Connect).await.verdict,
        Verdict::DenySoft
    );
    run(&chain, &mut visit, Hook::Helo).await;
    assert_eq!(
        run(&chain, &mut visit, Hook::Mail).await.plugin.as_deref(),
        Some("later")
    );
    assert_eq!(
        run(&chain, &mut visit, Hook::Mail).await.verdict,
        Verdict::Declined
    );
    assert_eq!(
        run(&chain, &mut visit, Hook::Mail).await.plugin.as_deref(),
        Some("never")
    );
}

#[tokio::test]
async fn a_bad_change_makes_the_outcome_an_error() {
    let chain = Chain::new(vec![local("tag", Hook::Mail, |_| {
        Outcome::ok("").with_change(Change::AddHeader {
            name: "X".into(),
            value: "y".into(),
            at: Default::default(),
        })
    })]);
    assert_eq!(
        run(&chain, &mut Visit::default(), Hook::Mail).await.verdict,
        Verdict::DenySoft
    );
}

#[tokio::test]
async fn observers_are_told_what_was_decided_and_every_host_of_the_end() {
    let host = Arc::new(Recorder::default());
    let other = Arc::new(Recorder::default());
    let chain = Chain::new(vec![
        local("vip", Hook::Rcpt, |_| Outcome::fail("no")),
        foreign(
            "audit",
            &host,
            &[Hook::Deny, Hook::Ok, Hook::Disconnect],
            &[],
            Policy::default(),
        ),
        foreign("mute", &other, &[Hook::Data], &[], Policy::default()),
        foreign("late", &host, &[Hook::Disconnect], &[], Policy::default()),
    ]);
    let mut visit = Visit::default();
    run(&chain, &mut visit, Hook::Rcpt).await;
    run(&chain, &mut visit, Hook::Disconnect).await;
    assert_eq!(
        *host.told.lock().unwrap(),
        ["deny audit vip deny", "disconnect audit,late"]
    );
    assert_eq!(*other.told.lock().unwrap(), ["disconnect "]);
}

#[tokio::test]
async fn what_is_said_of_a_single_recipient_holds_for_it_instead() {
    let address = |text: &str| Address::parse(text).unwrap();
    let chain = Chain::new(vec![
        local("judge", Hook::DataPost, move |_| {
            Outcome::fail("nobody wants it")
                .for_recipient(address("bob@b"), Outcome::pass("but bob"))
                .for_recipient(
                    address("carol@b"),
                    Outcome::declined().with_verdict(Verdict::DenySoft),
                )
                .for_recipient(address("nobody@b"), Outcome::fail("is not here"))
        }),
        local("next", Hook::DataPost, |call| {
            assert_eq!(call.session.transaction.recipients.len(), 1);
            Outcome::declined()
        }),
    ]);
    let mut visit = Visit::default();
    for recipient in ["bob@b", "carol@b", "dave@b"] {
        let transaction = &mut visit.session.transaction;
        transaction.add_recipient(address(recipient), Default::default());
    }
    let decision = run(&chain, &mut visit, Hook::DataPost).await;
    assert_eq!(decision.verdict, Verdict::Declined);
    assert_eq!(visit.session.transaction.recipients, [address("bob@b")]);
    let decided: Vec<_> = visit
        .decided
        .iter()
        .map(|(address, _, decision)| (address.as_str(), decision.verdict))
        .collect();
    assert_eq!(
        decided,
        [("carol@b", Verdict::DenySoft), ("dave@b", Verdict::Deny)]
    );
}

#[tokio::test]
async fn single_recipients_are_judged_only_where_there_is_a_message() {
    let bob = Address::parse("bob@b").unwrap();
    let chain = Chain::new(vec![local("judge", Hook::Data, move |_| {
        Outcome::pass("").for_recipient(bob.clone(), Outcome::fail("no"))
    })]);
    let mut visit = Visit::default();
    let decision = run(&chain, &mut visit, Hook::Data).await;
    assert_eq!(decision.verdict, Verdict::DenySoft);
    assert!(visit.decided.is_empty());
}

/// What holds for a user that is found while the chain runs.
fn found(chain: &Chain, plugin: &str, made: Option<Arc<Made>>, policy: Policy) -> Arc<Profile> {
    let special = Special {
        plugin: plugin.into(),
        rules: Rules::new(policy, Policy::default(), None, None),
        origins: Default::default(),
        made,
    };
    chain.make_profile(Distinct {
        specials: vec![special],
        ..Distinct::default()
    })
}

fn made(setting: i64, hook: Hook, respond: fn(&Call<'_>) -> Outcome) -> Arc<Made> {
    let plugin = local("made", hook, respond).plugin;
    let settings = [("n".to_owned(), setting.into())].into();
    Arc::new(Made::new(settings, Vec::new(), Some(plugin)))
}

#[tokio::test]
async fn where_any_recipient_may_differ_every_failure_waits_for_them() {
    let refuses = || vec![local("refuses", Hook::Mail, |_| Outcome::fail("no"))];
    let mut visit = Visit::default();
    let closed = Chain::new(refuses());
    let decision = closed.run(&mut visit, Hook::Mail, &Args::None, None).await;
    assert_eq!(decision.verdict, Verdict::Deny);

    let open = Distinctions {
        is_open: true,
        ..Distinctions::default()
    };
    let chain = Chain::with_distinctions(refuses(), open);
    assert_eq!(chain.max_size().map(|most| most.bytes), Some(u64::MAX));
    let decision = chain.run(&mut visit, Hook::Mail, &Args::None, None).await;
    assert_eq!(decision.verdict, Verdict::Declined);
    let decision = chain.run(&mut visit, Hook::Rcpt, &Args::None, None).await;
    assert_eq!(
        decision.verdict,
        Verdict::Deny,
        "nothing else is known of it"
    );
    let tolerates = Policy {
        reject: Some(Reject::Tolerate),
        ..Policy::default()
    };
    visit.profile = Some(found(&chain, "refuses", None, tolerates));
    let decision = chain.run(&mut visit, Hook::Rcpt, &Args::None, None).await;
    assert_eq!(decision.verdict, Verdict::Declined);
}

#[tokio::test]
async fn a_plugin_made_for_a_user_is_asked_where_the_chain_has_none() {
    let open = Distinctions {
        is_open: true,
        ..Distinctions::default()
    };
    let chain =
        Chain::with_distinctions(vec![local("x", Hook::Mail, |_| Outcome::declined())], open);
    let own = made(1, Hook::Rcpt, |_| Outcome::fail("only here"));
    let mut visit = Visit::default();
    assert_eq!(chain.asked_at(Hook::Rcpt).count(), 0, "nobody is listed");
    let decision = chain.run(&mut visit, Hook::Rcpt, &Args::None, None).await;
    assert_eq!(decision.verdict, Verdict::Declined);
    visit.profile = Some(found(&chain, "x", Some(own), Policy::default()));
    let decision = chain.run(&mut visit, Hook::Rcpt, &Args::None, None).await;
    assert_eq!(decision.verdict, Verdict::Deny);
}

#[tokio::test]
async fn who_is_asked_late_gives_no_points() {
    // The site's own gives some as well, or is not asked there.
    for (hook, points) in [(Hook::Connect, 2500), (Hook::Rcpt, 0)] {
        let gives = |_: &Call<'_>| Outcome::pass("").with_change(Change::score(2.5, "listed"));
        let open = Distinctions {
            is_open: true,
            ..Distinctions::default()
        };
        let chain = Chain::with_distinctions(vec![local("x", hook, gives)], open);
        let mut visit = Visit::default();
        run(&chain, &mut visit, Hook::Connect).await;
        let own = made(1, Hook::Connect, |_| {
            let points = Change::score(2.5, "listed");
            let asked = Change::connection_note("asked", true);
            Outcome::pass("").with_change(points).with_change(asked)
        });
        visit.profile = Some(found(&chain, "x", Some(own), Policy::default()));
        chain.run(&mut visit, Hook::Rcpt, &Args::None, None).await;
        assert!(visit.session.connection.notes.contains_key("asked"));
        assert_eq!(visit.session.score(), points, "{hook}");
    }
}

#[test]
fn who_has_equal_settings_is_judged_together() {
    let chain = Chain::new(vec![
        local("early", Hook::Mail, |_| Outcome::declined()),
        local("late", Hook::DataPost, |_| Outcome::declined()),
    ]);
    let declines = |setting, hook| made(setting, hook, |_| Outcome::declined());
    let late = |setting| {
        let made = declines(setting, Hook::DataPost);
        found(&chain, "late", Some(made), Policy::default())
    };
    let (one, same, other) = (late(1), late(1), late(2));
    assert!(agree(Some(&one), Some(&one)));
    assert!(agree(Some(&one), Some(&same)), "made twice from the same");
    assert!(!agree(Some(&one), Some(&other)));
    assert!(!agree(Some(&one), None));
    // What only had a say before makes no difference any more.
    let made = declines(1, Hook::Mail);
    let early = found(&chain, "early", Some(made), Policy::default());
    assert!(agree(Some(&early), None));
}

#[tokio::test]
async fn a_plugin_whose_answer_makes_no_sense_has_failed() {
    let entry = |name, on_error| {
        let mut entry = local(name, Hook::UserConfig, |_| Outcome::ok(""));
        let policy = Policy {
            on_error,
            ..Policy::default()
        };
        entry.rules = Rules::new(policy, Policy::default(), None, None);
        entry
    };
    let chain = Chain::new(vec![
        entry("usual", None),
        entry("skips", Some(OnError::Skip)),
    ]);
    let fault = |plugin| chain.fault(Hook::UserConfig, plugin, "nonsense".to_owned());
    let decision = fault("usual").unwrap();
    assert_eq!(decision.verdict, Verdict::DenySoft);
    assert_eq!(decision.plugin.as_deref(), Some("usual"));
    assert!(fault("skips").is_none());
}
