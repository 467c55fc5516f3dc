//! Haraka, from npm: its plugin queue/discard, or its queue for other servers with deliveries disabled.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use gatepost_tests::programs::{self, free_address, needed};
use nix::unistd::Pid;

use super::daemon::{self, Daemon};
use super::{Keep, Peer, Server, Wanted};

pub static ONE_PROCESS: Peer = peer("Haraka, one process", |wanted| start(wanted, 0));
pub static TWO_WORKERS: Peer = peer("Haraka, two workers", |wanted| start(wanted, 2));

const fn peer(name: &'static str, start: fn(Wanted) -> Result<Box<dyn Server>, String>) -> Peer {
    Peer {
        name,
        kept: Some("outbound queue, disabled; file synced"),
        no_op: Some("in process, JavaScript"),
        part: 1,
        start,
    }
}

struct Running(Daemon);

impl Server for Running {
    fn address(&self) -> SocketAddr {
        self.0.address()
    }

    fn roots(&self) -> Vec<Pid> {
        vec![self.0.pid()]
    }

    fn forget(&self) {
        daemon::empty(&self.0.dir().join("queue"));
    }
}

/// `workers` 0 is one process that does everything.
fn start(wanted: Wanted, workers: usize) -> Result<Box<dyn Server>, String> {
    let package = programs::root().join("tests/peers/node_modules/haraka");
    let program = package.join("bin/haraka");
    if !program.is_file() {
        return Err("it is not installed, run `tests/scripts/setup-bench`".to_owned());
    }
    let node = needed("node").ok_or("node is not installed")?;
    let dir = daemon::folder("haraka-")?;
    let address = free_address();
    prepare(dir.path(), &package, address, wanted, workers).map_err(|error| error.to_string())?;
    let mut command = Command::new(node);
    command
        // Or queue/discard lets everything pass.
        .env("YES_REALLY_DO_DISCARD", "1")
        .arg(program)
        .arg("-c")
        .arg(dir.path());
    Ok(Box::new(Running(Daemon::start(command, dir, address)?)))
}

fn prepare(
    dir: &Path,
    package: &Path,
    address: SocketAddr,
    wanted: Wanted,
    workers: usize,
) -> std::io::Result<()> {
    for folder in ["config", "plugins", "queue"] {
        fs::create_dir(dir.join(folder))?;
    }
    // It does not do without.
    fs::copy(
        package.join("config/connection.ini"),
        dir.join("config/connection.ini"),
    )?;
    let ours = programs::root().join("tests/peers/haraka");
    let mut plugins = vec!["accept"];
    if wanted.no_op {
        plugins.insert(0, "noop");
    }
    for plugin in &plugins {
        let file = format!("{plugin}.js");
        fs::copy(ours.join(&file), dir.join("plugins").join(&file))?;
    }
    if wanted.keep == Keep::Nothing {
        plugins.push("queue/discard");
    }
    for (file, text) in [
        ("smtp.ini", format!("listen={address}\nnodes={workers}\n")),
        ("plugins", plugins.join("\n")),
        // Warnings and worse; Gatepost logs nothing of a message either.
        ("log.ini", "level=warn\nformat=default\n".to_owned()),
        ("outbound.ini", "disabled=true\n".to_owned()),
        ("me", "mx.example.org\n".to_owned()),
    ] {
        fs::write(dir.join("config").join(file), text)?;
    }
    Ok(())
}
