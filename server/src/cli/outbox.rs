//! `gatepost outbox`: shows what waits in the outbox, has it tried now, or throws it away. It works on the folder, whether the daemon runs or not.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;
use std::time::SystemTime;

use clap::Subcommand;

use super::{FAILED, MISTAKE, refuse};
use crate::config;
use crate::outbox::folder::{Claimed, Folder, is_id};
use crate::outbox::{Envelope, Millis, millis};
use crate::plugins;

/// What to do with the outbox.
#[derive(Subcommand)]
pub enum OutboxCommand {
    /// A line for each message: its ID, what it is, its age, bytes, attempts, when the next one is due, from whom and for whom it is, and why it waits
    List {
        #[command(flatten)]
        config: super::ConfigArgument,
    },
    /// Everything that is known of a message, and the message itself
    Show {
        #[command(flatten)]
        one: One,
    },
    /// Have a message tried now
    Retry {
        #[command(flatten)]
        one: One,
    },
    /// Throw a message away; nobody is told
    Remove {
        #[command(flatten)]
        one: One,
    },
}

/// One message.
#[derive(clap::Args)]
pub struct One {
    /// The message's ID, as in `list` and in the log
    id: String,
    #[command(flatten)]
    config: super::ConfigArgument,
}

/// Does it. The exit code is 1 where the folder or the message is not as it has to be, 2 for a mistake in the configuration or the ID.
pub fn outbox(command: &OutboxCommand) -> ExitCode {
    let (config, id) = match command {
        OutboxCommand::List { config } => (config, None),
        OutboxCommand::Show { one }
        | OutboxCommand::Retry { one }
        | OutboxCommand::Remove { one } => (&one.config, Some(one.id.as_str())),
    };
    if let Some(id) = id.filter(|id| !is_id(id)) {
        return refuse(&format!(
            "`{}` is no ID of a message; `gatepost outbox list` shows them",
            id.escape_debug()
        ));
    }
    let folder = match folder(config.config.as_deref()) {
        Ok(folder) => folder,
        Err(code) => return code,
    };
    let done = match (command, id) {
        (OutboxCommand::Show { .. }, Some(id)) => show(&folder, id),
        (OutboxCommand::Retry { .. }, Some(id)) => retry(&folder, id),
        (OutboxCommand::Remove { .. }, Some(id)) => remove(&folder, id),
        _ => list(&folder),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{}: {error}", folder.path().display());
            ExitCode::from(FAILED)
        }
    }
}

fn folder(path: Option<&Path>) -> Result<Folder, ExitCode> {
    match config::load(path, &plugins::all()) {
        Ok(config) => Ok(Folder::below(&config.spool_dir)),
        Err(mistakes) => {
            eprintln!("{mistakes}");
            Err(ExitCode::from(MISTAKE))
        }
    }
}

fn list(folder: &Folder) -> io::Result<()> {
    let now = millis(SystemTime::now());
    let mut text = String::new();
    let mut found = folder.list()?;
    found.sort_by_key(|found| {
        found
            .envelope
            .as_ref()
            .map_or(0, |envelope| envelope.arrived)
    });
    for entry in found {
        // Writing to a String cannot fail.
        let _ = match &entry.envelope {
            Ok(envelope) => writeln!(text, "{} {}", entry.id, line(envelope, now)),
            Err(error) => writeln!(text, "{} cannot be read: {error}", entry.id),
        };
    }
    print(text.as_bytes())
}

/// What is known of a message, on one line.
fn line(envelope: &Envelope, now: Millis) -> String {
    let to: Vec<String> = envelope
        .recipients
        .iter()
        .map(|recipient| recipient.address.to_string())
        .collect();
    let reason = match envelope.reason.as_str() {
        "" => String::new(),
        reason => format!(": {}", reason.escape_debug()),
    };
    format!(
        "{} age {} size {} attempts {} next in {} from {} to {}{reason}",
        envelope.kind.name(),
        span(now.saturating_sub(envelope.arrived)),
        envelope.size,
        envelope.attempts,
        span(envelope.due.saturating_sub(now)),
        envelope.sender,
        to.join(","),
    )
}

/// A time in its two biggest units: `2d3h`, `5m0s`.
fn span(millis: Millis) -> String {
    let seconds = millis / 1000;
    let (days, hours) = (seconds / 86_400, seconds / 3600 % 24);
    let (minutes, seconds) = (seconds / 60 % 60, seconds % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m{seconds}s"),
        (0, ..) => format!("{hours}h{minutes}m"),
        _ => format!("{days}d{hours}h"),
    }
}

fn show(folder: &Folder, id: &str) -> io::Result<()> {
    let envelope = folder.read(id).map_err(|error| explained(id, error))?;
    let mut text = serde_json::to_vec_pretty(&envelope)?;
    text.extend_from_slice(b"\n\n");
    print(&text)?;
    let mut bytes = std::fs::File::open(folder.bytes_of(id))?;
    io::copy(&mut bytes, &mut io::stdout().lock()).map(drop)
}

fn retry(folder: &Folder, id: &str) -> io::Result<()> {
    let claim = claim(folder, id)?;
    let due = millis(SystemTime::now());
    let envelope = Envelope {
        due,
        ..claim.envelope.clone()
    };
    folder.update(&claim, &envelope)?;
    drop(claim);
    folder.say_changed()
}

fn remove(folder: &Folder, id: &str) -> io::Result<()> {
    let claim = claim(folder, id)?;
    folder.remove(&claim)?;
    drop(claim);
    folder.say_changed()
}

fn claim(folder: &Folder, id: &str) -> io::Result<Box<crate::outbox::folder::Claim>> {
    match folder.claim(id)? {
        Claimed::Ours(claim) => Ok(claim),
        Claimed::Busy => Err(io::Error::other(format!(
            "{id} is being delivered at this moment; look again in a minute"
        ))),
        Claimed::Gone => Err(explained(id, io::ErrorKind::NotFound.into())),
    }
}

fn explained(id: &str, error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::NotFound => io::Error::other(format!(
            "there is no message {id}; it may have been delivered"
        )),
        _ => error,
    }
}

fn print(text: &[u8]) -> io::Result<()> {
    io::stdout().lock().write_all(text)
}
