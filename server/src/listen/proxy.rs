//! The PROXY protocol, versions 1 and 2 (<https://www.haproxy.org/download/2.9/doc/proxy-protocol.txt>): a proxy says whose connection it passes
//! on, before anything else. It is read to its last byte and no further: what follows belongs to TLS, or to the conversation.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

/// The longest header of version 1, its CRLF included (§2.1).
const MAX_V1: usize = 107;
/// The longest header of version 2 that we take. Its length field could say 64 KiB; addresses and all the extensions there are need a fraction.
const MAX_V2: usize = 4096;
/// How version 2 begins (§2.2).
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// The part of version 2 whose length is fixed.
const V2_START: usize = 16;

/// What a proxy said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Header {
    /// Nothing about a client: the connection is the proxy's own (`LOCAL`, a health check), or it does not know whose it is (`UNKNOWN`).
    Own,
    /// The connection is this client's, who connected to that address.
    Passed {
        /// The client.
        client: SocketAddr,
        /// Where the client connected to.
        to: SocketAddr,
    },
}

/// Why a connection has no header.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// Nothing came at all.
    #[error("it hung up without a PROXY header")]
    Nothing,
    /// The connection ended within the header.
    #[error("it hung up in the middle of its PROXY header")]
    Cut,
    /// It did not come in time.
    #[error("its PROXY header did not come in time")]
    Late,
    /// The connection broke.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// There is something else.
    #[error("no PROXY header, which `proxy_from` of the listener requires from it: {0}")]
    Malformed(&'static str),
}

/// Reads the header at the beginning of a connection, and nothing behind it.
pub async fn read(stream: &mut TcpStream) -> Result<Header, ProxyError> {
    let mut bytes = Vec::new();
    loop {
        let known = bytes.len();
        bytes.resize(known + MAX_V1.max(V2_START), 0);
        let peeked = stream.peek(&mut bytes[known..]).await?;
        if peeked == 0 {
            return Err(match known {
                0 => ProxyError::Nothing,
                _ => ProxyError::Cut,
            });
        }
        bytes.truncate(known + peeked);
        let found = parse(&bytes).map_err(ProxyError::Malformed)?;
        let end = found.map_or(bytes.len(), |(_, length)| length);
        stream.read_exact(&mut bytes[known..end]).await?;
        if let Some((header, _)) = found {
            return Ok(header);
        }
    }
}

/// Reads the header that bytes begin with, and says how many belong to it. `None`: all of them do, and more is needed. An error says what is wrong.
pub fn parse(bytes: &[u8]) -> Result<Option<(Header, usize)>, &'static str> {
    if starts(bytes, &SIGNATURE) {
        parse_v2(bytes)
    } else if starts(bytes, b"PROXY ") {
        parse_v1(bytes)
    } else {
        Err("it begins like neither version")
    }
}

/// Whether bytes begin with others, as far as they go.
fn starts(bytes: &[u8], with: &[u8]) -> bool {
    bytes.iter().zip(with).all(|(one, other)| one == other)
}

fn parse_v1(bytes: &[u8]) -> Result<Option<(Header, usize)>, &'static str> {
    let searched = &bytes[..bytes.len().min(MAX_V1)];
    let Some(end) = memchr::memchr(b'\n', searched) else {
        return match bytes.len() {
            MAX_V1.. => Err("its line is longer than 107 bytes"),
            _ => Ok(None),
        };
    };
    let line = bytes[..end]
        .strip_suffix(b"\r")
        .ok_or("its line does not end in CRLF")?;
    let line = std::str::from_utf8(line).map_err(|_| "its line is not ASCII")?;
    let mut words = line.split(' ').skip(1);
    let header = match words.next() {
        // What follows is to be ignored.
        Some("UNKNOWN") => Header::Own,
        Some("TCP4") => passed::<Ipv4Addr>(words)?,
        Some("TCP6") => passed::<Ipv6Addr>(words)?,
        _ => return Err("its protocol is none of TCP4, TCP6 and UNKNOWN"),
    };
    Ok(Some((header, end + 1)))
}

/// Two addresses, and the port of each.
fn passed<'a, A: std::str::FromStr + Into<IpAddr>>(
    words: impl Iterator<Item = &'a str>,
) -> Result<Header, &'static str> {
    let words: Vec<&str> = words.collect();
    let &[client, to, client_port, to_port] = words.as_slice() else {
        return Err("it needs two addresses and two ports, with one space between");
    };
    let address = |text: &str| -> Result<IpAddr, &'static str> {
        let address: A = text.parse().map_err(|_| "an address is malformed")?;
        Ok(address.into())
    };
    let port = |text: &str| {
        let digits = text.bytes().all(|byte| byte.is_ascii_digit());
        let plain = digits && (text == "0" || !text.starts_with('0'));
        text.parse()
            .ok()
            .filter(|_: &u16| plain)
            .ok_or("a port is malformed")
    };
    Ok(Header::Passed {
        client: SocketAddr::new(address(client)?, port(client_port)?),
        to: SocketAddr::new(address(to)?, port(to_port)?),
    })
}

fn parse_v2(bytes: &[u8]) -> Result<Option<(Header, usize)>, &'static str> {
    let Some(start) = bytes.first_chunk::<V2_START>() else {
        return Ok(None);
    };
    let (version_and_command, family) = (start[12], start[13]);
    let length = V2_START + usize::from(u16::from_be_bytes([start[14], start[15]]));
    if version_and_command >> 4 != 2 {
        return Err("its version is not 2");
    }
    if length > MAX_V2 {
        return Err("it is longer than 4096 bytes");
    }
    let Some(rest) = bytes.get(V2_START..length) else {
        return Ok(None);
    };
    // Behind the addresses there may be extensions, which say nothing that we need.
    let header = match (version_and_command & 0xf, family) {
        (0, _) => Header::Own,
        (1, 0x11) => addresses::<4, Ipv4Addr>(rest)?,
        (1, 0x21) => addresses::<16, Ipv6Addr>(rest)?,
        // Unspecified, and a Unix socket: clients without an IP address.
        (1, 0x00 | 0x31) => Header::Own,
        (1, _) => return Err("its transport is not TCP"),
        _ => return Err("its command is neither LOCAL nor PROXY"),
    };
    Ok(Some((header, length)))
}

/// Two addresses of `N` bytes, and the port of each.
fn addresses<const N: usize, A: From<[u8; N]> + Into<IpAddr>>(
    bytes: &[u8],
) -> Result<Header, &'static str> {
    let split = || {
        let (client, rest) = bytes.split_first_chunk::<N>()?;
        let (to, rest) = rest.split_first_chunk::<N>()?;
        Some((client, to, rest.first_chunk::<4>()?))
    };
    let (client, to, ports) = split().ok_or("it is too short for its addresses")?;
    let address = |bytes: &[u8; N], port: [u8; 2]| {
        SocketAddr::new(A::from(*bytes).into(), u16::from_be_bytes(port))
    };
    Ok(Header::Passed {
        client: address(client, [ports[0], ports[1]]),
        to: address(to, [ports[2], ports[3]]),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    fn passed(client: &str, to: &str) -> Header {
        Header::Passed {
            client: client.parse().unwrap(),
            to: to.parse().unwrap(),
        }
    }

    fn v1(client: SocketAddr, to: SocketAddr) -> Vec<u8> {
        let family = if client.is_ipv4() { "TCP4" } else { "TCP6" };
        let (ports, ips) = ((client.port(), to.port()), (client.ip(), to.ip()));
        format!(
            "PROXY {family} {} {} {} {}\r\n",
            ips.0, ips.1, ports.0, ports.1
        )
        .into_bytes()
    }

    fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
        [&SIGNATURE[..], &[command, family], &length, rest].concat()
    }

    fn v2_passed(client: SocketAddr, to: SocketAddr, extensions: &[u8]) -> Vec<u8> {
        let octets = |ip: IpAddr| match ip {
            IpAddr::V4(ip) => ip.octets().to_vec(),
            IpAddr::V6(ip) => ip.octets().to_vec(),
        };
        let family = if client.is_ipv4() { 0x11 } else { 0x21 };
        let mut rest = [octets(client.ip()), octets(to.ip())].concat();
        rest.extend(client.port().to_be_bytes());
        rest.extend(to.port().to_be_bytes());
        rest.extend(extensions);
        v2(0x21, family, &rest)
    }

    #[test]
    fn lines_of_version_1() {
        for (line, header) in [
            (
                "PROXY TCP4 192.0.2.7 198.51.100.1 40000 25",
                passed("192.0.2.7:40000", "198.51.100.1:25"),
            ),
            (
                "PROXY TCP6 2001:db8::7 2001:db8::1 0 65535",
                passed("[2001:db8::7]:0", "[2001:db8::1]:65535"),
            ),
            ("PROXY UNKNOWN", Header::Own),
            ("PROXY UNKNOWN ffff::1 ffff::2 65535 whatever", Header::Own),
        ] {
            let bytes = format!("{line}\r\nEHLO x\r\n");
            assert_eq!(parse(bytes.as_bytes()), Ok(Some((header, line.len() + 2))));
        }
        let long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(91));
        assert_eq!(long.len(), 107);
        assert_eq!(parse(long.as_bytes()), Ok(Some((Header::Own, 107))));
        for wrong in [
            "EHLO client.example\r\n",
            "\r\n\r\n\0\r\nHELO x\r\n",
            "proxy TCP4 192.0.2.7 198.51.100.1 40000 25\r\n",
            "PROXY\r\n",
            "PROXY TCP5 192.0.2.7 198.51.100.1 40000 25\r\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1 40000\r\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1 40000 25 \r\n",
            "PROXY TCP4  192.0.2.7 198.51.100.1 40000 25\r\n",
            "PROXY TCP4 192.0.2.7 2001:db8::1 40000 25\r\n",
            "PROXY TCP6 192.0.2.7 198.51.100.1 40000 25\r\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1 65536 25\r\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1 +1 25\r\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1 040 25\r\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1  25\r\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1 40000 25\n",
            "PROXY TCP4 192.0.2.7\r198.51.100.1 40000 25\r\n",
            &format!("PROXY UNKNOWN {}\r\n", "x".repeat(92)),
            &format!("PROXY UNKNOWN {}", "x".repeat(93)),
        ] {
            assert!(parse(wrong.as_bytes()).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn headers_of_version_2() {
        let (client, to) = ("192.0.2.7:40000", "198.51.100.1:25");
        let whole = v2_passed(client.parse().unwrap(), to.parse().unwrap(), b"\x04\0\x01x");
        assert_eq!(parse(&whole), Ok(Some((passed(client, to), whole.len()))));
        let addresses = &whole[16..28];
        for own in [
            v2(0x20, 0, b""),
            v2(0x20, 0x11, addresses),
            v2(0x21, 0, b"anything"),
            v2(0x21, 0x31, &[0; 216]),
        ] {
            assert_eq!(parse(&own), Ok(Some((Header::Own, own.len()))));
        }
        let longest = v2(0x20, 0, &[0; MAX_V2 - V2_START]);
        assert_eq!(parse(&longest), Ok(Some((Header::Own, MAX_V2))));
        for wrong in [
            v2(0x11, 0x11, addresses),
            v2(0x22, 0x11, addresses),
            v2(0x21, 0x12, addresses),
            v2(0x21, 0x11, &addresses[..11]),
            v2(0x21, 0x21, addresses),
            v2(0x20, 0, &[0; MAX_V2 - V2_START + 1]),
        ] {
            assert!(parse(&wrong).is_err(), "{wrong:?}");
        }
    }

    fn pair() -> impl Strategy<Value = (SocketAddr, SocketAddr)> {
        prop_oneof![
            any::<([u8; 4], u16, [u8; 4], u16)>().prop_map(|(client, port, to, to_port)| {
                (
                    SocketAddr::new(client.into(), port),
                    SocketAddr::new(to.into(), to_port),
                )
            }),
            any::<([u16; 8], u16, [u16; 8], u16)>().prop_map(|(client, port, to, to_port)| {
                (
                    SocketAddr::new(client.into(), port),
                    SocketAddr::new(to.into(), to_port),
                )
            }),
        ]
    }

    proptest! {
        #[test]
        fn a_header_is_whole_at_its_last_byte_and_not_before(
            (client, to) in pair(),
            extensions in proptest::collection::vec(any::<u8>(), 0..40),
            behind in proptest::collection::vec(any::<u8>(), 0..40),
        ) {
            for header in [v1(client, to), v2_passed(client, to, &extensions)] {
                for cut in 0..header.len() {
                    prop_assert_eq!(parse(&header[..cut]), Ok(None), "cut at {}", cut);
                }
                let found = Some((Header::Passed { client, to }, header.len()));
                prop_assert_eq!(parse(&[&header[..], &behind].concat()), Ok(found));
            }
        }

        #[test]
        fn nothing_a_client_sends_stops_the_parser(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            for start in [&b""[..], b"PROXY ", b"PROXY TCP4 ", &SIGNATURE, b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0"] {
                let all = [start, &bytes].concat();
                if let Ok(Some((_, length))) = parse(&all) {
                    prop_assert!(length <= all.len());
                }
            }
        }
    }

    #[tokio::test]
    async fn what_follows_the_header_is_left_for_others() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (client, to) = ("192.0.2.7:40000", "198.51.100.1:25");
        let (expected, addresses) = (
            passed(client, to),
            (client.parse().unwrap(), to.parse().unwrap()),
        );
        for header in [
            v1(addresses.0, addresses.1),
            v2_passed(addresses.0, addresses.1, &[7; 1000]),
        ] {
            for cut in [0, 1, 15, header.len() - 1, header.len()] {
                let mut theirs = TcpStream::connect(address).await.unwrap();
                let (mut ours, _) = listener.accept().await.unwrap();
                let behind = [&header[cut..], b"\x16\x03\x01"].concat();
                let talk = async {
                    theirs.write_all(&header[..cut]).await.unwrap();
                    tokio::task::yield_now().await;
                    theirs.write_all(&behind).await.unwrap();
                };
                let (found, ()) = tokio::join!(read(&mut ours), talk);
                assert_eq!(found.unwrap(), expected);
                let mut rest = [0; 3];
                ours.read_exact(&mut rest).await.unwrap();
                assert_eq!(&rest, b"\x16\x03\x01");
            }
        }
    }
}
