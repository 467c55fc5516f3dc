//! queue/smtp-forward hands messages to another server, and says 250 only when that one did.

use gatepost_tests::server::Server;
use gatepost_tests::smtp::Client;
use gatepost_tests::wait::until;

const MESSAGE: &[u8] = b"Subject: forwarded\r\n\r\n..two dots\r\n8 bits: \xe4\r\n\r\n";
/// As the client means it, with the dot that protected the other taken away.
const MEANT: &[u8] = b"Subject: forwarded\r\n\r\n.two dots\r\n8 bits: \xe4\r\n\r\n";

fn forwarding_to(port: u16) -> Server {
    Server::start(&format!(
        "
        [[plugin]]
        name = \"rcpt_ok\"
        hosts = [\"example.org\", \"unknown.example\"]
        [[plugin]]
        name = \"queue/smtp-forward\"
        server = \"127.0.0.1\"
        port = {port}
        "
    ))
}

#[test]
fn what_the_other_server_took_is_acknowledged() {
    let mut target = Server::start("");
    let server = forwarding_to(target.address().port());
    let mut client = Client::greet(server.address());
    let reply = client.deliver(MESSAGE);
    assert!(reply.starts_with("250 2."), "{reply:?}");
    let message = target.message();
    assert!(message.ends_with(MEANT), "{}", message.escape_ascii());
    let text = String::from_utf8_lossy(&message).into_owned();
    assert_eq!(text.matches("\r\nReceived: ").count(), 2, "{text}");

    // While the other server is away the client is to try again.
    assert!(target.stop().success());
    let reply = client.deliver(MESSAGE);
    assert!(reply.starts_with("45"), "{reply:?}");
    server.wait_for_log("a line about the other server", |text| {
        text.starts_with("(queue) queue/smtp-forward: error")
    });
    until("the spool to be empty", || {
        server.spooled().is_empty().then_some(())
    });
}

#[test]
fn what_the_other_server_refused_is_refused() {
    let target = Server::start("");
    let server = forwarding_to(target.address().port());
    let mut client = Client::greet(server.address());
    client.ask("MAIL FROM:<alice@client.example>", "250");
    client.ask("RCPT TO:<bob@unknown.example>", "250");
    client.ask("DATA", "354");
    client.send(MESSAGE);
    client.ask(".", "55");
    assert!(target.delivered().is_empty());
}

#[test]
fn a_binary_message_arrives_octet_by_octet() {
    let target = Server::start("");
    let server = forwarding_to(target.address().port());
    let body: Vec<u8> = (0..=255)
        .cycle()
        .take(1_000_000)
        .chain(*b"\r\n.\r\nQUIT\r\n\n.\n")
        .collect();
    let message = [&b"Subject: binary\r\n\r\n"[..], &body].concat();
    let mut client = Client::greet(server.address());
    client.ask("MAIL FROM:<alice@client.example> BODY=BINARYMIME", "250");
    client.ask("RCPT TO:<bob@example.org>", "250");
    client.send(format!("BDAT {} LAST\r\n", message.len()).as_bytes());
    client.send(&message);
    client.expect("250");
    assert!(target.message().ends_with(&message));
}

/// Sends a message whose sender wants to know of its success to Bob, by a server that forwards to another one with this head; all that becomes of it, as `Action` has it, and who says so.
fn told_of_success(target: &str) -> Vec<String> {
    let target = Server::start(target);
    let server = forwarding_to(target.address().port());
    let mut client = Client::greet(server.address());
    client.ask("MAIL FROM:<alice@client.example>", "250");
    client.ask("RCPT TO:<bob@example.org> NOTIFY=SUCCESS", "250");
    client.ask("DATA", "354");
    client.send(MESSAGE);
    client.ask(".", "250");
    // What either of them wants to tell is in its spool before the 250.
    until("empty spools", || {
        (server.spooled().is_empty() && target.spooled().is_empty()).then_some(())
    });
    let files = target.delivered();
    let texts = files.iter().map(|file| {
        let bytes = std::fs::read(file).expect("a delivered message can be read");
        String::from_utf8_lossy(&bytes).into_owned()
    });
    let mut told: Vec<String> = texts
        .filter_map(|text| {
            let field = |name: &str| text.lines().find(|line| line.starts_with(name));
            Some(format!(
                "{} {}",
                field("Message-ID:")?.split_once('@')?.1,
                field("Action:")?
            ))
        })
        .collect();
    told.sort();
    told
}

/// Takes mail for anybody.
const ANYBODY: &str = r#"
hostname = "next.example.org"
[[plugin]]
name = "rcpt_ok"
hosts = ["example.org", "client.example"]
[[plugin]]
name = "queue/maildir"
"#;

#[test]
fn who_was_passed_notify_tells_of_success() {
    assert_eq!(
        told_of_success(ANYBODY),
        ["next.example.org> Action: delivered"]
    );
}

#[test]
fn who_passed_a_message_on_to_a_server_without_dsn_says_so() {
    let without_dsn = format!(
        r#"
{ANYBODY}
[[plugin]]
name = "p"
run = ["python3", "$DIR/p.py"]
env = {{ PYTHONPATH = "$ROOT/sdk-python/src" }}
[files]
"p.py" = """
import gatepost

@gatepost.hook("capabilities")
def capabilities(capabilities):
    return gatepost.ok(values=[line for line in capabilities if line != "DSN"])

gatepost.run()
"""
"#
    );
    assert_eq!(
        told_of_success(&without_dsn),
        ["mx.example.org> Action: relayed"]
    );
}
