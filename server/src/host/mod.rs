//! Plugin processes: spawning, the handshake, workers, supervision (docs/protocol.md).
//!
//! A [`Process`] is what the configuration calls one program, or one socket, with all the plugins in it; it has one worker or several, each a
//! running program with a channel of its own. A request goes from the task that asks straight to the worker's pipe; one task per worker reads
//! what comes back, and wakes whoever waits. Nothing a worker does costs more than an error outcome for the hooks it had, and its own life.

mod calls;
mod capture;
mod circuit;
mod confine;
mod declare;
mod foreign;
mod handshake;
mod link;
mod mark;
mod plain;
mod process;
mod request;
mod results;
mod seating;
mod span;
mod start;
mod stats;
mod supervise;
mod template;
#[cfg(test)]
mod tests;
mod told;
mod worker;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use gatepost_protocol::Services;

pub use confine::{clear_groups, hold};
pub use declare::Declared;
pub use mark::{DAEMON, scratch_in, scratch_of};
pub use process::Process;
/// For the fuzz targets (`tests/src/fuzz`); no interface to build on.
#[doc(hidden)]
pub use request::hook_message;
#[doc(hidden)]
pub use results::judged;
pub use start::{Processes, StartError, Started};
pub use stats::Counts;

/// What plugin processes get from the core.
#[derive(Clone)]
pub struct Core {
    /// The core's name.
    pub hostname: String,
    /// Scratch folders are made in its folder `plugins`.
    pub spool_dir: PathBuf,
    /// The DNS server of the configuration, for plugins with a resolver of their own.
    pub dns_server: Option<SocketAddr>,
    /// What plugins may ask of the core.
    pub services: Arc<dyn Services>,
    /// How long to wait for what.
    pub patience: Patience,
}

/// How long the host waits for what.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// For `hello`.
    pub hello: Duration,
    /// For `ready`.
    pub ready: Duration,
    /// For a result after `cancel`.
    pub owed: Duration,
    /// For the rest of a frame.
    pub frame: Duration,
    /// For the end of a process after SIGTERM.
    pub term: Duration,
    /// Before a worker is replaced: at first, and at most.
    pub backoff: (Duration, Duration),
    /// Before a hook that failed again and again is put to a process once more: at first, and at most.
    pub pause: (Duration, Duration),
    /// For something to do, before a worker that is more than the least number is ended.
    pub idle: Duration,
    /// A worker that served so long is no reason to wait longer for the next one.
    pub steady: Duration,
}

impl Default for Patience {
    fn default() -> Patience {
        Patience {
            hello: Duration::from_secs(5),
            ready: Duration::from_secs(30),
            owed: Duration::from_secs(5),
            frame: Duration::from_secs(10),
            term: Duration::from_secs(2),
            backoff: (Duration::from_millis(100), Duration::from_secs(30)),
            pause: (Duration::from_secs(5), Duration::from_secs(60)),
            idle: Duration::from_secs(60),
            steady: Duration::from_secs(60),
        }
    }
}
