//! Replies on the wire (RFC 5321 §4.2): a code, an enhanced code, and one or more lines.

use gatepost_protocol::EnhancedCode;

use crate::chain::Decision;

/// The longest reply line, its CRLF included (RFC 5321 §4.5.3.1.5).
const MAX_LINE: usize = 512;

/// A reply as written in the source, `550 5.7.1 Relaying denied`, taken apart. Greetings, 354 and 334 have no enhanced code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usual<'a> {
    /// The code.
    pub code: u16,
    /// The enhanced code (RFC 2034).
    pub enhanced: Option<EnhancedCode>,
    /// The text.
    pub text: &'a str,
}

impl<'a> Usual<'a> {
    /// Takes a reply apart.
    pub fn of(reply: &'a str) -> Usual<'a> {
        let (code, rest) = reply.split_once(' ').unwrap_or((reply, ""));
        let enhanced = rest
            .split_once(' ')
            .and_then(|(first, text)| Some((EnhancedCode::parse(first)?, text)));
        Usual {
            code: code.parse().unwrap_or(451),
            enhanced: enhanced.map(|(enhanced, _)| enhanced),
            text: enhanced.map_or(rest, |(_, text)| text),
        }
    }
}

/// Whether a reply as written in the source says no (RFC 5321 §4.2.1).
pub fn is_refusal(reply: &str) -> bool {
    matches!(reply.as_bytes().first(), Some(b'4' | b'5'))
}

/// Writes a reply of one line.
pub fn write(output: &mut Vec<u8>, reply: &str) {
    output.extend_from_slice(reply.as_bytes());
    output.extend_from_slice(b"\r\n");
}

/// Writes the reply that a plugin wanted, and the usual one where it wanted nothing in particular. Its code counts where it says the same
/// as the verdict: the class of the usual one, or any where `any_class`. Returns the code.
pub fn write_decided(
    output: &mut Vec<u8>,
    usual: Usual<'_>,
    decision: &Decision,
    any_class: bool,
) -> u16 {
    let wanted = decision
        .code
        .filter(|code| (200..600).contains(code) && (any_class || code / 100 == usual.code / 100));
    let code = wanted.unwrap_or(usual.code);
    let class = code / 100;
    let fits = |enhanced: &EnhancedCode| u16::from(enhanced.0) == class;
    let enhanced = decision
        .enhanced
        .filter(fits)
        .or(usual.enhanced.filter(fits));
    if decision.lines.iter().all(|line| line.trim().is_empty()) {
        write_lines(output, code, enhanced, &[usual.text]);
    } else {
        write_lines(output, code, enhanced, &decision.lines);
    }
    code
}

/// Writes a reply of several lines, the enhanced code on each (RFC 2034 §4).
pub fn write_lines(
    output: &mut Vec<u8>,
    code: u16,
    enhanced: Option<EnhancedCode>,
    lines: &[impl AsRef<str>],
) {
    for (index, line) in lines.iter().enumerate() {
        let between = if index + 1 < lines.len() { '-' } else { ' ' };
        let start = match enhanced {
            Some(enhanced) => format!("{code}{between}{enhanced} "),
            None => format!("{code}{between}"),
        };
        let text = line.as_ref();
        let text = &text[..text.floor_char_boundary(MAX_LINE - start.len() - 2)];
        output.extend_from_slice(start.as_bytes());
        output.extend_from_slice(text.as_bytes());
        output.extend_from_slice(b"\r\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decided(usual: &str, any_class: bool, decision: Decision) -> String {
        let mut output = Vec::new();
        write_decided(&mut output, Usual::of(usual), &decision, any_class);
        String::from_utf8(output).unwrap()
    }

    fn wanting(code: u16, enhanced: EnhancedCode, lines: &[&str]) -> Decision {
        let mut decision = Decision::declined();
        decision.code = Some(code);
        decision.enhanced = Some(enhanced);
        decision.lines = lines.iter().map(|line| (*line).to_owned()).collect();
        decision
    }

    #[test]
    fn a_plugin_words_the_reply_within_the_verdicts_class() {
        let usual = "550 5.7.1 Relaying denied";
        assert_eq!(
            decided(usual, false, Decision::declined()),
            "550 5.7.1 Relaying denied\r\n"
        );
        let own = wanting(553, EnhancedCode(5, 1, 1), &["No such user", "Look again"]);
        assert_eq!(
            decided(usual, false, own),
            "553-5.1.1 No such user\r\n553 5.1.1 Look again\r\n"
        );
        let softer = wanting(450, EnhancedCode(4, 2, 1), &["Later"]);
        assert_eq!(decided(usual, false, softer.clone()), "550 5.7.1 Later\r\n");
        assert_eq!(decided(usual, true, softer), "450 4.2.1 Later\r\n");
        assert_eq!(
            decided(
                usual,
                false,
                wanting(550, EnhancedCode(5, 0, 0), &["", " "])
            ),
            "550 5.0.0 Relaying denied\r\n"
        );
        assert_eq!(
            decided("354 Go ahead", false, Decision::declined()),
            "354 Go ahead\r\n"
        );
    }

    #[test]
    fn no_line_is_longer_than_512_bytes() {
        let long = "\u{e9}".repeat(400);
        let reply = decided(
            "550 5.7.1 x",
            false,
            wanting(550, EnhancedCode(5, 7, 1), &[&long]),
        );
        assert!(reply.len() == 511 || reply.len() == 512, "{}", reply.len());
        assert!(reply.ends_with("\u{e9}\r\n"));
    }
}
