//! The lists of recipients: addresses and whole domains, and regular expressions.

use std::collections::HashSet;

use gatepost_protocol::Address;
use gatepost_protocol::address::{is_domain_utf8, is_literal};
use regex::Regex;

use crate::plugins::lists::Entries;
use crate::plugins::patterns::regex;

/// Addresses, and `@domain` for all of a domain, in lower case. Nothing in them is a pattern: `bob+lists@example.org` is an address.
#[derive(Clone, Default)]
pub struct Addresses(HashSet<String>);

impl Entries for Addresses {
    fn add(&mut self, entry: &str) -> Result<(), String> {
        let is_entry = match entry.strip_prefix('@') {
            Some(domain) => is_domain_utf8(domain) || is_literal(domain),
            None => Address::parse_utf8(entry).is_ok_and(|address| address.domain().is_some()),
        };
        if !is_entry {
            return Err("expected an address, or @domain for all of a domain".to_owned());
        }
        self.0.insert(entry.to_lowercase());
        Ok(())
    }
}

impl Addresses {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether an address in lower case is one of them.
    pub fn has(&self, address: &str) -> bool {
        let domain = address.rfind('@').map(|at| &address[at..]);
        self.0.contains(address) || domain.is_some_and(|domain| self.0.contains(domain))
    }
}

/// Regular expressions.
#[derive(Clone, Default)]
pub struct Patterns(Vec<Regex>);

impl Entries for Patterns {
    fn add(&mut self, entry: &str) -> Result<(), String> {
        self.0.push(regex(entry)?);
        Ok(())
    }
}

impl Patterns {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The first that matches.
    pub fn find(&self, address: &str) -> Option<&str> {
        let found = self.0.iter().find(|regex| regex.is_match(address));
        found.map(Regex::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_no_pattern() {
        let mut list = Addresses::default();
        for entry in [
            "Bob+lists@example.org",
            "@Example.NET",
            "\"a b\"@example.org",
        ] {
            list.add(entry).unwrap();
        }
        for address in [
            "bob+lists@example.org",
            "any@example.net",
            "\"a b\"@example.org",
        ] {
            assert!(list.has(address), "{address}");
        }
        for address in [
            "bobbb@example.org",
            "x@sub.example.net",
            "example.net",
            "@example.org",
        ] {
            assert!(!list.has(address), "{address}");
        }
        for wrong in ["bob", "@", "@*", "postmaster", "", "a@b c"] {
            assert!(list.add(wrong).is_err(), "{wrong}");
        }
    }
}
