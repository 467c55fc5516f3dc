//! Drives a plugin without a server, for the tests of those who write one.
//!
//! ```
//! # use gatepost_protocol::*;
//! # use gatepost_protocol::testing::PluginTest;
//! # struct Vip;
//! # impl Plugin for Vip {
//! #     fn subscriptions(&self) -> Vec<Subscription> { vec![Subscription::to(Hook::Rcpt, &[])] }
//! #     fn call<'a>(&'a self, call: &'a Call<'a>) -> Answer<'a> {
//! #         match call.args.address() {
//! #             Some(address) if address.local() == "nobody" => Outcome::fail("no such user here").into(),
//! #             _ => Outcome::declined().into(),
//! #         }
//! #     }
//! # }
//! # const VIP: Definition = Definition { name: "vip", about: "", settings: Vec::new, build: |_| Ok(std::sync::Arc::new(Vip)) };
//! # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
//! let mut test = PluginTest::new(&VIP, &[]).unwrap();
//! let outcome = test.rcpt("nobody@example.org").await;
//! assert_eq!(outcome.disposition, Some(Disposition::Fail));
//! # });
//! ```

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;

use crate::address::AddressError;
use crate::outcome::{Answer, BoxFuture, Outcome};
use crate::plugin::{Call, Definition, Init, Plugin};
use crate::services::{
    DnsAnswer, DnsStatus, Message, RecordType, ServiceError, Services, Validity,
};
use crate::session::{Args, Session};
use crate::settings::{SettingError, Settings};
use crate::{Address, Departure, HeaderBlock, Hook, Level, Value};

/// A plugin, a session to show it, and a core that answers from memory.
pub struct PluginTest {
    /// What the plugin is shown. Its changes are applied to it, as the core would.
    pub session: Session,
    /// What the plugin is answered when it asks the core.
    pub services: Arc<FakeServices>,
    /// Whether the client hung up.
    pub departure: Arc<Departure>,
    plugin: Arc<dyn Plugin>,
    message: MemoryMessage,
}

impl PluginTest {
    /// A plugin with these settings, or what is wrong with them.
    pub fn new(
        definition: &Definition,
        settings: &[(&str, Value)],
    ) -> Result<PluginTest, Vec<SettingError>> {
        let given = settings
            .iter()
            .map(|(key, value)| ((*key).to_owned(), value.clone()))
            .collect();
        let services = Arc::new(FakeServices::default());
        let plugin = (definition.build)(Init {
            name: definition.name.to_owned(),
            source: None,
            settings: Settings::check(&(definition.settings)(), &given)?,
            hostname: "mx.example.org".to_owned(),
            services: services.clone(),
            scratch_dir: None,
        })?;
        let mut session = Session {
            id: "test".into(),
            ..Session::default()
        };
        session.connection.remote = Some(([192, 0, 2, 1], 54321).into());
        session.connection.local = Some(([192, 0, 2, 25], 25).into());
        Ok(PluginTest {
            session,
            services,
            departure: Arc::default(),
            plugin,
            message: MemoryMessage(Bytes::new()),
        })
    }

    /// Puts a hook to the plugin, waits for its answer, deferred or not, and applies its changes.
    ///
    /// # Panics
    /// Where a change is one that the core would refuse.
    pub async fn call(&mut self, hook: Hook, args: Args<'_>) -> Outcome {
        let mut outcome = {
            let message: Option<&dyn Message> = if hook.has_message() {
                Some(&self.message)
            } else {
                None
            };
            let call = Call {
                hook,
                session: &self.session,
                args: &args,
                message,
                deadline: Duration::from_secs(30),
                settings: None,
                departure: &self.departure,
            };
            match self.plugin.call(&call) {
                Answer::Now(outcome) => outcome,
                Answer::Later(answer) => answer.await,
            }
        };
        if let Some(deferred) = outcome.defer.take() {
            outcome = deferred.outcome.await;
        }
        for change in &outcome.changes {
            if let Err(error) = change.apply(&mut self.session, "test") {
                panic!("the core would refuse this: {error}");
            }
        }
        outcome
    }

    /// `mail` with a sender; the empty text is the null sender.
    ///
    /// # Panics
    /// Where the text is no address.
    pub async fn mail(&mut self, sender: &str) -> Outcome {
        let address = address(sender);
        let outcome = self.call(Hook::Mail, address_args(&address)).await;
        self.session.transaction.sender = Some(address);
        outcome
    }

    /// `rcpt` with a recipient.
    ///
    /// # Panics
    /// Where the text is no address.
    pub async fn rcpt(&mut self, recipient: &str) -> Outcome {
        let address = address(recipient);
        let outcome = self.call(Hook::Rcpt, address_args(&address)).await;
        self.session.transaction.recipients.push(address);
        outcome
    }

    /// `data_post` with a message as it came over the wire, CRLF and all.
    pub async fn data_post(&mut self, message: &[u8]) -> Outcome {
        self.set_message(message);
        self.call(Hook::DataPost, Args::None).await
    }

    /// The message at hand for the hooks that have one.
    pub fn set_message(&mut self, message: &[u8]) {
        let (header_end, body_start) =
            HeaderBlock::find_end(message, 0).unwrap_or((message.len(), message.len()));
        let transaction = &mut self.session.transaction;
        transaction.size = message.len() as u64;
        transaction.header_end = header_end as u64;
        transaction.body_start = body_start as u64;
        transaction.header = Some(HeaderBlock::parse(Bytes::copy_from_slice(
            &message[..header_end],
        )));
        self.message = MemoryMessage(Bytes::copy_from_slice(message));
    }
}

fn address(text: &str) -> Address {
    let parsed: Result<Address, AddressError> = Address::parse(text);
    parsed.unwrap_or_else(|error| panic!("`{text}` is no address: {error}"))
}

fn address_args(address: &Address) -> Args<'_> {
    Args::Address {
        address: Cow::Borrowed(address),
        parameters: Cow::Owned(BTreeMap::new()),
    }
}

/// A message in memory.
pub struct MemoryMessage(pub Bytes);

impl Message for MemoryMessage {
    fn size(&self) -> u64 {
        self.0.len() as u64
    }

    fn read(&self, offset: u64, length: usize) -> BoxFuture<'_, std::io::Result<Bytes>> {
        let start = usize::try_from(offset)
            .unwrap_or(usize::MAX)
            .min(self.0.len());
        let end = start.saturating_add(length).min(self.0.len());
        let slice = self.0.slice(start..end);
        Box::pin(async move { Ok(slice) })
    }
}

/// A core that answers from memory.
#[derive(Default)]
pub struct FakeServices {
    dns: Mutex<HashMap<(String, RecordType), Result<DnsAnswer, ServiceError>>>,
    files: Mutex<HashMap<String, Vec<String>>>,
    recipients: Mutex<HashMap<String, Result<Validity, ServiceError>>>,
    state: Mutex<HashMap<String, Vec<u8>>>,
    log: Mutex<Vec<String>>,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl FakeServices {
    /// From now on the DNS has these records. What it was not given does not exist.
    pub fn set_dns(&self, name: &str, kind: RecordType, records: &[&str]) {
        let records: Vec<String> = records.iter().map(|record| (*record).to_owned()).collect();
        let status = if records.is_empty() {
            DnsStatus::NoRecords
        } else {
            DnsStatus::Found
        };
        lock(&self.dns).insert((absolute(name), kind), Ok(DnsAnswer { status, records }));
    }

    /// From now on the DNS does not answer for this name.
    pub fn break_dns(&self, name: &str, kind: RecordType) {
        let error = ServiceError::temporary("the name server does not answer");
        lock(&self.dns).insert((absolute(name), kind), Err(error));
    }

    /// From now on a flat file has these lines.
    pub fn set_file(&self, name: &str, lines: &[&str]) {
        lock(&self.files).insert(
            name.to_owned(),
            lines.iter().map(|line| (*line).to_owned()).collect(),
        );
    }

    /// From now on this is said of an address; of others nobody knows.
    pub fn set_recipient(&self, address: &str, answer: Result<Validity, ServiceError>) {
        lock(&self.recipients).insert(address.to_lowercase(), answer);
    }

    /// What plugins have logged, as `plugin: level: message`.
    pub fn logged(&self) -> Vec<String> {
        lock(&self.log).clone()
    }
}

fn absolute(name: &str) -> String {
    format!("{}.", name.trim_end_matches('.').to_ascii_lowercase())
}

fn ready<T: Send + 'static>(value: T) -> BoxFuture<'static, T> {
    Box::pin(std::future::ready(value))
}

impl Services for FakeServices {
    fn log(&self, plugin: &str, level: Level, message: &str) {
        lock(&self.log).push(format!("{plugin}: {}: {message}", level.name()));
    }

    fn dns(
        &self,
        name: &str,
        kind: RecordType,
    ) -> BoxFuture<'static, Result<DnsAnswer, ServiceError>> {
        let known = lock(&self.dns).get(&(absolute(name), kind)).cloned();
        let nothing = DnsAnswer {
            status: DnsStatus::NoSuchName,
            records: Vec::new(),
        };
        ready(known.unwrap_or(Ok(nothing)))
    }

    fn config(&self, name: &str) -> BoxFuture<'static, Result<Vec<String>, ServiceError>> {
        ready(Ok(lock(&self.files).get(name).cloned().unwrap_or_default()))
    }

    fn recipient_valid(
        &self,
        address: &Address,
    ) -> BoxFuture<'static, Result<Validity, ServiceError>> {
        let known = lock(&self.recipients).get(&address.to_lowercase()).cloned();
        ready(known.unwrap_or(Ok(Validity::Unknown)))
    }

    fn state_get(&self, key: &str) -> BoxFuture<'static, Result<Option<Vec<u8>>, ServiceError>> {
        ready(Ok(lock(&self.state).get(key).cloned()))
    }

    fn state_set(
        &self,
        key: &str,
        value: Vec<u8>,
        _ttl: Option<Duration>,
    ) -> BoxFuture<'static, Result<(), ServiceError>> {
        lock(&self.state).insert(key.to_owned(), value);
        ready(Ok(()))
    }

    fn state_add(
        &self,
        key: &str,
        add: i64,
        _ttl: Option<Duration>,
    ) -> BoxFuture<'static, Result<i64, ServiceError>> {
        let mut state = lock(&self.state);
        let old = state
            .get(key)
            .and_then(|value| std::str::from_utf8(value).ok()?.parse::<i64>().ok());
        let sum = old.unwrap_or_default().saturating_add(add);
        state.insert(key.to_owned(), sum.to_string().into_bytes());
        ready(Ok(sum))
    }

    fn state_delete(&self, key: &str) -> BoxFuture<'static, Result<(), ServiceError>> {
        lock(&self.state).remove(key);
        ready(Ok(()))
    }
}
