//! A conversation as it is seen by whoever has to make room: whether it waits for its client, since when, and what its client would lose.

use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::task::AtomicWaker;
use tokio::time::Instant;

/// What a client would lose if its conversation ended now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// Nothing: it has done nothing so far.
    New,
    /// A connection that it made use of.
    Served,
    /// It is in the middle of something.
    Busy,
}

/// The seat of a conversation.
#[derive(Debug)]
pub struct Seat {
    began: Instant,
    standing: AtomicU8,
    /// Milliseconds from `began` to where it began to wait for its client, and one more; 0 while it does not.
    waits: AtomicU64,
    asked_to_leave: AtomicBool,
    waker: AtomicWaker,
}

impl Default for Seat {
    fn default() -> Seat {
        Seat {
            began: Instant::now(),
            standing: AtomicU8::new(Standing::New as u8),
            waits: AtomicU64::new(0),
            asked_to_leave: AtomicBool::new(false),
            waker: AtomicWaker::new(),
        }
    }
}

/// That the client is waited for, until this is dropped.
pub struct Waiting<'a>(&'a Seat);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waits.store(0, Ordering::Relaxed);
    }
}

impl Seat {
    /// What the client would lose from now on.
    pub fn stand(&self, standing: Standing) {
        self.standing.store(standing as u8, Ordering::Relaxed);
    }

    /// The client is waited for from `now` on.
    pub fn wait(&self, now: Instant) -> Waiting<'_> {
        let since = now.saturating_duration_since(self.began).as_millis();
        let since = u64::try_from(since).unwrap_or(u64::MAX - 1);
        self.waits.store(since + 1, Ordering::Relaxed);
        Waiting(self)
    }

    /// How long the client has been waited for, and what it would lose; `None` where it is not waited for.
    pub fn waits(&self, now: Instant) -> Option<(Standing, Duration)> {
        let since = self.waits.load(Ordering::Relaxed).checked_sub(1)?;
        let since = self.began + Duration::from_millis(since);
        let standing = match self.standing.load(Ordering::Relaxed) {
            0 => Standing::New,
            1 => Standing::Served,
            _ => Standing::Busy,
        };
        Some((standing, now.saturating_duration_since(since)))
    }

    /// Whether it was asked to end.
    pub fn is_to_leave(&self) -> bool {
        self.asked_to_leave.load(Ordering::Acquire)
    }

    /// Asks the conversation to end the next time that it waits for its client.
    pub fn ask_to_leave(&self) {
        self.asked_to_leave.store(true, Ordering::Release);
        self.waker.wake();
    }

    /// Whether it is to end. Else the task is woken when it is.
    pub fn poll_leave(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.waker.register(cx.waker());
        match self.is_to_leave() {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    }

    /// Waits until it is to end.
    pub async fn leave(&self) {
        poll_fn(|cx| self.poll_leave(cx)).await;
    }
}
