//! Arguments of commands (RFC 5321 §4.1.1, §4.1.2).

use gatepost_protocol::address::{AddressError, is_domain, is_literal};
use gatepost_protocol::{Address, Parameters};

/// MAIL or RCPT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Path {
    /// `MAIL FROM:`
    Reverse,
    /// `RCPT TO:`
    Forward,
}

/// Reads `FROM:<a@b> KEY=VALUE` or `TO:<a@b>`. An error is the reply.
pub fn path(argument: &[u8], path: Path) -> Result<(Address, Parameters), &'static str> {
    let (keyword, syntax, malformed, too_long) = match path {
        Path::Reverse => (
            "FROM:",
            "501 5.5.4 Syntax: MAIL FROM:<address>",
            "501 5.1.7 The sender's address is malformed",
            "501 5.1.7 The sender's address is too long",
        ),
        Path::Forward => (
            "TO:",
            "501 5.5.4 Syntax: RCPT TO:<address>",
            "501 5.1.3 The recipient's address is malformed",
            "501 5.1.3 The recipient's address is too long",
        ),
    };
    let (start, rest) = argument.split_at_checked(keyword.len()).ok_or(syntax)?;
    if !start.eq_ignore_ascii_case(keyword.as_bytes()) {
        return Err(syntax);
    }
    // RFC 5321 §3.3 forbids the space; many clients send it, and it changes nothing.
    let rest = rest.trim_ascii_start().strip_prefix(b"<").ok_or(syntax)?;
    let end = path_end(rest).ok_or(syntax)?;
    let mailbox = std::str::from_utf8(&rest[..end])
        .map_err(|_| AddressError::NotAscii)
        .and_then(|text| without_route(text).ok_or(AddressError::Domain))
        .and_then(Address::parse)
        .map_err(|error| match error {
            AddressError::NotAscii => "553 5.6.7 Addresses outside ASCII are not supported",
            AddressError::TooLong => too_long,
            _ => malformed,
        })?;
    if path == Path::Forward && mailbox.is_null() {
        return Err(malformed);
    }
    Ok((mailbox, parameters(&rest[end + 1..])?))
}

/// Where the `>` stands that ends a path: not one within a quoted local part.
fn path_end(path: &[u8]) -> Option<usize> {
    let (mut quoted, mut escaped) = (false, false);
    path.iter().position(|byte| {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'>' => return !quoted,
            _ => {}
        }
        false
    })
}

/// A path without its source route, which is accepted and ignored (RFC 5321 §4.1.2, appendix C).
fn without_route(path: &str) -> Option<&str> {
    if !path.starts_with('@') {
        return Some(path);
    }
    let (route, mailbox) = path.split_once(':')?;
    let is_hop = |hop: &str| hop.strip_prefix('@').is_some_and(is_domain);
    (route.split(',').all(is_hop) && !mailbox.is_empty()).then_some(mailbox)
}

fn parameters(text: &[u8]) -> Result<Parameters, &'static str> {
    const MALFORMED: &str = "501 5.5.4 A parameter is malformed";
    let mut parameters = Parameters::new();
    if !text.is_empty() && !text.starts_with(b" ") {
        return Err(MALFORMED);
    }
    for word in text
        .split(|byte| *byte == b' ')
        .filter(|word| !word.is_empty())
    {
        let word = std::str::from_utf8(word).map_err(|_| MALFORMED)?;
        let (keyword, value) = match word.split_once('=') {
            Some((keyword, value)) => (keyword, Some(value)),
            None => (word, None),
        };
        let is_keyword = keyword.starts_with(|first: char| first.is_ascii_alphanumeric())
            && keyword
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        let is_value = |value: &str| {
            !value.is_empty()
                && value
                    .bytes()
                    .all(|byte| matches!(byte, b'!'..=b'<' | b'>'..=b'~'))
        };
        if !is_keyword || !value.is_none_or(is_value) {
            return Err(MALFORMED);
        }
        if parameters
            .insert(keyword.to_ascii_uppercase(), value.map(str::to_owned))
            .is_some()
        {
            return Err("501 5.5.4 A parameter stands twice");
        }
    }
    Ok(parameters)
}

/// What a message may consist of (RFC 6152, RFC 3030 §3).
const BODIES: [&str; 3] = ["7BIT", "8BITMIME", "BINARYMIME"];

/// Checks the parameters of MAIL that we know (RFC 1870, RFC 6152, RFC 3030, draft-hall-prdr-00), and that there is no other. An error is the reply.
pub fn mail_parameters(parameters: &Parameters, max_size: u64) -> Result<(), &'static str> {
    for (keyword, value) in parameters {
        match (keyword.as_str(), value.as_deref()) {
            ("SIZE", Some(size)) if is_number(size) => {
                // What does not fit the type is too big all the more.
                if size.parse().unwrap_or(u64::MAX) > max_size {
                    return Err("552 5.3.4 Message is bigger than we take");
                }
            }
            ("SIZE", _) => return Err("501 5.5.4 Syntax: SIZE=number"),
            ("BODY", Some(body)) if BODIES.iter().any(|known| body.eq_ignore_ascii_case(known)) => {
            }
            ("BODY", _) => return Err("501 5.5.4 Syntax: BODY=7BIT, 8BITMIME or BINARYMIME"),
            ("PRDR", None) => {}
            ("PRDR", _) => return Err("501 5.5.4 PRDR has no value"),
            _ => return Err(UNKNOWN_PARAMETER),
        }
    }
    Ok(())
}

/// The reply to a parameter that we did not offer.
pub const UNKNOWN_PARAMETER: &str = "555 5.5.4 A parameter is not supported";

/// RFC 1870 §4: up to 20 digits.
fn is_number(text: &str) -> bool {
    (1..=20).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// The argument of HELO or EHLO (RFC 5321 §4.1.1.1), if it is a domain or an address literal.
pub fn host(argument: &[u8]) -> Option<&str> {
    let host = std::str::from_utf8(argument.trim_ascii()).ok()?;
    (is_domain(host) || is_literal(host)).then_some(host)
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

    fn from(argument: &str) -> Result<String, &'static str> {
        path(argument.as_bytes(), Path::Reverse).map(|(address, parameters)| {
            let parameters: Vec<String> = parameters
                .iter()
                .map(|(key, value)| format!(" {key}={}", value.as_deref().unwrap_or("-")))
                .collect();
            format!("{address}{}", parameters.concat())
        })
    }

    #[test]
    fn paths() {
        for (argument, read) in [
            ("FROM:<a@b>", "<a@b>"),
            ("from:  <a@b>", "<a@b>"),
            ("FROM:<>", "<>"),
            ("FROM:<@x.example,@y.example:a@b>", "<a@b>"),
            (r#"FROM:<"a>b \"c"@d> SIZE=1"#, r#"<"a>b \"c"@d> SIZE=1"#),
            ("FROM:<a@[IPv6:::1]>", "<a@[IPv6:::1]>"),
            (
                "FROM:<a@b> size=10  body=8bitmime x-1",
                "<a@b> BODY=8bitmime SIZE=10 X-1=-",
            ),
        ] {
            assert_eq!(from(argument).as_deref(), Ok(read), "{argument}");
        }
        for (argument, code) in [
            ("", "501 5.5.4"),
            ("FROM", "501 5.5.4"),
            ("FROM <a@b>", "501 5.5.4"),
            ("TO:<a@b>", "501 5.5.4"),
            ("FROM:a@b", "501 5.5.4"),
            ("FROM:<a@b", "501 5.5.4"),
            ("FROM:<\"a@b>", "501 5.5.4"),
            ("FROM:<a@b>SIZE=1", "501 5.5.4"),
            ("FROM:<a@b> SIZE=", "501 5.5.4"),
            ("FROM:<a@b> =1", "501 5.5.4"),
            ("FROM:<a@b> A=1 a=2", "501 5.5.4"),
            ("FROM:<a b@c>", "501 5.1.7"),
            ("FROM:<a>", "501 5.1.7"),
            ("FROM:<@x:>", "501 5.1.7"),
            ("FROM:<x,@y:a@b>", "501 5.1.7"),
            ("FROM:<j\u{f6}rg@b>", "553 5.6.7"),
        ] {
            let error = from(argument).unwrap_err();
            assert!(error.starts_with(code), "{argument}: {error}");
        }
        let long = format!("FROM:<{}@b>", "x".repeat(65));
        assert!(from(&long).unwrap_err().contains("too long"));
        assert_eq!(
            path(b"TO:<postmaster>", Path::Forward).unwrap().0.as_str(),
            "postmaster"
        );
        assert!(
            path(b"TO:<>", Path::Forward)
                .unwrap_err()
                .starts_with("501 5.1.3")
        );
        assert!(
            path(b"TO:<\xff@b>", Path::Forward)
                .unwrap_err()
                .starts_with("553 5.6.7")
        );
    }

    #[test]
    fn parameters_of_mail() {
        let check = |text: &str| mail_parameters(&parameters(text.as_bytes()).unwrap(), 1000);
        assert_eq!(check(" SIZE=1000 BODY=7bit"), Ok(()));
        assert_eq!(check(" PRDR BODY=BinaryMime"), Ok(()));
        for (text, code) in [
            (" SIZE=1001", "552 5.3.4"),
            (" SIZE=99999999999999999999", "552 5.3.4"),
            (" SIZE", "501 5.5.4"),
            (" SIZE=-1", "501 5.5.4"),
            (" SIZE=111111111111111111111", "501 5.5.4"),
            (" BODY=BINARY", "501 5.5.4"),
            (" PRDR=1", "501 5.5.4"),
            (" SMTPUTF8", "555 5.5.4"),
        ] {
            assert!(check(text).unwrap_err().starts_with(code), "{text}");
        }
    }

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
        fn nothing_a_client_sends_stops_the_parser(argument in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = path(&argument, Path::Reverse);
            let _ = path(&[&b"TO:<"[..], &argument].concat(), Path::Forward);
            let _ = host(&argument);
            prop_assert!(!printable(&argument).chars().any(char::is_control));
        }

        #[test]
        fn every_mailbox_comes_through(local in r#"[a-z0-9.]{1,10}|"[ -!#-\[\]-~]{0,10}""#, domain in "[a-z]{1,10}(\\.[a-z]{1,5})?") {
            let mailbox = format!("{local}@{domain}");
            prop_assume!(Address::parse(&mailbox).is_ok());
            let (address, _) = path(format!("TO:<{mailbox}>").as_bytes(), Path::Forward).unwrap();
            prop_assert_eq!(address.as_str(), mailbox);
        }
    }
}
