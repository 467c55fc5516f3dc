//! A record for people: a line for each turn and each reply, then what became of each recipient.

use std::fmt::Write;

use crate::report::journal::{Record, Step, Turn};

/// Where the columns of a turn begin that have no width of their own.
const INDENT: usize = 24;

/// The text, with a line end behind.
pub fn text(record: &Record<'_>) -> String {
    let mut out = String::new();
    head(&mut out, record);
    let width = |of: fn(&Turn<'_>) -> usize| {
        let turns = record.steps.iter().filter_map(|step| match step {
            Step::Turn(turn) => Some(of(turn)),
            Step::Reply(_) => None,
        });
        turns.max().unwrap_or_default()
    };
    let widths = (
        width(|turn| turn.hook.chars().count()),
        width(|turn| turn.plugin.chars().count()),
    );
    // A command stands above the turns that it led to, and its reply below.
    let mut turns = Vec::new();
    for step in &record.steps {
        let reply = match step {
            Step::Turn(turn) => {
                turns.push(turn);
                continue;
            }
            Step::Reply(reply) => reply,
        };
        if !reply.command.is_empty() {
            line(&mut out, format_args!("C: {}", reply.command));
        }
        for turn in turns.drain(..) {
            put_turn(&mut out, turn, widths);
        }
        for text in reply.reply.lines() {
            line(&mut out, format_args!("S: {text}"));
        }
        for setting in &reply.because {
            line(&mut out, format_args!("{:INDENT$}by {setting}", ""));
        }
    }
    for turn in turns {
        put_turn(&mut out, turn, widths);
    }
    if record.left_out > 0 {
        line(
            &mut out,
            format_args!("{} more steps were not written down", record.left_out),
        );
    }
    if !record.recipients.is_empty() {
        out.push('\n');
    }
    for told in &record.recipients {
        line(
            &mut out,
            format_args!("<{}>: {}", told.address, told.became),
        );
        if !told.reply.is_empty() {
            line(&mut out, format_args!("    told: {}", told.reply));
        }
    }
    out
}

fn head(out: &mut String, record: &Record<'_>) {
    let mut about = vec![format!("{}, session from {}", record.id, record.began)];
    for (what, text) in [
        ("client", &record.client),
        ("greeting", &record.hello),
        ("encrypted with", &record.tls),
        ("user", &record.user),
    ] {
        if !text.is_empty() {
            about.push(format!("{what} {text}"));
        }
    }
    if let Some(sender) = &record.sender {
        about.push(format!("sender <{sender}>"));
    }
    if record.size > 0 {
        about.push(format!("{} bytes", record.size));
    }
    line(out, format_args!("{}", about.join(", ")));
    line(
        out,
        format_args!(
            "{:>10}{:>10}  (milliseconds since the session began, and for the answer)",
            "at", "took"
        ),
    );
}

fn put_turn(out: &mut String, turn: &Turn<'_>, (hook, plugin): (usize, usize)) {
    let took = turn.took.map(milliseconds).unwrap_or_default();
    let mut found: Vec<String> = Vec::new();
    found.extend(turn.found.map(|found| found.name().to_owned()));
    for text in [&turn.mark, &turn.message] {
        if !text.is_empty() {
            found.push(text.to_string());
        }
    }
    if !turn.found_at.is_empty() {
        found.push(format!("found at {}", turn.found_at));
    }
    if found.is_empty() {
        found.push("nothing to say".to_owned());
    }
    let mut text = found.join(", ");
    if !turn.verdict.is_empty() {
        let _ = write!(text, " => {}", turn.verdict);
    } else if !turn.wanted.is_empty() {
        let _ = write!(text, " (wanted: {})", turn.wanted);
    }
    line(
        out,
        format_args!(
            "{:>10}{took:>10}  {:hook$}  {:plugin$}  {text}",
            milliseconds(turn.at),
            turn.hook,
            turn.plugin
        ),
    );
    // At RCPT the command has said it.
    let is_told = turn.recipients.is_empty() || turn.hook == "rcpt";
    let recipients = (!is_told).then_some(&turn.recipients);
    let more = recipients
        .map(|recipients| ("for", recipients))
        .into_iter()
        .chain(turn.changes.iter().map(|change| ("change", change)))
        .chain(turn.because.iter().map(|setting| ("by", setting)));
    for (what, text) in more {
        line(out, format_args!("{:INDENT$}{what} {text}", ""));
    }
}

fn milliseconds(micros: u64) -> String {
    format!("{}.{:02}", micros / 1000, micros % 1000 / 10)
}

/// One line. What clients and plugins wrote is in it: nothing may move a terminal's cursor or begin another line.
fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    let text = text.to_string();
    let safe = text.trim_end().chars().map(|character| match character {
        '\u{2028}' | '\u{2029}' => '?',
        other if other.is_control() => '?',
        other => other,
    });
    out.extend(safe);
    out.push('\n');
}
