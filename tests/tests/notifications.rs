//! Notifications as Python's `email` package reads them, field by field.

use std::process::Command;

use gatepost_tests::refusals::bob_refuses;
use gatepost_tests::server::Server;
use gatepost_tests::smtp::Client;
use gatepost_tests::wait::until;

/// Bob is not alone in refusing what has no author; each mailbox is a folder.
const QUEUE: &str = r#"
[[plugin]]
name = "queue/maildir"
path = "$DIR/mail/{local}"
[user."jörg@example.org".plugin.headers]
reject = true
"#;

fn head() -> String {
    bob_refuses("", QUEUE)
}

/// Parses a notification, and compares it with what the arguments say: NAME=VALUE, where a name with one dot in front is a field of the notification, with `message.` or `recipient.` one of
/// its second part, and `type.N` and `encoding.N` are those of a part.
const READER: &str = r#"
import email, email.policy, email.utils, sys
file, *expected = sys.argv[1:]
raw = open(file, 'rb').read()
message = email.message_from_bytes(raw, policy=email.policy.SMTPUTF8)
assert not message.defects, message.defects
assert message.get_content_type() == 'multipart/report', message
assert message.get_param('report-type') == 'delivery-status'
assert message['MIME-Version'] == '1.0'
assert message['Auto-Submitted'] == 'auto-replied'
assert message['From'].addresses[0].addr_spec == 'postmaster@mx.example.org', message['From']
assert message['Message-ID'].startswith('<') and message['Message-ID'].endswith('@mx.example.org>')
assert email.utils.parsedate_to_datetime(message['Date']).tzinfo is not None
parts = message.get_payload()
assert len(parts) == 3, parts
text, status, original = parts
for part in message.walk():
    assert not part.defects, (part, part.defects)
if status.get_content_type() == 'message/delivery-status':
    of_message, of_recipient = status.get_payload()
else:
    # The package knows no such type: it takes the first block for a message's header. Read as text, header fields may hold UTF-8.
    assert status.get_content_type() == 'message/global-delivery-status', status
    as_text = email.message_from_string(raw.decode(), policy=email.policy.SMTPUTF8)
    inner = as_text.get_payload(1).get_payload(0)
    of_message = inner
    of_recipient = email.message_from_string(inner.get_payload(), policy=email.policy.SMTPUTF8)
if of_recipient['Action'] == 'delayed':
    until = email.utils.parsedate_to_datetime(of_recipient['Will-Retry-Until'])
    arrived = email.utils.parsedate_to_datetime(of_message['Arrival-Date'])
    assert abs((until - arrived).total_seconds() - 5 * 24 * 60 * 60) < 60, (until, arrived)
else:
    assert of_recipient['Will-Retry-Until'] is None
arrived = email.utils.parsedate_to_datetime(of_message['Arrival-Date'])
assert abs((email.utils.parsedate_to_datetime(message['Date']) - arrived).total_seconds()) < 60
assert not of_message.defects and not of_recipient.defects
for line in expected:
    name, value = line.split('=', 1)
    where, _, field = name.partition('.')
    if where == 'type':
        found = parts[int(field)].get_content_type()
    elif where == 'encoding':
        found = parts[int(field)]['Content-Transfer-Encoding']
    elif where == 'text':
        found = value if value in text.get_content() else text.get_content()
    elif where == 'original':
        payload = original.get_payload()
        found = payload if isinstance(payload, str) else payload[0].as_bytes().decode('latin-1')
        found = found.replace('\r\n', '\n')
        found = value if value in found else found[:1000]
    else:
        found = {'': message, 'message': of_message, 'recipient': of_recipient}[where][field]
    assert str(found) == value, f'{name}: {found!r}, and not {value!r}'
"#;

/// A transaction for Carol, who takes it, and for others; returns the one notification for Alice.
fn notified(server: &Server, mail: &str, others: &[&str], body: &[u8]) -> std::path::PathBuf {
    let mut client = Client::greet(server.address());
    client.ask(&format!("MAIL FROM:<alice@client.example>{mail}"), "250");
    client.ask("RCPT TO:<carol@example.org>", "250");
    for other in others {
        client.ask(&format!("RCPT TO:{other}"), "250");
    }
    client.ask("DATA", "354");
    client.send(body);
    client.ask("\r\n.", "250");
    client.ask("QUIT", "221");
    let files = until("a notification", || {
        let files = gatepost::cli::transcript::files(&server.stage().mail.join("alice/new"));
        Some(files).filter(|files| !files.is_empty())
    });
    assert_eq!(files.len(), 1, "{files:?}");
    files[0].clone()
}

fn assert_reads(file: &std::path::Path, expected: &[&str]) {
    let status = Command::new("python3")
        .args(["-c", READER])
        .arg(file)
        .args(expected)
        .status();
    assert!(status.expect("Python 3 is there").success());
}

#[test]
fn in_ascii() {
    let server = Server::start(&head());
    let file = notified(
        &server,
        " ENVID=QQ+2B314159",
        &["<bob@example.org> ORCPT=rfc822;Bob+2Bx@old.example"],
        b"Subject: x\r\nMessage-ID: <1@client.example>\r\n\r\nhello",
    );
    assert_reads(
        &file,
        &[
            ".To=alice@client.example",
            ".Subject=Undelivered mail",
            ".In-Reply-To=<1@client.example>",
            ".References=<1@client.example>",
            ".Content-Transfer-Encoding=7bit",
            ".Return-Path=<>",
            "type.0=text/plain",
            "type.1=message/delivery-status",
            "type.2=message/rfc822",
            "encoding.2=7bit",
            "message.Reporting-MTA=dns; mx.example.org",
            "message.Original-Envelope-Id=QQ+314159",
            "message.Received-From-MTA=dns; client.example",
            "recipient.Original-Recipient=rfc822; Bob+x@old.example",
            "recipient.Final-Recipient=rfc822; bob@example.org",
            "recipient.Action=failed",
            "recipient.Status=5.6.0",
            "recipient.Diagnostic-Code=smtp; 552 5.6.0 RFC 5322 section 3.6: the From header is missing",
            "text.=bob@example.org",
            "original.=Message-ID: <1@client.example>\n\nhello\n",
        ],
    );
}

#[test]
fn beyond_ascii() {
    let server = Server::start(&head());
    let file = notified(
        &server,
        " SMTPUTF8 BODY=8BITMIME RET=HDRS",
        &["<jörg@example.org> ORCPT=utf-8;j\\x{F6}rg@old.example"],
        "Subject: für Jörg\r\n\r\nhello".as_bytes(),
    );
    assert_reads(
        &file,
        &[
            ".Content-Transfer-Encoding=8bit",
            "type.1=message/global-delivery-status",
            "encoding.1=8bit",
            "type.2=message/global-headers",
            "encoding.2=8bit",
            "recipient.Original-Recipient=utf-8; jörg@old.example",
            "recipient.Final-Recipient=utf-8; jörg@example.org",
            "text.=jörg@example.org",
        ],
    );
    let bytes = std::fs::read(&file).expect("the notification can be read");
    let text = String::from_utf8(bytes).expect("it is UTF-8");
    assert!(text.contains("Subject: für Jörg\r\n\r\n--"), "{text}");
}

#[test]
fn with_eight_bits_and_whole() {
    let server = Server::start(&head());
    let mut body = b"Subject: x\r\n\r\nhell\xf6\r\n".to_vec();
    body.extend(b"thirty-two bytes are in this one\r\n".repeat(4000));
    let file = notified(
        &server,
        " BODY=8BITMIME RET=FULL",
        &["<bob@example.org>"],
        &body,
    );
    assert_reads(
        &file,
        &[
            ".Content-Transfer-Encoding=8bit",
            "type.2=message/rfc822",
            "encoding.2=8bit",
            "encoding.0=7bit",
            "original.=thirty-two bytes are in this one\nthirty-two bytes",
        ],
    );
    let bytes = std::fs::read(&file).expect("the notification can be read");
    assert!(bytes.windows(body.len()).any(|part| part == body));
}

#[test]
fn of_success() {
    let server = Server::start(&head());
    let file = notified(
        &server,
        " ENVID=QQ+2B314159 RET=FULL",
        &["<dave@example.org> NOTIFY=SUCCESS ORCPT=rfc822;Dave+2Bx@old.example"],
        b"Subject: x\r\nMessage-ID: <1@client.example>\r\n\r\nhello",
    );
    assert_reads(
        &file,
        &[
            ".To=alice@client.example",
            ".Subject=Delivered mail",
            ".In-Reply-To=<1@client.example>",
            ".Return-Path=<>",
            "type.1=message/delivery-status",
            // RFC 3461 §4.3: RET is about failures.
            "type.2=text/rfc822-headers",
            "message.Reporting-MTA=dns; mx.example.org",
            "message.Original-Envelope-Id=QQ+314159",
            "recipient.Original-Recipient=rfc822; Dave+x@old.example",
            "recipient.Final-Recipient=rfc822; dave@example.org",
            "recipient.Action=delivered",
            "recipient.Status=2.0.0",
            "recipient.Diagnostic-Code=None",
            "text.=was delivered to\r\n\r\n    dave@example.org\r\n",
            "original.=Message-ID: <1@client.example>\n",
        ],
    );
}

#[test]
fn of_delay() {
    let server = Server::start(&format!(
        r#"{}
[outbox]
retry = "1h"
notify_delay = "1s"
[[user."dave@example.org".plugin]]
name = "queue/smtp-forward"
server = "127.0.0.1"
port = 1
"#,
        head()
    ));
    let file = notified(
        &server,
        " ENVID=QQ314159 RET=FULL",
        &["<dave@example.org> NOTIFY=DELAY ORCPT=rfc822;Dave+2Bx@old.example"],
        b"From: alice@client.example\r\nMessage-ID: <1@client.example>\r\n\r\nhello",
    );
    assert_reads(
        &file,
        &[
            ".Subject=Delayed mail",
            ".References=<1@client.example>",
            "type.1=message/delivery-status",
            "type.2=text/rfc822-headers",
            "message.Original-Envelope-Id=QQ314159",
            "recipient.Original-Recipient=rfc822; Dave+x@old.example",
            "recipient.Final-Recipient=rfc822; dave@example.org",
            "recipient.Action=delayed",
            "recipient.Status=4.4.1",
            "recipient.Diagnostic-Code=smtp; 451 4.4.1 The next server cannot be reached; try again later",
            "text.=has not been delivered yet to\r\n\r\n    dave@example.org\r\n",
            "original.=Message-ID: <1@client.example>\n",
        ],
    );
}
