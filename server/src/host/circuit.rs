//! The circuit breaker of a process: a hook that failed again and again is not put to it for a while, so that clients do not wait for a deadline
//! that will not be met. For each hook by itself, since a process that never answers `data_post` may well answer `rcpt`.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use gatepost_protocol::{Hook, Level};
use tokio::time::Instant;

use super::span::span;
use super::stats::{Stats, count};
use crate::report;

/// So many failures in a row open the circuit.
const FAILURES: u32 = 5;

/// The circuits of one process, one for each hook.
pub(super) struct Circuits {
    circuits: [Circuit; Hook::COUNT],
    /// For how long it stays open: at first, and at most.
    pause: (Duration, Duration),
}

#[derive(Default)]
struct Circuit {
    /// In a row. While it is open it is not below [`FAILURES`], so that whoever asks a process that works looks at nothing else.
    failures: AtomicU32,
    open: Mutex<Option<Open>>,
}

/// An open circuit.
struct Open {
    since: Instant,
    pause: Duration,
    /// When a request may try again.
    until: Instant,
    /// One tries now.
    probing: bool,
    why: String,
}

/// Leave to ask, whose holder says how it went. Dropped without a word (the client is gone, nothing was sent) it leaves all as it was.
pub(super) struct Leave<'a> {
    circuit: &'a Circuit,
    probe: bool,
}

impl Circuits {
    pub(super) fn new(pause: (Duration, Duration)) -> Circuits {
        Circuits {
            circuits: std::array::from_fn(|_| Circuit::default()),
            pause,
        }
    }

    /// Leave to put a hook to the process; `Err`: why not.
    pub(super) fn enter(&self, hook: Hook) -> Result<Leave<'_>, String> {
        let circuit = &self.circuits[hook as usize];
        let mut leave = Leave {
            circuit,
            probe: false,
        };
        if circuit.failures.load(Ordering::Relaxed) < FAILURES {
            return Ok(leave);
        }
        let mut open = circuit.open();
        let Some(open) = open.as_mut() else {
            return Ok(leave);
        };
        let left = open.until.saturating_duration_since(Instant::now());
        if open.probing || !left.is_zero() {
            let when = match open.probing {
                true => "one request tries it now".to_owned(),
                false => format!("it is tried again in {}", span(left)),
            };
            let why = &open.why;
            return Err(format!(
                "its circuit breaker is open, {when}; last failure: {why}"
            ));
        }
        open.probing = true;
        leave.probe = true;
        Ok(leave)
    }

    /// Whether a hook was answered the last time.
    pub(super) fn is_sound(&self, hook: Hook) -> bool {
        self.circuits[hook as usize]
            .failures
            .load(Ordering::Relaxed)
            == 0
    }

    /// The process answered in time.
    pub(super) fn answered(&self, hook: Hook, name: &str) {
        let circuit = &self.circuits[hook as usize];
        if circuit.failures.load(Ordering::Relaxed) == 0 {
            return;
        }
        let closed = {
            let mut open = circuit.open();
            circuit.failures.store(0, Ordering::Relaxed);
            open.take()
        };
        if let Some(open) = closed {
            let after = span(open.since.elapsed());
            report::line(
                Level::Notice,
                "",
                None,
                name,
                format_args!("circuit breaker closed at {hook}: it answers again, after {after}"),
            );
        }
    }

    /// The process died over the hook, or let the deadline pass.
    pub(super) fn failed(&self, hook: Hook, leave: &Leave<'_>, why: &str, name: &str, all: &Stats) {
        let mut open = leave.circuit.open();
        let failures = leave.circuit.failures.fetch_add(1, Ordering::Relaxed) + 1;
        let now = Instant::now();
        match open.as_mut() {
            Some(open) if leave.probe => {
                open.pause = (open.pause * 2).min(self.pause.1);
                open.until = now + open.pause;
                why.clone_into(&mut open.why);
            }
            // It was asked before the circuit was open.
            Some(_) => {}
            None if failures >= FAILURES => {
                let pause = self.pause.0;
                *open = Some(Open {
                    since: now,
                    pause,
                    until: now + pause,
                    probing: false,
                    why: why.to_owned(),
                });
                drop(open);
                count(&all.openings);
                let (pause, counts) = (span(pause), all.counts());
                report::line(
                    Level::Crit,
                    "",
                    None,
                    name,
                    format_args!(
                        "circuit breaker open at {hook}: {failures} failures in a row, the last: {why}; on_error answers at once from here on, and one request tries again in {pause} ({counts})"
                    ),
                );
            }
            None => {}
        }
    }
}

impl Circuit {
    fn open(&self) -> MutexGuard<'_, Option<Open>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        if self.probe
            && let Some(open) = self.circuit.open().as_mut()
        {
            open.probing = false;
        }
    }
}
