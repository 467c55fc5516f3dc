//! aiosmtpd, from PyPI, on uvloop: its handler Sink, or its handler Mailbox.

use std::net::SocketAddr;
use std::process::Command;

use gatepost_tests::programs::{self, free_address};
use nix::unistd::Pid;

use super::daemon::{self, Daemon};
use super::{Keep, Peer, Server, Wanted};

pub static PEER: Peer = Peer {
    name: "aiosmtpd",
    kept: Some("Maildir; file synced"),
    no_op: None,
    part: 2,
    start,
};

struct Running(Daemon);

impl Server for Running {
    fn address(&self) -> SocketAddr {
        self.0.address()
    }

    fn roots(&self) -> Vec<Pid> {
        vec![self.0.pid()]
    }

    fn forget(&self) {
        daemon::empty(&self.0.dir().join("mail/new"));
    }
}

fn start(wanted: Wanted) -> Result<Box<dyn Server>, String> {
    let python = programs::root().join(".venv/bin/python3");
    let there = Command::new(&python)
        .args(["-c", "import aiosmtpd, uvloop"])
        .output();
    if !there.is_ok_and(|output| output.status.success()) {
        return Err(
            "aiosmtpd or uvloop is not in .venv, run `tests/scripts/setup-bench`".to_owned(),
        );
    }
    let dir = daemon::folder("aiosmtpd-")?;
    let address = free_address();
    let mut command = Command::new(python);
    command
        .arg(programs::root().join("tests/peers/aiosmtpd_server.py"))
        .arg(address.port().to_string());
    if wanted.keep == Keep::Messages {
        command.arg(dir.path().join("mail"));
    }
    Ok(Box::new(Running(Daemon::start(command, dir, address)?)))
}
