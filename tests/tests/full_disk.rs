//! A disk that is full, has no inodes left or can only be read, under each folder that the daemon writes to: 451 with the reason in the log, nothing acknowledged or left behind, and
//! recovery without a restart. What nobody was promised (the journal) costs no mail.

use std::thread::scope;

use gatepost::cli::transcript::Mailbox;
use gatepost_tests::server::Server;
use gatepost_tests::small_disk::{Fault, SmallDisk};
use gatepost_tests::smtp::Client;
use gatepost_tests::wait::until;

/// The ways in which any disk fails.
const FAULTS: [Fault; 4] = [
    Fault::NearlyFull,
    Fault::Full,
    Fault::NoInodes,
    Fault::ReadOnly,
];
/// The same, but what needs no file open.
const FULL: [Fault; 2] = [Fault::Full, Fault::NoInodes];

fn message() -> Vec<u8> {
    let mut message = b"Subject: large\r\n\r\n".to_vec();
    message.extend(b"this line is thirty-two bytes.\r\n".repeat(32 << 10));
    message
}

const SMALL: &[u8] = b"Subject: small\r\n\r\nhello\r\n";

/// With plugins that have messages kept for some recipients, and their senders told.
const DIVERTS: &str = r#"
mixed = "bounce"
[[plugin]]
name = "rcpt_ok"
hosts = ["example.org", "client.example"]
[[plugin]]
name = "judge"
run = ["python3", "$ROOT/tests/plugins/judge.py"]
env = { PYTHONPATH = "$ROOT/sdk-python/src" }
[[plugin]]
name = "queue/maildir"
"#;

const COUNTS: &str = r#"
state = "file:$DIR/disk/state"
[[plugin]]
name = "counts"
run = ["python3", "$DIR/counts.py"]
env = { PYTHONPATH = "$ROOT/sdk-python/src" }
on_error = "tempfail"
[[plugin]]
name = "rcpt_ok"
[[plugin]]
name = "queue/maildir"
[files]
"counts.py" = """
import gatepost

# Half of the disk: more than the store may have set aside for itself.
@gatepost.hook("mail")
def mail(session):
    for number in range(20):
        session.core.state_set(f"key {number}", b"x" * 100_000).result()

gatepost.run()
"""
"#;

/// A daemon for each fault, with this folder on a disk that has it: `test` is called while the disk fails, and when it is well again, which it is told.
fn each(
    folder: &str,
    head: &str,
    faults: &[Fault],
    test: impl Fn(&Server, &SmallDisk, Fault, bool) + Sync,
) {
    scope(|scope| {
        for fault in faults {
            scope.spawn(|| {
                let Some((mut server, disk)) = SmallDisk::below(folder, head) else {
                    return;
                };
                disk.fail(*fault);
                test(&server, &disk, *fault, false);
                disk.recover(*fault);
                test(&server, &disk, *fault, true);
                assert!(server.stop().success());
            });
        }
    });
}

/// The reply to a message for these recipients.
fn send(server: &Server, recipients: &[&str], message: &[u8]) -> String {
    let mut client = Client::greet(server.address());
    client.ask("MAIL FROM:<alice@client.example>", "250");
    for recipient in recipients {
        client.ask(&format!("RCPT TO:<{recipient}@example.org>"), "250");
    }
    client.ask("DATA", "354");
    client.send(message);
    client.send(b".\r\n");
    let reply = client.reply();
    client.ask("QUIT", "221");
    reply
}

fn is_told(server: &Server, fault: Fault, who: &str) {
    server.wait_for_log("a line about the disk", |text| {
        text.contains(who) && text.contains(fault.reason())
    });
}

fn of_messages(folder: &str, who: &str) {
    let head = "[limits]\nmemory_per_message = \"64KB\"";
    each(folder, head, &FAULTS, |server, disk, fault, is_well| {
        let delivered = || {
            let there = Mailbox::new(disk.path("")).unseen(None).len();
            there.max(server.delivered().len())
        };
        if is_well {
            let reply = send(server, &["bob"], &message());
            assert!(reply.starts_with("250 2."), "{fault:?}: {reply:?}");
            assert_eq!(delivered(), 1);
            return;
        }
        for _ in 0..2 {
            let reply = send(server, &["bob"], &message());
            assert!(reply.starts_with("451 4.3."), "{fault:?}: {reply:?}");
        }
        is_told(server, fault, who);
        assert_eq!(delivered(), 0);
    });
}

#[test]
fn of_the_spool() {
    of_messages("spool", "spool");
}

#[test]
fn of_the_maildir() {
    of_messages("mail", "queue/maildir");
}

/// A message of which somebody is to be told, and one that is to be kept: neither is acknowledged while the folder of both takes nothing. Ann, who took hers, gets it a second time:
/// better than that nobody is told of the other's.
#[test]
fn of_the_outbox_and_the_quarantine() {
    for recipients in [&["hold"][..], &["quarantine"], &["ann", "hard"]] {
        each(
            "spool",
            DIVERTS,
            &FAULTS[1..],
            |server, _, fault, is_well| {
                let reply = send(server, recipients, SMALL);
                let code = if is_well { "250 2." } else { "451 4.3." };
                assert!(
                    reply.starts_with(code),
                    "{recipients:?}, {fault:?}: {reply:?}"
                );
                if !is_well {
                    is_told(server, fault, "");
                } else if recipients.len() == 2 {
                    until("Ann's copies, and the notification", || {
                        Some(()).filter(|()| server.delivered().len() == 3)
                    });
                }
            },
        );
    }
}

/// What plugins keep: the one that needs it fails, and its policy says what that costs.
#[test]
fn of_the_state() {
    each("disk", COUNTS, &FULL, |server, _, fault, is_well| {
        let mut client = Client::greet(server.address());
        let code = if is_well { "250" } else { "4" };
        client.ask("MAIL FROM:<alice@client.example>", code);
        if !is_well {
            is_told_of_state(server, fault);
        }
    });
}

fn is_told_of_state(server: &Server, fault: Fault) {
    let line = server.wait_for_log("a line about the state", |text| {
        text.contains("counts: error") && text.contains("state: ")
    });
    let said = match fault {
        Fault::NoInodes => "unable to open database file",
        _ => "database or disk is full",
    };
    assert!(line.contains(said), "{line}");
}

/// It is for the operator, and costs no client anything.
#[test]
fn of_the_journal() {
    let head = "journal = \"8MB\"";
    each("spool", head, &FULL, |server, disk, fault, is_well| {
        let mut client = Client::greet(server.address());
        let session = || client.deliver(SMALL);
        let reply = std::iter::repeat_with(session).take(20).last();
        assert!(reply.is_some_and(|reply| reply.starts_with("250 2.")));
        if is_well {
            until("records in the journal", || {
                let segments = std::fs::read_dir(disk.path("journal")).ok()?;
                let sizes = segments.map(|segment| segment.and_then(|one| one.metadata()));
                let size: u64 = sizes
                    .map(|metadata| metadata.map_or(0, |one| one.len()))
                    .sum();
                (size > 20 * 200).then_some(())
            });
        } else if fault == Fault::Full {
            is_told(server, fault, "journal: cannot write");
        }
    });
}
