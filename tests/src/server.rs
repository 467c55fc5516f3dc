//! The daemon as a process in a folder of its own, for tests: what goes wrong panics.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

use gatepost::cli::transcript::{Daemon, Dialogue, Head, Mailbox, Places, Stage, spooled, text_of};
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::programs;
use crate::wait::until;

/// A running daemon. It is killed when dropped, and its folder removed.
pub struct Server {
    daemon: Daemon,
    dir: TempDir,
}

impl Server {
    /// Starts the daemon with the head of a dialogue: a configuration of which only what matters is said (docs/testing.md).
    pub fn start(head: &str) -> Server {
        Server::start_inside(head, |_| Vec::new())
    }

    /// The same below another program, such as strace: `wrap` gets the server's folder and returns the words before the daemon's command.
    pub fn start_inside(head: &str, wrap: impl Fn(&Path) -> Vec<OsString>) -> Server {
        let (dir, places) = new_folder();
        let head = complete(head, &places);
        let mut words = wrap(dir.path());
        words.push(gatepost().into());
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]);
        let daemon = Daemon::start(command, &head, dir.path());
        Server {
            daemon: daemon.unwrap_or_else(|why| panic!("{why}")),
            dir,
        }
    }

    /// Kills it, and starts another in the same folder, with the head of a dialogue.
    pub fn start_again(&mut self, head: &str) {
        self.daemon.kill();
        let places = places(self.dir.path());
        let command = Command::new(gatepost());
        let daemon = Daemon::start(command, &complete(head, &places), self.dir.path());
        self.daemon = daemon.unwrap_or_else(|why| panic!("{why}"));
    }

    /// Where it listens and what it writes to.
    pub fn stage(&self) -> &Stage {
        self.daemon.stage()
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.stage().address
    }

    /// The folder of this server: `mail`, `spool`, `config`, `gatepost.toml`.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Its process.
    pub fn pid(&self) -> Pid {
        self.daemon.pid()
    }

    /// The log so far.
    pub fn log(&self) -> Vec<String> {
        self.stage().log.since(0)
    }

    /// Waits for a log line whose text, without time and session, satisfies `wanted`.
    pub fn wait_for_log(&self, what: &str, wanted: impl Fn(&str) -> bool) -> String {
        until(what, || {
            self.log().into_iter().find(|line| wanted(text_of(line)))
        })
    }

    /// The files of all delivered messages.
    pub fn delivered(&self) -> Vec<PathBuf> {
        Mailbox::new(&self.stage().mail).unseen(None)
    }

    /// The one message that was delivered; waits for it, and panics if there are more.
    pub fn message(&self) -> Vec<u8> {
        let files = until("a delivered message", || {
            Some(self.delivered()).filter(|files| !files.is_empty())
        });
        assert_eq!(files.len(), 1, "{files:?}");
        std::fs::read(&files[0]).expect("a delivered message can be read")
    }

    /// The files in the spool.
    pub fn spooled(&self) -> Vec<PathBuf> {
        spooled(&self.stage().spool)
    }

    /// Runs `gatepost` with these words and this server's configuration: exit code, standard output, standard error.
    pub fn command(&self, words: &[&str]) -> (Option<i32>, String, String) {
        let output = Command::new(gatepost())
            .args(words)
            .arg("-c")
            .arg(self.dir().join("gatepost.toml"))
            .output()
            .expect("the program can be started");
        let text = |bytes| String::from_utf8(bytes).expect("it is UTF-8");
        (
            output.status.code(),
            text(output.stdout),
            text(output.stderr),
        )
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        self.daemon.signal(signal).expect("the daemon runs");
    }

    /// Waits for its end, and for the last of its log.
    pub fn wait(&mut self) -> ExitStatus {
        self.daemon.wait().unwrap_or_else(|why| panic!("{why}"))
    }

    /// Stops it as an operator would, and waits for its end.
    pub fn stop(&mut self) -> ExitStatus {
        self.signal(Signal::SIGTERM);
        self.wait()
    }
}

/// The daemon's program.
pub fn gatepost() -> PathBuf {
    programs::bin().join("gatepost")
}

/// A head with what it leaves unsaid filled in.
pub fn complete(head: &str, places: &Places) -> Head {
    let text = format!("# a test\n{head}\n---\nclose\n");
    Dialogue::parse(Path::new("a test"), &text)
        .and_then(|dialogue| Head::of(&dialogue, places))
        .unwrap_or_else(|mistake| panic!("{mistake}"))
}

/// A folder for a daemon, and the places that its configuration may name.
pub fn new_folder() -> (TempDir, Places) {
    let dir = TempDir::with_prefix("gatepost-").expect("a temporary folder");
    let places = places(dir.path());
    (dir, places)
}

fn places(dir: &Path) -> Places {
    Places {
        dir: dir.to_owned(),
        root: programs::root(),
        bin: programs::bin(),
    }
}
