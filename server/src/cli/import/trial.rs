//! What comes out must be what `gatepost check` lets pass: it is checked, and what is found against a line decides what becomes of it.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::process::{Command, Stdio};

use super::Site;
use super::chain::{Item, Place, wanted};
use super::core::head;
use super::lines::printable;
use crate::config::FlatFiles;

/// The text of the configuration. What is against a built-in makes it the Perl plugin, what is against that leaves it out, and what is against a
/// line of the daemon makes it a comment. To `notes` is added what became of files of the core.
///
/// # Errors
/// What `gatepost check` says, where nothing can be done about it here.
pub fn settle(site: &Site, items: &mut [Item], notes: &mut Vec<String>) -> Result<String, String> {
    let failed = |error: std::io::Error| format!("the configuration cannot be checked: {error}");
    let files = FlatFiles::new(site.config.clone());
    let folder = tempfile::tempdir().map_err(failed)?;
    let file = folder.path().join("gatepost.toml");
    let mut off = BTreeMap::new();
    loop {
        let text = Text::of(site, items, &off, Some(&files));
        std::fs::write(&file, text.lines.join("\n") + "\n").map_err(failed)?;
        let said = match check(&file).map_err(failed)? {
            None => break,
            Some(said) => said,
        };
        let mut has_changed = false;
        for (line, message) in mistakes(&file, &said) {
            has_changed |= text.heed(line, message, items, &mut off);
        }
        if !has_changed {
            return Err(format!(
                "the configuration does not pass `gatepost check`:\n{said}"
            ));
        }
    }
    let text = Text::of(site, items, &off, None);
    notes.extend(text.notes);
    let off = off
        .iter()
        .map(|(line, why)| format!("{line}: left out: {why}"));
    notes.extend(off);
    Ok(text.lines.join("\n") + "\n")
}

struct Text {
    lines: Vec<String>,
    /// The lines of each item.
    places: Vec<Range<usize>>,
    notes: Vec<String>,
}

impl Text {
    /// `off`: lines of the daemon that cannot be, and why.
    fn of(
        site: &Site,
        items: &[Item],
        off: &BTreeMap<String, String>,
        trial: Option<&FlatFiles>,
    ) -> Text {
        let head = head(site, &wanted(items));
        let mut lines = Vec::new();
        for line in head.lines {
            match off.get(&line) {
                Some(why) => lines.push(printable(&format!("# Left out: {line}    # {why}"))),
                None => lines.push(line),
            }
        }
        let mut places = Vec::new();
        let mut has_plugin = true;
        for item in items {
            let begin = lines.len();
            match item {
                Item::Comment(text) => lines.push(text.clone()),
                Item::Plugin(entry) => {
                    if lines
                        .last()
                        .is_some_and(|line| !line.is_empty() && has_plugin)
                    {
                        lines.push(String::new());
                    }
                    lines.extend(entry.lines(site, trial));
                }
            }
            has_plugin = matches!(item, Item::Plugin(_));
            places.push(begin..lines.len());
        }
        Text {
            lines,
            places,
            notes: head.report,
        }
    }

    /// Does something about a mistake in a line, counted from 0; false where nothing is left to be done.
    fn heed(
        &self,
        line: usize,
        message: &str,
        items: &mut [Item],
        off: &mut BTreeMap<String, String>,
    ) -> bool {
        let Some(index) = self.places.iter().position(|place| place.contains(&line)) else {
            let Some(text) = self.lines.get(line).filter(|text| !text.starts_with('#')) else {
                return false;
            };
            return off.insert(text.clone(), message.to_owned()).is_none();
        };
        let Some(entry) = items[index].entry_mut() else {
            return false;
        };
        entry.place = match &entry.place {
            Place::BuiltIn(_) => Place::Perl(Some(message.to_owned())),
            Place::Perl(_) => Place::Out(without_folders(message)),
            // A second mistake of the same line.
            Place::Out(_) => return true,
            Place::Core => return false,
        };
        true
    }
}

/// Perl lists all folders of its search.
fn without_folders(message: &str) -> String {
    match message.split_once(" (@INC contains: ") {
        Some((before, after)) => {
            let rest = after.split_once(')').map_or("", |(_, rest)| rest);
            format!("{before}{rest}")
        }
        None => message.to_owned(),
    }
}

/// What is wrong, in the words of `gatepost check`.
fn check(file: &Path) -> std::io::Result<Option<String>> {
    let output = Command::new(std::env::current_exe()?)
        .args(["check", "-c"])
        .arg(file)
        .stdin(Stdio::null())
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    Ok((!output.status.success()).then_some(said))
}

/// The lines with mistakes, counted from 0, and the mistakes, at most one for each line.
fn mistakes<'a>(file: &Path, said: &'a str) -> BTreeMap<usize, &'a str> {
    let start = format!("{}:", file.display());
    let mut mistakes = BTreeMap::new();
    for line in said.lines() {
        let mut parts = line.strip_prefix(&start).unwrap_or_default().splitn(3, ':');
        let place = parts.next().and_then(|number| number.parse::<usize>().ok());
        let message = parts.nth(1).map(str::trim);
        if let (Some(number @ 1..), Some(message)) = (place, message)
            && !message.starts_with("warning:")
        {
            mistakes.entry(number - 1).or_insert(message);
        }
    }
    mistakes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mistakes_have_lines() {
        let said = "a.toml:3:1: no way\n    3 | x\n      | ^\na.toml:5:1: warning: odd\nother: 1\na.toml:3:9: more\na.toml:9:1: b: c\n";
        let found = mistakes(Path::new("a.toml"), said);
        assert_eq!(found, BTreeMap::from([(2, "no way"), (8, "b: c")]));
    }

    #[test]
    fn perls_folders_are_not_told() {
        let said = "Can't locate A.pm in @INC (install A) (@INC contains: /a /b) at x line 1.";
        let short = "Can't locate A.pm in @INC (install A) at x line 1.";
        assert_eq!(without_folders(said), short);
        assert_eq!(without_folders(short), short);
    }
}
