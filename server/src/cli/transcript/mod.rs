//! Dialogue files: an SMTP conversation as text, with the configuration at its head, played against a running server.
//!
//! `gatepost plugin test` and the black-box tests share this. It needs an address to talk to, the server's log and the folders it
//! writes to, and knows nothing of how the server was started. `docs/testing.md` describes the form of the files.

mod beside;
mod client;
mod daemon;
mod dns;
mod head;
mod log;
mod mail;
mod parse;
mod pattern;
mod run;
#[cfg(test)]
mod tests;
mod tls;

pub use daemon::{Daemon, perform};
pub use dns::{Dns, Zone};
pub use head::{Head, Places};
pub use log::{Log, text_of};
pub use mail::{Mailbox, files, spooled};
pub use parse::{Dialogue, Mistake};
pub use run::{Failure, Stage, never_logged, play};
