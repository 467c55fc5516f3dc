//! Postfix's smtp-sink: no peer, but the yardstick.

use std::net::SocketAddr;

use nix::unistd::Pid;

use super::{Peer, Server};
use crate::load::Sink;

pub static YARDSTICK: Peer = Peer {
    name: "smtp-sink",
    kept: None,
    no_op: None,
    part: 1,
    start: |_| Ok(Box::new(Sink::start())),
};

impl Server for Sink {
    fn address(&self) -> SocketAddr {
        self.address
    }

    fn roots(&self) -> Vec<Pid> {
        vec![self.pid()]
    }
}
