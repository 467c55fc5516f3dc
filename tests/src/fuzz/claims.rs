//! What those say who speak for somebody else: PROXY headers, XCLIENT and XFORWARD. What is believed is what was said, read a second time in the plainest way, and
//! it ends where its sender ends it.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use gatepost::dialog::SMTP;
use gatepost::listen::proxy::{Header, parse};
use gatepost_protocol::plugin::Subscription;
use gatepost_protocol::{Answer, Call, Hook, Outcome, Plugin, Session, Value};

use super::client;

/// Takes an input as a PROXY header, and as the argument of XCLIENT and XFORWARD.
pub fn check(input: &[u8]) {
    check_proxy(input);
    let is_line = input.len() < 400 && !input.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0));
    if is_line && !input.trim_ascii().is_empty() {
        check_said(input);
    }
}

fn check_proxy(bytes: &[u8]) {
    let whole = parse(bytes);
    let mut wrong = false;
    for length in 0..bytes.len().min(120) {
        match (parse(&bytes[..length]), &whole) {
            (Ok(None), _) => assert!(!wrong),
            (Ok(found), Ok(whole)) => assert_eq!(found, *whole),
            (Ok(_), Err(_)) => panic!("more bytes behind a header make it wrong"),
            (Err(_), whole) => {
                assert!(whole.is_err());
                wrong = true;
            }
        }
    }
    let Ok(Some((header, length))) = whole else {
        return;
    };
    let own = &bytes[..length];
    match own.strip_prefix(b"PROXY ") {
        Some(_) => {
            assert!(length <= 107 && own.ends_with(b"\r\n"));
            assert_eq!(own.iter().filter(|byte| **byte == b'\n').count(), 1);
        }
        None => assert_eq!(
            length,
            16 + usize::from(u16::from_be_bytes([own[14], own[15]]))
        ),
    }
    let Header::Passed { client, to } = header else {
        return;
    };
    assert_eq!(client.is_ipv4(), to.is_ipv4());
    for written in [version_1(client, to), version_2(client, to)] {
        assert_eq!(parse(&written), Ok(Some((header, written.len()))));
    }
}

fn version_1(client: SocketAddr, to: SocketAddr) -> Vec<u8> {
    let family = if client.is_ipv4() { 4 } else { 6 };
    let (ip, port) = ((client.ip(), to.ip()), (client.port(), to.port()));
    format!(
        "PROXY TCP{family} {} {} {} {}\r\n",
        ip.0, ip.1, port.0, port.1
    )
    .into()
}

fn version_2(client: SocketAddr, to: SocketAddr) -> Vec<u8> {
    let octets = |address: SocketAddr| match address.ip() {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    let family = if client.is_ipv4() { 0x11 } else { 0x21 };
    let rest = [
        octets(client),
        octets(to),
        client.port().to_be_bytes().into(),
        to.port().to_be_bytes().into(),
    ];
    let rest = rest.concat();
    let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
    [b"\r\n\r\n\0\r\nQUIT\n\x21", &[family][..], &length, &rest].concat()
}

/// Sessions as a plugin saw them, at `connect` and at `mail`.
#[derive(Default)]
struct Watcher(Mutex<Vec<Session>>);

impl Plugin for Watcher {
    fn subscriptions(&self) -> Vec<Subscription> {
        [Hook::Connect, Hook::Mail]
            .map(|hook| Subscription::to(hook, &[]))
            .into()
    }

    fn call<'a>(&'a self, call: &'a Call<'a>) -> Answer<'a> {
        self.0.lock().unwrap().push(call.session.clone());
        Outcome::declined().into()
    }
}

/// What a client that may say both was told, and what plugins saw.
fn say(command: &str, argument: &[u8]) -> (Vec<String>, Vec<Session>) {
    let watcher = Arc::new(Watcher::default());
    let said = [
        b"EHLO c\r\n",
        command.as_bytes(),
        b" ",
        argument,
        b"\r\nMAIL FROM:<>\r\nQUIT\r\n",
    ];
    let blocks = [said.concat()].into();
    let told = client::converse(&SMTP, super::config(), watcher.clone(), true, blocks);
    let told = String::from_utf8(told).expect("replies are UTF-8");
    let lines = told.lines().filter(|line| line.as_bytes()[3] == b' ');
    let sessions = std::mem::take(&mut *watcher.0.lock().unwrap());
    (lines.map(str::to_owned).collect(), sessions)
}

fn check_said(argument: &[u8]) {
    let said = attributes(argument);
    let claims = said.clone().and_then(claims);
    let (replies, sessions) = say("XCLIENT", argument);
    assert_eq!(replies.len(), 5, "{replies:?}");
    match (claims, &sessions[..]) {
        // Whom MAIL comes from is to say HELO first, unless it was said for him.
        (Some(claims), [_, claimed, ..]) => {
            assert!(replies[2].starts_with("220 "), "{replies:?}");
            compare(&claims, claimed);
        }
        (None, [_, unchanged]) => {
            assert!(replies[2].starts_with("501 5.5.4 "), "{replies:?}");
            assert_eq!(unchanged.connection.remote.map(|it| it.port()), Some(1234));
        }
        (claims, _) => panic!("{claims:?} {replies:?}"),
    }

    let forwarded = said.and_then(forwarded);
    let (replies, sessions) = say("XFORWARD", argument);
    let code = if forwarded.is_some() {
        "250 2.0.0"
    } else {
        "501 5.5.4"
    };
    assert!(replies[2].starts_with(code), "{replies:?}");
    let note = sessions
        .last()
        .and_then(|session| session.transaction.notes.get("xforward"));
    let expected = forwarded.filter(|all| !all.is_empty()).map(Value::Map);
    assert_eq!(note, expected.as_ref());
}

fn compare(claims: &BTreeMap<String, Option<String>>, session: &Session) {
    let connection = &session.connection;
    let said = |name: &str| claims.get(name).cloned().flatten();
    assert_eq!(connection.remote_host, said("NAME"));
    assert_eq!(connection.authenticated, said("LOGIN"));
    assert_eq!(connection.relay_client, said("LOGIN").is_some());
    assert_eq!(connection.hello_host, said("HELO"));
    let remote = match claims.get("ADDR") {
        None => Some("192.0.2.1".parse().unwrap()),
        Some(ip) => ip.as_deref().map(|ip| address(ip).unwrap()),
    };
    assert_eq!(connection.remote.map(|remote| remote.ip()), remote);
    if let (Some(remote), Some(port)) = (connection.remote, claims.get("PORT")) {
        let port = port.as_ref().map_or(0, |port| port.parse().unwrap());
        assert_eq!(remote.port(), port);
    }
}

/// Attributes of Postfix's XCLIENT, the last of a name; `None` where one is malformed.
fn attributes(argument: &[u8]) -> Option<Vec<(String, Option<String>)>> {
    let mut said = Vec::new();
    let text = std::str::from_utf8(argument.trim_ascii_end()).ok()?;
    for word in text.split(' ').filter(|word| !word.is_empty()) {
        let (name, value) = word.split_once('=')?;
        let value = decoded(value)?;
        if value.is_empty() || value.len() > 255 || value.chars().any(char::is_control) {
            return None;
        }
        let is_known = !["[UNAVAILABLE]", "[TEMPUNAVAIL]"].contains(&&*value.to_ascii_uppercase());
        said.push((name.to_ascii_uppercase(), is_known.then_some(value)));
    }
    (!said.is_empty()).then_some(said)
}

/// xtext (RFC 3461 §4), with `+` and two digits for a byte.
fn decoded(xtext: &str) -> Option<String> {
    let mut pieces = xtext.split('+');
    let mut bytes = pieces.next()?.as_bytes().to_vec();
    for piece in pieces {
        let digits = piece
            .get(..2)
            .filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()))?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        bytes.extend_from_slice(&piece.as_bytes()[2..]);
    }
    let is_plain = |byte: u8| byte.is_ascii_graphic() && byte != b'=';
    let plain = xtext.bytes().all(is_plain);
    String::from_utf8(bytes).ok().filter(|_| plain)
}

fn address(text: &str) -> Option<IpAddr> {
    if text
        .get(..5)
        .is_some_and(|start| start.eq_ignore_ascii_case("IPv6:"))
    {
        let ip: Ipv6Addr = text[5..].parse().ok()?;
        return Some(ip.to_ipv4_mapped().map_or(ip.into(), IpAddr::from));
    }
    text.parse::<Ipv4Addr>().ok().map(IpAddr::from)
}

fn is_port(text: &str) -> bool {
    text.parse::<u16>().is_ok()
}

fn is_host(text: &str) -> bool {
    use gatepost_protocol::address::{is_domain, is_literal};
    is_domain(text) || is_literal(text)
}

fn claims(said: Vec<(String, Option<String>)>) -> Option<BTreeMap<String, Option<String>>> {
    for (name, value) in &said {
        let value = value.as_deref();
        let fits = match &**name {
            "NAME" => value.is_none_or(gatepost_protocol::address::is_domain),
            "ADDR" | "DESTADDR" => value.is_none_or(|value| address(value).is_some()),
            "PORT" | "DESTPORT" => value.is_none_or(is_port),
            "PROTO" => {
                value.is_none_or(|value| ["SMTP", "ESMTP"].contains(&&*value.to_ascii_uppercase()))
            }
            "HELO" => value.is_none_or(is_host),
            "LOGIN" => true,
            _ => false,
        };
        if !fits {
            return None;
        }
    }
    Some(said.into_iter().collect())
}

fn forwarded(said: Vec<(String, Option<String>)>) -> Option<BTreeMap<String, Value>> {
    let mut notes = BTreeMap::new();
    for (name, value) in said {
        let fits = match (&*name, value.as_deref()) {
            ("NAME" | "HELO" | "IDENT" | "PROTO", _) | ("ADDR" | "PORT" | "SOURCE", None) => true,
            ("ADDR", Some(value)) => address(value).is_some(),
            ("PORT", Some(value)) => is_port(value),
            ("SOURCE", Some(value)) => ["LOCAL", "REMOTE"].contains(&value),
            _ => false,
        };
        if !fits {
            return None;
        }
        match value {
            Some(value) => notes.insert(name.to_ascii_lowercase(), Value::Text(value)),
            None => notes.remove(&name.to_ascii_lowercase()),
        };
    }
    Some(notes)
}
