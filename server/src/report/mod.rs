//! What happened: the log, on standard error, a line for each thing worth knowing.
//!
//! A line is written by the calling task into a bounded queue; a thread of its own carries the queue to standard error.
//! Where that is stuck, lines are dropped and counted, and the daemon goes on. Why a message was decided as it was is in the [`journal`]. What clients do too much of is counted here as well ([`count`]).

mod counters;
mod feed;
pub mod journal;
mod library;
mod line;
mod queue;

use std::fmt;
use std::io::Write;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use gatepost_protocol::{Disposition, Hook, Level};

use crate::config::LogFormat;
use counters::Counters;
pub use counters::Limit;
pub use feed::{Audience, Entry, Feed, follow};
use line::Line;
use queue::Queue;

static LOG: OnceLock<Log> = OnceLock::new();
static COUNTERS: Counters = Counters::new();
/// One more than the most talkative level that is logged; 0 until [`start`].
static LEVELS: AtomicU8 = AtomicU8::new(0);
/// How long [`flush`] waits for a standard error that may be stuck.
const FLUSH: Duration = Duration::from_secs(1);

struct Log {
    format: LogFormat,
    queue: &'static Queue,
}

/// Starts the log: lines of `level` and graver go to standard error, and so do the warnings and errors of libraries.
/// Before it nothing is logged. Called again, it changes the level only.
///
/// # Errors
/// The writing thread could not be started.
pub fn start(level: Level, format: LogFormat) -> std::io::Result<()> {
    if LOG.get().is_none() {
        // Lives as long as the daemon.
        let queue: &'static Queue = Box::leak(Box::new(Queue::new(Limit::LogLines)));
        if LOG.set(Log { format, queue }).is_ok() {
            std::thread::Builder::new()
                .name("log".to_owned())
                .spawn(move || queue.carry(write_lines(std::io::stderr(), format)))?;
            library::listen();
        }
    }
    LEVELS.store(level as u8 + 1, Ordering::Relaxed);
    Ok(())
}

/// Writes lines to `out`, and one about those that were dropped.
fn write_lines(mut out: impl Write, format: LogFormat) -> impl FnMut(&[u8], u64) {
    move |lines, dropped| {
        // Nobody is left to be told that standard error does not take lines.
        let _ = out.write_all(lines);
        if dropped > 0 {
            let text =
                format_args!("{dropped} lines were dropped: standard error took them too slowly");
            let line = Line {
                level: Level::Warn,
                session: "",
                hook: None,
                plugin: "report",
                is_plugin: false,
                disposition: None,
                text,
            };
            line::with(&line, format, |bytes| {
                let _ = out.write_all(bytes);
            });
        }
        let _ = out.flush();
    }
}

/// Whether lines of a level are logged; costs next to nothing, for whoever would have to gather a text first.
pub fn enabled(level: Level) -> bool {
    (level as u8) < LEVELS.load(Ordering::Relaxed)
}

/// Logs a line of the core's. `session` is empty where there is none; `room` is the room, or whom it is about. Control
/// characters become `?`, and a text is cut at 8 KiB.
pub fn line(level: Level, session: &str, hook: Option<Hook>, room: &str, text: fmt::Arguments) {
    let line = Line {
        level,
        session,
        hook,
        plugin: room,
        is_plugin: false,
        disposition: None,
        text,
    };
    write(&line, Audience::All);
}

/// Logs a line that a plugin said; of those who follow the log, `audience` is told.
pub fn said(
    level: Level,
    session: &str,
    hook: Option<Hook>,
    plugin: &str,
    audience: Audience<'_>,
    text: fmt::Arguments,
) {
    let line = Line {
        level,
        session,
        hook,
        plugin,
        is_plugin: true,
        disposition: None,
        text,
    };
    write(&line, audience);
}

/// Logs what a plugin found, as `fail, NAUGHTY, listed in zen.example.net`. `mark` is `tolerated` or `NAUGHTY` where
/// the policy made something else of a failure; the message may be empty.
pub fn disposition(
    level: Level,
    session: &str,
    hook: Hook,
    plugin: &str,
    disposition: Disposition,
    mark: Option<&str>,
    message: &str,
) {
    let found = Found {
        disposition,
        mark: mark.unwrap_or_default(),
        message,
    };
    let line = Line {
        level,
        session,
        hook: Some(hook),
        plugin,
        is_plugin: true,
        disposition: Some(disposition),
        text: format_args!("{found}"),
    };
    write(&line, Audience::All);
}

/// Counts a violation of a limit. To be called where it becomes a reply, or where something is dropped for it.
pub fn count(limit: Limit) {
    COUNTERS.count(limit);
}

/// How often a limit was exceeded.
#[cfg(test)]
pub fn exceeded(limit: Limit) -> u64 {
    COUNTERS.exceeded(limit)
}

/// Logs how often which limit was exceeded since the start, where that changed since the last time.
pub fn limits() {
    if let Some(news) = COUNTERS.news() {
        line(Level::Info, "", None, "limits", format_args!("{news}"));
    }
}

/// Waits until all lines are out, a second at most. For the end of the daemon.
pub fn flush() {
    if let Some(log) = LOG.get() {
        log.queue.flush(FLUSH);
    }
}

/// `fail, NAUGHTY, listed in zen.example.net`
struct Found<'a> {
    disposition: Disposition,
    mark: &'a str,
    message: &'a str,
}

impl fmt::Display for Found<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.disposition.name())?;
        for text in [self.mark, self.message] {
            if !text.is_empty() {
                f.write_str(", ")?;
                f.write_str(text)?;
            }
        }
        Ok(())
    }
}

fn write(line: &Line<'_>, audience: Audience<'_>) {
    if enabled(line.level)
        && let Some(log) = LOG.get()
    {
        line::with(line, log.format, |bytes| log.queue.push(bytes));
        feed::tell(line, audience);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_found_comes_first() {
        for (disposition, mark, message, text) in [
            (
                Disposition::Fail,
                "NAUGHTY",
                "listed in zen.example.net",
                "fail, NAUGHTY, listed in zen.example.net",
            ),
            (Disposition::Fail, "tolerated", "", "fail, tolerated"),
            (
                Disposition::Skip,
                "",
                "no vip header",
                "skip, no vip header",
            ),
            (Disposition::Pass, "", "", "pass"),
        ] {
            let found = Found {
                disposition,
                mark,
                message,
            };
            assert_eq!(found.to_string(), text);
        }
    }
}
