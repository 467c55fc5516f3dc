//! A Maildir on disk: its folders, and names that are unique in it.

use std::fs::{DirBuilder, File, OpenOptions};
use std::hash::{BuildHasher, Hasher};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// Only the mailbox's owner reads mail.
pub const FILE_MODE: u32 = 0o600;
const FOLDER_MODE: u32 = 0o700;

/// Makes names after the Maildir convention, `time.MmicrosecondsPpidQcountRrandom.host`.
///
/// A name is unique by its count within a process, and by time, process and the random number drawn at the start across processes, machines and
/// containers that share a folder and, maybe, a host name. So a rename into `new` cannot replace another message.
pub struct Names {
    host: String,
    start: u32,
    count: AtomicU64,
}

impl Names {
    pub fn new(hostname: &str) -> Names {
        let random = std::collections::hash_map::RandomState::new()
            .build_hasher()
            .finish();
        Names {
            // The convention's escapes for what cannot stand in a file's name, or begins its flags.
            host: hostname.replace('/', "\\057").replace(':', "\\072"),
            start: random as u32,
            count: AtomicU64::new(0),
        }
    }

    pub fn next(&self) -> String {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        format!(
            "{}.M{}P{}Q{}R{:x}.{}",
            now.as_secs(),
            now.subsec_micros(),
            std::process::id(),
            self.count.fetch_add(1, Ordering::Relaxed),
            self.start,
            self.host
        )
    }
}

/// An error with the path it is about.
pub fn at(path: &Path, what: &str) -> impl Fn(io::Error) -> String {
    let text = format!("cannot {what} {}", path.display());
    move |error| format!("{text}: {error}")
}

/// Makes what a folder's entries say durable.
pub fn sync(folder: &Path) -> Result<(), String> {
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(at(folder, "sync"))
}

/// Makes a Maildir, and the folders above it, on disk for good.
///
/// `tmp` comes last, after everything else is synced: another delivery that finds it may count on the rest.
pub fn make(maildir: &Path, create: bool) -> Result<(), String> {
    if !create {
        return Err(format!(
            "{} is missing or no Maildir (tmp, new, cur): make it, or set create = true",
            maildir.display()
        ));
    }
    let mut builder = DirBuilder::new();
    builder.recursive(true).mode(FOLDER_MODE);
    // The nearest folder that is there, whose new entry needs a sync as well.
    let above: Vec<&Path> = maildir.ancestors().skip(1).collect();
    let there = above.iter().take_while(|folder| !is_folder(folder)).count();
    for folder in ["cur", "new"].map(|name| maildir.join(name)) {
        builder.create(&folder).map_err(at(&folder, "create"))?;
    }
    let name = maildir.file_name().unwrap_or_default();
    if name.as_encoded_bytes().starts_with(b".") {
        // Maildir++: what makes a folder a subfolder of the mailbox for those who count its quota.
        let marker = maildir.join("maildirfolder");
        OpenOptions::new()
            .append(true)
            .create(true)
            .mode(FILE_MODE)
            .open(&marker)
            .map_err(at(&marker, "create"))?;
    }
    sync(maildir)?;
    for folder in above.into_iter().take(there + 1) {
        sync(or_here(folder))?;
    }
    let tmp = maildir.join("tmp");
    builder.create(&tmp).map_err(at(&tmp, "create"))?;
    sync(maildir)
}

fn is_folder(path: &Path) -> bool {
    or_here(path).is_dir()
}

/// A relative path's last ancestor is empty, and means the working folder.
fn or_here(path: &Path) -> &Path {
    if path.as_os_str().is_empty() {
        Path::new(".")
    } else {
        path
    }
}
