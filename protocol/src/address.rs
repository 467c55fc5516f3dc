//! Mailboxes as SMTP writes them (RFC 5321 §4.1.2, §4.5.3.1).

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The longest mailbox: a path is 256 octets with its angle brackets (RFC 5321 §4.5.3.1.3).
pub const MAX_MAILBOX: usize = 254;
/// The longest local part (RFC 5321 §4.5.3.1.1).
pub const MAX_LOCAL: usize = 64;
/// The longest domain (RFC 5321 §4.5.3.1.2).
pub const MAX_DOMAIN: usize = 255;

/// A mailbox `local@domain`, the null sender, or `postmaster` without a domain. Kept as it was written.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Address {
    text: String,
    at: Option<usize>,
}

/// Why a text is no mailbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// There is no `@`, and it is not `postmaster`.
    #[error("there is no domain")]
    NoDomain,
    /// Something is longer than RFC 5321 §4.5.3.1 allows.
    #[error("it is too long")]
    TooLong,
    /// The local part breaks the grammar.
    #[error("the local part is malformed")]
    LocalPart,
    /// The domain breaks the grammar.
    #[error("the domain is malformed")]
    Domain,
    /// It needs SMTPUTF8 (RFC 6531).
    #[error("it has characters outside ASCII")]
    NotAscii,
}

impl Address {
    /// The null sender, `<>`.
    pub fn null() -> Address {
        Address::default()
    }

    /// Reads a mailbox in ASCII, without angle brackets. The empty text is the null sender; `postmaster` needs no domain (RFC 5321 §4.1.1.3).
    pub fn parse(text: &str) -> Result<Address, AddressError> {
        if !text.is_ascii() {
            return Err(AddressError::NotAscii);
        }
        Address::parse_utf8(text)
    }

    /// Reads a mailbox as [`Address::parse`] does; local part and domain may have characters outside ASCII (RFC 6531 §3.3). Lengths are
    /// counted in octets.
    pub fn parse_utf8(text: &str) -> Result<Address, AddressError> {
        if text.is_empty() {
            return Ok(Address::null());
        }
        if text.eq_ignore_ascii_case("postmaster") {
            return Ok(Address {
                text: text.to_owned(),
                at: None,
            });
        }
        // A domain holds no `@`, a quoted local part may.
        let at = text.rfind('@').ok_or(AddressError::NoDomain)?;
        let (local, domain) = (&text[..at], &text[at + 1..]);
        if text.len() > MAX_MAILBOX || local.len() > MAX_LOCAL || domain.len() > MAX_DOMAIN {
            return Err(AddressError::TooLong);
        }
        if !is_dot_string(local) && !is_quoted_string(local) {
            return Err(AddressError::LocalPart);
        }
        if !is_domain_utf8(domain) && !is_literal(domain) {
            return Err(AddressError::Domain);
        }
        Ok(Address {
            text: text.to_owned(),
            at: Some(at),
        })
    }

    /// Whether it is the null sender.
    pub fn is_null(&self) -> bool {
        self.text.is_empty()
    }

    /// As it was written, without angle brackets; empty for the null sender.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The local part as written, with its quotes if it has any.
    pub fn local(&self) -> &str {
        &self.text[..self.at.unwrap_or(self.text.len())]
    }

    /// The local part without quotes and quoting backslashes.
    pub fn local_unquoted(&self) -> String {
        let local = self.local();
        let Some(inner) = local
            .strip_prefix('"')
            .and_then(|rest| rest.strip_suffix('"'))
        else {
            return local.to_owned();
        };
        let mut plain = String::with_capacity(inner.len());
        let mut escaped = false;
        for character in inner.chars() {
            escaped = character == '\\' && !escaped;
            if !escaped {
                plain.push(character);
            }
        }
        plain
    }

    /// The domain as written; `None` for the null sender and a bare `postmaster`.
    pub fn domain(&self) -> Option<&str> {
        self.at.map(|at| &self.text[at + 1..])
    }

    /// Whether only a server that offers SMTPUTF8 can be given it (RFC 6531).
    pub fn needs_smtputf8(&self) -> bool {
        !self.text.is_ascii()
    }

    /// For comparing: all in lower case. Local parts are case-sensitive by the letter of RFC 5321 §2.4, and by nobody's practice.
    pub fn to_lowercase(&self) -> String {
        self.text.to_lowercase()
    }
}

/// RFC 5321 §4.1.2 `Dot-string`: atoms between single dots.
fn is_dot_string(text: &str) -> bool {
    text.split('.')
        .all(|atom| !atom.is_empty() && atom.chars().all(is_atext))
}

/// RFC 5322 §3.2.3, and RFC 6531 §3.3 beyond ASCII.
fn is_atext(character: char) -> bool {
    character.is_ascii_alphanumeric()
        || "!#$%&'*+-/=?^_`{|}~".contains(character)
        || is_beyond_ascii(character)
}

/// RFC 6531 §3.3 `UTF8-non-ascii`, without the control characters of Unicode: they have no place in a line.
fn is_beyond_ascii(character: char) -> bool {
    !character.is_ascii() && !character.is_control()
}

/// RFC 5321 §4.1.2 `Quoted-string`: no control characters, quotes and backslashes only behind a backslash.
fn is_quoted_string(text: &str) -> bool {
    let Some(inner) = text
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'))
    else {
        return false;
    };
    let mut escaped = false;
    for character in inner.chars() {
        match character {
            ' '..='~' if escaped => escaped = false,
            // RFC 6531 §3.3 extends `qtextSMTP` and not `quoted-pairSMTP`.
            _ if escaped => return false,
            '\\' => escaped = true,
            '"' => return false,
            ' '..='~' => {}
            _ if is_beyond_ascii(character) => {}
            _ => return false,
        }
    }
    !escaped
}

/// RFC 5321 §4.1.2 `Domain`, with the underscores that real hosts have. A trailing dot is not part of the grammar.
pub fn is_domain(text: &str) -> bool {
    text.is_ascii() && is_domain_utf8(text)
}

/// The longest label of a domain (RFC 1035 §2.3.4).
const MAX_LABEL: usize = 63;
/// The longest U-label: what its ASCII form of 63 octets can expand to (RFC 5890 §2.3.2.1).
const MAX_U_LABEL: usize = 252;

/// The same with U-labels (RFC 6531 §3.3). Whether the registry of a domain would have such a name is not looked at.
pub fn is_domain_utf8(text: &str) -> bool {
    let label = |label: &str| {
        let most = if label.is_ascii() {
            MAX_LABEL
        } else {
            MAX_U_LABEL
        };
        (1..=most).contains(&label.len())
            && label.chars().all(is_of_label)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    !text.is_empty() && text.len() <= MAX_DOMAIN && text.split('.').all(label)
}

fn is_of_label(character: char) -> bool {
    // The other full stops that IDNA knows (RFC 3490 §3.1): who takes them for a dot would see another domain here.
    const DOTS: [char; 3] = ['\u{3002}', '\u{ff0e}', '\u{ff61}'];
    character.is_ascii_alphanumeric()
        || matches!(character, '-' | '_')
        || is_beyond_ascii(character) && !character.is_whitespace() && !DOTS.contains(&character)
}

/// RFC 5321 §4.1.3: `[192.0.2.1]`, `[IPv6:2001:db8::1]`, or a tagged general literal. The grammar has more, which is refused: numbers with
/// leading zeros, which are octal to some programs, and `@`, `>` and `"` in a general literal, at which others would cut the address or go on behind it.
pub fn is_literal(text: &str) -> bool {
    let Some(inner) = text
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
    else {
        return false;
    };
    if inner.parse::<std::net::Ipv4Addr>().is_ok() {
        return true;
    }
    let Some((tag, content)) = inner.split_once(':') else {
        return false;
    };
    if tag.eq_ignore_ascii_case("IPv6") {
        return content.parse::<std::net::Ipv6Addr>().is_ok();
    }
    is_domain(tag)
        && !content.is_empty()
        && content.bytes().all(|byte| {
            matches!(byte, b'!'..=b'Z' | b'^'..=b'~') && !matches!(byte, b'@' | b'>' | b'"')
        })
}

impl std::fmt::Display for Address {
    /// With angle brackets, as in an envelope.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "<{}>", self.text)
    }
}

impl std::str::FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Address, AddressError> {
        Address::parse(text)
    }
}

impl Serialize for Address {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Address::parse_utf8(&text).map_err(|error| {
            serde::de::Error::custom(format!("`{}` is no address: {error}", text.escape_debug()))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn parts_of_a_mailbox() {
        let plain = Address::parse("Bob@Example.org").unwrap();
        assert_eq!(
            (plain.local(), plain.domain()),
            ("Bob", Some("Example.org"))
        );
        assert_eq!(plain.to_lowercase(), "bob@example.org");
        let quoted = Address::parse(r#""a@\"b"@example.org"#).unwrap();
        assert_eq!(quoted.local(), r#""a@\"b""#);
        assert_eq!(quoted.local_unquoted(), r#"a@"b"#);
        assert_eq!(quoted.domain(), Some("example.org"));
        assert_eq!(Address::parse("Postmaster").unwrap().domain(), None);
        assert!(Address::parse("").unwrap().is_null());
        assert_eq!(Address::null().to_string(), "<>");
    }

    #[test]
    fn grammar_of_rfc_5321_4_1_2() {
        for good in [
            "a@b",
            "007@example.org",
            "a.b+c=d@x-y.example",
            "a@[192.0.2.1]",
            "a@[IPv6:2001:db8::1]",
            "\"\"@x",
            "a@[tag:stuff]",
        ] {
            assert!(Address::parse(good).is_ok(), "{good}");
        }
        use AddressError::*;
        for (bad, error) in [
            ("bob", NoDomain),
            ("@example.org", LocalPart),
            (".a@example.org", LocalPart),
            ("a..b@example.org", LocalPart),
            ("a b@example.org", LocalPart),
            ("\"a\rb\"@example.org", LocalPart),
            ("\"a\\\"@example.org", LocalPart),
            ("a@", Domain),
            ("a@-x.example", Domain),
            ("a@example..org", Domain),
            ("a@[300.0.0.1]", Domain),
            ("a@[192.0.2.1", Domain),
            ("a@[tag:b>c]", Domain),
            ("a@[tag:b\"c]", Domain),
            ("j\u{f6}rg@example.org", NotAscii),
        ] {
            assert_eq!(Address::parse(bad), Err(error), "{bad}");
        }
        let long = "x".repeat(65) + "@example.org";
        assert_eq!(Address::parse(&long), Err(TooLong));
    }

    #[test]
    fn grammar_of_rfc_6531_3_3() {
        for good in [
            "j\u{f6}rg@example.org",
            "bob@m\u{fc}nchen.example",
            "\u{7528}\u{6237}@\u{4f8b}\u{5b50}.\u{5e7f}\u{544a}",
            "\"\u{3b1} \u{3b2}\"@example.org",
            // Devanagari: letters that are joined by marks and a joiner.
            "\u{915}\u{94d}\u{200d}\u{937}@\u{915}\u{94d}\u{937}.example",
        ] {
            let address = Address::parse_utf8(good).unwrap();
            assert!(address.needs_smtputf8());
            assert_eq!(Address::parse(good), Err(AddressError::NotAscii), "{good}");
        }
        assert!(
            !Address::parse_utf8("a@example.org")
                .unwrap()
                .needs_smtputf8()
        );
        use AddressError::*;
        for (bad, error) in [
            ("j\u{85}rg@example.org", LocalPart),
            ("\u{f6}..a@example.org", LocalPart),
            ("\"\\\u{f6}\"@example.org", LocalPart),
            ("a@m\u{9f}nchen.example", Domain),
            ("a@example\u{3002}org", Domain),
            ("a@m\u{a0}nchen.example", Domain),
            ("a@-\u{fc}.example", Domain),
            ("a@[tag:\u{fc}]", Domain),
        ] {
            assert_eq!(Address::parse_utf8(bad), Err(error), "{bad:?}");
        }
        let upper = Address::parse_utf8("J\u{d6}RG@M\u{dc}NCHEN.example").unwrap();
        assert_eq!(upper.to_lowercase(), "j\u{f6}rg@m\u{fc}nchen.example");
        let octets = "\u{f6}".repeat(33) + "@example.org";
        assert_eq!(Address::parse_utf8(&octets), Err(TooLong));
        assert!(!is_domain("m\u{fc}nchen.example"));
    }

    proptest! {
        #[test]
        fn every_mailbox_of_the_grammar_is_taken(
            local in r#"[!#$%&'*+/=?^_`{|}~a-zA-Z0-9-]{1,20}(\.[a-z0-9\p{L}]{1,3}){0,2}|"([ !#-\[\]-~]|\\[ -~]|\p{L}){0,15}""#,
            domain in r#"[a-zA-Z0-9]([a-z0-9-]{0,20}[a-z0-9])?(\.[a-z0-9\p{L}]{1,9}){0,3}|\[(25[0-5]|1?[1-9]?[0-9])\.0\.2\.1\]|\[IPv6:[0-9a-f]{1,4}::[0-9a-f]{1,4}\]|\[[a-z]{1,5}:[!#-=?A-Z^-~]{1,20}\]"#,
        ) {
            prop_assume!(local.len() <= MAX_LOCAL);
            let text = format!("{local}@{domain}");
            let address = Address::parse_utf8(&text).unwrap();
            prop_assert_eq!((address.local(), address.domain()), (&*local, Some(&*domain)));
            prop_assert_eq!(Address::parse(&text).is_ok(), text.is_ascii());
        }

        #[test]
        fn no_text_stops_the_parser(text in "\\PC{0,10}(@\\PC{0,10})?|.{0,20}") {
            if let Ok(address) = Address::parse_utf8(&text) {
                prop_assert_eq!(address.as_str(), &text);
                prop_assert!(!text.chars().any(char::is_control));
            }
        }

        #[test]
        fn what_parses_prints_as_it_was_written(text in r#"[ -~]{0,40}@?[ -~]{0,40}"#) {
            if let Ok(address) = Address::parse(&text) {
                prop_assert_eq!(address.as_str(), &text);
                prop_assert_eq!(format!("<{text}>"), address.to_string());
                if let Some(domain) = address.domain() {
                    prop_assert_eq!(format!("{}@{}", address.local(), domain), text);
                }
            }
        }

        #[test]
        fn every_quoted_local_part_survives(plain in "[ -~]{0,20}") {
            let quoted = format!("\"{}\"", plain.replace('\\', "\\\\").replace('"', "\\\""));
            prop_assume!(quoted.len() <= MAX_LOCAL);
            let address = Address::parse(&format!("{quoted}@example.org")).unwrap();
            prop_assert_eq!(address.local_unquoted(), plain);
        }
    }
}
