//! `gatepost.toml` to typed settings, and the flat files beside it.

mod auth;
mod core;
mod flat;
mod listen;
mod load;
mod location;
mod mistakes;
mod outbox;
pub mod parts;
mod plugin;
mod program;
mod quarantine;
mod reader;
mod scopes;
mod source_text;
mod stamp;
#[cfg(test)]
mod tests;
mod tls;
mod types;
mod value;
mod when;

pub use auth::MECHANISMS;
pub use core::system_hostname;
pub use flat::FlatFiles;
pub use load::{BUILT_IN, load, parse};
pub use location::Location;
pub use mistakes::{Mistake, Mistakes, Place, Spans};
pub use scopes::{Override, Scope, Scopes};
pub use stamp::Stamp;
pub use types::*;
pub use when::When;
