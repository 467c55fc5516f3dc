//! nodemailer sends what programs in Node send: composed messages, names in UTF-8, wishes for notifications, many at once, over TLS, by LMTP.

use std::process::Command;

use gatepost_tests::nodemailer::{Nodemailer, assert_sent};
use gatepost_tests::server::Server;
use gatepost_tests::{accounts, mixed};
use serde_json::{Value, json};

/// Logs the parameters of MAIL and RCPT, and refuses carol.
const WITNESS: &str = r#"
loglevel = "debug"

[[plugin]]
name = "witness"
run = ["python3", "$DIR/witness.py"]
env = { PYTHONPATH = "$ROOT/sdk-python/src" }

[[plugin]]
name = "rcpt_ok"

[[plugin]]
name = "queue/maildir"

[files]
"witness.py" = """
import gatepost

def words(parameters):
    return " ".join(sorted(key if value is None else f"{key}={value}" for key, value in parameters.items()))

@gatepost.hook("mail")
def mail(address, parameters):
    return gatepost.skip(f"{address} {words(parameters)}")

@gatepost.hook("rcpt")
def rcpt(address, parameters):
    if address.local == "carol":
        return gatepost.deny("no such user here")
    return gatepost.skip(f"{address} {words(parameters)}")

gatepost.run()
"""
"#;

/// Another program's reading of a delivered message: subject, and name and text of its attachment.
const READER: &str = "
import email, email.policy, json, sys
message = email.message_from_binary_file(open(sys.argv[1], 'rb'), policy=email.policy.default)
attachment, = message.iter_attachments()
print(json.dumps([message['subject'], attachment.get_filename(), attachment.get_content()]))
";

fn message(to: &[&str]) -> Value {
    json!({ "from": "alice@client.example", "to": to, "subject": "x", "text": "hello\n.\n" })
}

#[test]
fn through_a_mixed_chain() {
    let Some(nodemailer) = Nodemailer::needed() else {
        return;
    };
    let mut server = mixed::server();
    let (_folder, file) = mixed::message_file();
    let to = ["bob@example.org", "nobody@example.org"];
    let envelope = json!({ "from": "alice@client.example", "to": to });
    let raw = json!({ "envelope": envelope, "raw": { "path": file } });
    let result = nodemailer.send(server.address(), json!({}), raw);
    assert_sent(&result, &to[..1], &to[1..]);
    mixed::assert_delivered(&mut server);
}

#[test]
fn names_in_utf8_an_attachment_and_wishes_for_notifications() {
    let Some(nodemailer) = Nodemailer::needed() else {
        return;
    };
    let server = Server::start(WITNESS);
    let text = "naïve\r\n.\r\n".repeat(40);
    let mut message = message(&["jürgen@example.org", "carol@example.org"]);
    message["subject"] = json!("Grüße aus Köln, 日本");
    message["attachments"] = json!([{ "filename": "grüße.txt", "content": text }]);
    message["dsn"] = json!({
        "id": "order+42",
        "return": "headers",
        "notify": ["failure", "delay"],
        "recipient": "list=all@client.example",
    });
    let result = nodemailer.send(server.address(), json!({}), message);
    assert_sent(&result, &["jürgen@example.org"], &["carol@example.org"]);
    for (hook, words) in [
        (
            "mail",
            "alice@client.example ENVID=order+2B42 RET=HDRS SMTPUTF8",
        ),
        (
            "rcpt",
            "jürgen@example.org NOTIFY=FAILURE,DELAY ORCPT=rfc822;list+3Dall@client.example",
        ),
    ] {
        let line = format!("({hook}) witness: skip, {words}");
        server.wait_for_log(&line, |text| text == line);
    }
    let delivered = server.delivered();
    assert_eq!(delivered.len(), 1);
    let read = Command::new("python3")
        .args(["-c", READER])
        .arg(&delivered[0])
        .output()
        .expect("Python 3 is there");
    let read: Value = serde_json::from_slice(&read.stdout).expect("the reader can read it");
    assert_eq!(read, json!(["Grüße aus Köln, 日本", "grüße.txt", text]));
}

#[test]
fn refused_for_every_recipient() {
    let Some(nodemailer) = Nodemailer::needed() else {
        return;
    };
    let server = Server::start(WITNESS);
    let result = nodemailer.send(server.address(), json!({}), message(&["carol@example.org"]));
    assert_eq!(result["code"], "EENVELOPE", "{result}");
    assert_eq!(
        result["response"], "550 5.7.1 no such user here",
        "{result}"
    );
    assert!(server.delivered().is_empty());
}

#[test]
fn many_messages_over_few_connections() {
    let Some(nodemailer) = Nodemailer::needed() else {
        return;
    };
    let mut server = Server::start(WITNESS);
    let pool = json!({ "pool": true, "maxConnections": 2 });
    let messages = vec![message(&["bob@example.org", "carol@example.org"]); 12];
    for result in nodemailer.send_all(server.address(), pool, &messages) {
        assert_sent(&result, &["bob@example.org"], &["carol@example.org"]);
    }
    assert_eq!(server.delivered().len(), 12);
    assert!(server.stop().success());
    let log = server.log();
    let connections = log.iter().filter(|line| line.contains("connection from"));
    assert!((1..=2).contains(&connections.count()), "{log:?}");
}

#[test]
fn by_lmtp() {
    let Some(nodemailer) = Nodemailer::needed() else {
        return;
    };
    let listen = "[[listen]]\nprotocol = \"lmtp\"\n";
    let server = Server::start(&format!("{WITNESS}{listen}"));
    let to = ["bob@example.org", "carol@example.org", "dave@example.org"];
    // The second message shows that neither a reply too many nor one too few was left of the first.
    let options = json!({ "lmtp": true, "pool": true, "maxConnections": 1 });
    let messages = vec![message(&to); 2];
    for result in nodemailer.send_all(server.address(), options, &messages) {
        assert_sent(&result, &[to[0], to[2]], &[to[1]]);
    }
    assert_eq!(server.delivered().len(), 2);
}

#[test]
fn over_tls_with_a_certificate_that_it_verifies() {
    let Some(nodemailer) = Nodemailer::needed() else {
        return;
    };
    for (tls, secure) in [("starttls", false), ("implicit", true)] {
        let server = accounts::server(&format!("direction = \"submission\"\ntls = \"{tls}\""));
        let certificate = std::fs::read_to_string(server.dir().join("tls/cert.pem"));
        let certificate = certificate.expect("one was made");
        let options = |tls: Value| {
            json!({
                "secure": secure,
                "requireTLS": true,
                "auth": { "user": accounts::USER, "pass": accounts::PASSWORD },
                "tls": tls,
            })
        };
        let verified = json!({ "ca": certificate, "servername": "mx.example.org" });
        let message = message(&["stranger@example.net"]);
        let result = nodemailer.send(server.address(), options(verified), message.clone());
        assert_sent(&result, &["stranger@example.net"], &[]);
        let delivered = String::from_utf8(server.message()).expect("it is ASCII");
        assert!(delivered.contains("with ESMTPSA id "), "{delivered}");

        for wrong in [
            json!({ "servername": "mx.example.org" }),
            json!({ "ca": certificate, "servername": "other.example.org" }),
        ] {
            let result = nodemailer.send(server.address(), options(wrong), message.clone());
            assert_eq!(result["code"], "ESOCKET", "{tls}: {result}");
        }
        assert_eq!(server.delivered().len(), 1);
    }
}
