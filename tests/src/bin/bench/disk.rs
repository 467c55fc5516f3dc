//! The plain way to keep a message: write a file, sync it, put it in its place, sync the folder.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// Where messages are kept.
pub struct Folder {
    dir: PathBuf,
    new: File,
    count: AtomicU64,
}

impl Folder {
    /// Makes one at a path.
    pub fn make(dir: &Path) -> io::Result<Folder> {
        for folder in ["tmp", "new"] {
            std::fs::create_dir_all(dir.join(folder))?;
        }
        Ok(Folder {
            dir: dir.to_owned(),
            new: File::open(dir.join("new"))?,
            count: AtomicU64::new(0),
        })
    }

    /// Returns when the message is on disk.
    pub fn keep(&self, message: &[u8]) -> io::Result<()> {
        let name = self.count.fetch_add(1, Ordering::Relaxed).to_string();
        let part = self.dir.join("tmp").join(&name);
        let mut file = File::create(&part)?;
        file.write_all(message)?;
        file.sync_all()?;
        drop(file);
        std::fs::rename(part, self.dir.join("new").join(name))?;
        self.new.sync_all()
    }

    /// Removes what was kept.
    pub fn empty(&self) -> io::Result<()> {
        for entry in std::fs::read_dir(self.dir.join("new"))? {
            std::fs::remove_file(entry?.path())?;
        }
        Ok(())
    }
}

/// Keeps messages of 2 KB, so many writers at once; returns messages per second.
pub fn write_and_sync(folder: &Folder, writers: usize, messages: usize) -> io::Result<f64> {
    let message = [b'x'; 2048];
    let each = messages / writers;
    let started = Instant::now();
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..writers)
            .map(|_| scope.spawn(|| (0..each).try_for_each(|_| folder.keep(&message))))
            .collect();
        threads
            .into_iter()
            .try_for_each(|thread| thread.join().expect("a writer does not panic"))
    })?;
    Ok((each * writers) as f64 / started.elapsed().as_secs_f64())
}
