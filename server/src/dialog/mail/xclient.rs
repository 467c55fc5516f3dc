//! XCLIENT and XFORWARD: what a trusted server or filter before us says about its own client. Extensions of Postfix's
//! (<https://www.postfix.org/XCLIENT_README.html>, <https://www.postfix.org/XFORWARD_README.html>).

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use gatepost_protocol::address::{is_domain, is_literal};
use gatepost_protocol::{Args, Hook, Level, Scores, Session, Transaction, Value};

use super::Mail;
use crate::chain::Visit;
use crate::dialog::{End, Next, Stream, Wire};

/// What EHLO offers to who may say XCLIENT.
pub(super) const OFFER: &str = "XCLIENT NAME ADDR PORT PROTO HELO LOGIN DESTADDR DESTPORT";
/// What EHLO offers to who may say XFORWARD.
pub(super) const OFFER_FORWARD: &str = "XFORWARD NAME ADDR PORT PROTO HELO IDENT SOURCE";

/// The note on a transaction that holds what XFORWARD said.
const NOTE: &str = "xforward";
/// Bytes of a value; a domain name has 253 at most.
const MAX_VALUE: usize = 255;

const IN_TRANSACTION: &str = "503 5.5.1 A transaction is open; end it with DATA or RSET";
const NOT_YOU: &str = "550 5.7.0 You are not authorized to say that";
const SYNTAX: &str = "501 5.5.4 Syntax: NAME=VALUE, with a space between each two";
const BAD_VALUE: &str = "501 5.5.4 The value of an attribute is malformed";
const UNKNOWN: &str = "501 5.5.4 An attribute is not supported";

/// What XCLIENT said so far, of all its commands in a connection: a long list of attributes comes in several.
#[derive(Debug, Default)]
pub(super) struct Claims {
    addr: Option<Option<IpAddr>>,
    port: Option<u16>,
    dest_addr: Option<Option<IpAddr>>,
    dest_port: Option<u16>,
    name: Option<String>,
    login: Option<String>,
    helo: Option<String>,
    is_extended: bool,
}

/// An attribute as it came, decoded: its name in upper case, its value; none where it is said to be unknown.
type Attribute = (String, Option<String>);

impl Mail {
    /// Takes what a proxy says about its client, and begins anew as that client's session.
    pub(super) async fn xclient<S: Stream>(
        &mut self,
        wire: &mut Wire<S>,
        argument: &[u8],
    ) -> Result<Next, End> {
        let output = wire.output();
        if !self.may_xclient {
            return Ok(self.say(output, NOT_YOU));
        }
        if self.visit.session.transaction.number > 0 {
            return Ok(self.say(output, IN_TRANSACTION));
        }
        if let Err(reply) = attributes(argument).and_then(|said| self.claims.take(said)) {
            return Ok(self.say(output, reply));
        }
        self.ask(Hook::Disconnect, &Args::None, None).await;
        self.become_client();
        self.connect(wire, false).await
    }

    /// The session of the client that was claimed: nothing is left of the one before, but the numbers of its transactions.
    fn become_client(&mut self) {
        let claims = &self.claims;
        let Session { id, connection, .. } = std::mem::take(&mut self.visit.session);
        let address = |known: Option<SocketAddr>, ip: Option<Option<IpAddr>>, port: Option<u16>| {
            let ip = ip.unwrap_or(known.map(|known| known.ip()))?;
            // The port of one address says nothing about another's.
            let known = known.filter(|known| known.ip() == ip);
            let port = port.or(known.map(|known| known.port()));
            Some(SocketAddr::new(ip, port.unwrap_or_default()))
        };
        let mut connection = connection;
        connection.remote = address(self.remote, claims.addr, claims.port);
        connection.local = address(self.local, claims.dest_addr, claims.dest_port);
        connection.remote_host = claims.name.clone();
        connection.remote_info = None;
        connection.hello = claims.helo.as_ref().map(|_| match claims.is_extended {
            true => Cow::Borrowed("EHLO"),
            false => Cow::Borrowed("HELO"),
        });
        connection.hello_host = claims.helo.clone();
        connection.authenticated = claims.login.clone();
        connection.early_talker = false;
        // As after AUTH.
        connection.relay_client = claims.login.is_some();
        connection.relay_reason = None;
        connection.immune = None;
        connection.whitelisted = None;
        connection.naughty = None;
        connection.karma = 0;
        connection.scores = Scores::default();
        connection.auth_results.clear();
        connection.notes.clear();
        let visit = Visit::new(Session {
            id,
            connection,
            transaction: Transaction::default(),
        });
        let before = std::mem::replace(&mut self.visit, visit);
        self.visit.rehearsal = before.rehearsal;
        self.visit.trace = before.trace;
        self.forwarded.clear();
        // How many others there are that speak for that client, nobody counts.
        self.connections = 1;
        self.errors = 0;
        self.auth_failures = 0;
        self.unknown = 0;
        self.idle = 0;
        self.is_first = true;
    }

    /// Takes what a filter says about the client of the next message. Plugins find it in a note; it changes nothing else.
    pub(super) fn xforward(&mut self, output: &mut Vec<u8>, argument: &[u8]) -> Next {
        if !self.may_xforward {
            return self.say(output, NOT_YOU);
        }
        if self.visit.session.transaction.number > 0 {
            return self.say(output, IN_TRANSACTION);
        }
        let said = match attributes(argument).and_then(forwarded) {
            Ok(said) => said,
            Err(reply) => return self.say(output, reply),
        };
        for (name, value) in said {
            match value {
                Some(value) => self.forwarded.insert(name, Value::Text(value)),
                None => self.forwarded.remove(&name),
            };
        }
        self.say(output, "250 2.0.0 OK")
    }

    /// Leaves what XFORWARD said with the transaction that begins.
    pub(super) fn note_forwarded(&mut self) {
        if self.forwarded.is_empty() {
            return;
        }
        let forwarded = std::mem::take(&mut self.forwarded);
        let said: Vec<String> = forwarded
            .iter()
            .filter_map(|(name, value)| Some(format!("{name}={}", value.as_text()?)))
            .collect();
        let text = format_args!("forwarded for {}", said.join(" "));
        self.log(Level::Info, Some(Hook::Mail), text);
        let notes = &mut self.visit.session.transaction.notes;
        notes.insert(NOTE.to_owned(), Value::Map(forwarded));
    }
}

impl Claims {
    /// Takes attributes, all of them or none. An error is the reply.
    fn take(&mut self, said: Vec<Attribute>) -> Result<(), &'static str> {
        let mut claims = Claims {
            name: self.name.clone(),
            login: self.login.clone(),
            helo: self.helo.clone(),
            ..*self
        };
        for (name, value) in said {
            let value = value.as_deref();
            match name.as_str() {
                "NAME" => claims.name = value.map(domain).transpose()?,
                "ADDR" => claims.addr = Some(value.map(address).transpose()?),
                "PORT" => claims.port = Some(value.map(port).transpose()?.unwrap_or_default()),
                "DESTADDR" => claims.dest_addr = Some(value.map(address).transpose()?),
                "DESTPORT" => {
                    claims.dest_port = Some(value.map(port).transpose()?.unwrap_or_default());
                }
                "PROTO" => claims.is_extended = value.map(is_extended).transpose()? == Some(true),
                "HELO" => claims.helo = value.map(host).transpose()?,
                "LOGIN" => claims.login = value.map(str::to_owned),
                _ => return Err(UNKNOWN),
            }
        }
        *self = claims;
        Ok(())
    }
}

/// Checks the attributes of XFORWARD; their names in lower case. An error is the reply.
fn forwarded(said: Vec<Attribute>) -> Result<Vec<Attribute>, &'static str> {
    for (name, value) in &said {
        match (name.as_str(), value.as_deref()) {
            ("NAME" | "HELO" | "IDENT" | "PROTO", _) | ("ADDR" | "PORT" | "SOURCE", None) => {}
            ("ADDR", Some(value)) => drop(address(value)?),
            ("PORT", Some(value)) => drop(port(value)?),
            ("SOURCE", Some("LOCAL" | "REMOTE")) => {}
            ("SOURCE", _) => return Err(BAD_VALUE),
            _ => return Err(UNKNOWN),
        }
    }
    let lower = said
        .into_iter()
        .map(|(name, value)| (name.to_ascii_lowercase(), value));
    Ok(lower.collect())
}

/// Reads `NAME=VALUE NAME=VALUE`, the values in xtext. An error is the reply.
fn attributes(argument: &[u8]) -> Result<Vec<Attribute>, &'static str> {
    let words = argument
        .split(|byte| *byte == b' ')
        .filter(|word| !word.is_empty());
    let mut said = Vec::new();
    for word in words {
        let equals = memchr::memchr(b'=', word).ok_or(SYNTAX)?;
        let name = std::str::from_utf8(&word[..equals]).map_err(|_| SYNTAX)?;
        let value = xtext(&word[equals + 1..]).ok_or(BAD_VALUE)?;
        let is_unknown = ["[UNAVAILABLE]", "[TEMPUNAVAIL]"]
            .iter()
            .any(|unknown| unknown.eq_ignore_ascii_case(&value));
        if value.is_empty() || value.len() > MAX_VALUE || value.contains(char::is_control) {
            return Err(BAD_VALUE);
        }
        let value = (!is_unknown).then_some(value);
        said.push((name.to_ascii_uppercase(), value));
    }
    match said.is_empty() {
        true => Err(SYNTAX),
        false => Ok(said),
    }
}

/// Decodes xtext (RFC 3461 §4). `None` where it is none, or says no UTF-8.
fn xtext(text: &[u8]) -> Option<String> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((byte, behind)) = rest.split_first() {
        rest = behind;
        match byte {
            b'+' => {
                let [high, low, ..] = *behind else {
                    return None;
                };
                decoded.push(u8::try_from(digit(high)? * 16 + digit(low)?).ok()?);
                rest = &behind[2..];
            }
            b'!'..=b'<' | b'>'..=b'~' => decoded.push(*byte),
            _ => return None,
        }
    }
    String::from_utf8(decoded).ok()
}

/// An address as RFC 5321 §4.1.3 writes it in a literal, without the brackets.
fn address(text: &str) -> Result<IpAddr, &'static str> {
    let prefix = text.get(..5);
    let address = if prefix.is_some_and(|prefix| prefix.eq_ignore_ascii_case("IPV6:")) {
        text[5..].parse::<std::net::Ipv6Addr>().map(IpAddr::from)
    } else {
        text.parse::<std::net::Ipv4Addr>().map(IpAddr::from)
    };
    address
        .map(|address| address.to_canonical())
        .map_err(|_| BAD_VALUE)
}

fn port(text: &str) -> Result<u16, &'static str> {
    text.parse().map_err(|_| BAD_VALUE)
}

fn domain(text: &str) -> Result<String, &'static str> {
    is_domain(text).then(|| text.to_owned()).ok_or(BAD_VALUE)
}

fn host(text: &str) -> Result<String, &'static str> {
    (is_domain(text) || is_literal(text))
        .then(|| text.to_owned())
        .ok_or(BAD_VALUE)
}

fn is_extended(text: &str) -> Result<bool, &'static str> {
    match text.to_ascii_uppercase().as_str() {
        "ESMTP" => Ok(true),
        "SMTP" => Ok(false),
        _ => Err(BAD_VALUE),
    }
}

/// What XFORWARD said of the client of the next message.
pub(super) type Forwarded = BTreeMap<String, Value>;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn xtext_is_decoded() {
        for (text, decoded) in [
            ("a.b-c", Some("a.b-c")),
            ("a+2Bb+3Dc+20d", Some("a+b=c d")),
            ("+c3+BC", Some("\u{fc}")),
            ("+", None),
            ("a+2", None),
            ("+GG", None),
            ("+FF", None),
            ("a=b", None),
            ("a\u{e9}", None),
        ] {
            assert_eq!(xtext(text.as_bytes()).as_deref(), decoded, "{text}");
        }
    }

    #[test]
    fn attributes_of_xclient() {
        let mut claims = Claims::default();
        let mut take = |text: &str| {
            let said = attributes(text.as_bytes())?;
            claims.take(said)?;
            Ok::<_, &'static str>(format!(
                "{:?} {:?} {:?} {:?}",
                claims.addr, claims.port, claims.name, claims.login
            ))
        };
        for (text, claimed) in [
            (
                "NAME=a.example ADDR=192.0.2.7 PORT=40000",
                r#"Some(Some(192.0.2.7)) Some(40000) Some("a.example") None"#,
            ),
            (
                "addr=IPv6:2001:db8::7  LOGIN=al+69ce",
                r#"Some(Some(2001:db8::7)) Some(40000) Some("a.example") Some("alice")"#,
            ),
            (
                "NAME=[TEMPUNAVAIL] ADDR=[unavailable] LOGIN=[UNAVAILABLE]",
                "Some(None) Some(40000) None None",
            ),
        ] {
            assert_eq!(take(text).as_deref(), Ok(claimed), "{text}");
        }
        for wrong in [
            "",
            "NAME",
            "NAME=",
            "NAME=a+0Ab",
            "NAME=a+20b",
            "ADDR=2001:db8::7",
            "ADDR=IPV6:192.0.2.7",
            "ADDR=192.0.2",
            "PORT=65536",
            "PORT=-1",
            "PROTO=HTTP",
            "HELO=a+20b",
            "COLOUR=blue",
            "PORT=1 COLOUR=blue",
        ] {
            assert!(
                take(wrong).unwrap_err().starts_with("501 5.5.4 "),
                "{wrong}"
            );
        }
        // A command that is refused leaves nothing.
        assert_eq!(claims.port, Some(40000));
    }

    proptest! {
        #[test]
        fn nothing_a_client_sends_stops_the_parser(argument in proptest::collection::vec(any::<u8>(), 0..80)) {
            for start in ["", "ADDR=", "NAME=+", "PORT="] {
                if let Ok(said) = attributes(&[start.as_bytes(), &argument].concat()) {
                    let _ = Claims::default().take(said.clone());
                    let _ = forwarded(said);
                }
            }
        }
    }
}
