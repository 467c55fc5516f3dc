//! CRLF to LF, across block boundaries.

use bytes::Bytes;

/// Turns CRLF into LF, or leaves everything as it is.
pub struct LineEnds {
    lf: bool,
    held: bool,
}

impl LineEnds {
    pub fn new(lf: bool) -> LineEnds {
        LineEnds { lf, held: false }
    }

    /// The next block. A CR at its end is held back until it is known what follows.
    pub fn convert(&mut self, block: Bytes) -> Bytes {
        if !self.lf || block.is_empty() {
            return block;
        }
        let mut out = Vec::with_capacity(block.len() + 1);
        if self.held && block[0] != b'\n' {
            out.push(b'\r');
        }
        self.held = block.ends_with(b"\r");
        let mut rest = &block[..block.len() - usize::from(self.held)];
        while let Some(at) = memchr::memchr(b'\r', rest) {
            out.extend_from_slice(&rest[..at]);
            if rest.get(at + 1) != Some(&b'\n') {
                out.push(b'\r');
            }
            rest = &rest[at + 1..];
        }
        out.extend_from_slice(rest);
        out.into()
    }

    /// What was held back.
    pub fn finish(&mut self) -> Option<Bytes> {
        std::mem::take(&mut self.held).then(|| Bytes::from_static(b"\r"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn whatever_the_blocks(
            bytes in proptest::collection::vec(prop_oneof![Just(b'\r'), Just(b'\n'), Just(b'x')], 0..40),
            cut in 0usize..40,
        ) {
            let text = String::from_utf8(bytes).unwrap();
            let (first, second) = text.split_at(cut.min(text.len()));
            let convert = |lf: bool| {
                let mut line_ends = LineEnds::new(lf);
                let mut out = Vec::new();
                for part in [first, second] {
                    out.extend_from_slice(&line_ends.convert(Bytes::copy_from_slice(part.as_bytes())));
                }
                out.extend(line_ends.finish().into_iter().flatten());
                String::from_utf8(out).unwrap()
            };
            prop_assert_eq!(convert(true), text.replace("\r\n", "\n"));
            prop_assert_eq!(convert(false), text);
        }
    }
}
