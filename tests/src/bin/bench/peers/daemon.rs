//! A peer as a process with a folder of its own.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use gatepost_tests::wait::until;
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use tempfile::TempDir;

/// How long one may take to end before it is killed.
const PATIENCE: Duration = Duration::from_secs(5);

/// A running daemon. It is stopped when dropped.
pub struct Daemon {
    child: Child,
    dir: TempDir,
    address: SocketAddr,
}

impl Daemon {
    /// Starts it in the folder, at the head of a process group, with its standard error in a file `log`, and waits until it listens. An error is
    /// what it said.
    pub fn start(
        mut command: Command,
        dir: TempDir,
        address: SocketAddr,
    ) -> Result<Daemon, String> {
        let log = File::create(dir.path().join("log")).map_err(|error| error.to_string())?;
        let child = command
            .current_dir(dir.path())
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn();
        let program = command.get_program().to_string_lossy();
        let child = child.map_err(|error| format!("{program}: {error}"))?;
        let mut daemon = Daemon {
            child,
            dir,
            address,
        };
        let ended = until("a peer to listen, or to end", || {
            if TcpStream::connect(address).is_ok() {
                return Some(false);
            }
            let ended = daemon.child.try_wait();
            matches!(ended, Ok(Some(_)) | Err(_)).then_some(true)
        });
        if ended {
            let said = fs::read_to_string(daemon.dir.path().join("log")).unwrap_or_default();
            return Err(format!("it does not start: {}", said.trim()));
        }
        Ok(daemon)
    }

    /// Its folder.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its process.
    pub fn pid(&self) -> Pid {
        pid_of(&self.child)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It ends its children. Gone already is as good.
        let _ = kill(self.pid(), Signal::SIGTERM);
        let started = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) {
            if started.elapsed() > PATIENCE {
                // It leads the group that its children are in.
                let _ = killpg(self.pid(), Signal::SIGKILL);
                let _ = self.child.wait();
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// A child's process.
pub fn pid_of(child: &Child) -> Pid {
    Pid::from_raw(child.id().try_into().expect("a process id is small"))
}

/// A folder that users of a peer's own get into.
pub fn folder(name: &str) -> Result<TempDir, String> {
    let dir = TempDir::with_prefix(name).map_err(|error| error.to_string())?;
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755))
        .map_err(|error| error.to_string())?;
    Ok(dir)
}

/// Empties a folder.
pub fn empty(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        // What stays only costs disk.
        let _ = match path.is_dir() {
            true => fs::remove_dir_all(path),
            false => fs::remove_file(path),
        };
    }
}
