//! The session as plugins see it: the connection, its current transaction, and what the hook at hand is about.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::policy::Level;
use crate::verdict::Verdict;
use crate::{Address, HeaderBlock, Hook, Score, Scores, Value};

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
    /// What a plugin knows of who is at the client's end.
    pub remote_info: Option<String>,
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
    /// Why, where somebody said so.
    pub relay_reason: Option<String>,
    /// Why nothing is to be refused.
    pub immune: Option<String>,
    /// Why somebody vouches for the client.
    pub whitelisted: Option<String>,
    /// The deferred rejection.
    pub naughty: Option<Naughty>,
    /// Reputation earned on this connection; plugins add to it.
    pub karma: i64,
    /// The points that plugins gave before MAIL.
    pub scores: Scores,
    /// The user name, after a successful AUTH.
    pub authenticated: Option<String>,
    /// How the connection is encrypted, once it is. Boxed: most connections are not, and wait for long.
    pub tls: Option<Box<Tls>>,
    /// Results for the Authentication-Results header (RFC 8601).
    pub auth_results: Vec<String>,
    /// What plugins noted.
    pub notes: Notes,
}

/// How a connection is encrypted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    /// The protocol's version: `TLSv1.2` or `TLSv1.3`.
    pub version: Cow<'static, str>,
    /// The cipher suite by its IANA name.
    pub cipher: Cow<'static, str>,
    /// The name that the client asked for (SNI, RFC 6066 §3).
    pub server_name: Option<String>,
    /// Whom the client's certificate names, where we verified it.
    pub client_name: Option<String>,
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
    /// RCPT's parameters, in the order of `recipients`. It may be shorter: recipients beyond it have none. Change both by
    /// [`Transaction::add_recipient`] and [`Transaction::remove_recipient`].
    pub recipient_parameters: Vec<Parameters>,
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
    /// Why nothing of this transaction is to be refused.
    pub immune: Option<String>,
    /// Why somebody vouches for this transaction, such as for its sender.
    pub whitelisted: Option<String>,
    /// Why the message is to be set apart.
    pub quarantine: Option<String>,
    /// Which way recipients go that a plugin gave a route.
    pub routes: BTreeMap<Address, String>,
    /// At `queue` and `queue_post`: the route of all recipients at hand.
    pub route: Option<String>,
    /// The points that plugins gave from MAIL on.
    pub scores: Scores,
    /// What plugins noted.
    pub notes: Notes,
}

impl Session {
    /// The points of the connection and of the transaction together, in thousandths.
    pub fn score(&self) -> i64 {
        let (connection, transaction) = (&self.connection.scores, &self.transaction.scores);
        connection.sum().saturating_add(transaction.sum())
    }

    /// Each score of the connection, then of the transaction, as far as they are kept.
    pub fn scores(&self) -> impl Iterator<Item = &Score<'static>> {
        let (connection, transaction) = (&self.connection.scores, &self.transaction.scores);
        connection.entries().iter().chain(transaction.entries())
    }

    /// Why nothing is to be refused: of the connection, else of its transaction.
    pub fn immune(&self) -> Option<&str> {
        let own = self.connection.immune.as_ref();
        own.or(self.transaction.immune.as_ref()).map(String::as_str)
    }

    /// Why somebody vouches for the client, else for its transaction.
    pub fn whitelisted(&self) -> Option<&str> {
        let own = self.connection.whitelisted.as_ref();
        own.or(self.transaction.whitelisted.as_ref())
            .map(String::as_str)
    }

    /// Whether the client, or its transaction, has one of the flags that plugins honour: relay client, whitelisted, immune.
    pub fn is_privileged(&self) -> bool {
        self.connection.relay_client || self.whitelisted().is_some() || self.immune().is_some()
    }

    /// Why plugins are to let the client be, as the log says it; of several flags the first in qpsmtpd's order.
    pub fn privilege(&self) -> Option<Cow<'_, str>> {
        if self.connection.relay_client {
            return Some(match &self.connection.relay_reason {
                Some(reason) => format!("relay client: {reason}").into(),
                None => "relay client".into(),
            });
        }
        self.whitelisted().or(self.immune()).map(Cow::Borrowed)
    }
}

impl Transaction {
    /// Adds an envelope recipient with RCPT's parameters.
    pub fn add_recipient(&mut self, address: Address, parameters: Parameters) {
        if !parameters.is_empty() {
            self.recipient_parameters
                .resize(self.recipients.len(), Parameters::new());
            self.recipient_parameters.push(parameters);
        }
        self.recipients.push(address);
    }

    /// Removes an envelope recipient, wherever it stands among them, with its parameters.
    pub fn remove_recipient(&mut self, address: &Address) {
        self.retain_recipients(|recipient| recipient != address);
    }

    /// Keeps the envelope recipients that `stays` says so of, with their parameters. It is asked of each, in order.
    pub fn retain_recipients(&mut self, mut stays: impl FnMut(&Address) -> bool) {
        let stay: Vec<bool> = self.recipients.iter().map(&mut stays).collect();
        let mut of_parameters = stay.iter();
        self.recipient_parameters
            .retain(|_| of_parameters.next() == Some(&true));
        let mut of_recipients = stay.iter();
        self.recipients
            .retain(|_| of_recipients.next() == Some(&true));
    }

    /// The parameters of the recipient at this place in `recipients`; empty where it has none.
    pub fn parameters_of(&self, recipient: usize) -> &Parameters {
        static NONE: Parameters = Parameters::new();
        self.recipient_parameters.get(recipient).unwrap_or(&NONE)
    }

    /// Whether the client announced addresses or header fields outside ASCII (RFC 6531 §3.4).
    pub fn is_smtputf8(&self) -> bool {
        self.sender_parameters.contains_key("SMTPUTF8")
    }
}

/// Where mail comes from: what a listener is for, or ourselves.
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
    /// Mail of our own, such as notifications: no listener's.
    Local,
}

impl Direction {
    /// The name in the configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Direction::Inbound => "inbound",
            Direction::Submission => "submission",
            Direction::Relay => "relay",
            Direction::Local => "local",
        }
    }
}

/// What a client showed in AUTH (RFC 4954). What a mechanism does not have is `None`; `Debug` shows no secret.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Credentials {
    /// The mechanism, such as `PLAIN`.
    pub mechanism: String,
    /// Who the client says it is. Empty where a token says it alone.
    pub user: String,
    /// The password: PLAIN, LOGIN.
    pub password: Option<String>,
    /// What we gave the client to answer: CRAM-MD5 (RFC 2195).
    pub challenge: Option<String>,
    /// Its answer, in lower-case hexadecimal digits: CRAM-MD5.
    pub response: Option<String>,
    /// The token: XOAUTH2, OAUTHBEARER (RFC 7628).
    pub token: Option<String>,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials")
            .field("mechanism", &self.mechanism)
            .field("user", &self.user)
            .finish_non_exhaustive()
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
    Score "score",
    Authenticated "authenticated",
    TlsVersion "tls_version",
    TlsCipher "tls_cipher",
    TlsServerName "tls_server_name",
    TlsClientName "tls_client_name",
    AuthResults "auth_results",
    Sender "sender",
    SenderParameters "sender_parameters",
    Recipients "recipients",
    RecipientParameters "recipient_parameters",
    Size "size",
    Header "header",
    Path "path",
    HeaderEnd "header_end",
    BodyStart "body_start",
    Quarantine "quarantine",
    Route "route",
    Whitelisted "whitelisted",
    RemoteInfo "remote_info",
}

/// A set of fields.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FieldSet(u64);

impl FieldSet {
    /// No field.
    pub const NONE: FieldSet = FieldSet(0);

    /// The set of these fields.
    pub fn of(fields: &[Field]) -> FieldSet {
        FieldSet(
            fields
                .iter()
                .fold(0, |bits, field| bits | 1_u64 << *field as u8),
        )
    }

    /// Whether the field is in it.
    pub const fn has(self, field: Field) -> bool {
        self.0 & (1_u64 << field as u8) != 0
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
    /// `pre_connection`: how many connections there are of this client's address.
    Arrival {
        /// Those that there are now, this one included.
        connections: u64,
        /// The most that there may be (`[limits]`).
        max_connections: u64,
    },
    /// `helo`, `ehlo`: the client's name for itself.
    Host(Cow<'a, str>),
    /// `helo_parse`, `ehlo_parse`, `mail_parse`, `rcpt_parse`: a command's argument as the client wrote it; `mail_pre`, `rcpt_pre`: the
    /// path of it.
    Line(Cow<'a, str>),
    /// `capabilities`: the lines of the reply to EHLO, without its first.
    Capabilities(Vec<Cow<'a, str>>),
    /// `mail`, `rcpt`.
    Address {
        /// Sender or recipient.
        address: Cow<'a, Address>,
        /// The command's ESMTP parameters.
        parameters: Cow<'a, Parameters>,
    },
    /// `vrfy`, `help`: the rest of the line.
    Argument(Cow<'a, str>),
    /// `data_lines`: a block of the message.
    Lines {
        /// Whole lines as they were received, dots undone.
        lines: Cow<'a, [u8]>,
        /// Where in the message they begin.
        offset: u64,
    },
    /// `unrecognized_command`.
    Command {
        /// The command, in upper case.
        command: Cow<'a, str>,
        /// The rest of the line.
        argument: Cow<'a, str>,
    },
    /// `auth_mechanism`, `auth`: what the client showed.
    Auth(Cow<'a, Credentials>),
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
    /// `log`: a line of the daemon's log.
    Logged {
        /// How grave it is.
        level: Level,
        /// Whose it is; `None`: the core's.
        plugin: Option<Cow<'a, str>>,
        /// Where it was said, if at a hook.
        hook: Option<Hook>,
        /// What it says.
        message: Cow<'a, str>,
    },
    /// `received_line`: the header as it would be.
    Default(Cow<'a, str>),
    /// `config`: the flat file's name.
    Name(Cow<'a, str>),
    /// `recipient_valid`, `user_config`: the address in question.
    Recipient(Cow<'a, Address>),
    /// `user_config`, where it is about one flat file: what has this recipient in its place?
    RecipientFile {
        /// Whose.
        address: Cow<'a, Address>,
        /// The file's name.
        name: Cow<'a, str>,
    },
}

impl Args<'_> {
    /// The address of `mail`, `rcpt`, `recipient_valid` and `user_config`.
    pub fn address(&self) -> Option<&Address> {
        match self {
            Args::Address { address, .. }
            | Args::Recipient(address)
            | Args::RecipientFile { address, .. } => Some(address),
            _ => None,
        }
    }

    /// The one text of `helo`, `ehlo`, `vrfy`, `help`, `received_line`, `config`, and of the hooks before a command is read.
    pub fn text(&self) -> Option<&str> {
        match self {
            Args::Host(text)
            | Args::Line(text)
            | Args::Argument(text)
            | Args::Default(text)
            | Args::Name(text) => Some(text),
            _ => None,
        }
    }
}
