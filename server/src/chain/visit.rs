//! A session on its way through the chain, and what the chain decides.

use std::sync::Arc;

use gatepost_protocol::{Departure, EnhancedCode, Hook, Outcome, Session, Verdict};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

/// A session on its way through the chain: what plugins see of it, and what they still owe.
#[derive(Default)]
pub struct Visit {
    /// The session. The dialog keeps it true; plugins' changes are applied to it.
    pub session: Session,
    /// Whether the client takes replies in UTF-8 now (RFC 6531 §3.7.4.1).
    pub utf8: bool,
    /// Whether the client hung up: plugins that are at work are told, and no further ones asked.
    pub departure: Arc<Departure>,
    /// Answers that were deferred. They work on while the session goes on, and end with it.
    pub(super) owed: Vec<Owed>,
}

/// An answer that comes later.
pub(super) struct Owed {
    pub member: usize,
    /// Before which hook it is needed.
    pub until: Hook,
    pub answer: AbortOnDropHandle<Outcome>,
    pub deadline: Instant,
}

impl Visit {
    /// A visit of a session.
    pub fn new(session: Session) -> Visit {
        Visit {
            session,
            utf8: false,
            departure: Arc::default(),
            owed: Vec::new(),
        }
    }
}

/// What the chain decided.
#[derive(Clone, Debug)]
pub struct Decision {
    /// The verdict, with the operator's policy applied. `Declined` where nobody decided.
    pub verdict: Verdict,
    /// Whose verdict it is.
    pub plugin: Option<Arc<str>>,
    /// The reply code the plugin asked for; of the verdict's class.
    pub code: Option<u16>,
    /// The enhanced code the plugin asked for; of the verdict's class.
    pub enhanced: Option<EnhancedCode>,
    /// The reply's lines, safe for the wire; empty where the usual text is to be said.
    pub lines: Vec<String>,
    /// The answer to `received_line` and `config`; a secret, at `auth`.
    pub values: Vec<String>,
}

impl Decision {
    /// Nobody had anything to say.
    pub fn declined() -> Decision {
        Decision {
            verdict: Verdict::Declined,
            plugin: None,
            code: None,
            enhanced: None,
            lines: Vec::new(),
            values: Vec::new(),
        }
    }
}
