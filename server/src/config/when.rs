//! `when`: the condition under which a plugin is asked.

/// A condition on the session.
#[derive(Clone, Debug)]
pub struct When;
