//! A message that came in whole, to be read by whoever takes part in its fate.

use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use gatepost_protocol::{BoxFuture, Message};
use tokio::task::spawn_blocking;

use super::intake;
use super::spool::{Spool, SpoolFile};

/// A message exactly as it came over the wire, the transparency of dots undone. What is on disk is removed when this is dropped.
#[derive(Debug)]
pub struct Spooled {
    spool: Arc<Spool>,
    size: u64,
    /// All of it, where it is in memory.
    blocks: Vec<Bytes>,
    /// All of it, where it is on disk.
    file: Option<Arc<SpoolFile>>,
}

impl Spooled {
    pub(super) fn new(
        spool: Arc<Spool>,
        size: u64,
        blocks: Vec<Bytes>,
        file: Option<SpoolFile>,
    ) -> Spooled {
        Spooled {
            spool,
            size,
            blocks,
            file: file.map(Arc::new),
        }
    }

    /// The message as a file. Writes it, where it is only in memory.
    pub async fn path(&mut self) -> io::Result<PathBuf> {
        if let Some(file) = &self.file {
            return Ok(file.path().to_owned());
        }
        let (spool, blocks) = (Arc::clone(&self.spool), self.blocks.clone());
        let file =
            run(move || intake::write(&spool, None, blocks.iter().map(Bytes::as_ref))).await?;
        let path = file.path().to_owned();
        self.file = Some(Arc::new(file));
        Ok(path)
    }

    /// From memory. A range within one block is not copied.
    fn slice(&self, mut offset: usize, length: usize) -> Bytes {
        let mut parts = Vec::new();
        let mut missing = length;
        for block in &self.blocks {
            if offset < block.len() && missing > 0 {
                let part = block.slice(offset..block.len().min(offset.saturating_add(missing)));
                missing -= part.len();
                parts.push(part);
            }
            offset = offset.saturating_sub(block.len());
        }
        match parts.len() {
            0 => Bytes::new(),
            1 => parts.swap_remove(0),
            _ => {
                let mut whole = BytesMut::with_capacity(length - missing);
                parts.iter().for_each(|part| whole.extend_from_slice(part));
                whole.freeze()
            }
        }
    }
}

impl Message for Spooled {
    fn size(&self) -> u64 {
        self.size
    }

    fn read(&self, offset: u64, length: usize) -> BoxFuture<'_, io::Result<Bytes>> {
        let left = self.size.saturating_sub(offset);
        let length = length.min(usize::try_from(left).unwrap_or(usize::MAX));
        match &self.file {
            Some(file) if self.blocks.is_empty() && length > 0 => {
                let file = Arc::clone(file);
                Box::pin(run(move || {
                    let mut bytes = vec![0; length];
                    file.file.read_exact_at(&mut bytes, offset)?;
                    Ok(bytes.into())
                }))
            }
            // Within the size, and in memory: it fits a usize.
            _ => Box::pin(std::future::ready(Ok(self.slice(offset as usize, length)))),
        }
    }
}

async fn run<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    match spawn_blocking(work).await {
        Ok(done) => done,
        Err(_) => Err(io::Error::other("the reading or writing was cut short")),
    }
}
