//! A client's connection: TCP, and TLS on it where it was asked for.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::server::TlsStream;

use super::tls::{self, Credentials};
use crate::dialog::{Secured, Stream};

/// A connection.
pub struct Transport {
    layer: Layer,
    /// There where the connection may be encrypted.
    credentials: Option<Arc<Credentials>>,
}

enum Layer {
    Plain(TcpStream),
    /// Boxed: most connections are plain, and wait for long.
    Tls(Box<TlsStream<TcpStream>>),
    /// A handshake failed. The client may be read to its end, and hears no more.
    Failed(TcpStream),
    /// A handshake was begun and given up.
    GivenUp,
}

impl Transport {
    /// A plain connection, which can be encrypted if there are credentials.
    pub fn new(stream: TcpStream, credentials: Option<Arc<Credentials>>) -> Transport {
        Transport {
            layer: Layer::Plain(stream),
            credentials,
        }
    }
}

/// On a Unix socket nobody is on the way.
impl Stream for UnixStream {}

impl Stream for Transport {
    fn is_secure(&self) -> bool {
        matches!(self.layer, Layer::Tls(_))
    }

    fn can_secure(&self) -> bool {
        self.credentials.is_some() && matches!(self.layer, Layer::Plain(_))
    }

    async fn secure(&mut self) -> io::Result<Secured> {
        let layer = std::mem::replace(&mut self.layer, Layer::GivenUp);
        let (Layer::Plain(stream), Some(credentials)) = (layer, &self.credentials) else {
            return Err(io::ErrorKind::Unsupported.into());
        };
        match tls::accept(credentials, stream).await {
            Ok((stream, secured)) => {
                self.layer = Layer::Tls(stream);
                Ok(secured)
            }
            Err((error, stream)) => {
                self.layer = Layer::Failed(stream);
                Err(error)
            }
        }
    }
}

impl AsyncRead for Transport {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.layer {
            Layer::Plain(stream) | Layer::Failed(stream) => Pin::new(stream).poll_read(cx, buffer),
            Layer::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
            Layer::GivenUp => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }
}

impl AsyncWrite for Transport {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.layer {
            Layer::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Layer::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
            Layer::Failed(_) | Layer::GivenUp => {
                Poll::Ready(Err(io::ErrorKind::NotConnected.into()))
            }
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.layer {
            Layer::Tls(stream) => Pin::new(stream).poll_flush(cx),
            Layer::Plain(_) | Layer::Failed(_) | Layer::GivenUp => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.layer {
            Layer::Plain(stream) | Layer::Failed(stream) => Pin::new(stream).poll_shutdown(cx),
            Layer::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
            Layer::GivenUp => Poll::Ready(Ok(())),
        }
    }
}
