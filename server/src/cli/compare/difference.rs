//! Two records of one session side by side: what a plugin decided and changed, and what the client was told. Times, names of sessions and the wording of sentences do not count.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use gatepost_protocol::Disposition;

use crate::report::journal::{Record, Reply, Step, Turn};

/// What the client was told, in the place of a plugin's name.
const REPLY: &str = "the reply";
const NOTHING: &str = "nothing";

/// Where two records of a session differ.
#[derive(Debug, Default)]
pub struct Differences(Vec<Difference>);

#[derive(Debug)]
struct Difference {
    /// The command.
    step: String,
    /// The plugin.
    who: String,
    hook: String,
    old: Vec<String>,
    new: Vec<String>,
}

/// Something that was said: where, by whom.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    /// The command's place among all, and how it reads.
    step: (usize, String),
    /// The reply comes last.
    is_reply: bool,
    hook: String,
    who: String,
}

/// What has an effect, which counts, and how it reads.
type Effects = BTreeMap<Key, Vec<(String, String)>>;

impl Differences {
    /// Compares the records of one session; `has_field` says whether its message had a header field of that name.
    pub fn between(
        old: &[Record<'_>],
        new: &[Record<'_>],
        has_field: impl Fn(&str) -> bool,
    ) -> Differences {
        let steps = steps(old, new);
        let [old, new] = [old, new].map(|records| effects(records, &steps, &has_field));
        let mut keys: Vec<&Key> = old.keys().chain(new.keys()).collect();
        keys.sort();
        keys.dedup();
        let none = Vec::new();
        let mut found: Vec<Difference> = Vec::new();
        for key in keys {
            // Where a session took another course, what came of that says nothing new.
            if is_one_sided(key, &old, &new) && !found.is_empty() {
                continue;
            }
            let said = [&old, &new].map(|side| side.get(key).unwrap_or(&none));
            let [before, after] = said.map(|effects| effects.iter().map(|(counts, _)| counts));
            if before.eq(after) {
                continue;
            }
            let [old, new] = said.map(|effects| effects.iter().map(|(_, reads)| reads.clone()));
            found.push(Difference {
                step: key.step.1.clone(),
                who: key.who.clone(),
                hook: key.hook.clone(),
                old: old.collect(),
                new: new.collect(),
            });
        }
        Differences(found)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Whether a key is about a command that only one side came to.
fn is_one_sided(key: &Key, old: &Effects, new: &Effects) -> bool {
    let reply = Key {
        is_reply: true,
        hook: String::new(),
        who: REPLY.to_owned(),
        ..key.clone()
    };
    old.contains_key(&reply) != new.contains_key(&reply)
}

/// The commands of both, in order, each as often as the one has it that has it more often.
fn steps(old: &[Record<'_>], new: &[Record<'_>]) -> Vec<String> {
    let commands = |records: &[Record<'_>]| -> Vec<String> {
        let steps = records.iter().flat_map(|record| &record.steps);
        let replies = steps.filter_map(|step| match step {
            Step::Reply(reply) => Some(command(reply)),
            Step::Turn(_) => None,
        });
        replies.collect()
    };
    let mut all = commands(old);
    let mut at = 0;
    for command in commands(new) {
        match all[at..].iter().position(|known| *known == command) {
            Some(found) => at += found + 1,
            None => {
                all.insert(at, command);
                at += 1;
            }
        }
    }
    all
}

fn command(reply: &Reply<'_>) -> String {
    match &*reply.command {
        "" => "greeting".to_owned(),
        command => command.to_owned(),
    }
}

fn effects(records: &[Record<'_>], steps: &[String], has_field: &impl Fn(&str) -> bool) -> Effects {
    // Fields that plugins added so far.
    let mut added: Vec<String> = Vec::new();
    let mut effects = Effects::new();
    let mut at = 0;
    let mut turns: Vec<&Turn<'_>> = Vec::new();
    let mut put = |step: (usize, String), is_reply, hook: &str, who: &str, effect| {
        let key = Key {
            step,
            is_reply,
            hook: hook.to_owned(),
            who: who.to_owned(),
        };
        effects.entry(key).or_default().push(effect);
    };
    for step in records.iter().flat_map(|record| &record.steps) {
        let reply = match step {
            Step::Turn(turn) => {
                turns.push(turn);
                continue;
            }
            Step::Reply(reply) => reply,
        };
        let command = command(reply);
        let found = steps[at..].iter().position(|known| *known == command);
        at += found.map_or(0, |found| found + 1);
        for turn in turns.drain(..) {
            if let Some(effect) = effect(turn, has_field, &mut added) {
                put(
                    (at, command.clone()),
                    false,
                    &turn.hook,
                    &turn.plugin,
                    effect,
                );
            }
        }
        put((at, command), true, "", REPLY, told(&reply.reply));
    }
    for turn in turns {
        if let Some(effect) = effect(turn, has_field, &mut added) {
            put(
                (at + 1, "end".to_owned()),
                false,
                &turn.hook,
                &turn.plugin,
                effect,
            );
        }
    }
    let recipients = records.iter().flat_map(|record| &record.recipients);
    for recipient in recipients {
        let who = format!("<{}>", recipient.address);
        let reads = recipient.became.clone();
        put(
            (steps.len() + 1, "what becomes of".to_owned()),
            true,
            "",
            &who,
            (reads.clone(), reads),
        );
    }
    effects
}

/// What a turn did; `None`: nothing that anybody would notice.
fn effect(
    turn: &Turn<'_>,
    has_field: &impl Fn(&str) -> bool,
    added: &mut Vec<String>,
) -> Option<(String, String)> {
    let has_failed = matches!(turn.found, Some(Disposition::Fail | Disposition::Error));
    // To remove what is not there is no change.
    let is_change = |change: &&Cow<'_, str>| {
        let field = change.split_once("_header ");
        let name = field.and_then(|(_, field)| field.split([':', ' ']).next());
        match name {
            Some(name) if change.starts_with("remove_") => {
                has_field(name) || added.iter().any(|added| added.eq_ignore_ascii_case(name))
            }
            Some(name) => {
                added.push(name.to_owned());
                true
            }
            None => true,
        }
    };
    let changes: Vec<_> = turn.changes.iter().filter(is_change).collect();
    if !has_failed && turn.verdict.is_empty() && changes.is_empty() {
        return None;
    }
    let mut counts = Vec::new();
    let mut reads = Vec::new();
    if let Some(found) = turn.found {
        reads.push(found.name().to_owned());
        if has_failed {
            counts.push(found.name().to_owned());
        }
    }
    for text in [&turn.mark, &turn.message] {
        if !text.is_empty() {
            reads.push(text.to_string());
        }
    }
    counts.push(turn.mark.to_string());
    for (what, text) in [
        ("=> ", &turn.verdict),
        ("wanted: ", &turn.wanted),
        ("for ", &turn.recipients),
    ] {
        if !text.is_empty() {
            counts.push(format!("{what}{text}"));
            reads.push(format!("{what}{text}"));
        }
    }
    for change in changes {
        counts.push(change.to_string());
        reads.push(change.to_string());
    }
    Some((counts.join("\n"), reads.join(", ")))
}

/// The codes of a reply count (RFC 5321 §4.2, RFC 3463), its words do not.
fn told(reply: &str) -> (String, String) {
    let line = reply.lines().last().unwrap_or_default();
    let code = line.get(..3).unwrap_or(line);
    let rest = line.get(4..).unwrap_or_default();
    let enhanced = rest.split(' ').next().unwrap_or_default();
    let is_enhanced = enhanced.split('.').count() == 3
        && enhanced.split('.').all(|part| part.parse::<u16>().is_ok());
    let counts = match is_enhanced {
        true => format!("{code} {enhanced}"),
        false => code.to_owned(),
    };
    (counts, reply.lines().collect::<Vec<_>>().join(" | "))
}

impl fmt::Display for Differences {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut step = None;
        for difference in &self.0 {
            if step != Some(&difference.step) {
                writeln!(f, "  {}", safe(&difference.step))?;
                step = Some(&difference.step);
            }
            let who = match &*difference.hook {
                "" => safe(&difference.who),
                hook => format!("{} at {hook}", safe(&difference.who)),
            };
            writeln!(f, "    {who}")?;
            for (side, said) in [("old", &difference.old), ("new", &difference.new)] {
                let said = match said.is_empty() {
                    true => NOTHING.to_owned(),
                    false => said.join("; "),
                };
                writeln!(f, "      {side}: {}", safe(&said))?;
            }
        }
        Ok(())
    }
}

/// Clients and plugins wrote it: nothing may move a terminal's cursor.
fn safe(text: &str) -> String {
    let safe = |character: char| match character.is_control() {
        true => '?',
        false => character,
    };
    text.chars().map(safe).collect()
}

/// How many sessions differ, and by whom.
#[derive(Debug, Default)]
pub struct Tally {
    sessions: usize,
    different: usize,
    /// Sessions in which something of it differs.
    by: BTreeMap<String, usize>,
}

impl Tally {
    /// One more session.
    pub fn add(&mut self, differences: &Differences) {
        self.sessions += 1;
        self.different += usize::from(!differences.is_empty());
        let mut who: Vec<&str> = differences.0.iter().map(|it| &*it.who).collect();
        who.retain(|who| !who.starts_with('<'));
        who.sort_unstable();
        who.dedup();
        for who in who {
            *self.by.entry(who.to_owned()).or_default() += 1;
        }
    }

    /// Whether there was no session.
    pub fn is_empty(&self) -> bool {
        self.sessions == 0
    }

    /// Whether none differs.
    pub fn is_equal(&self) -> bool {
        self.different == 0
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let equal = self.sessions - self.different;
        write!(
            f,
            "{} sessions: {equal} equal, {} different",
            self.sessions, self.different
        )?;
        let by: Vec<String> = self
            .by
            .iter()
            .map(|(who, number)| format!("{} {number}", safe(who)))
            .collect();
        match by.is_empty() {
            true => Ok(()),
            false => write!(f, " ({})", by.join(", ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(steps: &str) -> String {
        format!(r#"{{"id":"x","began":"","took":1,"steps":[{steps}]}}"#)
    }

    fn between(old: &str, new: &str) -> String {
        let (old, new) = (record(old), record(new));
        let parse = |text| vec![serde_json::from_str::<Record>(text).unwrap()];
        Differences::between(&parse(&old), &parse(&new), |name| name == "X-Forged").to_string()
    }

    const HELO: &str = r#"{"at":1,"command":"EHLO x","reply":"250 ok"}"#;

    #[test]
    fn times_and_words_do_not_count() {
        let old = r#"{"at":1,"hook":"ehlo","plugin":"helo","found":"fail","message":"bad","verdict":"deny","changes":["karma -1"]},{"at":1,"command":"EHLO x","reply":"550 5.7.1 go away"}"#;
        let new = r#"{"at":7,"took":3,"hook":"ehlo","plugin":"helo","found":"fail","message":"I do not like you","verdict":"deny","changes":["karma -1"]},{"at":9,"command":"EHLO x","reply":"550 5.7.1 no"}"#;
        assert_eq!(between(old, new), "");
        // What has nothing to say, and no effect, need not be there.
        let quiet = format!(
            r#"{{"at":1,"hook":"ehlo","plugin":"helo","found":"skip","message":"x"}},{HELO}"#
        );
        assert_eq!(between(&quiet, HELO), "");
    }

    #[test]
    fn to_remove_what_is_not_there_is_no_change() {
        let turn = |changes: &str| {
            format!(
                r#"{{"at":1,"hook":"data_post","plugin":"x","found":"pass","changes":[{changes}]}},{HELO}"#
            )
        };
        let adds = turn(r#""add_header X-Seen: 1""#);
        assert_eq!(
            between(
                &adds,
                &turn(r#""remove_header X-Other","add_header X-Seen: 1""#)
            ),
            ""
        );
        let forged = turn(r#""remove_header X-Forged","add_header X-Seen: 1""#);
        assert!(between(&adds, &forged).contains("new: pass, remove_header X-Forged, "));
        let own = turn(r#""add_header X-Seen: 1","remove_header X-Seen""#);
        assert!(!between(&adds, &own).is_empty());
    }

    #[test]
    fn a_difference_stands_at_its_step_with_both_sides() {
        let old = r#"{"at":1,"command":"EHLO x","reply":"250 ok"},{"at":1,"command":"QUIT","reply":"221 2.0.0 bye"}"#;
        let new = r#"{"at":1,"hook":"ehlo","plugin":"helo","found":"fail","message":"bad","verdict":"deny"},{"at":1,"command":"EHLO x","reply":"550 5.7.1 no"},{"at":1,"command":"QUIT","reply":"221 2.0.0 bye"}"#;
        assert_eq!(
            between(old, new),
            "  EHLO x\n    helo at ehlo\n      old: nothing\n      new: fail, bad, => deny\n    the reply\n      old: 250 ok\n      new: 550 5.7.1 no\n"
        );
    }

    #[test]
    fn a_session_that_takes_another_course_is_compared_where_both_came() {
        let command = |command: &str, reply: &str| {
            format!(r#"{{"at":1,"command":"{command}","reply":"{reply}"}}"#)
        };
        let old = [
            command("MAIL", "250 x"),
            command("DATA", "354 x"),
            command("QUIT", "221 x"),
        ]
        .join(",");
        let new = [
            command("MAIL", "550 x"),
            command("RSET", "250 x"),
            command("QUIT", "221 x"),
        ]
        .join(",");
        let text = between(&old, &new);
        assert!(
            text.contains("  MAIL\n    the reply\n      old: 250 x\n      new: 550 x\n"),
            "{text}"
        );
        // That only one of them came to DATA follows from that.
        assert!(!text.contains("DATA") && !text.contains("RSET"), "{text}");
        assert!(!text.contains("QUIT"), "{text}");
        // One that is cut off without a word has no other sign.
        let text = between("", HELO);
        assert_eq!(
            text,
            "  EHLO x\n    the reply\n      old: nothing\n      new: 250 ok\n"
        );
    }
}
