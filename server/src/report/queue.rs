//! Lines between the tasks that say them and the thread that writes them.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::Limit;

/// Bytes that may wait for a slow or stuck writer; what comes then is dropped, and counted.
const MAX_WAITING: usize = 1 << 20;
/// How long lines gather between two writes: under load a write carries many, and no task pays for waking the writer.
const GATHER: Duration = Duration::from_millis(2);

/// A bounded queue of whole lines.
pub(super) struct Queue {
    state: Mutex<State>,
    filled: Condvar,
    emptied: Condvar,
    /// What a dropped line is counted as.
    limit: Limit,
}

#[derive(Default)]
struct State {
    waiting: Vec<u8>,
    dropped: u64,
    /// The writer has written all, and wants to be woken.
    idle: bool,
}

impl Queue {
    /// An empty one.
    pub fn new(limit: Limit) -> Queue {
        Queue {
            state: Mutex::default(),
            filled: Condvar::new(),
            emptied: Condvar::new(),
            limit,
        }
    }

    /// Adds a line, or drops it where there is no room. Never waits for the writer.
    pub fn push(&self, line: &[u8]) {
        let mut state = self.lock();
        if state.waiting.len() + line.len() > MAX_WAITING {
            state.dropped += 1;
            super::count(self.limit);
            return;
        }
        state.waiting.extend_from_slice(line);
        if std::mem::take(&mut state.idle) {
            drop(state);
            self.filled.notify_one();
        }
    }

    /// Hands lines to `write`, for ever, and with them how many were dropped since the last time.
    pub fn carry(&self, mut write: impl FnMut(&[u8], u64)) {
        let mut lines = Vec::new();
        loop {
            let dropped = self.take(&mut lines);
            write(&lines, dropped);
            // A burst is not to fill the queue meanwhile.
            if lines.len() < MAX_WAITING / 4 {
                std::thread::sleep(GATHER);
            }
        }
    }

    /// Waits until something is there, and takes all of it; gives how many lines were dropped since the last time.
    fn take(&self, lines: &mut Vec<u8>) -> u64 {
        lines.clear();
        let mut state = self.lock();
        while state.waiting.is_empty() && state.dropped == 0 {
            state.idle = true;
            self.emptied.notify_all();
            state = self
                .filled
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        std::mem::swap(&mut state.waiting, lines);
        std::mem::take(&mut state.dropped)
    }

    /// Waits until all is written, `limit` at most.
    pub fn flush(&self, limit: Duration) {
        let end = Instant::now() + limit;
        let mut state = self.lock();
        while !state.idle {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            (state, _) = self
                .emptied
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A line is added whole or not at all, whatever a thread died of.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::LogFormat;
    use std::io::Write;
    use std::sync::Arc;
    use std::sync::mpsc::{Receiver, Sender, channel};

    /// Hands what is written to the test; each write waits for leave.
    struct Gate {
        leave: Receiver<()>,
        written: Sender<Vec<u8>>,
    }

    impl Write for Gate {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            let _ = self.leave.recv();
            let _ = self.written.send(bytes.to_vec());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn gated() -> (Arc<Queue>, Sender<()>, Receiver<Vec<u8>>) {
        let queue = Arc::new(Queue::new(Limit::LogLines));
        let (leave, gate) = channel();
        let (written, seen) = channel();
        let carrier = queue.clone();
        let gate = Gate {
            leave: gate,
            written,
        };
        let write = super::super::write_lines(gate, LogFormat::Text);
        std::thread::spawn(move || carrier.carry(write));
        (queue, leave, seen)
    }

    const PATIENCE: Duration = Duration::from_secs(10);

    #[test]
    fn lines_come_out_whole_and_in_order() {
        let (queue, leave, seen) = gated();
        for number in 0..1000 {
            queue.push(format!("{number}\n").as_bytes());
        }
        drop(leave);
        queue.flush(PATIENCE);
        let all: Vec<u8> = seen.try_iter().flatten().collect();
        let expected: String = (0..1000).map(|number| format!("{number}\n")).collect();
        assert_eq!(String::from_utf8(all).unwrap(), expected);
    }

    #[test]
    fn a_stuck_writer_stalls_nobody_and_what_was_lost_is_said() {
        let (queue, leave, seen) = gated();
        let line = [b'x'; 1024];
        // The writer takes at most one fill of the queue away before it is stuck; the queue holds another.
        for _ in 0..3 * MAX_WAITING / line.len() {
            queue.push(&line);
        }
        let started = Instant::now();
        queue.flush(Duration::from_millis(20));
        assert!(started.elapsed() < PATIENCE, "flush has no end");
        assert!(queue.lock().waiting.len() <= MAX_WAITING);
        drop(leave);
        queue.flush(PATIENCE);
        let all: Vec<u8> = seen.try_iter().flatten().collect();
        let kept = all.iter().filter(|byte| **byte == b'x').count();
        let text = String::from_utf8(all).unwrap();
        assert!(text.ends_with(" lines were dropped: standard error took them too slowly\n"));
        let said = text.split(" - report: ").nth(1).unwrap();
        let dropped: usize = said.split(' ').next().unwrap().parse().unwrap();
        assert!(dropped >= MAX_WAITING / line.len());
        assert_eq!(kept + dropped * line.len(), 3 * MAX_WAITING);
        // No other test drops lines.
        let counted = super::super::exceeded(super::super::Limit::LogLines);
        assert_eq!(counted, dropped as u64);
    }
}
