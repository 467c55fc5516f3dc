//! Who has to come alone: recipients of a message that some of them took and others refused, where the client could not be told of each.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use gatepost_protocol::Address;

/// How long it is remembered: clients try again within hours (RFC 5321 §4.5.4.1).
const FOR: Duration = Duration::from_secs(24 * 60 * 60);
/// How many pairs of sender and recipient are remembered.
const MOST: usize = 65_536;

/// Pairs of sender and recipient.
#[derive(Default)]
pub struct Apart {
    until: Mutex<HashMap<u64, Instant>>,
    hasher: RandomState,
}

impl Apart {
    /// Remembers the recipients of a message of this sender.
    pub fn remember<'a>(&self, sender: &Address, recipients: impl Iterator<Item = &'a Address>) {
        let now = Instant::now();
        let mut until = self.until.lock().unwrap_or_else(PoisonError::into_inner);
        for recipient in recipients {
            if until.len() >= MOST {
                until.retain(|_, until| *until > now);
            }
            // Where there is still no room, the client is asked once more.
            if until.len() < MOST {
                until.insert(self.key(sender, recipient), now + FOR);
            }
        }
    }

    /// Whether a recipient was of such a message.
    pub fn knows(&self, sender: &Address, recipient: &Address) -> bool {
        let until = self.until.lock().unwrap_or_else(PoisonError::into_inner);
        // The usual case costs nothing.
        if until.is_empty() {
            return false;
        }
        let known = until.get(&self.key(sender, recipient));
        known.is_some_and(|until| *until > Instant::now())
    }

    fn key(&self, sender: &Address, recipient: &Address) -> u64 {
        let lower = |address: &Address| address.as_str().to_lowercase();
        self.hasher.hash_one((lower(sender), lower(recipient)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_remembered_up_to_a_number() {
        let address = |text: &str| Address::parse(text).unwrap();
        let apart = Apart::default();
        let (alice, bob) = (address("alice@example.net"), address("bob@example.org"));
        assert!(!apart.knows(&alice, &bob));
        apart.remember(&alice, [&bob].into_iter());
        assert!(apart.knows(&address("Alice@example.net"), &bob));
        assert!(!apart.knows(&bob, &alice));
        let many: Vec<Address> = (0..MOST)
            .map(|number| address(&format!("u{number}@example.org")))
            .collect();
        apart.remember(&alice, many.iter());
        assert_eq!(apart.until.lock().unwrap().len(), MOST);
        assert!(apart.knows(&alice, &bob));
    }
}
