//! Messages that a server has delivered, as they came to it: who brought them, for whom, and without what was put above them.

use std::net::IpAddr;

use bytes::Bytes;
use gatepost_protocol::{Address, HeaderBlock, header};

use super::Question;
use super::sessions::{Recorded, SOME_NAME, SOMEBODY, Said};
use crate::cli::rehearsal::Envelope;

/// Header fields that a delivery puts above the message, where nothing says when it came to us.
const ADDED: [&str; 5] = [
    "Return-Path",
    "Delivered-To",
    "X-Original-To",
    "Envelope-To",
    "Authentication-Results",
];
/// Those that name a recipient.
const NAMES_RECIPIENT: [&str; 3] = ["Delivered-To", "X-Original-To", "Envelope-To"];

/// Where messages came in.
pub struct Origin<'a> {
    pub question: &'a Question,
    /// The name that the server gives itself in Received.
    pub hostname: &'a str,
}

pub struct Delivered {
    pub session: Recorded,
    /// Whether it is known who brought it.
    pub names_client: bool,
}

/// The message of a file, or those of an mbox (RFC 4155).
///
/// # Errors
/// It is no message, or nobody says for whom one was.
pub fn messages(name: &str, text: Vec<u8>, origin: &Origin<'_>) -> Result<Vec<Delivered>, String> {
    if !text.starts_with(b"From ") {
        return Ok(vec![message(name.to_owned(), &text, origin)?]);
    }
    let messages = of_mbox(&text).into_iter().enumerate();
    let delivered = messages.map(|(at, text)| {
        let at = at + 1;
        message(format!("{name} ({at})"), &text, origin)
            .map_err(|error| format!("message {at}: {error}"))
    });
    delivered.collect()
}

/// Each begins behind a line `From `, at the top or behind an empty line; what looked like one in a message has a `>` before it.
fn of_mbox(text: &[u8]) -> Vec<Vec<u8>> {
    let mut messages: Vec<Vec<u8>> = Vec::new();
    let mut is_behind_empty = true;
    for line in text.split_inclusive(|byte| *byte == b'\n') {
        let is_first = is_behind_empty && line.starts_with(b"From ");
        is_behind_empty = matches!(line, b"\n" | b"\r\n");
        match messages.last_mut() {
            Some(message) if !is_first => {
                let quotes = line.iter().take_while(|byte| **byte == b'>').count();
                let is_quoted = quotes > 0 && line[quotes..].starts_with(b"From ");
                message.extend_from_slice(&line[usize::from(is_quoted)..]);
            }
            _ => messages.push(Vec::new()),
        }
    }
    // The empty line before the next belongs to the mbox.
    for message in &mut messages {
        for end in [&b"\n\r\n"[..], b"\n\n"] {
            if message.ends_with(end) {
                message.truncate(message.len() + 1 - end.len());
            }
        }
    }
    messages
}

/// A message as it was delivered, to be played as it came.
fn message(name: String, text: &[u8], origin: &Origin<'_>) -> Result<Delivered, String> {
    let question = origin.question;
    let end = HeaderBlock::find_end(text, 0).map_or(text.len(), |(end, _)| end);
    let header = HeaderBlock::parse(Bytes::copy_from_slice(&text[..end]));
    let fields: Vec<(String, String)> = header
        .iter()
        .map(|(name, value)| [name, value].map(|it| String::from_utf8_lossy(it).trim().to_owned()))
        .map(|[name, value]| (name, value))
        .collect();
    if !fields
        .first()
        .is_some_and(|(name, _)| header::is_name(name))
    {
        return Err("it is no message: it does not begin with a header field".to_owned());
    }
    let trace = trace_of(&fields, origin.hostname);
    // All that stands above our own Received came later, be it from a plugin or from the delivery.
    let above = match &trace {
        Some((at, _)) => at + 1,
        None => {
            let is_added = |name: &str| ADDED.iter().any(|it| name.eq_ignore_ascii_case(it));
            let added = fields.iter().take_while(|(name, _)| is_added(name));
            added.count()
        }
    };
    let mut rest = header;
    let mut sender = None;
    let mut rcpt = Vec::new();
    for (name, value) in &fields[..above] {
        let is = |other: &&str| name.eq_ignore_ascii_case(other);
        if is(&"Return-Path") {
            sender = address(value);
        } else if NAMES_RECIPIENT.iter().any(is) {
            rcpt.extend(address(value).filter(|address| !rcpt.contains(address)));
        }
        rest.remove(name, Some(1));
    }
    if !question.rcpt.is_empty() {
        rcpt = question.rcpt.clone();
    }
    if rcpt.is_empty() {
        return Err("no field Delivered-To says for whom the message was; say --rcpt".to_owned());
    }
    let (helo, ip) = match trace {
        Some((_, trace)) => (trace.helo, trace.ip),
        None => (None, None),
    };
    let ip = question.ip.or(ip);
    let session = Recorded {
        name,
        envelope: Envelope {
            ip: ip.unwrap_or(SOMEBODY),
            helo: question
                .helo
                .clone()
                .or(helo)
                .unwrap_or(SOME_NAME.to_owned()),
            from: question.from.clone().or(sender).unwrap_or(Address::null()),
            rcpt,
            tls: false,
            user: None,
        },
        said: Said::Message([&rest.to_bytes()[..], &text[end..]].concat()),
    };
    Ok(Delivered {
        session,
        names_client: ip.is_some(),
    })
}

fn address(text: &str) -> Option<Address> {
    match text.trim_start_matches('<').trim_end_matches('>') {
        "" => Some(Address::null()),
        text => Address::parse_utf8(text).ok(),
    }
}

/// What a Received field says (RFC 5321 §4.4).
#[derive(Debug, Default, PartialEq, Eq)]
struct Trace {
    helo: Option<String>,
    ip: Option<IpAddr>,
    by: Option<String>,
}

/// The field that was written when the message came to us, and its place: the last by a server of our name, for a queue behind us (qmail's, or another server) writes its own above it.
/// A site may have had another name; then the last that names a client is as near as one can come.
fn trace_of(fields: &[(String, String)], hostname: &str) -> Option<(usize, Trace)> {
    let received = || {
        let fields = fields.iter().enumerate();
        fields
            .filter(|(_, (name, _))| name.eq_ignore_ascii_case("Received"))
            .map(|(at, (_, value))| (at, came_from(value)))
            .filter(|(_, trace)| trace.ip.is_some())
    };
    let is_ours = |trace: &Trace| {
        let by = trace.by.as_deref();
        by.is_some_and(|by| by.eq_ignore_ascii_case(hostname))
    };
    let ours = received().find(|(_, trace)| is_ours(trace));
    ours.or_else(|| received().next())
}

/// The names and the address in a Received field: `from NAME (… [ADDRESS]) by US`, or as qpsmtpd writes it, `from HOST (HELO NAME) (ADDRESS) by US`.
fn came_from(received: &str) -> Trace {
    let is_between = |letter: char| letter.is_ascii_whitespace() || "()[];".contains(letter);
    let words: Vec<&str> = received
        .split(is_between)
        .filter(|word| !word.is_empty())
        .collect();
    let Some((&"from", words)) = words.split_first() else {
        return Trace::default();
    };
    let by = words.iter().position(|word| *word == "by");
    let (from, behind) = words.split_at(by.unwrap_or(words.len()));
    let greeted = from
        .iter()
        .position(|word| matches!(*word, "HELO" | "EHLO"));
    let helo = from.get(greeted.map_or(0, |at| at + 1));
    let ip = from.iter().find_map(|word| {
        let word = word.strip_prefix("IPv6:").unwrap_or(word);
        let (word, _) = word.split_once('%').unwrap_or((word, ""));
        word.parse().ok()
    });
    Trace {
        helo: helo.map(|name| (*name).to_owned()),
        ip,
        by: behind.get(1).map(|name| (*name).to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a file has, by the server mx.example.org.
    fn read(text: &str) -> Result<Vec<Delivered>, String> {
        let question = Question::of_nothing();
        let origin = Origin {
            question: &question,
            hostname: "mx.example.org",
        };
        messages("m", text.as_bytes().to_vec(), &origin)
    }

    fn text_of(delivered: &Delivered) -> String {
        let Said::Message(message) = &delivered.session.said else {
            panic!("it is a message")
        };
        String::from_utf8_lossy(message).into_owned()
    }

    #[test]
    fn who_brought_a_message_is_read_from_its_trace() {
        for (received, name, address) in [
            (
                "from mx.a.example (mail.a.example [192.0.2.7]) by us.example with ESMTP; x",
                "mx.a.example",
                "192.0.2.7",
            ),
            (
                "from [192.0.2.9] (unknown [IPv6:2001:db8::9])\r\n\tby us.example",
                "192.0.2.9",
                "192.0.2.9",
            ),
            (
                "from host.a.example (HELO mx.a.example) (192.0.2.8)\n    by us.example (qpsmtpd/0.94)",
                "mx.a.example",
                "192.0.2.8",
            ),
            (
                "from mx (x [IPv6:2001:db8::9]) by us.example;",
                "mx",
                "2001:db8::9",
            ),
        ] {
            let expected = Trace {
                helo: Some(name.to_owned()),
                ip: address.parse().ok(),
                by: Some("us.example".to_owned()),
            };
            assert_eq!(came_from(received), expected, "{received}");
        }
        // An address of the server is not the client's.
        assert_eq!(came_from("from x\n\tby us ([192.0.2.1])").ip, None);
        for none in ["by us with local", "(qmail 7 invoked by uid 89); x"] {
            assert_eq!(came_from(none), Trace::default(), "{none}");
        }
    }

    #[test]
    fn a_delivered_message_is_played_as_it_came() {
        let ours = "Received: from h (HELO mx.b.example) (192.0.2.7)\n    by mx.example.org (qpsmtpd/0.94) with ESMTP; x\n";
        let came = "Received: from inside (x [192.0.2.99]) by mx.b.example\nX-Spam-Status: theirs\nSubject: x\n\nhello\n";
        let first = "Return-Path: <a@b.example>\nDelivered-To: bob@example.org\n";
        for above in [
            "",
            // What plugins of qpsmtpd add stands above its Received.
            "X-Spam-Status: No, hits=0.1\nX-Virus-Checked: by us\n",
            "Received: (qmail 7 invoked by uid 89); x\n",
            "Received: from mx.example.org (y [192.0.2.250])\n\tby store.example.org; x\n",
        ] {
            let read = read(&format!("{first}{above}{ours}{came}")).unwrap();
            assert_eq!(
                read[0].session.about(),
                "client 192.0.2.7, EHLO mx.b.example, from <a@b.example> to <bob@example.org>",
                "{above}"
            );
            assert_eq!(text_of(&read[0]), came, "{above}");
            assert!(read[0].names_client);
        }
        // Where nobody wrote who brought it, the message is whole.
        let unknown = read(&format!("{first}Subject: x\n\n")).unwrap();
        assert_eq!(text_of(&unknown[0]), "Subject: x\n\n");
        assert!(!unknown[0].names_client);
    }

    #[test]
    fn an_mbox_has_many() {
        let to = "Delivered-To: bob@example.org\n";
        let read = read(&format!(
            "From a@b Mon\n{to}Subject: 1\n\nhello\n>From me\nFrom here\n\nFrom a@b Tue\n{to}Subject: 2\n\n>>From you\n"
        ))
        .unwrap();
        let texts: Vec<String> = read.iter().map(text_of).collect();
        assert_eq!(
            texts,
            [
                "Subject: 1\n\nhello\nFrom me\nFrom here\n",
                "Subject: 2\n\n>From you\n"
            ]
        );
        assert_eq!(read[1].session.name, "m (2)");
    }

    #[test]
    fn what_is_no_message_is_said() {
        for (text, says) in [
            ("3 V1 N2\n", "it is no message"),
            ("", "it is no message"),
            ("Subject: x\n\n", "no field Delivered-To"),
            (
                "From a Mon\nSubject: x\n\n",
                "message 1: no field Delivered-To",
            ),
        ] {
            let error = read(text).err();
            assert!(
                error.as_ref().is_some_and(|it| it.starts_with(says)),
                "{text}: {error:?}"
            );
        }
    }
}
