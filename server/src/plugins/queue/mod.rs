//! The plugins that take a message over. Each answers `ok` only when somebody is answerable for the message.

use gatepost_protocol::{EnhancedCode, Outcome, Verdict};

pub mod discard;
mod envelope;
pub mod maildir;
mod smtp_client;
pub mod smtp_forward;

/// The client hung up before anything was kept. Nobody reads the reply; the verdict ends the walk.
fn given_up() -> Outcome {
    Outcome::skip("given up: the client is gone, and will send the message again")
        .with_verdict(Verdict::DenySoft)
        .with_code(451, EnhancedCode(4, 4, 2))
}
