//! The order that plugins ask for, and delays.

use std::time::Duration;

use gatepost_protocol::Priority;

use super::*;
use crate::chain::MAX_DELAY;
use crate::config::Shadow;
use crate::report::{self, Limit};

/// A plugin of a host, with a place of its own at `mail`, and as an observer.
fn placed(name: &str, host: &Arc<Recorder>, priority: Priority, observe: bool) -> Entry {
    let mut subscription = Subscription::to(Hook::Mail, &[]).at(priority);
    subscription.observe = observe;
    let plugin = Small {
        subscriptions: vec![subscription],
        respond: Box::new(|_| Outcome::declined()),
        host: Some(host.clone()),
    };
    entry(name, plugin, Policy::default())
}

#[tokio::test]
async fn plugins_stand_by_their_priority_and_then_as_configured() {
    let (one, other) = (Arc::new(Recorder::default()), Arc::default());
    let (usual, at) = (Priority::default(), Priority::At);
    let chain = Chain::new(vec![
        placed("last", &one, Priority::Last, false),
        placed("a", &one, usual, false),
        placed("stranger", &other, at(1), false),
        placed("b", &one, usual, false),
        placed("first-b", &one, Priority::First, false),
        placed("late", &one, at(2), false),
        placed("early", &one, at(-7), false),
        placed("first-c", &one, Priority::First, false),
        placed("sees-last", &one, Priority::Last, true),
        placed("sees", &one, usual, true),
    ]);
    let mut asked: Vec<_> = chain.asked_at(Hook::Mail).collect();
    assert_eq!(
        asked.remove(0),
        ["first-b", "first-c", "early", "a", "b"],
        "neighbours are so by their priority"
    );
    assert_eq!(asked, [vec!["stranger"], vec!["late", "last"]]);
    assert_eq!(
        chain.told_of(Hook::Mail).collect::<Vec<_>>(),
        ["sees", "sees-last"]
    );
    run(&chain, &mut Visit::default(), Hook::Mail).await;
    assert_eq!(
        *one.asked.lock().unwrap(),
        ["mail first-b,first-c,early,a,b []", "mail late,last []"]
    );
}

#[tokio::test]
async fn ok_to_lines_ends_that_plugins_part_in_the_message_and_nobody_elses() {
    let host = Arc::new(Recorder::default());
    let hooks = [Hook::DataLines];
    let chain = Chain::new(vec![
        foreign("ok-a", &host, &hooks, &[], Policy::default()),
        foreign("b", &host, &hooks, &[], Policy::default()),
        local("c", Hook::DataLines, |_| Outcome::ok("seen enough")),
        foreign("d", &host, &hooks, &[], Policy::default()),
    ]);
    let mut visit = Visit::default();
    for _ in 0..2 {
        let decision = run(&chain, &mut visit, Hook::DataLines).await;
        assert_eq!(decision.verdict, Verdict::Declined);
    }
    let asked = std::mem::take(&mut *host.asked.lock().unwrap());
    let block = ["data_lines ok-a,b []", "data_lines b []", "data_lines d []"];
    assert_eq!(asked[..3], block);
    assert_eq!(asked[3..], ["data_lines b []", "data_lines d []"]);
    visit.begin_message();
    run(&chain, &mut visit, Hook::DataLines).await;
    assert_eq!(*host.asked.lock().unwrap(), block, "another message");
}

#[tokio::test]
async fn whether_anybody_still_wants_lines() {
    for seen_enough in [
        Verdict::Ok,
        Verdict::Discard,
        Verdict::Quarantine,
        Verdict::Hold,
    ] {
        let chain = Chain::new(vec![local("a", Hook::DataLines, move |_| {
            Outcome::declined().with_verdict(seen_enough)
        })]);
        let mut visit = Visit::default();
        assert!(chain.wants_lines(&visit));
        run(&chain, &mut visit, Hook::DataLines).await;
        assert!(!chain.wants_lines(&visit));
    }
}

#[tokio::test]
async fn delays_add_up_to_a_bound_and_those_of_shadows_do_not_count() {
    let seconds = Duration::from_secs;
    let slow = |name, delay| {
        let found = move |_: &Call<'_>| Outcome::pass("").delayed(delay);
        local(name, Hook::Mail, found)
    };
    let mut shadow = slow("shadow", seconds(7));
    shadow.rules = shadow.rules.shadowed(Shadow::On);
    let chain = Chain::new(vec![slow("a", seconds(2)), shadow, slow("b", seconds(3))]);
    let mut visit = Visit {
        trace: Some(Box::default()),
        ..Visit::default()
    };
    run(&chain, &mut visit, Hook::Mail).await;
    assert_eq!(visit.delay, seconds(5));
    let trace = visit.trace.unwrap().rest(&visit.session).unwrap();
    let trace = String::from_utf8(trace).unwrap();
    for told in ["delay 2s", "delay 7s", "delay 3s"] {
        assert!(trace.contains(told), "{told} in {trace}");
    }
    let cut = report::exceeded(Limit::PluginDelay);
    let chain = Chain::new(vec![
        slow("a", MAX_DELAY),
        slow("b", Duration::from_millis(1)),
    ]);
    let mut visit = Visit::default();
    run(&chain, &mut visit, Hook::Mail).await;
    assert_eq!(visit.delay, MAX_DELAY);
    assert_eq!(report::exceeded(Limit::PluginDelay), cut + 1);
}

#[tokio::test]
async fn nobody_waits_where_there_is_no_reply() {
    for hook in Hook::ALL {
        let delayed = |_: &Call<'_>| Outcome::declined().delayed(Duration::from_secs(1));
        let chain = Chain::new(vec![local("a", hook, delayed)]);
        let mut visit = Visit::default();
        run(&chain, &mut visit, hook).await;
        let expected = u64::from(hook.has_reply());
        assert_eq!(visit.delay, Duration::from_secs(expected), "{hook}");
    }
}
