//! A DNS server on loopback that knows a few names, for plugins that ask.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};

/// What a name has.
#[derive(Clone)]
pub enum Record {
    /// An address.
    A(Ipv4Addr),
    /// A text of at most 255 bytes.
    Txt(&'static str),
}

impl Record {
    /// Type and data on the wire (RFC 1035 §3.2.2, §3.4.1, §3.3.14).
    fn wire(&self) -> (u16, Vec<u8>) {
        match self {
            Record::A(address) => (1, address.octets().to_vec()),
            Record::Txt(text) => {
                let length = u8::try_from(text.len()).expect("a short text");
                (16, [&[length], text.as_bytes()].concat())
            }
        }
    }
}

/// Answers until the process ends: the records of a name, or that there is no such name. Returns its address.
pub fn serve(names: &[(&str, Record)]) -> SocketAddr {
    let mut known: HashMap<String, Vec<Record>> = HashMap::new();
    for (name, record) in names {
        known
            .entry((*name).to_owned())
            .or_default()
            .push(record.clone());
    }
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    let address = socket.local_addr().expect("it is bound");
    std::thread::spawn(move || {
        let mut packet = [0; 512];
        while let Ok((length, client)) = socket.recv_from(&mut packet) {
            if let Some(answer) = answer(&packet[..length], &known) {
                // A client that is gone needs none.
                let _ = socket.send_to(&answer, client);
            }
        }
    });
    address
}

/// RFC 1035 §4.1: the header, the question again, the records.
fn answer(query: &[u8], known: &HashMap<String, Vec<Record>>) -> Option<Vec<u8>> {
    let (name, end) = question(query)?;
    let kind = u16::from_be_bytes(query.get(end..end + 2)?.try_into().ok()?);
    let records = known.get(&name);
    let fitting: Vec<Vec<u8>> = records
        .into_iter()
        .flatten()
        .map(Record::wire)
        .filter(|(of, _)| *of == kind)
        .map(|(_, data)| data)
        .collect();
    let no_such_name = u8::from(records.is_none()) * 3;
    let count = u16::try_from(fitting.len()).ok()?.to_be_bytes();
    let mut answer = query[..2].to_vec();
    answer.extend([
        0x85,
        0x80 | no_such_name,
        0,
        1,
        count[0],
        count[1],
        0,
        0,
        0,
        0,
    ]);
    answer.extend(&query[12..end + 4]);
    for data in fitting {
        let length = u16::try_from(data.len()).ok()?.to_be_bytes();
        // The name by a pointer to the question, class IN, a minute to live.
        answer.extend([
            0xc0,
            12,
            0,
            u8::try_from(kind).ok()?,
            0,
            1,
            0,
            0,
            0,
            60,
            length[0],
            length[1],
        ]);
        answer.extend(data);
    }
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
