//! A private Postfix in a folder of its own, on a loopback port, that keeps what it gets in its queue and delivers nothing, or does as it is told.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use nix::unistd::Pid;
use tempfile::TempDir;

use crate::programs::{free_address, needed};
use crate::wait::until;

/// Mail is held as it comes in: it is synced and acknowledged as always, and nothing else is done with it.
pub const HOLD: &str = "smtpd_recipient_restrictions = check_recipient_access static:HOLD\n";

/// A running Postfix. It is stopped when dropped.
pub struct Postfix {
    dir: TempDir,
    /// Where it listens.
    pub address: SocketAddr,
}

impl Postfix {
    /// Starts one; an error says why it cannot be had.
    pub fn start() -> Result<Postfix, String> {
        Postfix::start_with(HOLD)
    }

    /// The same with these lines at the end of main.cf, where the last one of a name counts, in place of `HOLD`.
    pub fn start_with(settings: &str) -> Result<Postfix, String> {
        if !nix::unistd::geteuid().is_root() {
            return Err("Postfix's master must be started by root".to_owned());
        }
        let dir = TempDir::with_prefix("postfix-").map_err(|error| error.to_string())?;
        let address = free_address();
        prepare(dir.path(), address, settings).map_err(|error| error.to_string())?;
        let postfix = Postfix { dir, address };
        let started = postfix.command("start")?;
        if !started.status.success() {
            let said = String::from_utf8_lossy(&started.stderr).into_owned();
            return Err(format!("Postfix does not start: {said}"));
        }
        until("Postfix to listen", || TcpStream::connect(address).ok());
        Ok(postfix)
    }

    /// Its first process, which starts all others.
    pub fn master(&self) -> Result<Pid, String> {
        let file = self.dir.path().join("queue/pid/master.pid");
        let id = fs::read_to_string(file).map_err(|error| error.to_string())?;
        let id = id
            .trim()
            .parse()
            .map_err(|_| format!("{id} is no process"))?;
        Ok(Pid::from_raw(id))
    }

    /// Empties the queue.
    pub fn forget(&self) {
        // A queue that stays full only costs disk.
        let _ = self.run("postsuper", &["-d", "ALL"]);
    }

    /// The socket of its cleanup, which takes messages for the queue.
    pub fn cleanup(&self) -> PathBuf {
        self.dir.path().join("queue/public/cleanup")
    }

    /// A message of the queue: its envelope and its lines, as postcat shows them.
    pub fn queued(&self, id: &str) -> Result<String, String> {
        let output = self.run("postcat", &["-q", id])?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn command(&self, what: &str) -> Result<Output, String> {
        self.run("postfix", &[what])
    }

    fn run(&self, name: &str, arguments: &[&str]) -> Result<Output, String> {
        let program = needed(name).ok_or_else(|| format!("{name} is not installed"))?;
        Command::new(program)
            .arg("-c")
            .arg(self.dir.path().join("etc"))
            .args(arguments)
            .output()
            .map_err(|error| format!("{name}: {error}"))
    }
}

impl Drop for Postfix {
    fn drop(&mut self) {
        if let Err(error) = self.command("stop") {
            eprintln!("the private Postfix could not be stopped: {error}");
        }
    }
}

/// Writes the configuration.
fn prepare(dir: &Path, address: SocketAddr, settings: &str) -> std::io::Result<()> {
    // Postfix's own users must get in.
    fs::set_permissions(dir, fs::Permissions::from_mode(0o755))?;
    for folder in ["etc", "queue", "data"] {
        fs::create_dir(dir.join(folder))?;
    }
    let owner = nix::unistd::User::from_name("postfix").ok().flatten();
    std::os::unix::fs::chown(
        dir.join("data"),
        owner.map(|owner| owner.uid.as_raw()),
        None,
    )?;
    let at = dir.display();
    let main = format!(
        "compatibility_level = 3.6
queue_directory = {at}/queue
data_directory = {at}/data
command_directory = /usr/sbin
daemon_directory = /usr/lib/postfix/sbin
maillog_file = {at}/queue/log
maillog_file_prefixes = /
myhostname = mx.example.org
mydestination = example.org
alias_maps =
local_recipient_maps =
mynetworks = 127.0.0.0/8
inet_protocols = ipv4
default_process_limit = 100
smtpd_client_connection_count_limit = 0
{settings}"
    );
    fs::write(dir.join("etc/main.cf"), main)?;
    let port = address.port();
    let master = format!(
        "127.0.0.1:{port} inet n - n - - smtpd
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
proxywrite unix - - n - 1 proxymap
showq unix n - n - - showq
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
anvil unix - - n - 1 anvil
postlog unix-dgram n - n - 1 postlogd
"
    );
    fs::write(dir.join("etc/master.cf"), master)
}
