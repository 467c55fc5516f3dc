//! The Gatepost plugin protocol: all that the author of a plugin in Rust needs, and nothing of the server.
//!
//! A plugin implements [`Plugin`]. Built into the daemon it is called directly; as a program of its own it is handed to [`serve`],
//! which speaks the protocol of `docs/protocol.md` with the core. [`testing`] drives a plugin with neither.

pub mod address;
pub mod change;
pub mod channel;
pub mod delivered;
pub mod departure;
pub mod frame;
pub mod header;
pub mod hook;
pub mod outcome;
pub mod plugin;
pub mod policy;
pub mod score;
mod serve;
pub mod services;
pub mod session;
pub mod settings;
pub mod speech;
pub mod testing;
pub mod value;
pub mod verdict;
pub mod wire;

pub use address::Address;
pub use change::{Change, Edge, Scope};
pub use departure::Departure;
pub use header::HeaderBlock;
pub use hook::Hook;
pub use outcome::{Answer, BoxFuture, Outcome, Success};
pub use plugin::{Built, Call, Definition, Init, Plugin, Priority, Subscription};
pub use policy::{Immune, Level, OnError, Policy, Reject, RejectType};
pub use score::{Points, Score, Scores};
pub use serve::serve;
pub use services::{
    Bounce, DnsAnswer, DnsStatus, Message, RecordType, ServiceError, Services, Submission, Validity,
};
pub use session::{
    Args, Connection, Credentials, Direction, Field, FieldSet, Parameters, Session, Transaction,
};
pub use settings::{Setting, SettingError, Settings};
pub use speech::Speech;
pub use value::Value;
pub use verdict::{Disposition, EnhancedCode, Verdict};

/// Version of the protocol, `[major, minor]` (docs/protocol.md §3).
pub const VERSION: [u16; 2] = [1, 0];

/// Name of the protocol in `hello`.
pub const PROTOCOL: &str = "gatepost-plugin";
