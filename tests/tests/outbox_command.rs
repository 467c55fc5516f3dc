//! `gatepost outbox` while the daemon runs, and after it.

use std::process::Command;

use gatepost_tests::server::{Server, gatepost};
use gatepost_tests::smtp::Client;
use gatepost_tests::wait::until;

/// Bob refuses what has no author, Carol does not mind; nobody reaches the server for our own mail.
const HEAD: &str = r#"
mixed = "bounce"
[outbox]
retry = "1h"
[[plugin]]
name = "headers"
require = ["From"]
reject = false
[[plugin]]
name = "rcpt_ok"
[[plugin]]
name = "queue/smtp-forward"
server = "127.0.0.1"
port = 1
when = 'direction == "local"'
[[plugin]]
name = "queue/maildir"
[user."bob@example.org".plugin.headers]
reject = true
"#;

/// Runs `gatepost outbox` with these words: exit code, standard output, standard error.
fn outbox(server: &Server, words: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(gatepost())
        .arg("outbox")
        .args(words)
        .arg("-c")
        .arg(server.dir().join("gatepost.toml"))
        .output()
        .expect("the program can be started");
    let text = |bytes| String::from_utf8(bytes).expect("it is UTF-8");
    (
        output.status.code(),
        text(output.stdout),
        text(output.stderr),
    )
}

fn listed(server: &Server) -> Vec<String> {
    let (code, text, errors) = outbox(server, &["list"]);
    assert_eq!((code, errors.as_str()), (Some(0), ""));
    text.lines().map(str::to_owned).collect()
}

#[test]
fn list_show_retry_remove() {
    let mut server = Server::start(HEAD);
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
    let mut server = Server::start(HEAD);
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
    server.start_again(HEAD);
    server.wait_for_log("a second attempt", |text| {
        text.starts_with("outbox: 1 recipients wait after attempt 2")
    });
}
