//! What a plugin process prints: lines for the log, bounded in length and number.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use gatepost_protocol::wire::Log;
use gatepost_protocol::{Hook, Level};
use tokio::io::{AsyncRead, AsyncReadExt};

use super::told::Following;
use crate::report::{self, Audience};

/// The longest line that is kept, in bytes.
const MAX_LINE: usize = 4096;
/// How many lines of one worker are written in a second.
const LINES_PER_SECOND: u32 = 200;
/// How many lines of standard error a start error shows.
const TAIL: usize = 10;

/// The way of a worker's lines into the log: a flood is cut, and what was dropped is counted.
pub(super) struct Lines {
    name: Arc<str>,
    following: Arc<Following>,
    window: Mutex<Window>,
    tail: Mutex<VecDeque<String>>,
}

struct Window {
    began: Instant,
    written: u32,
    dropped: u64,
}

impl Lines {
    /// Lines under this name, of a process that may follow the log.
    pub(super) fn new(name: Arc<str>, following: Arc<Following>) -> Lines {
        Lines {
            name,
            following,
            window: Mutex::new(Window {
                began: Instant::now(),
                written: 0,
                dropped: 0,
            }),
            tail: Mutex::default(),
        }
    }

    /// Writes what a plugin said, at a hook of a session or by itself.
    pub(super) fn say(&self, about: Option<(&str, Hook)>, log: &Log) {
        let audience = match self.following.feed() {
            Some(_) if about.is_none() => self.of_nothing(),
            Some(feed) if log.told => Audience::But(feed),
            _ => Audience::All,
        };
        let (session, hook) = about.unzip();
        let session = session.unwrap_or_default();
        let plugin = log.plugin.as_deref().unwrap_or(&self.name);
        let text = format_args!("{}", log.message);
        self.write(log.level(), session, hook, plugin, audience, text);
    }

    /// Writes a line, unless there were too many in this second.
    fn write(
        &self,
        level: Level,
        session: &str,
        hook: Option<Hook>,
        plugin: &str,
        audience: Audience<'_>,
        text: fmt::Arguments<'_>,
    ) {
        let dropped = {
            let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
            if window.began.elapsed() >= Duration::from_secs(1) {
                window.began = Instant::now();
                window.written = 0;
            }
            if window.written >= LINES_PER_SECOND {
                window.dropped += 1;
                return;
            }
            window.written += 1;
            std::mem::take(&mut window.dropped)
        };
        self.say_dropped(dropped);
        report::said(level, session, hook, plugin, audience, text);
    }

    fn say_dropped(&self, dropped: u64) {
        if dropped > 0 {
            report::said(
                Level::Warn,
                "",
                None,
                &self.name,
                self.of_nothing(),
                format_args!("{dropped} lines dropped: it writes too many"),
            );
        }
    }

    /// Who is told of what the process says without being asked: where it follows the log, it may be saying it of every line that it is told.
    fn of_nothing(&self) -> Audience<'_> {
        match self.following.feed() {
            Some(_) => Audience::Nobody,
            None => Audience::All,
        }
    }

    /// The last lines of standard error, for whoever has to find out why a program did not start.
    pub(super) fn tail(&self) -> Vec<String> {
        let tail = self.tail.lock().unwrap_or_else(PoisonError::into_inner);
        tail.iter().cloned().collect()
    }

    /// Copies a stream into the log, line by line, until it ends.
    pub(super) async fn copy(
        self: Arc<Self>,
        mut stream: impl AsyncRead + Unpin,
        name: &'static str,
        level: Level,
    ) {
        let mut chunk = vec![0; 8192];
        let mut line = Line::default();
        loop {
            let length = match stream.read(&mut chunk).await {
                Ok(0) | Err(_) => break,
                Ok(length) => length,
            };
            for part in chunk[..length].split_inclusive(|byte| *byte == b'\n') {
                line.add(part);
                if part.ends_with(b"\n") {
                    self.print(name, level, &line.take());
                }
            }
        }
        if !line.bytes.is_empty() {
            self.print(name, level, &line.take());
        }
    }

    fn print(&self, stream: &str, level: Level, text: &str) {
        if level == Level::Warn {
            let mut tail = self.tail.lock().unwrap_or_else(PoisonError::into_inner);
            if tail.len() == TAIL {
                tail.pop_front();
            }
            tail.push_back(text.to_owned());
        }
        self.write(
            level,
            "",
            None,
            &self.name,
            self.of_nothing(),
            format_args!("{stream}: {text}"),
        );
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        let window = self.window.get_mut();
        let dropped = window.unwrap_or_else(PoisonError::into_inner).dropped;
        self.say_dropped(dropped);
    }
}

/// A line on its way in.
#[derive(Default)]
struct Line {
    bytes: Vec<u8>,
    cut: bool,
}

impl Line {
    fn add(&mut self, part: &[u8]) {
        let room = MAX_LINE - self.bytes.len();
        self.cut |= part.trim_ascii_end().len() > room;
        self.bytes.extend_from_slice(&part[..part.len().min(room)]);
    }

    fn take(&mut self) -> String {
        let mut text = printable(&String::from_utf8_lossy(self.bytes.trim_ascii_end()));
        if std::mem::take(&mut self.cut) {
            text.push_str(" [cut]");
        }
        self.bytes.clear();
        text
    }
}

/// A plugin's text without what could forge a line: control characters become `?` (docs/protocol.md §9).
pub(super) fn printable(text: &str) -> String {
    let safe = |c: char| if c.is_control() && c != '\t' { '?' } else { c };
    text.chars().map(safe).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lines_are_cut_and_control_characters_replaced() {
        let mut line = Line::default();
        line.add(b"one\x1b[2J\r\n");
        assert_eq!(line.take(), "one?[2J");
        line.add(&[b'x'; MAX_LINE]);
        line.add(b"\n");
        assert_eq!(line.take(), "x".repeat(MAX_LINE));
        for _ in 0..3 {
            line.add(&[b'x'; MAX_LINE]);
        }
        assert_eq!(line.take(), format!("{} [cut]", "x".repeat(MAX_LINE)));
        line.add(b"next\n");
        assert_eq!(line.take(), "next");
    }

    #[tokio::test]
    async fn a_flood_is_cut_and_counted_and_the_tail_is_kept() {
        let lines = Arc::new(Lines::new("vip".into(), Arc::default()));
        let text: String = (0..1000).map(|number| format!("line {number}\n")).collect();
        lines
            .clone()
            .copy(text.as_bytes(), "stderr", Level::Warn)
            .await;
        let dropped = lines.window.lock().unwrap().dropped;
        assert!(dropped >= 500, "{dropped}");
        assert_eq!(lines.tail().len(), TAIL);
        assert_eq!(lines.tail().last().unwrap(), "line 999");
    }
}
