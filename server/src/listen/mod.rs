//! Sockets in: listeners, proxies before them, and the limits on clients.

mod proxy;
mod slots;

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

use crate::config::{Config, Listen, MailProtocol};
use crate::dialog::{Client, LMTP, SMTP, Shared, Stop, serve};
use crate::report;
use proxy::{Header, ProxyError};
use slots::{Full, Slot, Slots};

/// Whose lines these are in the log.
const LOGGED_AS: &str = "listen";
/// Connections that wait to be accepted.
const BACKLOG: u32 = 1024;
/// How long transactions may take to finish after we were told to stop.
const GRACE: Duration = Duration::from_secs(30);
/// How long the last words to clients may take after that.
const FAREWELL: Duration = Duration::from_secs(10);
/// How long a proxy may take to say whose connection it passes on; less where `command_timeout` is.
const PROXY_TIMEOUT: Duration = Duration::from_secs(30);
/// How long to wait where no connection can be accepted for lack of descriptors or memory.
const PAUSE: Duration = Duration::from_millis(100);

/// The sockets we listen on.
pub struct Listeners {
    listeners: Vec<(TcpListener, Arc<Listen>)>,
    slots: Arc<Slots>,
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
    /// Binds every address of a configuration. To be called within the runtime.
    pub fn bind(config: &Config) -> Result<Listeners, BindError> {
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
            slots: Slots::new(
                limits.max_connections,
                limits.max_connections_per_ip,
                limits.max_connections_per_network,
            ),
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
    slots: Arc<Slots>,
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
        let slot = match self.slots.take() {
            Ok(slot) => slot,
            Err(full) => return turn_away(&stream, &session, remote, full),
        };
        let client = Client {
            session,
            remote: Some(canonical(remote)),
            local: local.or_else(|| stream.local_addr().ok()).map(canonical),
            direction: listen.direction,
            may_xclient: false,
            may_xforward: false,
        };
        let dialect = match listen.protocol {
            MailProtocol::Smtp => &SMTP,
            MailProtocol::Lmtp => &LMTP,
        };
        let (door, listen) = (Arc::clone(self), Arc::clone(listen));
        self.sessions.spawn(async move {
            let Some((stream, client, slot)) = door.identify(stream, client, slot, &listen).await
            else {
                return;
            };
            let shared = Arc::clone(&door.shared);
            serve(dialect, stream, client, shared, door.stop.clone()).await;
            drop(slot);
        });
    }

    /// Finds out whose connection it is, and whether that client may have one more.
    async fn identify(
        &self,
        mut stream: TcpStream,
        mut client: Client,
        mut slot: Slot,
        listen: &Listen,
    ) -> Option<(TcpStream, Client, Slot)> {
        let peer = client.remote?;
        if listen.proxy_from.contains(peer.ip()) {
            match self.proxied(&mut stream).await {
                Some(Ok(Header::Own)) => {}
                Some(Ok(Header::Passed { client: remote, to })) => {
                    client.remote = Some(canonical(remote));
                    client.local = Some(canonical(to));
                }
                Some(Err(error)) => {
                    // Proxies look whether we are there, and say nothing.
                    let level = match error {
                        ProxyError::Nothing => Level::Debug,
                        _ => Level::Info,
                    };
                    let text = format_args!("{peer} turned away: {error}");
                    report::line(level, &client.session, Some(Hook::Connect), LOGGED_AS, text);
                    return None;
                }
                None => return None,
            }
        }
        let remote = client.remote?;
        match slot.assign(remote.ip()) {
            Ok(()) => {
                client.may_xclient = listen.xclient_from.contains(remote.ip());
                client.may_xforward = listen.xforward_from.contains(remote.ip());
                Some((stream, client, slot))
            }
            Err(full) => {
                turn_away(&stream, &client.session, remote, full);
                None
            }
        }
    }

    /// The PROXY header at the beginning of a connection. `None`: we are to stop.
    async fn proxied(&self, stream: &mut TcpStream) -> Option<Result<Header, ProxyError>> {
        let limit = self.shared.config.limits.command_timeout;
        let header = tokio::time::timeout(limit.min(PROXY_TIMEOUT), proxy::read(stream));
        tokio::select! {
            () = self.stop.soon.cancelled() => None,
            header = header => Some(header.unwrap_or(Err(ProxyError::Late))),
        }
    }
}

fn turn_away(stream: &TcpStream, session: &str, remote: SocketAddr, full: Full) {
    let text = format_args!("{remote} turned away: {full}");
    report::line(Level::Info, session, Some(Hook::Connect), LOGGED_AS, text);
    // A fresh connection takes one line without waiting; if not, the client learns the same from its closing.
    let _ = stream.try_write(format!("421 4.7.0 {full}; try again later\r\n").as_bytes());
}

/// IPv4 clients of an IPv6 socket are IPv4 clients.
fn canonical(addr: SocketAddr) -> SocketAddr {
    SocketAddr::new(addr.ip().to_canonical(), addr.port())
}

#[cfg(test)]
mod tests;
