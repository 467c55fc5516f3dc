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

/// Finds the record of a transaction, or all records of a session. A line that is cut off, as a crash leaves it, is passed over.
///
/// # Errors
/// The folder or a file in it cannot be read.
pub fn find(dir: &Path, id: &str) -> io::Result<Found> {
    let mut found = Found::default();
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
            look_at(&line, id, &mut found);
            line.clear();
        }
    }
    Ok(found)
}

fn look_at(line: &[u8], id: &str, found: &mut Found) {
    let is_needed = found.since.is_none() || names(line, id);
    let record: Option<Record> = is_needed
        .then(|| serde_json::from_slice(line).ok())
        .flatten();
    let Some(record) = record else { return };
    let session = record.id.split_once('.').map(|(session, _)| session);
    if record.id == id || session == Some(id) {
        let text = String::from_utf8_lossy(line).trim_end().to_owned();
        found.records.push(text);
    }
    found.since.get_or_insert_with(|| record.began.into_owned());
}

/// Whether a line may be one that is looked for; reads no further than its first field.
fn names(line: &[u8], id: &str) -> bool {
    let rest = line.strip_prefix(b"{\"id\":\"");
    rest.is_some_and(|rest| rest.starts_with(id.as_bytes()))
}
