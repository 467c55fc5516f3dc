//! How many connections there may be: in all, and of one client address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

/// Counts connections.
#[derive(Debug)]
pub struct Slots {
    max: usize,
    max_per_ip: usize,
    taken: Arc<Mutex<Taken>>,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    by_ip: HashMap<IpAddr, usize>,
}

/// Why there is no slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Full {
    /// The daemon has all the connections it may have.
    #[error("Too many connections")]
    All,
    /// The client address has.
    #[error("Too many connections from your address")]
    Ip,
}

/// The right to one connection; given back when dropped.
#[derive(Debug)]
pub struct Slot {
    client: Option<IpAddr>,
    max_per_ip: usize,
    taken: Arc<Mutex<Taken>>,
}

impl Slots {
    /// At most so many.
    pub fn new(max: usize, max_per_ip: usize) -> Slots {
        Slots {
            max,
            max_per_ip,
            taken: Arc::default(),
        }
    }

    /// Takes a slot for a connection, of whomever.
    pub fn take(&self) -> Result<Slot, Full> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if taken.all >= self.max {
            return Err(Full::All);
        }
        taken.all += 1;
        Ok(Slot {
            client: None,
            max_per_ip: self.max_per_ip,
            taken: Arc::clone(&self.taken),
        })
    }
}

impl Slot {
    /// Counts the connection as this client address's from now on. To be called once.
    pub fn assign(&mut self, client: IpAddr) -> Result<(), Full> {
        let client = client.to_canonical();
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let of_ip = taken.by_ip.get(&client).copied().unwrap_or_default();
        if of_ip >= self.max_per_ip {
            return Err(Full::Ip);
        }
        taken.by_ip.insert(client, of_ip + 1);
        self.client = Some(client);
        Ok(())
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.all -= 1;
        if let Some(client) = self.client
            && let Some(of_ip) = taken.by_ip.get_mut(&client)
        {
            *of_ip -= 1;
            if *of_ip == 0 {
                taken.by_ip.remove(&client);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(slots: &Slots, client: &str) -> Result<Slot, Full> {
        let mut slot = slots.take()?;
        slot.assign(client.parse().unwrap())?;
        Ok(slot)
    }

    #[test]
    fn slots_are_counted_in_all_and_by_address_and_come_back() {
        let slots = Slots::new(3, 2);
        let (one, mapped, other) = ("192.0.2.1", "::ffff:192.0.2.1", "2001:db8::1");
        let first = take(&slots, one).unwrap();
        let _second = take(&slots, mapped).unwrap();
        assert_eq!(take(&slots, one).unwrap_err(), Full::Ip);
        let third = take(&slots, other).unwrap();
        assert_eq!(take(&slots, other).unwrap_err(), Full::All);
        drop(first);
        assert!(take(&slots, one).is_ok());
        drop(third);
        assert_eq!(slots.taken.lock().unwrap().by_ip.len(), 1);
    }
}
