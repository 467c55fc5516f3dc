//! What strangers write never gets out of its field. Python's `email` package reads notifications field by field in `tests/tests/notifications.rs`.

use std::time::{Duration, UNIX_EPOCH};

use gatepost_protocol::Address;
use proptest::prelude::*;

use super::*;

const BOUNDARY: &str = "0123456789abcdef";

/// Names and values.
type Fields = Vec<(String, String)>;

/// What a test says of a notification.
#[derive(Clone, Debug)]
struct Said {
    sender: Address,
    recipient: Address,
    envelope_id: Option<String>,
    original_recipient: Option<String>,
    received_from: Option<String>,
    text: String,
    header: Vec<u8>,
    message_id: Option<Vec<u8>>,
    utf8: bool,
    whole: bool,
    eight_bit_body: bool,
}

fn plain() -> Said {
    Said {
        sender: Address::parse("alice@client.example").unwrap(),
        recipient: Address::parse("bob@example.org").unwrap(),
        envelope_id: None,
        original_recipient: None,
        received_from: Some("client.example".to_owned()),
        text: "no such user here".to_owned(),
        header: b"Subject: x\r\n".to_vec(),
        message_id: None,
        utf8: false,
        whole: false,
        eight_bit_body: false,
    }
}

fn write(said: &Said) -> Notification {
    let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
    Report {
        hostname: "mx.example.org",
        id: "d5n",
        boundary: BOUNDARY,
        time: at(1_795_342_272),
        sender: &said.sender,
        envelope_id: said.envelope_id.as_deref(),
        log_id: Some("3f9a1c.2"),
        arrived: at(1_795_342_000),
        received_from: said.received_from.as_deref(),
        utf8: said.utf8,
        recipient: &said.recipient,
        original_recipient: said.original_recipient.as_deref(),
        action: Action::Failed,
        code: 550,
        enhanced: None,
        text: &said.text,
        original: Original {
            header: &said.header,
            message_id: said.message_id.as_deref(),
            whole: said.whole,
            eight_bit_body: said.eight_bit_body,
        },
    }
    .write()
}

/// The fields of a block, unfolded. Panics where a line is none.
fn fields(block: &str) -> Fields {
    let mut fields = Fields::new();
    for line in block.strip_suffix("\r\n").unwrap().split("\r\n") {
        assert!(line.len() <= 998, "{line}");
        assert!(!line.contains(['\r', '\n', '\0']), "{line:?}");
        if let Some(more) = line.strip_prefix([' ', '\t']) {
            assert!(!more.trim().is_empty(), "{block:?}");
            let last = fields.last_mut().unwrap();
            last.1.extend([" ", more]);
        } else {
            let (name, value) = line.split_once(": ").unwrap();
            fields.push((name.to_owned(), value.to_owned()));
        }
    }
    fields
}

fn names(fields: &[(String, String)]) -> Vec<&str> {
    fields.iter().map(|(name, _)| name.as_str()).collect()
}

fn field<'a>(fields: &'a [(String, String)], name: &str) -> &'a str {
    let found = fields.iter().find(|(field, _)| field == name);
    &found.unwrap_or_else(|| panic!("{name} in {fields:?}")).1
}

/// The parts: each with its fields and its content.
fn parts(notification: &Notification) -> Vec<(Fields, String)> {
    let delimiter = format!("\r\n--{BOUNDARY}\r\n");
    let parts: Vec<&str> = notification.before.split(&delimiter).collect();
    assert_eq!(parts[0], "");
    parts[1..]
        .iter()
        .map(|part| {
            let (header, content) = part.split_once("\r\n\r\n").unwrap();
            (fields(&format!("{header}\r\n")), content.to_owned())
        })
        .collect()
}

/// The fields of the message, and those of the recipient.
fn status(notification: &Notification) -> (Fields, Fields) {
    let status = &parts(notification)[1].1;
    let (message, recipient) = status.split_once("\r\n\r\n").unwrap();
    (fields(&format!("{message}\r\n")), fields(recipient))
}

#[test]
fn a_usual_one() {
    let notification = write(&Said {
        envelope_id: Some("QQ+2B314159".to_owned()),
        original_recipient: Some("rfc822;Bob+2Bx@example.org".to_owned()),
        message_id: Some(b"<1@client.example>".to_vec()),
        ..plain()
    });
    let header = fields(&notification.header);
    assert_eq!(field(&header, "In-Reply-To"), "<1@client.example>");
    assert_eq!(field(&header, "Content-Transfer-Encoding"), "7bit");
    let (message, recipient) = status(&notification);
    assert_eq!(
        message,
        [
            ("Original-Envelope-Id", "QQ+314159"),
            ("Reporting-MTA", "dns; mx.example.org"),
            ("Received-From-MTA", "dns; client.example"),
            ("Arrival-Date", "Sun, 22 Nov 2026 10:06:40 +0000"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
    );
    assert_eq!(
        recipient,
        [
            ("Original-Recipient", "rfc822; Bob+x@example.org"),
            ("Final-Recipient", "rfc822; bob@example.org"),
            ("Action", "failed"),
            ("Status", "5.0.0"),
            ("Diagnostic-Code", "smtp; 550 no such user here"),
            ("Final-Log-ID", "3f9a1c.2"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
    );
    assert!(!notification.eight_bit && !notification.smtputf8);
}

#[test]
fn addresses_outside_ascii() {
    let said = Said {
        recipient: Address::parse_utf8("j\u{f6}rg+x@example.org").unwrap(),
        original_recipient: Some("utf-8;j+5Cx{F6}rg@example.org".to_owned()),
        ..plain()
    };
    let ascii = write(&said);
    let (_, recipient) = status(&ascii);
    assert_eq!(
        field(&recipient, "Final-Recipient"),
        "utf-8; j\\x{F6}rg\\x{2B}x@example.org"
    );
    assert_eq!(
        field(&recipient, "Original-Recipient"),
        "utf-8; j\\x{F6}rg@example.org"
    );
    assert!(ascii.before.is_ascii() && !ascii.eight_bit && !ascii.smtputf8);
    let utf8 = write(&Said { utf8: true, ..said });
    let (_, recipient) = status(&utf8);
    assert_eq!(
        field(&recipient, "Final-Recipient"),
        "utf-8; j\u{f6}rg+x@example.org"
    );
    assert_eq!(
        field(&recipient, "Original-Recipient"),
        "utf-8; j\u{f6}rg@example.org"
    );
    assert!(utf8.eight_bit && utf8.smtputf8);
    let parts = parts(&utf8);
    for (at, content_type) in [
        (0, "text/plain; charset=utf-8"),
        (1, "message/global-delivery-status"),
        (2, "text/rfc822-headers"),
    ] {
        assert_eq!(field(&parts[at].0, "Content-Type"), content_type);
    }
}

#[test]
fn what_goes_back_has_its_type_and_encoding() {
    let utf8 = "Subject: \u{e4}\r\n".as_bytes();
    let latin1 = b"Subject: \xe4\r\n";
    for (header, whole, utf8, eight_bit_body, content_type, encoding) in [
        (
            &b"Subject: x\r\n"[..],
            true,
            false,
            false,
            "message/rfc822",
            "7bit",
        ),
        (
            b"Subject: x\r\n",
            true,
            false,
            true,
            "message/rfc822",
            "8bit",
        ),
        (
            b"Subject: x\r\n",
            false,
            false,
            true,
            "text/rfc822-headers",
            "7bit",
        ),
        (utf8, true, true, false, "message/global", "8bit"),
        (utf8, false, true, false, "message/global-headers", "8bit"),
        (utf8, true, false, false, "message/rfc822", "8bit"),
        (latin1, false, true, false, "text/rfc822-headers", "8bit"),
    ] {
        let notification = write(&Said {
            header: header.to_vec(),
            whole,
            utf8,
            eight_bit_body,
            ..plain()
        });
        let part = &parts(&notification)[2].0;
        assert_eq!(field(part, "Content-Type"), content_type);
        assert_eq!(field(part, "Content-Transfer-Encoding"), encoding);
        let own = fields(&notification.header);
        assert_eq!(field(&own, "Content-Transfer-Encoding"), encoding);
        assert_eq!(notification.eight_bit, encoding == "8bit");
        assert_eq!(notification.smtputf8, content_type.contains("global"));
    }
}

#[test]
fn only_a_message_id_is_answered() {
    for (id, answered) in [
        (&b"<a.b$c@[192.0.2.1]>"[..], true),
        (b"<a@b> <c@d>", false),
        (b"<a@b>\r\nX: y", false),
        (b"<a @b>", false),
        (b"<ab>", false),
        (b"a@b", false),
        (b"<\xe4@b>", false),
    ] {
        let notification = write(&Said {
            message_id: Some(id.to_vec()),
            ..plain()
        });
        let fields = fields(&notification.header);
        assert_eq!(names(&fields).contains(&"References"), answered, "{id:?}");
    }
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        "[ -~\r\n\t\0\u{80}-\u{ff}\u{2028}\u{1f600}]{0,200}",
        "[a-z]{900,2500}",
        "(\r\n[A-Z]: [a-z]{3}|\r\n\r\n--0123456789abcdef--){1,4}",
    ]
}

fn address() -> impl Strategy<Value = Address> {
    let local = "([a-z\u{e4}\u{4e2d}!#$=+]{1,10}|\"[ -!#-\\[\\]-~]{1,60}\")";
    (local, "[a-z]{1,10}\\.example").prop_filter_map("no address", |(local, domain)| {
        Address::parse_utf8(&format!("{local}@{domain}")).ok()
    })
}

proptest! {
    #[test]
    fn nothing_gets_out_of_its_field(
        sender in address(),
        recipient in address(),
        envelope_id in proptest::option::of(text()),
        original_recipient in proptest::option::of(text()),
        received_from in proptest::option::of(text()),
        text in text(),
        message_id in proptest::option::of(text().prop_map(String::into_bytes)),
        (utf8, whole, eight_bit_body) in any::<(bool, bool, bool)>(),
    ) {
        let said = Said {
            sender, recipient, envelope_id, original_recipient, received_from, text, message_id, utf8, whole, eight_bit_body,
            ..plain()
        };
        let notification = write(&said);
        let header = fields(&notification.header);
        let answers = names(&header).contains(&"In-Reply-To");
        let mut expected = vec!["Date", "From", "To", "Message-ID"];
        if answers {
            expected.extend(["In-Reply-To", "References"]);
        }
        expected.extend(["Subject", "Auto-Submitted", "MIME-Version", "Content-Type", "Content-Transfer-Encoding"]);
        prop_assert_eq!(names(&header), expected);
        let parts = parts(&notification);
        prop_assert_eq!(parts.len(), 3);
        for (header, _) in &parts {
            prop_assert_eq!(names(header), ["Content-Type", "Content-Description", "Content-Transfer-Encoding"]);
        }
        prop_assert_eq!(&parts[2].1, "");
        let delimiters = notification.before.split("\r\n").filter(|line| line.starts_with("--"));
        prop_assert_eq!(delimiters.count(), 3);
        let (message, recipient) = status(&notification);
        let known = ["Original-Envelope-Id", "Reporting-MTA", "Received-From-MTA", "Arrival-Date"];
        prop_assert!(names(&message).iter().all(|name| known.contains(name)), "{:?}", message);
        let known = ["Original-Recipient", "Final-Recipient", "Action", "Status", "Diagnostic-Code", "Final-Log-ID"];
        prop_assert!(names(&recipient).iter().all(|name| known.contains(name)), "{:?}", recipient);
        for (name, content) in [("text", &parts[0].1), ("status", &parts[1].1)] {
            prop_assert!(content.split("\r\n").all(|line| line.len() <= 998 && !line.contains(['\r', '\n', '\0'])), "{}: {:?}", name, content);
            prop_assert!(said.utf8 || content.is_ascii(), "{}: {:?}", name, content);
        }
        let own = [&notification.header, &notification.before];
        prop_assert!(notification.eight_bit || own.iter().all(|text| text.is_ascii()));
    }

    #[test]
    fn xtext_comes_back(plain in "[ -~]{0,40}") {
        let coded: String = plain.chars().map(|c| match c {
            '+' | '=' | ' ' => format!("+{:02X}", u32::from(c)),
            c => c.to_string(),
        }).collect();
        prop_assert_eq!(fields::xtext_decoded(&coded), plain);
    }
}
