//! `gatepost outbox` while the daemon runs, and after it.

use gatepost_tests::refusals::{NOWHERE, bob_refuses};
use gatepost_tests::server::Server;
use gatepost_tests::smtp::Client;
use gatepost_tests::wait::until;

/// Nobody reaches the server for our own mail.
fn head() -> String {
    let queue = format!("{NOWHERE}[[plugin]]\nname = \"queue/maildir\"\n");
    bob_refuses("[outbox]\nretry = \"1h\"", &queue)
}

/// Runs `gatepost outbox` with these words.
fn outbox(server: &Server, words: &[&str]) -> (Option<i32>, String, String) {
    server.command(&[&["outbox"], words].concat())
}

fn listed(server: &Server) -> Vec<String> {
    let (code, text, errors) = outbox(server, &["list"]);
    assert_eq!((code, errors.as_str()), (Some(0), ""));
    text.lines().map(str::to_owned).collect()
}

#[test]
fn list_show_retry_remove() {
    let mut server = Server::start(&head());
    assert_eq!(listed(&server), [""; 0]);
    let mut client = Client::greet(server.address());
    client.ask("MAIL FROM:<alice@client.example>", "250");
    client.ask("RCPT TO:<carol@example.org>", "250");
    client.ask("RCPT TO:<bob@example.org>", "250");
    client.ask("DATA", "354");
    client.ask("Subject: x\r\n\r\nhello\r\n.", "250");
    client.ask("QUIT", "221");
    let line = until("an attempt", || {
        let mut lines = listed(&server).into_iter();
        lines.find(|line| line.contains("attempts 1 next in"))
    });
    let (id, line) = line.split_once(' ').expect("an ID, and more");
    assert!(line.starts_with("notification age "), "{line}");
    assert!(
        line.contains(" from <> to <alice@client.example>: 451 "),
        "{line}"
    );
    let (code, text, _) = outbox(&server, &["show", id]);
    assert_eq!(code, Some(0));
    assert!(text.contains("\"kind\": \"notification\""), "{text}");
    assert!(
        text.contains("Final-Recipient: rfc822; bob@example.org\r\n"),
        "{text}"
    );

    assert_eq!(
        outbox(&server, &["retry", id]),
        (Some(0), String::new(), String::new())
    );
    server.wait_for_log("a second attempt", |text| {
        text.starts_with("outbox: 1 recipients wait after attempt 2")
    });
    // It is written down before the lock is given back.
    let removed = until("a removal", || {
        let done = outbox(&server, &["remove", id]);
        (!done.2.contains("being delivered")).then_some(done)
    });
    assert_eq!(removed, (Some(0), String::new(), String::new()));
    assert_eq!(listed(&server), [""; 0]);
    let (code, _, error) = outbox(&server, &["retry", id]);
    assert_eq!(code, Some(1));
    assert!(
        error.contains(&format!("there is no message {id}")),
        "{error}"
    );
    let (code, _, error) = outbox(&server, &["show", "../gatepost"]);
    assert_eq!(code, Some(2));
    assert!(error.contains("is no ID"), "{error}");
    assert!(server.stop().success());
}

#[test]
fn what_is_due_after_a_start_was_retried_before_it() {
    let mut server = Server::start(&head());
    let mut client = Client::greet(server.address());
    client.ask("MAIL FROM:<alice@client.example>", "250");
    client.ask("RCPT TO:<carol@example.org>", "250");
    client.ask("RCPT TO:<bob@example.org>", "250");
    client.ask("DATA", "354");
    client.ask("Subject: x\r\n\r\nhello\r\n.", "250");
    server.wait_for_log("an attempt", |text| {
        text.starts_with("outbox: 1 recipients wait after attempt 1")
    });
    assert!(server.stop().success());
    let line = &listed(&server)[0];
    let id = line.split(' ').next().expect("an ID");
    assert_eq!(outbox(&server, &["retry", id]).0, Some(0));
    server.start_again(&head());
    server.wait_for_log("a second attempt", |text| {
        text.starts_with("outbox: 1 recipients wait after attempt 2")
    });
}
