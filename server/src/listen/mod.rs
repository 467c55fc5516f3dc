//! Sockets in: listeners, proxies before them, and the limits on clients.

mod bound;
mod inherited;
mod proxy;
mod slots;
pub mod tls;
mod transport;

use std::collections::hash_map::RandomState;
use std::fmt::Display;
use std::hash::{BuildHasher, Hasher};
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use gatepost_protocol::{Hook, Level};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::{Address, Config, Listen, ListenTls, MailProtocol};
use crate::dialog::{Client, Dialect, LMTP, SMTP, Shared, Stop, Stream, serve};
use crate::report::{self, Limit};
use bound::Ours;
pub use bound::{Accepted, BindError, Bound};
pub use inherited::{Inherited, Passed, PassedError};
use proxy::{Header, ProxyError};
use slots::{Full, Slot, Slots};
use tls::Credentials;
use transport::Transport;

/// Whose lines these are in the log.
const LOGGED_AS: &str = "listen";
/// How long sessions may go on by themselves after another daemon took our place. Most end in that time, and are not told to come again.
const LINGER: Duration = Duration::from_secs(5);
/// How long transactions may take to finish after we were told to stop.
const GRACE: Duration = Duration::from_secs(30);
/// How long the last words to clients may take after that.
const FAREWELL: Duration = Duration::from_secs(10);
/// How long a proxy may take to say whose connection it passes on; less where `command_timeout` is.
const PROXY_TIMEOUT: Duration = Duration::from_secs(30);
/// How long to wait where no connection can be accepted for lack of descriptors or memory.
const PAUSE: Duration = Duration::from_millis(100);

/// What connections get that come in now. Those that are there keep what they got.
pub struct Service {
    /// What conversations share.
    pub shared: Arc<Shared>,
    /// What TLS needs, where it is configured.
    pub credentials: Option<Arc<Credentials>>,
    listen: Vec<Arc<Listen>>,
}

impl Service {
    /// All that its configuration says.
    pub fn new(shared: Arc<Shared>, credentials: Option<Arc<Credentials>>) -> Service {
        let listen = shared.config.listen.iter().cloned().map(Arc::new);
        Service {
            listen: listen.collect(),
            shared,
            credentials,
        }
    }

    /// What is configured for a place.
    fn listen(&self, place: &Place) -> Option<&Arc<Listen>> {
        let listen = self.listen.iter();
        let mut there = listen.filter(|listen| listen.addr == place.addr);
        there.nth(place.nth)
    }
}

/// The sockets we listen on, and who came in there.
pub struct Listeners {
    door: Arc<Door>,
    open: Mutex<Vec<Open>>,
    doors: TaskTracker,
    inherited: Mutex<Inherited>,
    ours: Ours,
    handed_over: CancellationToken,
}

/// A socket that is listened on.
struct Open {
    place: Place,
    listener: Arc<Bound>,
    is_lent: bool,
    close: CancellationToken,
}

/// Tells listeners of one configuration apart, and finds those of the next again.
#[derive(Clone, PartialEq)]
struct Place {
    /// As configured.
    addr: Address,
    /// How many before it have the same: port 0 is any, as often as wanted.
    nth: usize,
}

impl Place {
    /// Where a configuration listens.
    fn all(config: &Config) -> impl Iterator<Item = (Place, &Listen)> {
        config.listen.iter().enumerate().map(|(at, listen)| {
            let before = config.listen[..at].iter();
            let place = Place {
                addr: listen.addr.clone(),
                nth: before.filter(|other| other.addr == listen.addr).count(),
            };
            (place, listen)
        })
    }
}

/// Sockets that were bound and wait for [`Listeners::serve`].
pub struct Bindings(Vec<New>);

struct New {
    place: Place,
    listener: Bound,
    is_lent: bool,
    /// Where it really listens.
    address: Address,
    listen: Listen,
}

impl Listeners {
    /// Nothing is accepted yet; [`Listeners::run`] goes on until `stop`. The files of sockets are not removed before [`Listeners::take_files`].
    pub fn new(inherited: Inherited, stop: CancellationToken) -> Listeners {
        Listeners {
            inherited: Mutex::new(inherited),
            ours: Ours::default(),
            handed_over: CancellationToken::new(),
            door: Arc::new(Door {
                service: RwLock::default(),
                slots: Slots::new(),
                sessions: TaskTracker::new(),
                stop: Stop {
                    soon: stop,
                    ..Stop::default()
                },
                // Ids of a restarted daemon are not those of the one before, which are in the same log.
                ids: AtomicU64::new(RandomState::new().build_hasher().finish() & 0xff_ffff),
            }),
            open: Mutex::default(),
            doors: TaskTracker::new(),
        }
    }

    /// Binds the addresses of a configuration that are not listened on already. To be called within the runtime.
    pub fn bind(&self, config: &Config) -> Result<Bindings, BindError> {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let is_new = |(place, _): &(Place, &Listen)| !open.iter().any(|open| open.place == *place);
        let bound = Place::all(config).filter(is_new).map(|(place, listen)| {
            let addr = listen.addr.clone();
            let bound = self.open(&addr, listen.mode);
            match bound.and_then(|bound| Ok((bound.0.address()?, bound))) {
                Ok((address, (listener, is_lent))) => Ok(New {
                    place,
                    listener,
                    is_lent,
                    address,
                    listen: listen.clone(),
                }),
                Err(source) => Err(BindError { addr, source }),
            }
        });
        Ok(Bindings(bound.collect::<Result<_, _>>()?))
    }

    /// The socket at an address, inherited or new; and whether it is lent. To be called within the runtime.
    ///
    /// # Errors
    /// It cannot be listened on.
    pub fn open(&self, addr: &Address, mode: Option<u32>) -> io::Result<(Bound, bool)> {
        self.inherited().open(addr, mode, &self.ours)
    }

    fn inherited(&self) -> MutexGuard<'_, Inherited> {
        self.inherited
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// The address of a socket that was passed, and that no `[[listen]]` has.
    pub fn unused(&self) -> Option<Address> {
        let unused = self.inherited();
        unused.unused().first().map(|passed| passed.addr.clone())
    }

    /// From now on the files of sockets are this process's. Sockets that were inherited and are not listened on any more are closed.
    pub fn take_files(&self) {
        self.ours.store(true, Ordering::Relaxed);
        self.inherited().close_unused();
    }

    /// What is listened on, for the daemon that is to take our place.
    ///
    /// # Errors
    /// There are no more descriptors.
    pub fn sockets(&self) -> io::Result<Vec<Passed>> {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let passed = open.iter().map(|open| {
            Ok(Passed {
                addr: open.place.addr.clone(),
                socket: open.listener.as_fd().try_clone_to_owned()?,
                is_lent: open.is_lent,
            })
        });
        passed.collect()
    }

    /// Another daemon accepts at our sockets: connections are for it, and [`Listeners::run`] comes to its end.
    pub fn hand_over(&self) {
        self.ours.store(false, Ordering::Relaxed);
        self.close();
        self.handed_over.cancel();
    }

    fn close(&self) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.drain(..).for_each(|open| open.close.cancel());
    }

    /// From now on connections are served in this way: at the addresses of its configuration, which are `bindings` and what is open already. Others are closed; sessions that
    /// came in there go on.
    pub fn serve(&self, service: Service, bindings: Bindings) {
        self.door.slots.limit(&service.shared.config.limits);
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|open| {
            let stays = service.listen(&open.place).is_some();
            if !stays {
                let text = format_args!("no longer listening on {}", open.place.addr);
                report::line(Level::Notice, "", None, LOGGED_AS, text);
                open.close.cancel();
            }
            stays
        });
        *self
            .door
            .service
            .write()
            .unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(service));
        for new in bindings.0 {
            let New {
                place,
                listener,
                is_lent,
                address,
                listen,
            } = new;
            let listener = Arc::new(listener);
            let direction = listen.direction.name();
            let tls = match listen.tls {
                ListenTls::Off => "",
                ListenTls::StartTls => ", STARTTLS",
                ListenTls::Implicit => ", TLS",
            };
            let text = format_args!("listening on {address} ({direction}{tls})");
            report::line(Level::Notice, "", None, LOGGED_AS, text);
            let close = CancellationToken::new();
            let door = Arc::clone(&self.door);
            self.doors
                .spawn(door.keep(listener.clone(), place.clone(), close.clone()));
            open.push(Open {
                place,
                listener,
                is_lent,
                close,
            });
        }
    }

    /// Accepts connections until the stop, or until another daemon does. Then takes no new ones, lets transactions finish that have begun, and returns when all sessions are
    /// over, or after a time of grace.
    pub async fn run(&self) {
        let stop = &self.door.stop;
        tokio::select! {
            () = stop.soon.cancelled() => self.close(),
            () = self.handed_over.cancelled() => {}
            () = self.door.slots.make_room() => {}
        }
        self.doors.close();
        self.doors.wait().await;
        let sessions = &self.door.sessions;
        sessions.close();
        if self.handed_over.is_cancelled() {
            tokio::select! {
                _ = tokio::time::timeout(LINGER, sessions.wait()) => {}
                () = stop.soon.cancelled() => {}
            }
            stop.soon.cancel();
        }
        if tokio::time::timeout(GRACE, sessions.wait()).await.is_err() {
            stop.now.cancel();
            // Whoever does not go even then is cut off with the runtime.
            let _ = tokio::time::timeout(FAREWELL, sessions.wait()).await;
        }
    }
}

/// What every accepted connection needs.
struct Door {
    /// `None` until there is one.
    service: RwLock<Option<Arc<Service>>>,
    slots: Arc<Slots>,
    sessions: TaskTracker,
    stop: Stop,
    ids: AtomicU64,
}

impl Door {
    /// How connections at a place are served now; `None` where they no longer are.
    fn service(&self, place: &Place) -> Option<(Arc<Service>, Arc<Listen>)> {
        let service = self.service.read().unwrap_or_else(PoisonError::into_inner);
        let service = service.as_ref()?;
        Some((service.clone(), service.listen(place)?.clone()))
    }

    async fn keep(self: Arc<Door>, listener: Arc<Bound>, place: Place, close: CancellationToken) {
        let mut failing = false;
        // Known beforehand, unless we listen on all addresses.
        let local = match listener.address() {
            Ok(Address::Tcp(local)) => Some(local).filter(|local| !local.ip().is_unspecified()),
            _ => None,
        };
        loop {
            let accepted = tokio::select! {
                biased;
                () = self.stop.soon.cancelled() => return,
                () = close.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            let Some((service, listen)) = self.service(&place) else {
                return;
            };
            match accepted {
                Ok(Accepted::Tcp(stream, remote)) => {
                    failing = false;
                    self.admit(stream, remote, local, service, &listen);
                }
                Ok(Accepted::Unix(stream)) => {
                    failing = false;
                    self.admit_local(stream, service, &listen);
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
        service: Arc<Service>,
        listen: &Arc<Listen>,
    ) {
        let Some((mut client, slot)) = self.enter(listen, &remote, |text| stream.try_write(text))
        else {
            return;
        };
        client.remote = Some(canonical(remote));
        client.local = local.or_else(|| stream.local_addr().ok()).map(canonical);
        let dialect = dialect(listen);
        let (door, listen) = (Arc::clone(self), Arc::clone(listen));
        self.sessions.spawn(async move {
            let Some((stream, mut client, slot)) =
                door.identify(stream, client, slot, &service, &listen).await
            else {
                return;
            };
            let credentials = service.credentials.clone();
            let credentials = credentials.filter(|_| listen.tls != ListenTls::Off);
            let mut transport = Transport::new(stream, credentials);
            // Boxed: it is soon over, and the session is not.
            if listen.tls != ListenTls::Implicit
                || Box::pin(door.secure(&mut transport, &mut client, &slot, &service)).await
            {
                let shared = Arc::clone(&service.shared);
                // Boxed: a task is moved several times, and this is nearly all of it.
                Box::pin(serve(
                    dialect,
                    transport,
                    client,
                    shared,
                    door.stop_of(&slot),
                ))
                .await;
            }
            drop(slot);
        });
    }

    /// A client of this machine, which has no address: it counts for the limit on all connections alone.
    fn admit_local(
        self: &Arc<Door>,
        stream: UnixStream,
        service: Arc<Service>,
        listen: &Arc<Listen>,
    ) {
        let entered = self.enter(listen, &listen.addr, |text| stream.try_write(text));
        let Some((client, slot)) = entered else {
            return;
        };
        let (door, dialect) = (Arc::clone(self), dialect(listen));
        self.sessions.spawn(async move {
            let shared = Arc::clone(&service.shared);
            serve(dialect, stream, client, shared, door.stop_of(&slot)).await;
            drop(slot);
        });
    }

    /// A client of whom nothing is known yet, and its place among all connections; `None` where there is no place, which it was told.
    fn enter(
        &self,
        listen: &Arc<Listen>,
        who: &dyn Display,
        try_write: impl Fn(&[u8]) -> io::Result<usize>,
    ) -> Option<(Client, Slot)> {
        let session = format!("{:06x}", self.ids.fetch_add(1, Ordering::Relaxed)).into_boxed_str();
        match self.slots.take() {
            Ok(slot) => {
                let client = Client {
                    session,
                    remote: None,
                    local: None,
                    connections: 1,
                    listen: Arc::clone(listen),
                    user: None,
                    secured: None,
                    may_xclient: false,
                    may_xforward: false,
                };
                Some((client, slot))
            }
            Err(full) => {
                turn_away(try_write, &session, who, full, listen);
                None
            }
        }
    }

    /// The handshake before the greeting (RFC 8314 §3). False: it failed, and the log says why.
    async fn secure(
        &self,
        transport: &mut Transport,
        client: &mut Client,
        slot: &Slot,
        service: &Service,
    ) -> bool {
        let limit = service.shared.config.limits.command_timeout;
        let shaken = tokio::select! {
            shaken = tokio::time::timeout(limit, transport.secure()) => shaken,
            () = self.crowded(client, slot) => return false,
            () = self.stop.soon.cancelled() => return false,
        };
        let error = match shaken {
            Ok(Ok(secured)) => {
                client.secured = Some(Box::new(secured));
                return true;
            }
            Ok(Err(error)) => error,
            Err(_) => {
                report::count(Limit::TlsHandshake);
                io::ErrorKind::TimedOut.into()
            }
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

    /// Finds out whose connection it is, and whether that client may have one more.
    async fn identify(
        &self,
        mut stream: TcpStream,
        mut client: Client,
        mut slot: Slot,
        service: &Service,
        listen: &Listen,
    ) -> Option<(TcpStream, Client, Slot)> {
        let peer = client.remote?;
        if listen.proxy_from.contains(peer.ip()) {
            let proxied = tokio::select! {
                proxied = self.proxied(&mut stream, service) => proxied,
                () = self.crowded(&client, &slot) => None,
            };
            match proxied {
                Some(Ok(Header::Own)) => {}
                Some(Ok(Header::Passed { client: remote, to })) => {
                    client.remote = Some(canonical(remote));
                    client.local = Some(canonical(to));
                }
                Some(Err(error)) => {
                    if matches!(error, ProxyError::Late) {
                        report::count(Limit::ProxyHeader);
                    }
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
            Ok(connections) => {
                client.connections = connections;
                client.may_xclient = listen.xclient_from.contains(remote.ip());
                client.may_xforward = listen.xforward_from.contains(remote.ip());
                Some((stream, client, slot))
            }
            Err(full) => {
                turn_away(
                    |text| stream.try_write(text),
                    &client.session,
                    &remote,
                    full,
                    listen,
                );
                None
            }
        }
    }

    /// Waits until a connection that has not come to its conversation yet is to make room.
    async fn crowded(&self, client: &Client, slot: &Slot) {
        let _waiting = slot.seat().wait(Instant::now());
        slot.seat().leave().await;
        report::count(Limit::StressTimeout);
        let remote = client.remote.map(|remote| remote.to_string());
        let text = format_args!(
            "{} cut off: silent while there were too many connections",
            remote.as_deref().unwrap_or("a client")
        );
        let hook = Some(Hook::Connect);
        report::line(Level::Info, &client.session, hook, LOGGED_AS, text);
    }

    /// How the conversation that has a slot is told to stop.
    fn stop_of(&self, slot: &Slot) -> Stop {
        Stop {
            seat: Arc::clone(slot.seat()),
            ..self.stop.clone()
        }
    }

    /// The PROXY header at the beginning of a connection. `None`: we are to stop.
    async fn proxied(
        &self,
        stream: &mut TcpStream,
        service: &Service,
    ) -> Option<Result<Header, ProxyError>> {
        let limit = service.shared.config.limits.command_timeout;
        let header = tokio::time::timeout(limit.min(PROXY_TIMEOUT), proxy::read(stream));
        tokio::select! {
            () = self.stop.soon.cancelled() => None,
            header = header => Some(header.unwrap_or(Err(ProxyError::Late))),
        }
    }
}

fn dialect(listen: &Listen) -> &'static Dialect {
    match listen.protocol {
        MailProtocol::Smtp => &SMTP,
        MailProtocol::Lmtp => &LMTP,
    }
}

fn turn_away(
    try_write: impl Fn(&[u8]) -> io::Result<usize>,
    session: &str,
    who: &dyn Display,
    full: Full,
    listen: &Listen,
) {
    report::count(full.limit());
    let text = format_args!("{who} turned away: {full}");
    report::line(Level::Info, session, Some(Hook::Connect), LOGGED_AS, text);
    // Where TLS is to come first, a word in the clear would only confuse.
    if listen.tls == ListenTls::Implicit {
        return;
    }
    // A fresh connection takes one line without waiting; if not, the client learns the same from its closing.
    let _ = try_write(format!("421 4.7.0 {full}; try again later\r\n").as_bytes());
}

/// IPv4 clients of an IPv6 socket are IPv4 clients.
fn canonical(addr: SocketAddr) -> SocketAddr {
    SocketAddr::new(addr.ip().to_canonical(), addr.port())
}

#[cfg(test)]
mod tests;
