//! How many connections there may be: in all, of one client address, and of one client network.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ipnet::IpNet;

use crate::config::Limits;
use crate::report::Limit;

/// How many bits of an IPv4 address name its network: the smallest block that is routed by itself.
const NETWORK_V4: u8 = 24;
/// The same of an IPv6 address: what a customer of a provider usually gets at least.
const NETWORK_V6: u8 = 56;

/// Counts connections.
#[derive(Debug)]
pub struct Slots(Mutex<Taken>);

#[derive(Debug, Default)]
struct Taken {
    max: usize,
    max_per_ip: usize,
    /// None: any number.
    max_per_network: Option<usize>,
    all: usize,
    by_ip: HashMap<IpAddr, usize>,
    by_network: HashMap<IpNet, usize>,
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
    /// The client network has.
    #[error("Too many connections from your network")]
    Network,
}

impl Full {
    /// Which limit it is.
    pub fn limit(self) -> Limit {
        match self {
            Full::All => Limit::Connections,
            Full::Ip => Limit::ConnectionsPerIp,
            Full::Network => Limit::ConnectionsPerNetwork,
        }
    }
}

/// The right to one connection; given back when dropped.
#[derive(Debug)]
pub struct Slot {
    client: Option<IpAddr>,
    slots: Arc<Slots>,
}

impl Slots {
    /// None at all, until there are limits.
    pub fn new() -> Arc<Slots> {
        Arc::new(Slots(Mutex::default()))
    }

    /// From now on these limits hold. Who is there stays.
    pub fn limit(&self, limits: &Limits) {
        let mut taken = self.taken();
        taken.max = limits.max_connections;
        taken.max_per_ip = limits.max_connections_per_ip;
        taken.max_per_network = limits.max_connections_per_network;
    }

    /// Takes a slot for a connection, of whomever.
    pub fn take(self: &Arc<Slots>) -> Result<Slot, Full> {
        let mut taken = self.taken();
        if taken.all >= taken.max {
            return Err(Full::All);
        }
        taken.all += 1;
        Ok(Slot {
            client: None,
            slots: Arc::clone(self),
        })
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Slot {
    /// Counts the connection as this client address's from now on, and says how many that are now. To be called once.
    pub fn assign(&mut self, client: IpAddr) -> Result<usize, Full> {
        let client = client.to_canonical();
        let mut taken = self.slots.taken();
        if !has_room(&taken.by_ip, &client, taken.max_per_ip) {
            return Err(Full::Ip);
        }
        let network = network(client);
        if let Some(max) = taken.max_per_network
            && !has_room(&taken.by_network, &network, max)
        {
            return Err(Full::Network);
        }
        // Counted always: there may be a limit later.
        *taken.by_network.entry(network).or_default() += 1;
        let count = taken.by_ip.entry(client).or_default();
        *count += 1;
        let connections = *count;
        drop(taken);
        self.client = Some(client);
        Ok(connections)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut taken = self.slots.taken();
        taken.all -= 1;
        if let Some(client) = self.client {
            give_back(&mut taken.by_ip, client);
            give_back(&mut taken.by_network, network(client));
        }
    }
}

fn network(client: IpAddr) -> IpNet {
    let bits = if client.is_ipv4() {
        NETWORK_V4
    } else {
        NETWORK_V6
    };
    IpNet::new_assert(client, bits).trunc()
}

fn has_room<K: Eq + Hash>(taken: &HashMap<K, usize>, key: &K, max: usize) -> bool {
    taken.get(key).copied().unwrap_or_default() < max
}

fn give_back<K: Eq + Hash>(taken: &mut HashMap<K, usize>, key: K) {
    if let Some(count) = taken.get_mut(&key) {
        *count -= 1;
        if *count == 0 {
            taken.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slots(max: usize, max_per_ip: usize, max_per_network: Option<usize>) -> Arc<Slots> {
        let slots = Slots::new();
        slots.limit(&Limits {
            max_connections: max,
            max_connections_per_ip: max_per_ip,
            max_connections_per_network: max_per_network,
            ..Limits::default()
        });
        slots
    }

    fn take(slots: &Arc<Slots>, client: &str) -> Result<Slot, Full> {
        let mut slot = slots.take()?;
        slot.assign(client.parse().unwrap())?;
        Ok(slot)
    }

    #[test]
    fn slots_are_counted_in_all_and_by_address_and_come_back() {
        let slots = slots(3, 2, None);
        let (one, mapped, other) = ("192.0.2.1", "::ffff:192.0.2.1", "2001:db8::1");
        let first = take(&slots, one).unwrap();
        let mut second = slots.take().unwrap();
        assert_eq!(second.assign(mapped.parse().unwrap()), Ok(2));
        assert_eq!(take(&slots, one).unwrap_err(), Full::Ip);
        let third = take(&slots, other).unwrap();
        assert_eq!(take(&slots, other).unwrap_err(), Full::All);
        drop(first);
        assert!(take(&slots, one).is_ok());
        drop(third);
        assert_eq!(slots.taken().by_ip.len(), 1);
    }
    #[test]
    fn networks_are_counted_too_where_they_have_a_limit() {
        let slots = slots(9, 9, Some(2));
        for (one, same, other) in [
            ("192.0.2.1", "192.0.2.255", "192.0.3.1"),
            ("2001:db8::1", "2001:db8:0:ff::1", "2001:db8:0:100::1"),
        ] {
            let first = take(&slots, one).unwrap();
            let _second = take(&slots, same).unwrap();
            assert_eq!(take(&slots, one).unwrap_err(), Full::Network);
            assert!(take(&slots, other).is_ok());
            drop(first);
            assert!(take(&slots, same).is_ok());
        }
        assert!(slots.taken().by_network.is_empty());
    }
}
