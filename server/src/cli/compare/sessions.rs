//! What is played: messages that a server has delivered, transcripts, and sessions of the journal.

use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use gatepost_protocol::Address;

use super::Question;
use super::messages::{Origin, messages};
use crate::cli::rehearsal::Envelope;
use crate::cli::transcript::files;
use crate::config::{self, Config};
use crate::plugins;
use crate::report::journal::{self, Record};

/// Who brings a message about which nothing is known: an address for documentation (RFC 5737).
pub const SOMEBODY: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
pub const SOME_NAME: &str = "client.example";

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

/// Files and folders that were named, none of them read yet: there may be more in them than memory holds.
pub struct Named<'a> {
    question: &'a Question,
    config: Config,
    /// Each with whether it was found in a folder.
    paths: Vec<(PathBuf, bool)>,
}

/// What was named, in that order.
///
/// # Errors
/// The configuration of before cannot be read, or something that was named is not there.
pub fn named(question: &Question) -> Result<Named<'_>, String> {
    let config = config::load(Some(&question.old), &plugins::all())
        .map_err(|mistakes| mistakes.to_string())?;
    let mut paths = Vec::new();
    for path in &question.files {
        let about = std::fs::metadata(path).map_err(|error| of_file(path, error))?;
        match about.is_dir() {
            true => paths.extend(files(path).into_iter().map(|path| (path, true))),
            false => paths.push((path.clone(), false)),
        }
    }
    Ok(Named {
        question,
        config,
        paths,
    })
}

impl Named<'_> {
    /// Plays all of it, a file at a time; returns what the operator should know before trusting the result, in sentences. What cannot be played ends it, but is passed over in a
    /// folder: a Maildir has files that are no messages.
    pub fn each(
        &self,
        mut play: impl FnMut(&Recorded) -> Result<(), String>,
    ) -> Result<Vec<String>, String> {
        let mut passed_over = Vec::new();
        let mut without_client = 0;
        for (path, is_in_folder) in &self.paths {
            match of_path(path, self.question, &self.config.hostname) {
                Ok((found, unknown)) => {
                    found.iter().try_for_each(&mut play)?;
                    without_client += unknown;
                }
                Err(error) if *is_in_folder => passed_over.push(error),
                Err(error) => return Err(error),
            }
        }
        if self.question.journal {
            let mut found = Vec::new();
            of_journal(&self.config, &mut found)?;
            found.iter().try_for_each(&mut play)?;
        }
        let mut remarks = Vec::new();
        if let [first, ..] = &passed_over[..] {
            remarks.push(format!(
                "passed over: {}, such as {first}",
                passed_over.len()
            ));
        }
        if without_client > 0 {
            remarks.push(format!(
                "{without_client} messages have no Received field that names their client, and are played as from {SOMEBODY}; say --ip"
            ));
        }
        Ok(remarks)
    }
}

fn of_file(path: &Path, error: io::Error) -> String {
    format!("{}: {error}", path.display())
}

/// The sessions of a file, and how many of them have an unknown client.
fn of_path(
    path: &Path,
    question: &Question,
    hostname: &str,
) -> Result<(Vec<Recorded>, usize), String> {
    let text = std::fs::read(path).map_err(|error| of_file(path, error))?;
    let of_path = |error: String| format!("{}: {error}", path.display());
    if path
        .extension()
        .is_some_and(|extension| extension == "smtp")
    {
        let session = transcript(path, &text, question).map_err(of_path)?;
        return Ok((vec![session], 0));
    }
    let (name, origin) = (path.display().to_string(), Origin { question, hostname });
    let found = messages(&name, text, &origin).map_err(of_path)?;
    let unknown = found.iter().filter(|message| !message.names_client);
    let unknown = unknown.count();
    let sessions = found.into_iter().map(|message| message.session);
    Ok((sessions.collect(), unknown))
}

/// The lines that begin with `C:`.
fn transcript(path: &Path, text: &[u8], question: &Question) -> Result<Recorded, String> {
    let lines = text.split(|byte| *byte == b'\n');
    let said = lines.filter_map(|line| {
        let line = line.strip_prefix(b"C:")?;
        let line = line.strip_prefix(b" ").unwrap_or(line);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        Some([line, b"\r\n"].concat())
    });
    let said: Vec<Vec<u8>> = said.collect();
    if said.is_empty() {
        return Err("no line begins with C:, which is what the client says".to_owned());
    }
    let mut is_message = false;
    for line in &said {
        let is = |verb: &[u8]| {
            let begin = line.get(..verb.len());
            begin.is_some_and(|begin| begin.eq_ignore_ascii_case(verb))
        };
        match is_message {
            true => is_message = line != b".\r\n",
            // Who waits for a reply in the middle of a block waits for ever (RFC 3030 §2).
            false if is(b"BDAT ") => return Err("BDAT cannot be played; say DATA".to_owned()),
            false => is_message = is(b"DATA\r\n"),
        }
    }
    Ok(Recorded {
        name: path.display().to_string(),
        envelope: Envelope {
            ip: question.ip.unwrap_or(SOMEBODY),
            helo: String::new(),
            from: Address::null(),
            rcpt: Vec::new(),
            tls: false,
            user: None,
        },
        said: Said::Lines(said),
    })
}

/// Transactions that name a sender and recipients.
fn of_journal(config: &Config, found: &mut Vec<Recorded>) -> Result<(), String> {
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
    use super::*;

    #[test]
    fn a_transcript_that_cannot_be_played_is_a_mistake() {
        let question = Question::of_nothing();
        for (text, says) in [
            ("EHLO x\nQUIT\n", "no line begins with C:"),
            ("C: EHLO x\nC: bdat 3 LAST\nC: x\n", "BDAT cannot"),
        ] {
            let error = transcript(Path::new("x.smtp"), text.as_bytes(), &question).err();
            assert!(error.unwrap().starts_with(says));
        }
        // In a message the word is no command.
        let text = b"S: 250\nC: DATA\nC: BDAT 3\nC: .\nC: QUIT\n";
        let session = transcript(Path::new("x.smtp"), text, &question).unwrap();
        let Said::Lines(lines) = session.said else {
            panic!("they are lines")
        };
        assert_eq!(lines.concat(), b"DATA\r\nBDAT 3\r\n.\r\nQUIT\r\n");
    }
}
