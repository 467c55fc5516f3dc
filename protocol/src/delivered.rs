//! A message as it is delivered: the header block with its edits, then what was received from the end of the header on.

use std::io;

use crate::{Message, Transaction};
use bytes::Bytes;

/// The most that is read at once: what `message/read` gives a child process (docs/protocol.md §8).
pub const BLOCK: usize = 512 * 1024;

/// Whether the sender declared that the message is not text (RFC 3030 §3): its bytes are as they must be.
pub fn is_binary(transaction: &Transaction) -> bool {
    let body = transaction.sender_parameters.get("BODY");
    body.and_then(Option::as_deref)
        .is_some_and(|body| body.eq_ignore_ascii_case("BINARYMIME"))
}

/// Reads a delivery block by block.
pub struct Delivered<'a> {
    header: Option<Bytes>,
    message: &'a dyn Message,
    offset: u64,
}

impl<'a> Delivered<'a> {
    /// From the beginning.
    pub fn new(transaction: &Transaction, message: &'a dyn Message) -> Delivered<'a> {
        let header = transaction.header.as_ref().map(|header| header.to_bytes());
        Delivered {
            offset: header.as_ref().map_or(0, |_| transaction.header_end),
            header: header.filter(|header| !header.is_empty()),
            message,
        }
    }

    /// Bytes that are still to come.
    pub fn remaining(&self) -> u64 {
        let header = self.header.as_ref().map_or(0, Bytes::len) as u64;
        header + self.message.size().saturating_sub(self.offset)
    }

    /// The next block; `None` at the end. A message that ends before its size is an error: what is kept is whole.
    pub async fn next(&mut self) -> io::Result<Option<Bytes>> {
        if let Some(header) = self.header.take() {
            return Ok(Some(header));
        }
        let left = self.message.size().saturating_sub(self.offset);
        if left == 0 {
            return Ok(None);
        }
        let wanted = usize::try_from(left).map_or(BLOCK, |left| left.min(BLOCK));
        let block = self.message.read(self.offset, wanted).await?;
        if block.len() != wanted {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                format!("the message ends {} bytes early", left - block.len() as u64),
            ));
        }
        self.offset += block.len() as u64;
        Ok(Some(block))
    }
}
