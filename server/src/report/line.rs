//! How a line of the log is written.

use std::cell::RefCell;
use std::fmt::{self, Write};
use std::time::{SystemTime, UNIX_EPOCH};

use gatepost_protocol::{Disposition, Hook, Level};

use crate::config::LogFormat;

/// The longest text of a line, in bytes; what is beyond is cut.
const MAX_TEXT: usize = 8 << 10;

/// What a line says.
pub(super) struct Line<'a> {
    pub level: Level,
    /// Empty where there is none.
    pub session: &'a str,
    pub hook: Option<Hook>,
    /// The plugin, or the room of the core.
    pub plugin: &'a str,
    pub is_plugin: bool,
    pub disposition: Option<Disposition>,
    pub text: fmt::Arguments<'a>,
}

/// A thread's room for the line at hand, and the time of the last one as far as it was the same second.
#[derive(Default)]
struct Desk {
    line: String,
    second: u64,
    stamp: String,
}

thread_local! {
    static DESK: RefCell<Desk> = RefCell::default();
}

/// Writes a line, its end included, and hands it on.
pub(super) fn with(line: &Line<'_>, format: LogFormat, then: impl FnOnce(&[u8])) {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let (second, milliseconds) = (now.as_secs(), now.subsec_millis());
    DESK.with(|desk| {
        // A text that logs while it is written finds the desk taken.
        let Ok(mut desk) = desk.try_borrow_mut() else {
            let mut desk = Desk::default();
            desk.write(line, format, second, milliseconds);
            return then(desk.line.as_bytes());
        };
        desk.write(line, format, second, milliseconds);
        then(desk.line.as_bytes());
    });
}

impl Desk {
    fn write(&mut self, line: &Line<'_>, format: LogFormat, second: u64, milliseconds: u32) {
        if self.second != second || self.stamp.is_empty() {
            self.second = second;
            self.stamp = utc(second);
        }
        let out = &mut self.line;
        out.clear();
        // Writing to a string fails only where a text's own `Display` does; what is there by then is logged.
        let _ = match format {
            LogFormat::Text => text(out, line, &self.stamp, milliseconds),
            LogFormat::Json => json(out, line, &self.stamp, milliseconds),
        };
        out.push('\n');
    }
}

impl Line<'_> {
    /// What it says, as safe as it is in the log; a line of the core's begins with its room.
    pub fn message(&self) -> String {
        let mut out = String::new();
        let mut clean = Clean::new(&mut out, false);
        // As above.
        let _ = match self.is_plugin {
            true => clean.write_fmt(self.text),
            false => write!(clean, "{}: {}", self.plugin, self.text),
        };
        out
    }
}

fn text(out: &mut String, line: &Line<'_>, stamp: &str, milliseconds: u32) -> fmt::Result {
    let session = match line.session {
        "" => "-",
        session => session,
    };
    write!(out, "{stamp}.{milliseconds:03}Z ")?;
    Clean::new(out, false).write_str(session)?;
    if let Some(hook) = line.hook {
        out.push_str(" (");
        out.push_str(hook.name());
        out.push(')');
    }
    out.push(' ');
    Clean::new(out, false).write_str(line.plugin)?;
    out.push_str(": ");
    Clean::new(out, false).write_fmt(line.text)
}

fn json(out: &mut String, line: &Line<'_>, stamp: &str, milliseconds: u32) -> fmt::Result {
    write!(out, "{{\"time\":\"{stamp}.{milliseconds:03}Z\"")?;
    let mut field = |name: &str, value: fmt::Arguments<'_>| {
        write!(out, ",\"{name}\":\"")?;
        let written = Clean::new(out, true).write_fmt(value);
        out.push('"');
        written
    };
    field("level", format_args!("{}", line.level.name()))?;
    if !line.session.is_empty() {
        field("session", format_args!("{}", line.session))?;
    }
    if let Some(hook) = line.hook {
        field("hook", format_args!("{hook}"))?;
    }
    field("plugin", format_args!("{}", line.plugin))?;
    if let Some(disposition) = line.disposition {
        field("disposition", format_args!("{}", disposition.name()))?;
    }
    let written = field("text", line.text);
    out.push('}');
    written
}

/// Lets nothing through that would forge a line, move a terminal's cursor, or end a JSON string.
struct Clean<'a> {
    out: &'a mut String,
    json: bool,
    room: usize,
    cut: bool,
}

impl Clean<'_> {
    fn new(out: &mut String, json: bool) -> Clean<'_> {
        Clean {
            out,
            json,
            room: MAX_TEXT,
            cut: false,
        }
    }

    fn passes(&self, byte: u8) -> bool {
        matches!(byte, b' '..=b'~') && !(self.json && matches!(byte, b'"' | b'\\'))
    }
}

impl Write for Clean<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if !self.cut && text.len() <= self.room && text.bytes().all(|byte| self.passes(byte)) {
            self.room -= text.len();
            self.out.push_str(text);
            return Ok(());
        }
        for character in text.chars() {
            if self.cut {
                return Ok(());
            }
            if self.room < character.len_utf8() {
                self.cut = true;
                self.out.push('\u{2026}');
                return Ok(());
            }
            self.room -= character.len_utf8();
            // U+2028 and U+2029 end a line for many readers.
            match character {
                '\u{2028}' | '\u{2029}' => self.out.push('?'),
                '"' | '\\' if self.json => self.out.extend(['\\', character]),
                other if other.is_control() => self.out.push('?'),
                other => self.out.push(other),
            }
        }
        Ok(())
    }
}

/// `2026-11-22T10:11:12.345Z`.
pub(super) fn stamp(time: SystemTime) -> String {
    let time = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    format!("{}.{:03}Z", utc(time.as_secs()), time.subsec_millis())
}

/// `2026-11-22T10:11:12` of a second since 1970, by the proleptic Gregorian calendar.
fn utc(second: u64) -> String {
    let (days, rest) = (second / 86_400, second % 86_400);
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    // Counted from 1 March 2000 a leap day is the last day of its year, of its four years and of its 400 years.
    let days = days as i64 - 11_017;
    let (era, day) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let century = (day / 36_524).min(3);
    let day = day - century * 36_524;
    let (four, day) = (day / 1461, day % 1461);
    let year = (day / 365).min(3);
    let day = day - year * 365;
    // From March on the months have 31, 30, 31, 30, 31 days, again and again.
    let month = (5 * day + 2) / 153;
    let day_of_month = day - (153 * month + 2) / 5 + 1;
    let after_december = i64::from(month >= 10);
    let year = 2000 + era * 400 + century * 100 + four * 4 + year + after_december;
    let month = month + 3 - 12 * after_december;
    format!("{year:04}-{month:02}-{day_of_month:02}T{hour:02}:{minute:02}:{second:02}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn written(line: &Line<'_>, format: LogFormat) -> String {
        let mut desk = Desk::default();
        desk.write(line, format, 1_795_342_272, 45);
        desk.line
    }

    fn line<'a>(session: &'a str, hook: Option<Hook>, text: fmt::Arguments<'a>) -> Line<'a> {
        Line {
            level: Level::Info,
            session,
            hook,
            plugin: "badrcptto",
            is_plugin: true,
            disposition: None,
            text,
        }
    }

    #[test]
    fn text_lines() {
        assert_eq!(
            written(
                &line(
                    "3f9a1c",
                    Some(Hook::Rcpt),
                    format_args!("fail, {}", "no such user here")
                ),
                LogFormat::Text
            ),
            "2026-11-22T10:11:12.045Z 3f9a1c (rcpt) badrcptto: fail, no such user here\n"
        );
        assert_eq!(
            written(&line("", None, format_args!("hello")), LogFormat::Text),
            "2026-11-22T10:11:12.045Z - badrcptto: hello\n"
        );
    }

    #[test]
    fn json_lines() {
        let mut line = line(
            "3f9a1c",
            Some(Hook::Rcpt),
            format_args!("fail, \"a\\b\"\n\u{e9}"),
        );
        line.disposition = Some(Disposition::Fail);
        assert_eq!(
            written(&line, LogFormat::Json),
            "{\"time\":\"2026-11-22T10:11:12.045Z\",\"level\":\"info\",\"session\":\"3f9a1c\",\"hook\":\"rcpt\",\
             \"plugin\":\"badrcptto\",\"disposition\":\"fail\",\"text\":\"fail, \\\"a\\\\b\\\"?\u{e9}\"}\n"
        );
    }

    #[test]
    fn a_long_text_is_cut() {
        let long = "\u{e9}".repeat(MAX_TEXT);
        let written = written(
            &line("x", None, format_args!("{long}{long}")),
            LogFormat::Text,
        );
        assert!(written.len() < MAX_TEXT + 60, "{}", written.len());
        assert!(written.ends_with("\u{e9}\u{2026}\n"));
        assert_eq!(written.matches('\u{2026}').count(), 1);
    }

    #[test]
    fn dates() {
        for (second, shown) in [
            (0, "1970-01-01T00:00:00"),
            (68_255_999, "1972-02-29T23:59:59"),
            (951_782_400, "2000-02-29T00:00:00"),
            (951_868_800, "2000-03-01T00:00:00"),
            (1_798_761_599, "2026-12-31T23:59:59"),
            (4_107_542_400, "2100-03-01T00:00:00"),
            (13_574_563_200, "2400-02-29T00:00:00"),
        ] {
            assert_eq!(utc(second), shown);
        }
    }

    proptest! {
        #[test]
        fn nothing_forges_a_line_and_json_stays_json(session in ".{0,9}", plugin in ".{0,9}", text in "(?s).{0,60}") {
            let line = Line {
                level: Level::Warn,
                session: &session,
                hook: None,
                plugin: &plugin,
                is_plugin: true,
                disposition: None,
                text: format_args!("{text}"),
            };
            for format in [LogFormat::Text, LogFormat::Json] {
                let written = written(&line, format);
                let end = written.len() - 1;
                prop_assert_eq!(written.find(|c: char| c.is_control()), Some(end));
            }
            let value: serde_json::Value = serde_json::from_str(&written(&line, LogFormat::Json)).unwrap();
            let expected: String = text
                .chars()
                .map(|c| if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}') { '?' } else { c })
                .collect();
            prop_assert_eq!(value["text"].as_str(), Some(expected.as_str()));
        }
    }
}
