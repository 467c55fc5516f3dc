//! `when`: the condition under which a plugin is asked.

/// A condition on the session.
#[derive(Clone, Debug)]
pub struct When;

impl When {
    /// Whether it holds.
    pub fn holds(&self, _session: &gatepost_protocol::Session) -> bool {
        true
    }
}
