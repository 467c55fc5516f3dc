//! A plugin's answer to a hook (docs/protocol.md §6).

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use crate::{Address, Change, Disposition, EnhancedCode, Hook, Value, Verdict};

/// A future on the heap.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// An outcome, now or later. A plugin that need not wait answers `Now`, and costs a function call.
pub enum Answer<'a> {
    /// The outcome is known.
    Now(Outcome),
    /// The outcome takes a while; the command waits for it.
    Later(BoxFuture<'a, Outcome>),
}

impl<'a> Answer<'a> {
    /// An answer that takes a while.
    pub fn later(future: impl Future<Output = Outcome> + Send + 'a) -> Answer<'a> {
        Answer::Later(Box::pin(future))
    }
}

impl From<Outcome> for Answer<'_> {
    fn from(outcome: Outcome) -> Self {
        Answer::Now(outcome)
    }
}

/// What a plugin found, what it wants done, and what it asks to have changed.
#[derive(Default)]
pub struct Outcome {
    /// What it found; `None`: nothing worth a line.
    pub disposition: Option<Disposition>,
    /// One sentence, for the log, and for the client if it comes to that and `reply` is empty.
    pub message: String,
    /// What SMTP should do; `None`: the operator's policy decides.
    pub verdict: Option<Verdict>,
    /// The reply's code, if not the usual one.
    pub code: Option<u16>,
    /// The reply's enhanced code, if not the usual one.
    pub enhanced: Option<EnhancedCode>,
    /// The reply's lines.
    pub reply: Vec<String>,
    /// What to change, in order.
    pub changes: Vec<Change>,
    /// The answer to `config`, `received_line`, `capabilities`, and to the hooks before a command is read (docs/protocol.md §5.1); a secret, at `auth`; at `queue`
    /// a [`Success`].
    pub values: Vec<String>,
    /// The answer to `user_config`: settings of the address, in the shape of `[user."…"]` (docs/protocol.md §5.5).
    pub settings: BTreeMap<String, Value>,
    /// What holds for single recipients instead, at the hooks from `data_post_headers` to `queue`: of each outcome what it found and what it wants done.
    /// For a recipient that is not here, the rest of this outcome holds.
    pub recipients: Vec<(Address, Outcome)>,
    /// The answer comes later.
    pub defer: Option<Deferred>,
    /// How long the client is to wait for its reply, whatever that is; see [`Outcome::delayed`].
    pub delay: Duration,
}

/// What a queue plugin that answers `ok` did with the message: what its sender is told, where it asked to be told of success (NOTIFY=SUCCESS, RFC 3461 §5.2). It is
/// the one word in [`Outcome::values`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Success {
    /// It is where its recipients read it.
    Delivered,
    /// It is with somebody who will not tell its sender when it arrives, as far as is known. So it is where a plugin says nothing: this promises the least.
    #[default]
    Relayed,
    /// We tell nothing: the next server does (it offers DSN, and got NOTIFY), or there is nothing to be told.
    None,
}

impl Success {
    /// What an outcome's `values` say.
    pub fn of(values: &[String]) -> Success {
        match values {
            [word] if word == Success::Delivered.word() => Success::Delivered,
            [word] if word == Success::None.word() => Success::None,
            _ => Success::Relayed,
        }
    }

    /// The word in `values`.
    pub const fn word(self) -> &'static str {
        match self {
            Success::Delivered => "delivered",
            Success::Relayed => "relayed",
            Success::None => "none",
        }
    }
}

/// An answer that comes later, before a named hook, while the session goes on.
pub struct Deferred {
    /// Before which hook it is needed.
    pub until: Hook,
    /// The answer.
    pub outcome: BoxFuture<'static, Outcome>,
}

impl Outcome {
    /// Nothing to say.
    pub fn declined() -> Outcome {
        Outcome::default()
    }

    /// Nothing wrong was found.
    pub fn pass(message: impl Into<String>) -> Outcome {
        Outcome::found(Disposition::Pass, message)
    }

    /// Something wrong was found: the operator's `reject` decides what it costs.
    pub fn fail(message: impl Into<String>) -> Outcome {
        Outcome::found(Disposition::Fail, message)
    }

    /// The check did not apply.
    pub fn skip(message: impl Into<String>) -> Outcome {
        Outcome::found(Disposition::Skip, message)
    }

    /// The check could not be made: the operator's `on_error` decides.
    pub fn error(message: impl Into<String>) -> Outcome {
        Outcome::found(Disposition::Error, message)
    }

    /// Yes, and no further plugin is asked.
    pub fn ok(message: impl Into<String>) -> Outcome {
        Outcome::pass(message).with_verdict(Verdict::Ok)
    }

    /// Something was found that is worth so many points, to be judged with all others' (docs/protocol.md §6.7): above 0 a `fail` that
    /// costs nothing by itself, else a `pass`.
    pub fn score(points: f64, reason: impl Into<String>) -> Outcome {
        let reason = reason.into();
        let found = match points > 0.0 {
            true => Outcome::fail(reason.as_str()).with_verdict(Verdict::Declined),
            false => Outcome::pass(reason.as_str()),
        };
        found.with_change(Change::score(points, reason))
    }

    /// The answer will come before the hook `until`.
    pub fn defer(until: Hook, outcome: impl Future<Output = Outcome> + Send + 'static) -> Outcome {
        Outcome {
            defer: Some(Deferred {
                until,
                outcome: Box::pin(outcome),
            }),
            ..Outcome::default()
        }
    }

    fn found(disposition: Disposition, message: impl Into<String>) -> Outcome {
        Outcome {
            disposition: Some(disposition),
            message: message.into(),
            ..Outcome::default()
        }
    }

    /// With this verdict, whatever the disposition.
    #[must_use]
    pub fn with_verdict(mut self, verdict: Verdict) -> Outcome {
        self.verdict = Some(verdict);
        self
    }

    /// With this text for the client.
    #[must_use]
    pub fn with_reply(mut self, text: &str) -> Outcome {
        self.reply = text.lines().map(str::to_owned).collect();
        self
    }

    /// With this reply code and enhanced code.
    #[must_use]
    pub fn with_code(mut self, code: u16, enhanced: EnhancedCode) -> Outcome {
        self.code = Some(code);
        self.enhanced = Some(enhanced);
        self
    }

    /// With this enhanced code.
    #[must_use]
    pub fn with_enhanced(mut self, enhanced: EnhancedCode) -> Outcome {
        self.enhanced = Some(enhanced);
        self
    }

    /// With settings of the address, in the shape of `[user."…"]`: the answer to `user_config`.
    #[must_use]
    pub fn with_settings(mut self, settings: BTreeMap<String, Value>) -> Outcome {
        self.settings = settings;
        self
    }

    /// With what is to be told of success, for `ok` at `queue`.
    #[must_use]
    pub fn with_success(mut self, success: Success) -> Outcome {
        self.values = vec![success.word().to_owned()];
        self
    }

    /// With an outcome of its own for a recipient.
    #[must_use]
    pub fn for_recipient(mut self, address: Address, outcome: Outcome) -> Outcome {
        self.recipients.push((address, outcome));
        self
    }

    /// The client waits so long before it gets its reply, and costs nothing but its connection meanwhile. What plugins ask for at one command
    /// adds up; above 5 minutes it is cut.
    #[must_use]
    pub fn delayed(mut self, delay: Duration) -> Outcome {
        self.delay = delay;
        self
    }

    /// With one more change.
    #[must_use]
    pub fn with_change(mut self, change: Change) -> Outcome {
        self.changes.push(change);
        self
    }
}

impl std::fmt::Debug for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outcome")
            .field("disposition", &self.disposition)
            .field("message", &self.message)
            .field("verdict", &self.verdict)
            .field("reply", &self.reply)
            .field("changes", &self.changes)
            .field("recipients", &self.recipients)
            .field("defer", &self.defer.as_ref().map(|deferred| deferred.until))
            .field("delay", &self.delay)
            .finish_non_exhaustive()
    }
}
