//! `gatepost.toml` to typed settings, and the flat files beside it.

mod auth;
mod core;
mod flat;
mod listen;
mod load;
mod location;
mod mistakes;
pub mod parts;
mod plugin;
mod program;
mod reader;
mod source_text;
#[cfg(test)]
mod tests;
mod types;
mod value;
mod when;

pub use auth::MECHANISMS;
pub use flat::FlatFiles;
pub use load::{BUILT_IN, load, parse};
pub use location::Location;
pub use mistakes::{Mistake, Mistakes, Place, Spans};
pub use types::*;
pub use when::When;
