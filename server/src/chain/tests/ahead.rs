//! Two hooks in one request.

use std::sync::Arc;

use gatepost_protocol::{Args, Field, Hook, Outcome, Policy, Verdict};

use super::super::{Chain, Decision, Entry, Upcoming, Visit};
use super::{Recorder, foreign, local, run, tolerated};

const HOOKS: [Hook; 2] = [Hook::MailPre, Hook::Mail];

async fn run_both(chain: &Chain, visit: &mut Visit) -> [Decision; 2] {
    let next = Upcoming {
        hook: Hook::Mail,
        args: &Args::None,
        transaction: 1,
    };
    let args = Args::None;
    let first = chain.run_then(visit, Hook::MailPre, &args, None, Some(next));
    [first.await, run(chain, visit, Hook::Mail).await]
}

fn members(host: &Arc<Recorder>, names: &[&str]) -> Vec<Entry> {
    let member = |name: &&str| foreign(name, host, &HOOKS, &[], tolerated());
    names.iter().map(member).collect()
}

#[tokio::test]
async fn who_has_nothing_to_say_is_asked_the_next_hook_at_once() {
    let host = Arc::new(Recorder::default());
    let mut all = members(&host, &["a", "b"]);
    all.push(foreign(
        "ok-c",
        &host,
        &[Hook::Mail],
        &[Field::Karma],
        Policy::default(),
    ));
    let chain = Chain::new(all);
    let [_, mail] = run_both(&chain, &mut Visit::default()).await;
    assert_eq!(
        host.asked(),
        ["mail_pre a,b []", "mail a,b,ok-c [karma]", "(at once)"]
    );
    assert_eq!(
        (mail.verdict, mail.plugin.as_deref()),
        (Verdict::Ok, Some("ok-c"))
    );
}

#[tokio::test]
async fn who_says_something_is_asked_the_next_hook_when_it_comes() {
    let host = Arc::new(Recorder::default());
    let chain = Chain::new(members(&host, &["a", "fail-b"]));
    run_both(&chain, &mut Visit::default()).await;
    assert_eq!(host.asked(), ["mail_pre a,fail-b []", "mail a,fail-b []"]);
}

#[tokio::test]
async fn nobody_is_asked_before_those_in_front_of_him() {
    let host = Arc::new(Recorder::default());
    let mut all = members(&host, &["a"]);
    all.insert(0, local("before", Hook::Mail, |_| Outcome::pass("")));
    let apart = ["mail_pre a []", "mail a []"];
    run_both(&Chain::new(all), &mut Visit::default()).await;
    assert_eq!(
        host.asked(),
        apart,
        "a plugin of the core comes first at the next"
    );

    let behind = local("behind", Hook::MailPre, |_| Outcome::pass(""));
    let mut all = members(&host, &["a"]);
    all.push(behind);
    run_both(&Chain::new(all), &mut Visit::default()).await;
    assert_eq!(host.asked(), apart, "one comes behind it at this one");

    let other = Arc::new(Recorder::default());
    let mut all = members(&host, &["a"]);
    all.insert(
        0,
        foreign("b", &other, &[Hook::Mail], &[], Policy::default()),
    );
    run_both(&Chain::new(all), &mut Visit::default()).await;
    assert_eq!(
        host.asked(),
        apart,
        "another process comes first at the next"
    );
}

#[tokio::test]
async fn what_was_said_ahead_counts_for_that_hook_alone() {
    let host = Arc::new(Recorder::default());
    let chain = Chain::new(members(&host, &["a"]));
    let mut visit = Visit::default();
    let next = Upcoming {
        hook: Hook::Mail,
        args: &Args::None,
        transaction: 1,
    };
    let args = Args::None;
    chain
        .run_then(&mut visit, Hook::MailPre, &args, None, Some(next))
        .await;
    assert_eq!(host.asked().len(), 3);
    // Something came in between after all.
    run(&chain, &mut visit, Hook::Noop).await;
    run(&chain, &mut visit, Hook::Mail).await;
    assert_eq!(host.asked(), ["mail a []"]);
}
