//! Sockets that are listened on before the daemon's own runtime is there: systemd's, those of a daemon whose place this one takes, and those that root bound before it became another user.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use listenfd::ListenFd;
use rustix::net::sockopt;

use super::bound::{self, Bound, Ours};
use super::{BindError, Place};
use crate::config::{Address, Config};

/// Sockets that somebody else listened on, by the addresses of the configuration.
#[derive(Default)]
pub struct Inherited(Vec<Passed>);

/// A socket that goes from one process to another.
pub struct Passed {
    /// As configured; port 0 stays port 0.
    pub addr: Address,
    /// It is listened on.
    pub socket: OwnedFd,
    /// Somebody else goes on to hold it, and its file.
    pub is_lent: bool,
}

/// A descriptor that the service manager passed is not what a listener can be.
#[derive(Debug, thiserror::Error)]
#[error("socket {number} of those that were passed (LISTEN_FDS): {why}")]
pub struct PassedError {
    number: usize,
    why: String,
}

impl Inherited {
    /// The sockets of socket activation (sd_listen_fds(3)); none where there is none. To be called once, before there are threads: it takes the variables out of the environment.
    ///
    /// # Errors
    /// One is no stream socket that is listened on.
    pub fn from_service_manager() -> Result<Inherited, PassedError> {
        let mut passed = ListenFd::from_env();
        let sockets = (0..passed.len()).map(|number| {
            take(&mut passed, number).map_err(|why| PassedError {
                number: number + 1,
                why,
            })
        });
        Ok(Inherited(sockets.collect::<Result<_, _>>()?))
    }

    /// Adds one.
    pub fn add(&mut self, passed: Passed) {
        self.0.push(passed);
    }

    /// Listens on the TCP addresses of a configuration that are not there yet.
    ///
    /// # Errors
    /// An address cannot be listened on.
    pub fn bind_tcp(&mut self, config: &Config) -> Result<(), BindError> {
        for (Place { addr, nth }, _) in Place::all(config) {
            let there = self.0.iter().filter(|passed| passed.addr == addr).count();
            if matches!(addr, Address::Unix(_)) || nth < there {
                continue;
            }
            match bound::listen(&addr, None) {
                Ok(socket) => self.add(Passed {
                    addr,
                    socket,
                    is_lent: false,
                }),
                Err(source) => return Err(BindError { addr, source }),
            }
        }
        Ok(())
    }

    /// The socket at an address, or a new one there; and whether it is lent. Within the runtime. `ours` is for the file of a socket that is not lent.
    pub(super) fn open(
        &mut self,
        addr: &Address,
        mode: Option<u32>,
        ours: &Ours,
    ) -> std::io::Result<(Bound, bool)> {
        let at = self.0.iter().position(|passed| passed.addr == *addr);
        let (socket, is_lent) = match at.map(|at| self.0.remove(at)) {
            Some(passed) => (passed.socket, passed.is_lent),
            None => (bound::listen(addr, mode)?, false),
        };
        let ours = match is_lent {
            true => Arc::new(AtomicBool::new(false)),
            false => Arc::clone(ours),
        };
        Ok((Bound::over(socket, addr, ours)?, is_lent))
    }

    /// Those that nobody asked for.
    pub fn unused(&self) -> &[Passed] {
        &self.0
    }

    /// Lets go of those that nobody asked for.
    pub(super) fn close_unused(&mut self) {
        for passed in self.0.drain(..) {
            if let (Address::Unix(path), false) = (&passed.addr, passed.is_lent) {
                // A file that is left over is removed at the next start.
                let _ = std::fs::remove_file(path);
            }
        }
    }
}

fn take(passed: &mut ListenFd, number: usize) -> Result<Passed, String> {
    let (addr, socket) = match passed.take_tcp_listener(number) {
        Ok(Some(listener)) => {
            let addr = listener.local_addr().map_err(|error| error.to_string())?;
            (Address::Tcp(without_scope(addr)), OwnedFd::from(listener))
        }
        _ => {
            let listener = passed.take_unix_listener(number);
            let listener = listener.map_err(|error| error.to_string())?;
            let listener = listener.ok_or("it is not there")?;
            let addr = listener.local_addr().map_err(|error| error.to_string())?;
            let path = addr.as_pathname().ok_or("it has no file")?.to_owned();
            (Address::Unix(path), OwnedFd::from(listener))
        }
    };
    match sockopt::socket_acceptconn(&socket) {
        Ok(true) => Ok(Passed {
            addr,
            socket,
            is_lent: true,
        }),
        _ => Err(
            "nobody listens on it; a socket unit needs `Accept=no`, which is the default"
                .to_owned(),
        ),
    }
}

/// As it is written in a configuration.
fn without_scope(addr: SocketAddr) -> SocketAddr {
    SocketAddr::new(addr.ip(), addr.port())
}
