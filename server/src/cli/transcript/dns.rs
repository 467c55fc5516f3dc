//! A DNS server on loopback for the time of a dialogue. It knows the records of the head's table `[dns]`, and says of all other names that there are none.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;

/// Bytes of an answer by UDP (RFC 1035 §4.2.1); a longer one is asked for again by TCP.
const DATAGRAM: usize = 512;

/// Ports that are tried until one is free for UDP and for TCP.
const PORTS_TRIED: usize = 20;

/// Response codes (RFC 1035 §4.1.1).
const SERVER_FAILURE: u8 = 2;
const NAME_ERROR: u8 = 3;

/// What is known, by name in lower case.
#[derive(Clone, Debug, Default)]
pub struct Zone {
    names: HashMap<String, Known>,
}

/// What a name has.
#[derive(Clone, Debug, Default)]
struct Known {
    /// Types and data on the wire.
    records: Vec<(u16, Vec<u8>)>,
    /// Whoever asks is told that the server failed.
    fails: bool,
}

impl Zone {
    /// Adds an entry of the table: a name and a type (`mail.example A`), and what a record of that type has; or a name alone, and `SERVFAIL`.
    /// An error says what is wrong with it.
    pub fn add(&mut self, entry: &str, data: &str) -> Result<(), String> {
        let (name, kind) = entry.split_once(' ').unwrap_or((entry, ""));
        if wire_name(name).is_none() {
            return Err(format!("`{name}` is no name for the DNS"));
        }
        let known = self.names.entry(name.to_ascii_lowercase()).or_default();
        if kind.is_empty() && data == "SERVFAIL" {
            known.fails = true;
            return Ok(());
        }
        let record = wire(kind, data).ok_or_else(|| {
            format!("`{entry}` cannot be `{data}`; an entry is like \"mail.example A\" = \"192.0.2.1\", of type A, AAAA, MX, PTR or TXT, or \"mail.example\" = \"SERVFAIL\"")
        })?;
        known.records.push(record);
        Ok(())
    }
}

/// Type and data of a record (RFC 1035 §3.2.2, §3.3, §3.4.1, RFC 3596 §2); `None` where the text is none.
fn wire(kind: &str, data: &str) -> Option<(u16, Vec<u8>)> {
    Some(match kind {
        "A" => (1, data.parse::<Ipv4Addr>().ok()?.octets().to_vec()),
        "PTR" => (12, wire_name(data)?),
        "MX" => {
            let (preference, host) = data.split_once(' ')?;
            let preference: u16 = preference.parse().ok()?;
            (
                15,
                [&preference.to_be_bytes()[..], &wire_name(host)?].concat(),
            )
        }
        // Parts of at most 255 bytes, which readers join again.
        "TXT" => {
            let parts = data.as_bytes().chunks(255);
            let parts = parts.flat_map(|part| [&[length_of(part)], part].concat());
            (16, parts.collect())
        }
        "AAAA" => (28, data.parse::<Ipv6Addr>().ok()?.octets().to_vec()),
        _ => return None,
    })
}

/// A name as labels (RFC 1035 §3.1).
fn wire_name(name: &str) -> Option<Vec<u8>> {
    let mut wire = Vec::new();
    for label in name.trim_end_matches('.').split('.') {
        if label.is_empty() || label.len() > 63 || label.contains(' ') {
            return None;
        }
        wire.push(length_of(label.as_bytes()));
        wire.extend(label.as_bytes());
    }
    wire.push(0);
    Some(wire)
}

fn length_of(part: &[u8]) -> u8 {
    u8::try_from(part.len()).expect("a part is short")
}

/// A running server. It ends when it is dropped.
pub struct Dns {
    address: SocketAddr,
    socket: UdpSocket,
}

impl Dns {
    /// Answers from here on, on a free port of 127.0.0.1.
    pub fn start(zone: Zone) -> io::Result<Dns> {
        let (socket, listener) = sockets()?;
        let (zone, address) = (Arc::new(zone), socket.local_addr()?);
        let dns = Dns {
            address,
            socket: socket.try_clone()?,
        };
        std::thread::spawn({
            let zone = zone.clone();
            move || by_udp(&socket, address, &zone)
        });
        std::thread::spawn(move || by_tcp(&listener, &zone));
        Ok(dns)
    }

    /// Where it is asked.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// What it says to itself to end, by UDP and TCP: nothing that is a question.
const END: [u8; 2] = [0, 0];

impl Drop for Dns {
    fn drop(&mut self) {
        // Where one has ended already nobody needs to be told.
        let _ = self.socket.send_to(&END, self.address);
        let _ = TcpStream::connect(self.address).and_then(|mut stream| stream.write_all(&END));
    }
}

/// Two with the same port.
fn sockets() -> io::Result<(UdpSocket, TcpListener)> {
    let mut tried = 0;
    loop {
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        tried += 1;
        match TcpListener::bind(socket.local_addr()?) {
            Ok(listener) => return Ok((socket, listener)),
            Err(error) if tried == PORTS_TRIED => return Err(error),
            Err(_) => {}
        }
    }
}

fn by_udp(socket: &UdpSocket, own: SocketAddr, zone: &Zone) {
    let mut packet = [0; DATAGRAM];
    while let Ok((length, client)) = socket.recv_from(&mut packet) {
        let query = &packet[..length];
        if query == END && client == own {
            return;
        }
        if let Some(answer) = answer(query, zone, DATAGRAM) {
            // A client that is gone needs none.
            let _ = socket.send_to(&answer, client);
        }
    }
}

/// One question a connection, which is what clients with a long answer to fetch have.
fn by_tcp(listener: &TcpListener, zone: &Zone) {
    for mut stream in listener.incoming().map_while(Result::ok) {
        let mut length = END;
        if stream.read_exact(&mut length).is_err() {
            continue;
        }
        if length == END {
            return;
        }
        let mut query = vec![0; usize::from(u16::from_be_bytes(length))];
        if stream.read_exact(&mut query).is_err() {
            continue;
        }
        if let Some(answer) = answer(&query, zone, usize::from(u16::MAX)) {
            let length = u16::try_from(answer.len()).expect("it is not longer than that");
            // A client that is gone needs none.
            let _ = stream.write_all(&[&length.to_be_bytes()[..], &answer].concat());
        }
    }
}

/// RFC 1035 §4.1: the header, the question again, the records; where that is longer than `most`, only that it is.
fn answer(query: &[u8], zone: &Zone, most: usize) -> Option<Vec<u8>> {
    let (name, end) = question(query)?;
    let kind: [u8; 2] = query.get(end..end + 2)?.try_into().ok()?;
    let known = zone.names.get(&name);
    let code = match known {
        None => NAME_ERROR,
        Some(known) if known.fails => SERVER_FAILURE,
        Some(_) => 0,
    };
    let records = known.into_iter().flat_map(|known| &known.records);
    let fitting: Vec<&Vec<u8>> = records
        .filter(|(of, _)| code == 0 && of.to_be_bytes() == kind)
        .map(|(_, data)| data)
        .collect();
    let mut records = Vec::new();
    for data in &fitting {
        // The name by a pointer to the question, its type, class IN, a minute to live.
        records.extend([0xc0, 12, kind[0], kind[1], 0, 1, 0, 0, 0, 60]);
        records.extend(u16::try_from(data.len()).ok()?.to_be_bytes());
        records.extend(*data);
    }
    let question = query.get(12..end + 4)?;
    let truncated = 12 + question.len() + records.len() > most;
    if truncated {
        records.clear();
    }
    let count = u16::try_from(if truncated { 0 } else { fitting.len() }).ok()?;
    let mut answer = query[..2].to_vec();
    // An answer with authority, recursion as if it was wanted and is there.
    answer.extend([0x85 | u8::from(truncated) << 1, 0x80 | code, 0, 1]);
    answer.extend(count.to_be_bytes());
    answer.extend([0; 4]);
    answer.extend(question);
    answer.extend(records);
    Some(answer)
}

/// The name that is asked for, in lower case, and where its type begins.
fn question(query: &[u8]) -> Option<(String, usize)> {
    let mut at = 12;
    let mut labels = Vec::new();
    loop {
        let length = usize::from(*query.get(at)?);
        at += 1;
        if length == 0 {
            return Some((labels.join(".").to_ascii_lowercase(), at));
        }
        labels.push(String::from_utf8(query.get(at..at + length)?.to_vec()).ok()?);
        at += length;
    }
}

#[cfg(test)]
mod tests {
    use gatepost_protocol::{DnsStatus, RecordType};

    use super::*;
    use crate::services::{Dns as Resolver, DnsConfig};

    fn zone() -> Zone {
        let mut zone = Zone::default();
        for (entry, data) in [
            ("mail.example A", "192.0.2.1"),
            ("mail.example A", "192.0.2.2"),
            ("mail.example AAAA", "2001:db8::1"),
            ("example MX", "10 mail.example"),
            ("1.2.0.192.in-addr.arpa PTR", "mail.example."),
            ("broken.example", "SERVFAIL"),
        ] {
            zone.add(entry, data).unwrap();
        }
        zone.add("key.example TXT", &"k".repeat(700)).unwrap();
        zone
    }

    #[tokio::test]
    async fn a_resolver_finds_what_is_in_the_table() {
        let dns = Dns::start(zone()).unwrap();
        let resolver = Resolver::new(DnsConfig {
            server: Some(dns.address()),
            ..DnsConfig::default()
        });
        for (name, kind, expected) in [
            (
                "Mail.example",
                RecordType::A,
                &["192.0.2.1", "192.0.2.2"][..],
            ),
            ("mail.example", RecordType::Aaaa, &["2001:db8::1"]),
            ("example", RecordType::Mx, &["10 mail.example"]),
            ("192.0.2.1", RecordType::Ptr, &["mail.example"]),
            ("key.example", RecordType::Txt, &[&"k".repeat(700)]),
        ] {
            let mut found = resolver.lookup(name, kind).await.unwrap().records;
            found.sort();
            assert_eq!(found, expected, "{name}");
        }
        let none = resolver.lookup("other.example", RecordType::A).await;
        assert_eq!(none.unwrap().status, DnsStatus::NoSuchName);
        let other = resolver.lookup("mail.example", RecordType::Txt).await;
        assert_eq!(other.unwrap().status, DnsStatus::NoRecords);
        assert!(
            resolver
                .lookup("broken.example", RecordType::A)
                .await
                .is_err()
        );
    }

    #[test]
    fn an_entry_that_is_none_is_told_so() {
        for (entry, data) in [
            ("mail.example A", "192.0.2"),
            ("mail.example", "192.0.2.1"),
            ("example MX", "mail.example"),
            ("example SRV", "x"),
            ("a..b A", "192.0.2.1"),
        ] {
            assert!(Zone::default().add(entry, data).is_err(), "{entry}");
        }
    }
}
