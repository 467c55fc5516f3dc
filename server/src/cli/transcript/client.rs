//! The client's end of a connection.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, UnixStream};

use super::pattern::show;
use super::tls;

/// The longest reply line, CRLF included (RFC 5321 §4.5.3.1.5).
const MAX_REPLY_LINE: usize = 512;

/// A stream of bytes, both ways.
pub trait Io: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

/// A connection to the server.
pub struct Client {
    stream: Box<dyn Io>,
    /// What came and was not looked at yet.
    came: Vec<u8>,
    patience: Duration,
}

impl Client {
    /// Connects, from an address of ours if one is given. Nothing that the server is to do may take longer than `patience`.
    pub async fn connect(
        server: SocketAddr,
        from: Option<IpAddr>,
        patience: Duration,
    ) -> std::io::Result<Client> {
        let socket = match server {
            SocketAddr::V4(_) => TcpSocket::new_v4()?,
            SocketAddr::V6(_) => TcpSocket::new_v6()?,
        };
        if let Some(from) = from {
            socket.bind(SocketAddr::new(from, 0))?;
        }
        let stream = socket.connect(server).await?;
        stream.set_nodelay(true)?;
        Ok(Client {
            stream: Box::new(stream),
            came: Vec::new(),
            patience,
        })
    }

    /// The same over a Unix socket.
    pub async fn connect_unix(server: &Path, patience: Duration) -> std::io::Result<Client> {
        Ok(Client {
            stream: Box::new(UnixStream::connect(server).await?),
            came: Vec::new(),
            patience,
        })
    }

    /// Encrypts the connection from here on; an error says why that cannot be.
    pub async fn secure(&mut self) -> Result<(), String> {
        if !self.came.is_empty() {
            let came = show(&self.came);
            return Err(format!("before the handshake the server said `{came}`"));
        }
        let plain = std::mem::replace(&mut self.stream, Box::new(tokio::io::empty()));
        match tokio::time::timeout(self.patience, tls::handshake(plain)).await {
            Ok(Ok(stream)) => {
                self.stream = Box::new(stream);
                Ok(())
            }
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!("no handshake within {:?}", self.patience)),
        }
    }

    /// Sends bytes. What the server says meanwhile is kept, so that neither side waits for the other. A server that is gone is no error here: the next reply that is missing tells.
    pub async fn send(&mut self, bytes: &[u8]) -> Result<(), String> {
        let (mut reader, mut writer) = tokio::io::split(&mut self.stream);
        let came = &mut self.came;
        let write = async {
            writer.write_all(bytes).await?;
            writer.flush().await
        };
        tokio::pin!(write);
        let both = async {
            let mut open = true;
            loop {
                tokio::select! {
                    _ = &mut write => return,
                    read = reader.read_buf(came), if open => open = matches!(read, Ok(1..)),
                }
            }
        };
        tokio::time::timeout(self.patience, both)
            .await
            .map_err(|_| format!("not all was taken within {:?}", self.patience))
    }

    /// The next reply line without its CRLF, as text; an error says what came instead.
    pub async fn line(&mut self) -> Result<String, String> {
        let end = loop {
            if let Some(end) = self.came.iter().position(|byte| *byte == b'\n') {
                break end;
            }
            let read = self.read().await?;
            if read == 0 && self.came.is_empty() {
                return Err("the server hung up".to_owned());
            }
            if read == 0 {
                let rest = show(&self.came);
                return Err(format!("the server hung up in the middle of `{rest}`"));
            }
        };
        let line: Vec<u8> = self.came.drain(..=end).collect();
        if line.len() > MAX_REPLY_LINE {
            return Err(format!("a reply line of {} bytes", line.len()));
        }
        match line.strip_suffix(b"\r\n") {
            Some(text) if !text.contains(&b'\r') => Ok(show(text)),
            _ => Err(format!("`{}`, which does not end in one CRLF", show(&line))),
        }
    }

    /// Waits for the server to hang up; an error says what it did instead.
    pub async fn ended(&mut self) -> Result<(), String> {
        loop {
            if !self.came.is_empty() {
                return Err(show(&self.came));
            }
            if self.read().await? == 0 {
                return Ok(());
            }
        }
    }

    /// Tells the server that no more will come, and waits for it to hang up.
    pub async fn finish(&mut self) -> Result<(), String> {
        // A server that hung up first makes this fail; the wait below sees that too.
        let _ = self.stream.shutdown().await;
        self.ended().await
    }

    async fn read(&mut self) -> Result<usize, String> {
        let read = self.stream.read_buf(&mut self.came);
        match tokio::time::timeout(self.patience, read).await {
            Ok(Ok(read)) => Ok(read),
            // A reset is a way to hang up, too.
            Ok(Err(_)) => Ok(0),
            Err(_) => Err(format!(
                "nothing for {:?}{}",
                self.patience,
                match self.came.is_empty() {
                    true => String::new(),
                    false => format!(", after `{}`", show(&self.came)),
                }
            )),
        }
    }
}
