//! The messages of the protocol (docs/protocol.md §3 to §8), as they stand on the wire.

mod notices;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_bytes::{ByteBuf, Bytes};

use crate::frame::Kind;
use crate::policy::{Immune, OnError, Reject, RejectType};
use crate::services::ServiceError;
use crate::settings::Setting;
use crate::value::Value;
use crate::{Address, Change, Disposition, EnhancedCode, Hook, Parameters, Score, Verdict};

pub use notices::{Failed, Fork, Goodbye, Log};

macro_rules! kinds {
    ($($type:ty => $kind:literal,)*) => {
        $(impl Kind for $type { const KIND: &'static str = $kind; })*
    };
}

kinds! {
    Hello => "hello", Init => "init", Ready => "ready", InitError => "init_error", HookMessage<'_> => "hook",
    ResultMessage => "result", Unfinished => "unfinished", Late => "verdict", Cancel => "cancel", CallMessage => "call", ReplyMessage => "reply",
    Log => "log", Failed => "error", Goodbye => "goodbye", Fork => "fork",
}

/// `hello`, both ways.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Hello {
    /// [`crate::PROTOCOL`].
    pub protocol: String,
    /// `[major, minor]`.
    pub version: Vec<u16>,
    /// From the core: who it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
    /// From a plugin process: with what it was written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sdk: Option<String>,
    /// What this side can do.
    #[serde(default)]
    pub features: Vec<String>,
    /// From the core: the longest frame.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_frame: Option<u32>,
}

/// `init`, core to plugin.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Init {
    /// The core's name.
    #[serde(default)]
    pub hostname: String,
    /// The worker's number, from 1.
    #[serde(default)]
    pub worker: u32,
    /// An empty folder of the worker's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scratch_dir: Option<PathBuf>,
    /// The DNS server that the core asks, an address with its port, for plugins with a resolver of their own; `None`: those of the system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dns_server: Option<String>,
    /// What the process is to run.
    pub plugins: Vec<InitPlugin>,
}

/// A plugin in `init`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct InitPlugin {
    /// Its name in the configuration.
    pub name: String,
    /// What to load.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Where to look for it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dirs: Vec<PathBuf>,
    /// Its own settings.
    #[serde(default)]
    pub settings: BTreeMap<String, Value>,
    /// Arguments of a plugin line.
    #[serde(default)]
    pub args: Vec<String>,
}

/// `ready`, plugin to core.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ready {
    /// How many requests may be unanswered.
    #[serde(default = "one")]
    pub concurrency: u32,
    /// The plugins of `init`.
    pub plugins: Vec<ReadyPlugin>,
}

fn one() -> u32 {
    1
}

/// A plugin in `ready`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ReadyPlugin {
    /// As in `init`.
    pub name: String,
    /// Where it takes part.
    #[serde(default)]
    pub hooks: Vec<ReadyHook>,
    /// What settings it knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settings: Option<Vec<Setting>>,
    /// Its own defaults for the uniform settings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<ReadyPolicy>,
}

/// A hook in `ready`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ReadyHook {
    /// Its name. A hook that this core does not know is an error with that name in it.
    pub hook: String,
    /// `decide` or `observe`; absent: decide.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    /// Fields of the session.
    #[serde(default)]
    pub fields: Vec<String>,
    /// Names of notes.
    #[serde(default)]
    pub reads: Vec<String>,
    /// A deadline of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// Where it stands among the plugins of the hook: see [`crate::Priority`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<Value>,
}

/// The uniform settings in `ready`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ReadyPolicy {
    /// See [`Reject`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reject: Option<Reject>,
    /// See [`RejectType`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reject_type: Option<RejectType>,
    /// See [`OnError`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_error: Option<OnError>,
    /// See [`Immune`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub immune: Option<Immune>,
    /// As in the configuration: a level, `+N` or `-N`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loglevel: Option<String>,
}

/// `init_error`, plugin to core.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct InitError {
    /// All that is wrong.
    pub errors: Vec<InitErrorItem>,
}

/// One mistake in `init_error`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct InitErrorItem {
    /// Whose setting.
    #[serde(default)]
    pub plugin: String,
    /// Keys and indices that lead to it.
    #[serde(default)]
    pub path: Vec<Value>,
    /// What is wrong.
    pub message: String,
}

/// `hook`, core to plugin; without `id` and `deadline_ms` it is an `event`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct HookMessage<'a> {
    /// The request's id; absent in an event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<u64>,
    /// The hook's name.
    pub hook: Cow<'a, str>,
    /// The segment.
    pub plugins: Vec<Cow<'a, str>>,
    /// The connection.
    pub session: Cow<'a, str>,
    /// The transaction's number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transaction: Option<u32>,
    /// How long the core waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_ms: Option<u64>,
    /// What the hook is about.
    #[serde(default, skip_serializing_if = "ArgsMessage::is_empty")]
    pub args: ArgsMessage<'a>,
    /// Subscribed fields.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connection: Option<ConnectionFields<'a>>,
    /// Subscribed fields.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transaction_fields: Option<TransactionFields<'a>>,
    /// Subscribed notes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notes: Option<NotesMessage<'a>>,
    /// The settings in force of those plugins that have others here than in `init`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settings: Option<SettingsMessage<'a>>,
    /// Another worker had this session, and died.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resumed: Option<bool>,
    /// What is asked next where nobody has anything to say to this hook.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub then: Option<ThenMessage<'a>>,
}

/// The hook that follows in the same request (§4). All else that it carries is what the request carries.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ThenMessage<'a> {
    /// The hook's name.
    pub hook: Cow<'a, str>,
    /// The segment.
    pub plugins: Vec<Cow<'a, str>>,
    /// The transaction's number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transaction: Option<u32>,
}

/// Settings by plugin.
pub type SettingsMessage<'a> = BTreeMap<Cow<'a, str>, Cow<'a, BTreeMap<String, Value>>>;

/// `event`, core to plugin.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EventMessage<'a>(pub HookMessage<'a>);

impl Kind for EventMessage<'_> {
    const KIND: &'static str = "event";
}

/// Arguments of a hook (§5.1).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs)] // The names are §5.1's.
pub struct ArgsMessage<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connections: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_connections: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capabilities: Option<Vec<Cow<'a, str>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<Cow<'a, Address>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parameters: Option<Cow<'a, Parameters>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub argument: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lines: Option<Cow<'a, Bytes>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offset: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub level: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plugin: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hook: Option<Hook>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verdict: Option<Verdict>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mechanism: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub challenge: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<Cow<'a, str>>,
}

impl ArgsMessage<'_> {
    fn is_empty(&self) -> bool {
        *self == ArgsMessage::default()
    }
}

/// Fields of the connection (§5.2).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs)] // The names are §5.2's.
pub struct ConnectionFields<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remote_ip: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remote_port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remote_host: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remote_info: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub local_ip: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub local_port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub direction: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hello: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hello_host: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub early_talker: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub relay_client: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub immune: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub whitelisted: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub naughty: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub naughty_plugin: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub naughty_verdict: Option<Verdict>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub karma: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub score: Option<i64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub scores: Vec<Score<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub authenticated: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_version: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_cipher: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_server_name: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_client_name: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auth_results: Option<Cow<'a, [String]>>,
}

/// Fields of the transaction (§5.2).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs)] // The names are §5.2's.
pub struct TransactionFields<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sender: Option<Cow<'a, Address>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sender_parameters: Option<Cow<'a, Parameters>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recipients: Option<Cow<'a, [Address]>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recipient_parameters: Option<Cow<'a, [Parameters]>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub header: Option<ByteBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<Cow<'a, std::path::Path>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub header_end: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body_start: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub immune: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub whitelisted: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quarantine: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub route: Option<Cow<'a, str>>,
}

/// Subscribed notes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct NotesMessage<'a> {
    /// Of the connection.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub connection: BTreeMap<Cow<'a, str>, Cow<'a, Value>>,
    /// Of the transaction.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub transaction: BTreeMap<Cow<'a, str>, Cow<'a, Value>>,
}

/// `result`, plugin to core.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ResultMessage {
    /// The hook's id.
    pub id: u64,
    /// One for each plugin that ran.
    pub results: Vec<Entry>,
    /// The same for the hook of `then`, where that was run as well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub then: Option<Vec<Entry>>,
}

/// `unfinished`, plugin to core: a result up to the plugin whose turn it is, which is the last and has an error (§7.2).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Unfinished(pub ResultMessage);

/// `verdict`, plugin to core: what was deferred.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Late {
    /// The id of the hook that was deferred.
    pub id: u64,
    /// The answer.
    pub result: Entry,
}

/// A plugin's result (§6).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Whose.
    pub plugin: String,
    /// What it found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disposition: Option<Disposition>,
    /// One sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// What SMTP should do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<Verdict>,
    /// Reply code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<u16>,
    /// Enhanced code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enhanced: Option<EnhancedCode>,
    /// Reply lines.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply: Option<Vec<String>>,
    /// Changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changes: Option<Vec<Change>>,
    /// For the hooks that ask for a text, a list or a secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub values: Option<Vec<String>>,
    /// For `user_config`: the settings of the address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settings: Option<BTreeMap<String, Value>>,
    /// What holds for single recipients.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recipients: Option<Vec<RecipientEntry>>,
    /// The hook before which the answer will come.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub defer: Option<Hook>,
    /// How long the client is to wait for its reply.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delay_ms: Option<u64>,
}

/// What holds for a recipient (§6.5).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RecipientEntry {
    /// Who.
    pub address: Address,
    /// What the plugin found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disposition: Option<Disposition>,
    /// One sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// What SMTP should do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<Verdict>,
    /// Reply code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<u16>,
    /// Enhanced code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enhanced: Option<EnhancedCode>,
    /// Reply lines.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply: Option<Vec<String>>,
}

/// `cancel`, core to plugin.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cancel {
    /// The hook's id.
    pub id: u64,
    /// `timeout`, `disconnect` or `shutdown`.
    pub reason: String,
}

/// `call`, plugin to core.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CallMessage {
    /// The plugin's id.
    pub id: u64,
    /// The hook it belongs to.
    #[serde(default, rename = "for", skip_serializing_if = "Option::is_none")]
    pub hook: Option<u64>,
    /// What is asked.
    pub method: String,
    /// With what.
    #[serde(default)]
    pub params: Value,
}

/// `reply`, core to plugin.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReplyMessage {
    /// The call's id.
    pub id: u64,
    /// The answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ok: Option<Value>,
    /// Or why there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<CallError>,
}

/// Why a call was not answered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CallError {
    /// For programs.
    pub code: crate::services::ServiceErrorCode,
    /// For people.
    #[serde(default)]
    pub message: String,
}

impl From<ServiceError> for CallError {
    fn from(error: ServiceError) -> CallError {
        CallError {
            code: error.code,
            message: error.message,
        }
    }
}
