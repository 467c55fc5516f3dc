//! From a `result` on the wire to outcomes, checked (docs/protocol.md §4, §6).

use std::time::Duration;

use gatepost_protocol::frame::{self, FrameError};
use gatepost_protocol::wire::{Entry, Late, RecipientEntry, ResultMessage};
use gatepost_protocol::{Address, Disposition, EnhancedCode, Hook, Outcome, Value, Verdict};
use serde::Deserialize;

use super::plain::Plain;

/// An entry, or what is wrong with it.
pub(super) type Read = Result<Entry, String>;

/// A plugin's turn: what it said, and whether it will say it later.
pub(super) struct Turn {
    pub(super) outcome: Outcome,
    pub(super) defer: Option<Hook>,
}

/// A `result` as it came.
pub(super) struct Results {
    pub(super) id: u64,
    /// To the hook that was asked.
    pub(super) here: Vec<Read>,
    /// To the one that was to be asked then, if it was.
    pub(super) then: Option<Vec<Read>>,
}

/// Reads a `result`, or `unfinished`. An entry that breaks the schema spoils only itself; an error means that not even the id could be read.
pub(super) fn read_result(payload: &[u8]) -> Result<Results, FrameError> {
    #[derive(Deserialize)]
    struct Loose {
        id: u64,
        #[serde(default)]
        results: Value,
        #[serde(default)]
        then: Option<Value>,
    }
    if let Ok(message) = frame::decode::<ResultMessage>(payload) {
        let read = |entries: Vec<Entry>| entries.into_iter().map(Ok).collect();
        return Ok(Results {
            id: message.id,
            here: read(message.results),
            then: message.then.map(read),
        });
    }
    let read = |value, key| match value {
        Value::List(list) => list.into_iter().map(read_entry).collect(),
        _ => vec![Err(format!("`{key}` is no list"))],
    };
    let loose: Loose = frame::decode(payload)?;
    Ok(Results {
        id: loose.id,
        here: read(loose.results, "results"),
        then: loose.then.map(|then| read(then, "then")),
    })
}

/// Reads a `verdict`, like [`read_result`].
pub(super) fn read_late(payload: &[u8]) -> Result<(u64, String, Read), FrameError> {
    #[derive(Deserialize)]
    struct Loose {
        id: u64,
        #[serde(default)]
        result: Value,
    }
    if let Ok(late) = frame::decode::<Late>(payload) {
        return Ok((late.id, late.result.plugin.clone(), Ok(late.result)));
    }
    let Loose { id, result } = frame::decode(payload)?;
    let plugin = result.get("plugin").and_then(Value::as_text);
    let plugin = plugin.unwrap_or_default().to_owned();
    Ok((id, plugin, read_entry(result)))
}

fn read_entry(value: Value) -> Read {
    Entry::deserialize(Plain(value)).map_err(|error| error.to_string())
}

/// Judges the entries of a result against the segment that was asked. There is one turn at least, for the first plugins of the segment; a
/// plugin that broke the rules gets an error, and nothing behind it counts.
pub(super) fn turns<S: AsRef<str>>(
    entries: Vec<Read>,
    segment: &[S],
    may_defer: bool,
) -> Vec<Turn> {
    let mut turns: Vec<Turn> = Vec::with_capacity(entries.len());
    let mut ended = false;
    for entry in entries {
        let due = segment.get(turns.len()).filter(|_| !ended);
        let Some(due) = due else {
            // Whose word holds cannot be told any more: the last one's is not taken.
            turns.pop();
            turns.push(fault("entries behind the last one that was due"));
            return turns;
        };
        match entry.and_then(|entry| turn(entry, due.as_ref(), may_defer)) {
            Ok((turn, ends)) => {
                turns.push(turn);
                ended = ends;
            }
            Err(wrong) => {
                turns.push(fault(wrong));
                return turns;
            }
        }
    }
    if !ended && let Some(due) = segment.get(turns.len()) {
        turns.push(fault(format_args!("no entry for `{}`", due.as_ref())));
    }
    turns
}

/// For the fuzz targets (`tests/src/fuzz`); no interface to build on. What a `result` says of a segment's plugins, and until when which of them defers.
#[doc(hidden)]
pub fn judged(
    payload: &[u8],
    segment: &[&str],
) -> Result<Vec<(Outcome, Option<Hook>)>, FrameError> {
    let turns = turns(read_result(payload)?.here, segment, true).into_iter();
    Ok(turns.map(|turn| (turn.outcome, turn.defer)).collect())
}

/// The outcome of a deferred answer.
pub(super) fn late_outcome(entry: Read, plugin: &str) -> Outcome {
    match entry.and_then(|entry| turn(entry, plugin, false)) {
        Ok((turn, _)) => turn.outcome,
        Err(wrong) => fault(wrong).outcome,
    }
}

fn fault(wrong: impl std::fmt::Display) -> Turn {
    Turn {
        outcome: Outcome::error(format!("protocol error: {wrong}")),
        defer: None,
    }
}

fn turn(entry: Entry, due: &str, may_defer: bool) -> Result<(Turn, bool), String> {
    if entry.plugin != due {
        return Err(format!(
            "an entry of `{}` where `{due}` was to answer",
            entry.plugin
        ));
    }
    if let Some(hook) = entry.defer {
        if !may_defer {
            return Err(format!(
                "it defers until `{hook}` where it may not: `defer` is a feature that both sides name"
            ));
        }
        if entry.verdict.is_some() || entry.disposition.is_some() {
            return Err("`defer` together with a verdict or a disposition".to_owned());
        }
    }
    check_code(entry.code, entry.enhanced)?;
    // The process stops where it cannot know whether the next plugin is to run: that depends on the operator's policy (§4).
    let ends = match (entry.verdict, entry.disposition) {
        (Some(verdict), _) => verdict != Verdict::Declined,
        (None, found) => matches!(found, Some(Disposition::Fail | Disposition::Error)),
    } || entry.recipients.is_some();
    let recipients = entry.recipients.unwrap_or_default().into_iter();
    let recipients = recipients.map(recipient).collect::<Result<_, _>>()?;
    let outcome = Outcome {
        disposition: entry.disposition,
        message: entry.message.unwrap_or_default(),
        verdict: entry.verdict,
        code: entry.code,
        enhanced: entry.enhanced,
        reply: entry.reply.unwrap_or_default(),
        changes: entry.changes.unwrap_or_default(),
        values: entry.values.unwrap_or_default(),
        settings: entry.settings.unwrap_or_default(),
        recipients,
        defer: None,
        delay: Duration::from_millis(entry.delay_ms.unwrap_or_default()),
    };
    let turn = Turn {
        outcome,
        defer: entry.defer,
    };
    Ok((turn, ends))
}

fn recipient(entry: RecipientEntry) -> Result<(Address, Outcome), String> {
    check_code(entry.code, entry.enhanced)?;
    let outcome = Outcome {
        disposition: entry.disposition,
        message: entry.message.unwrap_or_default(),
        verdict: entry.verdict,
        code: entry.code,
        enhanced: entry.enhanced,
        reply: entry.reply.unwrap_or_default(),
        ..Outcome::default()
    };
    Ok((entry.address, outcome))
}

/// A reply code is one that a final reply can have (RFC 5321 §4.2.1), and its enhanced code is of the same class (RFC 3463 §2).
fn check_code(code: Option<u16>, enhanced: Option<EnhancedCode>) -> Result<(), String> {
    let Some(code) = code else {
        return Ok(());
    };
    if !(200..=599).contains(&code) {
        return Err(format!("{code} is no reply code"));
    }
    match enhanced {
        Some(enhanced) if u16::from(enhanced.0) != code / 100 => Err(format!(
            "the codes {code} and {enhanced} are of different classes"
        )),
        _ => Ok(()),
    }
}
