//! A channel that carries frames: two pipes, or a Unix stream socket (docs/protocol.md §1). The core and [`crate::serve`] both stand on it.

use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::net::unix::{OwnedWriteHalf, pipe};
use tokio::sync::Notify;

use crate::frame::{self, FrameError};

/// How many bytes may wait for a slow reader at the other end before it counts as stuck.
pub const MAX_PENDING: usize = 4 * frame::MAX_FRAME;
/// How long a frame that nobody waits for may stay, for another to go with it.
const LINGER: Duration = Duration::from_millis(5);

/// Why a channel came to its end.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    /// The other end broke the protocol.
    #[error("{0}")]
    Frame(#[from] FrameError),
    /// The channel itself failed.
    #[error("the channel failed: {0}")]
    Io(#[from] io::Error),
}

/// What a frame carries, without its length, checked against every rule of docs/protocol.md §2.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payload {
    bytes: Bytes,
    kind: Bytes,
}

impl Payload {
    fn check(bytes: Bytes) -> Result<Payload, FrameError> {
        let kind = bytes.slice_ref(frame::check(&bytes)?.as_bytes());
        Ok(Payload { bytes, kind })
    }

    /// The value of the key `kind`; empty where there is none.
    pub fn kind(&self) -> &str {
        std::str::from_utf8(&self.kind).expect("the check gave it as text")
    }

    /// Reads the message, whose kind says what it is.
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T, FrameError> {
        frame::decode(&self.bytes)
    }
}

impl std::ops::Deref for Payload {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Reads frames, each checked.
pub struct FrameReader<R> {
    source: R,
    buffer: BytesMut,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    /// Frames from `source`.
    pub fn new(source: R) -> FrameReader<R> {
        FrameReader {
            source,
            buffer: BytesMut::new(),
        }
    }

    /// The next payload; `None` at the end of the channel. Cancel-safe.
    pub async fn next(&mut self) -> Result<Option<Payload>, ChannelError> {
        loop {
            if let Some(payload) = self.buffered()? {
                return Ok(Some(payload));
            }
            self.buffer.reserve(8 * 1024);
            if self.source.read_buf(&mut self.buffer).await? == 0 {
                return if self.buffer.is_empty() {
                    Ok(None)
                } else {
                    Err(FrameError::Truncated.into())
                };
            }
        }
    }

    /// Whether a frame has begun and not come to its end. Meant for after [`FrameReader::next`] was dropped while it waited.
    pub fn within_frame(&self) -> bool {
        !self.buffer.is_empty()
    }

    /// The next payload, if it has come in whole already.
    pub(crate) fn buffered(&mut self) -> Result<Option<Payload>, ChannelError> {
        let Some(head) = self.buffer.first_chunk::<4>() else {
            return Ok(None);
        };
        let length = frame::length(*head)?;
        if self.buffer.len() < 4 + length {
            return Ok(None);
        }
        self.buffer.advance(4);
        let payload = self.buffer.split_to(length).freeze();
        Ok(Some(Payload::check(payload)?))
    }
}

/// The writing end of a channel.
#[derive(Debug)]
pub enum Sink {
    /// A pipe.
    Pipe(pipe::Sender),
    /// A socket.
    Unix(OwnedWriteHalf),
}

impl Sink {
    fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Sink::Pipe(pipe) => pipe.try_write(bytes),
            Sink::Unix(socket) => socket.try_write(bytes),
        }
    }

    async fn writable(&self) -> io::Result<()> {
        match self {
            Sink::Pipe(pipe) => pipe.writable().await,
            Sink::Unix(socket) => socket.writable().await,
        }
    }
}

/// Writes frames, from any task, in the order of the calls.
///
/// A frame goes out at once, from the task that has it, as long as the channel takes it: handing it to another task would cost more than
/// writing it. What the channel does not take waits in memory for [`FrameWriter::flush`], which somebody has to run.
#[derive(Debug)]
pub struct FrameWriter {
    sink: Sink,
    pending: Mutex<Pending>,
    more: Notify,
}

#[derive(Debug, Default)]
struct Pending {
    bytes: BytesMut,
    /// More is about to come, and can go out with it.
    held: bool,
    /// More may come soon.
    lingers: bool,
}

impl Pending {
    fn keep(&mut self, frames: &[u8]) -> io::Result<()> {
        if self.bytes.len() + frames.len() > MAX_PENDING {
            let text = "the other end does not read";
            return Err(io::Error::new(io::ErrorKind::TimedOut, text));
        }
        self.bytes.extend_from_slice(frames);
        Ok(())
    }
}

impl FrameWriter {
    /// Writes to `sink`.
    pub fn new(sink: Sink) -> FrameWriter {
        FrameWriter {
            sink,
            pending: Mutex::default(),
            more: Notify::new(),
        }
    }

    /// Sends one frame or several. An error means that the other end is gone, or has not read for [`MAX_PENDING`] bytes.
    pub fn send(&self, frames: &[u8]) -> io::Result<()> {
        let mut pending = self.pending();
        let mut rest = frames;
        if pending.bytes.is_empty() && !pending.held {
            while !rest.is_empty() {
                match self.sink.try_write(rest) {
                    Ok(written) => rest = &rest[written..],
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) => return Err(error),
                }
            }
        }
        if rest.is_empty() {
            return Ok(());
        }
        pending.keep(rest)?;
        if std::mem::take(&mut pending.lingers) && !pending.held {
            return self.write(&mut pending);
        }
        if !pending.held {
            self.more.notify_one();
        }
        Ok(())
    }

    /// The same for what nobody waits for: it goes out with the next frame, or by [`FrameWriter::flush`] some milliseconds later.
    pub fn send_soon(&self, frames: &[u8]) -> io::Result<()> {
        let mut pending = self.pending();
        let is_first = pending.bytes.is_empty();
        pending.keep(frames)?;
        if is_first && !pending.held {
            pending.lingers = true;
            self.more.notify_one();
        }
        Ok(())
    }

    /// Keeps back what is sent until [`FrameWriter::release`]: several frames in one write wake the other end once.
    pub fn hold(&self) {
        self.pending().held = true;
    }

    /// Sends what was kept back. An error means that the other end is gone.
    pub fn release(&self) -> io::Result<()> {
        let mut pending = self.pending();
        pending.held = false;
        self.write(&mut pending)
    }

    fn write(&self, pending: &mut Pending) -> io::Result<()> {
        while !pending.bytes.is_empty() {
            match self.sink.try_write(&pending.bytes) {
                Ok(written) => pending.bytes.advance(written),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.more.notify_one();
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn pending(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many bytes wait for the other end to read.
    pub fn waiting(&self) -> usize {
        self.pending().bytes.len()
    }

    /// Writes what had to wait, for ever; returns only when the channel fails.
    pub async fn flush(&self) -> io::Error {
        loop {
            self.more.notified().await;
            if self.pending().lingers {
                tokio::time::sleep(LINGER).await;
                // What has been sent since took it along.
                if !std::mem::take(&mut self.pending().lingers) {
                    continue;
                }
            }
            loop {
                if let Err(error) = self.sink.writable().await {
                    return error;
                }
                let mut pending = self.pending();
                match self.sink.try_write(&pending.bytes) {
                    Ok(written) => pending.bytes.advance(written),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) => return error,
                }
                if pending.bytes.is_empty() {
                    break;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Goodbye, Log};

    fn log(message: &str) -> Vec<u8> {
        frame::encode(&Log {
            level: "info".into(),
            message: message.into(),
            plugin: None,
            hook: None,
            then: false,
            told: false,
        })
        .unwrap()
    }

    #[tokio::test]
    async fn frames_survive_every_cut() {
        let frames = [
            log("one"),
            frame::encode(&Goodbye {}).unwrap(),
            log(&"x".repeat(300)),
        ];
        let whole = frames.concat();
        for cut in 0..whole.len() {
            let source = AsyncReadExt::chain(&whole[..cut], &whole[cut..]);
            let mut reader = FrameReader::new(source);
            for frame_bytes in &frames {
                assert_eq!(*reader.next().await.unwrap().unwrap(), frame_bytes[4..]);
            }
            assert!(reader.next().await.unwrap().is_none());
            let mut short = FrameReader::new(&whole[..cut]);
            let end = loop {
                match short.next().await {
                    Ok(Some(_)) => {}
                    end => break end,
                }
            };
            let at_a_border =
                [0, frames[0].len(), frames[0].len() + frames[1].len()].contains(&cut);
            assert_eq!(end.is_ok(), at_a_border, "cut at {cut}");
        }
    }

    #[test]
    fn the_kind_is_found_wherever_it_stands() {
        for (bytes, expected) in [
            (&b"\x82\xa2id\x01\xa4kind\xa6result"[..], "result"),
            // `kind` as bytes, and as a text with a length of its own.
            (b"\x81\xa4kind\xc4\x03log", "log"),
            (b"\x81\xa4kind\xd9\x03log", "log"),
            (b"\x81\xa4kind\x01", ""),
            (b"\x80", ""),
        ] {
            let payload = Payload::check(Bytes::from_static(bytes)).unwrap();
            assert_eq!(payload.kind(), expected, "{bytes:?}");
        }
    }

    #[tokio::test]
    async fn what_a_full_pipe_does_not_take_is_sent_later_and_in_order() {
        let (sender, receiver) = pipe::pipe().unwrap();
        let writer = FrameWriter::new(Sink::Pipe(sender));
        let frames: Vec<Vec<u8>> = (0..100)
            .map(|number| log(&format!("{number} {}", "x".repeat(9000))))
            .collect();
        for frame_bytes in &frames {
            writer.send(frame_bytes).unwrap();
        }
        let mut reader = FrameReader::new(receiver);
        let read = async {
            for frame_bytes in &frames {
                assert_eq!(*reader.next().await.unwrap().unwrap(), frame_bytes[4..]);
            }
        };
        tokio::select! {
            error = writer.flush() => panic!("{error}"),
            () = read => {}
        }
    }

    #[tokio::test]
    async fn what_is_held_goes_out_in_order_when_it_is_released() {
        let (sender, receiver) = pipe::pipe().unwrap();
        let writer = FrameWriter::new(Sink::Pipe(sender));
        let frames: Vec<Vec<u8>> = (0..3).map(|number| log(&number.to_string())).collect();
        writer.hold();
        for frame_bytes in &frames {
            writer.send(frame_bytes).unwrap();
        }
        let mut bytes = [0];
        let nothing = receiver.try_read(&mut bytes).unwrap_err();
        assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);
        writer.release().unwrap();
        let mut reader = FrameReader::new(receiver);
        let read = async {
            for frame_bytes in &frames {
                assert_eq!(*reader.next().await.unwrap().unwrap(), frame_bytes[4..]);
            }
        };
        tokio::select! {
            error = writer.flush() => panic!("{error}"),
            () = read => {}
        }
    }

    #[tokio::test]
    async fn what_may_wait_goes_out_with_the_next_frame_or_by_itself() {
        let (sender, receiver) = pipe::pipe().unwrap();
        let writer = FrameWriter::new(Sink::Pipe(sender));
        writer.sink.writable().await.unwrap();
        let frames: Vec<Vec<u8>> = (0..3).map(|number| log(&number.to_string())).collect();
        writer.send_soon(&frames[0]).unwrap();
        writer.send_soon(&frames[1]).unwrap();
        assert_eq!(writer.waiting(), frames[..2].concat().len());
        writer.send(&frames[2]).unwrap();
        assert_eq!(writer.waiting(), 0);
        writer.send_soon(&frames[0]).unwrap();
        let mut reader = FrameReader::new(receiver);
        let read = async {
            for at in [0, 1, 2, 0] {
                assert_eq!(*reader.next().await.unwrap().unwrap(), frames[at][4..]);
            }
        };
        tokio::select! {
            error = writer.flush() => panic!("{error}"),
            () = read => {}
        }
    }

    #[tokio::test]
    async fn a_reader_that_never_reads_is_an_error_and_not_memory() {
        let (sender, _receiver) = pipe::pipe().unwrap();
        let writer = FrameWriter::new(Sink::Pipe(sender));
        let frame_bytes = log(&"x".repeat(100_000));
        let refused = (0..100)
            .find_map(|_| writer.send(&frame_bytes).err())
            .unwrap();
        assert_eq!(refused.kind(), io::ErrorKind::TimedOut);
    }
}
