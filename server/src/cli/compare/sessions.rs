//! What is played: messages that a server has delivered, transcripts, and sessions of the journal.

use std::io;
use std::net::IpAddr;
use std::path::Path;

use bytes::Bytes;
use gatepost_protocol::{Address, HeaderBlock};

use super::Question;
use crate::cli::rehearsal::Envelope;
use crate::cli::transcript::files;
use crate::config;
use crate::plugins;
use crate::report::journal::{self, Record};

/// Who brings a message about which nothing is known: an address for documentation (RFC 5737).
const SOMEBODY: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
const SOME_NAME: &str = "client.example";

/// Header fields that the server put above the message when it came in.
const ADDED: [&str; 6] = [
    "Return-Path",
    "Delivered-To",
    "X-Original-To",
    "Envelope-To",
    "Authentication-Results",
    "Received",
];
/// Those that name a recipient.
const NAMES_RECIPIENT: [&str; 3] = ["Delivered-To", "X-Original-To", "Envelope-To"];

/// A session to be played.
pub struct Recorded {
    /// The file, or the name in the journal.
    pub name: String,
    pub envelope: Envelope,
    pub said: Said,
}

/// What the client said.
pub enum Said {
    /// It brought a message.
    Message(Vec<u8>),
    /// Nobody knows what it brought.
    Nothing,
    /// These lines.
    Lines(Vec<Vec<u8>>),
}

impl Recorded {
    /// Who it was, and for whom.
    pub fn about(&self) -> String {
        let Envelope {
            ip,
            helo,
            from,
            rcpt,
            ..
        } = &self.envelope;
        if let Said::Lines(_) = self.said {
            return format!("client {ip}");
        }
        let to: Vec<String> = rcpt.iter().map(ToString::to_string).collect();
        format!("client {ip}, EHLO {helo}, from {from} to {}", to.join(" "))
    }

    /// Whether a line of it could be a header field of that name.
    pub fn has_field(&self, name: &str) -> bool {
        let is_field = |line: &[u8]| {
            let begin = line.get(..name.len());
            begin.is_some_and(|begin| begin.eq_ignore_ascii_case(name.as_bytes()))
                && line.get(name.len()) == Some(&b':')
        };
        match &self.said {
            Said::Message(message) => message.split(|byte| *byte == b'\n').any(is_field),
            Said::Lines(lines) => lines.iter().any(|line| is_field(line)),
            Said::Nothing => false,
        }
    }
}

/// All that was named, in order.
pub fn all(question: &Question) -> Result<Vec<Recorded>, String> {
    let mut found = Vec::new();
    let of_file = |path: &Path, error: io::Error| format!("{}: {error}", path.display());
    for path in &question.files {
        let about = std::fs::metadata(path).map_err(|error| of_file(path, error))?;
        let paths = match about.is_dir() {
            true => files(path),
            false => vec![path.clone()],
        };
        for path in paths {
            let text = std::fs::read(&path).map_err(|error| of_file(&path, error))?;
            found.push(match path.extension() {
                Some(extension) if extension == "smtp" => transcript(&path, &text, question),
                _ => message(&path, text, question)?,
            });
        }
    }
    if question.journal {
        of_journal(question, &mut found)?;
    }
    Ok(found)
}

/// The lines that begin with `C:`.
fn transcript(path: &Path, text: &[u8], question: &Question) -> Recorded {
    let lines = text.split(|byte| *byte == b'\n');
    let said = lines.filter_map(|line| {
        let line = line.strip_prefix(b"C:")?;
        let line = line.strip_prefix(b" ").unwrap_or(line);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        Some([line, b"\r\n"].concat())
    });
    Recorded {
        name: path.display().to_string(),
        envelope: Envelope {
            ip: question.ip.unwrap_or(SOMEBODY),
            helo: String::new(),
            from: Address::null(),
            rcpt: Vec::new(),
            tls: false,
            user: None,
        },
        said: Said::Lines(said.collect()),
    }
}

/// A message as it was delivered; it is played as it came, without what was put above it.
fn message(path: &Path, text: Vec<u8>, question: &Question) -> Result<Recorded, String> {
    let end = HeaderBlock::find_end(&text, 0).map_or(text.len(), |(end, _)| end);
    let header = HeaderBlock::parse(Bytes::copy_from_slice(&text[..end]));
    let mut rest = HeaderBlock::parse(Bytes::copy_from_slice(&text[..end]));
    let mut received = None;
    let mut sender = None;
    let mut rcpt = Vec::new();
    for (name, value) in header.iter() {
        let name = String::from_utf8_lossy(name);
        let is = |other: &&str| name.eq_ignore_ascii_case(other);
        let Some(added) = ADDED.iter().find(|added| is(added)) else {
            break;
        };
        let value = String::from_utf8_lossy(value).trim().to_owned();
        match *added {
            "Return-Path" => sender = Some(value),
            "Received" => received = Some(value),
            added if NAMES_RECIPIENT.contains(&added) => rcpt.push(value),
            _ => {}
        }
        rest.remove(added, Some(1));
        if received.is_some() {
            break;
        }
    }
    let (helo, ip) = received.as_deref().map(came_from).unwrap_or_default();
    let address = |text: &String| {
        let text = text.trim_start_matches('<').trim_end_matches('>');
        match text {
            "" => Some(Address::null()),
            text => Address::parse_utf8(text).ok(),
        }
    };
    let rcpt = match question.rcpt.is_empty() {
        true => rcpt.iter().filter_map(address).collect(),
        false => question.rcpt.clone(),
    };
    if rcpt.is_empty() {
        return Err(format!(
            "{}: no field Delivered-To says for whom the message was; say --rcpt",
            path.display()
        ));
    }
    let from = question.from.clone();
    Ok(Recorded {
        name: path.display().to_string(),
        envelope: Envelope {
            ip: question.ip.or(ip).unwrap_or(SOMEBODY),
            helo: question
                .helo
                .clone()
                .or(helo)
                .unwrap_or(SOME_NAME.to_owned()),
            from: from
                .or(sender.as_ref().and_then(address))
                .unwrap_or(Address::null()),
            rcpt,
            tls: false,
            user: None,
        },
        said: Said::Message([&rest.to_bytes()[..], &text[end..]].concat()),
    })
}

/// The name and the address in a Received field (RFC 5321 §4.4): `from NAME (… [ADDRESS])`, or as qpsmtpd writes it, `from HOST (HELO NAME) (ADDRESS)`.
fn came_from(received: &str) -> (Option<String>, Option<IpAddr>) {
    let Some(from) = received.strip_prefix("from ") else {
        return (None, None);
    };
    let from = from.split(" by ").next().unwrap_or(from);
    let mut words = from.split([' ', '\t', '\r', '\n', '(', ')', '[', ']']);
    let greeted = words
        .clone()
        .skip_while(|word| !matches!(*word, "HELO" | "EHLO"));
    let name = greeted.skip(1).find(|word| !word.is_empty());
    let name = name.or_else(|| words.clone().find(|word| !word.is_empty()));
    let address = words.find_map(|word| {
        let word = word.strip_prefix("IPv6:").unwrap_or(word);
        let (word, _) = word.split_once('%').unwrap_or((word, ""));
        word.parse().ok()
    });
    (name.map(str::to_owned), address)
}

/// Transactions that name a sender and recipients.
fn of_journal(question: &Question, found: &mut Vec<Recorded>) -> Result<(), String> {
    let old = Some(question.old.as_path());
    let config = config::load(old, &plugins::all()).map_err(|mistakes| mistakes.to_string())?;
    let folder = journal::folder(&config.spool_dir);
    let lines = journal::all(&folder).map_err(|error| {
        format!(
            "the journal {}: {error}; `journal` sets one up",
            folder.display()
        )
    })?;
    for line in &lines {
        let Ok(record) = serde_json::from_str::<Record>(line) else {
            continue;
        };
        let parse = |text: &str| match text {
            "" => Some(Address::null()),
            text => Address::parse_utf8(text).ok(),
        };
        let ip = record
            .client
            .rsplit_once(':')
            .and_then(|(ip, _)| ip.trim_matches(['[', ']']).parse().ok());
        let helo = record
            .hello
            .split_once(' ')
            .map(|(_, name)| name.to_owned());
        let rcpt = record.recipients.iter();
        let rcpt: Vec<Address> = rcpt.filter_map(|told| parse(&told.address)).collect();
        let (Some(ip), Some(from)) = (ip, record.sender.as_deref().and_then(parse)) else {
            continue;
        };
        if rcpt.is_empty() {
            continue;
        }
        found.push(Recorded {
            name: format!("{} in the journal", record.id),
            envelope: Envelope {
                ip,
                helo: helo.unwrap_or(SOME_NAME.to_owned()),
                from,
                rcpt,
                tls: !record.tls.is_empty(),
                user: (!record.user.is_empty()).then(|| record.user.to_string()),
            },
            said: Said::Nothing,
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

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
                "from host.a.example (HELO mx.a.example) (192.0.2.8)\n    by us (qpsmtpd/0.94)",
                "mx.a.example",
                "192.0.2.8",
            ),
            ("from mx (x [IPv6:2001:db8::9]) by us", "mx", "2001:db8::9"),
        ] {
            let expected = (Some(name.to_owned()), address.parse().ok());
            assert_eq!(came_from(received), expected, "{received}");
        }
        assert_eq!(came_from("by us with local"), (None, None));
    }

    #[test]
    fn a_delivered_message_is_played_as_it_came() {
        let question = Question {
            old: PathBuf::new(),
            new: PathBuf::new(),
            files: Vec::new(),
            journal: false,
            ip: None,
            helo: None,
            from: None,
            rcpt: Vec::new(),
        };
        let text = b"Return-Path: <a@b.example>\nDelivered-To: bob@example.org\nReceived: from mx.b.example (x [192.0.2.7]) by us\nReceived: from inside by mx.b.example\nSubject: x\n\nhello\n";
        let session = message(Path::new("m"), text.to_vec(), &question).unwrap();
        assert_eq!(
            session.about(),
            "client 192.0.2.7, EHLO mx.b.example, from <a@b.example> to <bob@example.org>"
        );
        let Said::Message(message) = session.said else {
            panic!("it is a message")
        };
        assert_eq!(
            String::from_utf8(message).unwrap(),
            "Received: from inside by mx.b.example\nSubject: x\n\nhello\n"
        );
        let error = super::message(Path::new("m"), b"Subject: x\n\n".to_vec(), &question).err();
        assert_eq!(
            error.unwrap(),
            "m: no field Delivered-To says for whom the message was; say --rcpt"
        );
    }
}
