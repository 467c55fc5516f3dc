//! The end of data and the transparency of dots (RFC 5321 §4.1.1.4, §4.5.2), block by block and in place.
//!
//! Only CRLF ends a line, so only `CRLF . CRLF` ends the data, and a dot is undone only behind CRLF. Whoever takes another mixture of CR
//! and LF for a line end lets a client smuggle a second message past a server that does not.

use memchr::memchr2;

/// Reads the data of one message.
#[derive(Clone, Debug)]
pub struct DataReader {
    /// Bytes of the line at hand, so far.
    line: usize,
    at_line_start: bool,
    max_line: usize,
    seen: Seen,
}

/// What was seen that a message should not have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// A CR without LF (RFC 5321 §2.3.8).
    pub bare_cr: bool,
    /// An LF without CR (RFC 5321 §2.3.8).
    pub bare_lf: bool,
    /// A line above the limit (RFC 5321 §4.5.3.1.6).
    pub long_line: bool,
}

/// What became of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scan {
    /// This much of the block's beginning is now message.
    pub kept: usize,
    /// The block was used up to here. What is behind belongs to the next block (at most two bytes, whose meaning depends on
    /// what follows), or, at the end of data, to the next command.
    pub used: usize,
    /// The end of data was there.
    pub ended: bool,
}

impl DataReader {
    /// A reader at the beginning of the data. `max_line` counts the CRLF, and not the dot that transparency added.
    pub fn new(max_line: usize) -> DataReader {
        DataReader {
            line: 0,
            at_line_start: true,
            max_line,
            seen: Seen::default(),
        }
    }

    /// What was seen so far.
    pub fn seen(&self) -> Seen {
        self.seen
    }

    /// Takes the next block: moves what is message to its front. The block begins with what the last scan left unused.
    pub fn scan(&mut self, block: &mut [u8]) -> Scan {
        let mut kept = 0;
        // What lies from here to `at` is message, and not yet moved to the front.
        let mut run = 0;
        let mut at = 0;
        let ended = loop {
            if self.at_line_start && block.get(at) == Some(&b'.') {
                match block[at + 1..] {
                    [] | [b'\r'] => break false,
                    [b'\r', b'\n', ..] => break true,
                    _ => {
                        kept = move_down(block, run..at, kept);
                        at += 1;
                        run = at;
                        self.at_line_start = false;
                    }
                }
            }
            let Some(found) = memchr2(b'\r', b'\n', &block[at..]) else {
                self.line += block.len() - at;
                self.at_line_start &= at == block.len();
                at = block.len();
                break false;
            };
            self.line += found;
            at += found;
            match block[at..] {
                [b'\r', b'\n', ..] => {
                    self.seen.long_line |= self.line + 2 > self.max_line;
                    self.line = 0;
                    self.at_line_start = true;
                    at += 2;
                }
                [b'\r'] => break false,
                [b'\r', ..] => {
                    self.seen.bare_cr = true;
                    self.line += 1;
                    self.at_line_start = false;
                    at += 1;
                }
                // Where lone LFs are kept they are the sender's idea of a line end: its length begins anew, and nothing else does.
                _ => {
                    self.seen.bare_lf = true;
                    self.seen.long_line |= self.line > self.max_line;
                    self.line = 0;
                    self.at_line_start = false;
                    at += 1;
                }
            }
        };
        self.seen.long_line |= self.line > self.max_line;
        kept = move_down(block, run..at, kept);
        Scan {
            kept,
            used: if ended { at + 3 } else { at },
            ended,
        }
    }
}

fn move_down(block: &mut [u8], run: std::ops::Range<usize>, to: usize) -> usize {
    let length = run.len();
    if run.start != to {
        block.copy_within(run, to);
    }
    to + length
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What came out of a stream: the message, what was seen, and how much of the stream it took.
    type Read = (Vec<u8>, Seen, Option<usize>);

    /// The same, a byte at a time, as RFC 5321 tells it.
    fn reference(stream: &[u8], max_line: usize) -> Read {
        let (mut message, mut seen) = (Vec::new(), Seen::default());
        let mut start = 0;
        loop {
            let rest = &stream[start..];
            let end = rest.windows(2).position(|pair| pair == b"\r\n");
            let line = &rest[..end.unwrap_or(rest.len())];
            if end.is_some() && line == b"." {
                return (message, seen, Some(start + 3));
            }
            let line = line.strip_prefix(b".").unwrap_or(line);
            for (at, byte) in line.iter().enumerate() {
                match byte {
                    // At the stream's very end nobody knows what follows.
                    b'\r' if end.is_some() || at + 1 < line.len() => seen.bare_cr = true,
                    b'\n' => seen.bare_lf = true,
                    _ => {}
                }
            }
            let known = match end {
                Some(_) => line,
                None => line.strip_suffix(b"\r").unwrap_or(line),
            };
            let longest = known.split(|byte| *byte == b'\n').map(<[u8]>::len).max();
            let last = known.rsplit(|byte| *byte == b'\n').next().unwrap().len();
            let line_end = if end.is_some() { 2 } else { 0 };
            seen.long_line |= longest.unwrap() > max_line || last + line_end > max_line;
            message.extend_from_slice(line);
            match end {
                Some(end) => {
                    message.extend_from_slice(b"\r\n");
                    start += end + 2;
                }
                None => return (message, seen, None),
            }
        }
    }

    /// Feeds a stream in blocks of these lengths, then the rest.
    fn read(stream: &[u8], blocks: &[usize], max_line: usize) -> Read {
        let mut reader = DataReader::new(max_line);
        let (mut message, mut left, mut taken) = (Vec::new(), Vec::new(), 0);
        let mut rest = stream;
        for length in blocks.iter().copied().chain([stream.len()]) {
            let (block, after) = rest.split_at(length.min(rest.len()));
            rest = after;
            left.extend_from_slice(block);
            let scan = reader.scan(&mut left);
            message.extend_from_slice(&left[..scan.kept]);
            taken += scan.used;
            if scan.ended {
                return (message, reader.seen(), Some(taken));
            }
            left.drain(..scan.used);
            assert!(left.len() <= 2, "{left:?}");
        }
        // What the end of the stream leaves undecided counts as the reference counts it.
        let dot = usize::from(left.starts_with(b"."));
        message.extend_from_slice(&left[dot..]);
        (message, reader.seen(), None)
    }

    #[test]
    fn only_crlf_dot_crlf_ends_the_data() {
        for tail in [
            &b"\n.\n"[..],
            b"\n.\r\n",
            b"\r\n.\n",
            b"\r.\r",
            b"\r.\r\n",
            b"\r\n.\r",
            b"\r\n.\r\r\n",
            b"\r\n.\rx\r\n",
            b"\r\n.\0\r\n",
            b"\r\n..\r\n",
            b"\r\n. \r\n",
            b"\r\r\n.\n\r\n",
        ] {
            let stream = [&b"body"[..], tail, b"MAIL FROM:<smuggled@example.org>\r\n"].concat();
            for cut in 0..stream.len() {
                let (_, _, end) = read(&stream, &[cut], 1000);
                assert_eq!(end, None, "{tail:?} cut at {cut}");
            }
        }
    }

    #[test]
    fn a_bare_cr_before_a_true_end_hides_nothing() {
        let stream = b"a\r\r\n.\r\nQUIT\r\n";
        let (message, seen, end) = read(stream, &[], 1000);
        assert_eq!((&message[..], end), (&b"a\r\r\n"[..], Some(7)));
        assert!(seen.bare_cr && !seen.bare_lf);
    }

    #[test]
    fn an_empty_message() {
        assert_eq!(
            read(b".\r\n", &[1, 1], 1000),
            (vec![], Seen::default(), Some(3))
        );
    }

    #[test]
    fn line_length_counts_crlf_and_not_the_added_dot() {
        let long = |stream: &[u8]| read(stream, &[], 10).1.long_line;
        assert!(!long(b"12345678\r\n.\r\n"));
        assert!(!long(b"..2345678\r\n.\r\n"));
        assert!(long(b"123456789\r\n.\r\n"));
        assert!(long(b"12345678901"));
    }

    fn streams() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            4 => Just(&b"\r\n"[..]),
            2 => Just(&b"."[..]),
            1 => Just(&b"\r"[..]),
            1 => Just(&b"\n"[..]),
            1 => Just(&b"\0"[..]),
            1 => Just(&b"\r\n.\r\n"[..]),
            2 => Just(&b"abc"[..]),
            1 => Just(&b"a line that is rather long for one"[..]),
        ];
        proptest::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn blocks_make_no_difference(stream in streams(), blocks in proptest::collection::vec(0usize..6, 0..40)) {
            let expected = reference(&stream, 20);
            prop_assert_eq!(read(&stream, &blocks, 20), expected.clone());
            for cut in 0..=stream.len() {
                prop_assert_eq!(read(&stream, &[cut], 20), expected.clone(), "cut at {}", cut);
            }
        }
    }
}
