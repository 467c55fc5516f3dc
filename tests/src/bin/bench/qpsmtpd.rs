//! Perl plugins of qpsmtpd, in Gatepost and in Debian's own qpsmtpd-prefork.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use gatepost::cli::transcript::{Dns, Zone};
use gatepost_tests::programs::{self, free_address};
use gatepost_tests::server::Server;
use gatepost_tests::wait::until;
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::{Pid, User, geteuid};
use tempfile::TempDir;

use crate::load::{LOADS, Load};
use crate::rounds::{interleaved, median, ratios, spread};
use crate::table::{Table, Target};
use crate::{Effort, Tables};

/// Of the plugin that has nothing to say, under both.
const COPIES: usize = 10;
/// Processes for sessions, under both: qpsmtpd's own default.
const WORKERS: usize = 15;
/// At a hundred or two messages a second, this part of a load is long enough.
const PART: usize = 10;
/// How long qpsmtpd may take to end before it is killed.
const PATIENCE: Duration = Duration::from_secs(5);

/// Messages per second with ten plugins on every hook, and the ratio of the two.
pub fn same_plugins(effort: &Effort) -> Tables {
    let peer = Prefork::start();
    if let Err(why) = &peer {
        eprintln!("\n*** {why} ***\n");
    }
    let gatepost = Server::start(&gatepost());
    let at_2_kb = LOADS.iter().filter(|load| load.name != "c");
    at_2_kb
        .map(|load| {
            let figures = interleaved(effort.rounds, 2, |subject| match (subject, &peer) {
                (0, _) => load.run(gatepost.address(), effort.divisor * PART),
                (_, Ok(peer)) => load.run(peer.address, effort.divisor * PART),
                (_, Err(_)) => f64::NAN,
            });
            table(load, &figures, peer.as_ref().err())
        })
        .collect()
}

fn table(load: &Load, figures: &[Vec<f64>], no_peer: Option<&String>) -> Table {
    let title = format!(
        "{}: {}; {COPIES} Perl plugins on every hook, {WORKERS} workers, accepted and dropped",
        load.name, load.about
    );
    let mut table = Table::new(&title, &["", "messages/s", "of qpsmtpd", "to reach"]);
    let (own, peer) = (&figures[0], &figures[1]);
    let rate = |figures: &[f64]| format!("{:.0}", median(figures));
    let (peer_rate, over, target) = match no_peer {
        Some(why) => (why.clone(), String::new(), String::new()),
        None => {
            let ratios = ratios(own, peer);
            let verdict = Target::AtLeast(5.0).verdict(median(&ratios));
            (rate(peer), spread(&ratios), verdict)
        }
    };
    let none = String::new;
    table.rows = vec![
        vec!["qpsmtpd-prefork".to_owned(), peer_rate, none(), none()],
        vec!["Gatepost".to_owned(), rate(own), over, target],
    ];
    table
}

/// The lines of `config/plugins`, in order.
fn lines() -> impl Iterator<Item = String> {
    let idle = (0..COPIES).map(|number| format!("idle:{number}"));
    idle.chain(["nowhere".to_owned()])
}

fn gatepost() -> String {
    let head = "
loglevel = \"notice\"

[limits]
max_connections_per_ip = 1000
max_transactions = 1000000
";
    let plugins = lines().map(|line| {
        format!(
            "
[[plugin]]
qpsmtpd = \"{line}\"
plugin_dirs = [\"$ROOT/tests/plugins/qpsmtpd\"]
workers = {{ min = {WORKERS}, max = {WORKERS} }}
"
        )
    });
    std::iter::once(head.to_owned()).chain(plugins).collect()
}

/// A running qpsmtpd-prefork with a folder of its own. It is stopped when dropped.
struct Prefork {
    child: Child,
    dir: TempDir,
    address: SocketAddr,
    /// What it asks for the client's name.
    _dns: Dns,
}

impl Prefork {
    /// Starts the one that `make setup` unpacked; an error says why it cannot be had.
    fn start() -> Result<Prefork, String> {
        let package = programs::root().join(".qpsmtpd");
        let program = package.join("usr/bin/qpsmtpd-prefork");
        let shared = package.join("usr/share/perl5/IPC/Shareable.pm");
        if !program.is_file() || !shared.is_file() {
            return Err("qpsmtpd is not measured: it is not unpacked, run `make setup`".to_owned());
        }
        let dir = TempDir::with_prefix("qpsmtpd-").map_err(|error| error.to_string())?;
        let user = prepare(dir.path()).map_err(|error| error.to_string())?;
        let log = File::create(dir.path().join("log")).map_err(|error| error.to_string())?;
        let dns = local_dns()?;
        let address = free_address();
        let mut command = Command::new("perl");
        command
            .current_dir(dir.path())
            .env("QPSMTPD_CONFIG", dir.path().join("config"))
            .arg("-Tw")
            .args(include_paths(&package)?)
            .arg(resolver(dns.address()))
            .arg(program)
            .args(["--listen-address", &address.ip().to_string()])
            .args(["--port", &address.port().to_string()])
            .args(["--user", &user])
            .args(["--children", &WORKERS.to_string()])
            .args(["--idle-children", &WORKERS.to_string()])
            // More than there are clients.
            .args(["--max-from-ip", "100"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        let child = command.spawn().map_err(|error| error.to_string())?;
        let mut prefork = Prefork {
            child,
            dir,
            address,
            _dns: dns,
        };
        let ended = until("qpsmtpd to listen, or to end", || {
            if TcpStream::connect(address).is_ok() {
                return Some(false);
            }
            let ended = prefork.child.try_wait();
            matches!(ended, Ok(Some(_)) | Err(_)).then_some(true)
        });
        if ended {
            let said = fs::read_to_string(prefork.dir.path().join("log")).unwrap_or_default();
            return Err(format!("qpsmtpd is not measured: {}", said.trim()));
        }
        Ok(prefork)
    }
}

impl Drop for Prefork {
    fn drop(&mut self) {
        let Ok(id) = i32::try_from(self.child.id()) else {
            return;
        };
        let process = Pid::from_raw(id);
        // It ends its children and gives its shared memory back. Gone already is as good.
        let _ = kill(process, Signal::SIGTERM);
        let started = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) {
            if started.elapsed() > PATIENCE {
                eprintln!("qpsmtpd-prefork did not end, and is killed with its children");
                // It leads the group that its children are in.
                let _ = killpg(process, Signal::SIGKILL);
                let _ = self.child.wait();
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// Writes configuration and plugins; returns the user to run as, who must get in.
fn prepare(dir: &Path) -> std::io::Result<String> {
    fs::set_permissions(dir, fs::Permissions::from_mode(0o755))?;
    for folder in ["config", "plugins", "spool"] {
        fs::create_dir(dir.join(folder))?;
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
    let source = programs::root().join("tests/plugins/qpsmtpd");
    for plugin in ["idle", "nowhere"] {
        fs::copy(source.join(plugin), dir.join("plugins").join(plugin))?;
    }
    let lines: Vec<String> = lines().collect();
    for (file, text) in [
        ("plugins", lines.join("\n")),
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
