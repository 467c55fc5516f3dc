//! Messages that nobody answers (docs/protocol.md §3.1, §8).

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::policy::Level;

/// `log`, plugin to core.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Log {
    /// A level's name.
    pub level: String,
    /// The line.
    pub message: String,
    /// Whose.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plugin: Option<String>,
    /// The hook it belongs to.
    #[serde(default, rename = "for", skip_serializing_if = "Option::is_none")]
    pub hook: Option<u64>,
    /// It belongs to the hook that came `then`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub then: bool,
    /// Its process told its plugins that follow the log already.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub told: bool,
}

impl Log {
    /// The level; info where the name is unknown.
    pub fn level(&self) -> Level {
        Level::parse(&self.level).unwrap_or(Level::Info)
    }
}

/// `error`, plugin to core: the process cannot go on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Failed {
    /// Why.
    pub message: String,
}

/// `fork`, core to plugin: bring up another worker like this one, at a channel of its own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fork {
    /// The Unix socket that the new worker connects to.
    pub path: PathBuf,
}

/// `goodbye`, core to plugin: no more hooks will come.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Goodbye {}
