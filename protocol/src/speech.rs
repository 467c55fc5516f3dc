//! Whether the client speaks before it is its turn, for plugins that wait to see that (docs/protocol.md §8, `client/spoke`).

use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

/// Nobody looked yet.
const UNKNOWN: u8 = 0;
/// Nothing came so far.
const SILENT: u8 = 1;
/// Something came.
const SPOKE: u8 = 2;
/// Nothing came, and nothing will.
const GONE: u8 = 3;

/// A look at the client while plugins are asked something, at a time when it has to be silent. As long as nobody wants to know it costs nothing.
#[derive(Debug, Default)]
pub struct Speech {
    state: AtomicU8,
    wanted: Notify,
    told: Notify,
}

impl Speech {
    /// Nobody looked yet.
    pub fn new() -> Speech {
        Speech::default()
    }

    /// For the core, one task of it: waits until somebody wants to know.
    pub async fn wanted(&self) {
        self.wanted.notified().await;
    }

    /// For the core: nothing came so far.
    pub fn note_silence(&self) {
        self.note(SILENT);
    }

    /// For the core: something came, or else the client hung up without a word.
    pub fn note_end(&self, spoke: bool) {
        self.note(if spoke { SPOKE } else { GONE });
    }

    fn note(&self, state: u8) {
        self.state.store(state, Ordering::SeqCst);
        self.told.notify_waiters();
    }

    /// Whether somebody wanted to know, and something came.
    pub fn was_heard(&self) -> bool {
        self.state.load(Ordering::SeqCst) == SPOKE
    }

    /// Whether the client speaks within that time. What came already counts, also where the time is 0.
    pub async fn within(&self, time: Duration) -> bool {
        self.wanted.notify_one();
        self.past(UNKNOWN).await;
        if !time.is_zero() {
            // Time that is over, or a client that is gone: neither spoke.
            let _ = tokio::time::timeout(time, self.past(SILENT)).await;
        }
        self.was_heard()
    }

    /// Waits until more is known than that.
    async fn past(&self, state: u8) {
        loop {
            // Made before looking, so that what happens in between is not missed.
            let told = self.told.notified();
            if self.state.load(Ordering::SeqCst) > state {
                return;
            }
            told.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Nobody lives to see the end of it.
    const LONG: Duration = Duration::from_secs(1 << 32);

    #[tokio::test]
    async fn what_came_counts_and_what_comes_ends_the_wait() {
        let speech = Speech::new();
        let core = async {
            speech.wanted().await;
            speech.note_silence();
        };
        assert!(!tokio::join!(speech.within(Duration::ZERO), core).0);
        let core = async {
            tokio::task::yield_now().await;
            speech.note_end(true);
        };
        assert!(tokio::join!(speech.within(LONG), core).0);
        assert!(speech.within(Duration::ZERO).await);
    }

    #[tokio::test]
    async fn nobody_waits_for_a_client_that_is_gone() {
        let speech = Speech::new();
        speech.note_end(false);
        assert!(!speech.within(LONG).await);
    }
}
