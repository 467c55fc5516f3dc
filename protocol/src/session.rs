//! The session as plugins see it: the connection, its current transaction, and what the hook at hand is about.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::verdict::Verdict;
use crate::{Address, HeaderBlock, Hook, Value};

/// Notes: plain data that plugins leave for each other, by name.
pub type Notes = BTreeMap<String, Value>;

/// ESMTP parameters of MAIL or RCPT: the keyword in upper case, and its value where it has one (RFC 5321 §4.1.2).
pub type Parameters = BTreeMap<String, Option<String>>;

/// A connection with its current transaction.
#[derive(Clone, Debug, Default)]
pub struct Session {
    /// Identifies the connection in logs and on the wire.
    pub id: Box<str>,
    /// What lasts as long as the connection.
    pub connection: Connection,
    /// What lasts from MAIL to the end of the message.
    pub transaction: Transaction,
}

/// What lasts as long as the connection.
#[derive(Clone, Debug, Default)]
pub struct Connection {
    /// The client.
    pub remote: Option<SocketAddr>,
    /// Our end.
    pub local: Option<SocketAddr>,
    /// The client's name by reverse DNS, confirmed forward.
    pub remote_host: Option<String>,
    /// What the listener is for.
    pub direction: Direction,
    /// How the client greeted, once accepted: `HELO` or `EHLO`.
    pub hello: Option<Cow<'static, str>>,
    /// The greeting's argument.
    pub hello_host: Option<String>,
    /// Sent something before it was its turn: before the greeting, behind HELO or EHLO, or behind DATA.
    pub early_talker: bool,
    /// May relay through us.
    pub relay_client: bool,
    /// Why nothing is to be refused.
    pub immune: Option<String>,
    /// The deferred rejection.
    pub naughty: Option<Naughty>,
    /// Reputation earned on this connection; plugins add to it.
    pub karma: i64,
    /// The user name, after a successful AUTH.
    pub authenticated: Option<String>,
    /// Results for the Authentication-Results header (RFC 8601).
    pub auth_results: Vec<String>,
    /// What plugins noted.
    pub notes: Notes,
}

/// A rejection kept for a later phase.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Naughty {
    /// The plugin that wanted it.
    pub plugin: String,
    /// What the client is to be told.
    pub message: String,
    /// The verdict it wanted.
    pub verdict: Verdict,
}

/// What lasts from MAIL to the end of the message.
#[derive(Clone, Debug, Default)]
pub struct Transaction {
    /// Its number in the session, from 1; 0 where there is none.
    pub number: u32,
    /// The envelope sender, once MAIL was accepted.
    pub sender: Option<Address>,
    /// MAIL's parameters.
    pub sender_parameters: Parameters,
    /// The envelope recipients accepted so far.
    pub recipients: Vec<Address>,
    /// Bytes of the message as received.
    pub size: u64,
    /// The header block with its edits, from `data_headers_end` on.
    pub header: Option<HeaderBlock>,
    /// Where the header block ends in the message as received: the empty line and the body follow.
    pub header_end: u64,
    /// Where the body begins in the message as received, behind the empty line.
    pub body_start: u64,
    /// The message as a file, where somebody asked for one.
    pub path: Option<std::path::PathBuf>,
    /// Why the message is to be set apart.
    pub quarantine: Option<String>,
    /// What plugins noted.
    pub notes: Notes,
}

/// What a listener is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// Mail from strangers.
    #[default]
    Inbound,
    /// Mail from our users.
    Submission,
    /// Mail between our own servers.
    Relay,
}

impl Direction {
    /// The name in the configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Direction::Inbound => "inbound",
            Direction::Submission => "submission",
            Direction::Relay => "relay",
        }
    }
}

macro_rules! fields {
    ($($variant:ident $name:literal,)*) => {
        /// A part of the session that a plugin in another process can subscribe to (docs/protocol.md §5.2).
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub enum Field {
            $(#[doc = concat!("`", $name, "`")] $variant,)*
        }

        impl Field {
            /// Every field.
            pub const ALL: &'static [Field] = &[$(Field::$variant),*];

            /// The name on the wire.
            pub const fn name(self) -> &'static str {
                match self { $(Field::$variant => $name,)* }
            }

            /// The field of that name.
            pub fn from_name(name: &str) -> Option<Field> {
                match name { $($name => Some(Field::$variant),)* _ => None }
            }
        }
    };
}

fields! {
    RemoteIp "remote_ip",
    RemotePort "remote_port",
    RemoteHost "remote_host",
    LocalIp "local_ip",
    LocalPort "local_port",
    Direction "direction",
    Hello "hello",
    HelloHost "hello_host",
    EarlyTalker "early_talker",
    RelayClient "relay_client",
    Immune "immune",
    Naughty "naughty",
    Karma "karma",
    Authenticated "authenticated",
    AuthResults "auth_results",
    Sender "sender",
    SenderParameters "sender_parameters",
    Recipients "recipients",
    Size "size",
    Header "header",
    Path "path",
    HeaderEnd "header_end",
    BodyStart "body_start",
    Quarantine "quarantine",
}

/// A set of fields.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FieldSet(u32);

impl FieldSet {
    /// No field.
    pub const NONE: FieldSet = FieldSet(0);

    /// The set of these fields.
    pub fn of(fields: &[Field]) -> FieldSet {
        FieldSet(
            fields
                .iter()
                .fold(0, |bits, field| bits | 1 << *field as u8),
        )
    }

    /// Whether the field is in it.
    pub const fn has(self, field: Field) -> bool {
        self.0 & (1 << field as u8) != 0
    }

    /// Both sets together.
    #[must_use]
    pub const fn union(self, other: FieldSet) -> FieldSet {
        FieldSet(self.0 | other.0)
    }

    /// The fields in it.
    pub fn iter(self) -> impl Iterator<Item = Field> {
        Field::ALL
            .iter()
            .copied()
            .filter(move |field| self.has(*field))
    }
}

/// What the hook at hand is about (docs/protocol.md §5.1).
#[derive(Clone, Debug)]
pub enum Args<'a> {
    /// Nothing.
    None,
    /// `helo`, `ehlo`: the client's name for itself.
    Host(Cow<'a, str>),
    /// `mail`, `rcpt`.
    Address {
        /// Sender or recipient.
        address: Cow<'a, Address>,
        /// The command's ESMTP parameters.
        parameters: Cow<'a, Parameters>,
    },
    /// `vrfy`, `help`: the rest of the line.
    Argument(Cow<'a, str>),
    /// `unrecognized_command`.
    Command {
        /// The command, in upper case.
        command: Cow<'a, str>,
        /// The rest of the line.
        argument: Cow<'a, str>,
    },
    /// `deny`, `ok`: what became of a plugin's outcome.
    Decided {
        /// The plugin.
        plugin: Cow<'a, str>,
        /// The hook it was asked at.
        hook: Hook,
        /// The verdict as the policy made it.
        verdict: Verdict,
        /// The plugin's sentence.
        message: Cow<'a, str>,
    },
    /// `received_line`: the header as it would be.
    Default(Cow<'a, str>),
    /// `config`: the flat file's name.
    Name(Cow<'a, str>),
}

impl Args<'_> {
    /// The address of `mail` and `rcpt`.
    pub fn address(&self) -> Option<&Address> {
        match self {
            Args::Address { address, .. } => Some(address),
            _ => None,
        }
    }

    /// The one text of `helo`, `ehlo`, `vrfy`, `help`, `received_line` and `config`.
    pub fn text(&self) -> Option<&str> {
        match self {
            Args::Host(text) | Args::Argument(text) | Args::Default(text) | Args::Name(text) => {
                Some(text)
            }
            _ => None,
        }
    }
}
