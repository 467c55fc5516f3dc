//! Sockets that are listened on: TCP, and Unix sockets for clients of this machine.

use std::io;
use std::net::{SocketAddr, TcpListener as StdTcpListener};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener as StdUnixListener, UnixStream as StdUnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, sockopt};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use crate::config::Address;

/// Connections that wait to be accepted.
const BACKLOG: i32 = 1024;

/// A socket that is listened on.
pub enum Bound {
    /// TCP.
    Tcp(TcpListener),
    /// A Unix socket, with its file.
    Unix(UnixListener, SocketFile),
}

/// Who came.
pub enum Accepted {
    /// From this address.
    Tcp(TcpStream, SocketAddr),
    /// From this machine.
    Unix(UnixStream),
}

/// Whether the files of sockets are this process's to remove: not while they are another's, which listens there as well.
pub type Ours = Arc<AtomicBool>;

/// Listens on an address, without the runtime. `mode` is for the file of a Unix socket.
pub fn listen(addr: &Address, mode: Option<u32>) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = |family| rustix::net::socket_with(family, SocketType::STREAM, flags, None);
    let socket = match addr {
        Address::Tcp(addr) => {
            let socket = socket(match addr {
                SocketAddr::V4(_) => AddressFamily::INET,
                SocketAddr::V6(_) => AddressFamily::INET6,
            })?;
            // Else a restart would have to wait for the last connections to be forgotten.
            sockopt::set_socket_reuseaddr(&socket, true)?;
            rustix::net::bind(&socket, addr)?;
            socket
        }
        Address::Unix(path) => {
            if is_stale(path) {
                std::fs::remove_file(path)?;
            }
            let socket = socket(AddressFamily::UNIX)?;
            rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
            // Before anybody can connect, which is from `listen` on.
            if let Some(mode) = mode {
                std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
            }
            socket
        }
    };
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(socket)
}

impl Bound {
    /// Accepts from a socket that is listened on at an address. To be called within the runtime.
    pub fn over(socket: OwnedFd, addr: &Address, ours: Ours) -> io::Result<Bound> {
        match addr {
            Address::Tcp(_) => {
                // Replies are whole when they are written; waiting for more would only delay them. Accepted connections inherit it.
                sockopt::set_tcp_nodelay(&socket, true)?;
                let listener = StdTcpListener::from(socket);
                listener.set_nonblocking(true)?;
                TcpListener::from_std(listener).map(Bound::Tcp)
            }
            Address::Unix(path) => {
                let listener = StdUnixListener::from(socket);
                listener.set_nonblocking(true)?;
                let path = path.clone();
                let file = SocketFile { path, ours };
                Ok(Bound::Unix(UnixListener::from_std(listener)?, file))
            }
        }
    }

    /// Where it listens.
    pub fn address(&self) -> io::Result<Address> {
        match self {
            Bound::Tcp(listener) => listener.local_addr().map(Address::Tcp),
            Bound::Unix(_, file) => Ok(Address::Unix(file.path.clone())),
        }
    }

    /// Waits for the next client.
    pub async fn accept(&self) -> io::Result<Accepted> {
        match self {
            Bound::Tcp(listener) => {
                let (stream, remote) = listener.accept().await?;
                Ok(Accepted::Tcp(stream, remote))
            }
            Bound::Unix(listener, _) => Ok(Accepted::Unix(listener.accept().await?.0)),
        }
    }
}

impl AsFd for Bound {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Bound::Tcp(listener) => listener.as_fd(),
            Bound::Unix(listener, _) => listener.as_fd(),
        }
    }
}

/// The file of a Unix socket; removed when dropped, where it is ours.
pub struct SocketFile {
    path: PathBuf,
    ours: Ours,
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.ours.load(Ordering::Relaxed) {
            // A file that is left over is removed at the next start.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Why an address cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {addr}: {source}; {}", hint(addr, source))]
pub struct BindError {
    pub(super) addr: Address,
    pub(super) source: io::Error,
}

fn hint(addr: &Address, error: &io::Error) -> &'static str {
    if let Address::Unix(_) = addr {
        return match error.kind() {
            io::ErrorKind::AddrInUse => {
                "stop the server that listens there (`ss -lxp` shows it), or remove the file if it is no socket, or set another `addr` under [[listen]]"
            }
            io::ErrorKind::NotFound => "make the folder, or set another `addr` under [[listen]]",
            _ => {
                "let the user that gatepost runs as write to the folder, or set another `addr` under [[listen]]"
            }
        };
    }
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            "stop the server that listens there (`ss -ltnp` shows it), or set another `addr` under [[listen]]"
        }
        io::ErrorKind::PermissionDenied => {
            "ports below 1024 need root or the capability CAP_NET_BIND_SERVICE; or set a port above 1023 under [[listen]]"
        }
        io::ErrorKind::AddrNotAvailable => {
            "no interface of this machine has that address (`ip address` shows them); set another `addr` under [[listen]]"
        }
        _ => "set another `addr` under [[listen]]",
    }
}

/// Whether a socket is there that nobody listens on: a killed process left it.
fn is_stale(path: &Path) -> bool {
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket());
    is_socket
        && StdUnixStream::connect(path)
            .is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_socket_that_somebody_listens_on_stays_and_a_stale_one_goes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let addr = Address::Unix(path.clone());
        let bind = || Bound::over(listen(&addr, Some(0o620))?, &addr, Arc::new(true.into()));
        let first = bind().unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o620);
        assert_eq!(bind().err().unwrap().kind(), io::ErrorKind::AddrInUse);
        let client = UnixStream::connect(&path).await;
        assert!(matches!(first.accept().await, Ok(Accepted::Unix(_))));
        drop((client, first));
        assert!(!path.exists());
        // Dropping the standard library's listener leaves the file, as a killed process does.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        drop(bind().unwrap());
        // What is no socket is not ours to remove.
        std::fs::write(&path, "precious").unwrap();
        assert_eq!(bind().err().unwrap().kind(), io::ErrorKind::AddrInUse);
        assert_eq!(std::fs::read(&path).unwrap(), b"precious");
    }
}
