//! Postfix's smtp-source as the load, its smtp-sink as the yardstick.

use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use gatepost_tests::programs::{self, free_address};
use gatepost_tests::wait::until;

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

impl Load {
    /// Sends the messages, or a part of them, to a server; returns messages per second. Panics if one was not taken.
    pub fn run(&self, server: SocketAddr, divisor: usize) -> f64 {
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
        let output = command.arg(server.to_string()).output();
        let seconds = started.elapsed().as_secs_f64();
        let output = output.expect("smtp-source runs");
        // It goes on after a refusal, and only mentions it.
        assert!(
            output.status.success() && output.stderr.is_empty(),
            "smtp-source: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        messages as f64 / seconds
    }

    /// How many messages a run sends.
    pub fn messages(&self, divisor: usize) -> usize {
        (self.messages / divisor).max(self.parallel)
    }
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
