//! The settings that mean the same on every plugin (docs/protocol.md §6.2), and the levels of the log.

use serde::{Deserialize, Serialize};

use crate::Verdict;
use crate::value::Value;

/// Whether a failure costs the client anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reject {
    /// `false`: it is logged and tolerated.
    Tolerate,
    /// `true`: the client is refused now.
    Now,
    /// `"naughty"`: it is kept for the phase where the plugin `naughty` stands.
    Naughty,
}

/// With which verdict a failure is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RejectType {
    /// For good.
    Perm,
    /// For now.
    Temp,
    /// For good, and the connection is closed.
    Disconnect,
    /// For now, and the connection is closed.
    TempDisconnect,
    /// Not at all: the message is thrown away.
    Discard,
    /// Not at all: the message is kept in the store, for a limited time.
    Quarantine,
    /// Not at all: the message is kept in the store until somebody decides.
    Hold,
}

/// What happens when a plugin cannot answer: it crashed, timed out, broke the protocol, or said `error`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnError {
    /// Refuse for now.
    TempFail,
    /// Go on as if the plugin were not there.
    Skip,
    /// Refuse for good.
    Reject,
}

/// What becomes of clients that have one of the core's flags: relay client, whitelisted, immune.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Immune {
    /// `"skip"`: the plugin is not asked about them.
    Skip,
    /// `"tolerate"`: it is asked, and a failure costs them nothing.
    Tolerate,
    /// `false`: the same as of all others.
    Ignore,
}

/// A plugin's own defaults for the uniform settings; what is `None` is left to the core.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Policy {
    /// See [`Reject`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reject: Option<Reject>,
    /// See [`RejectType`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reject_type: Option<RejectType>,
    /// See [`OnError`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_error: Option<OnError>,
    /// See [`Immune`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub immune: Option<Immune>,
}

impl RejectType {
    /// The verdict it stands for.
    pub const fn verdict(self) -> Verdict {
        match self {
            RejectType::Perm => Verdict::Deny,
            RejectType::Temp => Verdict::DenySoft,
            RejectType::Disconnect => Verdict::DenyDisconnect,
            RejectType::TempDisconnect => Verdict::DenySoftDisconnect,
            RejectType::Discard => Verdict::Discard,
            RejectType::Quarantine => Verdict::Quarantine,
            RejectType::Hold => Verdict::Hold,
        }
    }
}

/// A setting that is written as one word, or as true or false.
macro_rules! worded {
    ($type:ident { $($variant:ident $word:expr,)* }) => {
        impl $type {
            /// The words it is written with, for messages.
            pub const WORDS: &'static [&'static str] = &[$($word),*];

            /// Reads it from a configuration or a message.
            pub fn from_value(value: &Value) -> Option<$type> {
                let word = match value {
                    Value::Boolean(truth) => if *truth { "true" } else { "false" },
                    other => other.as_text()?,
                };
                $(if word == $word { return Some($type::$variant); })*
                None
            }

            /// The word it is written with.
            pub const fn word(self) -> &'static str {
                match self { $($type::$variant => $word,)* }
            }
        }

        impl Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                match self.word() {
                    "true" => serializer.serialize_bool(true),
                    "false" => serializer.serialize_bool(false),
                    word => serializer.serialize_str(word),
                }
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let value = Value::deserialize(deserializer)?;
                $type::from_value(&value).ok_or_else(|| {
                    serde::de::Error::custom(format!("expected one of {}", Self::WORDS.join(", ")))
                })
            }
        }
    };
}

worded!(Reject { Tolerate "false", Now "true", Naughty "naughty", });
worded!(RejectType {
    Perm "perm",
    Temp "temp",
    Disconnect "disconnect",
    TempDisconnect "temp_disconnect",
    Discard "discard",
    Quarantine "quarantine",
    Hold "hold",
});
worded!(OnError { TempFail "tempfail", Skip "skip", Reject "reject", });
worded!(Immune { Skip "skip", Tolerate "tolerate", Ignore "false", });

/// A log level, syslog's eight, the gravest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Level {
    /// 0
    Emerg,
    /// 1
    Alert,
    /// 2
    Crit,
    /// 3
    Error,
    /// 4
    Warn,
    /// 5
    Notice,
    /// 6
    Info,
    /// 7
    Debug,
}

impl Level {
    /// Every level, by its number.
    pub const ALL: [Level; 8] = [
        Level::Emerg,
        Level::Alert,
        Level::Crit,
        Level::Error,
        Level::Warn,
        Level::Notice,
        Level::Info,
        Level::Debug,
    ];
    /// The levels' names, by number.
    pub const NAMES: [&'static str; 8] = [
        "emerg", "alert", "crit", "error", "warn", "notice", "info", "debug",
    ];

    /// The name.
    pub const fn name(self) -> &'static str {
        Level::NAMES[self as usize]
    }

    /// The level of a name or of a number from 0 to 7.
    pub fn parse(text: &str) -> Option<Level> {
        let index = Level::NAMES.iter().position(|name| *name == text);
        let number = || text.parse::<usize>().ok().filter(|number| *number < 8);
        index.or_else(number).map(|index| Level::ALL[index])
    }

    /// `by` steps more talkative (or, negative, graver), within the eight.
    pub fn shifted(self, by: i8) -> Level {
        Level::ALL[(self as i8).saturating_add(by).clamp(0, 7) as usize]
    }
}
