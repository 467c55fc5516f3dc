//! The plain way to keep a message: write a file, sync it, put it in its place, sync the folder.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::time::Instant;

/// Keeps messages of 2 KB, so many writers at once; returns messages per second.
pub fn write_and_sync(dir: &Path, writers: usize, messages: usize) -> io::Result<f64> {
    for folder in ["tmp", "new"] {
        std::fs::create_dir_all(dir.join(folder))?;
    }
    let each = messages / writers;
    let started = Instant::now();
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..writers)
            .map(|writer| scope.spawn(move || keep(dir, writer, each)))
            .collect();
        threads
            .into_iter()
            .try_for_each(|thread| thread.join().expect("a writer does not panic"))
    })?;
    let rate = (each * writers) as f64 / started.elapsed().as_secs_f64();
    std::fs::remove_dir_all(dir)?;
    Ok(rate)
}

fn keep(dir: &Path, writer: usize, messages: usize) -> io::Result<()> {
    let message = [b'x'; 2048];
    let folder = File::open(dir.join("new"))?;
    for number in 0..messages {
        let name = format!("{writer}.{number}");
        let part = dir.join("tmp").join(&name);
        let mut file = File::create(&part)?;
        file.write_all(&message)?;
        file.sync_all()?;
        std::fs::rename(part, dir.join("new").join(name))?;
        folder.sync_all()?;
    }
    Ok(())
}
