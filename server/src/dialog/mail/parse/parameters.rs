//! Parameters of MAIL and RCPT (RFC 5321 §4.1.1.11), those of the extensions that are offered and no others.

use gatepost_protocol::Parameters;

/// What was offered to the client of the extensions that bring parameters. `SIZE` and `BODY` are taken from everybody.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extensions {
    /// RFC 6531.
    pub smtputf8: bool,
    /// RFC 3461.
    pub dsn: bool,
    /// RFC 8689.
    pub requiretls: bool,
    /// RFC 3030.
    pub chunking: bool,
    /// draft-hall-prdr-00.
    pub prdr: bool,
}

impl Extensions {
    /// Without those that are not in the reply to EHLO: a plugin took them out.
    pub fn keep(&mut self, lines: &[impl AsRef<str>]) {
        let stands = |keyword: &str| {
            let keywords = lines
                .iter()
                .filter_map(|line| line.as_ref().split(' ').next());
            keywords
                .into_iter()
                .any(|line| line.eq_ignore_ascii_case(keyword))
        };
        self.smtputf8 &= stands("SMTPUTF8");
        self.dsn &= stands("DSN");
        self.requiretls &= stands("REQUIRETLS");
        self.chunking &= stands("CHUNKING");
        self.prdr &= stands("PRDR");
    }
}

const MALFORMED: &str = "501 5.5.4 A parameter is malformed";
const TWICE: &str = "501 5.5.4 A parameter stands twice";
const UNKNOWN: &str = "555 5.5.4 A parameter is not supported";

/// The longest ENVID, as it is written (RFC 3461 §4.4).
const MAX_ENVID: usize = 100;
/// The longest ORCPT, as it is written (RFC 3461 §4.2).
const MAX_ORCPT: usize = 500;

/// Reads what stands behind a path: keywords in any case and order, each once. Values may have characters outside ASCII (RFC 6531 §3.3);
/// [`mail`] and [`rcpt`] judge them.
pub fn parameters(text: &[u8]) -> Result<Parameters, &'static str> {
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
            let allowed = |c: char| c.is_ascii_graphic() && c != '=' || !c.is_ascii();
            !value.is_empty() && value.chars().all(|c| allowed(c) && !c.is_control())
        };
        if !is_keyword || !value.is_none_or(is_value) {
            return Err(MALFORMED);
        }
        if parameters
            .insert(keyword.to_ascii_uppercase(), value.map(str::to_owned))
            .is_some()
        {
            return Err(TWICE);
        }
    }
    Ok(parameters)
}

/// The reply to a size that is beyond `max_size` (RFC 1870 §6.1).
pub const TOO_BIG: &str = "552 5.3.4 Message is bigger than we take";

/// Judges the parameters of MAIL. `max_size` is the biggest message that is taken, in bytes.
pub fn mail(
    parameters: &Parameters,
    extensions: Extensions,
    max_size: u64,
) -> Result<(), &'static str> {
    for (keyword, value) in parameters {
        match (keyword.as_str(), value.as_deref()) {
            ("SIZE", Some(size)) if is_number(size) => {
                // What does not fit the type is too big all the more.
                if size.parse().unwrap_or(u64::MAX) > max_size {
                    return Err(TOO_BIG);
                }
            }
            ("SIZE", _) => return Err("501 5.5.4 Syntax: SIZE=number"),
            ("BODY", value) if is_one_of(value, body_types(extensions)) => {}
            ("BODY", _) => return Err("501 5.5.4 Syntax: BODY=7BIT, 8BITMIME or BINARYMIME"),
            ("SMTPUTF8", value) if extensions.smtputf8 => {
                if value.is_some() {
                    return Err("501 5.5.4 SMTPUTF8 takes no value");
                }
            }
            ("REQUIRETLS", value) if extensions.requiretls => {
                if value.is_some() {
                    return Err("501 5.5.4 REQUIRETLS takes no value");
                }
            }
            ("PRDR", value) if extensions.prdr => {
                if value.is_some() {
                    return Err("501 5.5.4 PRDR has no value");
                }
            }
            ("RET", value) if extensions.dsn => {
                if !is_one_of(value, &["FULL", "HDRS"]) {
                    return Err("501 5.5.4 Syntax: RET=FULL or RET=HDRS");
                }
            }
            ("ENVID", value) if extensions.dsn => {
                if !value.is_some_and(|value| value.len() <= MAX_ENVID && is_xtext(value)) {
                    return Err("501 5.5.4 Syntax: ENVID=xtext, 100 characters at most");
                }
            }
            // RFC 4954 §5: who may not be believed is not refused for it.
            ("AUTH", value) => {
                if !value.is_some_and(|value| value == "<>" || is_xtext(value)) {
                    return Err("501 5.5.4 Syntax: AUTH=xtext or AUTH=<>");
                }
            }
            _ => return Err(UNKNOWN),
        }
    }
    Ok(())
}

/// Judges the parameters of RCPT. `utf8` says whether the transaction may have addresses outside ASCII.
pub fn rcpt(
    parameters: &Parameters,
    extensions: Extensions,
    utf8: bool,
) -> Result<(), &'static str> {
    for (keyword, value) in parameters {
        match (keyword.as_str(), value.as_deref()) {
            ("NOTIFY", Some(value)) if extensions.dsn && is_notify(value) => {}
            ("NOTIFY", _) if extensions.dsn => {
                return Err("501 5.5.4 Syntax: NOTIFY=NEVER or of SUCCESS,FAILURE,DELAY");
            }
            ("ORCPT", Some(value)) if extensions.dsn && is_orcpt(value, utf8) => {}
            ("ORCPT", _) if extensions.dsn => {
                return Err("501 5.5.4 Syntax: ORCPT=type;xtext, 500 characters at most");
            }
            _ => return Err(UNKNOWN),
        }
    }
    Ok(())
}

/// The values of BODY (RFC 6152 §2). A message that may hold any byte can only come by BDAT (RFC 3030 §3).
fn body_types(extensions: Extensions) -> &'static [&'static str] {
    match extensions.chunking {
        true => &["7BIT", "8BITMIME", "BINARYMIME"],
        false => &["7BIT", "8BITMIME"],
    }
}

fn is_one_of(value: Option<&str>, words: &[&str]) -> bool {
    value.is_some_and(|value| words.iter().any(|word| word.eq_ignore_ascii_case(value)))
}

/// RFC 1870 §4: up to 20 digits.
fn is_number(text: &str) -> bool {
    (1..=20).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// RFC 3461 §4.1.
fn is_notify(value: &str) -> bool {
    let events = ["SUCCESS", "FAILURE", "DELAY"];
    value.eq_ignore_ascii_case("NEVER")
        || value.split(',').all(|word| is_one_of(Some(word), &events))
}

/// RFC 3461 §4.2; the type `utf-8` may stand for itself in a transaction with SMTPUTF8 (RFC 6533 §3).
fn is_orcpt(value: &str, utf8: bool) -> bool {
    let Some((address_type, address)) = value.split_once(';') else {
        return false;
    };
    let is_type = !address_type.is_empty()
        && address_type
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*-/?^_`{|}~".contains(&byte));
    let plain: String = match utf8 && address_type.eq_ignore_ascii_case("utf-8") {
        true => address.chars().filter(char::is_ascii).collect(),
        false => address.to_owned(),
    };
    value.len() <= MAX_ORCPT && is_type && !address.is_empty() && is_xtext(&plain)
}

/// RFC 3461 §4: printable ASCII, with `+` and two hexadecimal digits for what cannot stand for itself; this too must be printable (§4.2, §4.4).
fn is_xtext(text: &str) -> bool {
    let mut rest = text.as_bytes();
    while let [first, behind @ ..] = rest {
        rest = match (first, behind) {
            (b'+', [high, low, behind @ ..]) => {
                let decoded = hex(*high).zip(hex(*low)).map(|(high, low)| high * 16 + low);
                if !decoded.is_some_and(|byte| matches!(byte, b' '..=b'~' | b'\t')) {
                    return false;
                }
                behind
            }
            (b'!'..=b'*' | b','..=b'<' | b'>'..=b'~', behind) => behind,
            _ => return false,
        };
    }
    true
}

/// In upper case only (RFC 3461 §4 `hexchar`).
fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ALL: Extensions = Extensions {
        smtputf8: true,
        dsn: true,
        requiretls: true,
        chunking: true,
        prdr: true,
    };

    fn of_mail(text: &str, extensions: Extensions) -> Result<Parameters, &'static str> {
        let parameters = parameters(text.as_bytes())?;
        mail(&parameters, extensions, 1000).map(|()| parameters)
    }

    fn of_rcpt(text: &str, extensions: Extensions, utf8: bool) -> Result<(), &'static str> {
        rcpt(&parameters(text.as_bytes())?, extensions, utf8)
    }

    #[test]
    fn keywords_and_values() {
        let read = parameters(b" size=10  body=8bitmime x-1").unwrap();
        let read: Vec<(&str, Option<&str>)> = read
            .iter()
            .map(|(keyword, value)| (keyword.as_str(), value.as_deref()))
            .collect();
        assert_eq!(
            read,
            [
                ("BODY", Some("8bitmime")),
                ("SIZE", Some("10")),
                ("X-1", None)
            ]
        );
        for bad in [
            "SIZE=1",
            " SIZE=",
            " =1",
            " A=1 a=2",
            " -A",
            " A=b=c",
            " A=\t",
            " A=\u{85}",
        ] {
            assert!(parameters(bad.as_bytes()).is_err(), "{bad:?}");
        }
        assert!(parameters(b" A=\xff").is_err());
    }

    #[test]
    fn of_mail_by_their_rfcs() {
        for good in [
            " SIZE=1000 BODY=7bit",
            " ret=full Envid=QQ314159+2B auth=<> smtputf8 requiretls",
            " RET=hdrs AUTH=e+3Dmc2@example.com",
            " BODY=BinaryMime",
        ] {
            assert!(of_mail(good, ALL).is_ok(), "{good}");
        }
        assert!(of_mail(&format!(" ENVID={}", "x".repeat(100)), ALL).is_ok());
        let long = format!(" ENVID={}", "x".repeat(101));
        for (bad, code) in [
            (" SIZE=1001", "552 5.3.4"),
            (" SIZE=99999999999999999999", "552 5.3.4"),
            (" SIZE", "501 5.5.4"),
            (" SIZE=-1", "501 5.5.4"),
            (" SIZE=111111111111111111111", "501 5.5.4"),
            (" BODY", "501 5.5.4"),
            (" BODY=9BIT", "501 5.5.4"),
            (" SMTPUTF8=yes", "501 5.5.4"),
            (" REQUIRETLS=1", "501 5.5.4"),
            (" RET", "501 5.5.4"),
            (" RET=BODY", "501 5.5.4"),
            (" ENVID", "501 5.5.4"),
            (" ENVID=a+b", "501 5.5.4"),
            (" ENVID=a+0A", "501 5.5.4"),
            (" ENVID=a+2b", "501 5.5.4"),
            (" ENVID=\u{f6}", "501 5.5.4"),
            (&long, "501 5.5.4"),
            (" AUTH", "501 5.5.4"),
            (" AUTH=a+", "501 5.5.4"),
            (" BY=120;R", "555 5.5.4"),
            (" NOTIFY=NEVER", "555 5.5.4"),
        ] {
            let error = of_mail(bad, ALL).unwrap_err();
            assert!(error.starts_with(code), "{bad}: {error}");
        }
    }

    #[test]
    fn of_rcpt_by_their_rfcs() {
        for good in [
            " NOTIFY=NEVER",
            " notify=success,Failure,DELAY ORCPT=rfc822;Bob+2Bx@example.org",
            " ORCPT=utf-8;j+5Cx{F6}rg@example.org",
        ] {
            assert!(of_rcpt(good, ALL, false).is_ok(), "{good}");
        }
        let unicode = " ORCPT=utf-8;j\u{f6}rg@example.org";
        assert!(of_rcpt(unicode, ALL, true).is_ok());
        let long = format!(" ORCPT=rfc822;{}", "x".repeat(494));
        assert!(of_rcpt(&long[..long.len() - 1], ALL, false).is_ok());
        for (bad, code) in [
            (" NOTIFY", "501 5.5.4"),
            (" NOTIFY=NEVER,DELAY", "501 5.5.4"),
            (" NOTIFY=SUCCESS,", "501 5.5.4"),
            (" NOTIFY=LATER", "501 5.5.4"),
            (" ORCPT", "501 5.5.4"),
            (" ORCPT=bob@example.org", "501 5.5.4"),
            (" ORCPT=;bob@example.org", "501 5.5.4"),
            (" ORCPT=rfc822;", "501 5.5.4"),
            (" ORCPT=rfc822;a+", "501 5.5.4"),
            (" ORCPT=rfc822;j\u{f6}rg@example.org", "501 5.5.4"),
            (unicode, "501 5.5.4"),
            (&long, "501 5.5.4"),
            (" SIZE=1", "555 5.5.4"),
            (" RET=FULL", "555 5.5.4"),
        ] {
            let error = of_rcpt(bad, ALL, false).unwrap_err();
            assert!(error.starts_with(code), "{bad}: {error}");
        }
    }

    #[test]
    fn what_was_not_offered_is_unknown() {
        let none = Extensions::default();
        for mine in [" SMTPUTF8", " REQUIRETLS", " RET=FULL", " ENVID=a"] {
            assert_eq!(of_mail(mine, none), Err(UNKNOWN), "{mine}");
        }
        assert!(
            of_mail(" BODY=BINARYMIME", none)
                .unwrap_err()
                .starts_with("501")
        );
        for mine in [" NOTIFY=NEVER", " ORCPT=rfc822;a@b"] {
            assert_eq!(of_rcpt(mine, none, false), Err(UNKNOWN), "{mine}");
        }
    }

    proptest! {
        #[test]
        fn xtext_of_every_printable_text_is_taken(plain in "[ -~]{1,30}") {
            let coded: String = plain
                .chars()
                .map(|c| match c {
                    ' ' | '+' | '=' => format!("+{:02X}", u32::from(c)),
                    _ => c.to_string(),
                })
                .collect();
            prop_assert!(is_xtext(&coded), "{}", coded);
        }

        #[test]
        fn parameters_in_any_case_and_order(
            words in Just(vec!["SIZE=17", "BODY=8BITMIME", "RET=FULL", "ENVID=x+2Dy", "SMTPUTF8", "AUTH=a+40b"]).prop_shuffle(),
            upper in any::<bool>(),
            spaces in 1usize..4,
        ) {
            let line: String = words
                .iter()
                .map(|word| {
                    let (keyword, value) = word.split_at(word.find('=').unwrap_or(word.len()));
                    let keyword = if upper { keyword.to_owned() } else { keyword.to_lowercase() };
                    format!("{}{keyword}{value}", " ".repeat(spaces))
                })
                .collect();
            let read = of_mail(&line, ALL).unwrap();
            prop_assert_eq!(read.len(), words.len());
            prop_assert_eq!(read["ENVID"].as_deref(), Some("x+2Dy"));
            let twice = format!("{line} size=1");
            prop_assert_eq!(of_mail(&twice, ALL), Err(TWICE));
        }
    }
}
