//! How bytes are written in a dialogue file, and how a line with `*` is compared.

/// Bytes as text: what is printable stays, the rest and backslashes become escapes.
pub fn show(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '\\' => text.push_str("\\\\"),
                '\r' => text.push_str("\\r"),
                '\n' => text.push_str("\\n"),
                '\t' => text.push_str("\\t"),
                '\0' => text.push_str("\\0"),
                _ if character.is_control() => {
                    let mut utf8 = [0; 4];
                    for byte in character.encode_utf8(&mut utf8).bytes() {
                        text.push_str(&format!("\\x{byte:02x}"));
                    }
                }
                _ => text.push(character),
            }
        }
        for byte in chunk.invalid() {
            text.push_str(&format!("\\x{byte:02x}"));
        }
    }
    text
}

/// The bytes that a text with the escapes `\r \n \t \0 \xNN \\` stands for; an error is the escape that means nothing.
pub fn unescape(text: &str) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        bytes.extend_from_slice(&rest.as_bytes()[..at]);
        rest = &rest[at + 1..];
        let byte = match rest.chars().next() {
            Some('r') => b'\r',
            Some('n') => b'\n',
            Some('t') => b'\t',
            Some('0') => 0,
            Some('\\') => b'\\',
            Some('x') => {
                let byte = rest
                    .get(1..3)
                    .and_then(|hex| u8::from_str_radix(hex, 16).ok())
                    .ok_or("`\\x` needs two hexadecimal digits")?;
                rest = &rest[2..];
                byte
            }
            Some(other) => return Err(format!("`\\{other}` means nothing here")),
            None => return Err("a backslash at the end means nothing".to_owned()),
        };
        bytes.push(byte);
        rest = &rest[1..];
    }
    bytes.extend_from_slice(rest.as_bytes());
    Ok(bytes)
}

/// Whether a line as [`show`] writes it fits a pattern, in which `*` stands for anything and `\*` for a star.
pub fn fits(pattern: &str, line: &str) -> bool {
    let pieces = pieces(pattern);
    let (Some(first), Some(last)) = (pieces.first(), pieces.last()) else {
        return line.is_empty();
    };
    if pieces.len() == 1 {
        return line == first;
    }
    let Some(line) = line.strip_prefix(first.as_str()) else {
        return false;
    };
    let Some(mut line) = line.strip_suffix(last.as_str()) else {
        return false;
    };
    pieces[1..pieces.len() - 1]
        .iter()
        .all(|piece| match line.find(piece.as_str()) {
            Some(at) => {
                line = &line[at + piece.len()..];
                true
            }
            None => false,
        })
}

/// What stands between the stars.
fn pieces(pattern: &str) -> Vec<String> {
    let mut pieces = vec![String::new()];
    let mut characters = pattern.chars().peekable();
    while let Some(character) = characters.next() {
        let piece = pieces.last_mut().expect("there is always one piece");
        match character {
            '\\' if characters.next_if_eq(&'*').is_some() => piece.push('*'),
            '*' => pieces.push(String::new()),
            // An escaped backslash must not lend its second half to a star that follows.
            '\\' if characters.next_if_eq(&'\\').is_some() => piece.push_str("\\\\"),
            _ => piece.push(character),
        }
    }
    pieces
}

/// The line of a block that stands for any number of lines.
pub const ANY_LINES: &str = "...";

/// Compares lines with a block of patterns, in which `...` stands for any number of lines.
pub fn block_fits(patterns: &[String], lines: &[String]) -> bool {
    let Some((pattern, patterns)) = patterns.split_first() else {
        return lines.is_empty();
    };
    if pattern == ANY_LINES {
        return (0..=lines.len()).any(|skipped| block_fits(patterns, &lines[skipped..]));
    }
    match lines.split_first() {
        Some((line, lines)) => fits(pattern, line) && block_fits(patterns, lines),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_reads_back() {
        let bytes: Vec<u8> = (0..=255).chain("Grüße\\".bytes()).collect();
        let shown = show(&bytes);
        assert!(shown.is_ascii() || shown.contains("Grüße"));
        assert!(!shown.chars().any(char::is_control));
        assert_eq!(unescape(&shown).unwrap(), bytes);
        for wrong in ["\\q", "\\", "\\x1", "\\xzz", "\\xü"] {
            assert!(unescape(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn stars_stand_for_anything() {
        for (pattern, line) in [
            ("", ""),
            ("250 ok", "250 ok"),
            ("*", ""),
            ("*", "x"),
            ("250 *", "250 "),
            ("a*b*c", "a-b-b-c"),
            ("a*b", "ab"),
            ("\\*", "*"),
            ("a\\\\*", "a\\\\b"),
        ] {
            assert!(fits(pattern, line), "{pattern} {line}");
        }
        for (pattern, line) in [
            ("", "x"),
            ("250 ok", "250 ok "),
            ("a*a", "a"),
            ("a*b*c", "a-c-b"),
            ("\\*", "x"),
            ("*x", "xy"),
        ] {
            assert!(!fits(pattern, line), "{pattern} {line}");
        }
    }

    #[test]
    fn dots_stand_for_lines() {
        let lines = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        assert!(block_fits(&lines("a ... d"), &lines("a b c d")));
        assert!(block_fits(&lines("a ... b"), &lines("a b")));
        assert!(block_fits(&lines("..."), &[]));
        assert!(!block_fits(&lines("a ... d"), &lines("a b c")));
        assert!(!block_fits(&lines("a"), &lines("a b")));
    }
}
