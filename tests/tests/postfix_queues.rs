//! The plugin queue/postfix-queue of Debian's package gives messages to a real Postfix: they are in its queue, envelope and lines; what its
//! cleanup does not want is refused; and where there is no Postfix the client is told to come again.

use gatepost_tests::postfix::Postfix;
use gatepost_tests::programs::{missing, root};
use gatepost_tests::server::Server;
use gatepost_tests::smtp::Client;

#[test]
fn queue_postfix_queue() {
    if !root().join(".qpsmtpd").exists() {
        return missing("Debian's package qpsmtpd is not unpacked: run `make setup`");
    }
    let postfix = match Postfix::start() {
        Ok(postfix) => postfix,
        Err(why) => return missing(&why),
    };
    let mut server = Server::start(&format!(
        "
        [[plugin]]
        name = \"rcpt_ok\"

        [[plugin]]
        qpsmtpd = \"queue/postfix-queue {} FLAG_HOLD\"
        plugin_dirs = [\"$ROOT/.qpsmtpd/usr/share/qpsmtpd/plugins\"]
        ",
        postfix.cleanup().display()
    ));
    let mut client = Client::greet(server.address());

    let long = "x".repeat(900);
    let reply = client.deliver(
        format!("Subject: hello\r\nX-Long: {long}\r\n\r\nhow are you?\r\n\r\n").as_bytes(),
    );
    let (_, id) = reply
        .split_once("(Queue-Id: ")
        .unwrap_or_else(|| panic!("{reply}"));
    let id = id.trim_end().trim_end_matches(')');
    let queued = postfix.queued(id).unwrap();
    for part in [
        "sender: alice@client.example\n",
        "recipient: bob@example.org\n",
        "Subject: hello\n",
        &format!("X-Long: {long}\n"),
        "\n\nhow are you?\n\n*** HEADER EXTRACTED",
    ] {
        assert!(queued.contains(part), "no {part:?} in:\n{queued}");
    }

    // Postfix's hopcount_limit is 50.
    let hops = "Received: from a by b\r\n".repeat(60);
    let reply = client.deliver(format!("{hops}\r\nx\r\n").as_bytes());
    assert!(reply.starts_with("552 5.4.6 too many hops"), "{reply}");

    drop(postfix);
    let reply = client.deliver(b"Subject: x\r\n\r\nx\r\n");
    assert!(
        reply.starts_with("452 ") && reply.contains("cannot connect"),
        "{reply}"
    );
    client.ask("QUIT", "221");
    assert!(server.stop().success());
}
