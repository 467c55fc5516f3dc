//! `gatepost.toml` to typed settings.

mod location;
mod types;
mod when;

pub use location::Location;
pub use types::*;
pub use when::When;
