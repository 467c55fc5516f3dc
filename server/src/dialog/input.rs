//! What a client sent and nobody took yet, and the lines in it.

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use memchr::{memchr, memchr2};
use tokio::io::{AsyncRead, ReadBuf};

/// How much is read at once while lines are expected; on the stack, so that an idle connection holds no buffer.
const SCRATCH: usize = 4096;
/// What a buffer may keep while its connection waits.
const IDLE_BUFFER: usize = 512;
/// How much of an overlong line is skipped in search of its end.
const MAX_SKIPPED: usize = 64 * 1024;

/// What can be wrong with a line, before anybody knows what it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineFault {
    /// Longer than allowed.
    TooLong,
    /// So long that its end was not found.
    Endless,
    /// A CR in its midst.
    BareCr,
    /// It ends in a LF without CR: where commands begin and end is no longer certain.
    BareLf,
    /// A NUL.
    Nul,
}

/// What came and was not taken.
#[derive(Debug, Default)]
pub struct Input {
    bytes: Vec<u8>,
    /// How much of it was taken.
    taken: usize,
    /// How much of an overlong line was thrown away.
    skipped: usize,
    /// The client sends no more.
    pub finished: bool,
}

impl Input {
    /// Takes the first line, without its CRLF, of at most `max` bytes with it. `None` while its end has not come.
    pub fn line(&mut self, line: &mut Vec<u8>, max: usize) -> Option<Result<(), LineFault>> {
        let waiting = &self.bytes[self.taken..];
        let Some(end) = memchr(b'\n', waiting) else {
            if self.skipped + waiting.len() > max {
                self.skipped += waiting.len();
                self.advance(self.bytes.len());
            }
            if self.skipped > MAX_SKIPPED {
                self.skipped = 0;
                return Some(Err(LineFault::Endless));
            }
            return None;
        };
        let too_long = self.skipped + end + 1 > max;
        let fault = match waiting[..end].strip_suffix(b"\r") {
            None => Some(LineFault::BareLf),
            Some(_) if too_long => Some(LineFault::TooLong),
            Some(text) => {
                line.clear();
                line.extend_from_slice(text);
                memchr2(b'\r', 0, text).map(|at| match text[at] {
                    0 => LineFault::Nul,
                    _ => LineFault::BareCr,
                })
            }
        };
        self.skipped = 0;
        self.advance(self.taken + end + 1);
        Some(fault.map_or(Ok(()), Err))
    }

    /// Whether the end of a line came.
    pub fn has_line(&self) -> bool {
        memchr(b'\n', &self.bytes[self.taken..]).is_some()
    }

    /// How much was not taken.
    pub fn len(&self) -> usize {
        self.bytes.len() - self.taken
    }

    /// Whether all was taken.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Takes bytes, as many as there are and fit. Returns how many.
    pub fn take(&mut self, room: &mut [u8]) -> usize {
        let waiting = &self.bytes[self.taken..];
        let length = waiting.len().min(room.len());
        room[..length].copy_from_slice(&waiting[..length]);
        self.advance(self.taken + length);
        length
    }

    /// Puts bytes before what is waiting.
    pub fn put_back(&mut self, bytes: &[u8]) {
        self.bytes.splice(..self.taken, bytes.iter().copied());
        self.taken = 0;
    }

    /// Reads more.
    pub fn poll_fill(
        &mut self,
        stream: &mut (impl AsyncRead + Unpin),
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        let mut scratch = [MaybeUninit::uninit(); SCRATCH];
        let mut buffer = ReadBuf::uninit(&mut scratch);
        ready!(Pin::new(stream).poll_read(cx, &mut buffer))?;
        self.finished |= buffer.filled().is_empty();
        self.put_back(b"");
        self.bytes.extend_from_slice(buffer.filled());
        Poll::Ready(Ok(()))
    }

    fn advance(&mut self, to: usize) {
        self.taken = to;
        if to == self.bytes.len() {
            self.taken = 0;
            self.bytes.clear();
            self.bytes.shrink_to(IDLE_BUFFER);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type Taken = Vec<Result<String, LineFault>>;

    /// All lines of a stream that comes in two parts.
    fn lines(stream: &[u8], cut: usize, max: usize) -> Taken {
        let (mut input, mut line, mut taken) = (Input::default(), Vec::new(), Vec::new());
        for part in [&stream[..cut], &stream[cut..]] {
            input.bytes.extend_from_slice(part);
            while let Some(found) = input.line(&mut line, max) {
                taken.push(found.map(|()| String::from_utf8(line.clone()).unwrap()));
            }
        }
        taken
    }

    #[test]
    fn lines_end_in_crlf_only() {
        use LineFault::*;
        let stream = b"NOOP\r\n\r\nA\rB\r\nA\0B\r\nA\nB\r\n12345678\r\n123456789\r\nQUIT\r\nhalf";
        let ok = |text: &str| Ok(text.to_owned());
        let expected = [
            ok("NOOP"),
            ok(""),
            Err(BareCr),
            Err(Nul),
            Err(BareLf),
            ok("B"),
            ok("12345678"),
            Err(TooLong),
            ok("QUIT"),
        ];
        for cut in 0..stream.len() {
            assert_eq!(lines(stream, cut, 10), expected, "cut at {cut}");
        }
    }

    #[test]
    fn a_line_without_end_is_skipped_and_then_given_up() {
        let mut stream = vec![b'x'; MAX_SKIPPED];
        assert_eq!(lines(&stream, 5000, 10), []);
        stream.extend_from_slice(b"\r\nNOOP\r\n");
        let expected = [Err(LineFault::TooLong), Ok("NOOP".to_owned())];
        assert_eq!(lines(&stream, MAX_SKIPPED, 10), expected);
        assert_eq!(
            lines(&[b'x'; MAX_SKIPPED + 1], 5000, 10),
            [Err(LineFault::Endless)]
        );
    }

    proptest! {
        #[test]
        fn what_is_put_back_comes_first(bytes in "[a-c\r\n]{0,40}", back in 0usize..40) {
            let mut input = Input::default();
            input.bytes.extend_from_slice(bytes.as_bytes());
            let mut room = vec![0; back];
            let length = input.take(&mut room);
            input.put_back(&room[..length]);
            let mut all = vec![0; bytes.len()];
            prop_assert_eq!(input.take(&mut all), bytes.len());
            prop_assert_eq!(all, bytes.as_bytes());
            prop_assert!(input.is_empty() && !input.has_line());
        }
    }
}
