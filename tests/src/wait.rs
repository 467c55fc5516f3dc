//! Waiting for something to become true, with an end.

use std::time::{Duration, Instant};

/// Much longer than anything takes.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Polls until there is a value; panics with `what` when patience is over.
pub fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = look() {
            return value;
        }
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
