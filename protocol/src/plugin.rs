//! The one plugin interface: of built-ins, of Rust programs that run as children, and of the core's stand-in for any foreign process.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::Hook;
use crate::departure::Departure;
use crate::outcome::{Answer, BoxFuture, Outcome};
use crate::policy::Policy;
use crate::services::{Message, Services};
use crate::session::{Args, Field, FieldSet, Session};
use crate::settings::{Setting, SettingError, Settings};
use crate::speech::Speech;
use crate::value::Value;

/// A plugin: it takes part in hooks and answers with an outcome.
///
/// One value serves all sessions, many at a time; what it remembers it guards itself.
pub trait Plugin: Send + Sync + 'static {
    /// The hooks it takes part in, and what it needs there. Asked once.
    fn subscriptions(&self) -> Vec<Subscription>;

    /// Its own defaults for the uniform settings.
    fn policy(&self) -> Policy {
        Policy::default()
    }

    /// Answers a hook it subscribed to.
    fn call<'a>(&'a self, call: &'a Call<'a>) -> Answer<'a>;

    /// The process it lives in, where it shares one with other plugins: neighbours are then asked in one request.
    fn host(&self) -> Option<Arc<dyn Host>> {
        None
    }
}

/// Several plugins that can be asked at once, in the order of their names, up to the first that does not decline.
pub trait Host: Send + Sync + 'static {
    /// One outcome for each plugin that ran. `plugins` are names of plugins that this host holds; `wants` is all they subscribed to.
    fn ask<'a>(
        &'a self,
        plugins: &'a [&'a str],
        wants: &'a Wants,
        call: &'a Call<'a>,
    ) -> BoxFuture<'a, Vec<Outcome>>;

    /// The same, and a host that can goes on with the next hook at once, where all of them decline and change nothing.
    fn ask_then<'a>(
        &'a self,
        plugins: &'a [&'a str],
        wants: &'a Wants,
        call: &'a Call<'a>,
        _then: &'a Then<'a>,
    ) -> BoxFuture<'a, Answers> {
        Box::pin(async move {
            Answers {
                here: self.ask(plugins, wants, call).await,
                then: None,
            }
        })
    }

    /// Tells observers, and waits for nothing.
    fn tell(&self, plugins: &[&str], wants: &Wants, call: &Call<'_>);
}

/// The hook that comes next, with nothing in between, where nobody has anything to say at the one at hand. It is about the same session and
/// message, and has as long.
#[derive(Debug)]
pub struct Then<'a> {
    /// The hook.
    pub hook: Hook,
    /// Whom it is put to first.
    pub plugins: &'a [&'a str],
    /// All that they subscribed to at it.
    pub wants: &'a Wants,
    /// What it is about.
    pub args: &'a Args<'a>,
    /// The number of the transaction by then.
    pub transaction: u32,
}

/// What a [`Host`] says.
#[derive(Debug, Default)]
pub struct Answers {
    /// To the hook at hand.
    pub here: Vec<Outcome>,
    /// To the next one, where it was asked.
    pub then: Option<Vec<Outcome>>,
}

/// What a plugin, or a segment of them, wants to see at a hook.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wants {
    /// Fields of the session.
    pub fields: FieldSet,
    /// Notes by name; `*` for all.
    pub notes: Vec<String>,
}

impl Wants {
    /// Adds what another wants.
    pub fn add(&mut self, other: &Wants) {
        self.fields = self.fields.union(other.fields);
        for note in &other.notes {
            if !self.notes.contains(note) {
                self.notes.push(note.clone());
            }
        }
    }
}

/// A plugin's part in a hook.
#[derive(Clone, Debug)]
pub struct Subscription {
    /// The hook.
    pub hook: Hook,
    /// It only looks on: it is told, not asked, and nobody waits for it.
    pub observe: bool,
    /// What it wants to see. A built-in sees everything; as a child it sees this.
    pub wants: Wants,
    /// A deadline of its own, used where the operator sets none.
    pub timeout: Option<Duration>,
    /// Where it stands among the plugins of the hook.
    pub priority: Priority,
}

/// Where a plugin stands among those of a hook. Where it is the same, the order of the configuration holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    /// Before all numbers.
    First,
    /// Smaller numbers come earlier; 0 unless said.
    At(i32),
    /// Behind all numbers.
    Last,
}

impl Default for Priority {
    fn default() -> Priority {
        Priority::At(0)
    }
}

impl Priority {
    /// From how it stands on the wire: `first`, `last` or an integer of 32 bits.
    pub fn from_value(value: &Value) -> Option<Priority> {
        match value {
            Value::Integer(number) => i32::try_from(*number).ok().map(Priority::At),
            other => match other.as_text()? {
                "first" => Some(Priority::First),
                "last" => Some(Priority::Last),
                _ => None,
            },
        }
    }

    /// How it stands on the wire; `None` where it need not be said.
    pub fn to_value(self) -> Option<Value> {
        match self {
            Priority::First => Some("first".into()),
            Priority::At(0) => None,
            Priority::At(number) => Some(i64::from(number).into()),
            Priority::Last => Some("last".into()),
        }
    }
}

impl Subscription {
    /// To be asked at a hook, seeing these fields.
    pub fn to(hook: Hook, fields: &[Field]) -> Subscription {
        let wants = Wants {
            fields: FieldSet::of(fields),
            notes: Vec::new(),
        };
        Subscription {
            hook,
            observe: hook.is_event(),
            wants,
            timeout: None,
            priority: Priority::default(),
        }
    }

    /// With this place among the plugins of the hook.
    #[must_use]
    pub fn at(mut self, priority: Priority) -> Subscription {
        self.priority = priority;
        self
    }

    /// And these notes.
    #[must_use]
    pub fn reading(mut self, notes: &[&str]) -> Subscription {
        self.wants
            .notes
            .extend(notes.iter().map(|note| (*note).to_owned()));
        self
    }
}

/// A hook, put to a plugin.
pub struct Call<'a> {
    /// The hook.
    pub hook: Hook,
    /// The session; as a child: what was subscribed of it.
    pub session: &'a Session,
    /// What the hook is about.
    pub args: &'a Args<'a>,
    /// The message as received, from `data_post_headers` to `queue`.
    pub message: Option<&'a dyn Message>,
    /// How long the answer may take.
    pub deadline: Duration,
    /// For a host: the settings in force of those plugins that have others here than they were made with.
    pub settings: Option<&'a InForce>,
    /// Whether the client hung up. At `queue` it will send the message again then: a plugin that looks just before it commits itself, and
    /// answers `denysoft` instead, spares the recipients a duplicate. What it answers counts either way.
    pub departure: &'a Departure,
    /// Where the client has to be silent now: whether it is. A plugin may wait for it to speak, by [`Speech::within`].
    pub speech: Option<&'a Speech>,
}

/// The settings in force of plugins in other processes, by the names of the plugins: all of a plugin's own settings, as they are written.
pub type InForce = BTreeMap<String, BTreeMap<String, Value>>;

/// What a plugin is made from.
pub struct Init {
    /// Its name in the configuration.
    pub name: String,
    /// What to load, for a process that hosts plugin files.
    pub source: Option<String>,
    /// Its settings, checked and with defaults.
    pub settings: Settings,
    /// The core's host name.
    pub hostname: String,
    /// What it may ask of the core.
    pub services: Arc<dyn Services>,
    /// An empty folder of its own, for a child.
    pub scratch_dir: Option<PathBuf>,
}

/// A new plugin, or which of its settings are wrong.
pub type Built = Result<Arc<dyn Plugin>, Vec<SettingError>>;

/// A kind of plugin: its name, its settings, and how one is made.
#[derive(Clone, Copy)]
pub struct Definition {
    /// The name in the configuration, such as `queue/maildir`.
    pub name: &'static str,
    /// One sentence for people.
    pub about: &'static str,
    /// The settings it declares.
    pub settings: fn() -> Vec<Setting>,
    /// Makes one, or says which settings are wrong.
    pub build: fn(Init) -> Built,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn priorities_on_the_wire() {
        let places = [
            Priority::First,
            Priority::At(i32::MIN),
            Priority::At(-1),
            Priority::At(0),
            Priority::At(7),
            Priority::Last,
        ];
        assert!(places.is_sorted());
        for place in places {
            let read = place.to_value().as_ref().map(Priority::from_value);
            assert_eq!(read.unwrap_or(Some(Priority::default())), Some(place));
        }
        for wrong in [Value::from("lst"), Value::from(1 << 40), Value::from(true)] {
            assert_eq!(Priority::from_value(&wrong), None, "{wrong:?}");
        }
    }
}
