//! Gatepost's peers: other SMTP servers, each installed from its packages and started in a folder of its own. A further peer is one more file
//! here, and a line in `ALL`.

mod aiosmtpd;
mod daemon;
pub mod gatepost;
mod haraka;
mod opensmtpd;
mod postfix;
pub mod processes;
pub mod qpsmtpd;
pub mod sink;

use std::net::SocketAddr;

use nix::unistd::Pid;

pub use daemon::pid_of;

/// A server as it is to be started.
#[derive(Clone, Copy)]
pub struct Wanted {
    /// What it does with a message that it took.
    pub keep: Keep,
    /// With a plugin that takes part in connect, EHLO, MAIL, RCPT and the end of the message, and has nothing to say.
    pub no_op: bool,
    /// Sessions at once, where it has to be told.
    pub sessions: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// Nothing: the message is dropped when it was received in full.
    Nothing,
    /// The message is on disk before the client hears 250, as safely as this server can.
    Messages,
}

/// A running server. It is stopped when dropped.
pub trait Server {
    fn address(&self) -> SocketAddr;

    /// The processes that all its others descend from.
    fn roots(&self) -> Vec<Pid>;

    /// Throws away what it kept.
    fn forget(&self) {}
}

/// A kind of server.
pub struct Peer {
    pub name: &'static str,
    /// How it keeps messages, and what it syncs; `None` where it only drops them.
    pub kept: Option<&'static str>,
    /// What its plugin without effect is; `None` where it is measured without one.
    pub no_op: Option<&'static str>,
    /// A load is divided by this where less is long enough.
    pub part: usize,
    /// Starts one. An error says why it cannot be had.
    pub start: fn(Wanted) -> Result<Box<dyn Server>, String>,
}

pub static ALL: [&Peer; 6] = [
    &postfix::PEER,
    &opensmtpd::PEER,
    &haraka::ONE_PROCESS,
    &haraka::TWO_WORKERS,
    &qpsmtpd::PEER,
    &aiosmtpd::PEER,
];

impl Peer {
    /// Starts it, and says loudly where it cannot be had.
    pub fn start(&self, wanted: Wanted) -> Result<Box<dyn Server>, String> {
        (self.start)(wanted).map_err(|why| not_measured(self.name, &why))
    }
}

/// Says it loudly; returns what a table says.
pub fn not_measured(name: &str, why: &str) -> String {
    eprintln!("\n*** NOT MEASURED: {name}: {why} ***\n");
    format!("NOT MEASURED: {}", why.replace('\n', " ").replace('|', "/"))
}
