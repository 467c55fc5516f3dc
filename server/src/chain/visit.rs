//! A session on its way through the chain, and what the chain decides.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use gatepost_protocol::{
    Address, Departure, EnhancedCode, Hook, Outcome, Session, Speech, Value, Verdict,
};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::Chain;
use super::ahead::Ahead;
use super::kept::Kept;
use super::profile::Profile;
use crate::report::journal::Trace;

/// A session on its way through the chain: what plugins see of it, and what they still owe.
#[derive(Default)]
pub struct Visit {
    /// The session. The dialog keeps it true; plugins' changes are applied to it.
    pub session: Session,
    /// Whether the client takes replies in UTF-8 now (RFC 6531 §3.7.4.1).
    pub utf8: bool,
    /// The settings in force for the recipients at hand; `None`: the site's, and before there are recipients.
    pub profile: Option<Arc<Profile>>,
    /// The recipients of the transaction have different settings, and the hook is for all of them.
    pub divided: bool,
    /// Recipients for whom a plugin decided by itself, at which hook; they are no recipients of the transaction any more. For the dialog to take.
    pub decided: Vec<(Address, Hook, Decision)>,
    /// At RCPT: where the message is to go for the recipient at hand, should somebody accept it. For the dialog to take.
    pub diverted: Option<Decision>,
    /// Whether the client hung up: plugins that are at work are told, and no further ones asked.
    pub departure: Arc<Departure>,
    /// While plugins are asked something at which the client has to be silent: the look at it.
    pub speech: Option<Arc<Speech>>,
    /// How long plugins let the client wait for the reply to the command at hand. For the dialog to take.
    pub delay: Duration,
    /// Members of which chain have seen enough of the message that comes in.
    pub(super) sated: Vec<(usize, usize)>,
    /// Chains of single recipients that took part in the session.
    pub(super) met: Vec<Arc<Chain>>,
    /// Somebody released the message from the store: nothing diverts it again.
    pub is_released: bool,
    /// Nothing is to be delivered: queue plugins are named, and not asked.
    pub rehearsal: bool,
    /// Notes of what happens, where somebody may ask why.
    pub trace: Option<Box<Trace>>,
    /// Answers that were deferred. They work on while the session goes on, and end with it.
    pub(super) owed: Vec<Owed>,
    /// What waits for the recipients.
    pub(super) kept: Vec<Kept>,
    /// What plugins said already to the hook that is to be put next.
    pub(super) ahead: Option<Box<Ahead>>,
    /// Which plugins with settings of their own were asked late, and for which hook.
    pub(super) asked_late: Vec<(usize, Hook)>,
}

/// An answer that comes later.
pub(super) struct Owed {
    /// Whose member.
    pub chain: usize,
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
            ..Visit::default()
        }
    }

    /// Whether nothing but the plugins of a hook has a say in it, and all of them are the site's.
    pub(super) fn is_plain(&self) -> bool {
        self.owed.is_empty()
            && self.kept.is_empty()
            && self.asked_late.is_empty()
            && self.met.is_empty()
            && self.profile.is_none()
    }

    /// Another message comes in, of which nobody has seen anything.
    pub fn begin_message(&mut self) {
        self.sated.clear();
    }

    /// Whether a hook that nobody takes part in has nothing to do with it: nobody owes an answer, nothing waits for the recipients, nobody asks why.
    pub(super) fn has_nothing_pending(&self) -> bool {
        self.is_plain() && self.trace.is_none()
    }

    /// Nothing that was found before counts any more: the client turned out to be one of ours.
    pub fn acquit(&mut self) {
        self.session.connection.naughty = None;
        self.kept.clear();
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
    /// The reply's lines, safe for the wire; empty where the usual text is to be said. Of a message that is diverted: why, which the client is not told.
    pub lines: Vec<String>,
    /// The answer to `received_line` and `config`; a secret, at `auth`.
    pub values: Vec<String>,
    /// The answer to `user_config`. Boxed: hardly a decision has any.
    pub settings: Option<Box<BTreeMap<String, Value>>>,
}

impl Decision {
    /// Whether nobody else is to be asked about a message or a recipient: it is refused, diverted, or dealt with.
    pub fn ends_message(&self) -> bool {
        self.verdict.is_negative() || self.verdict == Verdict::Done
    }

    /// Whether the usual reply is to be given.
    pub fn is_wordless(&self) -> bool {
        self.code.is_none() && self.enhanced.is_none() && self.lines.is_empty()
    }

    /// Nobody had anything to say.
    pub fn declined() -> Decision {
        Decision {
            verdict: Verdict::Declined,
            plugin: None,
            code: None,
            enhanced: None,
            lines: Vec::new(),
            values: Vec::new(),
            settings: None,
        }
    }
}
