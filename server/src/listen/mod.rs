//! Sockets in: listeners and the limits on clients.

mod slots;
pub mod tls;
mod transport;

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use gatepost_protocol::{Hook, Level};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::{Config, Listen, ListenTls, MailProtocol};
use crate::dialog::{Client, LMTP, SMTP, Shared, Stop, Stream, serve};
use crate::report;
use slots::Slots;
use tls::Credentials;
use transport::Transport;

/// Whose lines these are in the log.
const LOGGED_AS: &str = "listen";
/// Connections that wait to be accepted.
const BACKLOG: u32 = 1024;
/// How long transactions may take to finish after we were told to stop.
const GRACE: Duration = Duration::from_secs(30);
/// How long the last words to clients may take after that.
const FAREWELL: Duration = Duration::from_secs(10);
/// How long to wait where no connection can be accepted for lack of descriptors or memory.
const PAUSE: Duration = Duration::from_millis(100);

/// The sockets we listen on.
pub struct Listeners {
    listeners: Vec<(TcpListener, Arc<Listen>)>,
    slots: Slots,
    credentials: Option<Arc<Credentials>>,
}

/// Why an address cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {addr}: {source}; {}", hint(source))]
pub struct BindError {
    addr: SocketAddr,
    source: io::Error,
}

fn hint(error: &io::Error) -> &'static str {
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

impl Listeners {
    /// Binds every address of a configuration. The credentials are for those that encrypt. To be called within the runtime.
    pub fn bind(
        config: &Config,
        credentials: Option<Arc<Credentials>>,
    ) -> Result<Listeners, BindError> {
        let bound = config.listen.iter().map(|listen| {
            let addr = listen.addr;
            match socket(addr) {
                Ok(listener) => Ok((listener, Arc::new(listen.clone()))),
                Err(source) => Err(BindError { addr, source }),
            }
        });
        let limits = &config.limits;
        Ok(Listeners {
            listeners: bound.collect::<Result<_, _>>()?,
            slots: Slots::new(limits.max_connections, limits.max_connections_per_ip),
            credentials,
        })
    }

    /// The addresses that are listened on, in the order of the configuration; port 0 is replaced by the one that was given.
    pub fn addresses(&self) -> io::Result<Vec<SocketAddr>> {
        self.listeners
            .iter()
            .map(|(listener, _)| listener.local_addr())
            .collect()
    }

    /// Accepts connections until `stop`. Then takes no new ones, lets transactions finish that have begun, and returns when all sessions are
    /// over, or after a time of grace.
    pub async fn run(self, shared: Arc<Shared>, stop: CancellationToken) {
        let sessions = TaskTracker::new();
        let door = Arc::new(Door {
            shared,
            slots: self.slots,
            credentials: self.credentials,
            sessions: sessions.clone(),
            stop: Stop {
                soon: stop.clone(),
                now: CancellationToken::new(),
            },
            // Ids of a restarted daemon are not those of the one before, which are in the same log.
            ids: AtomicU64::new(RandomState::new().build_hasher().finish() & 0xff_ffff),
        });
        let doors = TaskTracker::new();
        for (listener, listen) in self.listeners {
            doors.spawn(Arc::clone(&door).keep(listener, listen));
        }
        doors.close();
        doors.wait().await;
        stop.cancelled().await;
        sessions.close();
        if tokio::time::timeout(GRACE, sessions.wait()).await.is_err() {
            door.stop.now.cancel();
            // Whoever does not go even then is cut off with the runtime.
            let _ = tokio::time::timeout(FAREWELL, sessions.wait()).await;
        }
    }
}

fn socket(addr: SocketAddr) -> io::Result<TcpListener> {
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

/// What every accepted connection needs.
struct Door {
    shared: Arc<Shared>,
    slots: Slots,
    credentials: Option<Arc<Credentials>>,
    sessions: TaskTracker,
    stop: Stop,
    ids: AtomicU64,
}

impl Door {
    async fn keep(self: Arc<Door>, listener: TcpListener, listen: Arc<Listen>) {
        let mut failing = false;
        // Known beforehand, unless we listen on all addresses.
        let local = listener
            .local_addr()
            .ok()
            .filter(|local| !local.ip().is_unspecified());
        loop {
            let accepted = tokio::select! {
                biased;
                () = self.stop.soon.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, remote)) => {
                    failing = false;
                    self.admit(stream, remote, local, &listen);
                }
                // The connection is over before it began; nothing is wrong with us.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    // Once for a row of failures: they come ten a second.
                    if !failing {
                        let text = format_args!(
                            "cannot accept connections: {error}; trying on (see `ulimit -n`)"
                        );
                        report::line(Level::Error, "", Some(Hook::Connect), LOGGED_AS, text);
                    }
                    failing = true;
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    fn admit(
        self: &Arc<Door>,
        stream: TcpStream,
        remote: SocketAddr,
        local: Option<SocketAddr>,
        listen: &Arc<Listen>,
    ) {
        let session = format!("{:06x}", self.ids.fetch_add(1, Ordering::Relaxed)).into_boxed_str();
        let slot = match self.slots.take(remote.ip()) {
            Ok(slot) => slot,
            Err(full) => {
                let text = format_args!("{remote} turned away: {full}");
                report::line(Level::Info, &session, Some(Hook::Connect), LOGGED_AS, text);
                if listen.tls == ListenTls::Implicit {
                    return;
                }
                // A fresh connection takes one line without waiting; if not, the client learns the same from its closing.
                let _ =
                    stream.try_write(format!("421 4.7.0 {full}; try again later\r\n").as_bytes());
                return;
            }
        };
        let mut client = Client {
            session,
            remote: Some(canonical(remote)),
            local: local.or_else(|| stream.local_addr().ok()).map(canonical),
            listen: Arc::clone(listen),
            secured: None,
        };
        let credentials = self
            .credentials
            .clone()
            .filter(|_| listen.tls != ListenTls::Off);
        let mut transport = Transport::new(stream, credentials);
        let at_once = listen.tls == ListenTls::Implicit;
        let dialect = match listen.protocol {
            MailProtocol::Smtp => &SMTP,
            MailProtocol::Lmtp => &LMTP,
        };
        let door = Arc::clone(self);
        self.sessions.spawn(async move {
            // Boxed: it is soon over, and the session is not.
            if !at_once || Box::pin(door.secure(&mut transport, &mut client)).await {
                let shared = Arc::clone(&door.shared);
                serve(dialect, transport, client, shared, door.stop.clone()).await;
            }
            drop(slot);
        });
    }

    /// The handshake before the greeting (RFC 8314 §3). False: it failed, and the log says why.
    async fn secure(&self, transport: &mut Transport, client: &mut Client) -> bool {
        let limit = self.shared.config.limits.command_timeout;
        let shaken = tokio::select! {
            shaken = tokio::time::timeout(limit, transport.secure()) => shaken,
            () = self.stop.soon.cancelled() => return false,
        };
        let error = match shaken {
            Ok(Ok(secured)) => {
                client.secured = Some(Box::new(secured));
                return true;
            }
            Ok(Err(error)) => error,
            Err(_) => io::ErrorKind::TimedOut.into(),
        };
        let remote = client.remote.map(|remote| remote.to_string());
        let text = format_args!(
            "{} closed, TLS failed: {error}",
            remote.as_deref().unwrap_or("a client")
        );
        report::line(
            Level::Info,
            &client.session,
            Some(Hook::Connect),
            LOGGED_AS,
            text,
        );
        false
    }
}

/// IPv4 clients of an IPv6 socket are IPv4 clients.
fn canonical(addr: SocketAddr) -> SocketAddr {
    SocketAddr::new(addr.ip().to_canonical(), addr.port())
}

#[cfg(test)]
mod tests;
