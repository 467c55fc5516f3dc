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
pub use crate::services::MemoryMessage;
use crate::services::{
    Bounce, DnsAnswer, DnsStatus, Message, RecordType, ServiceError, Services, Submission, Validity,
};
use crate::session::{Args, Session};
use crate::settings::{SettingError, Settings};
use crate::{Address, Departure, HeaderBlock, Hook, Level, Speech, Value};

/// A plugin, a session to show it, and a core that answers from memory.
pub struct PluginTest {
    /// What the plugin is shown. Its changes are applied to it, as the core would.
    pub session: Session,
    /// What the plugin is answered when it asks the core.
    pub services: Arc<FakeServices>,
    /// Whether the client hung up.
    pub departure: Arc<Departure>,
    /// Whether the client speaks where it has to be silent; `note_end(true)` makes it do so, else it never does.
    pub speech: Speech,
    definition: Definition,
    /// The plugin by each of the settings that were in force so far.
    instances: Vec<(BTreeMap<String, Value>, Arc<dyn Plugin>)>,
    in_force: usize,
    message: MemoryMessage,
}

impl PluginTest {
    /// A plugin with these settings, or what is wrong with them.
    pub fn new(
        definition: &Definition,
        settings: &[(&str, Value)],
    ) -> Result<PluginTest, Vec<SettingError>> {
        let mut session = Session {
            id: "test".into(),
            ..Session::default()
        };
        session.connection.remote = Some(([192, 0, 2, 1], 54321).into());
        session.connection.local = Some(([192, 0, 2, 25], 25).into());
        let mut test = PluginTest {
            session,
            services: Arc::new(FakeServices::default()),
            departure: Arc::default(),
            speech: Speech::default(),
            definition: *definition,
            instances: Vec::new(),
            in_force: 0,
            message: MemoryMessage(Bytes::new()),
        };
        test.speech.note_end(false);
        test.set_settings(settings)?;
        Ok(test)
    }

    /// From now on these settings are in force, as for a recipient who has others than the site: all of them, and what is not among them has its
    /// default. The plugin is another instance then, and for settings that were in force before the one that there was.
    pub fn set_settings(&mut self, settings: &[(&str, Value)]) -> Result<(), Vec<SettingError>> {
        let given = settings
            .iter()
            .map(|(key, value)| ((*key).to_owned(), value.clone()))
            .collect();
        let known = self.instances.iter().position(|(known, _)| *known == given);
        self.in_force = match known {
            Some(at) => at,
            None => {
                let plugin = (self.definition.build)(Init {
                    name: self.definition.name.to_owned(),
                    source: None,
                    settings: Settings::check(&(self.definition.settings)(), &given)?,
                    hostname: "mx.example.org".to_owned(),
                    services: self.services.clone(),
                    scratch_dir: None,
                })?;
                self.instances.push((given, plugin));
                self.instances.len() - 1
            }
        };
        Ok(())
    }

    /// Puts a hook to the plugin, waits for its answer, deferred or not, and applies its changes.
    ///
    /// # Panics
    /// Where the core would refuse a change, or outcomes for single recipients at this hook.
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
                speech: hook.silences_client().then_some(&self.speech),
            };
            match self.instances[self.in_force].1.call(&call) {
                Answer::Now(outcome) => outcome,
                Answer::Later(answer) => answer.await,
            }
        };
        if let Some(deferred) = outcome.defer.take() {
            outcome = deferred.outcome.await;
        }
        assert!(
            outcome.recipients.is_empty() || hook.has_message(),
            "the core would refuse this: at `{}` there are no outcomes for single recipients",
            hook.name()
        );
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

/// A core that answers from memory.
#[derive(Default)]
pub struct FakeServices {
    dns: Mutex<HashMap<(String, RecordType), Result<DnsAnswer, ServiceError>>>,
    files: Mutex<HashMap<String, Vec<String>>>,
    recipients: Mutex<HashMap<String, Result<Validity, ServiceError>>>,
    state: Mutex<HashMap<String, Vec<u8>>>,
    log: Mutex<Vec<String>>,
    submitted: Mutex<Vec<Submission>>,
    bounced: Mutex<Vec<Bounce>>,
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

    /// The messages of their own that plugins have sent.
    pub fn submitted(&self) -> Vec<Submission> {
        lock(&self.submitted).clone()
    }

    /// The notifications that plugins have sent.
    pub fn bounced(&self) -> Vec<Bounce> {
        lock(&self.bounced).clone()
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

    fn submit(&self, submission: Submission) -> BoxFuture<'static, Result<String, ServiceError>> {
        let mut submitted = lock(&self.submitted);
        submitted.push(submission);
        ready(Ok(format!("{:016x}", submitted.len())))
    }

    fn bounce(&self, bounce: Bounce) -> BoxFuture<'static, Result<Option<String>, ServiceError>> {
        let mut bounced = lock(&self.bounced);
        let is_told = !bounce.sender.is_null();
        bounced.push(bounce);
        ready(Ok(is_told.then(|| format!("{:016x}", bounced.len()))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Disposition, Setting, Subscription};

    /// Counts; has a word for everybody, and a failure for the first recipient.
    struct Counter(String, Mutex<usize>);

    impl Plugin for Counter {
        fn subscriptions(&self) -> Vec<Subscription> {
            vec![Subscription::to(Hook::DataPost, &[])]
        }

        fn call<'a>(&'a self, call: &'a Call<'a>) -> Answer<'a> {
            let mut count = lock(&self.1);
            *count += 1;
            let outcome = Outcome::pass(format!("{} {count}", self.0));
            match call.session.transaction.recipients.first() {
                Some(first) => outcome
                    .for_recipient(first.clone(), Outcome::fail("full"))
                    .into(),
                None => outcome.into(),
            }
        }
    }

    const COUNTER: Definition = Definition {
        name: "counter",
        about: "",
        settings: || vec![Setting::text("word", "what it says").default("site")],
        build: |init| {
            let word = init.settings.text("word").unwrap_or_default().to_owned();
            Ok(Arc::new(Counter(word, Mutex::default())))
        },
    };

    #[tokio::test]
    async fn settings_in_force_are_those_of_another_instance() {
        let mut test = PluginTest::new(&COUNTER, &[]).unwrap();
        assert_eq!(test.data_post(b"").await.message, "site 1");
        test.set_settings(&[("word", "user".into())]).unwrap();
        assert_eq!(test.data_post(b"").await.message, "user 1");
        test.set_settings(&[]).unwrap();
        assert_eq!(test.data_post(b"").await.message, "site 2");
        let errors = test.set_settings(&[("word", 7.into())]).unwrap_err();
        assert_eq!(errors[0].message, "expected text in quotes");
        assert_eq!(test.data_post(b"").await.message, "site 3", "as before");
    }

    #[tokio::test]
    async fn what_holds_for_single_recipients_is_seen() {
        let mut test = PluginTest::new(&COUNTER, &[]).unwrap();
        test.rcpt("bob@example.org").await;
        let outcome = test.data_post(b"").await;
        let [(address, own)] = outcome.recipients.as_slice() else {
            panic!("{outcome:?}");
        };
        assert_eq!(address.as_str(), "bob@example.org");
        assert_eq!(own.disposition, Some(Disposition::Fail));
    }

    #[tokio::test]
    #[should_panic(expected = "at `rcpt` there are no outcomes for single recipients")]
    async fn what_the_core_refuses_is_not_taken() {
        let mut test = PluginTest::new(&COUNTER, &[]).unwrap();
        test.session
            .transaction
            .recipients
            .push(address("bob@example.org"));
        test.rcpt("carol@example.org").await;
    }
}
