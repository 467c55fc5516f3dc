//! The header block of a message: the bytes as received, and edits as a layer on top.
//!
//! A field that nobody touched is written back byte for byte, with its folding, its spelling and whatever is odd about it, so that a
//! signature over it stays valid. Nothing here interprets a field's value.

use std::ops::Range;

use bytes::Bytes;

use crate::change::Edge;

/// The longest line of a header, without its line end (RFC 5322 §2.1.1).
pub const MAX_LINE: usize = 998;

/// What a message that begins within a field is given for a beginning where something stands above it: a line that begins with white space goes on with the field
/// before it (RFC 5322 §2.2.3), and a client's text would be part of a field of ours.
const UNBEGUN: &[u8] = b"X-Malformed-Header:";

/// Why a header field cannot be added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// Empty, or with a character outside RFC 5322 §2.2's printable ones.
    #[error("a header name holds printable ASCII only, and no colon")]
    Name,
    /// NUL, a bare CR, or a line end that no space or tab follows.
    #[error(
        "a header value holds no NUL, and a line end only where the next line begins with a space or tab"
    )]
    Value,
    /// A line above 998 bytes.
    #[error("a header line is longer than 998 bytes (RFC 5322 section 2.1.1)")]
    TooLong,
}

#[derive(Clone, Debug)]
enum Field {
    /// A span of the block as received, line end included.
    Received { span: Range<usize>, name_end: usize },
    /// A field that was added, line end included.
    Added { line: Bytes, name_end: usize },
}

/// A header block without the empty line that ends it.
#[derive(Clone, Debug, Default)]
pub struct HeaderBlock {
    original: Bytes,
    fields: Vec<Field>,
    edited: bool,
}

impl HeaderBlock {
    /// Takes the header block of a message. A line that is no field (no colon) is kept as it is, under an empty name.
    pub fn parse(original: Bytes) -> HeaderBlock {
        let mut fields = Vec::new();
        let mut start = 0;
        while start < original.len() {
            let end = field_end(&original, start);
            let colon = original[start..end].iter().position(|byte| *byte == b':');
            fields.push(Field::Received {
                span: start..end,
                name_end: start + colon.unwrap_or(0),
            });
            start = end;
        }
        HeaderBlock {
            original,
            fields,
            edited: false,
        }
    }

    /// Where the header block of `message` ends and where its body begins; `None` while the empty line has not come.
    /// A message that begins with an empty line has no header; one without any empty line is all header.
    pub fn find_end(message: &[u8], from: usize) -> Option<(usize, usize)> {
        if message.starts_with(b"\r\n") {
            return Some((0, 2));
        }
        if message.starts_with(b"\n") {
            return Some((0, 1));
        }
        // An empty line may begin in what was looked at before.
        let mut at = from.saturating_sub(3);
        while let Some(found) = message[at..].iter().position(|byte| *byte == b'\n') {
            let end = at + found + 1;
            match message.get(end..) {
                Some([b'\n', ..]) => return Some((end, end + 1)),
                Some([b'\r', b'\n', ..]) => return Some((end, end + 2)),
                _ => at = end,
            }
        }
        None
    }

    /// Names and values, from the top. Values are as received: folded, without the name's colon, the line end left off. A line that is no field is all value.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.fields.iter().map(|field| {
            let (line, name_end) = self.line(field);
            let value = match line.get(name_end) {
                Some(b':') => &line[name_end + 1..],
                _ => line,
            };
            let value = value.strip_suffix(b"\n").unwrap_or(value);
            (
                line[..name_end].trim_ascii_end(),
                value.strip_suffix(b"\r").unwrap_or(value),
            )
        })
    }

    /// The values of all fields of a name (compared without case), from the top, with surrounding white space trimmed.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        self.iter()
            .filter(move |(field, _)| field.eq_ignore_ascii_case(name.as_bytes()))
            .map(|(_, value)| value.trim_ascii())
    }

    /// The first value of a name.
    pub fn first<'a>(&'a self, name: &'a str) -> Option<&'a [u8]> {
        self.all(name).next()
    }

    /// How many fields there are.
    pub fn len(&self) -> usize {
        self.fields.len()
    }

    /// Whether there is no field.
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    /// Adds a field at the top or the bottom.
    pub fn add(&mut self, name: &str, value: &[u8], top: bool) -> Result<(), HeaderError> {
        self.add_at(name, value, if top { Edge::Top } else { Edge::Bottom })
    }

    /// Adds a field at a place.
    pub fn add_at(&mut self, name: &str, value: &[u8], place: Edge) -> Result<(), HeaderError> {
        let field = Field::Added {
            line: format_field(name, value)?,
            name_end: name.len(),
        };
        let all = self.fields.len();
        let at = match place {
            Edge::Top => 0,
            Edge::Bottom => all,
            Edge::Below(number) => usize::try_from(number).map_or(all, |at| at.min(all)),
        };
        self.insert(at, field);
        Ok(())
    }

    /// Replaces the `nth` field of a name (from 1), or adds it at the bottom where there is none.
    pub fn replace(&mut self, name: &str, value: &[u8], nth: usize) -> Result<(), HeaderError> {
        let field = Field::Added {
            line: format_field(name, value)?,
            name_end: name.len(),
        };
        let found = self.positions(name).nth(nth.saturating_sub(1));
        match found {
            Some(at) => {
                self.fields[at] = field;
                self.edited = true;
            }
            None => self.insert(self.fields.len(), field),
        }
        Ok(())
    }

    /// Removes the `nth` field of a name (from 1), or all of them. Returns how many went.
    pub fn remove(&mut self, name: &str, nth: Option<usize>) -> usize {
        let doomed: Vec<usize> = match nth {
            Some(nth) => self
                .positions(name)
                .skip(nth.saturating_sub(1))
                .take(1)
                .collect(),
            None => self.positions(name).collect(),
        };
        for at in doomed.iter().rev() {
            self.fields.remove(*at);
        }
        self.edited |= !doomed.is_empty();
        doomed.len()
    }

    /// Gives every field of a name another name, its value untouched. Returns how many there were.
    pub fn rename(&mut self, name: &str, to: &str) -> usize {
        let found: Vec<usize> = self.positions(name).collect();
        for at in &found {
            let (line, name_end) = self.line(&self.fields[*at]);
            let line = [to.as_bytes(), &line[name_end..]].concat();
            self.fields[*at] = Field::Added {
                line: line.into(),
                name_end: to.len(),
            };
        }
        self.edited |= !found.is_empty();
        found.len()
    }

    /// The block with all edits, each line with its end; the bytes as received where nothing was edited. A first line that begins with white space does not
    /// become part of what was added above it: it is the value of a field `X-Malformed-Header` then.
    pub fn to_bytes(&self) -> Bytes {
        if !self.edited {
            return self.original.clone();
        }
        let length = self
            .fields
            .iter()
            .map(|field| self.line(field).0.len())
            .sum();
        let mut block = Vec::with_capacity(length);
        for field in &self.fields {
            // Only the last line of a message without a body can lack its end.
            if !block.is_empty() && !block.ends_with(b"\n") {
                block.extend_from_slice(b"\r\n");
            }
            let line = self.line(field).0;
            if !block.is_empty() && matches!(line.first(), Some(b' ' | b'\t')) {
                block.extend_from_slice(UNBEGUN);
            }
            block.extend_from_slice(line);
        }
        block.into()
    }

    fn insert(&mut self, at: usize, field: Field) {
        self.fields.insert(at, field);
        self.edited = true;
    }

    fn positions<'a>(&'a self, name: &'a str) -> impl Iterator<Item = usize> + 'a {
        self.iter()
            .enumerate()
            .filter(move |(_, (field, _))| field.eq_ignore_ascii_case(name.as_bytes()))
            .map(|(at, _)| at)
    }

    fn line<'a>(&'a self, field: &'a Field) -> (&'a [u8], usize) {
        match field {
            Field::Received { span, name_end } => {
                (&self.original[span.clone()], name_end - span.start)
            }
            Field::Added { line, name_end } => (line, *name_end),
        }
    }
}

/// The end of the field that begins at `start`: its line and the continuation lines behind it (RFC 5322 §2.2.3).
fn field_end(block: &[u8], start: usize) -> usize {
    let mut at = start;
    while let Some(found) = block[at..].iter().position(|byte| *byte == b'\n') {
        at += found + 1;
        if !matches!(block.get(at), Some(b' ' | b'\t')) {
            return at;
        }
    }
    block.len()
}

/// Whether a text can be a header field's name (RFC 5322 §2.2).
pub fn is_name(name: &str) -> bool {
    !name.is_empty()
        && name
            .bytes()
            .all(|byte| matches!(byte, b'!'..=b'9' | b';'..=b'~'))
}

/// `name: value` with CRLF; lone LF before a continuation becomes CRLF.
fn format_field(name: &str, value: &[u8]) -> Result<Bytes, HeaderError> {
    if !is_name(name) {
        return Err(HeaderError::Name);
    }
    let mut line = Vec::with_capacity(name.len() + value.len() + 4);
    line.extend_from_slice(name.as_bytes());
    line.extend_from_slice(b": ");
    for (index, part) in value.trim_ascii().split(|byte| *byte == b'\n').enumerate() {
        let part = part.strip_suffix(b"\r").unwrap_or(part);
        if part.iter().any(|byte| matches!(byte, b'\r' | 0)) {
            return Err(HeaderError::Value);
        }
        if index > 0 {
            // A continuation of white space alone would end the header for some readers (RFC 5322 §3.2.2, obs-FWS).
            if !matches!(part.first(), Some(b' ' | b'\t')) || part.trim_ascii().is_empty() {
                return Err(HeaderError::Value);
            }
            line.extend_from_slice(b"\r\n");
        }
        line.extend_from_slice(part);
    }
    line.extend_from_slice(b"\r\n");
    if line
        .split(|byte| *byte == b'\n')
        .any(|part| part.len() > MAX_LINE + 1)
    {
        return Err(HeaderError::TooLong);
    }
    Ok(line.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ODD: &[u8] = b"From: a@b\r\nX-Space : x\r\nSubject:no space\r\n\tfolded\r\nno colon here\r\nfrom: second\r\n";

    fn block() -> HeaderBlock {
        HeaderBlock::parse(Bytes::from_static(ODD))
    }

    #[test]
    fn fields_are_found_and_left_alone() {
        let block = block();
        assert_eq!(
            block.all("FROM").collect::<Vec<_>>(),
            [&b"a@b"[..], b"second"]
        );
        assert_eq!(block.first("x-space"), Some(&b"x"[..]));
        assert_eq!(block.first("subject"), Some(&b"no space\r\n\tfolded"[..]));
        assert_eq!(block.first(""), Some(&b"no colon here"[..]));
        assert_eq!(block.len(), 5);
        assert_eq!(block.to_bytes(), ODD);
    }

    #[test]
    fn edits_touch_only_what_they_name() {
        let mut block = block();
        block.add("Received", b"from x\n\tby y", true).unwrap();
        block.replace("From", b"new", 2).unwrap();
        assert_eq!(block.remove("X-Space", None), 1);
        assert_eq!(block.remove("Nothing", Some(1)), 0);
        assert_eq!(block.rename("Subject", "X-Subject"), 1);
        block.replace("To", b"b@c", 1).unwrap();
        assert_eq!(
            block.to_bytes(),
            &b"Received: from x\r\n\tby y\r\nFrom: a@b\r\nX-Subject:no space\r\n\tfolded\r\nno colon here\r\nFrom: new\r\nTo: b@c\r\n"[..]
        );
    }

    #[test]
    fn a_field_is_added_below_so_many_others() {
        let mut block = HeaderBlock::parse(Bytes::from_static(b"A: 1\r\n 2\r\njunk\r\nB: 3\r\n"));
        for (name, place) in [("W", 0), ("X", 2), ("Y", 5), ("Z", 99)] {
            block.add_at(name, b"v", Edge::Below(place)).unwrap();
        }
        assert_eq!(
            block.to_bytes(),
            &b"W: v\r\nA: 1\r\n 2\r\nX: v\r\njunk\r\nB: 3\r\nY: v\r\nZ: v\r\n"[..]
        );
    }

    #[test]
    fn a_value_cannot_forge_a_line() {
        let mut block = block();
        for value in [
            &b"a\r\nBcc: x"[..],
            b"a\nBcc: x",
            b"a\rb",
            b"a\0b",
            b"a\r\n \r\n b",
        ] {
            assert_eq!(
                block.add("X", value, true),
                Err(HeaderError::Value),
                "{value:?}"
            );
        }
        for name in ["", "a b", "a:b", "a\r\nb", "\u{e9}"] {
            assert_eq!(block.add(name, b"x", true), Err(HeaderError::Name));
        }
        assert_eq!(
            block.add("X", &[b'x'; 999], true),
            Err(HeaderError::TooLong)
        );
        assert_eq!(block.to_bytes(), ODD);
    }

    #[test]
    fn a_message_does_not_go_on_with_a_field_of_ours() {
        let folded = HeaderBlock::parse(Bytes::from_static(b"\t; spf=pass\r\n x\r\nFrom: a@b\r\n"));
        let mut header = folded.clone();
        header.add("A", b"b", false).unwrap();
        assert_eq!(
            header.to_bytes(),
            &b"\t; spf=pass\r\n x\r\nFrom: a@b\r\nA: b\r\n"[..]
        );
        let mut header = folded;
        header.add("Results", b"none", true).unwrap();
        assert_eq!(
            header.to_bytes(),
            &b"Results: none\r\nX-Malformed-Header:\t; spf=pass\r\n x\r\nFrom: a@b\r\n"[..]
        );
    }

    #[test]
    fn end_of_header() {
        assert_eq!(HeaderBlock::find_end(b"A: b\r\n\r\nbody", 0), Some((6, 8)));
        assert_eq!(HeaderBlock::find_end(b"A: b\n\nbody", 0), Some((5, 6)));
        assert_eq!(HeaderBlock::find_end(b"\r\nbody", 0), Some((0, 2)));
        assert_eq!(HeaderBlock::find_end(b"A: b\r\n", 0), None);
        assert_eq!(HeaderBlock::find_end(b"A: b\r\n\r", 0), None);
    }

    proptest! {
        #[test]
        fn any_block_is_written_back_as_it_came(bytes in proptest::collection::vec(prop_oneof![Just(b'\r'), Just(b'\n'), Just(b':'), Just(b' '), any::<u8>()], 0..200)) {
            let block = HeaderBlock::parse(Bytes::from(bytes.clone()));
            prop_assert_eq!(block.to_bytes(), &bytes);
            // With an edit the layer is written, and what was received still stands in it whole.
            let mut edited = block.clone();
            edited.add("X-Top", b"1", true).unwrap();
            let written = edited.to_bytes();
            prop_assert!(written.ends_with(&bytes));
        }

        #[test]
        fn the_end_is_found_whatever_the_chunks(head in "([A-Z]: [a-z]{0,5}\r\n){0,4}", cut in 0usize..60) {
            let message = format!("{head}\r\nbody\r\n\r\nmore");
            let whole = HeaderBlock::find_end(message.as_bytes(), 0);
            prop_assert!(whole.is_some());
            let cut = cut.min(message.len());
            let found = HeaderBlock::find_end(&message.as_bytes()[..cut], 0)
                .or_else(|| HeaderBlock::find_end(message.as_bytes(), cut));
            prop_assert_eq!(found, whole);
        }
    }
}
