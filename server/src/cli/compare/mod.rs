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
    match play(question) {
        Ok(tally) => {
            println!("{tally}");
            match tally.is_equal() {
                true => ExitCode::SUCCESS,
                false => ExitCode::from(1),
            }
        }
        // Whatever went wrong: 1 says that sessions differ.
        Err(error) => {
            eprint!("{error}");
            ExitCode::from(MISTAKE)
        }
    }
}

/// Plays what was named by both configurations. An error is what is not on standard error yet.
fn play(question: &Question) -> Result<Tally, String> {
    let named = sessions::named(question).map_err(|error| format!("{error}\n"))?;
    let start = |path: &Path| {
        let scratch = tempfile::tempdir()
            .map_err(|error| format!("there is no folder for temporary files: {error}\n"))?;
        Rehearsal::start_apart(path, scratch).map_err(|_| String::new())
    };
    let old = start(&question.old)?;
    let new = match start(&question.new) {
        Ok(new) => new,
        Err(error) => {
            old.end();
            return Err(error);
        }
    };
    let mut tally = Tally::default();
    let played = named.each(|session| {
        let failed = |error| format!("{}: {error}", session.name);
        let before = bring(&old, session).map_err(failed)?;
        let after = bring(&new, session).map_err(failed)?;
        let differences = Differences::between(&records(&before), &records(&after), |name| {
            session.has_field(name)
        });
        if !differences.is_empty() {
            println!("{}: {}", session.name, session.about());
            println!("{differences}");
        }
        tally.add(&differences);
        Ok(())
    });
    old.end();
    new.end();
    let remarks = played.map_err(|error| format!("{error}\n"))?;
    for remark in remarks {
        eprintln!("{remark}");
    }
    match tally.is_empty() {
        true => Err("there is no session in what was named\n".to_owned()),
        false => Ok(tally),
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
