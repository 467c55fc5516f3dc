//! The journal's files: numbered segments, of which the oldest go when there are too many.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

const SUFFIX: &str = ".jsonl";
/// Segments that a full journal has.
const SEGMENTS: u64 = 8;

/// The files of a folder, and the one that is written to.
pub struct Segments {
    dir: PathBuf,
    max_size: u64,
    current: Option<Segment>,
}

struct Segment {
    file: File,
    size: u64,
}

impl Segments {
    /// The segments of a folder, which is made where it is not there. The first write begins a new one: the last of an earlier run may end in the
    /// middle of a line.
    ///
    /// # Errors
    /// The folder cannot be made, read or written to.
    pub fn open(dir: &Path, max_size: u64) -> io::Result<Segments> {
        DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        let mut segments = Segments {
            dir: dir.to_owned(),
            max_size,
            current: None,
        };
        segments.current = Some(segments.begin()?);
        Ok(segments)
    }

    /// Where they are.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Writes whole lines.
    ///
    /// # Errors
    /// Lines are lost.
    pub fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        let mut rest = lines;
        while !rest.is_empty() {
            let mut segment = match self.current.take() {
                Some(segment) => segment,
                None => self.begin()?,
            };
            let room = (self.max_size / SEGMENTS).saturating_sub(segment.size);
            let fitting = whole_lines(rest, room);
            if fitting == 0 && segment.size > 0 {
                continue;
            }
            // A line that is too long for any segment has one to itself.
            let length = match fitting {
                0 => first_line(rest),
                length => length,
            };
            if let Err(error) = segment.file.write_all(&rest[..length]) {
                // What is there of the lines goes, so that the next ones can follow. Where even that fails, they begin a new segment.
                if segment.file.set_len(segment.size).is_ok() {
                    self.current = Some(segment);
                }
                return Err(error);
            }
            segment.size += length as u64;
            rest = &rest[length..];
            self.current = Some(segment);
        }
        Ok(())
    }

    /// A new segment, and room for it.
    fn begin(&self) -> io::Result<Segment> {
        let known = list(&self.dir)?;
        let most = self.max_size - self.max_size / SEGMENTS;
        let mut total: u64 = known.iter().map(|segment| segment.size).sum();
        for old in &known {
            if total <= most {
                break;
            }
            match fs::remove_file(&old.path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => total -= old.size,
            }
        }
        let mut number = known.last().map_or(1, |last| last.number + 1);
        loop {
            let path = self.dir.join(format!("{number:010}{SUFFIX}"));
            let opened = OpenOptions::new()
                .append(true)
                .create_new(true)
                .mode(0o600)
                .open(path);
            match opened {
                Ok(file) => return Ok(Segment { file, size: 0 }),
                // Another daemon has the folder too.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => number += 1,
                Err(error) => return Err(error),
            }
        }
    }
}

/// A segment in a folder.
pub struct Known {
    number: u64,
    pub path: PathBuf,
    size: u64,
}

/// The segments in a folder, the oldest first. Other files are nobody's business.
///
/// # Errors
/// The folder cannot be read.
pub fn list(dir: &Path) -> io::Result<Vec<Known>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let number = name.to_str().and_then(|name| name.strip_suffix(SUFFIX));
        let Some(number) = number.and_then(|number| number.parse().ok()) else {
            continue;
        };
        match entry.metadata() {
            Ok(metadata) => found.push(Known {
                number,
                path: entry.path(),
                size: metadata.len(),
            }),
            // Another daemon removed it just now.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    found.sort_by_key(|known| known.number);
    Ok(found)
}

/// Bytes of the whole lines at the beginning that fit into so much room.
fn whole_lines(lines: &[u8], room: u64) -> usize {
    let room = usize::try_from(room).map_or(lines.len(), |room| room.min(lines.len()));
    memchr::memrchr(b'\n', &lines[..room]).map_or(0, |end| end + 1)
}

fn first_line(lines: &[u8]) -> usize {
    memchr::memchr(b'\n', lines).map_or(lines.len(), |end| end + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(dir: &Path) -> (u64, Vec<String>) {
        let known = list(dir).unwrap();
        let size = known.iter().map(|known| known.size).sum();
        let text = known
            .iter()
            .map(|known| fs::read_to_string(&known.path).unwrap());
        let lines = text.collect::<String>();
        (size, lines.lines().map(str::to_owned).collect())
    }

    #[test]
    fn the_newest_stay_and_the_folder_never_grows_beyond_its_size() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("journal");
        let mut segments = Segments::open(&dir, 8000).unwrap();
        for number in 0..1000 {
            segments
                .write(format!("{number:099}\n").as_bytes())
                .unwrap();
            assert!(all(&dir).0 <= 8000);
        }
        let (size, lines) = all(&dir);
        assert!(size > 6000, "{size}");
        let numbers: Vec<u32> = lines.iter().map(|line| line.parse().unwrap()).collect();
        let first = 1000 - u32::try_from(numbers.len()).unwrap();
        assert_eq!(numbers, (first..1000).collect::<Vec<_>>());
    }

    #[test]
    fn a_later_run_goes_on_behind_an_earlier_one_that_broke_off() {
        let dir = tempfile::tempdir().unwrap();
        let mut first = Segments::open(dir.path(), 8000).unwrap();
        first.write(b"one\n").unwrap();
        let broken = &list(dir.path()).unwrap()[0].path;
        fs::write(broken, "one\ntw").unwrap();
        let mut second = Segments::open(dir.path(), 8000).unwrap();
        second.write(b"three\nfour\n").unwrap();
        assert_eq!(list(dir.path()).unwrap().len(), 2);
        let last = list(dir.path()).unwrap().pop().unwrap();
        assert_eq!(fs::read_to_string(last.path).unwrap(), "three\nfour\n");
    }

    #[test]
    fn lines_are_whole_in_a_segment_and_nobody_elses_to_read() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("journal");
        let mut segments = Segments::open(&dir, 80).unwrap();
        segments
            .write(b"1234567\n12345678901234567890\n123\n456\n7890\n")
            .unwrap();
        for known in list(&dir).unwrap() {
            assert!(fs::read(&known.path).unwrap().ends_with(b"\n"));
            let mode = fs::metadata(&known.path).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
        let mode = fs::metadata(&dir).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        assert_eq!(all(&dir).1.len(), 5);
    }
}
