//! Gatepost, as its peers are started.

use std::net::SocketAddr;

use gatepost_tests::server;
use nix::unistd::Pid;

use super::{Keep, Peer, Server, Wanted, daemon};
use crate::throughput::{BARE, DISCARD, MAILDIR, child};

pub static GATEPOST: Peer = with_no_op("Gatepost", "child process, Rust", |wanted| {
    start(wanted, "Rust")
});
pub static PYTHON: Peer = with_no_op("Gatepost", "child process, Python", |wanted| {
    start(wanted, "Python")
});
pub static PERL: Peer = with_no_op("Gatepost", "child process, Perl", |wanted| {
    start(wanted, "Perl")
});

const fn with_no_op(
    name: &'static str,
    no_op: &'static str,
    start: fn(Wanted) -> Result<Box<dyn Server>, String>,
) -> Peer {
    Peer {
        name,
        kept: Some("Maildir; file and folder synced"),
        no_op: Some(no_op),
        part: 1,
        start,
    }
}

fn start(wanted: Wanted, language: &str) -> Result<Box<dyn Server>, String> {
    let no_op = match wanted.no_op {
        true => child(language, "bench"),
        false => String::new(),
    };
    let queue = match wanted.keep {
        Keep::Nothing => DISCARD,
        Keep::Messages => MAILDIR,
    };
    let server = server::Server::start(&format!("{BARE}{no_op}{queue}"));
    Ok(Box::new(server))
}

impl Server for server::Server {
    fn address(&self) -> SocketAddr {
        self.address()
    }

    fn roots(&self) -> Vec<Pid> {
        vec![self.pid()]
    }

    fn forget(&self) {
        daemon::empty(&self.stage().mail.join("new"));
    }
}
