//! A plugin process that a test plays itself, frame by frame, over a socket.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use gatepost_protocol::channel::{FrameReader, FrameWriter, Sink};
use gatepost_protocol::frame::{self, Kind};
use gatepost_protocol::outcome::BoxFuture;
use gatepost_protocol::services::{DnsStatus, ServiceErrorCode};
use gatepost_protocol::wire::{
    Entry, Hello, HookMessage, Init, Ready, ReadyHook, ReadyPlugin, ResultMessage,
};
use gatepost_protocol::{
    Address, Args, Bounce, Call, Departure, DnsAnswer, Hook, Level, Message, PROTOCOL, Policy,
    RecordType, ServiceError, Services, Session, Submission, VERSION, Validity, Value,
};
use tempfile::TempDir;
use tokio::net::UnixListener;
use tokio::net::unix::OwnedReadHalf;

use super::super::{Core, Patience, Process, Processes, StartError, Started};
use crate::config::{Location, PluginConfig, PluginKind, Source, Spans};

pub(super) const ALL: &[&str] = &[
    "cancel",
    "defer",
    "segments",
    "settings",
    "fork",
    "then",
    "unfinished",
];

/// Longer than anything takes here.
pub(super) const LONG: Duration = Duration::from_secs(10);

/// What the process says of itself.
pub(super) struct Says {
    pub(super) features: &'static [&'static str],
    pub(super) ready: Ready,
}

/// Plugins and the hooks they take part in.
pub(super) fn ready(concurrency: u32, plugins: &[(&str, &[ReadyHook])]) -> Ready {
    let plugins = plugins.iter().map(|(name, hooks)| ReadyPlugin {
        name: (*name).to_owned(),
        hooks: hooks.to_vec(),
        ..ReadyPlugin::default()
    });
    Ready {
        concurrency,
        plugins: plugins.collect(),
    }
}

pub(super) fn hook(name: &str) -> ReadyHook {
    ReadyHook {
        hook: name.to_owned(),
        ..ReadyHook::default()
    }
}

pub(super) fn map<const N: usize>(entries: [(&str, Value); N]) -> Value {
    Value::Map(entries.map(|(key, value)| (key.to_owned(), value)).into())
}

/// A socket that a plugin process is expected at.
pub(super) struct Fake {
    listener: UnixListener,
    folder: TempDir,
}

/// The process at the other end of one connection.
pub(super) struct Peer {
    reader: FrameReader<OwnedReadHalf>,
    writer: FrameWriter,
    pub(super) init: Init,
}

/// A process that was started, and the other end of it.
pub(super) struct Pair {
    pub(super) fake: Fake,
    pub(super) peer: Peer,
    pub(super) processes: Processes,
    pub(super) started: Vec<Started>,
}

impl Pair {
    pub(super) fn process(&self) -> &Arc<Process> {
        &self.started[0].process
    }
}

impl Fake {
    pub(super) fn new() -> Fake {
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join("socket")).unwrap();
        Fake { listener, folder }
    }

    pub(super) fn plugin(&self, name: &str) -> PluginConfig {
        attached(name, &self.folder.path().join("socket"))
    }

    /// Accepts a connection and says `hello`.
    pub(super) async fn greet(&self, hello: Hello) -> Peer {
        let (stream, _) = self.listener.accept().await.unwrap();
        let (source, sink) = stream.into_split();
        let peer = Peer {
            reader: FrameReader::new(source),
            writer: FrameWriter::new(Sink::Unix(sink)),
            init: Init {
                hostname: String::new(),
                worker: 0,
                scratch_dir: None,
                dns_server: None,
                plugins: Vec::new(),
            },
        };
        peer.send(&hello);
        peer
    }

    /// Accepts a connection and goes as far as `init`.
    pub(super) async fn accept(&self, features: &[&str]) -> Peer {
        let hello = Hello {
            protocol: PROTOCOL.to_owned(),
            version: VERSION.to_vec(),
            server: None,
            sdk: None,
            features: features.iter().map(|name| (*name).to_owned()).collect(),
            max_frame: None,
        };
        let mut peer = self.greet(hello).await;
        let hello: Hello = peer.next("hello").await;
        assert_eq!(hello.features, ALL);
        peer.init = peer.next("init").await;
        peer
    }

    pub(super) async fn serve(&self, says: &Says) -> Peer {
        let peer = self.accept(says.features).await;
        peer.send(&says.ready);
        peer
    }

    /// Plays the other side of a start.
    pub(super) async fn start(
        self,
        names: &[&str],
        says: &Says,
        services: Arc<dyn Services>,
    ) -> Result<Pair, Vec<StartError>> {
        let plugins: Vec<PluginConfig> = names.iter().map(|name| self.plugin(name)).collect();
        let core = core(services);
        let (started, peer) = tokio::join!(Processes::start(&plugins, &core), self.serve(says));
        let (processes, started) = started?;
        Ok(Pair {
            fake: self,
            peer,
            processes,
            started,
        })
    }
}

/// One plugin `vip` at a hook, with everything both sides can do.
pub(super) async fn vip(hooks: &[ReadyHook]) -> Pair {
    able(ALL, &["vip"], hooks).await
}

/// Plugins at the same hooks, in a process that can do this.
pub(super) async fn able(
    features: &'static [&'static str],
    names: &[&str],
    hooks: &[ReadyHook],
) -> Pair {
    let plugins: Vec<_> = names.iter().map(|name| (*name, hooks)).collect();
    let says = Says {
        features,
        ready: ready(8, &plugins),
    };
    let started = Fake::new().start(names, &says, Arc::new(Desk::default()));
    started.await.unwrap()
}

impl Peer {
    pub(super) fn send<T: Kind>(&self, message: &T) {
        self.writer.send(&frame::encode(message).unwrap()).unwrap();
    }

    /// Sends a message, and hangs up when it is out.
    pub(super) async fn say_last<T: Kind>(self, message: &T) {
        self.send(message);
        tokio::select! {
            _ = self.writer.flush() => {}
            () = until("the last message to go out", || self.writer.waiting() == 0) => {}
        }
    }

    /// The next message, which is to be of this kind.
    pub(super) async fn next<T: Kind>(&mut self, kind: &str) -> T {
        let payload = tokio::time::timeout(LONG, self.reader.next()).await;
        let payload = payload.expect("a message in time").unwrap().unwrap();
        assert_eq!(payload.kind(), kind);
        payload.decode().unwrap()
    }

    /// The kind of the next message.
    pub(super) async fn next_kind(&mut self) -> String {
        let payload = tokio::time::timeout(LONG, self.reader.next()).await;
        let payload = payload.expect("a message in time").unwrap().unwrap();
        payload.kind().to_owned()
    }

    pub(super) async fn hook(&mut self) -> HookMessage<'static> {
        self.next("hook").await
    }

    /// Nothing comes in a while.
    pub(super) async fn is_quiet(&mut self) -> bool {
        let next = tokio::time::timeout(Duration::from_millis(50), self.reader.next());
        next.await.is_err()
    }

    /// The channel comes to its end.
    pub(super) async fn ends(&mut self) {
        let end = tokio::time::timeout(LONG, self.reader.next()).await;
        assert!(!matches!(end.expect("an end in time"), Ok(Some(_))));
    }

    pub(super) fn answer(&self, id: Option<u64>, results: Vec<Entry>) {
        self.answer_both(id, results, None);
    }

    /// The answer to a hook, and to the one that came then.
    pub(super) fn answer_both(
        &self,
        id: Option<u64>,
        results: Vec<Entry>,
        then: Option<Vec<Entry>>,
    ) {
        let id = id.unwrap();
        self.send(&ResultMessage { id, results, then });
    }
}

/// An entry with nothing but a message.
pub(super) fn said(plugin: &str, message: &str) -> Entry {
    Entry {
        plugin: plugin.to_owned(),
        message: Some(message.to_owned()),
        ..Entry::default()
    }
}

pub(super) fn core(services: Arc<dyn Services>) -> Core {
    Core {
        hostname: "mx.example.org".to_owned(),
        spool_dir: std::env::temp_dir(),
        dns_server: Some(([192, 0, 2, 53], 5353).into()),
        services,
        patience: Patience {
            owed: Duration::from_millis(100),
            backoff: (Duration::from_millis(10), Duration::from_millis(100)),
            ..Patience::default()
        },
    }
}

pub(super) fn attached(name: &str, socket: &Path) -> PluginConfig {
    PluginConfig {
        name: name.into(),
        kind: PluginKind::Attach(socket.to_owned()),
        source: Source {
            args: vec!["argument".to_owned()],
            ..Source::default()
        },
        settings: BTreeMap::from([("colour".to_owned(), Value::from("red"))]),
        policy: Policy::default(),
        loglevel: None,
        timeout: None,
        spans: Spans::default(),
        shadow: Default::default(),
        when: None,
        location: Location {
            file: Path::new("gatepost.toml").into(),
            line: 1,
            column: 1,
        },
    }
}

pub(super) fn session(id: &str) -> Session {
    Session {
        id: id.into(),
        ..Session::default()
    }
}

pub(super) fn call<'a>(hook: Hook, session: &'a Session, deadline: Duration) -> Call<'a> {
    Call {
        hook,
        session,
        args: &Args::None,
        message: None,
        deadline,
        settings: None,
        departure: &THERE,
        speech: None,
    }
}

/// The client of a call that was given no other.
static THERE: Departure = Departure::new();

/// A message of these bytes.
pub(super) struct Bytes(pub(super) &'static [u8]);

impl Message for Bytes {
    fn size(&self) -> u64 {
        self.0.len() as u64
    }

    fn read(&self, offset: u64, length: usize) -> BoxFuture<'_, std::io::Result<bytes::Bytes>> {
        let from = usize::try_from(offset).unwrap().min(self.0.len());
        let to = (from + length).min(self.0.len());
        Box::pin(async move { Ok(bytes::Bytes::from_static(&self.0[from..to])) })
    }
}

/// A core that answers from memory.
#[derive(Default)]
pub(super) struct Desk {
    state: Mutex<BTreeMap<String, Vec<u8>>>,
}

fn now<T: Send + 'static>(
    answer: Result<T, ServiceError>,
) -> BoxFuture<'static, Result<T, ServiceError>> {
    Box::pin(async { answer })
}

impl Services for Desk {
    fn log(&self, _plugin: &str, _level: Level, _message: &str) {}

    fn dns(
        &self,
        name: &str,
        kind: RecordType,
    ) -> BoxFuture<'static, Result<DnsAnswer, ServiceError>> {
        now(match (name, kind) {
            ("mx.example.org.", RecordType::A) => Ok(DnsAnswer {
                status: DnsStatus::Found,
                records: vec!["192.0.2.25".to_owned()],
            }),
            ("never.example.org.", _) => return Box::pin(std::future::pending()),
            _ => Err(ServiceError::temporary("no server answers")),
        })
    }

    fn config(&self, name: &str) -> BoxFuture<'static, Result<Vec<String>, ServiceError>> {
        now(Ok(vec![format!("line of {name}")]))
    }

    fn recipient_valid(
        &self,
        address: &Address,
    ) -> BoxFuture<'static, Result<Validity, ServiceError>> {
        now(match address.as_str() {
            "bob@example.org" => Ok(Validity::Valid),
            "away@example.org" => Err(ServiceError::temporary("no server answers")),
            _ => Ok(Validity::Unknown),
        })
    }

    fn state_get(&self, key: &str) -> BoxFuture<'static, Result<Option<Vec<u8>>, ServiceError>> {
        now(Ok(self.state.lock().unwrap().get(key).cloned()))
    }

    fn state_set(
        &self,
        key: &str,
        value: Vec<u8>,
        ttl: Option<Duration>,
    ) -> BoxFuture<'static, Result<(), ServiceError>> {
        assert_eq!(ttl, Some(Duration::from_millis(1500)));
        self.state.lock().unwrap().insert(key.to_owned(), value);
        now(Ok(()))
    }

    fn state_add(
        &self,
        _key: &str,
        add: i64,
        _ttl: Option<Duration>,
    ) -> BoxFuture<'static, Result<i64, ServiceError>> {
        now(Ok(40 + add))
    }

    fn state_delete(&self, key: &str) -> BoxFuture<'static, Result<(), ServiceError>> {
        self.state.lock().unwrap().remove(key);
        now(Err(ServiceError::new(
            ServiceErrorCode::Failed,
            "the disk is full",
        )))
    }

    fn submit(&self, submission: Submission) -> BoxFuture<'static, Result<String, ServiceError>> {
        let recipients: Vec<&str> = submission.recipients.iter().map(Address::as_str).collect();
        now(Ok(format!(
            "{} to {}: {}",
            submission.sender,
            recipients.join(","),
            submission.message.escape_ascii()
        )))
    }

    fn bounce(&self, bounce: Bounce) -> BoxFuture<'static, Result<Option<String>, ServiceError>> {
        let enhanced = bounce.enhanced.map(|code| code.to_string());
        now(Ok((!bounce.sender.is_null()).then(|| {
            let (to, about) = (bounce.sender.as_str(), bounce.recipient.as_str());
            let (code, enhanced) = (bounce.code, enhanced.unwrap_or_default());
            format!("{to} about {about}: {code} {enhanced} {}", bounce.text)
        })))
    }
}

/// Waits until something holds.
pub(super) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let waiting = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    assert!(tokio::time::timeout(LONG, waiting).await.is_ok(), "{what}");
}
