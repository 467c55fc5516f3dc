//! A chain of built-in, Python and Perl plugins, and the message that real clients send through it.

use std::path::PathBuf;

use tempfile::TempDir;

use crate::server::Server;

/// Built-ins, and one example in each of the other languages.
const CHAIN: &str = r#"
[[plugin]]
name = "badmailfrom"
addresses = ["@evil.example"]

[[plugin]]
name = "refuse_recipient"
run = ["python3", "$ROOT/plugin-examples/python/refuse_recipient.py"]
env = { PYTHONPATH = "$ROOT/sdk-python/src" }
addresses = ["nobody@example.org"]

[[plugin]]
name = "rcpt_ok"

[[plugin]]
name = "tag_header"
run = ["perl", "$ROOT/sdk-perl/bin/gatepost-perl"]
source = "$ROOT/plugin-examples/perl/tag_header.pl"

[[plugin]]
name = "queue/maildir"
"#;

/// What each plugin of the chain must have said about a message from Alice to Bob.
const LOGGED: [&str; 5] = [
    "(mail) badmailfrom: pass",
    "(rcpt) refuse_recipient: skip, not listed",
    "(rcpt) rcpt_ok: pass, example.org in rcpthosts",
    "(data_post) tag_header: pass, tagged with X-Gatepost-Tag",
    "(queue) queue/maildir: pass",
];

/// Headers that a delivery may have above the message as it was sent.
const TRACE: [&str; 5] = [
    "Return-Path",
    "Delivered-To",
    "X-Gatepost-Tag",
    "Authentication-Results",
    "Received",
];

/// A message with what is easily broken on the way: folding, an empty header, dots, spaces at a line's end, a tab, a long line, bytes beyond ASCII, empty lines at the end.
pub fn message() -> Vec<u8> {
    let mut message = concat!(
        "From: Alice <alice@client.example>\r\n",
        "To: bob@example.org\r\n",
        "Subject: a  subject\r\n\tfolded with a tab,\r\n  and with spaces \r\n",
        "X-Empty:\r\n",
        "Message-ID: <1@client.example>\r\n",
        "Date: Sun, 22 Nov 2026 10:00:00 +0000\r\n",
        "\r\n",
        "Grüße, spaces at the end:  \r\n",
        ".a dot\r\n..two\r\n.\r\n\ttab\t\r\n"
    )
    .replace("\r\n.\r\n", "\r\n. \r\n")
    .into_bytes();
    message.extend_from_slice(&[b'x'; 990]);
    message.extend_from_slice(b"\r\nlatin1: \xe4\xf6\xfc\r\n\r\n\r\n");
    message
}

/// A daemon with the mixed chain.
pub fn server() -> Server {
    Server::start(CHAIN)
}

/// The message in a file, as it goes over the wire, with the folder that goes away with it.
pub fn message_file() -> (TempDir, PathBuf) {
    write(&message())
}

/// The same for clients that turn LF into CRLF and end the last line themselves.
pub fn message_file_with_lf() -> (TempDir, PathBuf) {
    let mut bytes = message();
    bytes.retain(|byte| *byte != b'\r');
    bytes.pop();
    write(&bytes)
}

fn write(message: &[u8]) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder for the message");
    let file = folder.path().join("message.eml");
    std::fs::write(&file, message).expect("the message can be written");
    (folder, file)
}

/// Checks that the daemon delivered the message byte for byte below the trace headers, that every plugin had its line in the log, and that nothing is left in the spool.
pub fn assert_delivered(server: &mut Server) {
    let delivered = server.message();
    let above = trace_above(&delivered, &message());
    for name in TRACE {
        assert!(above.contains(&format!("{name}: ")), "no {name} in {above}");
    }
    for line in above.split_inclusive("\r\n") {
        let known = TRACE
            .iter()
            .any(|name| line.starts_with(&format!("{name}: ")));
        assert!(
            known || line.starts_with([' ', '\t']),
            "{line:?} in {above}"
        );
    }
    assert!(server.stop().success());
    let log = server.log().join("\n");
    for line in LOGGED {
        assert!(log.contains(line), "no `{line}` in\n{log}");
    }
    assert!(server.spooled().is_empty(), "{:?}", server.spooled());
}

/// What stands above `sent` in a delivery that ends in it.
pub fn trace_above(delivered: &[u8], sent: &[u8]) -> String {
    let above = delivered.strip_suffix(sent).unwrap_or_else(|| {
        panic!(
            "delivered:\n{}\n\nsent:\n{}",
            delivered.escape_ascii(),
            sent.escape_ascii()
        )
    });
    String::from_utf8(above.to_vec()).expect("trace headers are ASCII")
}
