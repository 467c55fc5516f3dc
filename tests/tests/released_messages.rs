//! What a plugin diverted at `queue` is delivered when somebody releases it, whatever the plugin says again.

use std::process::Command;

use gatepost_tests::server::{Server, gatepost};
use gatepost_tests::smtp::Client;
use gatepost_tests::wait::until;

#[test]
fn nothing_diverts_them_again() {
    let server = Server::start(
        r#"
        [[plugin]]
        name = "rcpt_ok"
        [[plugin]]
        name = "judge"
        run = ["python3", "$ROOT/tests/plugins/judge.py"]
        env = { PYTHONPATH = "$ROOT/sdk-python/src" }
        [[plugin]]
        name = "queue/maildir"
        "#,
    );
    let quarantine = |words: &[&str]| {
        let output = Command::new(gatepost())
            .arg("quarantine")
            .args(words)
            .arg("-c")
            .arg(server.dir().join("gatepost.toml"))
            .output()
            .expect("the program can be started");
        assert!(output.status.success(), "{words:?}");
        String::from_utf8(output.stdout).expect("it is UTF-8")
    };
    for (number, name) in ["late-quarantine", "late-all-hold"].iter().enumerate() {
        let mut client = Client::greet(server.address());
        client.ask("MAIL FROM:<alice@client.example>", "250");
        client.ask(&format!("RCPT TO:<{name}@example.org>"), "250");
        client.ask("DATA", "354");
        client.send(b"Subject: x\r\n\r\nx\r\n.\r\n");
        client.expect("250");
        let list = quarantine(&["list"]);
        let (id, about) = list.split_once(' ').expect("it is there");
        assert!(about.contains("by judge: looks bad"), "{list}");
        quarantine(&["release", id]);
        until("the message is delivered", || {
            Some(()).filter(|()| server.delivered().len() > number)
        });
        assert_eq!(quarantine(&["list"]), "");
    }
}
