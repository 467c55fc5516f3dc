//! Flat files: one value a line, by qpsmtpd's rules.

use std::collections::{BTreeSet, HashMap};
use std::fs::Metadata;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use gatepost_protocol::Level;

use super::Stamp;
use crate::report;

/// Files that one name may lead to over `$include`.
const MAX_FILES: usize = 1000;

/// A folder of flat files. What was read is kept, and read again when a file it came from has changed: each call asks
/// the file system, so that a change holds from the next call on.
///
/// Calls block for the file system: a `stat` of each file, a few microseconds where the folder is local.
#[derive(Debug)]
pub struct FlatFiles {
    dir: Option<PathBuf>,
    cache: Mutex<HashMap<Box<str>, Entry>>,
}

#[derive(Debug)]
struct Entry {
    lines: Arc<[String]>,
    reading: Reading,
}

/// What a name's lines were read from.
#[derive(Debug, Default, PartialEq, Eq)]
struct Reading {
    /// Every file and folder looked at; `None` for what was not there.
    seen: Vec<(PathBuf, Option<Stamp>)>,
    /// What could not be read, in words.
    troubles: BTreeSet<String>,
    /// All of it was old enough for its stamps to tell a change.
    settled: bool,
}

impl FlatFiles {
    /// The files of a folder; without a folder every file is empty.
    pub fn new(dir: impl Into<Option<PathBuf>>) -> FlatFiles {
        FlatFiles {
            dir: dir.into(),
            cache: Mutex::default(),
        }
    }

    /// The values of a file: white space at both ends, empty lines and lines that begin with `#` are dropped, and
    /// `$include NAME` is replaced by what that file, or each file of that folder, holds.
    ///
    /// Empty for a file that is not there, and for a name that leads out of the folder. What makes no sense (a file that includes itself or
    /// one that is not there) is skipped, with a warning in the log.
    ///
    /// # Errors
    /// A file is there, and the system does not let us read it, at least for now. To go on with less than what it says could refuse our own
    /// recipients for good.
    pub fn lines(&self, name: &str) -> Result<Arc<[String]>, String> {
        let Some(path) = self.path(name) else {
            return Ok(Arc::default());
        };
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        let known = cache.get(name);
        if let Some(entry) = known.filter(|entry| entry.reading.holds()) {
            return Ok(entry.lines.clone());
        }
        let mut reading = Reading {
            settled: true,
            ..Reading::default()
        };
        let mut lines = Vec::new();
        let mut open = Vec::new();
        self.read(&path, &mut lines, &mut reading, &mut open)?;
        let said = known.map(|entry| &entry.reading.troubles);
        for trouble in &reading.troubles {
            if said.is_none_or(|said| !said.contains(trouble)) {
                report::line(
                    Level::Warn,
                    "",
                    None,
                    "flat_files",
                    format_args!("{trouble}"),
                );
            }
        }
        let lines: Arc<[String]> = lines.into();
        // Names that lead nowhere are not kept: there is no end of them.
        if matches!(reading.seen.first(), Some((_, Some(_)))) {
            let entry = Entry {
                lines: lines.clone(),
                reading,
            };
            cache.insert(name.into(), entry);
        } else {
            cache.remove(name);
        }
        Ok(lines)
    }

    /// `None` where there is no folder, or the name leads out of it.
    fn path(&self, name: &str) -> Option<PathBuf> {
        let dir = self.dir.as_deref()?;
        let plain = Path::new(name)
            .components()
            .all(|part| matches!(part, Component::Normal(_)));
        let written_once = Path::new(name)
            .components()
            .collect::<PathBuf>()
            .as_os_str()
            == name;
        if name.is_empty() || !plain || !written_once || name.contains(['\0', '\\']) {
            report::line(
                Level::Warn,
                "",
                None,
                "flat_files",
                format_args!("{name:?} is no name of a flat file"),
            );
            return None;
        }
        Some(dir.join(name))
    }

    /// Adds a file's values, or those of a folder's files. `open` are the files on the way here.
    fn read(
        &self,
        path: &Path,
        lines: &mut Vec<String>,
        reading: &mut Reading,
        open: &mut Vec<PathBuf>,
    ) -> Result<(), String> {
        let failed = |error: &std::io::Error| format!("{}: {error}", path.display());
        let trouble = |reading: &mut Reading, text: std::fmt::Arguments<'_>| {
            reading
                .troubles
                .insert(format!("{}: {text}", path.display()));
            Ok(())
        };
        if open.iter().any(|other| other == path) {
            let from = open.last().map(|file| file.display().to_string());
            let from = from.unwrap_or_default();
            return trouble(reading, format_args!("includes itself, by way of {from}"));
        }
        if reading.seen.len() >= MAX_FILES {
            return trouble(
                reading,
                format_args!("not read: more than {MAX_FILES} files"),
            );
        }
        let metadata = reading.look(path);
        let is_missing = |error: &std::io::Error| {
            error.kind() == std::io::ErrorKind::NotFound && open.is_empty()
        };
        if metadata.as_ref().is_err_and(is_missing) {
            return Ok(());
        }
        if metadata.is_ok_and(|it| it.is_dir()) && !open.is_empty() {
            let files = files_of(path).map_err(|error| failed(&error))?;
            let mut files = files.iter();
            return files.try_for_each(|file| self.read(file, lines, reading, open));
        }
        let bytes = match std::fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if is_missing(&error) => return Ok(()),
            Err(error) => {
                return match error.kind() {
                    std::io::ErrorKind::NotFound | std::io::ErrorKind::IsADirectory => {
                        trouble(reading, format_args!("{error}"))
                    }
                    _ => Err(failed(&error)),
                };
            }
        };
        open.push(path.to_owned());
        for line in String::from_utf8_lossy(&bytes).lines().map(str::trim) {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            match line.strip_prefix("$include") {
                Some(rest) if rest.starts_with(char::is_whitespace) => {
                    let dir = self.dir.as_deref().unwrap_or(Path::new(""));
                    self.read(&dir.join(rest.trim()), lines, reading, open)?;
                }
                _ => lines.push(line.to_owned()),
            }
        }
        open.pop();
        Ok(())
    }
}

/// A folder's files in the order of their names, without hidden ones.
fn files_of(dir: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        if entry.path().is_file() && !entry.file_name().to_string_lossy().starts_with('.') {
            files.push(entry.path());
        }
    }
    files.sort();
    Ok(files)
}

impl Reading {
    /// Notes a file's stamp, before it is read.
    fn look(&mut self, path: &Path) -> std::io::Result<Metadata> {
        let metadata = std::fs::metadata(path);
        let stamp = metadata.as_ref().ok().map(Stamp::of);
        self.settled &= stamp.as_ref().is_none_or(Stamp::is_settled);
        self.seen.push((path.to_owned(), stamp));
        metadata
    }

    /// Whether nothing has changed since.
    fn holds(&self) -> bool {
        self.settled
            && self
                .seen
                .iter()
                .all(|(path, stamp)| std::fs::metadata(path).ok().as_ref().map(Stamp::of) == *stamp)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(files: &[(&str, &str)]) -> (tempfile::TempDir, FlatFiles) {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let flat = FlatFiles::new(dir.path().to_owned());
        (dir, flat)
    }

    #[test]
    fn comments_blanks_and_white_space_are_dropped() {
        let text = "# all of it\n\n  a.example \t\r\n#b\n b # not a comment\n$includes x\n  # c";
        let (_dir, flat) = folder(&[("rcpthosts", text)]);
        assert_eq!(
            *flat.lines("rcpthosts").unwrap(),
            ["a.example", "b # not a comment", "$includes x"]
        );
        assert!(flat.lines("nothing").unwrap().is_empty());
        assert!(FlatFiles::new(None).lines("rcpthosts").unwrap().is_empty());
    }

    #[test]
    fn includes_stand_where_they_are_named() {
        let (_dir, flat) = folder(&[
            ("top", "1\n$include more/a\n3\n $include many \n6"),
            ("more/a", "2\n"),
            ("many/y", "5\n"),
            ("many/x", "4"),
            ("many/.hidden", "no"),
            ("many/deeper/z", "no"),
        ]);
        assert_eq!(*flat.lines("top").unwrap(), ["1", "2", "3", "4", "5", "6"]);
        assert_eq!(*flat.lines("more/a").unwrap(), ["2"]);
    }

    #[test]
    fn a_loop_ends_and_the_rest_holds() {
        let (_dir, flat) = folder(&[
            ("a", "1\n$include b\n4"),
            ("b", "2\n$include a\n$include missing\n3"),
        ]);
        assert_eq!(*flat.lines("a").unwrap(), ["1", "2", "3", "4"]);
        let cache = flat.cache.lock().unwrap();
        assert_eq!(cache["a"].reading.troubles.len(), 2);
    }

    #[test]
    fn what_is_there_and_cannot_be_read_is_an_error() {
        let (dir, flat) = folder(&[("list", "a\n$include inc")]);
        // Not even root can read a link to itself.
        std::os::unix::fs::symlink("inc", dir.path().join("inc")).unwrap();
        let error = flat.lines("list").unwrap_err();
        assert!(error.contains("/inc: "), "{error}");
        std::fs::remove_file(dir.path().join("inc")).unwrap();
        assert_eq!(*flat.lines("list").unwrap(), ["a"]);
    }

    #[test]
    fn no_name_leads_out_of_the_folder() {
        let (dir, flat) = folder(&[("sub/x", "1")]);
        let absolute = dir.path().join("sub/x");
        for name in [
            "",
            "..",
            "../sub/x",
            "sub/../sub/x",
            "/etc/passwd",
            "./sub/x",
            "sub//x",
            "sub/x/",
        ] {
            assert!(flat.lines(name).unwrap().is_empty(), "{name}");
        }
        assert!(flat.lines(absolute.to_str().unwrap()).unwrap().is_empty());
        assert!(flat.lines("sub").unwrap().is_empty(), "a folder is no file");
    }

    #[test]
    fn a_change_holds_from_the_next_call_on() {
        let (dir, flat) = folder(&[("list", "a\n$include inc"), ("inc", "b")]);
        assert_eq!(*flat.lines("list").unwrap(), ["a", "b"]);
        // The same size, within the same tick of the clock.
        std::fs::write(dir.path().join("inc"), "c").unwrap();
        assert_eq!(*flat.lines("list").unwrap(), ["a", "c"]);
        std::fs::remove_file(dir.path().join("list")).unwrap();
        assert!(flat.lines("list").unwrap().is_empty());
        std::fs::write(dir.path().join("list"), "d").unwrap();
        assert_eq!(*flat.lines("list").unwrap(), ["d"]);
    }

    #[test]
    fn what_has_settled_is_read_once() {
        let (_dir, flat) = folder(&[("list", "a")]);
        let first = flat.lines("list").unwrap();
        assert!(!flat.cache.lock().unwrap()["list"].reading.settled);
        flat.cache
            .lock()
            .unwrap()
            .get_mut("list")
            .unwrap()
            .reading
            .settled = true;
        assert!(Arc::ptr_eq(&first, &flat.lines("list").unwrap()));
    }
}
