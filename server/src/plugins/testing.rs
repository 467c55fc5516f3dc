//! For the tests of plugins: services without a daemon, and short ways to make sessions and calls.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use gatepost_protocol::{
    Address, Answer, Args, Bounce, BoxFuture, Call, Change, Departure, Disposition, DnsAnswer,
    DnsStatus, HeaderBlock, Hook, Init, Level, Message, Outcome, Plugin, RecordType, ServiceError,
    Services, Session, Settings, Submission, Validity, Value,
};

/// What the DNS says in a test.
pub enum Dns {
    Records(Vec<String>),
    NoRecords,
    Broken,
}

/// Services that know what a test told them. Names the DNS was not told of do not exist.
#[derive(Default)]
pub struct FakeServices {
    files: Mutex<HashMap<String, Vec<String>>>,
    dns: Mutex<HashMap<(String, &'static str), Dns>>,
    asked: Mutex<Vec<String>>,
    read: Mutex<BTreeSet<String>>,
    recipients: Mutex<HashMap<String, Result<Validity, ServiceError>>>,
    logged: Mutex<Vec<String>>,
}

impl FakeServices {
    pub fn new() -> Arc<FakeServices> {
        Arc::default()
    }

    /// Sets a flat file's lines.
    pub fn file(&self, name: &str, lines: &[&str]) {
        let lines = lines.iter().map(|line| (*line).to_owned()).collect();
        self.files.lock().unwrap().insert(name.to_owned(), lines);
    }

    /// Sets records of a name.
    pub fn records(&self, name: &str, kind: RecordType, records: &[&str]) {
        let records = records.iter().map(|record| (*record).to_owned()).collect();
        self.answer(name, kind, Dns::Records(records));
    }

    /// Sets what the DNS says of a name.
    pub fn answer(&self, name: &str, kind: RecordType, answer: Dns) {
        let key = (name.to_owned(), type_name(kind));
        self.dns.lock().unwrap().insert(key, answer);
    }

    /// Sets what is said of an address.
    pub fn recipient(&self, address: &str, answer: Result<Validity, ServiceError>) {
        let mut recipients = self.recipients.lock().unwrap();
        recipients.insert(address.to_lowercase(), answer);
    }

    /// The questions that were put to the DNS, sorted.
    pub fn asked(&self) -> Vec<String> {
        let mut asked = self.asked.lock().unwrap().clone();
        asked.sort();
        asked
    }

    /// The names of the flat files that were read.
    pub fn read(&self) -> BTreeSet<String> {
        self.read.lock().unwrap().clone()
    }

    /// The lines that were logged.
    pub fn logged(&self) -> Vec<String> {
        self.logged.lock().unwrap().clone()
    }
}

const fn type_name(kind: RecordType) -> &'static str {
    match kind {
        RecordType::A => "A",
        RecordType::Aaaa => "AAAA",
        RecordType::Mx => "MX",
        RecordType::Txt => "TXT",
        RecordType::Ptr => "PTR",
        RecordType::Ns => "NS",
        RecordType::Cname => "CNAME",
    }
}

impl Services for FakeServices {
    fn log(&self, plugin: &str, level: Level, message: &str) {
        let line = format!("{plugin} {} {message}", level.name());
        self.logged.lock().unwrap().push(line);
    }

    fn dns(
        &self,
        name: &str,
        kind: RecordType,
    ) -> BoxFuture<'static, Result<DnsAnswer, ServiceError>> {
        let kind = type_name(kind);
        self.asked.lock().unwrap().push(format!("{kind} {name}"));
        let answer = match self.dns.lock().unwrap().get(&(name.to_owned(), kind)) {
            Some(Dns::Records(records)) => Ok((DnsStatus::Found, records.clone())),
            Some(Dns::NoRecords) => Ok((DnsStatus::NoRecords, Vec::new())),
            Some(Dns::Broken) => Err(ServiceError::temporary(format!(
                "DNS: {kind} {name}: no answer"
            ))),
            None => Ok((DnsStatus::NoSuchName, Vec::new())),
        };
        Box::pin(async move {
            // As with a real server, the answer is never there at once.
            tokio::task::yield_now().await;
            answer.map(|(status, records)| DnsAnswer { status, records })
        })
    }

    fn config(&self, name: &str) -> BoxFuture<'static, Result<Vec<String>, ServiceError>> {
        self.read.lock().unwrap().insert(name.to_owned());
        let lines = self.files.lock().unwrap().get(name).cloned();
        Box::pin(std::future::ready(Ok(lines.unwrap_or_default())))
    }

    fn recipient_valid(
        &self,
        address: &Address,
    ) -> BoxFuture<'static, Result<Validity, ServiceError>> {
        let known = self
            .recipients
            .lock()
            .unwrap()
            .get(&address.to_lowercase())
            .cloned();
        Box::pin(std::future::ready(known.unwrap_or(Ok(Validity::Unknown))))
    }

    fn state_get(&self, _: &str) -> BoxFuture<'static, Result<Option<Vec<u8>>, ServiceError>> {
        panic!("no built-in keeps state")
    }

    fn state_set(
        &self,
        _: &str,
        _: Vec<u8>,
        _: Option<Duration>,
    ) -> BoxFuture<'static, Result<(), ServiceError>> {
        panic!("no built-in keeps state")
    }

    fn state_add(
        &self,
        _: &str,
        _: i64,
        _: Option<Duration>,
    ) -> BoxFuture<'static, Result<i64, ServiceError>> {
        panic!("no built-in keeps state")
    }

    fn state_delete(&self, _: &str) -> BoxFuture<'static, Result<(), ServiceError>> {
        panic!("no built-in keeps state")
    }

    fn submit(&self, _: Submission) -> BoxFuture<'static, Result<String, ServiceError>> {
        panic!("no built-in sends mail")
    }

    fn bounce(&self, _: Bounce) -> BoxFuture<'static, Result<Option<String>, ServiceError>> {
        panic!("no built-in sends mail")
    }
}

/// Settings as a test gives them.
pub trait Given<'a>: IntoIterator<Item = (&'a str, Value)> {}
impl<'a, T: IntoIterator<Item = (&'a str, Value)>> Given<'a> for T {}

/// What a plugin called `test` is made from, with these settings as they are.
pub fn init<'a>(services: &Arc<FakeServices>, settings: impl Given<'a>) -> Init {
    let settings = settings.into_iter();
    let values: BTreeMap<String, Value> = settings
        .map(|(key, value)| (key.to_owned(), value))
        .collect();
    Init {
        name: "test".to_owned(),
        source: None,
        settings: Settings::unchecked(values),
        hostname: "mx.example.org".to_owned(),
        services: Arc::clone(services) as Arc<dyn Services>,
        scratch_dir: None,
    }
}

/// A plugin of a kind, with its settings checked and defaults filled in.
pub fn plugin<'a>(
    definition: &gatepost_protocol::Definition,
    services: &Arc<FakeServices>,
    settings: impl Given<'a>,
) -> Arc<dyn Plugin> {
    built(definition, services, settings).unwrap_or_else(|errors| panic!("{errors:?}"))
}

/// The same, or what is wrong with the settings.
pub fn built<'a>(
    definition: &gatepost_protocol::Definition,
    services: &Arc<FakeServices>,
    settings: impl Given<'a>,
) -> gatepost_protocol::Built {
    let mut init = init(services, settings);
    init.settings = Settings::check(&(definition.settings)(), init.settings.values())?;
    (definition.build)(init)
}

/// A session with a client.
pub fn session(remote: &str) -> Session {
    let mut session = Session::default();
    session.connection.remote = Some(std::net::SocketAddr::new(remote.parse().unwrap(), 40_000));
    session
}

/// Puts a hook to a plugin. It must have subscribed to it.
pub async fn ask(
    plugin: &Arc<dyn Plugin>,
    hook: Hook,
    session: &Session,
    args: Args<'_>,
) -> Outcome {
    ask_with(plugin, hook, session, args, None).await
}

/// The same, with a message at hand.
pub async fn ask_with(
    plugin: &Arc<dyn Plugin>,
    hook: Hook,
    session: &Session,
    args: Args<'_>,
    message: Option<&dyn Message>,
) -> Outcome {
    let subscribed = plugin.subscriptions();
    assert!(
        subscribed
            .iter()
            .any(|subscription| subscription.hook == hook),
        "not subscribed to {hook}"
    );
    let call = Call {
        hook,
        session,
        args: &args,
        message,
        deadline: Duration::from_secs(30),
        settings: None,
        departure: &Departure::new(),
        speech: None,
    };
    answer(plugin, &call).await
}

/// Puts `queue` to a plugin, for a client that may hang up.
pub async fn queue(
    plugin: &Arc<dyn Plugin>,
    session: &Session,
    message: &dyn Message,
    departure: &Departure,
) -> Outcome {
    let call = Call {
        hook: Hook::Queue,
        session,
        args: &Args::None,
        message: Some(message),
        deadline: Duration::from_secs(30),
        settings: None,
        departure,
        speech: None,
    };
    answer(plugin, &call).await
}

async fn answer(plugin: &Arc<dyn Plugin>, call: &Call<'_>) -> Outcome {
    match plugin.call(call) {
        Answer::Now(outcome) => outcome,
        Answer::Later(outcome) => outcome.await,
    }
}

/// `mail` and `rcpt`.
pub async fn ask_address(
    plugin: &Arc<dyn Plugin>,
    hook: Hook,
    session: &Session,
    address: &str,
) -> Outcome {
    let address = Address::parse(address).unwrap();
    let args = Args::Address {
        address: std::borrow::Cow::Owned(address),
        parameters: std::borrow::Cow::Owned(BTreeMap::new()),
    };
    ask(plugin, hook, session, args).await
}

/// As the log shows it: disposition and sentence.
pub fn line(outcome: &Outcome) -> String {
    let disposition = match outcome.disposition {
        Some(Disposition::Pass) => "pass",
        Some(Disposition::Fail) => "fail",
        Some(Disposition::Skip) => "skip",
        Some(Disposition::Error) => "error",
        None => "-",
    };
    match outcome.message.as_str() {
        "" => disposition.to_owned(),
        message => format!("{disposition}, {message}"),
    }
}

/// The sum of what an outcome adds to the karma.
pub fn karma(outcome: &Outcome) -> i64 {
    let added = outcome.changes.iter().map(|change| match change {
        Change::Karma { add } => *add,
        _ => 0,
    });
    added.sum()
}

/// Makes an outcome's changes, as the core does.
pub fn apply(outcome: &Outcome, session: &mut Session) {
    for change in &outcome.changes {
        change.apply(session, "test").unwrap();
    }
}

/// A message in memory.
pub struct TestMessage(pub Bytes);

impl Message for TestMessage {
    fn size(&self) -> u64 {
        self.0.len() as u64
    }

    fn read(&self, offset: u64, length: usize) -> BoxFuture<'_, std::io::Result<Bytes>> {
        let start = (offset as usize).min(self.0.len());
        let end = (start + length).min(self.0.len());
        Box::pin(std::future::ready(Ok(self.0.slice(start..end))))
    }
}

/// A session in `data_post` or later with this message, and the message.
pub fn with_message(mut session: Session, message: &[u8]) -> (Session, TestMessage) {
    let bytes = Bytes::copy_from_slice(message);
    let (header_end, body_start) =
        HeaderBlock::find_end(message, 0).unwrap_or((message.len(), message.len()));
    let transaction = &mut session.transaction;
    transaction.number = 1;
    transaction.size = bytes.len() as u64;
    transaction.header = Some(HeaderBlock::parse(bytes.slice(..header_end)));
    transaction.header_end = header_end as u64;
    transaction.body_start = body_start as u64;
    (session, TestMessage(bytes))
}
