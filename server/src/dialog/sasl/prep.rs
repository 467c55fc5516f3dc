//! SASLprep (RFC 4013): the same name or password typed on two machines becomes the same text.
//!
//! All of it but the rule for text that mixes writing directions (RFC 3454 §6), which would need tables of its own; such text is let through.
//! Code points that Unicode 3.2 did not know yet are let through too, as RFC 3454 §7 has it for what is only compared.

use icu_normalizer::ComposingNormalizerBorrowed;

/// The prepared text. Nothing where that is empty, or has what SASLprep forbids.
pub fn prepare(text: &str) -> Option<String> {
    if text.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
        return (!text.is_empty()).then(|| text.to_owned());
    }
    let mapped: String = text.chars().filter_map(map).collect();
    let prepared = ComposingNormalizerBorrowed::new_nfkc().normalize(&mapped);
    let fine = !prepared.is_empty() && !prepared.chars().any(is_forbidden);
    fine.then(|| prepared.into_owned())
}

/// RFC 4013 §2.1: a space of any kind becomes the usual one (table C.1.2), and what only shapes the text goes (B.1). U+200B is in both tables;
/// the RFC names the space first.
fn map(char: char) -> Option<char> {
    match char {
        '\u{a0}' | '\u{1680}' | '\u{2000}'..='\u{200b}' | '\u{202f}' | '\u{205f}' | '\u{3000}' => {
            Some(' ')
        }
        '\u{ad}'
        | '\u{34f}'
        | '\u{1806}'
        | '\u{180b}'..='\u{180d}'
        | '\u{200c}'
        | '\u{200d}'
        | '\u{2060}'
        | '\u{fe00}'..='\u{fe0f}'
        | '\u{feff}' => None,
        _ => Some(char),
    }
}

/// RFC 4013 §2.3, by the tables of RFC 3454, without what is gone by now: mapped, normalised, or no `char` at all (surrogates, C.5).
fn is_forbidden(char: char) -> bool {
    // C.2.1 and the first of C.2.2: control characters.
    char.is_control()
        || matches!(
            char,
            // C.2.2: what else controls.
            '\u{6dd}' | '\u{70f}' | '\u{180e}' | '\u{2028}' | '\u{2029}' | '\u{2061}'..='\u{2063}'
            | '\u{206a}'..='\u{206f}' | '\u{1d173}'..='\u{1d17a}'
            // C.3: private use.
            | '\u{e000}'..='\u{f8ff}' | '\u{f0000}'..='\u{ffffd}' | '\u{100000}'..='\u{10fffd}'
            // C.4: no characters; those at each plane's end are below.
            | '\u{fdd0}'..='\u{fdef}'
            // C.6 and what is left of C.2.2: not for plain text.
            | '\u{fff9}'..='\u{fffd}'
            // C.7: descriptions of characters.
            | '\u{2ff0}'..='\u{2ffb}'
            // C.8: changes of how other text is shown.
            | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}'
            // C.9: tags.
            | '\u{e0001}' | '\u{e0020}'..='\u{e007f}'
        )
        || u32::from(char) & 0xfffe == 0xfffe
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 4013 §3, but for the last, which is of mixed directions.
    #[test]
    fn the_rfcs_examples() {
        let examples = [
            ("I\u{ad}X", Some("IX")),
            ("user", Some("user")),
            ("USER", Some("USER")),
            ("\u{aa}", Some("a")),
            ("\u{2168}", Some("IX")),
            ("\u{7}", None),
        ];
        for (raw, prepared) in examples {
            assert_eq!(prepare(raw).as_deref(), prepared, "{raw:?}");
        }
    }

    #[test]
    fn nothing_of_nothing() {
        assert_eq!(prepare(""), None);
        assert_eq!(prepare("\u{ad}\u{200d}"), None);
        assert_eq!(prepare("e\u{301}\u{3000}x").as_deref(), Some("\u{e9} x"));
        for forbidden in ["a\0", "a\u{85}", "\u{e000}", "\u{1fffe}", "\u{fffd}"] {
            assert_eq!(prepare(forbidden), None, "{forbidden:?}");
        }
    }
}
