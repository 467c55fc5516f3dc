//! How many connections there may be: in all, of one client address, and of one client network.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use gatepost_protocol::Level;
use ipnet::IpNet;
use nix::sys::resource::{Resource, getrlimit};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::LOGGED_AS;
use crate::config::Limits;
use crate::dialog::{Seat, Standing};
use crate::report::{self, Limit};

/// How many bits of an IPv4 address name its network: the smallest block that is routed by itself.
const NETWORK_V4: u8 = 24;
/// The same of an IPv6 address: what a customer of a provider usually gets at least.
const NETWORK_V6: u8 = 56;

/// Connections are scarce from more than this part of them on, in tenths, until they are down to the other. With fewer than ten there is no such part.
const SCARCE: usize = 9;
const ENOUGH: usize = 8;
/// How long a client must have been silent to make room for others: none that talks with us at the usual pace ever is.
const SILENT: Duration = Duration::from_secs(1);
/// How often it is looked who is to make room, while connections are scarce.
const LOOK: Duration = Duration::from_millis(250);

/// Counts connections, and makes room for others while they are scarce.
#[derive(Debug, Default)]
pub struct Slots {
    taken: Mutex<Taken>,
    scarce: Notify,
}

#[derive(Debug, Default)]
struct Taken {
    max: usize,
    stress_timeout: Duration,
    /// Since when connections are scarce, and how many were asked to leave meanwhile.
    stress: Option<(Instant, usize)>,
    seats: HashMap<u64, Arc<Seat>>,
    next_seat: u64,
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
    number: u64,
    seat: Arc<Seat>,
    slots: Arc<Slots>,
}

impl Slots {
    /// None at all, until there are limits.
    pub fn new() -> Arc<Slots> {
        Arc::default()
    }

    /// From now on these limits hold. Who is there stays.
    pub fn limit(&self, limits: &Limits) {
        let mut taken = self.taken();
        taken.max = affordable(limits.max_connections);
        taken.max_per_ip = limits.max_connections_per_ip;
        taken.max_per_network = limits.max_connections_per_network;
        taken.stress_timeout = limits.stress_timeout;
    }

    /// Takes a slot for a connection, of whomever.
    pub fn take(self: &Arc<Slots>) -> Result<Slot, Full> {
        let mut taken = self.taken();
        if taken.all >= taken.max {
            return Err(Full::All);
        }
        taken.all += 1;
        let (number, seat) = (taken.next_seat, Arc::<Seat>::default());
        taken.next_seat += 1;
        taken.seats.insert(number, Arc::clone(&seat));
        if taken.stress.is_none() && taken.excess() > 0 {
            taken.stress = Some((Instant::now(), 0));
            let (all, max, timeout) = (taken.all, taken.max, taken.stress_timeout);
            drop(taken);
            let text = format_args!(
                "stress: {all} of {max} connections are taken; clients that are silent for {SILENT:?} make room where others need it, and for {timeout:?} in any case"
            );
            report::line(Level::Warn, "", None, LOGGED_AS, text);
            self.scarce.notify_one();
        }
        Ok(Slot {
            client: None,
            number,
            seat,
            slots: Arc::clone(self),
        })
    }

    /// Makes room while connections are scarce. Never returns.
    pub async fn make_room(&self) {
        loop {
            self.scarce.notified().await;
            while self.taken().stress.is_some() {
                tokio::time::sleep(LOOK).await;
                self.taken().ask_to_leave(Instant::now());
            }
        }
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Taken {
    /// Connections beyond those with which they are scarce.
    fn excess(&self) -> usize {
        self.all.saturating_sub((self.max * SCARCE).div_ceil(10))
    }

    /// Asks those to leave who were silent for too long, and of the others so many that connections are scarce no more: first who did nothing so far, then who
    /// has been silent for longest. Who is in the middle of a message is spared.
    fn ask_to_leave(&mut self, now: Instant) {
        let excess = self.excess();
        let Some((_, asked)) = &mut self.stress else {
            return;
        };
        let mut silent: Vec<(Standing, Duration, &Seat)> = Vec::new();
        let (mut leave, mut leaving) = (0, 0);
        for seat in self.seats.values() {
            match seat.waits(now) {
                _ if seat.is_to_leave() => leaving += 1,
                Some((_, time)) if time >= self.stress_timeout => {
                    seat.ask_to_leave();
                    leave += 1;
                }
                Some((standing, time)) if standing < Standing::Busy && time >= SILENT => {
                    silent.push((standing, time, seat));
                }
                _ => {}
            }
        }
        silent.sort_by_key(|(standing, time, _)| (*standing, std::cmp::Reverse(*time)));
        for (_, _, seat) in silent.iter().take(excess.saturating_sub(leave + leaving)) {
            seat.ask_to_leave();
            leave += 1;
        }
        *asked += leave;
    }
}

impl Slot {
    /// How the daemon sees the conversation that has this slot.
    pub fn seat(&self) -> &Arc<Seat> {
        &self.seat
    }

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
        taken.seats.remove(&self.number);
        if let Some(client) = self.client {
            give_back(&mut taken.by_ip, client);
            give_back(&mut taken.by_network, network(client));
        }
        if let Some((since, asked)) = taken.stress
            && taken.all <= taken.max * ENOUGH / 10
        {
            taken.stress = None;
            drop(taken);
            let time = since.elapsed().as_secs();
            let text =
                format_args!("stress is over after {time} s: {asked} silent clients made room");
            report::line(Level::Notice, "", None, LOGGED_AS, text);
        }
    }
}

/// So many of the connections that are wanted as there are descriptors for, with some left for files, plugins and the control socket: connections beyond could not even be told to come
/// again.
fn affordable(wanted: usize) -> usize {
    let Ok((limit, _)) = getrlimit(Resource::RLIMIT_NOFILE) else {
        return wanted;
    };
    let most = usize::try_from(limit / 4 * 3).unwrap_or(usize::MAX);
    if wanted > most {
        let text = format_args!(
            "`max_connections` is {wanted}, but the system lets us open {limit} files: {most} connections are taken at most; raise that (`LimitNOFILE=` in systemd, `ulimit -n`)"
        );
        report::line(Level::Warn, "", None, LOGGED_AS, text);
    }
    wanted.min(most)
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

    #[tokio::test(start_paused = true)]
    async fn while_connections_are_scarce_the_silent_make_room() {
        let slots = slots(20, 99, None);
        slots.taken().stress_timeout = Duration::from_secs(10);
        let taken: Vec<Slot> = (0..20).map(|_| slots.take().unwrap()).collect();
        assert_eq!(slots.take().unwrap_err(), Full::All);
        let seats: Vec<Arc<Seat>> = taken.iter().map(|slot| slot.seat().clone()).collect();
        let standings = [
            Standing::Busy,
            Standing::Served,
            Standing::New,
            Standing::New,
        ];
        let mut waiting = Vec::new();
        for (seat, standing) in seats.iter().zip(standings) {
            seat.stand(standing);
            waiting.push(seat.wait(Instant::now()));
            tokio::time::advance(Duration::from_millis(100)).await;
        }
        let look = || {
            slots.taken().ask_to_leave(Instant::now());
            let left = seats.iter().enumerate();
            let left = left.filter(|(_, seat)| seat.is_to_leave());
            left.map(|(at, _)| at).collect::<Vec<_>>()
        };
        assert!(look().is_empty(), "nobody was silent for long enough");
        tokio::time::advance(SILENT).await;
        // One more than what it is scarce with is two, and who did nothing goes first.
        assert_eq!(look(), [2, 3]);
        assert_eq!(look(), [2, 3], "no more than needed");
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!(look(), [0, 1, 2, 3], "too long in any case");
        assert_eq!(slots.taken().stress.map(|(_, asked)| asked), Some(4));
        drop(waiting);
        let mut taken = taken.into_iter();
        let rest = taken.by_ref().take(4).count();
        assert_eq!(rest, 4);
        assert!(slots.taken().stress.is_none(), "16 of 20 are enough");
        assert!(slots.taken().seats.len() == 16);
    }
}
