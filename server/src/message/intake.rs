//! A message on its way in: read into blocks, kept in memory or written to the spool folder, block by block.

use std::io::{self, Write};
use std::sync::Arc;

use bytes::Bytes;
use tokio::task::spawn_blocking;

use super::block::{self, Block};
use super::data::Scan;
use super::spool::{Spool, SpoolFile};
use super::spooled::Spooled;

/// A message that comes in. Dropped before [`Intake::finish`], nothing of it is left.
#[derive(Debug)]
pub struct Intake {
    spool: Arc<Spool>,
    /// The block that is being filled; absent only while the disk has it.
    block: Option<Block>,
    /// Bytes at its front that are message.
    kept: usize,
    /// How many of these the last scan brought.
    fresh: usize,
    /// Bytes behind these that the last scan left unused.
    unused: usize,
    /// Full blocks.
    blocks: Vec<Bytes>,
    file: Option<SpoolFile>,
    size: u64,
    /// It would be kept in memory, had other messages not taken that up.
    lacked_memory: bool,
    store: Store,
}

/// Whether a message is kept.
#[derive(Debug)]
enum Store {
    Keep,
    /// It is read, and thrown away.
    Discard,
    /// It could not be kept, and the rest of it is thrown away.
    Failed(io::Error),
}

impl Intake {
    pub(super) fn new(spool: Arc<Spool>) -> Intake {
        let block = spool.memory.charged(block::FIRST);
        let lacked_memory = block.is_none() && spool.memory_per_message() > 0;
        let block = block.unwrap_or_else(|| spool.memory.uncharged(block::FIRST));
        Intake {
            spool,
            block: Some(block),
            kept: 0,
            fresh: 0,
            unused: 0,
            blocks: Vec::new(),
            file: None,
            size: 0,
            lacked_memory,
            store: Store::Keep,
        }
    }

    /// Room to read into; never empty.
    pub async fn room(&mut self) -> &mut [u8] {
        if self.kept + self.unused == self.block().len() {
            self.advance().await;
        }
        let from = self.kept + self.unused;
        &mut self.bytes()[from..]
    }

    /// Takes what was read into the room: `scan` is given it, behind what the last scan left unused.
    pub fn take(&mut self, read: usize, scan: impl FnOnce(&mut [u8]) -> Scan) -> Scan {
        let (start, length) = (self.kept, self.unused + read);
        let unscanned = &mut self.bytes()[start..start + length];
        let scan = scan(unscanned);
        unscanned.copy_within(scan.used.., scan.kept);
        self.fresh = scan.kept;
        self.kept += scan.kept;
        self.size += scan.kept as u64;
        self.unused = length - scan.used;
        scan
    }

    /// Puts other bytes in the place of what the last scan brought; they may be more. Behind the end of data, what follows was given back first.
    pub async fn replace(&mut self, bytes: &[u8]) {
        let mut waiting = [0; 2];
        let waiting = &mut waiting[..self.unused];
        waiting.copy_from_slice(self.unused());
        self.kept -= self.fresh;
        self.size -= self.fresh as u64;
        (self.fresh, self.unused) = (0, 0);
        let mut rest = bytes;
        while !rest.is_empty() {
            if self.kept == self.block().len() {
                self.advance().await;
            }
            let from = self.kept;
            let length = rest.len().min(self.block().len() - from);
            self.bytes()[from..from + length].copy_from_slice(&rest[..length]);
            self.kept += length;
            self.size += length as u64;
            rest = &rest[length..];
        }
        if self.kept + waiting.len() > self.block().len() {
            self.advance().await;
        }
        let from = self.kept;
        self.bytes()[from..from + waiting.len()].copy_from_slice(waiting);
        self.unused = waiting.len();
    }

    /// What the last scan brought of the message.
    pub fn fresh(&self) -> &[u8] {
        &self.block()[self.kept - self.fresh..self.kept]
    }

    /// Gives back what the last scan left: behind the end of data, what belongs to the next command.
    pub fn give_back(&mut self) -> &[u8] {
        let unused = std::mem::take(&mut self.unused);
        &self.block()[self.kept..self.kept + unused]
    }

    /// What the last scan left to the next: two bytes at most, since behind the end of data there is none ([`Intake::give_back`]).
    fn unused(&self) -> &[u8] {
        &self.block()[self.kept..self.kept + self.unused]
    }

    /// Bytes of the message so far.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Whether it goes to disk only since other messages take up the memory that there is for all of them.
    pub fn lacked_memory(&self) -> bool {
        self.lacked_memory
    }

    /// Throws away what came so far, and what is to come.
    pub fn discard(&mut self) {
        self.store = Store::Discard;
        self.blocks = Vec::new();
        self.file = None;
    }

    /// The message is complete. An error says why it could not be kept.
    pub async fn finish(mut self) -> io::Result<Spooled> {
        let fits = self.file.is_none()
            && self.block.as_ref().is_some_and(Block::is_charged)
            && self.size <= self.spool.memory_per_message();
        if !fits && matches!(self.store, Store::Keep) {
            self.spill().await;
        }
        if let Store::Failed(error) = self.store {
            return Err(error);
        }
        if let (true, Some(block)) = (fits, self.block.take()) {
            self.blocks
                .push(Bytes::from_owner(block).slice(..self.kept));
        }
        Ok(Spooled::new(self.spool, self.size, self.blocks, self.file))
    }

    /// The block is full, or as good as: goes on with another one.
    async fn advance(&mut self) {
        let mut waiting = [0; 2];
        let waiting = &mut waiting[..self.unused];
        waiting.copy_from_slice(self.unused());
        if matches!(self.store, Store::Keep) {
            let fits = self.file.is_none()
                && self.block.as_ref().is_some_and(Block::is_charged)
                && self.size < self.spool.memory_per_message();
            let next = fits.then(|| self.spool.memory.charged(block::NEXT));
            self.lacked_memory |= matches!(next, Some(None));
            match next.flatten() {
                Some(next) => {
                    if let Some(full) = self.block.replace(next) {
                        self.blocks.push(Bytes::from_owner(full).slice(..self.kept));
                    }
                }
                None => self.spill().await,
            }
        }
        (self.kept, self.fresh) = (0, 0);
        self.bytes()[..waiting.len()].copy_from_slice(waiting);
    }

    /// Writes all there is to the spool folder.
    async fn spill(&mut self) {
        let (spool, block, kept) = (Arc::clone(&self.spool), self.block.take(), self.kept);
        let (blocks, file) = (std::mem::take(&mut self.blocks), self.file.take());
        let written = spawn_blocking(move || {
            let last = block.as_ref().map(|block| &block.as_ref()[..kept]);
            let parts = blocks.iter().map(Bytes::as_ref).chain(last);
            let written = write(&spool, file, parts);
            (block, written)
        });
        let (block, written) = match written.await {
            Ok(done) => done,
            Err(_) => (None, Err(io::Error::other("the writing was cut short"))),
        };
        match written {
            Ok(file) => self.file = Some(file),
            Err(error) => self.store = Store::Failed(error),
        }
        // Once on disk, a message holds one working block and nothing of the budget.
        let reusable = block.filter(|block| !block.is_charged() && block.len() == block::NEXT);
        self.block = reusable.or_else(|| Some(self.spool.memory.uncharged(block::NEXT)));
    }

    fn block(&self) -> &[u8] {
        self.block.as_ref().map(Block::as_ref).unwrap_or_default()
    }

    fn bytes(&mut self) -> &mut [u8] {
        self.block.as_mut().map(Block::as_mut).unwrap_or_default()
    }
}

/// Appends to a file, or to a new one. Where it fails, nothing is left.
pub(super) fn write<'a>(
    spool: &Spool,
    file: Option<SpoolFile>,
    parts: impl Iterator<Item = &'a [u8]>,
) -> io::Result<SpoolFile> {
    let mut file = match file {
        Some(file) => file,
        None => spool.create()?,
    };
    for part in parts {
        file.file.write_all(part)?;
    }
    Ok(file)
}

#[cfg(test)]
mod tests;
