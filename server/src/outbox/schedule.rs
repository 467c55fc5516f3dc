//! What is due when, and how much room there is: the folder as the daemon remembers it.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::envelope::{Envelope, Millis};
use super::folder::Id;

/// How much there may be.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// The table of the configuration that says so; the command has the same name.
    pub table: &'static str,
    /// Messages.
    pub max_messages: usize,
    /// Bytes of all of them.
    pub max_size: u64,
}

/// Messages of the folder: those of the outbox, or those that are withheld.
pub struct Schedule {
    bounds: Bounds,
    inside: Mutex<Inside>,
}

#[derive(Default)]
struct Inside {
    waiting: BTreeSet<(Millis, Id)>,
    entries: HashMap<Id, Entry>,
    /// What attempts came to that could not be written down.
    unsaved: HashMap<Id, Envelope>,
    /// Bytes of all of them.
    size: u64,
    /// What is promised to messages that are being written.
    promised: (usize, u64),
}

struct Entry {
    size: u64,
    /// When it is due; `None`: it is being delivered.
    due: Option<Millis>,
}

/// There is no room for more.
#[derive(Debug, thiserror::Error)]
#[error(
    "the {table} holds {messages} messages of {size} bytes, and no more fits in (`max_messages` and `max_size` under [{table}]; see `gatepost {table} list`)"
)]
pub struct Full {
    table: &'static str,
    messages: usize,
    size: u64,
}

/// Room for messages that are being written. It is free again when dropped.
pub struct Room {
    schedule: Arc<Schedule>,
    messages: usize,
    size: u64,
}

impl Schedule {
    pub fn new(bounds: Bounds) -> Schedule {
        Schedule {
            bounds,
            inside: Mutex::default(),
        }
    }

    fn inside(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Room for so many messages of so many bytes together.
    pub fn room(self: &Arc<Schedule>, messages: usize, size: u64) -> Result<Room, Full> {
        let mut inside = self.inside();
        let all = inside.entries.len() + inside.promised.0 + messages;
        let bytes = inside.size + inside.promised.1 + size;
        if all > self.bounds.max_messages || bytes > self.bounds.max_size {
            return Err(Full {
                table: self.bounds.table,
                messages: inside.entries.len(),
                size: inside.size,
            });
        }
        inside.promised.0 += messages;
        inside.promised.1 += size;
        Ok(Room {
            schedule: Arc::clone(self),
            messages,
            size,
        })
    }

    /// A message that is there, and due then.
    pub fn insert(&self, id: Id, size: u64, due: Millis) {
        self.inside().insert(id, size, due);
    }

    /// Takes a message that is due, to deliver it.
    pub fn take_due(&self, now: Millis) -> Option<Id> {
        let mut inside = self.inside();
        let (due, _) = inside.waiting.first()?;
        if *due > now {
            return None;
        }
        let (_, id) = inside.waiting.pop_first()?;
        if let Some(entry) = inside.entries.get_mut(&id) {
            entry.due = None;
        }
        Some(id)
    }

    /// What is due later than `latest` is due then: the clock was ahead when that was said.
    pub fn bring_forward(&self, latest: Millis) {
        let mut inside = self.inside();
        while let Some((due, id)) = inside.waiting.last().cloned()
            && due > latest
        {
            inside.waiting.pop_last();
            if let Some(entry) = inside.entries.get_mut(&id) {
                entry.due = Some(latest);
                inside.waiting.insert((latest, id));
            }
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.inside().entries.is_empty()
    }

    /// When the next message is due.
    pub fn next_due(&self) -> Option<Millis> {
        self.inside().waiting.first().map(|(due, _)| *due)
    }

    /// A message that was taken is to wait until then.
    pub fn put_back(&self, id: &Id, due: Millis) {
        let mut inside = self.inside();
        if let Some(entry) = inside.entries.get_mut(id) {
            entry.due = Some(due);
            inside.waiting.insert((due, id.clone()));
        }
    }

    /// A message is not there any more.
    pub fn forget(&self, id: &Id) {
        let mut inside = self.inside();
        inside.unsaved.remove(id);
        inside.remove(id);
    }

    /// Holds what an attempt came to, where the disk cannot: who got the message must not get it again.
    pub fn remember(&self, id: Id, envelope: Envelope) {
        self.inside().unsaved.insert(id, envelope);
    }

    /// Gives back what was held.
    pub fn recall(&self, id: &Id) -> Option<Envelope> {
        self.inside().unsaved.remove(id)
    }

    /// The messages that there are now.
    pub fn known(&self) -> HashSet<Id> {
        self.inside().entries.keys().cloned().collect()
    }

    /// What is in the folder, after somebody else changed it. What is being delivered stays as it is, and so does what is not among those that were `known` before the folder was read: it was added meanwhile.
    pub fn replace(&self, known: HashSet<Id>, found: impl Iterator<Item = (Id, u64, Millis)>) {
        let mut inside = self.inside();
        let mut gone = known;
        for (id, size, due) in found {
            gone.remove(&id);
            if !inside.is_being_delivered(&id) {
                inside.remove(&id);
                inside.insert(id, size, due);
            }
        }
        for id in gone {
            if !inside.is_being_delivered(&id) {
                inside.remove(&id);
            }
        }
    }
}

impl Inside {
    fn insert(&mut self, id: Id, size: u64, due: Millis) {
        self.size += size;
        self.waiting.insert((due, id.clone()));
        let entry = Entry {
            size,
            due: Some(due),
        };
        self.entries.insert(id, entry);
    }

    fn is_being_delivered(&self, id: &Id) -> bool {
        let entry = self.entries.get(id);
        entry.is_some_and(|entry| entry.due.is_none())
    }

    fn remove(&mut self, id: &Id) {
        if let Some(entry) = self.entries.remove(id) {
            self.size -= entry.size;
            if let Some(due) = entry.due {
                self.waiting.remove(&(due, id.clone()));
            }
        }
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let mut inside = self.schedule.inside();
        inside.promised.0 -= self.messages;
        inside.promised.1 -= self.size;
    }
}
