//! The data of a message, through reader and intake in any blocks, held against the whole of it looked at once: what is kept, what is found fault with,
//! and where the data ends.

use std::sync::{Arc, LazyLock};

use gatepost::config::BareNewlines;
use gatepost::message::Spool;
use gatepost::message::data::{DataReader, Framing, Seen, normalized};
use gatepost_protocol::Message;

use super::{Blocks, in_runtime};

/// A message is put into blocks of memory, the first of this length: behind so much filler, less a little, an input's bytes lie across its end.
const FIRST_BLOCK: usize = 8 << 10;
const FILLER: &[u8] = b"0123456789abcdef\r\n";

/// What becomes of a stream.
#[derive(PartialEq, Eq)]
struct Taken {
    message: Vec<u8>,
    seen: Seen,
    /// What belongs to the next command.
    rest: Vec<u8>,
}

impl std::fmt::Debug for Taken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Of the filler so much is enough.
        let start = self.message.len().saturating_sub(200);
        let (message, rest) = (&self.message[start..], &self.rest);
        let (message, rest) = (message.escape_ascii(), rest.escape_ascii());
        write!(
            f,
            "{:?}, from {start} on: {message} BEHIND: {rest}",
            self.seen
        )
    }
}

/// How a stream is read.
#[derive(Clone, Copy, Debug)]
struct Rules {
    framing: Framing,
    newlines: BareNewlines,
    max_line: usize,
}

/// Takes an input as: a byte of rules, the blocks it comes in, a byte for the filler before it, and the stream.
pub fn check(input: &[u8]) {
    let Some((rules, input)) = input.split_first() else {
        return;
    };
    let Some((mut blocks, input)) = Blocks::take(input) else {
        return;
    };
    let Some((filler, stream)) = input.split_first() else {
        return;
    };
    let filler = match filler {
        0..=127 => 0,
        less => FIRST_BLOCK + 128 - usize::from(*less),
    };
    let on_disk = rules & 0x40 != 0;
    let rules = Rules {
        framing: [
            Framing::Dots,
            Framing::Chunks,
            Framing::Dots,
            Framing::Binary,
        ][usize::from(rules & 3)],
        newlines: [
            BareNewlines::Reject,
            BareNewlines::Normalize,
            BareNewlines::Keep,
            BareNewlines::Normalize,
        ][usize::from(rules >> 2 & 3)],
        max_line: if rules & 0x20 == 0 { 1000 } else { 20 },
    };
    let mut whole: Vec<u8> = FILLER.iter().copied().cycle().take(filler).collect();
    whole.extend_from_slice(stream);
    if rules.framing == Framing::Dots {
        // Data without end is a connection that broke, of which nothing is kept.
        whole.extend_from_slice(b"\r\n.\r\n");
    }
    let spool = match on_disk {
        false => &IN_MEMORY,
        true => &ON_DISK,
    };
    let taken = in_runtime(read(&whole, filler, &mut blocks, rules, spool));
    assert_eq!(taken, reference(&whole, rules), "{rules:?}");
    if rules.framing == Framing::Dots {
        let end: [&[u8]; 2] = [b".\r\n", b"\r\n.\r\n"];
        let used = &whole[..whole.len() - taken.rest.len()];
        assert!(used == end[0] || used.ends_with(end[1]), "{rules:?}");
    }
}

static IN_MEMORY: LazyLock<Arc<Spool>> = LazyLock::new(|| spool(1 << 20));
static ON_DISK: LazyLock<Arc<Spool>> = LazyLock::new(|| spool(0));

fn spool(memory: usize) -> Arc<Spool> {
    let mut config = super::config();
    config.limits.memory_per_message = memory;
    config.limits.memory_for_messages = memory;
    Arc::new(Spool::open(&config).unwrap())
}

/// As the dialog does it; the filler in one block.
async fn read(
    whole: &[u8],
    filler: usize,
    blocks: &mut Blocks<'_>,
    rules: Rules,
    spool: &Arc<Spool>,
) -> Taken {
    let mut intake = spool.begin();
    let mut reader = DataReader::new(rules.framing, rules.newlines, rules.max_line);
    let normalizes = rules.newlines == BareNewlines::Normalize;
    let mut left = whole;
    let mut rest = Vec::new();
    while !left.is_empty() {
        let from = whole.len() - left.len();
        let room = intake.room().await;
        assert!(!room.is_empty());
        let length = if from < filler {
            filler - from
        } else {
            blocks.next()
        };
        let length = length.min(room.len()).min(left.len());
        room[..length].copy_from_slice(&left[..length]);
        left = &left[length..];
        let scan = intake.take(length, |block| reader.scan(block));
        if scan.ended {
            rest = [intake.give_back(), left].concat();
        }
        if scan.bare && normalizes {
            let lines = normalized(intake.fresh());
            intake.replace(&lines).await;
        }
        if scan.ended {
            break;
        }
    }
    if rules.framing != Framing::Dots {
        let scan = intake.take(0, |held| reader.end(held));
        if scan.bare && normalizes {
            let lines = normalized(intake.fresh());
            intake.replace(&lines).await;
        }
    }
    let seen = reader.seen();
    let size = intake.size();
    let message = intake.finish().await.unwrap();
    assert_eq!(message.size(), size);
    let message = message.read(0, usize::MAX).await.unwrap().to_vec();
    Taken {
        message,
        seen,
        rest,
    }
}

/// The whole at once, as RFC 5321 §4.1.1.4 and §4.5.2 tell it.
fn reference(whole: &[u8], rules: Rules) -> Taken {
    if rules.framing == Framing::Binary {
        return Taken {
            message: whole.to_vec(),
            seen: Seen::default(),
            rest: Vec::new(),
        };
    }
    let (stuffed, rest) = match rules.framing {
        Framing::Dots => until_end(whole),
        _ => (whole.to_vec(), Vec::new()),
    };
    let mut kept = Vec::new();
    let mut at_line_start = rules.framing == Framing::Dots;
    for (at, byte) in stuffed.iter().enumerate() {
        if !(at_line_start && *byte == b'.') {
            kept.push(*byte);
        }
        at_line_start = rules.framing == Framing::Dots && stuffed[..=at].ends_with(b"\r\n");
    }
    let (message, seen) = lines(&kept, rules);
    Taken {
        message,
        seen,
        rest,
    }
}

/// What stands before the end of data, with the CRLF that is part of both; and what stands behind.
fn until_end(whole: &[u8]) -> (Vec<u8>, Vec<u8>) {
    // The end of the command DATA is the first line's CRLF (RFC 5321 §4.1.1.4).
    let stream = [b"\r\n", whole].concat();
    let end = stream.windows(5).position(|bytes| bytes == b"\r\n.\r\n");
    let end = end.expect("the end of data was put there");
    (stream[2..end + 2].to_vec(), stream[end + 5..].to_vec())
}

/// What is kept of lines, and what is wrong with them.
fn lines(text: &[u8], rules: Rules) -> (Vec<u8>, Seen) {
    let normalizes = rules.newlines == BareNewlines::Normalize;
    let (mut message, mut seen) = (Vec::new(), Seen::default());
    let (mut at, mut line) = (0, 0);
    while at < text.len() {
        let (taken, is_end, counted) = match text[at..] {
            [b'\r', b'\n', ..] => (2, true, 2),
            [b'\r', ..] => {
                seen.bare_cr = true;
                (1, normalizes, if normalizes { 2 } else { 1 })
            }
            [b'\n', ..] => {
                seen.bare_lf = true;
                // Where it stays it is the sender's idea of a line's end, and not counted.
                (1, true, if normalizes { 2 } else { 0 })
            }
            _ => (1, false, 1),
        };
        line += counted;
        seen.long_line |= line > rules.max_line;
        match normalizes && is_end {
            true => message.extend_from_slice(b"\r\n"),
            false => message.extend_from_slice(&text[at..at + taken]),
        }
        if is_end {
            line = 0;
        }
        at += taken;
    }
    (message, seen)
}
