//! The server's log as a dialogue sees it: lines that arrive while it runs.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

/// Log lines in the order they were written. One side adds, another waits for a line.
#[derive(Default)]
pub struct Log {
    lines: Mutex<Vec<String>>,
    more: Notify,
}

impl Log {
    /// Adds a line, without its line end.
    pub fn push(&self, line: String) {
        self.lines
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(line);
        self.more.notify_waiters();
    }

    /// All lines from one on.
    pub fn since(&self, first: usize) -> Vec<String> {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.get(first..).unwrap_or_default().to_vec()
    }

    /// Waits for a line for which `wanted` holds, at position `first` or behind, and says where it is.
    pub async fn wait(
        &self,
        first: usize,
        patience: Duration,
        wanted: impl Fn(&str) -> bool,
    ) -> Option<usize> {
        let deadline = Instant::now() + patience;
        let mut from = first;
        loop {
            // Before looking, or a line that comes in between would wake nobody.
            let more = self.more.notified();
            let lines = self.since(from);
            if let Some(at) = lines.iter().position(|line| wanted(line)) {
                return Some(from + at);
            }
            from += lines.len();
            tokio::time::timeout_at(deadline, more).await.ok()?;
        }
    }
}

/// A log line without its time and session id: `(rcpt) badrcptto: fail, no such user here`.
pub fn text_of(line: &str) -> &str {
    line.splitn(3, ' ').nth(2).unwrap_or(line)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[tokio::test]
    async fn a_line_is_waited_for_and_found_once() {
        let log = Arc::new(Log::default());
        let writer = {
            let log = log.clone();
            std::thread::spawn(move || {
                for number in 0..1000 {
                    log.push(format!("time session line {number}"));
                }
            })
        };
        let patience = Duration::from_secs(10);
        let wanted = |line: &str| text_of(line) == "line 999";
        assert_eq!(log.wait(0, patience, wanted).await, Some(999));
        assert_eq!(log.wait(1000, Duration::ZERO, wanted).await, None);
        writer.join().unwrap();
    }
}
