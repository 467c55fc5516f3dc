//! A message that is to be kept in the store and cannot be: 451, and never 250. Where the client hears of each recipient it is told so of those alone.

use gatepost_tests::server::Server;
use gatepost_tests::smtp::Client;

/// A daemon whose plugin diverts messages as `judge.py` says, and whose store can keep nothing: a file stands in the place of its folder.
fn without_store(head: &str) -> Server {
    let server = Server::start(&format!(
        r#"
        {head}
        [[plugin]]
        name = "rcpt_ok"
        [[plugin]]
        name = "judge"
        run = ["python3", "$ROOT/tests/plugins/judge.py"]
        env = {{ PYTHONPATH = "$ROOT/sdk-python/src" }}
        [[plugin]]
        name = "queue/maildir"
        "#
    ));
    let outbox = server.stage().spool.join("outbox");
    if outbox.exists() {
        std::fs::remove_dir_all(&outbox).expect("the test may remove it");
    }
    std::fs::write(&outbox, "").expect("the test may write there");
    server
}

/// The codes of the replies to a message.
fn send(server: &Server, hello: &str, mail: &str, recipients: &[&str]) -> Vec<String> {
    let mut client = Client::connect(server.address());
    client.ask(&format!("{hello} client.example"), "250");
    client.ask(&format!("MAIL FROM:<alice@client.example>{mail}"), "250");
    for recipient in recipients {
        client.ask(&format!("RCPT TO:<{recipient}@example.org>"), "250");
    }
    client.ask("DATA", "354");
    client.send(b"Subject: x\r\n\r\nx\r\n.\r\n");
    let replies = match (hello, mail) {
        ("LHLO", _) => recipients.len(),
        (_, " PRDR") => recipients.len() + 2,
        _ => 1,
    };
    (0..replies)
        .map(|_| client.reply()[..3].to_owned())
        .collect()
}

#[test]
fn a_client_that_hears_of_no_recipient_is_to_come_again_for_all() {
    for mixed in ["split", "bounce", "discard", "reject"] {
        let server = without_store(&format!("mixed = \"{mixed}\""));
        for recipients in [
            &["hold"][..],
            &["ann", "quarantine"],
            &["discard", "all-hold"],
        ] {
            let replies = send(&server, "EHLO", "", recipients);
            assert_eq!(replies, ["451"], "{mixed}, {recipients:?}");
        }
        assert_eq!(send(&server, "EHLO", "", &["discard"]), ["250"]);
        assert_eq!(server.delivered().len(), 0, "{mixed}");
    }
}

#[test]
fn others_have_their_message_where_each_is_heard_of() {
    let server = without_store("");
    assert_eq!(
        send(&server, "EHLO", " PRDR", &["ann", "quarantine"]),
        ["353", "250", "451", "250"]
    );
    assert_eq!(server.delivered().len(), 1);
    let server = without_store("[[listen]]\nprotocol = \"lmtp\"");
    assert_eq!(
        send(&server, "LHLO", "", &["hold", "ann", "late-hold"]),
        ["451", "250", "451"]
    );
    assert_eq!(server.delivered().len(), 1);
}
