//! Stands in for the outbox until it is there.

use std::io;
use std::sync::Arc;

use gatepost_protocol::{Address, EnhancedCode, Message, Parameters, Session};

use crate::config::Config;

/// A recipient that a message did not reach.
pub struct Failure {
    /// Who.
    pub recipient: Address,
    /// RCPT's.
    pub parameters: Parameters,
    /// Reply code.
    pub code: u16,
    /// Enhanced code.
    pub enhanced: Option<EnhancedCode>,
    /// What the client would have been told.
    pub text: String,
}

/// The outbox.
pub struct Outbox;

impl Outbox {
    /// Opens it.
    pub fn open(_config: &Config) -> io::Result<Arc<Outbox>> {
        Ok(Arc::new(Outbox))
    }

    /// Sends notifications.
    pub async fn bounce(
        &self,
        _session: &Session,
        _message: &dyn Message,
        _failures: &[Failure],
    ) -> io::Result<()> {
        Err(io::Error::other("not there yet"))
    }

    /// Keeps a message.
    pub async fn keep(
        &self,
        _session: &Session,
        _message: &dyn Message,
        _why: &str,
    ) -> io::Result<()> {
        Err(io::Error::other("not there yet"))
    }
}
