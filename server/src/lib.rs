//! Gatepost, an SMTP daemon whose behaviour is its plugins. `docs/architecture.md` tells which room does what and who may use whom.

pub mod chain;
pub mod cli;
pub mod config;
pub mod dialog;
pub mod host;
pub mod listen;
pub mod message;
pub mod outbox;
pub mod plugins;
pub mod report;
pub mod services;
