//! Sockets that are listened on: TCP, and Unix sockets for clients of this machine.

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};

use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixListener, UnixSocket, UnixStream};

use crate::config::Address;

/// Connections that wait to be accepted.
const BACKLOG: u32 = 1024;

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

impl Bound {
    /// Listens on an address. `mode` is for the file of a Unix socket.
    pub fn new(addr: &Address, mode: Option<u32>) -> io::Result<Bound> {
        match addr {
            Address::Tcp(addr) => tcp(*addr).map(Bound::Tcp),
            Address::Unix(path) => {
                let (listener, file) = unix(path, mode)?;
                Ok(Bound::Unix(listener, file))
            }
        }
    }

    /// Where it listens.
    pub fn address(&self) -> io::Result<Address> {
        match self {
            Bound::Tcp(listener) => listener.local_addr().map(Address::Tcp),
            Bound::Unix(_, file) => Ok(Address::Unix(file.0.clone())),
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

fn tcp(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = if addr.is_ipv4() {
        TcpSocket::new_v4()
    } else {
        TcpSocket::new_v6()
    }?;
    // Else a restart would have to wait for the last connections to be forgotten.
    socket.set_reuseaddr(true)?;
    // Replies are whole when they are written; waiting for more would only delay them. Accepted connections inherit it.
    socket.set_nodelay(true)?;
    socket.bind(addr)?;
    socket.listen(BACKLOG)
}

/// The file of a Unix socket; removed when dropped.
pub struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        // A file that is left over is removed at the next start.
        let _ = std::fs::remove_file(&self.0);
    }
}

fn unix(path: &Path, mode: Option<u32>) -> io::Result<(UnixListener, SocketFile)> {
    if is_stale(path) {
        std::fs::remove_file(path)?;
    }
    let socket = UnixSocket::new_stream()?;
    socket.bind(path)?;
    let file = SocketFile(path.to_owned());
    // Before anybody can connect, which is from `listen` on.
    if let Some(mode) = mode {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
    }
    Ok((socket.listen(BACKLOG)?, file))
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
        let bind = || Bound::new(&Address::Unix(path.clone()), Some(0o620));
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
