//! The entries of qpsmtpd's lists: mailboxes with a reason, domains, and networks.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use gatepost_protocol::Address;
use ipnet::IpNet;
use regex::{Regex, RegexBuilder};

use super::lists::Entries;

/// What makes a pattern a regular expression in `badmailfrom` and `badrcptto`.
const REGEX_IN_MAILBOX: &[char] = &['/', '^', '$', '*', '+', '!', '%', '?', '\\'];

/// A regular expression without regard to case, in slashes or not.
pub fn regex(pattern: &str) -> Result<Regex, String> {
    let inner = pattern
        .strip_prefix('/')
        .and_then(|rest| rest.strip_suffix('/'))
        .unwrap_or(pattern);
    // A pattern of an operator is small; the limit keeps a slip like `a{999999}` from taking the memory.
    RegexBuilder::new(inner)
        .case_insensitive(true)
        .size_limit(1 << 20)
        .build()
        .map_err(|error| {
            let what = error.to_string();
            let what = what.lines().last().unwrap_or_default();
            let what = what.strip_prefix("error: ").unwrap_or(what);
            format!("it is no regular expression: {what}")
        })
}

/// Mailboxes: an address, `@domain`, or a regular expression, each with an optional reason behind it.
#[derive(Clone, Default)]
pub struct Mailboxes {
    entries: Vec<Entry>,
    plain: HashMap<String, usize>,
    regexes: Vec<(usize, Regex)>,
}

/// One entry of [`Mailboxes`].
#[derive(Clone)]
pub struct Entry {
    /// What the client is to be told.
    pub reason: Option<String>,
}

impl Entries for Mailboxes {
    fn add(&mut self, entry: &str) -> Result<(), String> {
        let (pattern, reason) = match entry.split_once(char::is_whitespace) {
            Some((pattern, reason)) => (pattern, Some(reason.trim())),
            None => (entry, None),
        };
        let index = self.entries.len();
        if pattern.contains(REGEX_IN_MAILBOX) {
            self.regexes.push((index, regex(pattern)?));
        } else if pattern.contains('@') {
            let key = pattern.to_lowercase();
            self.plain.entry(key).or_insert(index);
        } else {
            return Err(
                "expected `local@domain`, `@domain` or a regular expression such as `^spam-.*@`"
                    .to_owned(),
            );
        }
        self.entries.push(Entry {
            reason: reason.map(str::to_owned),
        });
        Ok(())
    }
}

impl Mailboxes {
    /// Whether nothing can match.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The first entry that matches, in the order of the list.
    pub fn find(&self, address: &Address) -> Option<&Entry> {
        if self.is_empty() {
            return None;
        }
        let address = address.to_lowercase();
        let domain = &address[address.rfind('@').unwrap_or(address.len())..];
        let plain = [self.plain.get(&address), self.plain.get(domain)];
        let first = plain.into_iter().flatten().copied().min();
        let by_regex = self
            .regexes
            .iter()
            .take_while(|(index, _)| first.is_none_or(|first| *index < first))
            .find(|(_, regex)| regex.is_match(&address))
            .map(|(index, _)| *index);
        by_regex.or(first).map(|index| &self.entries[index])
    }
}

/// Domains, and suffixes with their dot, in lower case.
#[derive(Clone, Default)]
pub struct Domains(HashSet<String>);

impl Entries for Domains {
    fn add(&mut self, entry: &str) -> Result<(), String> {
        // Behind the domain qpsmtpd's files may hold a remark.
        let entry = entry.split_whitespace().next().unwrap_or_default();
        let domain = entry.strip_prefix('.').unwrap_or(entry);
        if !gatepost_protocol::address::is_domain_utf8(domain)
            && !gatepost_protocol::address::is_literal(domain)
        {
            return Err("expected a domain, such as example.org or .example.org".to_owned());
        }
        self.0.insert(entry.to_lowercase());
        Ok(())
    }
}

impl Domains {
    /// Whether a domain in lower case is one of them.
    pub fn has(&self, domain: &str) -> bool {
        self.0.contains(domain)
            || domain
                .match_indices('.')
                .any(|(dot, _)| self.0.contains(&domain[dot..]))
    }
}

/// Networks: an address, a prefix that ends at a dot or colon (`192.168.`), or `address/length`.
#[derive(Clone, Default)]
pub struct Networks(Vec<IpNet>);

impl Entries for Networks {
    fn add(&mut self, entry: &str) -> Result<(), String> {
        // Behind the entry qpsmtpd's files may hold a remark.
        let entry = entry.split_whitespace().next().unwrap_or_default();
        let net = network(entry).ok_or(
            "expected an address (192.0.2.1), a prefix (192.0.2.) or a network (192.0.2.0/24)",
        )?;
        self.0.push(net);
        Ok(())
    }
}

impl Networks {
    /// The first network that holds the address.
    pub fn find(&self, address: IpAddr) -> Option<&IpNet> {
        let address = address.to_canonical();
        self.0.iter().find(|net| net.contains(&address))
    }
}

fn network(text: &str) -> Option<IpNet> {
    if let Ok(net) = text.parse::<IpNet>() {
        return Some(net);
    }
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(address.to_canonical().into());
    }
    let (address, length) = if let Some(prefix) = text.strip_suffix('.') {
        let parts = prefix.split('.').count();
        (
            format!("{prefix}{}", ".0".repeat(4usize.checked_sub(parts)?)),
            parts * 8,
        )
    } else {
        let prefix = text.strip_suffix(':')?;
        let groups = prefix.split(':').count();
        (format!("{prefix}::"), groups * 16)
    };
    IpNet::new(address.parse().ok()?, u8::try_from(length).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mailboxes(entries: &[&str]) -> Mailboxes {
        let mut all = Mailboxes::default();
        for entry in entries {
            all.add(entry).unwrap();
        }
        all
    }

    #[test]
    fn mailboxes_match_as_qpsmtpd_matches() {
        let list = mailboxes(&[
            "Bad@example.org  go away",
            "^spam-.*@ no spam",
            "@evil.example",
            r"/\.invalid$/ no such domain",
            "spam-1@late.example never reached",
        ]);
        let find = |address: &str| {
            let entry = list.find(&Address::parse(address).unwrap())?;
            Some(entry.reason.as_deref())
        };
        assert_eq!(find("bad@EXAMPLE.org"), Some(Some("go away")));
        assert_eq!(find("x@evil.example"), Some(None));
        assert_eq!(find("x@not.evil.example"), None);
        assert_eq!(find("SPAM-1@late.example"), Some(Some("no spam")));
        assert_eq!(find("x@y.invalid"), Some(Some("no such domain")));
        assert_eq!(find("good@example.org"), None);
        assert_eq!(find("postmaster"), None);
    }

    #[test]
    fn a_pattern_that_means_nothing_is_refused() {
        let mut list = Mailboxes::default();
        assert!(list.add("example.org").unwrap_err().contains("@domain"));
        assert_eq!(
            list.add("^(").unwrap_err(),
            "it is no regular expression: unclosed group"
        );
        assert!(list.is_empty(), "nothing half added");
    }

    #[test]
    fn networks() {
        let mut list = Networks::default();
        for entry in [
            "127.0.0.1 this machine",
            "192.168.",
            "10.1.0.0/16",
            "2001:db8:",
            "fe80::/10",
        ] {
            list.add(entry).unwrap();
        }
        let find = |address: &str| list.find(address.parse().unwrap()).map(ToString::to_string);
        assert_eq!(find("127.0.0.1").unwrap(), "127.0.0.1/32");
        assert_eq!(find("::ffff:127.0.0.1").unwrap(), "127.0.0.1/32");
        assert_eq!(find("192.168.3.4").unwrap(), "192.168.0.0/16");
        assert_eq!(find("2001:db8::1").unwrap(), "2001:db8::/32");
        assert_eq!(find("fe80::1").unwrap(), "fe80::/10");
        for other in ["127.0.0.2", "192.169.0.1", "10.2.0.1", "2001:db9::1"] {
            assert_eq!(find(other), None, "{other}");
        }
        for wrong in ["", "192.168", "300.", "example.org", "1.2.3.4/33"] {
            assert!(list.add(wrong).is_err(), "{wrong}");
        }
    }
}
