//! The plugins that take a message over. Each answers `ok` only when somebody is answerable for the message.

pub mod discard;
mod envelope;
pub mod maildir;
mod smtp_client;
pub mod smtp_forward;
