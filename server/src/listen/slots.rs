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
    ip: IpAddr,
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

    /// Takes a slot for a client address.
    pub fn take(&self, ip: IpAddr) -> Result<Slot, Full> {
        let ip = ip.to_canonical();
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if taken.all >= self.max {
            return Err(Full::All);
        }
        let of_ip = taken.by_ip.entry(ip).or_default();
        if *of_ip >= self.max_per_ip {
            if *of_ip == 0 {
                taken.by_ip.remove(&ip);
            }
            return Err(Full::Ip);
        }
        *of_ip += 1;
        taken.all += 1;
        Ok(Slot {
            ip,
            taken: Arc::clone(&self.taken),
        })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.all -= 1;
        if let Some(of_ip) = taken.by_ip.get_mut(&self.ip) {
            *of_ip -= 1;
            if *of_ip == 0 {
                taken.by_ip.remove(&self.ip);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_counted_in_all_and_by_address_and_come_back() {
        let slots = Slots::new(3, 2);
        let one: IpAddr = "192.0.2.1".parse().unwrap();
        let mapped: IpAddr = "::ffff:192.0.2.1".parse().unwrap();
        let other: IpAddr = "2001:db8::1".parse().unwrap();
        let first = slots.take(one).unwrap();
        let _second = slots.take(mapped).unwrap();
        assert_eq!(slots.take(one).unwrap_err(), Full::Ip);
        let third = slots.take(other).unwrap();
        assert_eq!(slots.take(other).unwrap_err(), Full::All);
        drop(first);
        assert_eq!(slots.take(one).map(drop), Ok(()));
        drop(third);
        assert!(!slots.taken.lock().unwrap().by_ip.contains_key(&other));
    }
}
