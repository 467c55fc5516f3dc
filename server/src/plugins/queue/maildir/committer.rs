//! Writes deliveries to disk, several at a time, and shares between them what can be shared.
//!
//! The order of system calls for a copy, which makes `ok` true whenever the power fails:
//!
//! 1. `open(tmp, O_TMPFILE)`, `writev` (a small message in one go), `fsync` of the file. The file is whole on disk before it has a name.
//! 2. `linkat(/proc/self/fd/N, new/NAME)`, `close`, for all copies of the message after all of them are written.
//! 3. `open(new)`, `fsync` of the folder, `close`. The name is on disk.
//! 4. The answer.
//!
//! Where the system cannot do that (`copy.rs`), and for a message with many copies, which would hold as many descriptors, the file has a name that no
//! reader looks at: step 1 is `open(tmp/NAME, O_CREAT|O_EXCL)`, `writev`, `fsync`, `close`, and step 2 is `rename(tmp/NAME, new/NAME)`. A file that turns
//! out at step 2 not to be linkable goes through both of these steps then, and is synced a second time.
//!
//! Step 1 runs on several threads, since file systems with a journal write one transaction for all files that are synced at the same time. Steps 2
//! and 3 are a group commit: one thread takes all messages that are written, names their files, and syncs each folder once. A group waits for the small
//! messages that were being written when its first member was done, since they share that member's journal transaction and are done in a moment; what
//! is begun later is for the next group. So a busy server does more for each sync, an idle one waits for nobody, and nobody waits for a large message.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs::{self, File};
use std::io::{self, IoSlice, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use super::copy::{Maildirs, Unseen, Way};
use super::folder;

/// Files that are written and synced at the same time. More gain nothing on a disk, and each may hold a thread of the runtime's blocking pool.
const WRITERS: usize = 32;

/// The most copies of a message that are held open until all of them are written, so that the number of sessions bounds that of descriptors.
const MOST_UNNAMED: usize = 4;

/// Where a copy's bytes come from.
pub enum Source {
    /// All of them.
    Whole(Vec<Bytes>),
    /// Block after block, then `None`; a channel that closes without it has lost the rest.
    Stream(mpsc::Receiver<Option<Bytes>>),
}

/// The name of the first copy, or why there is no copy at all.
type Done = Result<String, String>;

/// A message on its way into one or more Maildirs.
pub struct Delivery {
    way: Way,
    progress: Mutex<Progress>,
}

impl Delivery {
    /// Gives the delivery up, unless its copies are being named already. Whether nothing of it will be seen.
    pub fn give_up(&self) -> bool {
        lock(&self.progress).answer.take().is_some()
    }
}

struct Progress {
    waiting: usize,
    /// What is dropped with them is gone: where the session went away before its last copy was given.
    written: Vec<Unseen>,
    failed: Option<String>,
    answer: Option<oneshot::Sender<Done>>,
}

struct Job {
    delivery: Arc<Delivery>,
    maildir: PathBuf,
    source: Source,
}

#[derive(Default)]
struct Queues {
    jobs: VecDeque<Job>,
    writers: usize,
    /// The number of the next small message to be written, and of those that are being written now.
    next: u64,
    writing: BTreeSet<u64>,
    written: Vec<Arc<Delivery>>,
    /// The group waits for what has a number below this.
    waits_below: u64,
    committing: bool,
}

impl Queues {
    fn begin(&mut self, source: &Source) -> Option<u64> {
        let Source::Whole(_) = source else {
            return None;
        };
        self.next += 1;
        self.writing.insert(self.next - 1);
        Some(self.next - 1)
    }

    fn join(&mut self, delivery: Arc<Delivery>) {
        if self.written.is_empty() {
            self.waits_below = self.next;
        }
        self.written.push(delivery);
    }

    /// The group, when it is complete.
    fn group(&mut self) -> Option<Vec<Arc<Delivery>>> {
        let first = self.writing.first();
        let complete = first.is_none_or(|first| *first >= self.waits_below);
        (complete && !self.written.is_empty()).then(|| std::mem::take(&mut self.written))
    }
}

/// Takes deliveries from many sessions.
pub struct Committer(Arc<Shared>);

struct Shared {
    maildirs: Maildirs,
    queues: Mutex<Queues>,
}

/// What a panic left behind is still consistent: every change under these locks is one step.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Committer {
    /// `create`: whether missing Maildirs are made.
    pub fn new(hostname: &str, create: bool) -> Committer {
        Committer(Arc::new(Shared {
            maildirs: Maildirs::new(hostname, create),
            queues: Mutex::default(),
        }))
    }

    /// A delivery of so many copies, each of which is to be given to [`Committer::write`]. Where the receiver is dropped, or a copy never comes,
    /// nothing is delivered.
    pub fn begin(&self, copies: usize) -> (Arc<Delivery>, oneshot::Receiver<Done>) {
        let (answer, done) = oneshot::channel();
        let progress = Progress {
            waiting: copies,
            written: Vec::with_capacity(copies),
            failed: None,
            answer: Some(answer),
        };
        let delivery = Delivery {
            way: if copies <= MOST_UNNAMED {
                Way::Unnamed
            } else {
                Way::InTmp
            },
            progress: Mutex::new(progress),
        };
        (Arc::new(delivery), done)
    }

    /// Writes a copy when its turn comes.
    pub fn write(&self, delivery: &Arc<Delivery>, maildir: &str, source: Source) {
        let mut queues = lock(&self.0.queues);
        queues.jobs.push_back(Job {
            delivery: Arc::clone(delivery),
            maildir: PathBuf::from(maildir),
            source,
        });
        if queues.writers < WRITERS {
            queues.writers += 1;
            drop(queues);
            let shared = Arc::clone(&self.0);
            tokio::task::spawn_blocking(move || shared.run());
        }
    }
}

impl Shared {
    /// A writer: works while there is work.
    fn run(&self) {
        loop {
            let mut queues = lock(&self.queues);
            let Some(job) = queues.jobs.pop_front() else {
                queues.writers -= 1;
                return;
            };
            let number = queues.begin(&job.source);
            drop(queues);
            let delivery = Arc::clone(&job.delivery);
            let written = self.write(job, delivery.way);
            let mut progress = lock(&delivery.progress);
            progress.waiting -= 1;
            match written {
                Ok(copy) => progress.written.push(copy),
                Err(reason) => progress.failed = progress.failed.take().or(Some(reason)),
            }
            let complete = progress.waiting == 0;
            drop(progress);
            let mut queues = lock(&self.queues);
            if let Some(number) = number {
                queues.writing.remove(&number);
            }
            if complete {
                queues.join(delivery);
            }
            self.commit(queues);
        }
    }

    fn write(&self, job: Job, way: Way) -> Result<Unseen, String> {
        self.maildirs
            .write(&job.maildir, way, |file| match job.source {
                Source::Whole(parts) => write_all(file, &parts),
                Source::Stream(blocks) => write_stream(file, blocks),
            })
    }

    /// Commits the group if it is complete, unless another thread is at it. Whoever makes a later group complete comes here as well.
    fn commit<'a>(&'a self, mut queues: MutexGuard<'a, Queues>) {
        if queues.committing {
            return;
        }
        queues.committing = true;
        while let Some(group) = queues.group() {
            drop(queues);
            self.commit_group(group);
            queues = lock(&self.queues);
        }
        queues.committing = false;
    }

    fn commit_group(&self, group: Vec<Arc<Delivery>>) {
        let mut visible = Vec::with_capacity(group.len());
        let mut folders = BTreeSet::new();
        for delivery in group {
            let mut progress = lock(&delivery.progress);
            // Given up; or the files of a group are named one after another, and this is the last moment for it.
            let Some(answer) = progress.answer.take() else {
                continue;
            };
            let copies = std::mem::take(&mut progress.written);
            let failed = progress.failed.take();
            drop(progress);
            // Nobody waits any more: the client was told to try again, or is gone, and would get the message twice.
            let given_up = answer.is_closed().then(|| "nobody waits for it".to_owned());
            match self.publish(copies, failed.or(given_up)) {
                Ok(files) => {
                    folders.extend(
                        files
                            .iter()
                            .filter_map(|file| file.parent())
                            .map(Path::to_owned),
                    );
                    visible.push((files, answer));
                }
                Err(reason) => drop(answer.send(Err(reason))),
            }
        }
        let unsynced: BTreeMap<PathBuf, String> = folders
            .into_iter()
            .filter_map(|path| folder::sync(&path).err().map(|reason| (path, reason)))
            .collect();
        for (files, answer) in visible {
            let failed = files.iter().find_map(|file| unsynced.get(file.parent()?));
            let done = match failed {
                None => Ok(name_of(&files)),
                Some(reason) => {
                    remove(&files);
                    Err(reason.clone())
                }
            };
            let _ = answer.send(done);
        }
    }

    /// Gives all copies of a message names that readers see, or none.
    fn publish(&self, copies: Vec<Unseen>, failed: Option<String>) -> Result<Vec<PathBuf>, String> {
        if let Some(reason) = failed {
            return Err(reason);
        }
        let mut files = Vec::with_capacity(copies.len());
        for copy in copies {
            match self.maildirs.publish(copy) {
                Ok(file) => files.push(file),
                Err(reason) => {
                    remove(&files);
                    return Err(reason);
                }
            }
        }
        Ok(files)
    }
}

/// Takes back what was made visible. What cannot be removed will be delivered twice.
fn remove(files: &[PathBuf]) {
    for file in files {
        let _ = fs::remove_file(file);
    }
}

fn name_of(files: &[PathBuf]) -> String {
    let name = files.first().and_then(|file| file.file_name());
    name.unwrap_or_default().to_string_lossy().into_owned()
}

fn write_all(file: &mut File, parts: &[Bytes]) -> io::Result<()> {
    let mut slices: Vec<IoSlice<'_>> = parts.iter().map(|part| IoSlice::new(part)).collect();
    let mut left = slices.as_mut_slice();
    // Drops empty parts in front, for which no write is needed.
    IoSlice::advance_slices(&mut left, 0);
    while !left.is_empty() {
        match file.write_vectored(left) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => IoSlice::advance_slices(&mut left, written),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn write_stream(file: &mut File, mut blocks: mpsc::Receiver<Option<Bytes>>) -> io::Result<()> {
    loop {
        match blocks.blocking_recv() {
            Some(Some(block)) => file.write_all(&block)?,
            Some(None) => return Ok(()),
            None => {
                let reason = "the rest of the message did not come";
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, reason));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn whole() -> Source {
        Source::Whole(Vec::new())
    }

    #[test]
    fn a_group_waits_for_what_was_being_written_and_for_nothing_later_or_large() {
        let delivery = || Committer::new("mx", true).begin(1).0;
        let mut queues = Queues::default();
        let (first, second) = (
            queues.begin(&whole()).unwrap(),
            queues.begin(&whole()).unwrap(),
        );
        let (_large, large) = mpsc::channel(1);
        assert_eq!(queues.begin(&Source::Stream(large)), None);
        queues.writing.remove(&second);
        queues.join(delivery());
        let later = queues.begin(&whole()).unwrap();
        assert!(queues.group().is_none(), "the first is being written");
        queues.writing.remove(&first);
        queues.join(delivery());
        assert_eq!(queues.group().map(|group| group.len()), Some(2));
        assert!(queues.group().is_none(), "nothing is written");
        queues.writing.remove(&later);
        queues.join(delivery());
        assert_eq!(queues.group().map(|group| group.len()), Some(1));
    }

    /// Waits for what a writer does a moment later.
    async fn until(reached: impl Fn() -> bool) {
        let deadline = std::time::Instant::now() + Duration::from_secs(10);
        while !reached() {
            assert!(std::time::Instant::now() < deadline, "it never comes");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    #[tokio::test]
    async fn only_a_few_copies_of_a_message_are_held_open() {
        // In memory, where every Linux can make files without a name.
        let dir = tempfile::tempdir_in("/dev/shm").unwrap();
        let in_tmp = || fs::read_dir(dir.path().join("tmp")).unwrap().count();
        let committer = Committer::new("mx", true);
        for (copies, named) in [(MOST_UNNAMED, 0), (MOST_UNNAMED + 1, MOST_UNNAMED)] {
            let (delivery, _done) = committer.begin(copies);
            for _ in 1..copies {
                committer.write(&delivery, dir.path().to_str().unwrap(), whole());
            }
            until(|| lock(&delivery.progress).waiting == 1).await;
            assert_eq!(in_tmp(), named, "{copies} copies, one of which never comes");
            drop(delivery);
            until(|| in_tmp() == 0).await;
        }
    }
}
