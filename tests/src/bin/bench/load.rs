//! Postfix's smtp-source as the load, its smtp-sink as the yardstick.

use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use gatepost_tests::programs::{self, free_address};
use gatepost_tests::wait::until;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::peers::pid_of;

/// Much longer than any load takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// A way to send messages.
pub struct Load {
    /// Its letter in the tables.
    pub name: &'static str,
    /// What it is.
    pub about: &'static str,
    parallel: usize,
    messages: usize,
    size: usize,
    reuse: bool,
}

pub const LOADS: [Load; 3] = [
    Load {
        name: "a",
        about: "2 KB, one message per connection, 20 at once",
        parallel: 20,
        messages: 5000,
        size: 2048,
        reuse: false,
    },
    Load {
        name: "b",
        about: "2 KB, connections reused, 20 at once",
        parallel: 20,
        messages: 5000,
        size: 2048,
        reuse: true,
    },
    Load {
        name: "c",
        about: "1 MB, one message per connection, 10 at once",
        parallel: 10,
        messages: 300,
        size: 1 << 20,
        reuse: false,
    },
];

/// What one client that waits for every reply sees.
pub const ALONE: Load = Load {
    name: "alone",
    about: "2 KB, one message per connection, one client",
    parallel: 1,
    messages: 1000,
    size: 2048,
    reuse: false,
};

impl Load {
    /// Sends the messages, or a part of them, to a server; returns messages per second. Panics if one was not taken.
    pub fn run(&self, server: SocketAddr, divisor: usize) -> f64 {
        let rate = self.try_run(server, divisor);
        rate.unwrap_or_else(|said| panic!("smtp-source: {said}"))
    }

    /// The same; where a message was not taken, an error is what smtp-source said.
    pub fn try_run(&self, server: SocketAddr, divisor: usize) -> Result<f64, String> {
        let messages = self.messages(divisor);
        let mut command = Command::new(program("smtp-source"));
        command
            .args(["-s", &self.parallel.to_string()])
            .args(["-m", &messages.to_string()])
            .args(["-l", &self.size.to_string()])
            .args(["-f", "alice@client.example", "-t", "bob@example.org"])
            .args(["-M", "client.example"]);
        if self.reuse {
            command.arg("-d");
        }
        let started = Instant::now();
        let output = output_in_time(command.arg(server.to_string()));
        let seconds = started.elapsed().as_secs_f64();
        // It goes on after a refusal, and only mentions it.
        if seconds > PATIENCE.as_secs_f64() {
            return Err(format!("{messages} messages take longer than {PATIENCE:?}"));
        }
        if !output.status.success() || !output.stderr.is_empty() {
            let said = String::from_utf8_lossy(&output.stderr);
            return Err(said.trim().to_owned());
        }
        Ok(messages as f64 / seconds)
    }

    /// How many messages a run sends.
    pub fn messages(&self, divisor: usize) -> usize {
        (self.messages / divisor).max(self.parallel)
    }
}

/// Runs smtp-source, which waits for a server as long as it takes, and kills it when patience is over.
fn output_in_time(command: &mut Command) -> Output {
    let child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
    let child = child.expect("smtp-source runs");
    let process = pid_of(&child);
    let (ended, end) = mpsc::channel::<()>();
    let watch = std::thread::spawn(move || {
        if end.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout) {
            // It may end just now.
            let _ = kill(process, Signal::SIGKILL);
        }
    });
    let output = child
        .wait_with_output()
        .expect("smtp-source can be waited for");
    drop(ended);
    watch.join().expect("waiting does not panic");
    output
}

/// A running smtp-sink. It is killed when dropped.
pub struct Sink {
    child: Child,
    /// Where it listens.
    pub address: SocketAddr,
}

impl Sink {
    pub fn start() -> Sink {
        let address = free_address();
        let mut command = Command::new(program("smtp-sink"));
        // Root is to be named, or it refuses to run as root.
        if nix::unistd::geteuid().is_root() {
            command.args(["-u", "root"]);
        }
        let child = command
            .args([&address.to_string(), "1000"])
            .stdout(Stdio::null())
            .spawn()
            .expect("smtp-sink runs");
        let sink = Sink { child, address };
        until("smtp-sink to listen", || TcpStream::connect(address).ok());
        sink
    }

    /// Its process.
    pub fn pid(&self) -> Pid {
        pid_of(&self.child)
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A program that `make setup` installs.
pub fn program(name: &str) -> std::path::PathBuf {
    programs::needed(name).unwrap_or_else(|| panic!("the benchmark cannot do without {name}"))
}
