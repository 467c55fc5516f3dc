//! Arguments of commands (RFC 5321 §4.1.1, §4.1.2, and the extensions'). An error is the reply.

mod parameters;
mod path;

pub use parameters::{Extensions, mail, parameters, rcpt};
pub use path::{Path, path, split};

use gatepost_protocol::address::{is_domain, is_literal};

/// The argument of HELO or EHLO (RFC 5321 §4.1.1.1), if it is a domain or an address literal.
pub fn host(argument: &[u8]) -> Option<&str> {
    let host = std::str::from_utf8(argument.trim_ascii()).ok()?;
    (is_domain(host) || is_literal(host)).then_some(host)
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

    proptest! {
        #[test]
        fn nothing_a_client_sends_stops_the_parsers(argument in proptest::collection::vec(any::<u8>(), 0..80)) {
            for start in [&b""[..], b"TO:", b"TO:<"] {
                let argument = [start, &argument].concat();
                if let Ok((text, rest)) = split(&argument, Path::Forward) {
                    let _ = path(text, Path::Forward, true);
                    let _ = path(text, Path::Reverse, false);
                    let all = Extensions { smtputf8: true, dsn: true, requiretls: true, chunking: true };
                    let _ = parameters(rest).and_then(|read| mail(&read, all, 1000));
                    let _ = parameters(rest).and_then(|read| rcpt(&read, all, true));
                }
            }
            let _ = host(&argument);
            prop_assert!(!printable(&argument).chars().any(char::is_control));
        }
    }
}
