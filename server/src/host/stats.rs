//! What a process did so far, in numbers.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident $text:literal,)*) => {
        /// Counters of one process, over all of its workers.
        #[derive(Debug, Default)]
        pub(super) struct Stats {
            $($(#[$doc])* pub(super) $name: AtomicU64,)*
        }

        /// What the counters of a process stood at.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Counts {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl Stats {
            pub(super) fn counts(&self) -> Counts {
                Counts { $($name: self.$name.load(Ordering::Relaxed),)* }
            }
        }

        impl std::fmt::Display for Counts {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                let all = [$((self.$name, $text),)*];
                for (index, (number, text)) in all.into_iter().enumerate() {
                    let comma = if index == 0 { "" } else { ", " };
                    write!(f, "{comma}{text} {number}")?;
                }
                Ok(())
            }
        }
    };
}

counters! {
    /// Hooks that were put to it.
    requests "requests",
    /// Hooks that the host answered in its stead.
    errors "errors",
    /// Those of them that it did not answer in time.
    timeouts "timeouts",
    /// Times that a worker had to be started again.
    restarts "restarts",
    /// Results that came late, twice, or for no request.
    late "stray results",
    /// Times that its circuit breaker opened.
    openings "circuit openings",
    /// Hooks that were not put to it, since the breaker was open.
    unasked "hooks while open",
    /// Events that it did not take in time.
    dropped_events "dropped events",
}

/// Adds one.
pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
