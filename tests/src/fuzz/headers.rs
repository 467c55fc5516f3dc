//! Header blocks, read, edited and written, held against a list of lines that is edited in the plainest way: a field that nobody touched is there byte for byte, and
//! nothing that is added, or comes in, becomes part of another field.

use bytes::Bytes;
use gatepost::message::trace;
use gatepost_protocol::HeaderBlock;
use gatepost_protocol::change::Edge;

use super::SEPARATOR;

/// Takes an input as: a header block, and edits, with a separator before each.
pub fn check(input: &[u8]) {
    let mut parts = input.split(|byte| *byte == SEPARATOR);
    let received = parts.next().unwrap_or_default();
    check_end(received);
    let block = HeaderBlock::parse(Bytes::copy_from_slice(received));
    let fields = fields(received);
    assert_eq!(block.to_bytes(), received);
    compare(&block, &fields);
    check_trace(&block, &fields, parts.clone().next().unwrap_or_default());
    let (mut edited, mut expected) = (block, fields);
    for edit in parts.take(16) {
        if make(edit, &mut edited, &mut expected) {
            assert_eq!(edited.to_bytes(), written(&expected));
        }
        compare(&edited, &expected);
    }
}

/// Lines, and those behind that begin with white space (RFC 5322 §2.2.3).
fn fields(block: &[u8]) -> Vec<Vec<u8>> {
    let mut fields: Vec<Vec<u8>> = Vec::new();
    for line in block.split_inclusive(|byte| *byte == b'\n') {
        match fields.last_mut() {
            Some(field) if is_blank(line.first()) => field.extend_from_slice(line),
            _ => fields.push(line.to_vec()),
        }
    }
    fields
}

fn is_blank(byte: Option<&u8>) -> bool {
    matches!(byte, Some(b' ' | b'\t'))
}

/// The fields as a block, after an edit.
fn written(fields: &[Vec<u8>]) -> Vec<u8> {
    let mut block = Vec::new();
    for field in fields {
        if !block.is_empty() {
            if !block.ends_with(b"\n") {
                block.extend_from_slice(b"\r\n");
            }
            if is_blank(field.first()) {
                block.extend_from_slice(b"X-Malformed-Header:");
            }
        }
        block.extend_from_slice(field);
    }
    block
}

fn name_of(field: &[u8]) -> &[u8] {
    let colon = field.iter().position(|byte| *byte == b':');
    field[..colon.unwrap_or(0)].trim_ascii_end()
}

fn value_of(field: &[u8]) -> &[u8] {
    let colon = field.iter().position(|byte| *byte == b':');
    let value = &field[colon.map_or(0, |colon| colon + 1)..];
    let value = value.strip_suffix(b"\n").unwrap_or(value);
    value.strip_suffix(b"\r").unwrap_or(value)
}

fn compare(block: &HeaderBlock, fields: &[Vec<u8>]) {
    let listed: Vec<_> = block.iter().collect();
    let expected: Vec<_> = fields
        .iter()
        .map(|field| (name_of(field), value_of(field)))
        .collect();
    assert_eq!(listed, expected);
    assert_eq!(block.len(), fields.len());
    // What is written is read as the same fields by whoever gets it.
    let again = HeaderBlock::parse(block.to_bytes());
    assert_eq!(
        again.len(),
        fields.len(),
        "{}",
        block.to_bytes().escape_ascii()
    );
    assert_eq!(again.to_bytes(), block.to_bytes());
    if let Some(name) = fields
        .iter()
        .find_map(|field| std::str::from_utf8(name_of(field)).ok())
    {
        let all: Vec<_> = block.all(name).collect();
        let same = |field: &&Vec<u8>| name_of(field).eq_ignore_ascii_case(name.as_bytes());
        let expected = fields
            .iter()
            .filter(same)
            .map(|field| value_of(field).trim_ascii());
        assert_eq!(all, expected.collect::<Vec<_>>());
    }
}

/// Makes an edit (a byte for what, a byte for where, a name, a colon, a value) in both; whether it was one.
fn make(edit: &[u8], block: &mut HeaderBlock, fields: &mut Vec<Vec<u8>>) -> bool {
    let [what, place, text @ ..] = edit else {
        return false;
    };
    let colon = text
        .iter()
        .position(|byte| *byte == b':')
        .unwrap_or(text.len());
    let Ok(name) = std::str::from_utf8(&text[..colon]) else {
        return false;
    };
    let value = text.get(colon + 1..).unwrap_or_default();
    let (line, nth) = (line(name, value), usize::from(*place));
    let positions: Vec<usize> = (0..fields.len())
        .filter(|at| name_of(&fields[*at]).eq_ignore_ascii_case(name.as_bytes()))
        .collect();
    let made = match what % 4 {
        0 => {
            let (edge, at) = match place {
                0 => (Edge::Top, 0),
                255 => (Edge::Bottom, fields.len()),
                _ => (Edge::Below(u32::from(*place)), nth.min(fields.len())),
            };
            if let Some(line) = &line {
                fields.insert(at, line.clone());
            }
            block.add_at(name, value, edge).is_ok()
        }
        1 => {
            match (&line, positions.get(nth.saturating_sub(1))) {
                (Some(line), Some(at)) => fields[*at].clone_from(line),
                (Some(line), None) => fields.push(line.clone()),
                (None, _) => {}
            }
            block.replace(name, value, nth).is_ok()
        }
        2 => {
            let doomed = match nth {
                0 => &positions[..],
                _ => positions.get(nth - 1..nth).unwrap_or_default(),
            };
            for at in doomed.iter().rev() {
                fields.remove(*at);
            }
            let removed = block.remove(name, (nth > 0).then_some(nth));
            assert_eq!(removed, doomed.len());
            return removed > 0;
        }
        // What has no name cannot be given another.
        _ if name.is_empty() => return false,
        _ => {
            for at in &positions {
                let rest = fields[*at][fields[*at].iter().position(|b| *b == b':').unwrap_or(0)..]
                    .to_vec();
                fields[*at] = [b"Original", &rest[..]].concat();
            }
            assert_eq!(block.rename(name, "Original"), positions.len());
            return !positions.is_empty();
        }
    };
    assert_eq!(made, line.is_some(), "{name:?}: {}", value.escape_ascii());
    made
}

/// `name: value` in lines of 998 bytes at most (RFC 5322 §2.1.1), if that is a field.
fn line(name: &str, value: &[u8]) -> Option<Vec<u8>> {
    let is_name = |byte: u8| byte.is_ascii_graphic() && byte != b':';
    if name.is_empty() || !name.bytes().all(is_name) {
        return None;
    }
    let mut lines = Vec::new();
    for line in [name.as_bytes(), b": ", value.trim_ascii()]
        .concat()
        .split(|byte| *byte == b'\n')
    {
        lines.push(line.strip_suffix(b"\r").unwrap_or(line).to_vec());
    }
    let is_folded = |line: &Vec<u8>| is_blank(line.first()) && !line.trim_ascii().is_empty();
    let is_fit =
        |line: &Vec<u8>| line.len() <= 998 && !line.iter().any(|byte| matches!(byte, 0 | b'\r'));
    let is_field = lines.iter().all(is_fit) && lines[1..].iter().all(is_folded);
    is_field.then(|| [lines.join(&b"\r\n"[..]), b"\r\n".to_vec()].concat())
}

/// Our own fields stand above all others, say what we say and nothing else, and nobody else's looks like them (RFC 8601 §5).
fn check_trace(block: &HeaderBlock, fields: &[Vec<u8>], instead: &[u8]) {
    const RESULTS: &str = "Authentication-Results";
    let mut block = block.clone();
    let instead = [String::from_utf8_lossy(instead).into_owned()];
    let found = ["spf=fail".to_owned()];
    let written = trace::add(
        &mut block,
        "mx.example.org",
        &found,
        "Received: from x",
        &instead,
    );
    let read = HeaderBlock::parse(block.to_bytes());
    assert_eq!(read.len(), fields.len() + 2);
    let mut all = read.iter();
    let (received, ours) = (all.next().unwrap(), all.next().unwrap());
    assert_eq!(received.0, b"Received");
    assert!(
        written.is_ok() || received.1 == b" from x",
        "{}",
        received.1.escape_ascii()
    );
    assert_eq!(
        ours,
        (RESULTS.as_bytes(), &b" mx.example.org;\r\n\tspf=fail"[..])
    );
    assert_eq!(read.all(RESULTS).count(), 1);
    for (field, (name, value)) in fields.iter().zip(all) {
        assert!(value == value_of(field) || is_blank(field.first()));
        assert!(name == name_of(field) || !name.eq_ignore_ascii_case(RESULTS.as_bytes()));
    }
}

/// The empty line, wherever the block is cut (RFC 5322 §2.1).
fn check_end(message: &[u8]) {
    let is_start = |at: usize| at == 0 || message[at - 1] == b'\n';
    let ends = (0..message.len())
        .filter(|at| is_start(*at))
        .find_map(|at| {
            let line = &message[at..];
            let length = [&b"\n"[..], b"\r\n"]
                .iter()
                .find(|end| line.starts_with(end))?
                .len();
            Some((at, at + length))
        });
    assert_eq!(HeaderBlock::find_end(message, 0), ends);
    for cut in [message.len() / 2, message.len() / 3] {
        let found = HeaderBlock::find_end(&message[..cut], 0);
        assert!(found.is_none() || found == ends);
        assert_eq!(found.or_else(|| HeaderBlock::find_end(message, cut)), ends);
    }
}
