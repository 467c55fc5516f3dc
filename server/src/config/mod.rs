//! `gatepost.toml` to typed settings, and the flat files beside it.

mod auth;
mod brought;
mod confine;
mod core;
mod flat;
mod listen;
mod load;
mod location;
mod mistakes;
mod origins;
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
mod user_folder;
mod value;
mod when;

pub use auth::MECHANISMS;
pub use brought::settings_text;
pub use confine::Confinement;
pub use core::system_hostname;
pub use flat::FlatFiles;
pub use load::{BUILT_IN, load, parse, parse_user};
pub use location::Location;
pub use mistakes::{Mistake, Mistakes, Place, Spans};
pub use origins::{CoreOrigins, MaxSize};
pub use scopes::{Override, Scope, Scopes};
pub use stamp::Stamp;
pub use types::*;
pub use user_folder::{FolderState, UserFolders, UserSettings, read_user_folder, user_file};
pub use when::When;
