//! `gatepost outbox`: shows what waits in the outbox, has it tried now, or throws it away.

use std::io;
use std::process::ExitCode;
use std::slice;

use clap::Subcommand;

use super::stored::{self, One, claim, joined, now, span, with_folder};
use crate::outbox::folder::Folder;
use crate::outbox::{Envelope, Millis};

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

/// Does it; returns the exit code.
pub fn outbox(command: &OutboxCommand) -> ExitCode {
    let (config, one) = match command {
        OutboxCommand::List { config } => (config, None),
        OutboxCommand::Show { one }
        | OutboxCommand::Retry { one }
        | OutboxCommand::Remove { one } => (&one.config, Some(&one.id)),
    };
    let ids = one.map(slice::from_ref).unwrap_or_default();
    with_folder(
        config.config.as_deref(),
        "outbox",
        ids,
        |_, folder| match command {
            OutboxCommand::List { .. } => list(folder),
            OutboxCommand::Show { one } => stored::show(folder, &one.id, waits),
            OutboxCommand::Retry { one } => retry(folder, &one.id),
            OutboxCommand::Remove { one } => stored::remove(folder, &one.id, waits),
        },
    )
}

/// Messages that are withheld are not in the outbox.
fn waits(id: &str, envelope: &Envelope) -> io::Result<()> {
    match &envelope.withheld {
        None => Ok(()),
        Some(withheld) => Err(io::Error::other(format!(
            "{id} is {}; see `gatepost quarantine show {id}`",
            withheld.kind.name()
        ))),
    }
}

fn list(folder: &Folder) -> io::Result<()> {
    let now = now();
    stored::list(folder, |id, envelope| match envelope.withheld {
        None => Some(format!("{id} {}", line(envelope, now))),
        Some(_) => None,
    })
}

/// What is known of a message, on one line.
fn line(envelope: &Envelope, now: Millis) -> String {
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
        joined(&envelope.recipients),
    )
}

fn retry(folder: &Folder, id: &str) -> io::Result<()> {
    let claim = claim(folder, id, waits)?;
    let envelope = Envelope {
        due: now(),
        ..claim.envelope.clone()
    };
    folder.update(&claim, &envelope)?;
    drop(claim);
    folder.say_changed()
}
