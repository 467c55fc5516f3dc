//! `gatepost confine`: gives up what a program is not to have, and becomes it.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::Duration;

use gatepost_protocol::Value;
use gatepost_protocol::settings::{parse_duration, parse_size};

use super::refuse;
use crate::config::Confinement;
use crate::host;

/// The options, which are a plugin's settings `confine` (docs/confinement.md).
#[derive(clap::Args)]
pub struct Held {
    /// The most memory of a process for data: "256MB"
    #[arg(long, value_name = "SIZE", value_parser = size)]
    memory: Option<u64>,
    /// The CPU time of a process: "1h"
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    cpu: Option<Duration>,
    /// The most descriptors that a process may have open
    #[arg(long, value_name = "NUMBER")]
    open_files: Option<u64>,
    /// The most processes and threads of the user
    #[arg(long, value_name = "NUMBER")]
    processes: Option<u64>,
    /// The user to become
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// Gain nothing by programs with a set-user-ID or set-group-ID bit
    #[arg(long)]
    no_new_privs: bool,
    /// Make no sockets but those of this machine
    #[arg(long)]
    no_network: bool,
    /// Go into this control group first: the folder of one; may be given several times
    #[arg(long, value_name = "DIR")]
    group: Vec<PathBuf>,
    /// Write to this folder, and to no other; may be given several times
    #[arg(long, value_name = "DIR")]
    write: Vec<PathBuf>,
    /// The program, and its arguments
    #[arg(last = true, required = true, value_name = "PROGRAM")]
    command: Vec<OsString>,
}

/// Becomes the program; comes back only where that cannot be, with the reason on standard error.
pub fn confine(held: Held) -> ExitCode {
    let Some((program, arguments)) = held.command.split_first() else {
        return refuse("confine: which program?");
    };
    let confine = Confinement {
        memory: held.memory,
        cpu: held.cpu,
        open_files: held.open_files,
        processes: held.processes,
        total_memory: None,
        total_processes: None,
        user: held.user,
        no_new_privs: held.no_new_privs,
        no_network: held.no_network,
        write: Some(held.write).filter(|folders| !folders.is_empty()),
    };
    if let Err(error) = host::hold(&confine, &held.group) {
        return refuse(&format!("confine: {error}"));
    }
    let error = Command::new(program).args(arguments).exec();
    let program = program.display();
    refuse(&match confine.user {
        Some(user) => format!("confine: the user `{user}` cannot start `{program}`: {error}"),
        None => format!("confine: `{program}` cannot be started: {error}"),
    })
}

fn size(text: &str) -> Result<u64, String> {
    let number = text.parse().map(Value::Integer);
    parse_size(&number.unwrap_or_else(|_| Value::Text(text.to_owned())))
        .ok_or_else(|| "expected a size, such as 256MB".to_owned())
}

fn duration(text: &str) -> Result<Duration, String> {
    parse_duration(text)
        .filter(|duration| !duration.is_zero())
        .ok_or_else(|| "expected a duration, such as 1h".to_owned())
}
