//! qpsmtpd, from Debian's package `qpsmtpd`, unpacked: its qpsmtpd-prefork, with a plugin that drops what it gets, or with its own queue/maildir.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use gatepost::cli::transcript::{Dns, Zone};
use gatepost_tests::programs::{self, free_address};
use nix::unistd::{Pid, User, geteuid};

use super::daemon::{self, Daemon};
use super::{Keep, Peer, Server, Wanted};

pub static PEER: Peer = Peer {
    name: "qpsmtpd-prefork",
    kept: Some("Maildir; nothing synced"),
    no_op: Some("in process, Perl"),
    part: 5,
    start,
};

fn start(wanted: Wanted) -> Result<Box<dyn Server>, String> {
    let mut lines = Vec::new();
    if wanted.no_op {
        lines.push("bench".to_owned());
    }
    if wanted.keep == Keep::Messages {
        // `prepare` puts the folder there.
        lines.push(format!("queue/maildir {MAIL}"));
    }
    // Takes recipients in either case, and the messages that nobody took before it.
    lines.push("nowhere".to_owned());
    Ok(Box::new(Prefork::start(&lines, wanted.sessions)?))
}

/// Stands for the folder for mail in a line of `config/plugins`.
const MAIL: &str = "$MAIL";

/// A running qpsmtpd-prefork.
pub struct Prefork {
    daemon: Daemon,
    /// What it asks for the client's name.
    _dns: Dns,
}

impl Prefork {
    /// Starts the one that `make setup` unpacked, with these lines in `config/plugins` and so many processes for sessions; an error says why it
    /// cannot be had.
    pub fn start(lines: &[String], workers: usize) -> Result<Prefork, String> {
        let package = programs::root().join(".qpsmtpd");
        let program = package.join("usr/bin/qpsmtpd-prefork");
        let shared = package.join("usr/share/perl5/IPC/Shareable.pm");
        if !program.is_file() || !shared.is_file() {
            return Err("it is not unpacked, run `make setup`".to_owned());
        }
        let dir = daemon::folder("qpsmtpd-")?;
        let user = prepare(dir.path(), &package, lines).map_err(|error| error.to_string())?;
        let dns = local_dns()?;
        let address = free_address();
        let mut command = Command::new("perl");
        command
            .env("QPSMTPD_CONFIG", dir.path().join("config"))
            .arg("-Tw")
            .args(include_paths(&package)?)
            .arg(resolver(dns.address()))
            .arg(program)
            .args(["--listen-address", &address.ip().to_string()])
            .args(["--port", &address.port().to_string()])
            .args(["--user", &user])
            .args(["--children", &workers.to_string()])
            // From the start: it adds them one a second or so.
            .args(["--idle-children", &workers.to_string()])
            // More than there are clients.
            .args(["--max-from-ip", &(workers + 100).to_string()]);
        Ok(Prefork {
            daemon: Daemon::start(command, dir, address)?,
            _dns: dns,
        })
    }
}

impl Server for Prefork {
    fn address(&self) -> SocketAddr {
        self.daemon.address()
    }

    fn roots(&self) -> Vec<Pid> {
        vec![self.daemon.pid()]
    }

    fn forget(&self) {
        daemon::empty(&self.daemon.dir().join("mail/new"));
    }
}

/// Writes configuration and plugins; returns the user to run as, who must get in.
fn prepare(dir: &Path, package: &Path, lines: &[String]) -> std::io::Result<String> {
    for folder in ["config", "plugins/queue", "spool", "mail"] {
        fs::create_dir_all(dir.join(folder))?;
    }
    // As root it wants to become somebody else.
    let own = geteuid();
    let name = User::from_uid(own)?.map(|user| user.name);
    let name = name.filter(|_| !own.is_root());
    let name = name.unwrap_or_else(|| "nobody".to_owned());
    let user = User::from_name(&name)?.map(|user| user.uid.as_raw());
    let spool = dir.join("spool");
    // Another mode makes it complain.
    fs::set_permissions(&spool, fs::Permissions::from_mode(0o700))?;
    std::os::unix::fs::chown(&spool, user, None)?;
    let mail = dir.join("mail");
    std::os::unix::fs::chown(&mail, user, None)?;
    let ours = programs::root().join("tests/plugins");
    let theirs = package.join("usr/share/qpsmtpd/plugins");
    for (plugin, file) in [
        ("idle", ours.join("qpsmtpd/idle")),
        ("nowhere", ours.join("qpsmtpd/nowhere")),
        ("bench", ours.join("bench.pl")),
        ("queue/maildir", theirs.join("queue/maildir")),
    ] {
        fs::copy(file, dir.join("plugins").join(plugin))?;
    }
    let plugins = lines.join("\n").replace(MAIL, &mail.to_string_lossy());
    for (file, text) in [
        ("plugins", plugins),
        ("plugin_dirs", dir.join("plugins").display().to_string()),
        ("spool_dir", spool.display().to_string()),
        ("me", "mx.example.org".to_owned()),
        // What is critical; Gatepost logs nothing of a message either.
        ("loglevel", "2".to_owned()),
    ] {
        fs::write(dir.join("config").join(file), format!("{text}\n"))?;
    }
    Ok(name)
}

/// Perl's own folders for modules, as they are below the unpacked packages. In taint mode it takes them by argument only.
fn include_paths(package: &Path) -> Result<Vec<String>, String> {
    let output = Command::new("perl")
        .args(["-e", "print join ':', @INC"])
        .output()
        .map_err(|error| error.to_string())?;
    let folders = String::from_utf8_lossy(&output.stdout).into_owned();
    let below = folders
        .split(':')
        .filter_map(|folder| folder.strip_prefix('/'))
        .map(|folder| package.join(folder));
    let there = below.filter(|folder| folder.is_dir());
    Ok(there
        .map(|folder| format!("-I{}", folder.display()))
        .collect())
}

/// A server that knows the client, as one nearby would.
fn local_dns() -> Result<Dns, String> {
    let mut zone = Zone::default();
    zone.add("1.0.0.127.in-addr.arpa PTR", "localhost")?;
    Dns::start(zone).map_err(|error| error.to_string())
}

/// Has Net::DNS ask our own server, at once and for every connection, instead of waiting seconds for one that does not answer. `new`
/// comes first, since the first one reads the system's configuration.
fn resolver(server: SocketAddr) -> String {
    let (ip, port) = (server.ip(), server.port());
    format!(
        "-MNet::DNS;Net::DNS::Resolver->new;Net::DNS::Resolver->nameservers(q({ip}));Net::DNS::Resolver->port({port})"
    )
}
