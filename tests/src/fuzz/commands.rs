//! Arguments of commands, held against the grammar written once more ([`super::grammar`]), and against themselves: what was read and is written again
//! is read alike.

use gatepost::dialog::parse::{
    Extensions, Path, host, is_ehlo_line, literal, mail, parameters, path, printable, rcpt, split,
    without_smtputf8,
};
use gatepost_protocol::Parameters;
use gatepost_protocol::address::{MAX_DOMAIN, MAX_LOCAL, MAX_MAILBOX, is_domain, is_literal};

use super::grammar;

const ALL: Extensions = Extensions {
    smtputf8: true,
    dsn: true,
    requiretls: true,
    chunking: true,
    prdr: true,
};

/// Takes an input as the argument of every command that has one.
pub fn check(argument: &[u8]) {
    for which in [Path::Reverse, Path::Forward] {
        if let Ok((text, rest)) = split(argument, which) {
            assert!(argument.ends_with(&[text, rest].concat()));
            check_path(text, which);
            check_parameters(rest);
        }
        check_path(argument, which);
    }
    check_parameters(argument);
    check_hosts(argument);
    let (address, utf8) = without_smtputf8(argument);
    assert!(argument.starts_with(address) && utf8 == (address.len() < argument.len()));
    let shown = printable(argument);
    assert!(!shown.contains(char::is_control), "{shown:?}");
}

fn check_path(text: &[u8], which: Path) {
    for utf8 in [false, true] {
        let read = path(text, which, utf8).ok();
        let expected = std::str::from_utf8(text)
            .ok()
            .and_then(|text| grammar::path(text, utf8))
            .filter(|mailbox| which == Path::Reverse || !mailbox.is_empty());
        assert_eq!(read.as_ref().map(|address| address.as_str()), expected);
        let Some(address) = read else { continue };
        let (mailbox, local) = (address.as_str(), address.local());
        assert!(!mailbox.contains(char::is_control), "{mailbox:?}");
        assert!(mailbox.len() <= MAX_MAILBOX && local.len() <= MAX_LOCAL);
        assert_eq!(address.needs_smtputf8(), !mailbox.is_ascii());
        if let Some(domain) = address.domain() {
            assert!(domain.len() <= MAX_DOMAIN);
            assert_eq!(format!("{local}@{domain}"), mailbox);
        }
        // As it stands in an envelope that is passed on.
        let written = address.to_string();
        let argument = format!(
            "{}{written} X",
            match which {
                Path::Reverse => "FROM:",
                Path::Forward => "TO:",
            }
        );
        assert_eq!(
            split(argument.as_bytes(), which),
            Ok((written.as_bytes(), &b" X"[..]))
        );
        assert_eq!(path(written.as_bytes(), which, utf8), Ok(address));
    }
}

fn check_parameters(text: &[u8]) {
    let Ok(read) = parameters(text) else { return };
    let mut written = String::new();
    for (keyword, value) in &read {
        let is_keyword =
            |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'-';
        assert!(
            !keyword.starts_with('-') && keyword.bytes().all(is_keyword),
            "{keyword:?}"
        );
        written.push_str(&format!(" {}", keyword.to_ascii_lowercase()));
        if let Some(value) = value {
            let bad = |c: char| c.is_control() || matches!(c, ' ' | '=');
            assert!(!value.is_empty() && !value.contains(bad), "{value:?}");
            written.push_str(&format!("={value}"));
        }
    }
    assert_eq!(parameters(written.as_bytes()).as_ref(), Ok(&read));
    judge(&read);
}

fn judge(read: &Parameters) {
    let has = |keyword: &str| read.contains_key(keyword);
    let none = Extensions::default();
    let taken = mail(read, ALL, 1000).is_ok();
    if mail(read, none, 1000).is_ok() {
        assert!(taken, "{read:?}");
        let known = |keyword: &String| matches!(keyword.as_str(), "SIZE" | "BODY" | "AUTH");
        assert!(read.keys().all(known), "{read:?}");
    }
    if taken {
        assert!(!has("NOTIFY") && !has("ORCPT"), "{read:?}");
        if let Some(Some(size)) = read.get("SIZE") {
            assert!(size.parse::<u64>().is_ok_and(|size| size <= 1000), "{size}");
        }
        // What takes no value, and what needs one.
        for (keyword, value) in read {
            let bare = matches!(keyword.as_str(), "SMTPUTF8" | "REQUIRETLS" | "PRDR");
            assert_eq!(value.is_none(), bare, "{keyword}");
            assert!(
                value.as_ref().is_none_or(|value| value.is_ascii()),
                "{value:?}"
            );
        }
    }
    for utf8 in [false, true] {
        assert_eq!(rcpt(read, none, utf8).is_ok(), read.is_empty());
        if rcpt(read, ALL, utf8).is_ok() {
            assert!(rcpt(read, ALL, true).is_ok(), "{read:?}");
            let known = |(keyword, value): (&String, &Option<String>)| {
                matches!(keyword.as_str(), "NOTIFY" | "ORCPT")
                    && value.as_ref().is_some_and(|value| utf8 || value.is_ascii())
            };
            assert!(read.iter().all(known), "{read:?}");
        }
    }
}

fn check_hosts(argument: &[u8]) {
    if let Some(host) = host(argument) {
        assert!(host.is_ascii() && !host.contains(|c: char| c.is_control() || c == ' '));
        assert!(is_domain(host) != is_literal(host), "{host:?}");
        assert_eq!(gatepost::dialog::parse::host(host.as_bytes()), Some(host));
        if let Some(address) = literal(host) {
            assert!(is_literal(host), "{host:?}");
            let again = match address.is_ipv4() {
                true => format!("[{address}]"),
                false => format!("[IPv6:{address}]"),
            };
            assert_eq!(literal(&again), Some(address));
        }
    }
    if let Ok(line) = std::str::from_utf8(argument)
        && is_ehlo_line(line)
    {
        let is_plain = |byte: u8| byte == b' ' || byte.is_ascii_graphic();
        assert!(line.len() <= 506 && line.bytes().all(is_plain), "{line:?}");
    }
}
