//! What `gatepost outbox` and `gatepost quarantine` share: both work on messages of one folder, whether the daemon runs or not.

use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;
use std::time::SystemTime;

use gatepost_protocol::Address;

use super::{FAILED, MISTAKE, refuse};
use crate::config::{self, Config};
use crate::outbox::folder::{Claim, Claimed, Folder, Id, is_id};
use crate::outbox::{Envelope, Millis, Recipient, millis};
use crate::plugins;

/// A message of a command's own part of the folder, or an error that says where it is.
pub type Mine = fn(&str, &Envelope) -> io::Result<()>;

/// One message.
#[derive(clap::Args)]
pub struct One {
    /// The message's ID, as in `list` and in the log
    pub id: String,
    #[command(flatten)]
    pub config: super::ConfigArgument,
}

/// Does something with the folder of a configuration; `ids` are checked before. The exit code is 1 where the folder or a message is not as it has to be, 2 for a mistake in the configuration or an ID.
pub fn with_folder(
    path: Option<&Path>,
    command: &str,
    ids: &[String],
    work: impl FnOnce(&Config, &Folder) -> io::Result<()>,
) -> ExitCode {
    if let Some(id) = ids.iter().find(|id| !is_id(id)) {
        return refuse(&format!(
            "`{}` is no ID of a message; `gatepost {command} list` shows them",
            id.escape_debug()
        ));
    }
    let config = match config::load(path, &plugins::all()) {
        Ok(config) => config,
        Err(mistakes) => {
            eprintln!("{mistakes}");
            return ExitCode::from(MISTAKE);
        }
    };
    let folder = Folder::below(&config.spool_dir);
    match work(&config, &folder) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{}: {error}", folder.path().display());
            ExitCode::from(FAILED)
        }
    }
}

/// Prints a line for each message of which `line` makes one, and for each that cannot be read, the oldest first.
pub fn list(folder: &Folder, line: impl Fn(&Id, &Envelope) -> Option<String>) -> io::Result<()> {
    let mut text = String::new();
    let mut found = folder.list()?;
    found.sort_by_key(|found| {
        found
            .envelope
            .as_ref()
            .map_or(0, |envelope| envelope.arrived)
    });
    for entry in found {
        let line = match &entry.envelope {
            Ok(envelope) => line(&entry.id, envelope),
            Err(error) => Some(format!("{} cannot be read: {error}", entry.id)),
        };
        if let Some(line) = line {
            text.push_str(&line);
            text.push('\n');
        }
    }
    print(text.as_bytes())
}

/// Prints what is known of a message, and the message itself.
pub fn show(folder: &Folder, id: &str, mine: Mine) -> io::Result<()> {
    let envelope = folder.read(id).map_err(|error| explained(id, error))?;
    mine(id, &envelope)?;
    let mut text = serde_json::to_vec_pretty(&envelope)?;
    text.extend_from_slice(b"\n\n");
    print(&text)?;
    let mut bytes = std::fs::File::open(folder.bytes_of(id))?;
    io::copy(&mut bytes, &mut io::stdout().lock()).map(drop)
}

/// Throws a message away, and tells the daemon.
pub fn remove(folder: &Folder, id: &str, mine: Mine) -> io::Result<()> {
    let claim = claim(folder, id, mine)?;
    folder.remove(&claim)?;
    drop(claim);
    folder.say_changed()
}

/// Takes hold of a message.
pub fn claim(folder: &Folder, id: &str, mine: Mine) -> io::Result<Box<Claim>> {
    match folder.claim(id)? {
        Claimed::Ours(claim) => {
            mine(id, &claim.envelope)?;
            Ok(claim)
        }
        Claimed::Busy => Err(io::Error::other(format!(
            "{id} is being delivered or changed at this moment; look again in a minute"
        ))),
        Claimed::Gone => Err(explained(id, io::ErrorKind::NotFound.into())),
    }
}

fn explained(id: &str, error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::NotFound => io::Error::other(format!(
            "there is no message {id}; it may have been delivered or removed"
        )),
        _ => error,
    }
}

/// The present, as the folder has times.
pub fn now() -> Millis {
    millis(SystemTime::now())
}

/// A time in its two biggest units: `2d3h`, `5m0s`.
pub fn span(millis: Millis) -> String {
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

/// Addresses on one line.
pub fn joined(recipients: &[Recipient]) -> String {
    let addresses = recipients.iter().map(|recipient| &recipient.address);
    let addresses: Vec<String> = addresses.map(Address::to_string).collect();
    addresses.join(",")
}

fn print(text: &[u8]) -> io::Result<()> {
    io::stdout().lock().write_all(text)
}
