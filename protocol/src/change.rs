//! What a plugin asks to have changed (docs/protocol.md §6.3). The core applies changes; a plugin never writes to a session.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::session::{Naughty, Parameters, Session};
use crate::{Address, Hook, Value, Verdict};

/// The most a note may weigh, in bytes.
pub const MAX_NOTE: usize = 64 * 1024;
/// The most all notes of a session may weigh, in bytes.
pub const MAX_NOTES: usize = 1024 * 1024;
/// How many recipients a plugin can bring a transaction to; and how many can have a route.
pub const MAX_RECIPIENTS: usize = 10_000;
/// How many header fields plugins can add to a message.
pub const MAX_ADDED_FIELDS: usize = 1000;
/// How many results for the Authentication-Results header there can be.
pub const MAX_AUTH_RESULTS: usize = 1000;

/// The longest route, in bytes.
pub const MAX_ROUTE: usize = 255;

/// The most points that are given at once, in thousandths.
pub const MAX_POINTS: i64 = 1_000_000_000;
/// The longest reason for a score, in bytes.
pub const MAX_SCORE_REASON: usize = 255;

/// The longest `remote_info`, in bytes.
pub const MAX_REMOTE_INFO: usize = 255;

/// How long a note or a flag lasts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// As long as the connection.
    #[default]
    Connection,
    /// As long as the transaction.
    Transaction,
}

impl Scope {
    /// Whether it is what an absent scope stands for.
    fn is_connection(&self) -> bool {
        *self == Scope::Connection
    }
}

/// Where a header field is added.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Edge {
    /// Above all others.
    #[default]
    Top,
    /// Below all others.
    Bottom,
    /// Below so many others; below all where there are not so many.
    Below(u32),
}

impl Serialize for Edge {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Edge::Top => serializer.serialize_str("top"),
            Edge::Bottom => serializer.serialize_str("bottom"),
            Edge::Below(number) => serializer.serialize_u32(*number),
        }
    }
}

impl<'de> Deserialize<'de> for Edge {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        let number = value.as_integer().map(u32::try_from);
        match (value.as_text(), number) {
            (Some("top"), _) => Ok(Edge::Top),
            (Some("bottom"), _) => Ok(Edge::Bottom),
            (_, Some(Ok(number))) => Ok(Edge::Below(number)),
            _ => Err(serde::de::Error::custom(
                "a place in the header is `top`, `bottom`, or how many fields are above it",
            )),
        }
    }
}

/// One change to the session.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Change {
    /// Set a note, or remove it with [`Value::Nil`].
    Note {
        /// How long it lasts.
        scope: Scope,
        /// Its name.
        name: String,
        /// Its value.
        #[serde(default)]
        value: Value,
    },
    /// Add a header field.
    AddHeader {
        /// Field name.
        name: String,
        /// Field value, folded or not.
        value: Bytes,
        /// Where.
        #[serde(default)]
        at: Edge,
    },
    /// Replace a header field, or add it at the bottom.
    ReplaceHeader {
        /// Field name.
        name: String,
        /// Field value, folded or not.
        value: Bytes,
        /// Which of that name, from 1; absent: the first.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        nth: Option<usize>,
    },
    /// Remove header fields.
    RemoveHeader {
        /// Field name.
        name: String,
        /// Which of that name, from 1; absent: all.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        nth: Option<usize>,
    },
    /// Add an envelope recipient.
    AddRecipient {
        /// Who.
        address: Address,
    },
    /// Remove an envelope recipient.
    RemoveRecipient {
        /// Who.
        address: Address,
    },
    /// Replace the envelope sender.
    SetSender {
        /// Who.
        address: Address,
    },
    /// Add to the connection's karma.
    Karma {
        /// How much.
        add: i64,
    },
    /// Add to the score.
    Score {
        /// How much, in thousandths of a point; less than 0 speaks for the client.
        points: i64,
        /// Why, in a sentence.
        #[serde(default)]
        reason: String,
    },
    /// Let the client relay, or not.
    RelayClient {
        /// Whether.
        value: bool,
        /// Why, for the log.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
    /// Refuse nothing from here on; without a reason: no longer.
    Immune {
        /// Why.
        #[serde(default)]
        reason: Option<String>,
        /// How long it lasts.
        #[serde(default, skip_serializing_if = "Scope::is_connection")]
        scope: Scope,
    },
    /// Somebody vouches for the client or its sender; without a reason: no longer.
    Whitelisted {
        /// Why.
        #[serde(default)]
        reason: Option<String>,
        /// How long it lasts.
        #[serde(default, skip_serializing_if = "Scope::is_connection")]
        scope: Scope,
    },
    /// Defer a rejection; without a message: drop the one that was deferred.
    Naughty {
        /// What the client is to be told.
        #[serde(default)]
        message: Option<String>,
    },
    /// Add to the Authentication-Results header.
    AuthResult {
        /// As in RFC 8601, `method=result property=value`.
        text: String,
    },
    /// Set the message apart; without a reason: no longer.
    Quarantine {
        /// Why.
        #[serde(default)]
        reason: Option<String>,
    },
    /// Send a recipient, or without one all of them, a way that queue plugins know by this name; without a route: no way of their own.
    Route {
        /// Who.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        address: Option<Address>,
        /// Which way.
        #[serde(default)]
        route: Option<String>,
    },
    /// The client's verified name.
    RemoteHost {
        /// The name.
        name: String,
    },
    /// The client's address, at `pre_connection` and `connect`; what is absent stays.
    Remote {
        /// An IP address.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ip: Option<String>,
        /// A port.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        port: Option<u16>,
    },
    /// The same of our end.
    Local {
        /// An IP address.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ip: Option<String>,
        /// A port.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        port: Option<u16>,
    },
    /// What is known of who is at the client's end, such as by RFC 1413; at `pre_connection` and `connect`.
    RemoteInfo {
        /// In words; without them nothing is known.
        #[serde(default)]
        info: Option<String>,
    },
}

/// A header value on the wire: bytes, which may arrive as text.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Bytes(pub Vec<u8>);

impl Serialize for Bytes {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serde_bytes::serialize(&self.0, serializer)
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // A tagged enum is read through serde's buffer, which keeps str and bin apart.
        match Value::deserialize(deserializer)? {
            Value::Bytes(bytes) => Ok(Bytes(bytes)),
            Value::Text(text) => Ok(Bytes(text.into_bytes())),
            _ => Err(serde::de::Error::custom("expected bytes")),
        }
    }
}

impl From<&str> for Bytes {
    fn from(text: &str) -> Bytes {
        Bytes(text.as_bytes().to_vec())
    }
}

/// Why a change is not made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("change `{op}`: {reason}")]
pub struct ChangeError {
    /// The change.
    pub op: &'static str,
    /// What is wrong with it.
    pub reason: String,
}

impl Change {
    /// Sets a note that lasts as long as the connection.
    pub fn connection_note(name: &str, value: impl Into<Value>) -> Change {
        Change::Note {
            scope: Scope::Connection,
            name: name.to_owned(),
            value: value.into(),
        }
    }

    /// Sets a note that lasts as long as the transaction.
    pub fn transaction_note(name: &str, value: impl Into<Value>) -> Change {
        Change::Note {
            scope: Scope::Transaction,
            name: name.to_owned(),
            value: value.into(),
        }
    }

    /// Adds points to the score; rounded to thousandths, which is what the wire has.
    pub fn score(points: f64, reason: impl Into<String>) -> Change {
        Change::Score {
            points: (points * 1000.0).round() as i64,
            reason: reason.into(),
        }
    }

    /// Has nothing refused from here on.
    pub fn immune(scope: Scope, reason: &str) -> Change {
        Change::Immune {
            reason: Some(reason.to_owned()),
            scope,
        }
    }

    /// Vouches for the client, or for its transaction.
    pub fn whitelisted(scope: Scope, reason: &str) -> Change {
        Change::Whitelisted {
            reason: Some(reason.to_owned()),
            scope,
        }
    }

    /// Whether it can be made at a hook: a connection is the one that it is from the greeting on.
    pub fn check(&self, hook: Hook) -> Result<(), ChangeError> {
        let op = match self {
            Change::Remote { .. } => "remote",
            Change::Local { .. } => "local",
            Change::RemoteInfo { .. } => "remote_info",
            _ => return Ok(()),
        };
        match hook {
            Hook::PreConnection | Hook::Connect => Ok(()),
            _ => refuse(op, "only at `pre_connection` and `connect`"),
        }
    }

    /// Makes the change, on behalf of `plugin`. Where it is refused the session is as it was.
    pub fn apply(&self, session: &mut Session, plugin: &str) -> Result<(), ChangeError> {
        match self {
            Change::Note { scope, name, value } => set_note(session, *scope, name, value),
            Change::AddHeader { name, value, at } => edit(session, "add_header", |header| {
                header.add_at(name, &value.0, *at)
            }),
            Change::ReplaceHeader { name, value, nth } => {
                edit(session, "replace_header", |header| {
                    header.replace(name, &value.0, nth.unwrap_or(1))
                })
            }
            Change::RemoveHeader { name, nth } => edit(session, "remove_header", |header| {
                header.remove(name, *nth);
                Ok(())
            }),
            Change::AddRecipient { address } => {
                if address.is_null() {
                    return refuse("add_recipient", "a recipient is not the null address");
                }
                let transaction = &mut session.transaction;
                if transaction.recipients.len() >= MAX_RECIPIENTS {
                    return refuse(
                        "add_recipient",
                        "the transaction has 10000 recipients already",
                    );
                }
                transaction.add_recipient(address.clone(), Parameters::new());
                Ok(())
            }
            Change::RemoveRecipient { address } => {
                session.transaction.remove_recipient(address);
                Ok(())
            }
            Change::SetSender { address } => {
                session.transaction.sender = Some(address.clone());
                Ok(())
            }
            Change::Karma { add } => {
                session.connection.karma = session.connection.karma.saturating_add(*add);
                Ok(())
            }
            Change::Score { points, reason } => add_score(session, plugin, *points, reason),
            Change::RelayClient { value, reason } => {
                let connection = &mut session.connection;
                connection.relay_client = *value;
                connection.relay_reason = reason.clone().filter(|_| *value);
                Ok(())
            }
            Change::Immune { reason, scope } => {
                match scope {
                    Scope::Connection => &mut session.connection.immune,
                    Scope::Transaction => &mut session.transaction.immune,
                }
                .clone_from(reason);
                Ok(())
            }
            Change::Whitelisted { reason, scope } => {
                match scope {
                    Scope::Connection => &mut session.connection.whitelisted,
                    Scope::Transaction => &mut session.transaction.whitelisted,
                }
                .clone_from(reason);
                Ok(())
            }
            Change::Naughty { message } => {
                session.connection.naughty = message.as_ref().map(|message| Naughty {
                    plugin: plugin.to_owned(),
                    message: message.clone(),
                    verdict: Verdict::Deny,
                });
                Ok(())
            }
            Change::AuthResult { text } => {
                if text.chars().any(char::is_control) || text.len() > 900 {
                    return refuse(
                        "auth_result",
                        "the text has a control character or more than 900 bytes",
                    );
                }
                if session.connection.auth_results.len() >= MAX_AUTH_RESULTS {
                    return refuse("auth_result", "there are 1000 results already");
                }
                session.connection.auth_results.push(text.clone());
                Ok(())
            }
            Change::Quarantine { reason } => {
                session.transaction.quarantine.clone_from(reason);
                Ok(())
            }
            Change::Route { address, route } => set_route(session, address.as_ref(), route),
            Change::RemoteHost { name } => {
                if !crate::address::is_domain(name.strip_suffix('.').unwrap_or(name)) {
                    return refuse("remote_host", "it is no host name");
                }
                session.connection.remote_host = Some(name.clone());
                Ok(())
            }
            Change::Remote { ip, port } => set_socket(
                "remote",
                &mut session.connection.remote,
                ip.as_deref(),
                *port,
            ),
            Change::Local { ip, port } => {
                set_socket("local", &mut session.connection.local, ip.as_deref(), *port)
            }
            Change::RemoteInfo { info } => {
                if let Some(info) = info
                    && (info.len() > MAX_REMOTE_INFO || info.chars().any(char::is_control))
                {
                    return refuse(
                        "remote_info",
                        "it has a control character or more than 255 bytes",
                    );
                }
                session.connection.remote_info.clone_from(info);
                Ok(())
            }
        }
    }
}

fn refuse(op: &'static str, reason: &str) -> Result<(), ChangeError> {
    Err(ChangeError {
        op,
        reason: reason.to_owned(),
    })
}

fn set_socket(
    op: &'static str,
    socket: &mut Option<SocketAddr>,
    ip: Option<&str>,
    port: Option<u16>,
) -> Result<(), ChangeError> {
    let parsed = match ip {
        Some(text) => Some(text.parse::<IpAddr>().map_err(|_| ChangeError {
            op,
            reason: format!("`{}` is no IP address", text.escape_debug()),
        })?),
        None => socket.map(|known| known.ip()),
    };
    let Some(ip) = parsed else {
        return refuse(op, "there is no address that the port could be of");
    };
    let port = port.or(socket.map(|known| known.port()));
    *socket = Some(SocketAddr::new(ip.to_canonical(), port.unwrap_or_default()));
    Ok(())
}

fn edit(
    session: &mut Session,
    op: &'static str,
    change: impl FnOnce(&mut crate::HeaderBlock) -> Result<(), crate::header::HeaderError>,
) -> Result<(), ChangeError> {
    match &mut session.transaction.header {
        Some(header) if header.added() >= MAX_ADDED_FIELDS && op != "remove_header" => {
            refuse(op, "1000 fields were added to the header already")
        }
        Some(header) => change(header).map_err(|error| ChangeError {
            op,
            reason: error.to_string(),
        }),
        None => refuse(
            op,
            "there is no header yet: headers can be edited from data_headers_end on",
        ),
    }
}

fn set_route(
    session: &mut Session,
    address: Option<&Address>,
    route: &Option<String>,
) -> Result<(), ChangeError> {
    if let Some(route) = route
        && (route.is_empty() || route.len() > MAX_ROUTE || route.chars().any(char::is_control))
    {
        return refuse(
            "route",
            "a route has 1 to 255 bytes, and no control character",
        );
    }
    let transaction = &mut session.transaction;
    if route.is_some() && transaction.routes.len() >= MAX_RECIPIENTS {
        return refuse("route", "10000 addresses have a route already");
    }
    let whose = match address {
        Some(address) => std::slice::from_ref(address),
        None => &transaction.recipients,
    };
    for recipient in whose {
        match route {
            Some(route) => drop(transaction.routes.insert(recipient.clone(), route.clone())),
            None => drop(transaction.routes.remove(recipient)),
        }
    }
    Ok(())
}

/// Before MAIL a score is the connection's, and counts for all its messages.
fn add_score(
    session: &mut Session,
    plugin: &str,
    points: i64,
    reason: &str,
) -> Result<(), ChangeError> {
    if points.unsigned_abs() > MAX_POINTS.unsigned_abs() {
        return refuse("score", "a score is at most a million points, either way");
    }
    if reason.len() > MAX_SCORE_REASON || reason.chars().any(char::is_control) {
        return refuse(
            "score",
            "its reason has a control character or more than 255 bytes",
        );
    }
    let scores = match session.transaction.number {
        0 => &mut session.connection.scores,
        _ => &mut session.transaction.scores,
    };
    scores.add(plugin, points, reason);
    Ok(())
}

fn set_note(
    session: &mut Session,
    scope: Scope,
    name: &str,
    value: &Value,
) -> Result<(), ChangeError> {
    if value.weight() > MAX_NOTE || name.len() > 255 {
        return refuse("note", "a note weighs at most 64 KiB, its name 255 bytes");
    }
    let notes = match scope {
        Scope::Connection => &mut session.connection.notes,
        Scope::Transaction => &mut session.transaction.notes,
    };
    if *value == Value::Nil {
        notes.remove(name);
        return Ok(());
    }
    let others = notes.iter().filter(|(other, _)| other.as_str() != name);
    let total: usize = others
        .map(|(name, value)| name.len() + value.weight())
        .sum();
    if total + value.weight() > MAX_NOTES / 2 {
        return refuse("note", "the notes of a session weigh at most 1 MiB");
    }
    notes.insert(name.to_owned(), value.clone());
    Ok(())
}

#[cfg(test)]
mod tests;
