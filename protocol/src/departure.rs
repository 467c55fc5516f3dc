//! That the client hung up while a plugin has its message in hands (docs/protocol.md §7).

use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;

/// Whether the client hung up. The core watches from `data_post_headers` to `queue`, and where it lets a plugin know over the wire, at `queue`.
/// For a plugin that does not look it costs nothing.
#[derive(Debug, Default)]
pub struct Departure {
    happened: AtomicBool,
    told: Notify,
}

impl Departure {
    /// The client is there.
    pub const fn new() -> Departure {
        Departure {
            happened: AtomicBool::new(false),
            told: Notify::const_new(),
        }
    }

    /// Tells everybody who waits, and who will look. For the core.
    pub fn announce(&self) {
        self.happened.store(true, Ordering::SeqCst);
        self.told.notify_waiters();
    }

    /// Whether the client is gone.
    pub fn has_happened(&self) -> bool {
        self.happened.load(Ordering::SeqCst)
    }

    /// Waits until the client is gone; for ever where it stays.
    pub async fn happened(&self) {
        // Made before looking, so that what happens in between is not missed.
        let told = self.told.notified();
        if !self.has_happened() {
            told.await;
        }
    }
}
