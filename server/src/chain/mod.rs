//! Hook in, verdict out: the order of the plugins, the operator's policy, and the changes that plugins ask for.

use std::sync::Arc;

use gatepost_protocol::{Args, EnhancedCode, Field, Hook, Message, Session, Verdict};

/// The plugins in their order, and per hook the ones that take part.
pub struct Chain {}

/// A session on its way through the chain: what plugins see of it, and what they still owe.
#[derive(Default)]
pub struct Visit {
    /// The session. The dialog keeps it true; plugins' changes are applied to it.
    pub session: Session,
}

/// What the chain decided.
#[derive(Clone, Debug)]
pub struct Decision {
    /// The verdict, with the operator's policy applied. `Declined` where nobody decided.
    pub verdict: Verdict,
    /// Whose verdict it is.
    pub plugin: Option<Arc<str>>,
    /// The reply code the plugin asked for.
    pub code: Option<u16>,
    /// The enhanced code the plugin asked for.
    pub enhanced: Option<EnhancedCode>,
    /// The reply's lines, safe for the wire; empty where the usual text is to be said.
    pub lines: Vec<String>,
    /// The answer to `received_line` and `config`.
    pub values: Vec<String>,
}

impl Decision {
    /// Nobody had anything to say.
    pub fn declined() -> Decision {
        Decision {
            verdict: Verdict::Declined,
            plugin: None,
            code: None,
            enhanced: None,
            lines: Vec::new(),
            values: Vec::new(),
        }
    }
}

impl Chain {
    /// Whether anybody takes part in a hook; asking costs nothing.
    pub fn asks(&self, _hook: Hook) -> bool {
        false
    }

    /// Whether anybody subscribed to a field, at any hook.
    pub fn wants(&self, _field: Field) -> bool {
        false
    }

    /// Puts a hook to the plugins, applies what they change, and says what was decided. For events: tells, and returns `Declined` at once.
    pub async fn run(
        &self,
        _visit: &mut Visit,
        _hook: Hook,
        _args: &Args<'_>,
        _message: Option<&dyn Message>,
    ) -> Decision {
        Decision::declined()
    }
}
