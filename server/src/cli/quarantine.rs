//! `gatepost quarantine`: shows what is withheld, releases it, or throws it away.

use std::io;
use std::process::ExitCode;
use std::slice;
use std::time::Duration;

use clap::Subcommand;
use gatepost_protocol::Address;

use super::ConfigArgument;
use super::stored::{self, One, claim, joined, now, span, with_folder};
use crate::outbox::folder::Folder;
use crate::outbox::store::{Kind, release};
use crate::outbox::{Envelope, Millis, Withheld};

/// What to do with what is withheld.
#[derive(Subcommand)]
pub enum QuarantineCommand {
    /// A line for each message: its ID, whether it is quarantined or held, its age, bytes, when it will be removed, from whom and for whom it is, and by whom it is withheld and why
    List {
        /// Only messages that are held
        #[arg(long)]
        held: bool,
        #[command(flatten)]
        config: ConfigArgument,
    },
    /// Everything that is known of a message, and the message itself
    Show {
        #[command(flatten)]
        one: One,
    },
    /// Have messages delivered, through the outbox
    Release {
        #[command(flatten)]
        several: Several,
        /// Only for this recipient, and withhold it from the others; may be given several times
        #[arg(long = "rcpt", value_name = "ADDRESS", value_parser = Address::parse_utf8)]
        recipients: Vec<Address>,
    },
    /// Throw messages away; nobody is told
    Remove {
        #[command(flatten)]
        several: Several,
    },
}

/// One message or more.
#[derive(clap::Args)]
pub struct Several {
    /// The messages' IDs, as in `list` and in the log
    #[arg(required = true, value_name = "ID")]
    ids: Vec<String>,
    #[command(flatten)]
    config: ConfigArgument,
}

/// Does it; returns the exit code.
pub fn quarantine(command: &QuarantineCommand) -> ExitCode {
    let (config, ids) = match command {
        QuarantineCommand::List { config, .. } => (config, [].as_slice()),
        QuarantineCommand::Show { one } => (&one.config, slice::from_ref(&one.id)),
        QuarantineCommand::Release { several, .. } | QuarantineCommand::Remove { several } => {
            (&several.config, several.ids.as_slice())
        }
    };
    let path = config.config.as_deref();
    with_folder(path, "quarantine", ids, |config, folder| match command {
        QuarantineCommand::List { held, .. } => list(folder, *held, config.quarantine.keep),
        QuarantineCommand::Show { one } => stored::show(folder, &one.id, is_withheld),
        QuarantineCommand::Release { recipients, .. } => {
            each(ids, |id| release_one(folder, id, recipients))
        }
        QuarantineCommand::Remove { .. } => each(ids, |id| stored::remove(folder, id, is_withheld)),
    })
}

/// What is wrong with one message does not stop the others.
fn each(ids: &[String], work: impl Fn(&str) -> io::Result<()>) -> io::Result<()> {
    let errors = ids.iter().filter_map(|id| work(id).err());
    let errors: Vec<String> = errors.map(|error| error.to_string()).collect();
    match errors.is_empty() {
        true => Ok(()),
        false => Err(io::Error::other(errors.join("\n"))),
    }
}

/// Messages that were released are in the outbox.
fn is_withheld(id: &str, envelope: &Envelope) -> io::Result<()> {
    match envelope.withheld {
        Some(_) => Ok(()),
        None => Err(io::Error::other(format!(
            "{id} is in the outbox; see `gatepost outbox show {id}`"
        ))),
    }
}

fn list(folder: &Folder, only_held: bool, keep: Duration) -> io::Result<()> {
    let now = now();
    stored::list(folder, |id, envelope| {
        let withheld = envelope.withheld.as_ref()?;
        let is_wanted = withheld.kind == Kind::Hold || !only_held;
        is_wanted.then(|| format!("{id} {}", line(envelope, withheld, keep, now)))
    })
}

/// What is known of a message, on one line.
fn line(envelope: &Envelope, withheld: &Withheld, keep: Duration, now: Millis) -> String {
    let goes = match withheld.goes(envelope.arrived, keep) {
        Some(time) => format!(" removed in {}", span(time.saturating_sub(now))),
        None => String::new(),
    };
    let reason = match withheld.reason.as_str() {
        "" => String::new(),
        reason => format!(": {}", reason.escape_debug()),
    };
    format!(
        "{} age {} size {}{goes} from {} to {} by {}{reason}",
        withheld.kind.name(),
        span(now.saturating_sub(envelope.arrived)),
        envelope.size,
        envelope.sender,
        joined(&envelope.recipients),
        withheld.plugin,
    )
}

fn release_one(folder: &Folder, id: &str, only: &[Address]) -> io::Result<()> {
    let claim = claim(folder, id, is_withheld)?;
    release(folder, &claim, only, now())?;
    drop(claim);
    folder.say_changed()
}
