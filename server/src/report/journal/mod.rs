//! Why messages were decided as they were: a bounded journal on disk, a record for each transaction (docs/explain.md).
//!
//! A session takes notes in a [`Trace`]; when a transaction is over they become a line, which goes through a bounded queue to a thread that writes. No session
//! waits for the disk: where it is too slow, records are dropped and counted.

mod changes;
mod find;
mod record;
mod segments;
mod trace;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use gatepost_protocol::Level;

use super::Limit;
use super::queue::Queue;
pub use find::{Found, all, find};
pub use record::{Record, Reply, Step, Told, Turn};
use segments::Segments;
pub use trace::Trace;

/// Whose lines these are in the log.
const LOGGED_AS: &str = "journal";
/// How long [`Journal::flush`] waits for a disk that may be stuck.
const FLUSH: Duration = Duration::from_secs(1);

/// Where records go.
pub struct Journal(To);

enum To {
    /// Lives as long as the daemon, like its writer.
    Disk(&'static Queue),
    Memory(Mutex<Vec<Vec<u8>>>),
}

/// The folder of the journal, in the spool folder.
pub fn folder(spool_dir: &Path) -> PathBuf {
    spool_dir.join("journal")
}

impl Journal {
    /// Opens the journal in a folder, which is made where it is not there; it never takes more than `max_size` bytes.
    ///
    /// # Errors
    /// The folder cannot be made or written to, or there is no thread for the writer.
    pub fn open(dir: &Path, max_size: u64) -> io::Result<Journal> {
        let mut segments = Segments::open(dir, max_size)?;
        let queue: &'static Queue = Box::leak(Box::new(Queue::new(Limit::JournalRecords)));
        let mut is_failing = false;
        let carry = move |lines: &[u8], dropped: u64| {
            if dropped > 0 {
                let text =
                    format_args!("{dropped} records were dropped: the disk took them too slowly");
                super::line(Level::Warn, "", None, LOGGED_AS, text);
            }
            let written = segments.write(lines);
            // Once for a row of failures.
            if let Err(error) = &written
                && !is_failing
            {
                let text = format_args!(
                    "cannot write to {}: {error}; records are lost until it works again",
                    segments.dir().display()
                );
                super::line(Level::Error, "", None, LOGGED_AS, text);
            }
            is_failing = written.is_err();
        };
        std::thread::Builder::new()
            .name("journal".to_owned())
            .spawn(move || queue.carry(carry))?;
        Ok(Journal(To::Disk(queue)))
    }

    /// A journal that is on no disk.
    pub fn in_memory() -> Journal {
        Journal(To::Memory(Mutex::default()))
    }

    /// Adds a record, or drops it where there is no room.
    pub fn add(&self, record: Vec<u8>) {
        match &self.0 {
            To::Disk(queue) => queue.push(&record),
            To::Memory(records) => records
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(record),
        }
    }

    /// Takes the records out of one in memory.
    pub fn take(&self) -> Vec<Vec<u8>> {
        match &self.0 {
            To::Disk(_) => Vec::new(),
            To::Memory(records) => {
                std::mem::take(&mut *records.lock().unwrap_or_else(PoisonError::into_inner))
            }
        }
    }

    /// Waits until all records are written, a second at most. For the end of the daemon.
    pub fn flush(&self) {
        if let To::Disk(queue) = &self.0 {
            queue.flush(FLUSH);
        }
    }
}
