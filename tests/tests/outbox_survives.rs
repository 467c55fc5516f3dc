//! What is in the outbox when the daemon is killed is delivered by the next one.

use gatepost_tests::refusals::{NOWHERE, bob_refuses};
use gatepost_tests::server::Server;
use gatepost_tests::smtp::Client;
use gatepost_tests::wait::until;
use nix::sys::signal::{Signal, kill};

/// `before` is what stands before the Maildirs in the chain.
fn head(before: &str) -> String {
    const SETTINGS: &str = r#"[outbox]
retry = "20ms"
max_notifications_per_sender = 100000
max_notifications = 100000"#;
    const MAILDIRS: &str = r#"
[[plugin]]
name = "queue/maildir"
path = "$DIR/mail/{local}"
"#;
    bob_refuses(SETTINGS, &format!("{before}{MAILDIRS}"))
}

/// Sends a message that Bob will refuse; whether it was acknowledged.
fn send(client: &mut Client, number: usize) -> bool {
    let commands = [
        "MAIL FROM:<alice@client.example>",
        "RCPT TO:<carol@example.org>",
        "RCPT TO:<bob@example.org>",
        "DATA",
    ];
    for command in commands {
        if !client.try_send(format!("{command}\r\n").as_bytes()) || client.try_reply().is_none() {
            return false;
        }
    }
    let text = format!("Subject: number {number}.\r\n\r\n.\r\n");
    client.try_send(text.as_bytes())
        && client
            .try_reply()
            .is_some_and(|reply| reply.starts_with("250"))
}

/// Notifications that were delivered about a message.
fn notifications(server: &Server, number: usize) -> usize {
    let files = gatepost::cli::transcript::files(&server.stage().mail.join("alice/new"));
    let subject = format!("Subject: number {number}.\r\n");
    let about = |file: &std::path::PathBuf| {
        let text = std::fs::read_to_string(file).expect("a notification can be read");
        text.contains(&subject)
    };
    files.iter().filter(|file| about(file)).count()
}

#[test]
fn a_kill_between_the_250_and_the_delivery() {
    let mut server = Server::start(&head(NOWHERE));
    let mut client = Client::greet(server.address());
    assert!(send(&mut client, 1));
    // It was tried, and will be tried again.
    server.wait_for_log("a second attempt", |text| {
        text.starts_with("outbox: 1 recipients wait after attempt 2")
    });
    assert_eq!(notifications(&server, 1), 0);
    server.start_again(&head(""));
    until("an empty outbox", || {
        server.spooled().is_empty().then_some(())
    });
    assert_eq!(notifications(&server, 1), 1);
}

#[test]
fn kills_at_any_moment() {
    let mut server = Server::start(&head(""));
    let mut acknowledged = Vec::new();
    let mut next = 0;
    for round in 0..8 {
        let mut client = Client::greet(server.address());
        for _ in 0..2 {
            assert!(send(&mut client, next));
            acknowledged.push(next);
            next += 1;
        }
        let pid = server.pid();
        let killer = std::thread::spawn(move || {
            // At another moment of what follows each time.
            std::thread::sleep(std::time::Duration::from_millis(3 * round));
            kill(pid, Signal::SIGKILL)
        });
        while send(&mut client, next) {
            acknowledged.push(next);
            next += 1;
        }
        next += 1;
        let killed = killer.join().expect("the thread does not panic");
        killed.expect("the daemon was there");
        server.start_again(&head(""));
    }
    until("an empty outbox", || {
        server.spooled().is_empty().then_some(())
    });
    let lost = |number: &&usize| notifications(&server, **number) == 0;
    let lost: Vec<&usize> = acknowledged.iter().filter(lost).collect();
    assert!(lost.is_empty(), "{lost:?} of {}", acknowledged.len());
}
