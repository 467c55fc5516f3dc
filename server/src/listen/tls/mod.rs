//! TLS, by rustls. Nobody else in the server knows it.

mod certificates;
mod clients;
mod credentials;
mod names;

use std::io;
use std::sync::{Arc, OnceLock};

use gatepost_protocol::session::Tls;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::{InvalidMessage, ServerConnection};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::dialog::Secured;

pub use credentials::Credentials;

/// The one provider of cryptography.
pub fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    Arc::clone(PROVIDER.get_or_init(|| Arc::new(aws_lc_rs::default_provider())))
}

/// Makes the server's side of a handshake, with the certificates in force.
///
/// # Errors
/// Why it failed, for the log, and the stream, on which the client was told as far as it can be.
pub async fn accept(
    credentials: &Credentials,
    stream: TcpStream,
) -> Result<(Box<TlsStream<TcpStream>>, Secured), (io::Error, TcpStream)> {
    let current = credentials.current();
    let acceptor = TlsAcceptor::from(Arc::clone(&current.server));
    let stream = acceptor
        .accept(stream)
        .into_fallible()
        .await
        .map_err(|(error, stream)| (explained(error), stream))?;
    let connection = stream.get_ref().1;
    let certificates = connection.peer_certificates().unwrap_or_default();
    let client_name = current
        .clients
        .as_ref()
        .and_then(|clients| clients::verified_name(&**clients, certificates));
    let secured = Secured {
        tls: tls(connection, client_name),
        channel_binding: channel_binding(connection),
    };
    Ok((Box::new(stream), secured))
}

fn tls(connection: &ServerConnection, client_name: Option<String>) -> Tls {
    let version = match connection.protocol_version() {
        Some(rustls::ProtocolVersion::TLSv1_2) => "TLSv1.2",
        _ => "TLSv1.3",
    };
    // rustls has names of its own for the suites of TLS 1.3.
    let suite = connection.negotiated_cipher_suite();
    let cipher = suite.map_or("", |suite| suite.suite().as_str().unwrap_or_default());
    let cipher = match cipher.strip_prefix("TLS13_") {
        Some(rest) => format!("TLS_{rest}").into(),
        None => cipher.into(),
    };
    Tls {
        version: version.into(),
        cipher,
        server_name: connection.server_name().map(str::to_owned),
        client_name,
    }
}

/// RFC 9266 §2. Its §3 wants TLS 1.3, or extended master secrets, which rustls does not tell of.
fn channel_binding(connection: &ServerConnection) -> Option<[u8; 32]> {
    if connection.protocol_version() != Some(rustls::ProtocolVersion::TLSv1_3) {
        return None;
    }
    connection
        .export_keying_material([0; 32], b"EXPORTER-Channel-Binding", Some(b""))
        .ok()
}

/// The same error in words that say what the client did.
fn explained(error: io::Error) -> io::Error {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
    let text = match (error.kind(), inner) {
        (_, Some(rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType))) => {
            "the client does not speak TLS here".to_owned()
        }
        (_, Some(rustls::Error::AlertReceived(alert))) => {
            format!("the client refused our certificate or our settings ({alert:?})")
        }
        (io::ErrorKind::UnexpectedEof, None) => "the client hung up in the handshake".to_owned(),
        _ => return error,
    };
    io::Error::new(error.kind(), text)
}
