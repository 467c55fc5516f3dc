//! A message cut into blocks of whole lines, for plugins that look at it as it comes in (docs/protocol.md §5.6).

use memchr::{memchr, memrchr};

/// How much plugins are shown at once.
const BLOCK: usize = 64 * 1024;
/// A line longer than this is shown in pieces, and so is what has no lines (RFC 3030 §3): it has to fit into a frame beside the session.
const LONGEST: usize = 512 * 1024;

/// What came of a message, and was not shown to plugins.
#[derive(Default)]
pub(super) struct Lines {
    waiting: Vec<u8>,
    /// Where in the message it begins.
    offset: u64,
}

impl Lines {
    /// Takes what came.
    pub fn add(&mut self, fresh: &[u8]) {
        self.waiting.extend_from_slice(fresh);
    }

    /// The next block, and where in the message it begins; `None` where there is too little for one yet. `is_last`: nothing more comes.
    pub fn next(&mut self, is_last: bool) -> Option<(Vec<u8>, u64)> {
        let length = self.length(is_last)?;
        let rest = self.waiting.split_off(length);
        let offset = self.offset;
        self.offset += length as u64;
        Some((std::mem::replace(&mut self.waiting, rest), offset))
    }

    /// Lines end in LF here: behind CR as a rule, alone where the operator keeps that (`bare_newlines`).
    fn length(&self, is_last: bool) -> Option<usize> {
        let waiting = &*self.waiting;
        let all = (is_last && !waiting.is_empty()).then_some(waiting.len());
        if waiting.len() < BLOCK || is_last && waiting.len() == BLOCK {
            return all;
        }
        let (block, rest) = waiting.split_at(BLOCK);
        if let Some(end) = memrchr(b'\n', block) {
            return Some(end + 1);
        }
        let rest = &rest[..rest.len().min(LONGEST - BLOCK)];
        match memchr(b'\n', rest) {
            Some(end) => Some(BLOCK + end + 1),
            None if waiting.len() >= LONGEST => Some(LONGEST),
            None => all,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Shows a message that comes in pieces of this size.
    fn shown(message: &[u8], piece: usize) -> Vec<Vec<u8>> {
        let (mut lines, mut blocks, mut at) = (Lines::default(), Vec::new(), 0);
        for piece in message.chunks(piece) {
            lines.add(piece);
            blocks.extend(std::iter::from_fn(|| lines.next(false)));
        }
        blocks.extend(std::iter::from_fn(|| lines.next(true)));
        let blocks = blocks.into_iter().map(|(block, offset)| {
            assert_eq!(offset, at);
            at += block.len() as u64;
            block
        });
        blocks.collect()
    }

    fn lengths(message: &[u8]) -> Vec<usize> {
        let whole = shown(message, message.len().max(1));
        assert_eq!(whole.concat(), message);
        whole.iter().map(Vec::len).collect()
    }

    #[test]
    fn blocks_are_whole_lines() {
        let line = |length: usize| [&vec![b'x'; length - 2], &b"\r\n"[..]].concat();
        assert_eq!(lengths(b""), [0; 0]);
        assert_eq!(lengths(b"no line end"), [11]);
        assert_eq!(lengths(&line(BLOCK)), [BLOCK]);
        let thousands = line(1000).repeat(200);
        assert_eq!(lengths(&thousands), [65_000, 65_000, 65_000, 5000]);
        let long = [line(1000), line(BLOCK + 1), line(7)].concat();
        assert_eq!(lengths(&long), [1000, BLOCK + 1, 7]);
        let longest = [vec![b'x'; LONGEST + 10], line(7)].concat();
        assert_eq!(lengths(&longest), [LONGEST, 17]);
    }

    proptest! {
        #[test]
        fn how_a_message_is_cut_up_does_not_matter(
            lengths in prop::collection::vec(1usize..40_000, 0..20),
            piece in 1usize..100_000,
        ) {
            let message: Vec<u8> = lengths
                .iter()
                .flat_map(|length| [&vec![b'x'; *length], &b"\n"[..]].concat())
                .collect();
            let blocks = shown(&message, piece);
            for block in &blocks {
                prop_assert!(block.len() <= BLOCK && block.ends_with(b"\n"));
            }
            prop_assert_eq!(blocks.concat(), message);
        }
    }
}
