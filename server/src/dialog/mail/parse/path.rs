//! `FROM:<a@b>` and `TO:<a@b>` (RFC 5321 §4.1.1.2, §4.1.1.3).

use gatepost_protocol::Address;
use gatepost_protocol::address::{AddressError, is_domain};

/// MAIL or RCPT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Path {
    /// `MAIL FROM:`
    Reverse,
    /// `RCPT TO:`
    Forward,
}

/// Replies to the mistakes of a path.
struct Replies {
    syntax: &'static str,
    malformed: &'static str,
    too_long: &'static str,
}

impl Path {
    const fn keyword(self) -> &'static str {
        match self {
            Path::Reverse => "FROM:",
            Path::Forward => "TO:",
        }
    }

    const fn replies(self) -> Replies {
        match self {
            Path::Reverse => Replies {
                syntax: "501 5.5.4 Syntax: MAIL FROM:<address>",
                malformed: "501 5.1.7 The sender's address is malformed",
                too_long: "501 5.1.7 The sender's address is too long",
            },
            Path::Forward => Replies {
                syntax: "501 5.5.4 Syntax: RCPT TO:<address>",
                malformed: "501 5.1.3 The recipient's address is malformed",
                too_long: "501 5.1.3 The recipient's address is too long",
            },
        }
    }
}

/// Takes an argument apart: the path as the client wrote it, with its angle brackets, and what stands behind it.
pub fn split(argument: &[u8], path: Path) -> Result<(&[u8], &[u8]), &'static str> {
    let keyword = path.keyword().as_bytes();
    match argument.split_at_checked(keyword.len()) {
        Some((start, rest)) if start.eq_ignore_ascii_case(keyword) => {
            // RFC 5321 §3.3 forbids the space; many clients send it, and it changes nothing.
            let rest = rest.trim_ascii_start();
            Ok(rest.split_at(length(rest)))
        }
        _ => Err(path.replies().syntax),
    }
}

/// Where a path ends: behind its `>`, which is not one within a quoted local part; without brackets at a space.
fn length(path: &[u8]) -> usize {
    let bracketed = path.starts_with(b"<");
    let (mut quoted, mut escaped) = (false, false);
    for (at, byte) in path.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'>' if bracketed && !quoted => return at + 1,
            b' ' if !bracketed && !quoted => return at,
            _ => {}
        }
    }
    path.len()
}

/// Reads a path with its angle brackets. `utf8` says whether it may have characters outside ASCII (RFC 6531 §3.5).
pub fn path(text: &[u8], path: Path, utf8: bool) -> Result<Address, &'static str> {
    let Replies {
        syntax,
        malformed,
        too_long,
    } = path.replies();
    let inner = text
        .strip_prefix(b"<")
        .and_then(|rest| rest.strip_suffix(b">"))
        .filter(|inner| length(text) == inner.len() + 2)
        .ok_or(syntax)?;
    if !utf8 && !inner.is_ascii() {
        return Err("553 5.6.7 Addresses outside ASCII need the parameter SMTPUTF8 of MAIL");
    }
    let inner = std::str::from_utf8(inner).map_err(|_| malformed)?;
    let mailbox = without_route(inner).ok_or(malformed)?;
    match Address::parse_utf8(mailbox) {
        Ok(address) if address.is_null() && path == Path::Forward => Err(malformed),
        Ok(address) => Ok(address),
        Err(AddressError::TooLong) => Err(too_long),
        Err(_) => Err(malformed),
    }
}

/// A path without its source route, which is accepted and ignored (RFC 5321 §4.1.2, appendix C).
fn without_route(path: &str) -> Option<&str> {
    if !path.starts_with('@') {
        return Some(path);
    }
    let (route, mailbox) = path.split_once(':')?;
    let is_hop = |hop: &str| hop.strip_prefix('@').is_some_and(is_domain);
    // Only the bare `<postmaster>` has no domain (RFC 5321 §4.1.1.3), and only the bare `<>` no mailbox.
    (route.split(',').all(is_hop) && mailbox.contains('@')).then_some(mailbox)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(argument: &str, which: Path, utf8: bool) -> Result<String, &'static str> {
        let (text, rest) = split(argument.as_bytes(), which)?;
        let rest = std::str::from_utf8(rest).unwrap();
        Ok(format!("{}{rest}", path(text, which, utf8)?))
    }

    fn from(argument: &str) -> Result<String, &'static str> {
        read(argument, Path::Reverse, false)
    }

    #[test]
    fn paths() {
        for (argument, expected) in [
            ("FROM:<a@b>", "<a@b>"),
            ("from:  <a@b>", "<a@b>"),
            ("FROM:<>", "<>"),
            ("FROM:<@x.example,@y.example:a@b>", "<a@b>"),
            (r#"FROM:<"a>b \"c"@d> SIZE=1"#, r#"<"a>b \"c"@d> SIZE=1"#),
            ("FROM:<a@[IPv6:::1]>", "<a@[IPv6:::1]>"),
            ("FROM:<a@b>SIZE=1", "<a@b>SIZE=1"),
        ] {
            assert_eq!(from(argument).as_deref(), Ok(expected), "{argument}");
        }
        for (argument, code) in [
            ("", "501 5.5.4"),
            ("FROM", "501 5.5.4"),
            ("FROM:", "501 5.5.4"),
            ("FROM <a@b>", "501 5.5.4"),
            ("TO:<a@b>", "501 5.5.4"),
            ("FROM:a@b", "501 5.5.4"),
            ("FROM:a@b>", "501 5.5.4"),
            ("FROM:<a@b", "501 5.5.4"),
            ("FROM:<a@b SIZE=1", "501 5.5.4"),
            ("FROM:<\"a@b>", "501 5.1.7"),
            ("FROM:<a b@c>", "501 5.1.7"),
            ("FROM:<a>", "501 5.1.7"),
            ("FROM:<@x:>", "501 5.1.7"),
            ("FROM:<@x:postmaster>", "501 5.1.7"),
            ("FROM:<x,@y:a@b>", "501 5.1.7"),
            ("FROM:<j\u{f6}rg@b>", "553 5.6.7"),
        ] {
            let error = from(argument).unwrap_err();
            assert!(error.starts_with(code), "{argument}: {error}");
        }
        let long = format!("FROM:<{}@b>", "x".repeat(65));
        assert!(from(&long).unwrap_err().contains("too long"));
        for good in ["postmaster", "PostMaster"] {
            let read = path(format!("<{good}>").as_bytes(), Path::Forward, false);
            assert_eq!(read.unwrap().as_str(), good);
        }
        let null = path(b"<>", Path::Forward, false).unwrap_err();
        assert!(null.starts_with("501 5.1.3"));
        let ill_formed = |utf8| path(b"<\xff@b>", Path::Forward, utf8).unwrap_err();
        assert!(ill_formed(false).starts_with("553 5.6.7"));
        assert!(ill_formed(true).starts_with("501 5.1.3"));
    }

    proptest! {
        #[test]
        fn every_mailbox_comes_through(
            local in r#"[a-z0-9.\p{L}]{1,10}|"([ -!#-\[\]-~]|\\[ -~]){0,10}""#,
            domain in "[a-z]{1,10}(\\.[a-z\\p{L}]{1,5})?",
            route in "(@[a-z]{1,5}(,@[a-z]{1,5}){0,2}:)?",
        ) {
            let mailbox = format!("{local}@{domain}");
            prop_assume!(Address::parse_utf8(&mailbox).is_ok());
            let argument = format!("TO:<{route}{mailbox}> X=1");
            prop_assert_eq!(read(&argument, Path::Forward, true), Ok(format!("<{mailbox}> X=1")));
            prop_assert_eq!(read(&argument, Path::Forward, false).is_ok(), mailbox.is_ascii());
        }
    }
}
