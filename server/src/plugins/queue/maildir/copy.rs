//! A copy of a message in a Maildir, until readers see it.
//!
//! There are two ways to a name in `new`, and both give it to a file only when it is whole on disk:
//!
//! - [`Way::Unnamed`]: the file has no name until it is linked into `new`. That changes the least on disk, leaves nothing behind after a crash, and never
//!   replaces a file that is there. It takes an open descriptor until then, a file system that can do it (`O_TMPFILE`, open(2)), and `/proc`.
//! - [`Way::InTmp`]: the file has a name in `tmp` and is renamed. Every file system can do it.
//!
//! What cannot go the first way goes the second, and so do all copies after it, into all Maildirs: one that cannot is not asked twice, and the second way
//! is right for the others as well.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Seek};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use nix::fcntl::{AT_FDCWD, AtFlags, OFlag};
use nix::unistd::linkat;

use super::folder::{self, FILE_MODE, Names, at};

/// Where the kernel lists this process's open files by their numbers.
const OPEN_FILES: &str = "/proc/self/fd";

/// What a copy is before it has a name in `new`.
#[derive(Clone, Copy, PartialEq)]
pub enum Way {
    /// An open file without a name, where the system can do that.
    Unnamed,
    /// A closed file in `tmp`.
    InTmp,
}

/// Puts copies into Maildirs.
pub struct Maildirs {
    names: Names,
    create: bool,
    can_be_unnamed: AtomicBool,
}

/// A copy that is whole on disk. Where it is dropped instead of published, it is gone.
pub struct Unseen {
    maildir: PathBuf,
    name: String,
    file: Unpublished,
}

enum Unpublished {
    Unnamed(File),
    InTmp(InTmp),
}

/// A file in `tmp`, which is removed unless it was moved.
struct InTmp {
    path: PathBuf,
    moved: bool,
}

impl Drop for InTmp {
    fn drop(&mut self) {
        if !self.moved {
            // What cannot be removed is in `tmp`, where Maildir readers clear up.
            let _ = fs::remove_file(&self.path);
        }
    }
}

impl Maildirs {
    /// `create`: whether missing Maildirs are made.
    pub fn new(hostname: &str, create: bool) -> Maildirs {
        Maildirs {
            names: Names::new(hostname),
            create,
            can_be_unnamed: AtomicBool::new(Path::new(OPEN_FILES).is_dir()),
        }
    }

    /// Writes a copy with `fill`, and syncs it.
    pub fn write(
        &self,
        maildir: &Path,
        way: Way,
        fill: impl FnOnce(&mut File) -> io::Result<()>,
    ) -> Result<Unseen, String> {
        let tmp = maildir.join("tmp");
        let name = self.names.next();
        let open = || self.open(&tmp, &name, way);
        let opened = match open() {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                folder::make(maildir, self.create)?;
                open()
            }
            opened => opened,
        };
        let (mut file, in_tmp) = opened.map_err(at(&tmp, "create a file in"))?;
        fill(&mut file)
            .and_then(|()| file.sync_all())
            .map_err(at(&tmp, "write a file in"))?;
        Ok(Unseen {
            maildir: maildir.to_owned(),
            name,
            file: match in_tmp {
                Some(in_tmp) => Unpublished::InTmp(in_tmp),
                None => Unpublished::Unnamed(file),
            },
        })
    }

    fn open(&self, tmp: &Path, name: &str, way: Way) -> io::Result<(File, Option<InTmp>)> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).mode(FILE_MODE);
        let unnamed = way == Way::Unnamed && self.can_be_unnamed.load(Ordering::Relaxed);
        if unnamed {
            let mut options = options.clone();
            match options.custom_flags(OFlag::O_TMPFILE.bits()).open(tmp) {
                // Systems differ in how they say that they cannot; what is wrong with the folder itself, the other way says as well.
                Err(error) if error.kind() != ErrorKind::NotFound => {}
                opened => return opened.map(|file| (file, None)),
            }
        }
        let path = tmp.join(name);
        let file = options.create_new(true).open(&path)?;
        if unnamed {
            self.can_be_unnamed.store(false, Ordering::Relaxed);
        }
        Ok((file, Some(InTmp { path, moved: false })))
    }

    /// Gives a copy its name in `new`, which it returns. The name is on disk when the folder is synced.
    pub fn publish(&self, copy: Unseen) -> Result<PathBuf, String> {
        let new = copy.maildir.join("new").join(&copy.name);
        match copy.file {
            Unpublished::Unnamed(file) => match link(&file, &new) {
                Ok(()) => Ok(new),
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                    Err(at(&new, "create")(error))
                }
                Err(error) => self.publish_otherwise(&copy.maildir, file, &error),
            },
            Unpublished::InTmp(mut in_tmp) => {
                let rename = || fs::rename(&in_tmp.path, &new);
                let renamed = match rename() {
                    Err(error) if error.kind() == ErrorKind::NotFound => {
                        folder::make(&copy.maildir, self.create)?;
                        rename()
                    }
                    renamed => renamed,
                };
                renamed.map_err(at(&new, "create"))?;
                in_tmp.moved = true;
                Ok(new)
            }
        }
    }

    /// Writes a copy that could not be linked a second time, in `tmp`. Its error tells what is wrong with the Maildir; if there is none, links are.
    fn publish_otherwise(
        &self,
        maildir: &Path,
        mut unnamed: File,
        error: &io::Error,
    ) -> Result<PathBuf, String> {
        let copy = self.write(maildir, Way::InTmp, |file| {
            unnamed.rewind()?;
            io::copy(&mut unnamed, file).map(drop)
        })?;
        let new = self.publish(copy)?;
        // A folder that was missing says nothing about links.
        if error.kind() != ErrorKind::NotFound {
            self.can_be_unnamed.store(false, Ordering::Relaxed);
        }
        Ok(new)
    }
}

/// Names an unnamed file. Through `/proc`, since naming it by its descriptor alone takes a privilege (linkat(2), `AT_EMPTY_PATH`).
fn link(file: &File, new: &Path) -> io::Result<()> {
    let open = format!("{OPEN_FILES}/{}", file.as_raw_fd());
    let follow = AtFlags::AT_SYMLINK_FOLLOW;
    Ok(linkat(AT_FDCWD, open.as_str(), AT_FDCWD, new, follow)?)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_message_that_is_there_is_never_replaced() {
        // In memory, where every Linux can make files without a name.
        let dir = tempfile::tempdir_in("/dev/shm").unwrap();
        let maildirs = Maildirs::new("mx", true);
        let copy = maildirs.write(dir.path(), Way::Unnamed, |file| file.write_all(b"second"));
        let copy = copy.unwrap();
        let there = dir.path().join("new").join(&copy.name);
        fs::write(&there, "first").unwrap();
        let refused = maildirs.publish(copy).unwrap_err();
        assert!(refused.contains("File exists"), "{refused}");
        assert_eq!(fs::read(&there).unwrap(), b"first");
    }
}
