//! Arguments of commands (RFC 5321 §4.1.1, §4.1.2, and the extensions'). An error is the reply.

mod parameters;
mod path;

pub use parameters::{Extensions, TOO_BIG, mail, parameters, rcpt};
pub use path::{Path, path, split};

use std::net::IpAddr;

use gatepost_protocol::address::{is_domain, is_literal};

/// The argument of HELO or EHLO (RFC 5321 §4.1.1.1), if it is a domain or an address literal.
pub fn host(argument: &[u8]) -> Option<&str> {
    let host = std::str::from_utf8(argument.trim_ascii()).ok()?;
    (is_domain(host) || is_literal(host)).then_some(host)
}

/// The longest line that a plugin can have in the reply to EHLO: with code and line end it stays within RFC 5321 §4.5.3.1.5.
const MAX_EHLO_LINE: usize = 506;

/// RFC 5321 §4.1.1.1 `ehlo-line`.
pub fn is_ehlo_line(line: &str) -> bool {
    let mut words = line.split(' ');
    let keyword = words.next().unwrap_or_default();
    let is_keyword = keyword.starts_with(|first: char| first.is_ascii_alphanumeric())
        && keyword
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    let is_parameter = |word: &str| !word.is_empty() && word.bytes().all(|b| b.is_ascii_graphic());
    line.len() <= MAX_EHLO_LINE && is_keyword && words.all(is_parameter)
}

/// The address in an address literal, `[192.0.2.1]` or `[IPv6:2001:db8::1]` (RFC 5321 §4.1.3).
pub fn literal(domain: &str) -> Option<IpAddr> {
    let inner = domain.strip_prefix('[')?.strip_suffix(']')?;
    let address: IpAddr = match inner.split_at_checked("IPv6:".len()) {
        Some((tag, v6)) if tag.eq_ignore_ascii_case("IPv6:") => IpAddr::V6(v6.parse().ok()?),
        _ => IpAddr::V4(inner.parse().ok()?),
    };
    Some(address.to_canonical())
}

/// The argument of VRFY without the parameter SMTPUTF8, and whether it had it (RFC 6531 §3.7.4.2).
pub fn without_smtputf8(argument: &[u8]) -> (&[u8], bool) {
    const PARAMETER: &[u8] = b" SMTPUTF8";
    match argument.split_at_checked(argument.len().saturating_sub(PARAMETER.len())) {
        Some((address, end)) if end.eq_ignore_ascii_case(PARAMETER) => (address, true),
        _ => (argument, false),
    }
}

/// What a client wrote, fit for a plugin or a log: no control characters, UTF-8.
pub fn printable(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    text.chars()
        .map(|character| {
            if character.is_control() {
                '?'
            } else {
                character
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn hosts() {
        for good in [
            "a",
            "x-y.example",
            "[192.0.2.1]",
            "[IPv6:::1]",
            " a.example ",
        ] {
            assert!(host(good.as_bytes()).is_some(), "{good}");
        }
        for bad in ["", "a b", "-a", "a..b", "[192.0.2.1", "a\u{e9}"] {
            assert!(host(bad.as_bytes()).is_none(), "{bad}");
        }
    }

    #[test]
    fn lines_of_a_reply_to_ehlo() {
        for good in ["HELP", "SIZE 1000", "AUTH PLAIN LOGIN", "X-1 a=b;c"] {
            assert!(is_ehlo_line(good), "{good}");
        }
        let long = "X".repeat(507);
        for bad in [
            "",
            " X",
            "-X",
            "X ",
            "X  Y",
            "X_Y",
            "X\r\n250 Y",
            "X \u{e9}",
            "X\tY",
            &long,
        ] {
            assert!(!is_ehlo_line(bad), "{bad:?}");
        }
    }

    #[test]
    fn literals() {
        let v4: IpAddr = "192.0.2.1".parse().unwrap();
        let v6: IpAddr = "2001:db8::1".parse().unwrap();
        assert_eq!(literal("[192.0.2.1]"), Some(v4));
        assert_eq!(literal("[ipv6:::ffff:192.0.2.1]"), Some(v4));
        assert_eq!(literal("[IPv6:2001:db8:0::1]"), Some(v6));
        for none in ["192.0.2.1", "[2001:db8::1]", "[IPv6:192.0.2.1]", "[]"] {
            assert_eq!(literal(none), None, "{none}");
        }
    }

    proptest! {
        #[test]
        fn nothing_a_client_sends_stops_the_parsers(argument in proptest::collection::vec(any::<u8>(), 0..80)) {
            for start in [&b""[..], b"TO:", b"TO:<"] {
                let argument = [start, &argument].concat();
                if let Ok((text, rest)) = split(&argument, Path::Forward) {
                    let _ = path(text, Path::Forward, true);
                    let _ = path(text, Path::Reverse, false);
                    let all = Extensions { smtputf8: true, dsn: true, requiretls: true, chunking: true, prdr: true };
                    let _ = parameters(rest).and_then(|read| mail(&read, all, 1000));
                    let _ = parameters(rest).and_then(|read| rcpt(&read, all, true));
                }
            }
            let _ = host(&argument);
            prop_assert!(!printable(&argument).chars().any(char::is_control));
        }
    }
}
