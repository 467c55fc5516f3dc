//! The message as bytes: the spool, the end of data, the trace headers.

mod block;
pub mod data;
pub mod date;
pub mod dsn;
mod intake;
pub mod spool;
mod spooled;
pub mod trace;

pub use intake::Intake;
pub use spool::Spool;
pub use spooled::Spooled;
