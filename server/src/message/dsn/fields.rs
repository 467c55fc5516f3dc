//! What strangers wrote, made fit for a field of a notification.

/// The longest line that is written without a need (RFC 5322 §2.1.1).
const LINE: usize = 76;
/// The longest word that is not broken: with a field's name in front the line stays below 998 (RFC 5322 §2.1.1).
const WORD: usize = 900;
/// The longest text of a reason; a reply line has 512 octets (RFC 5321 §4.5.3.1.5), and there may be several.
const TEXT: usize = 4000;

/// One line of text: control characters and runs of white space become a space each, and what is too long is cut.
pub fn printable(text: &str) -> String {
    let mut line = String::with_capacity(text.len().min(TEXT));
    let words = text
        .split(|c: char| c.is_whitespace() || c.is_control())
        .filter(|word| !word.is_empty());
    for word in words {
        if line.len() + word.len() >= TEXT {
            break;
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    line
}

/// The text, in ASCII where it has to be: `?` stands for every other character.
pub fn ascii_if(must: bool, text: &str) -> String {
    match must {
        true => text
            .chars()
            .map(|c| if c.is_ascii() { c } else { '?' })
            .collect(),
        false => text.to_owned(),
    }
}

/// Breaks a text at its spaces into lines; `indent` begins each but the first. A word that is no word any more is broken anywhere.
pub fn fold(text: &str, indent: &str) -> String {
    let mut folded = String::with_capacity(text.len() + 16);
    let mut length = 0;
    for word in text.split(' ').flat_map(pieces) {
        if length > 0 && length + 1 + word.len() > LINE {
            folded.push_str("\r\n");
            folded.push_str(indent);
            length = indent.len();
        } else if length > 0 {
            folded.push(' ');
            length += 1;
        }
        folded.push_str(word);
        length += word.len();
    }
    folded
}

fn pieces(word: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(word);
    std::iter::from_fn(move || {
        let word = rest?;
        let mut cut = word.len().min(WORD);
        while !word.is_char_boundary(cut) {
            cut -= 1;
        }
        let (piece, behind) = word.split_at(cut);
        rest = Some(behind).filter(|behind| !behind.is_empty());
        Some(piece)
    })
}

/// Undoes xtext (RFC 3461 §4). What is none is kept as it is.
pub fn xtext_decoded(text: &str) -> String {
    let mut decoded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('+') {
        decoded.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        let byte = rest
            .get(..2)
            .filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()))
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match byte.filter(u8::is_ascii) {
            Some(byte) => {
                decoded.push(char::from(byte));
                rest = &rest[2..];
            }
            None => decoded.push('+'),
        }
    }
    decoded + rest
}

/// The value of Original-Recipient: ORCPT's type, and its address without xtext (RFC 3461 §6.3, RFC 6533 §3).
pub fn original_recipient(given: &str, utf8: bool) -> String {
    let (address_type, address) = given.split_once(';').unwrap_or(("rfc822", given));
    let address = printable(&xtext_decoded(address));
    if address_type.eq_ignore_ascii_case("utf-8") {
        let address = embedded_decoded(&address);
        return format!("utf-8; {}", if utf8 { address } else { embedded(&address) });
    }
    let address_type = ascii_if(true, &printable(address_type));
    format!("{address_type}; {}", ascii_if(true, &address))
}

/// The value of Final-Recipient: an address with its type.
pub fn typed_address(address: &str, utf8: bool) -> String {
    match (address.is_ascii(), utf8) {
        (true, _) => format!("rfc822; {address}"),
        (false, true) => format!("utf-8; {address}"),
        (false, false) => format!("utf-8; {}", embedded(address)),
    }
}

/// `utf-8-addr-xtext` (RFC 6533 §3): ASCII, with `\x{…}` for what is not, or could be misread.
fn embedded(address: &str) -> String {
    let mut coded = String::with_capacity(address.len());
    for c in address.chars() {
        match c {
            '+' | '=' | '\\' => coded.push_str(&format!("\\x{{{:X}}}", u32::from(c))),
            '!'..='~' => coded.push(c),
            _ => coded.push_str(&format!("\\x{{{:X}}}", u32::from(c))),
        }
    }
    coded
}

/// Undoes it. What is no such code, or stands for a control character or white space, is kept as it is.
fn embedded_decoded(address: &str) -> String {
    let mut decoded = String::with_capacity(address.len());
    let mut rest = address;
    while let Some(at) = rest.find("\\x{") {
        decoded.push_str(&rest[..at]);
        let code = &rest[at + 3..];
        let read = code.find('}').and_then(|end| {
            let number = u32::from_str_radix(code.get(..end)?, 16).ok()?;
            let c = char::from_u32(number).filter(|c| !c.is_control() && !c.is_whitespace())?;
            Some((c, end))
        });
        match read {
            Some((c, end)) => {
                decoded.push(c);
                rest = &code[end + 1..];
            }
            None => {
                decoded.push_str("\\x{");
                rest = code;
            }
        }
    }
    decoded + rest
}

/// Whether a value can stand behind In-Reply-To as it is: one `<left@right>` in printable ASCII, on one line (RFC 5322 §3.6.4).
pub fn is_message_id(value: &[u8]) -> bool {
    let inner = value
        .strip_prefix(b"<")
        .and_then(|rest| rest.strip_suffix(b">"));
    inner.is_some_and(|inner| {
        inner.len() <= 250
            && inner.contains(&b'@')
            && inner
                .iter()
                .all(|byte| byte.is_ascii_graphic() && !b"<>".contains(byte))
    })
}
