//! A conversation: the engine, which knows no protocol, and each protocol on it.

mod apart;
mod engine;
mod input;
mod lmtp;
mod mail;
mod reply;
pub mod sasl;
mod seat;
mod smtp;
mod wire;

use std::net::SocketAddr;
use std::sync::Arc;

use gatepost_protocol::Services;

use crate::chain::Chain;
use crate::config::{Config, Listen};
use crate::message::Spool;
use crate::outbox::{Outbox, Store};
use crate::report::journal::Journal;

pub use apart::Apart;
pub use engine::{Next, Protocol, converse};
pub use input::LineFault;
pub use lmtp::LMTP;
/// For the fuzz targets (`tests/src/fuzz`); no interface to build on.
#[doc(hidden)]
pub use mail::parse;
pub use mail::{Dialect, serve};
pub use seat::{Seat, Standing};
pub use smtp::SMTP;
pub use wire::{End, Pace, Secured, Stop, Stream, Wire};

/// What all conversations share.
pub struct Shared {
    /// The configuration in force.
    pub config: Arc<Config>,
    /// The plugins.
    pub chain: Arc<Chain>,
    /// What plugins may ask; VRFY asks it, too, and flat files of our own are read by it.
    pub services: Arc<dyn Services>,
    /// Where messages wait while they come in.
    pub spool: Arc<Spool>,
    /// What recipients are owed of whom the client does not hear. `None`: nothing is to be delivered, and queue plugins are not asked.
    pub outbox: Option<Arc<Outbox>>,
    /// Messages that are withheld from delivery. `None` where the outbox is.
    pub store: Option<Arc<Store>>,
    /// Why messages were decided as they were, where that is written down.
    pub journal: Option<Arc<Journal>>,
    /// Recipients that have to come in a transaction of their own.
    pub apart: Arc<Apart>,
}

/// Who is at the other end.
#[derive(Clone, Debug)]
pub struct Client {
    /// Names the session; unique as long as the daemon runs.
    pub session: Box<str>,
    /// Their address.
    pub remote: Option<SocketAddr>,
    /// Ours.
    pub local: Option<SocketAddr>,
    /// How many connections of that address there are, this one included.
    pub connections: usize,
    /// Where it came in.
    pub listen: Arc<Listen>,
    /// Who it has authenticated as already.
    pub user: Option<String>,
    /// How the connection is encrypted already.
    pub secured: Option<Box<Secured>>,
    /// They may say XCLIENT.
    pub may_xclient: bool,
    /// They may say XFORWARD.
    pub may_xforward: bool,
}
