//! OpenSMTPD, from Debian's package `opensmtpd`, which cannot be installed beside Postfix: unpacked, and run in a mount namespace of its own,
//! since its folders and users are compiled in. It keeps messages in its queue, with deliveries paused, or drops them with its null queue.

use std::fs;
use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use gatepost_tests::programs::{self, free_address, needed};
use gatepost_tests::wait::until;
use nix::unistd::Pid;
use rustix::process::{PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

use super::daemon::{self, Daemon};
use super::{Keep, Peer, Server, Wanted, processes};

pub static PEER: Peer = Peer {
    name: "OpenSMTPD",
    kept: Some("own queue, paused; nothing synced"),
    no_op: Some("filter process, Rust"),
    part: 1,
    start,
};

/// Connections that may wait to be taken. OpenSMTPD asks for five, and the sixth of twenty clients that come at once tries again after a
/// second.
const BACKLOG: i32 = 1024;

/// Puts the folder's own `etc`, `libexec` and `var` in the place of the system's, in this process's namespace alone, and becomes the daemon.
/// Arguments: the folder, what holds dropped messages (`ram` or `disk`), then the daemon's.
const IN_ITS_PLACE: &str = r#"set -eu
dir=$1 queue=$2
shift 2
mount --bind "$dir/libexec" /usr/libexec
mount --bind "$dir/etc" /etc
mount --bind "$dir/var" /var
if [ "$queue" = ram ]; then
    mount -t tmpfs -o mode=711 tmpfs /var/spool/smtpd
fi
exec /usr/libexec/smtpd "$@"
"#;

struct Running(Daemon);

impl Server for Running {
    fn address(&self) -> SocketAddr {
        self.0.address()
    }

    fn roots(&self) -> Vec<Pid> {
        vec![self.0.pid()]
    }

    fn forget(&self) {
        daemon::empty(&self.0.dir().join("var/spool/smtpd/queue"));
    }
}

fn start(wanted: Wanted) -> Result<Box<dyn Server>, String> {
    if !nix::unistd::geteuid().is_root() {
        return Err("it must be started by root".to_owned());
    }
    let package = programs::root().join(".opensmtpd");
    if !package.join("usr/sbin/smtpd").is_file() {
        return Err("it is not unpacked, run `tests/scripts/setup-bench`".to_owned());
    }
    let unshare = needed("unshare").ok_or("unshare is not installed")?;
    let dir = daemon::folder("opensmtpd-")?;
    let address = free_address();
    prepare(dir.path(), &package, address, wanted.no_op).map_err(|error| error.to_string())?;
    let mut command = Command::new(unshare);
    command
        // Or libc looks for the time zone's file with every line of the log.
        .env("TZ", "UTC0")
        .env("LD_LIBRARY_PATH", "/usr/libexec")
        .args(["--mount", "--", "/bin/sh", "-c", IN_ITS_PLACE, "sh"])
        .arg(dir.path());
    command.arg(match wanted.keep {
        Keep::Nothing => "ram",
        Keep::Messages => "disk",
    });
    command.args(["-d", "-P", "mda", "-P", "mta"]);
    if wanted.keep == Keep::Nothing {
        command.args(["-B", "queue=null"]);
    }
    let daemon = Daemon::start(command, dir, address)?;
    until("OpenSMTPD's listening socket", || {
        widen(&[daemon.pid()], address).then_some(())
    });
    Ok(Box::new(Running(daemon)))
}

/// Has the listening socket keep more connections waiting; says whether it was found.
fn widen(roots: &[Pid], address: SocketAddr) -> bool {
    let ids = processes::ids(roots);
    let sockets = ids.into_iter().flat_map(sockets);
    let ours = |socket: OwnedFd| {
        let socket = TcpListener::from(socket);
        let listens = socket.local_addr().is_ok_and(|own| own == address);
        // A connection has the same address, and cannot listen.
        listens && rustix::net::listen(&socket, BACKLOG).is_ok()
    };
    sockets.into_iter().any(ours)
}

/// Another process's sockets, duplicated.
fn sockets(process: i32) -> Vec<OwnedFd> {
    let Some(pid) = rustix::process::Pid::from_raw(process) else {
        return Vec::new();
    };
    let Ok(pidfd) = pidfd_open(pid, PidfdFlags::empty()) else {
        return Vec::new();
    };
    let open = fs::read_dir(format!("/proc/{process}/fd"));
    let open = open.into_iter().flatten().flatten().filter(|entry| {
        fs::read_link(entry.path())
            .is_ok_and(|target| target.to_string_lossy().starts_with("socket:"))
    });
    let numbers = open.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    numbers
        .filter_map(|number| pidfd_getfd(&pidfd, number, PidfdGetfdFlags::empty()).ok())
        .collect()
}

/// The shared libraries that were unpacked along, in the folder of their architecture.
fn libraries(package: &Path) -> Vec<PathBuf> {
    let folders = fs::read_dir(package.join("usr/lib")).into_iter().flatten();
    let files = folders.flatten().flat_map(|folder| {
        let files = fs::read_dir(folder.path()).into_iter().flatten().flatten();
        files.map(|file| file.path()).collect::<Vec<_>>()
    });
    let library = |file: &PathBuf| file.is_file() && file.to_string_lossy().contains(".so.");
    files.filter(library).collect()
}

fn prepare(dir: &Path, package: &Path, address: SocketAddr, no_op: bool) -> std::io::Result<()> {
    let (etc, libexec) = (dir.join("etc"), dir.join("libexec"));
    for folder in ["etc", "libexec", "var/run", "var/lib/opensmtpd/empty"] {
        fs::create_dir_all(dir.join(folder))?;
    }
    let spool = dir.join("var/spool/smtpd");
    fs::create_dir_all(&spool)?;
    // It insists.
    fs::set_permissions(&spool, fs::Permissions::from_mode(0o711))?;
    fs::copy(package.join("usr/sbin/smtpd"), libexec.join("smtpd"))?;
    for library in libraries(package) {
        let name = library.file_name().unwrap_or_default().to_owned();
        fs::copy(library, libexec.join(name))?;
    }
    let filter = match no_op {
        true => {
            // Its users may not get to where it lies.
            fs::copy(programs::bin().join("bench-plugin"), libexec.join("filter"))?;
            (
                "filter no-op proc-exec \"/usr/libexec/filter opensmtpd-filter\"\n",
                " filter no-op",
            )
        }
        false => ("", ""),
    };
    let (ip, port) = (address.ip(), address.port());
    let config = format!(
        "smtp limit max-mails 1000000
{}listen on {ip} port {port}{}
action \"keep\" maildir virtual {{ \"@\" = \"root\" }}
match from any for any action \"keep\"
",
        filter.0, filter.1
    );
    for (file, text) in [
        ("smtpd.conf", config.as_str()),
        ("mailname", "mx.example.org\n"),
        ("hosts", "127.0.0.1 localhost\n"),
        // The client's name, without a question to the DNS.
        ("resolv.conf", "lookup file\n"),
        (
            "passwd",
            "root:x:0:0::/root:/bin/sh\nopensmtpd:x:64998:64998::/:/bin/false\nopensmtpq:x:64997:64997::/:/bin/false\n",
        ),
        (
            "group",
            "root:x:0:\nopensmtpd:x:64998:\nopensmtpq:x:64997:\n",
        ),
    ] {
        fs::File::create(etc.join(file))?.write_all(text.as_bytes())?;
    }
    Ok(())
}
