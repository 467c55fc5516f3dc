//! `when`: the condition under which a plugin is asked.

mod parse;

use std::fmt;
use std::net::IpAddr;

use gatepost_protocol::{Points, Session};
use ipnet::IpNet;

/// A condition on the session. Evaluating it allocates nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct When(Node);

/// A part of a condition.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Node {
    /// `a || b || …`, two at least.
    Any(Vec<Node>),
    /// `a && b && …`, two at least.
    All(Vec<Node>),
    /// `!a`
    Not(Box<Node>),
    /// A bare name.
    Set(Name),
    /// A text that is, or is not.
    Text(TextName, bool, String),
    /// A number that compares.
    Number(NumberName, Order, i64),
    /// `remote_ip ==`, or `!=`.
    Address(bool, IpAddr),
    /// `remote_ip in`.
    Network(IpNet),
}

/// What a condition can ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Name {
    RemoteIp,
    RelayClient,
    Tls,
    EarlyTalker,
    Text(TextName),
    Number(NumberName),
}

macro_rules! names {
    ($type:ident { $($variant:ident $name:literal,)* }) => {
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        enum $type { $($variant,)* }

        impl $type {
            const ALL: &[$type] = &[$($type::$variant),*];

            const fn name(self) -> &'static str {
                match self { $($type::$variant => $name,)* }
            }
        }
    };
}

names!(TextName {
    Direction "direction",
    RemoteHost "remote_host",
    Hello "hello",
    HelloHost "hello_host",
    Immune "immune",
    Whitelisted "whitelisted",
    Naughty "naughty",
    Authenticated "authenticated",
    Sender "sender",
    Quarantine "quarantine",
    Route "route",
});
names!(NumberName { Karma "karma", Score "score", RecipientCount "recipient_count", });
names!(Order { Equal "==", Unequal "!=", AtMost "<=", Less "<", AtLeast ">=", More ">", });

impl When {
    /// Reads a condition.
    ///
    /// # Errors
    /// The byte at which it goes wrong, and what is wrong there.
    pub fn parse(text: &str) -> Result<When, (usize, String)> {
        parse::parse(text).map(When)
    }

    /// Whether it holds for a session, as it is now.
    pub fn holds(&self, session: &Session) -> bool {
        self.0.holds(session)
    }

    /// Whether it asks for early talkers, who are looked for only where somebody does.
    pub fn asks_for_early_talkers(&self) -> bool {
        self.0.names(Name::EarlyTalker)
    }
}

impl Name {
    fn all() -> impl Iterator<Item = Name> + Clone {
        let texts = TextName::ALL.iter().copied().map(Name::Text);
        let numbers = NumberName::ALL.iter().copied().map(Name::Number);
        [
            Name::RemoteIp,
            Name::RelayClient,
            Name::Tls,
            Name::EarlyTalker,
        ]
        .into_iter()
        .chain(texts)
        .chain(numbers)
    }

    const fn name(self) -> &'static str {
        match self {
            Name::RemoteIp => "remote_ip",
            Name::RelayClient => "relay_client",
            Name::Tls => "tls",
            Name::EarlyTalker => "early_talker",
            Name::Text(name) => name.name(),
            Name::Number(name) => name.name(),
        }
    }

    fn is_set(self, session: &Session) -> bool {
        match self {
            Name::RemoteIp => session.connection.remote.is_some(),
            Name::RelayClient => session.connection.relay_client,
            Name::Tls => session.connection.tls.is_some(),
            Name::EarlyTalker => session.connection.early_talker,
            Name::Text(name) => name.of(session).is_some(),
            Name::Number(name) => name.of(session) != 0,
        }
    }
}

impl TextName {
    fn of(self, session: &Session) -> Option<&str> {
        let connection = &session.connection;
        let transaction = &session.transaction;
        match self {
            TextName::Direction => Some(connection.direction.name()),
            TextName::RemoteHost => connection.remote_host.as_deref(),
            TextName::Hello => connection.hello.as_deref(),
            TextName::HelloHost => connection.hello_host.as_deref(),
            TextName::Immune => session.immune(),
            TextName::Whitelisted => session.whitelisted(),
            TextName::Naughty => connection.naughty.as_ref().map(|it| it.message.as_str()),
            TextName::Authenticated => connection.authenticated.as_deref(),
            TextName::Sender => transaction.sender.as_ref().map(|sender| sender.as_str()),
            TextName::Quarantine => transaction.quarantine.as_deref(),
            TextName::Route => transaction.route.as_deref(),
        }
    }
}

impl NumberName {
    /// Whether it counts in thousandths.
    const fn has_fractions(self) -> bool {
        matches!(self, NumberName::Score)
    }

    fn of(self, session: &Session) -> i64 {
        match self {
            NumberName::Karma => session.connection.karma,
            NumberName::Score => session.score(),
            NumberName::RecipientCount => {
                i64::try_from(session.transaction.recipients.len()).unwrap_or(i64::MAX)
            }
        }
    }
}

impl Order {
    fn holds(self, left: i64, right: i64) -> bool {
        match self {
            Order::Equal => left == right,
            Order::Unequal => left != right,
            Order::AtMost => left <= right,
            Order::Less => left < right,
            Order::AtLeast => left >= right,
            Order::More => left > right,
        }
    }
}

impl Node {
    /// Whether a bare name is anywhere in it.
    fn names(&self, wanted: Name) -> bool {
        match self {
            Node::Any(nodes) | Node::All(nodes) => nodes.iter().any(|node| node.names(wanted)),
            Node::Not(node) => node.names(wanted),
            Node::Set(name) => *name == wanted,
            _ => false,
        }
    }

    fn holds(&self, session: &Session) -> bool {
        match self {
            Node::Any(nodes) => nodes.iter().any(|node| node.holds(session)),
            Node::All(nodes) => nodes.iter().all(|node| node.holds(session)),
            Node::Not(node) => !node.holds(session),
            Node::Set(name) => name.is_set(session),
            // Host names, domains and keywords have no case, and nobody tells users apart by it.
            Node::Text(name, equal, text) => {
                let same = name
                    .of(session)
                    .is_some_and(|it| it.eq_ignore_ascii_case(text));
                same == *equal
            }
            Node::Number(name, order, number) => order.holds(name.of(session), *number),
            Node::Address(equal, address) => (remote_ip(session) == Some(*address)) == *equal,
            Node::Network(network) => remote_ip(session).is_some_and(|ip| network.contains(&ip)),
        }
    }

    /// Whether it needs parentheses as an operand of `&&` or behind `!`.
    fn fmt_in(&self, f: &mut fmt::Formatter<'_>, parentheses: bool) -> fmt::Result {
        if parentheses {
            write!(f, "({self})")
        } else {
            write!(f, "{self}")
        }
    }
}

/// An IPv4 client of an IPv6 socket is an IPv4 client.
fn remote_ip(session: &Session) -> Option<IpAddr> {
    session.connection.remote.map(|it| it.ip().to_canonical())
}

/// A text has no escapes: it stands in the quotes that it does not hold.
fn quoted(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    let quote = if text.contains('"') { '\'' } else { '"' };
    write!(f, "{quote}{text}{quote}")
}

const fn equality(equal: bool) -> &'static str {
    if equal { "==" } else { "!=" }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Node::Any(nodes) => {
                for (index, node) in nodes.iter().enumerate() {
                    f.write_str(if index > 0 { " || " } else { "" })?;
                    node.fmt_in(f, matches!(node, Node::Any(_)))?;
                }
                Ok(())
            }
            Node::All(nodes) => {
                for (index, node) in nodes.iter().enumerate() {
                    f.write_str(if index > 0 { " && " } else { "" })?;
                    node.fmt_in(f, matches!(node, Node::Any(_) | Node::All(_)))?;
                }
                Ok(())
            }
            Node::Not(node) => {
                f.write_str("!")?;
                node.fmt_in(f, !matches!(**node, Node::Set(_) | Node::Not(_)))
            }
            Node::Set(name) => f.write_str(name.name()),
            Node::Text(name, equal, text) => {
                write!(f, "{} {} ", name.name(), equality(*equal))?;
                quoted(f, text)
            }
            Node::Number(name, order, number) => {
                write!(f, "{} {} ", name.name(), order.name())?;
                match name.has_fractions() {
                    true => Points(*number).fmt(f),
                    false => number.fmt(f),
                }
            }
            Node::Address(equal, address) => {
                write!(f, "remote_ip {} \"{address}\"", equality(*equal))
            }
            Node::Network(network) => write!(f, "remote_ip in \"{network}\""),
        }
    }
}

impl fmt::Display for When {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests;
