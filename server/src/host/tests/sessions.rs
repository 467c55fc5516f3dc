//! Which session is at which worker.

use std::time::Duration;

use gatepost_protocol::plugin::{Host, Wants};
use gatepost_protocol::wire::EventMessage;
use gatepost_protocol::{Disposition, Hook, Session};

use super::fake::{ALL, LONG, Pair, Says, call, hook, ready, said, session, until, vip};

/// Asks, and answers as the process; says whether the hook had `resumed`.
async fn resumed(pair: &mut Pair, session: &Session) -> bool {
    let process = pair.process().clone();
    let (wants, rcpt) = (Wants::default(), call(Hook::Rcpt, session, LONG));
    let (outcomes, resumed) = tokio::join!(process.ask(&["vip"], &wants, &rcpt), async {
        let hook = pair.peer.hook().await;
        pair.peer.answer(hook.id, vec![said("vip", "here")]);
        hook.resumed == Some(true)
    });
    assert_eq!(outcomes[0].message, "here");
    resumed
}

#[tokio::test]
async fn after_a_death_the_first_hook_of_a_session_is_resumed() {
    let mut pair = vip(&[hook("rcpt")]).await;
    let (old, new) = (session("old"), session("new"));
    assert!(!resumed(&mut pair, &old).await);
    // It dies while a hook is in flight.
    let process = pair.process().clone();
    let (wants, rcpt) = (Wants::default(), call(Hook::Rcpt, &old, LONG));
    let Pair { fake, peer, .. } = pair;
    let mut peer = peer;
    let (outcomes, ()) = tokio::join!(process.ask(&["vip"], &wants, &rcpt), async move {
        peer.hook().await;
    });
    assert_eq!(outcomes[0].disposition, Some(Disposition::Error));
    let message = &outcomes[0].message;
    assert!(
        message.starts_with("vip gave no answer at rcpt, after "),
        "{message}"
    );
    assert!(message.ends_with(": it closed the connection"), "{message}");
    // While it is away the answer is there at once.
    let away = tokio::time::timeout(
        Duration::from_millis(500),
        process.ask(&["vip"], &wants, &rcpt),
    );
    let away = away.await.unwrap().remove(0);
    assert!(
        away.message
            .ends_with(": its process is down: it closed the connection"),
        "{away:?}"
    );

    let says = Says {
        features: ALL,
        ready: ready(8, &[("vip", &[hook("rcpt")])]),
    };
    let peer = fake.serve(&says).await;
    assert_eq!(peer.init.worker, 1);
    let (processes, started) = (pair.processes, pair.started);
    let mut pair = Pair {
        fake,
        peer,
        processes,
        started,
    };
    let event = call(Hook::ResetTransaction, &old, LONG);
    until("it is up", || {
        let dropped = process.counts().dropped_events;
        process.tell(&["vip"], &wants, &event);
        process.counts().dropped_events == dropped
    })
    .await;
    let EventMessage(_) = pair.peer.next("event").await;
    assert!(resumed(&mut pair, &old).await, "an event does not count");
    assert!(!resumed(&mut pair, &old).await, "only the first");
    assert!(
        !resumed(&mut pair, &new).await,
        "a new session was nowhere before"
    );
    assert_eq!(process.counts().restarts, 1);
}

#[tokio::test]
async fn the_end_of_a_session_is_told_to_who_saw_it_and_nobody_else() {
    let mut pair = vip(&[hook("rcpt")]).await;
    let (seen, unseen) = (session("seen"), session("unseen"));
    resumed(&mut pair, &seen).await;
    let process = pair.process().clone();
    let wants = Wants::default();
    for session in [&unseen, &seen, &seen] {
        process.tell(&[], &wants, &call(Hook::Disconnect, session, LONG));
    }
    let EventMessage(event) = pair.peer.next("event").await;
    assert_eq!((&*event.session, event.plugins.len()), ("seen", 0));
    assert!(pair.peer.is_quiet().await);
    assert_eq!(process.counts().dropped_events, 0);
}

#[tokio::test]
async fn a_plugin_that_is_unknown_here_is_an_error_and_no_request() {
    let mut pair = vip(&[hook("rcpt")]).await;
    let session = session("s");
    let (wants, rcpt) = (Wants::default(), call(Hook::Rcpt, &session, LONG));
    let outcomes = pair.process().ask(&["other"], &wants, &rcpt).await;
    assert!(
        outcomes[0]
            .message
            .ends_with("its process does not hold it")
    );
    assert!(pair.peer.is_quiet().await);
}
