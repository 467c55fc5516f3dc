//! `gatepost compare`: two configurations over the same sessions, and where they decide differently (docs/compare.md).

mod difference;
mod messages;
mod sessions;

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use gatepost_protocol::Address;

use super::MISTAKE;
use super::explain::{recipient, sender};
use super::rehearsal::{Rehearsal, Said};
use crate::report::journal::Record;
use difference::{Differences, Tally};
use sessions::Recorded;

/// What is to be compared, by what.
#[derive(clap::Args)]
pub struct Question {
    /// The configuration of before
    old: PathBuf,
    /// The configuration that may take its place
    new: PathBuf,
    /// Messages, folders of them (Maildirs, too), and transcripts (`*.smtp`)
    #[arg(required_unless_present = "journal")]
    files: Vec<PathBuf>,
    /// Play the sessions, too, that the journal of the configuration of before has, up to RCPT
    #[arg(long)]
    journal: bool,
    /// The client's address [default: as the message's Received field says]
    #[arg(long, value_name = "ADDRESS")]
    ip: Option<IpAddr>,
    /// The name it greets with [default: as the message's Received field says]
    #[arg(long, value_name = "NAME")]
    helo: Option<String>,
    /// The envelope sender; "" for none [default: as Return-Path says]
    #[arg(long, value_name = "ADDRESS", value_parser = sender)]
    from: Option<Address>,
    /// An envelope recipient; may be given several times [default: as Delivered-To says]
    #[arg(long, value_name = "ADDRESS", value_parser = recipient)]
    rcpt: Vec<Address>,
}

#[cfg(test)]
impl Question {
    /// Without files and options.
    fn of_nothing() -> Question {
        Question {
            old: PathBuf::new(),
            new: PathBuf::new(),
            files: Vec::new(),
            journal: false,
            ip: None,
            helo: None,
            from: None,
            rcpt: Vec::new(),
        }
    }
}

/// Compares. Exit code 0: nothing differs.
pub fn compare(question: &Question) -> ExitCode {
    let found = match sessions::all(question) {
        Ok(found) => found,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(MISTAKE);
        }
    };
    for remark in &found.remarks {
        eprintln!("{remark}");
    }
    let sessions = found.sessions;
    if sessions.is_empty() {
        eprintln!("there is no session in what was named");
        return ExitCode::from(MISTAKE);
    }
    match play(question, &sessions) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(code) => code,
    }
}

/// Whether all sessions are equal.
fn play(question: &Question, sessions: &[Recorded]) -> Result<bool, ExitCode> {
    let start = |path: &Path| {
        let scratch = tempfile::tempdir().map_err(|error| {
            eprintln!("there is no folder for temporary files: {error}");
            ExitCode::from(MISTAKE)
        })?;
        // Whatever went wrong: 1 says that sessions differ.
        Rehearsal::start_apart(path, scratch).map_err(|_| ExitCode::from(MISTAKE))
    };
    let old = start(&question.old)?;
    let new = match start(&question.new) {
        Ok(new) => new,
        Err(code) => {
            old.end();
            return Err(code);
        }
    };
    let mut tally = Tally::default();
    let mut failed = None;
    for session in sessions {
        let (before, after) = match (bring(&old, session), bring(&new, session)) {
            (Ok(before), Ok(after)) => (before, after),
            (Err(error), _) | (_, Err(error)) => {
                eprintln!("{}: {error}", session.name);
                failed = Some(ExitCode::from(MISTAKE));
                break;
            }
        };
        let differences = Differences::between(&records(&before), &records(&after), |name| {
            session.has_field(name)
        });
        if !differences.is_empty() {
            println!("{}: {}", session.name, session.about());
            print!("{differences}");
            println!();
        }
        tally.add(&differences);
    }
    old.end();
    new.end();
    match failed {
        Some(code) => Err(code),
        None => {
            println!("{tally}");
            Ok(tally.is_equal())
        }
    }
}

fn bring(stage: &Rehearsal, session: &Recorded) -> std::io::Result<Vec<String>> {
    let said = match &session.said {
        sessions::Said::Message(message) => Said::Message(message),
        sessions::Said::Nothing => Said::Envelope,
        sessions::Said::Lines(lines) => Said::Lines(lines),
    };
    stage.bring(&session.envelope, said)
}

fn records(lines: &[String]) -> Vec<Record<'_>> {
    let records = lines.iter().map(|line| serde_json::from_str(line));
    records.filter_map(Result::ok).collect()
}
