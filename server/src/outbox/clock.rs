//! The wall clock, which goes by what somebody set it to. Messages outlive the daemon, so that their ages can go by no other.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::envelope::{Millis, millis, millis_of};

/// What a clock may be ahead of what passed since the last look before that is no accuracy.
const JUMP: Duration = Duration::from_secs(600);
/// How long a clock that jumped ahead is not believed: time enough for whoever sets clocks to notice.
const DOUBT: Duration = Duration::from_secs(3600);

/// Looks at the wall clock, and notices where it jumps ahead: for what cannot be undone.
#[derive(Debug)]
pub struct Clock(Mutex<Seen>);

#[derive(Debug)]
struct Seen {
    wall: Millis,
    at: Instant,
    /// Until then it is not believed.
    doubtful: Option<Instant>,
}

impl Clock {
    /// Believes the time that it is now.
    pub fn new() -> Clock {
        Clock(Mutex::new(Seen {
            wall: millis(SystemTime::now()),
            at: Instant::now(),
            doubtful: None,
        }))
    }

    /// Whether messages are as old as the clock says. To be asked at least every few days, since two clocks do not go alike.
    pub fn is_believed(&self) -> bool {
        self.looks_right(millis(SystemTime::now()), Instant::now())
    }

    fn looks_right(&self, wall: Millis, at: Instant) -> bool {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let passed = millis_of(at.duration_since(seen.at));
        let expected = seen.wall.saturating_add(passed);
        if wall > expected.saturating_add(millis_of(JUMP)) {
            seen.doubtful = Some(at + DOUBT);
        } else if wall.saturating_add(millis_of(JUMP)) < expected {
            seen.doubtful = None;
        }
        (seen.wall, seen.at) = (wall, at);
        seen.doubtful.is_none_or(|until| at >= until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_jumps_ahead_is_doubted_until_it_is_set_back_or_stays() {
        let clock = Clock::new();
        let (wall, at) = {
            let seen = clock.0.lock().unwrap();
            (seen.wall, seen.at)
        };
        let hour = Duration::from_secs(3600);
        let year = 365 * 24 * millis_of(hour);
        let after = |hours: u32| (wall + u64::from(hours) * millis_of(hour), at + hour * hours);
        let ahead = |hours| {
            let (wall, at) = after(hours);
            clock.looks_right(wall + year, at)
        };
        let right = |hours| {
            let (wall, at) = after(hours);
            clock.looks_right(wall, at)
        };
        assert!(right(1));
        assert!(right(100));
        assert!(!ahead(100));
        assert!(right(100), "set back");
        assert!(!ahead(101));
        assert!(ahead(102), "it stays");
        assert!(right(103), "behind is no older");
    }
}
