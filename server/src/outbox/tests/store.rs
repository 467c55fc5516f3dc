//! Messages that are withheld, and released.

use std::sync::Barrier;
use std::time::SystemTime;

use super::super::store::{Kind, Why, release};
use super::*;

const QUARANTINED: Why<'_> = Why {
    kind: Kind::Quarantine,
    plugin: "spamassassin",
    reason: "score 9.1",
};

const HELD: Why<'_> = Why {
    kind: Kind::Hold,
    plugin: "hours",
    reason: "",
};

const DAY: Millis = 24 * 60 * 60 * 1000;

impl Bed {
    fn folder(&self) -> Folder {
        Folder::below(&self.config.spool_dir)
    }

    fn envelope(&self, id: &str) -> Envelope {
        self.folder().read(id).unwrap()
    }

    fn claim(&self, id: &str) -> Box<super::super::folder::Claim> {
        match self.folder().claim(id).unwrap() {
            Claimed::Ours(claim) => claim,
            _ => panic!("{id} is there, and nobody has it"),
        }
    }

    /// Releases a message as the command line does.
    fn release(&self, id: &str, only: &[Address]) -> io::Result<()> {
        release(
            &self.folder(),
            &self.claim(id),
            only,
            millis(SystemTime::now()),
        )?;
        self.folder().say_changed()
    }
}

fn addresses(names: &[&str]) -> Vec<Address> {
    names
        .iter()
        .map(|name| Address::parse(name).unwrap())
        .collect()
}

fn bob() -> Vec<Address> {
    addresses(&["bob@example.org"])
}

/// Puts a message for Bob into quarantine; its name.
async fn quarantined(outbox: &Outbox) -> String {
    let (session, message) = incoming("x\r\n", &["bob@example.org"]);
    let store = outbox.store();
    store
        .keep(&QUARANTINED, &session, &bob(), &message)
        .await
        .unwrap()
}

#[tokio::test]
async fn nobody_tries_it_before_it_is_released_and_then_it_is_as_it_came() {
    let bed = Bed::new();
    let running = bed.run(|_, _| Outcome::ok(""));
    let (mut session, message) = incoming(
        "hello\r\n",
        &["eve@example.org", "bob@example.org", "carol@example.org"],
    );
    session.connection.authenticated = Some("alice".to_owned());
    let transaction = &mut session.transaction;
    let notify = Parameters::from([("NOTIFY".to_owned(), Some("NEVER".to_owned()))]);
    transaction.recipient_parameters = vec![Parameters::new(), notify.clone(), Parameters::new()];
    transaction
        .routes
        .insert(bob().remove(0), "west".to_owned());
    let header = transaction.header.as_mut().unwrap();
    header.add("X-Added", b"1", true).unwrap();
    transaction.quarantine = Some("odd".to_owned());
    let store = running.outbox.store();
    let id = store
        .keep(&QUARANTINED, &session, &bob(), &message)
        .await
        .unwrap();
    let envelope = bed.envelope(&id);
    let withheld = envelope.withheld.as_ref().unwrap();
    assert_eq!(withheld.kind, Kind::Quarantine);
    assert_eq!(withheld.plugin, "spamassassin");
    assert_eq!(withheld.reason, "score 9.1");
    assert_eq!(envelope.origin, "3f9a1c.2");

    // What comes after it is delivered.
    let (another, short) = incoming("x\r\n", &["dan@example.org"]);
    running.outbox.keep(&another, &short, "").await.unwrap();
    let delivered = |times| {
        let began = std::time::Instant::now();
        let (seen, bed) = (Arc::clone(&running.seen), &bed);
        async move {
            while seen.lock().unwrap().len() < times || bed.files().len() > 4 - 2 * times {
                assert!(began.elapsed() < PATIENCE, "{:?}", bed.files());
                tokio::task::yield_now().await;
            }
        }
    };
    delivered(1).await;
    assert!(bed.envelope(&id).withheld.is_some());

    bed.release(&id, &[]).unwrap();
    delivered(2).await;
    let seen = running.seen(2).await;
    assert_eq!(to(&seen[0]), ["dan@example.org"]);
    let Seen { session: got, text } = &seen[1];
    assert_eq!(*text, format!("X-Added: 1\r\n{HEADER}\r\nhello\r\n"));
    assert_eq!(*got.id, *id);
    assert_eq!(got.connection.direction, Direction::Inbound);
    assert_eq!(got.connection.remote, session.connection.remote);
    assert_eq!(got.connection.authenticated.as_deref(), Some("alice"));
    let transaction = &got.transaction;
    assert_eq!(transaction.recipients, bob());
    assert_eq!(transaction.parameters_of(0), &notify);
    assert_eq!(transaction.route.as_deref(), Some("west"));
    assert_eq!(transaction.sender, session.transaction.sender);
    assert_eq!(transaction.number, 1);
    assert_eq!(transaction.header_end + 2, transaction.body_start);
    // Who releases it says that it is not to be set apart.
    assert_eq!(transaction.quarantine, None);
}

#[tokio::test]
async fn what_is_held_keeps_its_mark_and_its_days_do_not_count() {
    let bed = Bed::new();
    let outbox = bed.open();
    let (mut session, message) = incoming("x\r\n", &["bob@example.org"]);
    session.transaction.quarantine = Some("odd".to_owned());
    let store = outbox.store();
    let id = store.keep(&HELD, &session, &bob(), &message).await.unwrap();
    let held = bed.envelope(&id);
    let later = held.arrived + 20 * DAY;
    release(&bed.folder(), &bed.claim(&id), &[], later).unwrap();
    let released = bed.envelope(&id);
    assert_eq!(released.withheld, None);
    assert_eq!(released.quarantine.as_deref(), Some("odd"));
    assert_eq!(released.arrived, held.arrived);
    assert_eq!(released.due, later);
    assert_eq!(
        released.after(bed.config.outbox.max_age),
        later + millis_of(bed.config.outbox.max_age)
    );
    assert_eq!(released.reason, "released; it was held by hours: ");
}

#[tokio::test]
async fn a_copy_for_one_recipient_leaves_the_others() {
    let bed = Bed::new();
    let outbox = bed.open();
    let both = addresses(&["bob@example.org", "eve@example.org"]);
    let (session, message) = incoming("x\r\n", &["bob@example.org", "eve@example.org"]);
    let store = outbox.store();
    let id = store
        .keep(&QUARANTINED, &session, &both, &message)
        .await
        .unwrap();
    let stranger = addresses(&["bob@example.org", "mallory@example.org"]);
    let error = bed.release(&id, &stranger).unwrap_err().to_string();
    assert!(error.contains("not for <mallory@example.org>"), "{error}");
    assert_eq!(bed.files(), ["json", "msg"]);
    bed.release(&id, &bob()).unwrap();
    let twice = bed.release(&id, &bob()).unwrap_err().to_string();
    assert!(twice.contains("not for <bob@example.org>"), "{twice}");

    let found = bed.folder().list().unwrap();
    assert_eq!(found.len(), 2);
    for entry in found {
        let envelope = entry.envelope.unwrap();
        let recipients: Vec<&str> = envelope
            .recipients
            .iter()
            .map(|recipient| recipient.address.as_str())
            .collect();
        match envelope.withheld {
            Some(_) => assert_eq!((&*entry.id, recipients), (&*id, vec!["eve@example.org"])),
            None => assert_eq!(recipients, ["bob@example.org"]),
        }
        let text = std::fs::read_to_string(bed.folder().bytes_of(&entry.id)).unwrap();
        assert_eq!(text, format!("{HEADER}\r\nx\r\n"));
    }
}

#[tokio::test]
async fn a_quarantined_message_goes_when_it_is_too_old_and_a_held_one_stays() {
    let bed = Bed::new();
    let (session, message) = incoming("x\r\n", &["bob@example.org"]);
    let outbox = bed.open();
    let store = outbox.store();
    let quarantined = quarantined(&outbox).await;
    let held = store.keep(&HELD, &session, &bob(), &message).await.unwrap();
    let arrived = bed.envelope(&quarantined).arrived;
    // One daemon knows when it goes as well as the next.
    for outbox in [outbox, bed.open()] {
        outbox.store().expire(arrived + 30 * DAY - 1).await;
        assert_eq!(bed.folder().list().unwrap().len(), 2);
    }
    let outbox = bed.open();
    outbox.store().expire(arrived + 30 * DAY).await;
    let left = bed.folder().list().unwrap();
    let left: Vec<&str> = left.iter().map(|found| &*found.id).collect();
    assert_eq!(left, [held.as_str()]);
    outbox.store().expire(arrived + 10_000 * DAY).await;
    assert_eq!(bed.files(), ["json", "msg"]);
}

#[tokio::test]
async fn a_released_message_does_not_go_for_its_age() {
    let bed = Bed::new();
    let outbox = bed.open();
    let store = outbox.store();
    let id = quarantined(&outbox).await;
    bed.release(&id, &[]).unwrap();
    // Before the daemon has seen that, and after.
    store.expire(Millis::MAX / 2).await;
    outbox.reread().unwrap();
    store.expire(Millis::MAX / 2).await;
    assert_eq!(bed.envelope(&id).withheld, None);
    assert!(store.schedule.is_empty());
    assert_eq!(
        outbox.schedule.take_due(Millis::MAX / 2).as_deref(),
        Some(&*id)
    );
}

#[tokio::test]
async fn a_full_store_says_so_and_is_counted() {
    let bob = bob();
    for (messages, size) in [(1, 1 << 20), (100, 4000)] {
        let mut bed = Bed::new();
        bed.config.quarantine.max_messages = messages;
        bed.config.quarantine.max_size = size;
        let (session, message) = incoming(&"x\r\n".repeat(1000), &["bob@example.org"]);
        let outbox = bed.open();
        let store = outbox.store();
        let kept = store.keep(&HELD, &session, &bob, &message).await;
        let id = kept.unwrap();
        // Also for the next daemon.
        for outbox in [outbox, bed.open()] {
            let before = report::exceeded(report::Limit::Quarantine);
            let kept = outbox.store().keep(&HELD, &session, &bob, &message);
            let error = kept.await.unwrap_err().to_string();
            assert!(error.contains("under [quarantine]"), "{error}");
            assert_eq!(report::exceeded(report::Limit::Quarantine), before + 1);
            assert_eq!(bed.files(), ["json", "msg"]);
            // The outbox has room of its own.
            assert!(outbox.schedule.is_empty());
        }
        bed.release(&id, &[]).unwrap();
        let outbox = bed.open();
        let kept = outbox.store().keep(&HELD, &session, &bob, &message);
        kept.await.unwrap();
    }
}

#[tokio::test]
async fn it_is_withheld_whatever_a_crash_left() {
    let bed = Bed::new();
    let outbox = bed.open();
    let id = quarantined(&outbox).await;
    let dir = bed.folder().path().to_owned();
    // A release that did not get to its rename, and a message that did not get its envelope.
    let released = bed.envelope(&id).released(1);
    let released = serde_json::to_vec(&released).unwrap();
    std::fs::write(dir.join(format!("{id}.tmp")), released).unwrap();
    std::fs::write(dir.join("0123456789abcdef.msg"), "x").unwrap();
    let outbox = bed.open();
    assert_eq!(bed.files(), ["json", "msg"]);
    assert!(bed.envelope(&id).withheld.is_some());
    assert!(outbox.schedule.is_empty());
}

#[tokio::test]
async fn nothing_is_kept_for_nobody() {
    let bed = Bed::new();
    let outbox = bed.open();
    let (session, message) = incoming("x\r\n", &["bob@example.org"]);
    let nobody = addresses(&["eve@example.org"]);
    let kept = outbox
        .store()
        .keep(&HELD, &session, &nobody, &message)
        .await;
    kept.unwrap_err();
    assert!(bed.files().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_who_release_it_at_once_one_does() {
    let bed = Bed::new();
    let outbox = bed.open();
    let (session, message) = incoming("x\r\n", &["bob@example.org", "eve@example.org"]);
    let both = addresses(&["bob@example.org", "eve@example.org"]);
    for only in [Vec::new(), bob()] {
        for _ in 0..20 {
            let store = outbox.store();
            let id = store.keep(&HELD, &session, &both, &message).await.unwrap();
            let start = Barrier::new(2);
            let try_it = || {
                start.wait();
                // Another test's child may have the lock for a moment, between its fork and its exec: somebody has to get it.
                loop {
                    match bed.folder().claim(&id).unwrap() {
                        Claimed::Ours(claim) => {
                            return release(&bed.folder(), &claim, &only, 1).is_ok();
                        }
                        Claimed::Busy => std::thread::yield_now(),
                        Claimed::Gone => panic!("{id} is gone"),
                    }
                }
            };
            let released = std::thread::scope(|scope| {
                let threads = [scope.spawn(try_it), scope.spawn(try_it)];
                threads.map(|thread| thread.join().unwrap())
            });
            assert_eq!(released.iter().filter(|done| **done).count(), 1);
            let found = bed.folder().list().unwrap();
            let released = found.iter().filter(|found| {
                let envelope = found.envelope.as_ref().unwrap();
                envelope.withheld.is_none()
            });
            assert_eq!(released.count(), 1);
            for entry in found {
                bed.folder().remove(&bed.claim(&entry.id)).unwrap();
            }
        }
    }
}

#[test]
fn what_comes_while_the_folder_is_read_is_not_forgotten() {
    let bed = Bed::new();
    let outbox = bed.open();
    let schedule = &outbox.schedule;
    schedule.insert("old".into(), 1, 1);
    schedule.insert("gone".into(), 1, 1);
    let known = schedule.known();
    schedule.insert("new".into(), 1, 2);
    schedule.replace(known, [("old".into(), 1, 3)].into_iter());
    assert_eq!(schedule.take_due(9).as_deref(), Some("new"));
    assert_eq!(schedule.take_due(9).as_deref(), Some("old"));
    assert_eq!(schedule.take_due(9), None);
}
