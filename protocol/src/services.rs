//! What a plugin may ask of the core (docs/protocol.md §8), whether it is built in or a child.

use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;

use crate::outcome::BoxFuture;
use crate::policy::Level;
use crate::{Address, EnhancedCode};

/// Why the core could not do what a plugin asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ServiceError {
    /// For programs.
    pub code: ServiceErrorCode,
    /// For people.
    pub message: String,
}

/// The kinds of [`ServiceError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ServiceErrorCode {
    /// No such method.
    UnknownMethod,
    /// The parameters do not fit the method.
    BadParams,
    /// There is no such thing.
    NotFound,
    /// It may work later.
    Temporary,
    /// It did not work.
    #[serde(other)]
    Failed,
}

impl ServiceError {
    /// An error of a kind.
    pub fn new(code: ServiceErrorCode, message: impl Into<String>) -> ServiceError {
        ServiceError {
            code,
            message: message.into(),
        }
    }

    /// One that may be gone later.
    pub fn temporary(message: impl Into<String>) -> ServiceError {
        ServiceError::new(ServiceErrorCode::Temporary, message)
    }
}

/// A type of DNS record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "UPPERCASE")]
#[allow(missing_docs)] // The DNS's own names.
pub enum RecordType {
    A,
    Aaaa,
    Mx,
    Txt,
    Ptr,
    Ns,
    Cname,
}

/// Whether the DNS had what was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DnsStatus {
    /// Records were found.
    Found,
    /// The name exists, without records of that type.
    NoRecords,
    /// The name does not exist (NXDOMAIN).
    NoSuchName,
}

/// A definite answer of the DNS; what is not definite is a [`ServiceError`].
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct DnsAnswer {
    /// Whether there was something.
    pub status: DnsStatus,
    /// The records as text: addresses, names, texts; MX as `10 mx.example.org`.
    pub records: Vec<String>,
}

/// A message of a plugin's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Submission {
    /// The envelope sender; null where nobody is to hear if it does not arrive.
    pub sender: Address,
    /// The envelope recipients: one at least.
    pub recipients: Vec<Address>,
    /// Header block, empty line, body. Lone line feeds become CRLF; `Date`, `Message-ID` and `Auto-Submitted` are added where they are missing.
    pub message: Vec<u8>,
}

/// What a sender is to be told of a message that did not reach a recipient.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bounce {
    /// Who is told: the sender of the message.
    pub sender: Address,
    /// Whom it did not reach.
    pub recipient: Address,
    /// The reply code that says why: 500 to 599.
    pub code: u16,
    /// The enhanced code; class 5.
    pub enhanced: Option<EnhancedCode>,
    /// Why, for people.
    pub text: String,
    /// The message, or as much of its beginning as is there: the header block at least.
    pub message: Vec<u8>,
}

/// Whether an address is one of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Validity {
    /// There is such a recipient here.
    Valid,
    /// There is none.
    Invalid,
    /// Nobody knows: no plugin answers for this address.
    Unknown,
}

impl Validity {
    /// The name on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Validity::Valid => "valid",
            Validity::Invalid => "invalid",
            Validity::Unknown => "unknown",
        }
    }

    /// The validity of that name.
    pub fn from_name(name: &str) -> Option<Validity> {
        let all = [Validity::Valid, Validity::Invalid, Validity::Unknown];
        all.into_iter().find(|validity| validity.name() == name)
    }
}

/// What a plugin may ask of the core at any time.
pub trait Services: Send + Sync + 'static {
    /// Writes a line to the log under the plugin's name.
    fn log(&self, plugin: &str, level: Level, message: &str);

    /// Looks something up in the DNS, through the cache that all plugins share. Names are taken as absolute.
    fn dns(
        &self,
        name: &str,
        kind: RecordType,
    ) -> BoxFuture<'static, Result<DnsAnswer, ServiceError>>;

    /// The lines of a flat file, without comments; none if there is no such file.
    fn config(&self, name: &str) -> BoxFuture<'static, Result<Vec<String>, ServiceError>>;

    /// The lines that a recipient has in the place of a flat file, else everybody's: what [`Services::config`] gives. That is all there is where nobody
    /// knows of recipients' own.
    fn config_for(
        &self,
        name: &str,
        _recipient: &Address,
    ) -> BoxFuture<'static, Result<Vec<String>, ServiceError>> {
        self.config(name)
    }

    /// Whether an address is one of ours, as the plugins say that take part in `recipient_valid`; answers are kept for minutes. What may be
    /// known later (a server is away) is a [`ServiceErrorCode::Temporary`]. Who asks, while being asked about it, for the same address gets
    /// [`Validity::Unknown`].
    fn recipient_valid(
        &self,
        address: &Address,
    ) -> BoxFuture<'static, Result<Validity, ServiceError>>;

    /// Reads a key of the state store.
    fn state_get(&self, key: &str) -> BoxFuture<'static, Result<Option<Vec<u8>>, ServiceError>>;

    /// Writes a key of the state store, for a time or for ever.
    fn state_set(
        &self,
        key: &str,
        value: Vec<u8>,
        ttl: Option<Duration>,
    ) -> BoxFuture<'static, Result<(), ServiceError>>;

    /// Adds to a counter in the state store, which begins at 0; returns the sum.
    fn state_add(
        &self,
        key: &str,
        add: i64,
        ttl: Option<Duration>,
    ) -> BoxFuture<'static, Result<i64, ServiceError>>;

    /// Removes a key of the state store.
    fn state_delete(&self, key: &str) -> BoxFuture<'static, Result<(), ServiceError>>;

    /// Sends a message of the plugin's own, by way of the outbox. It is on disk when the answer comes: its name there.
    fn submit(&self, submission: Submission) -> BoxFuture<'static, Result<String, ServiceError>>;

    /// Sends a delivery status notification (RFC 3464). It is on disk when the answer comes: its name in the outbox, or `None` where there may be none
    /// (a null sender, an automatic message, too many of them).
    fn bounce(&self, bounce: Bounce) -> BoxFuture<'static, Result<Option<String>, ServiceError>>;
}

/// The message at hand, as received.
pub trait Message: Send + Sync {
    /// Bytes, the header block included.
    fn size(&self) -> u64;

    /// Up to `length` bytes from `offset`; fewer only at the end.
    fn read(&self, offset: u64, length: usize) -> BoxFuture<'_, std::io::Result<Bytes>>;
}

/// A message in memory.
pub struct MemoryMessage(pub Bytes);

impl Message for MemoryMessage {
    fn size(&self) -> u64 {
        self.0.len() as u64
    }

    fn read(&self, offset: u64, length: usize) -> BoxFuture<'_, std::io::Result<Bytes>> {
        let start = usize::try_from(offset)
            .unwrap_or(usize::MAX)
            .min(self.0.len());
        let end = start.saturating_add(length).min(self.0.len());
        let slice = self.0.slice(start..end);
        Box::pin(async move { Ok(slice) })
    }
}

/// The name under which a PTR record of an address stands (RFC 1035 §3.5, RFC 3596 §2.5).
pub fn reverse_name(address: IpAddr) -> String {
    match address {
        IpAddr::V4(v4) => format!("{}.in-addr.arpa.", reverse_labels(v4.into())),
        IpAddr::V6(v6) => format!("{}.ip6.arpa.", reverse_labels(v6.into())),
    }
}

/// An address's parts in reverse order, as DNS lists and reverse zones have them (RFC 5782 §2.1, §2.4).
pub fn reverse_labels(address: IpAddr) -> String {
    match address {
        IpAddr::V4(v4) => {
            let [a, b, c, d] = v4.octets();
            format!("{d}.{c}.{b}.{a}")
        }
        IpAddr::V6(v6) => {
            let nibbles = v6
                .octets()
                .into_iter()
                .rev()
                .flat_map(|byte| [byte & 15, byte >> 4]);
            let labels: Vec<String> = nibbles.map(|nibble| format!("{nibble:x}")).collect();
            labels.join(".")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reverse_names() {
        assert_eq!(
            reverse_name("192.0.2.1".parse().unwrap()),
            "1.2.0.192.in-addr.arpa."
        );
        let v6 = reverse_name("2001:db8::1".parse().unwrap());
        assert!(
            v6.starts_with("1.0.0.0.") && v6.ends_with(".8.b.d.0.1.0.0.2.ip6.arpa."),
            "{v6}"
        );
    }
}
