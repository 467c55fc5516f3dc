//! The outbox on disk: for each message a file with its bytes, `ID.msg`, and one with its envelope, `ID.json`.
//!
//! A message is there when its envelope is. It gets there in this order, each step on disk before the next: the bytes, the envelope under a temporary name, `ID.tmp`, the envelope's
//! own name, the folder. It goes in the other. Whatever a kill or a power failure leaves in between is a file without an envelope, which the next start removes.
//!
//! Whoever writes, delivers or changes a message holds the lock of its bytes (flock(2)). So two daemons can share the folder while one takes over from the other, and the
//! command line can work on it at any time.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use gatepost_protocol::{BoxFuture, Message};
use tokio::task::spawn_blocking;

use super::envelope::Envelope;

/// Names a message in the outbox: 16 hexadecimal digits that nobody can guess.
pub type Id = Arc<str>;

const BYTES: &str = "msg";
const ENVELOPE: &str = "json";
const TEMPORARY: &str = "tmp";
/// A file that the command line makes, to say that it changed something.
const CHANGED: &str = "changed";
/// Digits of an id.
const DIGITS: usize = 16;

/// The folder.
#[derive(Clone, Debug)]
pub struct Folder {
    dir: PathBuf,
}

/// A message that is being written. Gone when dropped, unless it was committed.
pub struct Draft {
    id: Id,
    dir: PathBuf,
    file: File,
    size: u64,
    is_committed: bool,
}

/// A message that nobody else can touch for now.
pub struct Claim {
    /// Its name.
    pub id: Id,
    /// What is known of it.
    pub envelope: Envelope,
    file: Arc<File>,
}

/// What came of asking for a message.
pub enum Claimed {
    /// Here it is.
    Ours(Box<Claim>),
    /// Somebody else delivers or changes it.
    Busy,
    /// It is not there any more.
    Gone,
}

/// What was found in the folder.
pub struct Found {
    /// Its name.
    pub id: Id,
    /// What its file says; or what is wrong with it.
    pub envelope: io::Result<Envelope>,
}

impl Folder {
    /// The folder below the spool; nothing is made before there is something to be kept.
    pub fn below(spool_dir: &Path) -> Folder {
        Folder {
            dir: spool_dir.join("outbox"),
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.dir
    }

    /// Where a message's bytes are.
    pub fn bytes_of(&self, id: &str) -> PathBuf {
        self.at(id, BYTES)
    }

    fn at(&self, id: &str, extension: &str) -> PathBuf {
        self.dir.join(format!("{id}.{extension}"))
    }

    /// All messages, in no order. Blocks.
    pub fn list(&self) -> io::Result<Vec<Found>> {
        let mut found = Vec::new();
        for (id, extension) in self.names()? {
            if extension != ENVELOPE {
                continue;
            }
            match self.read(&id) {
                // Delivered in this moment.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                envelope => found.push(Found { id, envelope }),
            }
        }
        Ok(found)
    }

    /// Removes what writers left that did not finish. Blocks.
    pub fn clear(&self) -> io::Result<()> {
        for (id, extension) in self.names()? {
            let is_left = match extension {
                BYTES => !self.at(&id, ENVELOPE).try_exists()?,
                ENVELOPE => !self.at(&id, BYTES).try_exists()?,
                _ => true,
            };
            if !is_left {
                continue;
            }
            // Who holds the lock is still at it. Once it is ours, the envelope may have come.
            let lock = match self.lock(&id) {
                Ok(Some(file)) => Some(file),
                Ok(None) => continue,
                Err(error) if error.kind() == io::ErrorKind::NotFound => None,
                Err(error) => return Err(error),
            };
            if extension != BYTES || !self.at(&id, ENVELOPE).try_exists()? {
                remove(&self.at(&id, extension))?;
            }
            drop(lock);
        }
        Ok(())
    }

    /// The files of messages: id and extension.
    fn names(&self) -> io::Result<Vec<(Id, &'static str)>> {
        let entries = match fs::read_dir(&self.dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut names = Vec::new();
        for entry in entries {
            let name = entry?.file_name();
            let Some((id, extension)) = name.to_str().and_then(|name| name.split_once('.')) else {
                continue;
            };
            let known = [BYTES, ENVELOPE, TEMPORARY];
            let extension = known.into_iter().find(|known| *known == extension);
            if let Some(extension) = extension.filter(|_| is_id(id)) {
                names.push((id.into(), extension));
            }
        }
        Ok(names)
    }

    /// Begins a message. Blocks.
    pub fn draft(&self) -> io::Result<Draft> {
        let open = || {
            let id = new_id()?;
            let mut options = OpenOptions::new();
            options.read(true).write(true).create_new(true).mode(0o640);
            Ok::<_, io::Error>((options.open(self.at(&id, BYTES))?, id))
        };
        let (file, id) = match open() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.make()?;
                open()?
            }
            opened => opened?,
        };
        let draft = Draft {
            id,
            dir: self.dir.clone(),
            file,
            size: 0,
            is_committed: false,
        };
        draft.file.lock()?;
        Ok(draft)
    }

    /// Begins a message with the bytes of one that is claimed. It belongs to whom that one belongs to: the command line may be root's, and the daemon has to read it. Blocks.
    pub fn copy(&self, claim: &Claim) -> io::Result<Draft> {
        let mut draft = self.draft()?;
        give(&draft.file, &claim.file)?;
        draft.size = io::copy(&mut File::open(self.at(&claim.id, BYTES))?, &mut draft.file)?;
        Ok(draft)
    }

    fn make(&self) -> io::Result<()> {
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(0o750).create(&self.dir)?;
        match self.dir.parent() {
            Some(spool) => sync(spool),
            None => Ok(()),
        }
    }

    /// Makes messages durable, all of them or none. Blocks.
    pub fn commit(&self, drafts: Vec<(Draft, Envelope)>) -> io::Result<Vec<Id>> {
        for (draft, envelope) in &drafts {
            draft.file.sync_all()?;
            self.write_temporary(&draft.id, envelope, &draft.file)?;
        }
        let mut named = Vec::with_capacity(drafts.len());
        let committed = self.name_all(&drafts, &mut named);
        if let Err(error) = committed {
            for id in named {
                remove(&self.at(&id, ENVELOPE))?;
            }
            return Err(error);
        }
        for (draft, _) in drafts {
            draft.stays();
        }
        Ok(named)
    }

    fn name_all(&self, drafts: &[(Draft, Envelope)], named: &mut Vec<Id>) -> io::Result<()> {
        for (draft, _) in drafts {
            // Between its making and its locking a daemon that started may have taken it for a leftover.
            if draft.file.metadata()?.nlink() == 0 {
                return Err(io::Error::other(
                    "the message was removed while it was written",
                ));
            }
            fs::rename(self.at(&draft.id, TEMPORARY), self.at(&draft.id, ENVELOPE))?;
            named.push(draft.id.clone());
        }
        sync(&self.dir)
    }

    /// Takes hold of a message. Blocks for no longer than the disk needs.
    pub fn claim(&self, id: &str) -> io::Result<Claimed> {
        let lock = match self.lock(id) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Claimed::Gone),
            lock => lock?,
        };
        let Some(file) = lock else {
            return Ok(Claimed::Busy);
        };
        match self.read(id) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Claimed::Gone),
            envelope => Ok(Claimed::Ours(Box::new(Claim {
                id: id.into(),
                envelope: envelope?,
                file: Arc::new(file),
            }))),
        }
    }

    /// The locked bytes of a message; `None` where somebody else has the lock.
    fn lock(&self, id: &str) -> io::Result<Option<File>> {
        let file = File::open(self.at(id, BYTES))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(file)),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    /// A message's envelope. Blocks.
    pub fn read(&self, id: &str) -> io::Result<Envelope> {
        let path = self.at(id, ENVELOPE);
        let text = fs::read(&path)?;
        serde_json::from_slice(&text).map_err(|error| {
            io::Error::new(
                io::ErrorKind::InvalidData,
                format!("{}: {error}", path.display()),
            )
        })
    }

    /// Gives a claimed message another envelope, durably. Blocks.
    pub fn update(&self, claim: &Claim, envelope: &Envelope) -> io::Result<()> {
        self.write_temporary(&claim.id, envelope, &claim.file)?;
        fs::rename(self.at(&claim.id, TEMPORARY), self.at(&claim.id, ENVELOPE))?;
        sync(&self.dir)
    }

    /// Writes an envelope beside a message's bytes. It belongs to whom they belong to: the command line may be root's, and the daemon has to read it.
    fn write_temporary(&self, id: &str, envelope: &Envelope, bytes: &File) -> io::Result<()> {
        let path = self.at(id, TEMPORARY);
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o640);
        let written = serde_json::to_vec_pretty(envelope)
            .map_err(io::Error::from)
            .and_then(|text| {
                let mut file = options.open(&path)?;
                give(&file, bytes)?;
                file.write_all(&text)?;
                file.sync_all()
            });
        if written.is_err() {
            remove(&path)?;
        }
        written
    }

    /// Removes a claimed message. Blocks.
    pub fn remove(&self, claim: &Claim) -> io::Result<()> {
        remove(&self.at(&claim.id, ENVELOPE))?;
        remove(&self.at(&claim.id, BYTES))?;
        sync(&self.dir)
    }

    /// Tells the daemon that messages were changed.
    pub fn say_changed(&self) -> io::Result<()> {
        File::create(self.dir.join(CHANGED)).map(drop)
    }

    /// Whether somebody else said so. Blocks.
    pub fn take_changed(&self) -> bool {
        fs::remove_file(self.dir.join(CHANGED)).is_ok()
    }
}

impl Draft {
    /// Appends to the message. Blocks.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        self.size += bytes.len() as u64;
        Ok(())
    }

    /// Bytes so far.
    pub fn size(&self) -> u64 {
        self.size
    }

    fn stays(mut self) {
        self.is_committed = true;
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.is_committed {
            for extension in [TEMPORARY, BYTES] {
                // What cannot be removed now, the next start removes.
                let _ = fs::remove_file(self.dir.join(format!("{}.{extension}", self.id)));
            }
        }
    }
}

impl Claim {
    /// The message itself.
    pub fn message(&self) -> Stored {
        Stored {
            file: Arc::clone(&self.file),
            size: self.envelope.size,
        }
    }
}

/// A message that is read from the outbox.
pub struct Stored {
    file: Arc<File>,
    size: u64,
}

impl Message for Stored {
    fn size(&self) -> u64 {
        self.size
    }

    fn read(&self, offset: u64, length: usize) -> BoxFuture<'_, io::Result<Bytes>> {
        let left = self.size.saturating_sub(offset);
        let length = length.min(usize::try_from(left).unwrap_or(usize::MAX));
        let file = Arc::clone(&self.file);
        Box::pin(blocking(move || {
            let mut bytes = vec![0; length];
            file.read_exact_at(&mut bytes, offset)?;
            Ok(bytes.into())
        }))
    }
}

/// Does what waits for the disk where nobody else waits for it.
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    match spawn_blocking(work).await {
        Ok(done) => done,
        Err(_) => Err(io::Error::other("the reading or writing was cut short")),
    }
}

/// Whether a text can name a message.
pub fn is_id(text: &str) -> bool {
    text.len() == DIGITS
        && text
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn new_id() -> io::Result<Id> {
    Ok(random(DIGITS / 2)?.into())
}

/// So many random bytes, in hexadecimal digits.
pub fn random(bytes: usize) -> io::Result<String> {
    let mut random = vec![0; bytes];
    aws_lc_rs::rand::fill(&mut random)
        .map_err(|_| io::Error::other("the system gives no random bytes"))?;
    Ok(data_encoding::HEXLOWER.encode(&random))
}

/// Removes a file, which may be gone already.
fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Has a file belong to whom another belongs to.
fn give(file: &File, like: &File) -> io::Result<()> {
    let (ours, theirs) = (file.metadata()?, like.metadata()?);
    if (ours.uid(), ours.gid()) != (theirs.uid(), theirs.gid()) {
        fchown(file, Some(theirs.uid()), Some(theirs.gid()))?;
    }
    Ok(())
}

fn sync(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}
