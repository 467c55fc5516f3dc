//! What is known of a message in the outbox besides its bytes: a small JSON file beside them.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use gatepost_protocol::{
    Address, Connection, Direction, HeaderBlock, Parameters, Session, Transaction,
};
use serde::{Deserialize, Serialize};

use super::store;

/// Milliseconds since 1970, as the file has them.
pub type Millis = u64;

/// What is known of a message in the outbox.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Envelope {
    /// What it is.
    pub kind: Kind,
    /// The transaction that it comes from, as in the log.
    pub origin: String,
    /// When that was.
    pub arrived: Millis,
    /// When it was released, if it was withheld.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub released: Option<Millis>,
    /// Attempts that were made.
    pub attempts: u32,
    /// When the next one is due.
    pub due: Millis,
    /// Why it is still here.
    pub reason: String,
    /// Its sender knows that it is late.
    #[serde(default)]
    pub delay_told: bool,
    /// The envelope sender.
    pub sender: Address,
    /// MAIL's parameters.
    pub sender_parameters: Parameters,
    /// Who has not got it yet.
    pub recipients: Vec<Recipient>,
    /// Why it is set apart.
    pub quarantine: Option<String>,
    /// Why nobody is to get it until somebody releases it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub withheld: Option<Withheld>,
    /// How it came in.
    pub client: Client,
    /// Bytes of the message.
    pub size: u64,
    /// Where its header block ends.
    pub header_end: u64,
    /// Where its body begins.
    pub body_start: u64,
}

/// What a message in the outbox is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A message that some of its recipients could not take yet.
    Message,
    /// A notification of ours.
    Notification,
}

/// Who withheld a message, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Withheld {
    /// How.
    pub kind: store::Kind,
    /// Whose decision it was.
    pub plugin: String,
    /// What the plugin said.
    pub reason: String,
}

/// Who is to get it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Recipient {
    /// The address.
    pub address: Address,
    /// RCPT's parameters.
    #[serde(default, skip_serializing_if = "Parameters::is_empty")]
    pub parameters: Parameters,
    /// The way it goes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route: Option<String>,
}

/// How a message came in: what decides, with the operator's `when`, who is asked to take it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Client {
    pub direction: Direction,
    pub remote: Option<SocketAddr>,
    pub local: Option<SocketAddr>,
    pub remote_host: Option<String>,
    pub hello: Option<String>,
    pub hello_host: Option<String>,
    pub relay_client: bool,
    pub immune: Option<String>,
    pub whitelisted: Option<String>,
    pub authenticated: Option<String>,
}

impl Kind {
    /// The word for it in lists.
    pub const fn name(self) -> &'static str {
        match self {
            Kind::Message => "message",
            Kind::Notification => "notification",
        }
    }
}

impl Client {
    /// Of a session whose transaction is at hand.
    pub fn of(session: &Session) -> Client {
        let connection = &session.connection;
        Client {
            direction: connection.direction,
            remote: connection.remote,
            local: connection.local,
            remote_host: connection.remote_host.clone(),
            hello: connection.hello.as_deref().map(str::to_owned),
            hello_host: connection.hello_host.clone(),
            relay_client: connection.relay_client,
            immune: session.immune().map(str::to_owned),
            whitelisted: session.whitelisted().map(str::to_owned),
            authenticated: connection.authenticated.clone(),
        }
    }

    /// Ourselves: our own mail may go anywhere.
    pub fn ourselves() -> Client {
        Client {
            relay_client: true,
            ..Client::of(&Session {
                connection: Connection {
                    direction: Direction::Local,
                    ..Connection::default()
                },
                ..Session::default()
            })
        }
    }
}

impl Envelope {
    /// That of a message of our own, from nobody, with a header block of `header_end` bytes and an empty line behind it; it came just now and is due at once.
    /// All lengths in bytes.
    pub fn of_our_own(
        kind: Kind,
        origin: String,
        recipients: Vec<Recipient>,
        size: u64,
        header_end: u64,
    ) -> Envelope {
        let now = millis(SystemTime::now());
        Envelope {
            kind,
            origin,
            arrived: now,
            released: None,
            attempts: 0,
            due: now,
            reason: String::new(),
            delay_told: false,
            sender: Address::default(),
            sender_parameters: Parameters::new(),
            recipients,
            quarantine: None,
            withheld: None,
            client: Client::ourselves(),
            size,
            header_end,
            body_start: header_end + 2,
        }
    }

    /// The session in which the message is to be delivered, with all of its recipients. `number` is the attempt's.
    pub fn session(
        &self,
        id: &str,
        number: u32,
        header: HeaderBlock,
        path: Option<PathBuf>,
    ) -> Session {
        let client = self.client.clone();
        let mut transaction = Transaction {
            number,
            sender: Some(self.sender.clone()),
            sender_parameters: self.sender_parameters.clone(),
            size: self.size,
            header: Some(header),
            header_end: self.header_end,
            body_start: self.body_start,
            path,
            quarantine: self.quarantine.clone(),
            ..Transaction::default()
        };
        for recipient in &self.recipients {
            let Recipient {
                address,
                parameters,
                route,
            } = recipient.clone();
            if let Some(route) = route {
                transaction.routes.insert(address.clone(), route);
            }
            transaction.add_recipient(address, parameters);
        }
        Session {
            id: id.into(),
            connection: Connection {
                direction: client.direction,
                remote: client.remote,
                local: client.local,
                remote_host: client.remote_host,
                hello: client.hello.map(Cow::Owned),
                hello_host: client.hello_host,
                relay_client: client.relay_client,
                immune: client.immune,
                whitelisted: client.whitelisted,
                authenticated: client.authenticated,
                ..Connection::default()
            },
            transaction,
        }
    }

    /// The same once it is released: it waits for its first attempt. Who releases what was quarantined says that it is not to be set apart.
    pub fn released(&self, now: Millis) -> Envelope {
        let mut released = Envelope {
            released: Some(now),
            due: now,
            ..self.clone()
        };
        if let Some(Withheld {
            kind,
            plugin,
            reason,
        }) = released.withheld.take()
        {
            released.reason = format!("released; it was {} by {plugin}: {reason}", kind.name());
            if kind == store::Kind::Quarantine {
                released.quarantine = None;
            }
        }
        released
    }

    /// So long after it came. The time while it was withheld does not count.
    pub fn after(&self, age: Duration) -> Millis {
        let since = self.released.unwrap_or(self.arrived);
        since.saturating_add(millis_of(age))
    }
}

/// A transaction's recipients.
pub fn recipients_of(transaction: &Transaction) -> Vec<Recipient> {
    let recipients = transaction.recipients.iter().enumerate();
    recipients
        .map(|(at, address)| Recipient {
            address: address.clone(),
            parameters: transaction.parameters_of(at).clone(),
            route: transaction.routes.get(address).cloned(),
        })
        .collect()
}

/// A time as the file has it.
pub fn millis(time: SystemTime) -> Millis {
    time.duration_since(UNIX_EPOCH).map_or(0, millis_of)
}

/// A duration in milliseconds.
pub fn millis_of(duration: Duration) -> Millis {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// The time that a file has; the year 10000 at most.
pub fn time(millis: Millis) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(millis.min(253_402_300_799_000))
}
