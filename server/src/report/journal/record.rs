//! What is written down of a session: one record for each transaction, a line of JSON (docs/explain.md).

use std::borrow::Cow;

use gatepost_protocol::Disposition;
use serde::{Deserialize, Serialize};

/// Text that is borrowed where it is written, and owned where it is read.
pub type Text<'a> = Cow<'a, str>;

/// A transaction; or a session, or the end of one, that had none. Its steps stand behind it on the same line.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Record<'a> {
    /// The session and the number of the transaction, as in `Queued as 3f9a1c.1`; the session alone where there was none.
    pub id: Text<'a>,
    /// When the session began, in UTC.
    pub began: Text<'a>,
    /// Microseconds from there to the end of the record.
    pub took: u64,
    /// The client's address and port; empty for one without.
    #[serde(default, skip_serializing_if = "str::is_empty")]
    pub client: Text<'a>,
    /// How it greeted, such as `EHLO client.example`.
    #[serde(default, skip_serializing_if = "str::is_empty")]
    pub hello: Text<'a>,
    /// The version of TLS.
    #[serde(default, skip_serializing_if = "str::is_empty")]
    pub tls: Text<'a>,
    /// Who it authenticated as.
    #[serde(default, skip_serializing_if = "str::is_empty")]
    pub user: Text<'a>,
    /// The envelope sender, where MAIL was accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sender: Option<Text<'a>>,
    /// Bytes of the message as it came.
    #[serde(default, skip_serializing_if = "is_nothing")]
    pub size: u64,
    /// What became of each recipient that the client named.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub recipients: Vec<Told>,
    /// Steps that are not there, since there were too many.
    #[serde(default, skip_serializing_if = "is_nothing")]
    pub left_out: u64,
    /// What happened, in order.
    #[serde(default, skip_serializing)]
    pub steps: Vec<Step<'a>>,
}

/// What became of a recipient.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Told {
    /// Who.
    pub address: String,
    /// The reply that the client had for it, the last that counts; empty where there was none.
    pub reply: String,
    /// What became of the message for it, in words.
    pub became: String,
}

/// One thing that happened.
#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Step<'a> {
    /// A plugin's turn.
    #[serde(bound(deserialize = "Turn<'a>: Deserialize<'de>"))]
    Turn(Turn<'a>),
    /// A command and its reply.
    Reply(Reply<'a>),
}

/// A plugin's turn at a hook.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Turn<'a> {
    /// Microseconds from the session's beginning to the answer.
    pub at: u64,
    /// Microseconds that the answer took; `None`: it came together with the one before, or had been there already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub took: Option<u64>,
    /// Where it was asked.
    pub hook: Text<'a>,
    /// Who, by its name in the chain.
    pub plugin: Text<'a>,
    /// What it found; `None`: it had nothing to say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub found: Option<Disposition>,
    /// Where it found that, if it was at another hook.
    #[serde(default, skip_serializing_if = "str::is_empty")]
    pub found_at: Text<'a>,
    /// What it said.
    #[serde(default, skip_serializing_if = "str::is_empty")]
    pub message: Text<'a>,
    /// What it would have had done, where that is not what was.
    #[serde(default, skip_serializing_if = "str::is_empty")]
    pub wanted: Text<'a>,
    /// What was done; empty: the next plugin was asked.
    #[serde(default, skip_serializing_if = "str::is_empty")]
    pub verdict: Text<'a>,
    /// What the policy made of a failure, as in the log.
    #[serde(default, skip_serializing_if = "str::is_empty")]
    pub mark: Text<'a>,
    /// Whom it is about, where that is not everybody.
    #[serde(default, skip_serializing_if = "str::is_empty")]
    pub recipients: Text<'a>,
    /// What it changed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<Text<'a>>,
    /// The settings that decided, with their places.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub because: Vec<Text<'a>>,
}

/// A command and its reply.
#[derive(Debug, Serialize, Deserialize)]
pub struct Reply<'a> {
    /// Microseconds from the session's beginning to the reply.
    pub at: u64,
    /// The command, without what is secret; empty for the greeting.
    pub command: Text<'a>,
    /// The reply, its lines with LF between; those of EHLO without the list.
    pub reply: Text<'a>,
    /// The settings of the core that decided, with their places.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub because: Vec<Text<'a>>,
}

fn is_nothing(number: &u64) -> bool {
    *number == 0
}
