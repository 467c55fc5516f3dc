//! The names of attachments in a message that comes in blocks: Content-Disposition `filename` and Content-Type `name`, of the message and of
//! every part (RFC 2183 §2.3, RFC 2045 §5.1). A part's header begins behind a line that starts with `--` and ends at an empty line.

/// The longest header field that is looked at.
const MAX_FIELD: usize = 64 * 1024;

/// Where we are in the message.
pub struct PartHeaders {
    line: Vec<u8>,
    field: Vec<u8>,
    in_header: bool,
}

impl Default for PartHeaders {
    fn default() -> PartHeaders {
        PartHeaders {
            line: Vec::new(),
            field: Vec::new(),
            in_header: true,
        }
    }
}

impl PartHeaders {
    /// Takes the next block; returns the names that are complete.
    pub fn feed(&mut self, block: &[u8]) -> Vec<String> {
        let mut names = Vec::new();
        for piece in block.split_inclusive(|byte| *byte == b'\n') {
            // Only the beginning of a long body line can matter.
            let room = MAX_FIELD.saturating_sub(self.line.len());
            self.line.extend_from_slice(&piece[..piece.len().min(room)]);
            if piece.ends_with(b"\n") {
                let line = std::mem::take(&mut self.line);
                self.take_line(line.trim_ascii_end(), &mut names);
            }
        }
        names
    }

    /// The message is over.
    pub fn finish(&mut self) -> Vec<String> {
        let mut names = Vec::new();
        let line = std::mem::take(&mut self.line);
        self.take_line(line.trim_ascii_end(), &mut names);
        self.take_line(b"", &mut names);
        names
    }

    fn take_line(&mut self, line: &[u8], names: &mut Vec<String>) {
        if !self.in_header {
            self.in_header = line.starts_with(b"--");
            return;
        }
        if line.starts_with(b" ") || line.starts_with(b"\t") {
            let room = MAX_FIELD.saturating_sub(self.field.len());
            self.field.extend_from_slice(&line[..line.len().min(room)]);
            return;
        }
        names.extend(attachment_name(&String::from_utf8_lossy(&self.field)));
        self.field = line.to_vec();
        self.in_header = !line.is_empty();
    }
}

/// The name that a header field gives, if it is one that can.
fn attachment_name(field: &str) -> Option<String> {
    let (name, value) = field.split_once(':')?;
    let wanted = match name.trim().to_ascii_lowercase().as_str() {
        "content-disposition" => "filename",
        "content-type" => "name",
        _ => return None,
    };
    parameters(value).find_map(|(key, value)| match key.strip_prefix(wanted)? {
        "" => Some(value),
        // RFC 2231 §4: charset'language'percent-encoded.
        "*" => Some(percent_decode(value.splitn(3, '\'').last()?)),
        _ => None,
    })
}

/// `; key=value` and `; key="value"`, keys in lower case.
fn parameters(value: &str) -> impl Iterator<Item = (String, String)> {
    let mut parts = vec![String::new()];
    let mut quoted = false;
    let mut characters = value.chars();
    while let Some(character) = characters.next() {
        let last = parts.len() - 1;
        match character {
            '"' => quoted = !quoted,
            '\\' if quoted => parts[last].extend(characters.next()),
            ';' if !quoted => parts.push(String::new()),
            other => parts[last].push(other),
        }
    }
    parts.into_iter().skip(1).filter_map(|part| {
        let (key, value) = part.split_once('=')?;
        Some((key.trim().to_ascii_lowercase(), value.trim().to_owned()))
    })
}

fn percent_decode(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let decoded = tail
            .first_chunk::<2>()
            .filter(|_| *first == b'%')
            .and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok());
        bytes.push(decoded.unwrap_or(*first));
        rest = if decoded.is_some() { &tail[2..] } else { tail };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
