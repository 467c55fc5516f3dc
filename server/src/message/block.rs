//! Blocks of memory for messages that come in: a shared budget, and big blocks used again and again.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// The first block of a message: most messages fit, and a client that trickles holds no more than this.
pub const FIRST: usize = 8 * 1024;
/// All further blocks. Fresh memory of this size costs more in page faults than the copy into it: these are pooled.
pub const NEXT: usize = 128 * 1024;
/// How many unused blocks are kept for later.
const MAX_POOLED: usize = 64;

/// The memory that messages take, all together.
#[derive(Debug)]
pub struct Memory {
    budget: usize,
    charged: AtomicUsize,
    pool: Mutex<Vec<Box<[u8]>>>,
}

impl Memory {
    /// With so many bytes for all messages.
    pub fn new(budget: usize) -> Memory {
        Memory {
            budget,
            charged: AtomicUsize::new(0),
            pool: Mutex::default(),
        }
    }

    /// A block within the budget; `None` where that is used up.
    pub fn charged(self: &Arc<Memory>, size: usize) -> Option<Block> {
        let charge = |used: usize| used.checked_add(size).filter(|sum| *sum <= self.budget);
        self.charged
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, charge)
            .ok()?;
        Some(self.block(size, size))
    }

    /// A block to work with, outside the budget: for a message that goes to disk.
    pub fn uncharged(self: &Arc<Memory>, size: usize) -> Block {
        self.block(size, 0)
    }

    fn block(self: &Arc<Memory>, size: usize, charge: usize) -> Block {
        let pooled = if size == NEXT {
            self.pool
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .pop()
        } else {
            None
        };
        Block {
            bytes: pooled.unwrap_or_else(|| vec![0; size].into_boxed_slice()),
            charge,
            memory: Arc::clone(self),
        }
    }

    #[cfg(test)]
    pub fn used(&self) -> usize {
        self.charged.load(Ordering::Relaxed)
    }
}

/// A block; goes back to the pool, and its charge to the budget, when the last reader drops it.
#[derive(Debug)]
pub struct Block {
    bytes: Box<[u8]>,
    charge: usize,
    memory: Arc<Memory>,
}

impl Block {
    /// Whether it counts against the budget, and so may be kept.
    pub fn is_charged(&self) -> bool {
        self.charge > 0
    }

    /// How long it is.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }
}

impl AsRef<[u8]> for Block {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl AsMut<[u8]> for Block {
    fn as_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        self.memory
            .charged
            .fetch_sub(self.charge, Ordering::Relaxed);
        if self.bytes.len() == NEXT {
            let bytes = std::mem::take(&mut self.bytes);
            let mut pool = self
                .memory
                .pool
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            if pool.len() < MAX_POOLED {
                pool.push(bytes);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_budget_is_shared_and_comes_back() {
        let memory = Arc::new(Memory::new(NEXT + FIRST));
        let first = memory.charged(FIRST).unwrap();
        let next = bytes::Bytes::from_owner(memory.charged(NEXT).unwrap());
        assert!(memory.charged(1).is_none());
        assert!(!memory.uncharged(NEXT).is_charged());
        let reader = next.slice(10..20);
        drop((first, next));
        assert_eq!(memory.used(), NEXT);
        drop(reader);
        assert_eq!(memory.used(), 0);
        assert!(memory.charged(NEXT).is_some());
    }
}
