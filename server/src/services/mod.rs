//! What plugins may ask of the core: the log, the DNS, flat files, recipients and the state store (docs/protocol.md §8).
//!
//! [`Core`] answers built-ins directly; the host answers the calls of child processes with the same value.

mod answers;
mod dns;
mod own_files;
pub mod question;
mod recent;
mod recipients;
mod state;
#[cfg(test)]
pub(crate) mod test_dns;

use std::path::PathBuf;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use gatepost_protocol::services::ServiceErrorCode;
use gatepost_protocol::{
    Address, Bounce, BoxFuture, DnsAnswer, Level, RecordType, ServiceError, Services, Submission,
    Validity,
};

pub use answers::{Answers, kept_for};
#[cfg(test)]
pub(crate) use dns::Dns;
pub use dns::DnsConfig;
pub use own_files::OwnFiles;
pub use recent::Recent;
pub use recipients::{RecipientHook, Told};

/// Reads a flat file by name: its lines without comments, none where there is no such file, or what is wrong with it and where.
pub type FlatFiles = Arc<dyn Fn(&str) -> Result<Vec<String>, String> + Send + Sync>;

/// Takes a plugin's line for the log: the plugin's name, the level, the message.
pub type LogLine = Arc<dyn Fn(&str, Level, &str) + Send + Sync>;

/// Asks the plugins that hook `config` for a flat file; `None` where nobody answers.
pub type ConfigHook = Arc<dyn Fn(&str) -> BoxFuture<'static, Option<Vec<String>>> + Send + Sync>;

/// Where plugins' own mail goes.
pub trait Outgoing: Send + Sync {
    /// As [`Services::submit`].
    fn submit(&self, submission: Submission) -> BoxFuture<'static, Result<String, ServiceError>>;

    /// As [`Services::bounce`].
    fn bounce(&self, bounce: Bounce) -> BoxFuture<'static, Result<Option<String>, ServiceError>>;
}

/// The services of this daemon, one value for all plugins.
pub struct Core {
    dns: Arc<dns::Dns>,
    flat_files: RwLock<FlatFiles>,
    state: Arc<state::State>,
    log: LogLine,
    config_hook: RwLock<Option<ConfigHook>>,
    outgoing: OnceLock<Box<dyn Outgoing>>,
    recipients: recipients::Recipients,
}

impl Core {
    /// Nothing is opened before a plugin asks for it. `state` is the store's file.
    pub fn new(dns: DnsConfig, flat_files: FlatFiles, state: PathBuf, log: LogLine) -> Core {
        Core {
            dns: Arc::new(dns::Dns::new(dns)),
            flat_files: RwLock::new(flat_files),
            state: Arc::new(state::State::new(state)),
            log,
            config_hook: RwLock::default(),
            outgoing: OnceLock::new(),
            recipients: recipients::Recipients::default(),
        }
    }

    /// From now on flat files are read in this way.
    pub fn read_files(&self, flat_files: FlatFiles) {
        *self
            .flat_files
            .write()
            .unwrap_or_else(PoisonError::into_inner) = flat_files;
    }

    /// From now on plugins are asked before a flat file is read, or are not. Plugins have to run first, and may read files while they start: hence not
    /// in [`Core::new`].
    pub fn ask_first(&self, hook: Option<ConfigHook>) {
        *self
            .config_hook
            .write()
            .unwrap_or_else(PoisonError::into_inner) = hook;
    }

    /// From now on plugins can send mail of their own. Only the first call counts.
    pub fn send_through(&self, outgoing: Box<dyn Outgoing>) {
        let _ = self.outgoing.set(outgoing);
    }

    fn outgoing(&self) -> Result<&dyn Outgoing, ServiceError> {
        let outgoing = self.outgoing.get();
        outgoing.map(|outgoing| &**outgoing).ok_or_else(|| {
            ServiceError::temporary("mail can be sent once the server runs, and not before")
        })
    }

    /// From now on plugins are asked whether an address is ours, and what others said before is forgotten; without anybody to ask nobody knows.
    pub fn ask_about_recipients(&self, hook: Option<RecipientHook>) {
        self.recipients.ask(hook);
    }
}

impl Services for Core {
    fn log(&self, plugin: &str, level: Level, message: &str) {
        (self.log)(plugin, level, message);
    }

    fn dns(
        &self,
        name: &str,
        kind: RecordType,
    ) -> BoxFuture<'static, Result<DnsAnswer, ServiceError>> {
        let (dns, name) = (Arc::clone(&self.dns), name.to_owned());
        Box::pin(async move { dns.lookup(&name, kind).await })
    }

    fn config(&self, name: &str) -> BoxFuture<'static, Result<Vec<String>, ServiceError>> {
        // The files are cached: what is there is there at once, and a plugin that only needs this answers without waiting.
        let failed = |message| ServiceError::new(ServiceErrorCode::Failed, message);
        let files = self
            .flat_files
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let hook = self
            .config_hook
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let Some(hook) = hook else {
            return Box::pin(std::future::ready(files(name).map_err(failed)));
        };
        let (asked, name) = (hook(name), name.to_owned());
        Box::pin(async move {
            match asked.await {
                Some(lines) => Ok(lines),
                None => files(&name).map_err(failed),
            }
        })
    }

    fn recipient_valid(
        &self,
        address: &Address,
    ) -> BoxFuture<'static, Result<Validity, ServiceError>> {
        self.recipients.valid(address)
    }

    fn state_get(&self, key: &str) -> BoxFuture<'static, Result<Option<Vec<u8>>, ServiceError>> {
        let (state, key) = (Arc::clone(&self.state), key.to_owned());
        Box::pin(async move { state.get(key).await })
    }

    fn state_set(
        &self,
        key: &str,
        value: Vec<u8>,
        ttl: Option<Duration>,
    ) -> BoxFuture<'static, Result<(), ServiceError>> {
        let (state, key) = (Arc::clone(&self.state), key.to_owned());
        Box::pin(async move { state.set(key, value, ttl).await })
    }

    fn state_add(
        &self,
        key: &str,
        add: i64,
        ttl: Option<Duration>,
    ) -> BoxFuture<'static, Result<i64, ServiceError>> {
        let (state, key) = (Arc::clone(&self.state), key.to_owned());
        Box::pin(async move { state.add(key, add, ttl).await })
    }

    fn state_delete(&self, key: &str) -> BoxFuture<'static, Result<(), ServiceError>> {
        let (state, key) = (Arc::clone(&self.state), key.to_owned());
        Box::pin(async move { state.delete(key).await })
    }

    fn submit(&self, submission: Submission) -> BoxFuture<'static, Result<String, ServiceError>> {
        match self.outgoing() {
            Ok(outgoing) => outgoing.submit(submission),
            Err(error) => Box::pin(std::future::ready(Err(error))),
        }
    }

    fn bounce(&self, bounce: Bounce) -> BoxFuture<'static, Result<Option<String>, ServiceError>> {
        match self.outgoing() {
            Ok(outgoing) => outgoing.bounce(bounce),
            Err(error) => Box::pin(std::future::ready(Err(error))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    #[tokio::test]
    async fn log_and_config_go_where_they_were_plugged_in() {
        let logged = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&logged);
        let dir = tempfile::tempdir().unwrap();
        let core = Core::new(
            DnsConfig::default(),
            Arc::new(|name| match name {
                "rcpthosts" => Ok(vec!["example.org".to_owned()]),
                other => Err(format!("{other}: permission denied")),
            }),
            dir.path().join("state"),
            Arc::new(move |plugin, level, message| {
                sink.lock()
                    .unwrap()
                    .push(format!("{plugin} {} {message}", level.name()));
            }),
        );
        core.log("vip", Level::Notice, "hello");
        assert_eq!(*logged.lock().unwrap(), ["vip notice hello"]);
        assert_eq!(core.config("rcpthosts").await.unwrap(), ["example.org"]);
        let error = core.config("secret").await.unwrap_err();
        assert_eq!(error.to_string(), "secret: permission denied");
        assert!(
            !dir.path().join("state").exists(),
            "nobody asked for the store"
        );
    }
}
