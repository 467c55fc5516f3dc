//! The end of data and the transparency of dots (RFC 5321 §4.1.1.4, §4.5.2), and the rules for lines, block by block and in place.
//!
//! Only CRLF ends a line, so only `CRLF . CRLF` ends the data, and a dot is undone only behind CRLF. Whoever takes another mixture of CR
//! and LF for a line end lets a client smuggle a second message past a server that does not.

use memchr::memchr2;

use crate::config::BareNewlines;

/// How a message comes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// Behind DATA: up to the dot, dots doubled.
    Dots,
    /// Behind BDAT: somebody else counts the octets (RFC 3030 §2). It is text, and the rules for lines hold.
    Chunks,
    /// Behind BDAT too, and anything goes (RFC 3030 §3).
    Binary,
}

/// Reads the data of one message.
#[derive(Clone, Debug)]
pub struct DataReader {
    framing: Framing,
    newlines: BareNewlines,
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
    /// What is now message has a CR or LF that stands alone.
    pub bare: bool,
}

impl DataReader {
    /// A reader at the beginning of the data. `max_line` counts the CRLF, and not the dot that transparency added. `newlines` says whether a
    /// CR or LF that stands alone will end a line of what is kept.
    pub fn new(framing: Framing, newlines: BareNewlines, max_line: usize) -> DataReader {
        DataReader {
            framing,
            newlines,
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

    /// Whether lone CRs and LFs in the body are none.
    pub fn is_binary(&self) -> bool {
        self.framing == Framing::Binary
    }

    /// Takes the next block: moves what is message to its front. The block begins with what the last scan left unused.
    pub fn scan(&mut self, block: &mut [u8]) -> Scan {
        if self.is_binary() {
            return Scan {
                kept: block.len(),
                used: block.len(),
                ended: false,
                bare: false,
            };
        }
        let has_dots = self.framing == Framing::Dots;
        let normalizes = self.newlines == BareNewlines::Normalize;
        let mut bare = false;
        let mut kept = 0;
        // What lies from here to `at` is message, and not yet moved to the front.
        let mut run = 0;
        let mut at = 0;
        let ended = loop {
            if has_dots && self.at_line_start && block.get(at) == Some(&b'.') {
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
                    (bare, self.seen.bare_cr) = (true, true);
                    if normalizes {
                        self.seen.long_line |= self.line + 2 > self.max_line;
                        self.line = 0;
                    } else {
                        self.line += 1;
                    }
                    self.at_line_start = false;
                    at += 1;
                }
                // Where lone LFs are kept they are the sender's idea of a line end: its length begins anew, and nothing else does.
                _ => {
                    (bare, self.seen.bare_lf) = (true, true);
                    let line_end = if normalizes { 2 } else { 0 };
                    self.seen.long_line |= self.line + line_end > self.max_line;
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
            bare,
        }
    }

    /// The message ends behind what the last scan left unused, since its last chunk is over: all of that is message.
    pub fn end(&mut self, held: &mut [u8]) -> Scan {
        // Nothing but a CR is ever held where octets are counted, and now no LF follows it.
        let bare = !held.is_empty();
        self.seen.bare_cr |= bare;
        let normalizes = self.newlines == BareNewlines::Normalize;
        let more = if bare && normalizes { 2 } else { held.len() };
        self.seen.long_line |= self.line + more > self.max_line;
        Scan {
            kept: held.len(),
            used: held.len(),
            ended: true,
            bare,
        }
    }

    /// Holds the header block of a binary message to the rules for lines: RFC 3030 §3 frees the body from them, and a header without lines is none.
    pub fn check_header(&mut self, header: &[u8]) {
        if self.is_binary() {
            let mut lines = DataReader::new(Framing::Chunks, self.newlines, self.max_line);
            let mut header = header.to_vec();
            let scan = lines.scan(&mut header);
            lines.end(&mut header[scan.used..]);
            self.seen = lines.seen;
        }
    }
}

/// Makes a CRLF of every CR and every LF that stands alone. What a scan kept, as a whole, is text enough: no CRLF stands across the end of it.
pub fn normalized(text: &[u8]) -> Vec<u8> {
    let mut lines = Vec::with_capacity(text.len() + text.len() / 16);
    let mut rest = text;
    while let Some(at) = memchr2(b'\r', b'\n', rest) {
        lines.extend_from_slice(&rest[..at]);
        lines.extend_from_slice(b"\r\n");
        let newline = if rest[at..].starts_with(b"\r\n") {
            2
        } else {
            1
        };
        rest = &rest[at + newline..];
    }
    lines.extend_from_slice(rest);
    lines
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

    /// Feeds a stream in two blocks where octets are counted. Returns the message as it is kept, and what was seen.
    fn read_counted(stream: &[u8], cut: usize, newlines: BareNewlines) -> (Vec<u8>, Seen) {
        let mut reader = DataReader::new(Framing::Chunks, newlines, 20);
        let (mut message, mut left) = (Vec::new(), Vec::new());
        for block in [&stream[..cut], &stream[cut..]] {
            left.extend_from_slice(block);
            let scan = reader.scan(&mut left);
            assert!(!scan.ended);
            message.extend(kept(&left[..scan.kept], scan, newlines));
            left.drain(..scan.used);
        }
        let scan = reader.end(&mut left);
        message.extend(kept(&left, scan, newlines));
        (message, reader.seen())
    }

    fn kept(fresh: &[u8], scan: Scan, newlines: BareNewlines) -> Vec<u8> {
        match scan.bare && newlines == BareNewlines::Normalize {
            true => normalized(fresh),
            false => fresh.to_vec(),
        }
    }

    /// Lines, however they end, ended by CRLF.
    fn as_lines(text: &[u8]) -> Vec<u8> {
        let text = text.escape_ascii().to_string();
        let text = text.replace("\\r\\n", "\n").replace("\\r", "\n");
        let text = text.replace("\\n", "\n").replace('\n', "\r\n");
        text.replace("\\x00", "\0").into_bytes()
    }

    /// Feeds a stream in blocks of these lengths, then the rest.
    fn read(stream: &[u8], blocks: &[usize], max_line: usize) -> Read {
        read_with(BareNewlines::Keep, stream, blocks, max_line)
    }

    fn read_with(newlines: BareNewlines, stream: &[u8], blocks: &[usize], max_line: usize) -> Read {
        let mut reader = DataReader::new(Framing::Dots, newlines, max_line);
        let (mut message, mut left, mut taken) = (Vec::new(), Vec::new(), 0);
        let mut rest = stream;
        for length in blocks.iter().copied().chain([stream.len()]) {
            let (block, after) = rest.split_at(length.min(rest.len()));
            rest = after;
            left.extend_from_slice(block);
            let scan = reader.scan(&mut left);
            message.extend(kept(&left[..scan.kept], scan, newlines));
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

    #[test]
    fn counted_lines_have_the_same_length_limit() {
        let long = |stream: &[u8]| read_counted(stream, 0, BareNewlines::Keep).1.long_line;
        assert!(!long(b"123456789012345678\r\n12345678901234567890"));
        assert!(long(b"1234567890123456789\r\n"));
        assert!(long(b"123456789012345678901"));
        // A CR that nothing follows is one more, and two where it is made a CRLF.
        assert!(long(b"12345678901234567890\r"));
        let made_right = |stream| read_counted(stream, 0, BareNewlines::Normalize).1.long_line;
        assert!(made_right(b"1234567890123456789\r") && !made_right(b"123456789012345678\r"));
    }

    #[test]
    fn binary_data_has_no_lines_and_its_header_has() {
        let seen = |header: &[u8]| {
            let mut reader = DataReader::new(Framing::Binary, BareNewlines::Reject, 20);
            let body = &mut b"\r\n.\r\n\n.\n\r and no end of the line\r"[..].to_vec();
            let scan = reader.scan(body);
            assert_eq!(
                (scan.kept, scan.used, scan.ended),
                (body.len(), body.len(), false)
            );
            reader.check_header(header);
            reader.seen()
        };
        assert_eq!(seen(b"A: b\r\n"), Seen::default());
        assert!(seen(b"A: b\nC: d\r\n").bare_lf);
        assert!(seen(b"A: b\rC: d\r\n").bare_cr);
        assert!(seen(b"A: 12345678901234567890\r\n").long_line);
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
        fn newlines_are_made_right_whatever_the_blocks(stream in streams(), blocks in proptest::collection::vec(0usize..6, 0..40)) {
            // The end of the data is where it is without, and what is kept is the same, line by line.
            let ended = [&stream[..], b"x\r\n.\r\nQUIT\r\n"].concat();
            let (message, _, end) = read(&ended, &[], 1000);
            let expected = as_lines(&message);
            let (made, _, made_end) = read_with(BareNewlines::Normalize, &ended, &blocks, 1000);
            prop_assert_eq!((&made, made_end), (&expected, end));
            for cut in 0..=ended.len() {
                let (made, _, made_end) = read_with(BareNewlines::Normalize, &ended, &[cut], 1000);
                prop_assert_eq!((&made, made_end), (&expected, end), "cut at {}", cut);
            }
        }

        #[test]
        fn counted_octets_stay_what_they_are(stream in streams(), cut in 0usize..200) {
            let cut = cut.min(stream.len());
            let (message, seen) = read_counted(&stream, cut, BareNewlines::Keep);
            prop_assert_eq!(&message, &stream);
            let text = String::from_utf8(stream.clone()).unwrap().replace("\r\n", "");
            prop_assert_eq!((seen.bare_cr, seen.bare_lf), (text.contains('\r'), text.contains('\n')));
            let (made, _) = read_counted(&stream, cut, BareNewlines::Normalize);
            prop_assert_eq!(made, as_lines(&stream));
        }

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
