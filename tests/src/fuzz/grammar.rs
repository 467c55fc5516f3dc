//! The grammar of RFC 5321 §4.1.2 and RFC 6531 §3.3 once more, written from left to right as the RFCs have it, to hold the parser against. Where the
//! parser is stricter or laxer than the RFC on purpose, so is this, and says so.

/// The longest mailbox, local part, domain and label, in octets.
const MAX: (usize, usize, usize, usize) = (254, 64, 255, 63);

/// Reads a path with its angle brackets: the mailbox in it, empty for the null path. `None`: it is none.
pub fn path(text: &str, utf8: bool) -> Option<&str> {
    let inner = text.strip_prefix('<')?;
    let (mailbox, after) = if inner.starts_with('@') {
        let mailbox = route(inner)?;
        (mailbox, end_of_mailbox(mailbox, utf8)?)
    } else if let Some(after) = inner.strip_prefix('>') {
        return after.is_empty().then_some("");
    } else {
        let start = inner.get(..10).unwrap_or_default();
        if start.eq_ignore_ascii_case("postmaster") && &inner[10..] == ">" {
            return Some(start);
        }
        (inner, end_of_mailbox(inner, utf8)?)
    };
    let mailbox = &mailbox[..mailbox.len() - after.len()];
    (after == ">" && mailbox.len() <= MAX.0).then_some(mailbox)
}

/// `A-d-l ":"`; gives what follows.
fn route(mut text: &str) -> Option<&str> {
    loop {
        text = domain(text.strip_prefix('@')?, false)?;
        match text.strip_prefix(',') {
            Some(more) => text = more,
            None => return text.strip_prefix(':'),
        }
    }
}

/// `Mailbox`; gives what follows.
fn end_of_mailbox(text: &str, utf8: bool) -> Option<&str> {
    let after = match text.strip_prefix('"') {
        Some(inner) => quoted(inner, utf8)?,
        None => dot_string(text, utf8)?,
    };
    if text.len() - after.len() > MAX.1 {
        return None;
    }
    let host = after.strip_prefix('@')?;
    match host.strip_prefix('[') {
        Some(inner) => literal(inner),
        None => domain(host, utf8),
    }
}

fn dot_string(mut text: &str, utf8: bool) -> Option<&str> {
    let is_atext = |c: char| {
        c.is_ascii_alphanumeric() || "!#$%&'*+-/=?^_`{|}~".contains(c) || utf8 && beyond_ascii(c)
    };
    loop {
        let after = text.trim_start_matches(is_atext);
        if after.len() == text.len() {
            return None;
        }
        match after.strip_prefix('.') {
            Some(more) => text = more,
            None => return Some(after),
        }
    }
}

fn quoted(text: &str, utf8: bool) -> Option<&str> {
    let mut characters = text.chars();
    loop {
        match characters.next()? {
            '"' => return Some(characters.as_str()),
            '\\' if !matches!(characters.next()?, ' '..='~') => return None,
            ' '..='~' => {}
            c if utf8 && beyond_ascii(c) => {}
            _ => return None,
        }
    }
}

/// `Domain`, with underscores, which real hosts have.
fn domain(text: &str, utf8: bool) -> Option<&str> {
    let is_of_label = |c: char| {
        c.is_ascii_alphanumeric()
            || c == '-'
            || c == '_'
            // Nothing that IDNA or a reader takes for a dot or a space.
            || utf8 && beyond_ascii(c) && !c.is_whitespace() && !"\u{3002}\u{ff0e}\u{ff61}".contains(c)
    };
    let mut rest = text;
    loop {
        let after = rest.trim_start_matches(is_of_label);
        let label = &rest[..rest.len() - after.len()];
        let longest = if label.is_ascii() { MAX.3 } else { 252 };
        if label.is_empty()
            || label.len() > longest
            || label.starts_with('-')
            || label.ends_with('-')
        {
            return None;
        }
        match after.strip_prefix('.') {
            Some(more) => rest = more,
            None => return (text.len() - after.len() <= MAX.2).then_some(after),
        }
    }
}

/// What is in the brackets of an address literal, and the closing one.
fn literal(text: &str) -> Option<&str> {
    let (inner, after) = text.split_once(']')?;
    let is_address = match inner.split_once(':') {
        None => inner.parse::<std::net::Ipv4Addr>().is_ok(),
        Some((tag, address)) if tag.eq_ignore_ascii_case("ipv6") => {
            address.parse::<std::net::Ipv6Addr>().is_ok()
        }
        // Without the characters at which others would cut the address.
        Some((tag, content)) => {
            domain(tag, false) == Some("")
                && !content.is_empty()
                && content
                    .chars()
                    .all(|c| c.is_ascii_graphic() && !"[\\]@>\"".contains(c))
        }
    };
    is_address.then_some(after)
}

fn beyond_ascii(c: char) -> bool {
    !c.is_ascii() && !c.is_control()
}
