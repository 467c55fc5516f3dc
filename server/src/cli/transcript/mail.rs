//! Where delivered messages turn up, and what is left in the spool.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use super::pattern::show;
use crate::report::journal;

/// A folder of Maildirs, and which of its messages were looked at.
pub struct Mailbox {
    dir: PathBuf,
    seen: HashSet<PathBuf>,
}

impl Mailbox {
    /// All Maildirs below a folder, the folder itself included.
    pub fn new(dir: impl Into<PathBuf>) -> Mailbox {
        Mailbox {
            dir: dir.into(),
            seen: HashSet::new(),
        }
    }

    /// The messages nobody has looked at, in the order of their names; `folder` narrows it to the Maildirs below one.
    pub fn unseen(&self, folder: Option<&str>) -> Vec<PathBuf> {
        let dir = match folder {
            Some(folder) => self.dir.join(folder),
            None => self.dir.clone(),
        };
        let mut messages = files(&dir);
        messages.retain(|file| {
            let in_new = file.parent().and_then(Path::file_name) == Some("new".as_ref());
            in_new && !self.seen.contains(file)
        });
        messages
    }

    /// Counts a message as looked at.
    pub fn see(&mut self, message: PathBuf) {
        self.seen.insert(message);
    }
}

/// All regular files below a folder, sorted; none if there is no such folder.
pub fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        // A folder may vanish while it is read: a worker's scratch folder does.
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => folders.push(entry.path()),
                Ok(kind) if kind.is_file() => found.push(entry.path()),
                _ => {}
            }
        }
    }
    found.sort();
    found
}

/// The files in a spool folder, without the journal.
pub fn spooled(spool: &Path) -> Vec<PathBuf> {
    let mut found = files(spool);
    found.retain(|file| !file.starts_with(journal::folder(spool)));
    found
}

/// A message as lines. A lone CR or LF shows as an escape, and so does a missing CRLF at the end.
pub fn lines(message: &[u8]) -> Vec<String> {
    let mut lines = Vec::new();
    let mut rest = message;
    while let Some(end) = rest.windows(2).position(|pair| pair == b"\r\n") {
        lines.push(show(&rest[..end]));
        rest = &rest[end + 2..];
    }
    if !rest.is_empty() {
        lines.push(show(rest) + "\\(no CRLF)");
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_ends_show() {
        assert_eq!(lines(b"a\r\n\r\nb\nc\r\n"), ["a", "", "b\\nc"]);
        assert_eq!(lines(b"a\r\nb\n"), ["a", "b\\n\\(no CRLF)"]);
        assert!(lines(b"").is_empty());
    }

    #[test]
    fn each_message_is_looked_at_once() {
        let dir = tempfile::tempdir().unwrap();
        for file in ["bob/new/1", "bob/tmp/2", "new/3"] {
            let file = dir.path().join(file);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, "x").unwrap();
        }
        let mut mailbox = Mailbox::new(dir.path());
        assert_eq!(mailbox.unseen(None).len(), 2);
        let in_bob = mailbox.unseen(Some("bob"));
        assert_eq!(in_bob, [dir.path().join("bob/new/1")]);
        mailbox.see(in_bob[0].clone());
        assert_eq!(mailbox.unseen(None), [dir.path().join("new/3")]);
    }
}
