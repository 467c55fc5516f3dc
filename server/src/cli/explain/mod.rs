//! `gatepost explain`: why a message was decided as it was, or how one would be (docs/explain.md).

mod show;

use std::io::{IsTerminal, Read, Write};
use std::net::IpAddr;
use std::path::Path;
use std::process::ExitCode;

use gatepost_protocol::Address;

use super::{FAILED, MISTAKE, refuse, rehearsal};
use crate::config;
use crate::plugins;
use crate::report::journal::{self, Record};

/// What is to be explained.
#[derive(clap::Args)]
pub struct Question {
    /// The message, as in `Queued as 3f9a1c.1`; or a session, as in the log: `3f9a1c`
    #[arg(required_unless_present = "ip", conflicts_with_all = ["ip", "helo", "from", "rcpt", "tls", "auth"])]
    id: Option<String>,
    /// The client's address; with --helo, --from and --rcpt, for the message on standard input
    #[arg(long, value_name = "ADDRESS", requires_all = ["helo", "from", "rcpt"])]
    ip: Option<IpAddr>,
    /// The name it greets with
    #[arg(long, value_name = "NAME", requires = "ip")]
    helo: Option<String>,
    /// The envelope sender; "" for none
    #[arg(long, value_name = "ADDRESS", requires = "ip", value_parser = sender)]
    from: Option<Address>,
    /// An envelope recipient; may be given several times
    #[arg(long, value_name = "ADDRESS", requires = "ip", value_parser = recipient)]
    rcpt: Vec<Address>,
    /// The client encrypts
    #[arg(long, requires = "ip")]
    tls: bool,
    /// The client has authenticated as this user
    #[arg(long, value_name = "USER", requires = "ip")]
    auth: Option<String>,
    /// Print what is written down, as JSON, a line for each record
    #[arg(long)]
    json: bool,
}

/// Reads the address of a sender.
pub fn sender(text: &str) -> Result<Address, String> {
    match text {
        "" | "<>" => Ok(Address::null()),
        text => recipient(text),
    }
}

/// Reads the address of a recipient.
pub fn recipient(text: &str) -> Result<Address, String> {
    Address::parse_utf8(text).map_err(|_| "expected an address, like bob@example.org".to_owned())
}

/// Explains on standard output.
pub fn explain(path: Option<&Path>, question: Question) -> ExitCode {
    let json = question.json;
    let records = match question {
        Question { id: Some(id), .. } => look_up(path, &id),
        Question {
            ip: Some(ip),
            helo: Some(helo),
            from: Some(from),
            rcpt,
            tls,
            auth,
            ..
        } => match message() {
            Ok(message) => {
                let envelope = rehearsal::Envelope {
                    ip,
                    helo,
                    from,
                    rcpt,
                    tls,
                    user: auth,
                };
                rehearsal::perform(path, &envelope, &message)
            }
            Err(error) => {
                eprintln!("cannot read the message on standard input: {error}");
                Err(ExitCode::from(FAILED))
            }
        },
        _ => Err(refuse(
            "name a message, or say --ip, --helo, --from and --rcpt",
        )),
    };
    let lines = match records {
        Ok(lines) => lines,
        Err(code) => return code,
    };
    let mut text = String::new();
    for line in lines {
        if json {
            text.push_str(line.trim_end());
            text.push('\n');
        } else if let Ok(record) = serde_json::from_str::<Record>(&line) {
            let space = if text.is_empty() { "" } else { "\n" };
            text.push_str(space);
            text.push_str(&show::text(&record));
        }
    }
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever read along has seen enough.
        Err(_) => ExitCode::from(FAILED),
    }
}

fn message() -> std::io::Result<Vec<u8>> {
    let mut input = std::io::stdin();
    if input.is_terminal() {
        eprintln!(
            "type the message, and Ctrl-D at its end (or: gatepost explain ... < message.eml)"
        );
    }
    let mut message = Vec::new();
    input.read_to_end(&mut message)?;
    Ok(message)
}

/// The records of a message or session in the journal.
fn look_up(path: Option<&Path>, id: &str) -> Result<Vec<String>, ExitCode> {
    let config = config::load(path, &plugins::all()).map_err(|mistakes| {
        eprintln!("{mistakes}");
        ExitCode::from(MISTAKE)
    })?;
    let folder = journal::folder(&config.spool_dir);
    let failed = |text: String| {
        eprintln!("{text}");
        ExitCode::from(FAILED)
    };
    if config.journal == 0 && !folder.exists() {
        return Err(failed(
            "no journal is kept: set `journal = \"64MB\"` in the configuration to have one from now on"
                .to_owned(),
        ));
    }
    let found = journal::find(&folder, id).map_err(|error| {
        failed(format!(
            "cannot read the journal {}: {error}",
            folder.display()
        ))
    })?;
    if !found.records.is_empty() {
        return Ok(found.records);
    }
    let reach = match found.since {
        Some(since) => format!("which reaches back to {since}"),
        None => "which is empty".to_owned(),
    };
    Err(failed(format!(
        "{id} is not in the journal {}, {reach}",
        folder.display()
    )))
}
