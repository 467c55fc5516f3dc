//! Looking something up in the journal.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::Path;

use super::Record;
use super::segments::list;

/// What the journal has.
#[derive(Debug, Default)]
pub struct Found {
    /// The lines of the records, the oldest first.
    pub records: Vec<String>,
    /// When the session of the oldest record in the journal began; `None`: it is empty.
    pub since: Option<String>,
}

/// Finds the record of a transaction, or all records of a session, or those whose client was told a word, such as `1795369603.M610183P32711Q0R112675e0` in
/// `Queued! 1795369603.M610183P32711Q0R112675e0`. A line that is cut off, as a crash leaves it, is passed over.
///
/// # Errors
/// The folder or a file in it cannot be read.
pub fn find(dir: &Path, id: &str) -> io::Result<Found> {
    let mut found = Found::default();
    each_line(dir, |line| look_at(line, id, &mut found))?;
    Ok(found)
}

/// The lines of all records, the oldest first.
///
/// # Errors
/// The folder or a file in it cannot be read.
pub fn all(dir: &Path) -> io::Result<Vec<String>> {
    let mut lines = Vec::new();
    each_line(dir, |line| {
        lines.push(String::from_utf8_lossy(line).into_owned());
    })?;
    Ok(lines)
}

fn each_line(dir: &Path, mut look: impl FnMut(&[u8])) -> io::Result<()> {
    for segment in list(dir)? {
        let file = match File::open(&segment.path) {
            Ok(file) => file,
            // The daemon made room meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        let mut reader = BufReader::new(file);
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line)? > 0 {
            look(&line);
            line.clear();
        }
    }
    Ok(())
}

fn look_at(line: &[u8], id: &str, found: &mut Found) {
    let is_needed = found.since.is_none() || memchr::memmem::find(line, id.as_bytes()).is_some();
    let record: Option<Record> = is_needed
        .then(|| serde_json::from_slice(line).ok())
        .flatten();
    let Some(record) = record else { return };
    let session = record.id.split_once('.').map(|(session, _)| session);
    if record.id == id || session == Some(id) || was_told(&record, id) {
        let text = String::from_utf8_lossy(line).trim_end().to_owned();
        found.records.push(text);
    }
    found.since.get_or_insert_with(|| record.began.into_owned());
}

/// Whether a word that looks like a name was in a reply about the message.
fn was_told(record: &Record<'_>, word: &str) -> bool {
    let is_name = word.len() >= 8 && word.bytes().any(|byte| byte.is_ascii_digit());
    let mut replies = record.recipients.iter().map(|told| &told.reply);
    is_name && replies.any(|reply| reply.split_whitespace().any(|it| it == word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn found_by_every_name_that_somebody_may_have_for_it() {
        let dir = tempfile::tempdir().unwrap();
        let line = |id: &str, reply: &str| {
            let told = format!("[{{\"address\":\"a@b\",\"reply\":\"{reply}\",\"became\":\"\"}}]");
            let head = format!("{{\"id\":\"{id}\",\"began\":\"2026\",\"took\":1");
            format!("{head},\"recipients\":{told},\"steps\":[]}}\n")
        };
        let one = line("abc123.1", "250 2.0.0 Queued! 1795.M61Q0");
        let two = line("abc123.12", "250 2.0.0 Queued as abc123.12");
        let torn = &line("abc123.13", "")[..30];
        let last = line("abc1234", "550 no such user2026 here");
        std::fs::write(dir.path().join("1.jsonl"), one + &two + torn).unwrap();
        std::fs::write(dir.path().join("2.jsonl"), last).unwrap();
        std::fs::write(dir.path().join("notes.txt"), "not of the journal").unwrap();
        let ids = |id: &str| {
            let found = find(dir.path(), id).unwrap();
            assert_eq!(found.since.as_deref(), Some("2026"));
            let ids = found.records.iter().map(|line| {
                let record: Record = serde_json::from_str(line).unwrap();
                record.id.into_owned()
            });
            ids.collect::<Vec<_>>()
        };
        assert_eq!(ids("abc123.1"), ["abc123.1"]);
        assert_eq!(ids("abc123"), ["abc123.1", "abc123.12"]);
        assert_eq!(ids("abc1234"), ["abc1234"]);
        assert_eq!(ids("1795.M61Q0"), ["abc123.1"]);
        assert_eq!(ids("user2026"), ["abc1234"]);
        for nobody in ["Queued", "abc123.13", "2026"] {
            assert_eq!(ids(nobody), [""; 0], "{nobody}");
        }
    }
}
