//! A dialogue file, read: the configuration at its head and the steps below the line `---`.

use std::fmt;
use std::path::{Path, PathBuf};

use super::pattern;

/// The name of the connection that a dialogue talks over unless it says otherwise.
pub const FIRST: &str = "first";

/// A dialogue, read but not played.
#[derive(Debug)]
pub struct Dialogue {
    /// The file, for messages.
    pub file: PathBuf,
    /// What stands above `---`: TOML, its comments included.
    pub head: String,
    /// What is to happen, in order.
    pub steps: Vec<Step>,
    /// Every line of the file, to show the place of a failure.
    pub lines: Vec<String>,
}

/// One thing that happens in a dialogue.
#[derive(Debug)]
pub struct Step {
    /// Its line in the file, from 1.
    pub line: usize,
    /// What it is.
    pub action: Action,
}

/// What can happen in a dialogue.
#[derive(Debug, PartialEq, Eq)]
pub enum Action {
    /// A line that the server is to say.
    Expect(String),
    /// A whole reply that the server is to give, of which only the code matters.
    ExpectCode(String),
    /// Bytes that the client sends.
    Send(Vec<u8>),
    /// A connection that is opened, perhaps from an address of ours, and used from here on.
    Connect {
        /// Its name.
        name: String,
        /// The client's address.
        from: Option<std::net::IpAddr>,
        /// Encrypted from the first byte on.
        tls: bool,
    },
    /// The client makes a handshake of TLS on the connection in use.
    StartTls,
    /// A connection, open already, that is used from here on.
    On(String),
    /// The client hangs up.
    Close,
    /// The server is to hang up, without another word.
    Closed,
    /// A line that must have been logged since the last one that was found.
    Logged(String),
    /// A line that must not be logged, from beginning to end.
    NeverLogged(String),
    /// A message that must have been delivered and that nobody has looked at.
    Mail {
        /// The Maildir, below the folder for mail; none: any.
        folder: Option<String>,
        /// Its lines.
        lines: Vec<String>,
    },
    /// There must be no message that nobody has looked at.
    NothingDelivered,
    /// There must be no file in the spool.
    SpoolEmpty,
}

/// A mistake in a dialogue file.
#[derive(Debug)]
pub struct Mistake {
    /// The file.
    pub file: PathBuf,
    /// The line, from 1.
    pub line: usize,
    /// What is wrong, and what to write.
    pub message: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file.display(), self.line, self.message)
    }
}

impl std::error::Error for Mistake {}

impl Dialogue {
    /// Reads a dialogue from a file.
    pub fn read(file: &Path) -> Result<Dialogue, Mistake> {
        let text = std::fs::read_to_string(file).map_err(|error| Mistake {
            file: file.to_owned(),
            line: 0,
            message: format!("cannot be read: {error}"),
        })?;
        Dialogue::parse(file, &text)
    }

    /// Reads a dialogue from its text; `file` is for messages only.
    pub fn parse(file: &Path, text: &str) -> Result<Dialogue, Mistake> {
        let mistake = |line: usize, message: String| Mistake {
            file: file.to_owned(),
            line,
            message,
        };
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        if !lines.first().is_some_and(|line| line.starts_with('#')) {
            let message = "the first line must be a comment that says what is tested: `# …`";
            return Err(mistake(1, message.to_owned()));
        }
        let Some(fence) = lines.iter().position(|line| line == "---") else {
            let message = "there is no line `---` between the configuration and the dialogue";
            return Err(mistake(lines.len(), message.to_owned()));
        };
        let mut steps: Vec<Step> = Vec::new();
        for (index, text) in lines.iter().enumerate().skip(fence + 1) {
            let line = index + 1;
            if text.trim().is_empty() || text.starts_with('#') {
                continue;
            }
            if let Some(block_line) = block_line(text) {
                match steps.last_mut() {
                    Some(Step {
                        action: Action::Mail { lines, .. },
                        ..
                    }) => lines.push(block_line.to_owned()),
                    _ => return Err(mistake(line, "`|` only goes on below `mail:`".to_owned())),
                }
                continue;
            }
            let action = action(text).map_err(|message| mistake(line, message))?;
            steps.push(Step { line, action });
        }
        if steps.is_empty() {
            let message = "nothing happens below `---`";
            return Err(mistake(lines.len(), message.to_owned()));
        }
        if let Some(step) = steps
            .iter()
            .find(|step| matches!(&step.action, Action::Mail { lines, .. } if lines.is_empty()))
        {
            let message = "`mail:` needs the message below it, each line behind `| `";
            return Err(mistake(step.line, message.to_owned()));
        }
        let head = lines[..fence].join("\n");
        Ok(Dialogue {
            file: file.to_owned(),
            head,
            steps,
            lines,
        })
    }
}

/// The text of a line of a block.
fn block_line(text: &str) -> Option<&str> {
    let rest = text.strip_prefix('|')?;
    Some(rest.strip_prefix(' ').unwrap_or(rest))
}

/// Reads one step.
fn action(text: &str) -> Result<Action, String> {
    // What `S:` and `C:` carry begins behind one space, and is taken as it stands: spaces at the end are the client's.
    let behind = |prefix: &str| {
        let rest = text.strip_prefix(prefix)?;
        Some(rest.strip_prefix(' ').unwrap_or(rest))
    };
    if let Some(reply) = behind("S:") {
        return match reply.strip_suffix("...") {
            Some(code) if code.len() == 3 && code.bytes().all(|byte| byte.is_ascii_digit()) => {
                Ok(Action::ExpectCode(code.to_owned()))
            }
            _ => Ok(Action::Expect(reply.to_owned())),
        };
    }
    if let Some(line) = behind("C:") {
        return Ok(Action::Send([line.as_bytes(), b"\r\n"].concat()));
    }
    if let Some(raw) = behind("C!") {
        return pattern::unescape(raw).map(Action::Send);
    }
    if let Some(repeated) = behind("C*") {
        let (count, raw) = repeated
            .split_once(' ')
            .ok_or("`C*` needs a number and a text: `C* 1000 x`")?;
        let count: usize = count
            .parse()
            .map_err(|_| format!("`{count}` is no number of times"))?;
        return Ok(Action::Send(pattern::unescape(raw)?.repeat(count)));
    }
    if let Some(line) = behind("log:") {
        return Ok(Action::Logged(line.to_owned()));
    }
    if let Some(line) = behind("never log:") {
        return Ok(Action::NeverLogged(line.to_owned()));
    }
    let words: Vec<&str> = text.split_whitespace().collect();
    match words[..] {
        ["connect", ref how @ ..] => connect(how).ok_or(
            "`connect` stands alone, or with a name, `from` and an address, `tls`, in this order",
        )?,
        ["starttls"] => Ok(Action::StartTls),
        ["on", name] => Ok(Action::On(name.to_owned())),
        ["close"] => Ok(Action::Close),
        ["closed"] => Ok(Action::Closed),
        ["mail:"] => Ok(mail(None)),
        ["mail", "in", folder] if folder.ends_with(':') => {
            Ok(mail(Some(folder.trim_end_matches(':').to_owned())))
        }
        ["nothing", "delivered"] => Ok(Action::NothingDelivered),
        ["spool", "empty"] => Ok(Action::SpoolEmpty),
        _ => Err(format!(
            "`{text}` means nothing here; a step is `S:`, `C:`, `C!`, `C*`, `connect`, `starttls`, `on`, `close`, `closed`, `log:`, `never log:`, \
             `mail:`, `nothing delivered` or `spool empty`"
        )),
    }
}

/// What stands behind `connect`; `None` where it makes no sense.
fn connect(how: &[&str]) -> Option<Result<Action, String>> {
    let (how, tls) = match how {
        [how @ .., "tls"] => (how, true),
        how => (how, false),
    };
    let (name, from) = match how {
        [] => (FIRST, None),
        ["from", from] => (FIRST, Some(from)),
        [name] => (*name, None),
        [name, "from", from] => (*name, Some(from)),
        _ => return None,
    };
    let from = from
        .map(|from| {
            from.parse()
                .map_err(|_| format!("`{from}` is no IP address"))
        })
        .transpose();
    Some(from.map(|from| Action::Connect {
        name: name.to_owned(),
        from,
        tls,
    }))
}

fn mail(folder: Option<String>) -> Action {
    Action::Mail {
        folder,
        lines: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Dialogue, Mistake> {
        Dialogue::parse(Path::new("x.smtp"), text)
    }

    #[test]
    fn every_step_is_read() {
        let dialogue = parse(concat!(
            "# All of it.\n[limits]\n---\n# the greeting\n\nS: 220 mx.example.org *\nS: 250...\nC: HELO  x \nC:\nC! a\\r\\n\\x80\n",
            "C* 3 ab\\n\nconnect\nconnect B from 127.0.0.2 tls\nstarttls\non first\nclose\nclosed\nlog: (rcpt) x: *\nnever log: y\n",
            "mail in bob:\n| To: bob\n|\n| ...\nmail:\n| *\nnothing delivered\nspool empty\n"
        ))
        .unwrap();
        assert_eq!(dialogue.head, "# All of it.\n[limits]");
        let actions: Vec<_> = dialogue.steps.into_iter().map(|step| step.action).collect();
        let text = str::to_owned;
        let connect = |name: &str, from: Option<&str>, tls: bool| Action::Connect {
            name: text(name),
            from: from.map(|from| from.parse().unwrap()),
            tls,
        };
        let mail = |folder: Option<&str>, lines: &[&str]| Action::Mail {
            folder: folder.map(text),
            lines: lines.iter().map(|line| text(line)).collect(),
        };
        assert_eq!(
            actions,
            [
                Action::Expect(text("220 mx.example.org *")),
                Action::ExpectCode(text("250")),
                Action::Send(b"HELO  x \r\n".to_vec()),
                Action::Send(b"\r\n".to_vec()),
                Action::Send(b"a\r\n\x80".to_vec()),
                Action::Send(b"ab\nab\nab\n".to_vec()),
                connect("first", None, false),
                connect("B", Some("127.0.0.2"), true),
                Action::StartTls,
                Action::On(text("first")),
                Action::Close,
                Action::Closed,
                Action::Logged(text("(rcpt) x: *")),
                Action::NeverLogged(text("y")),
                mail(Some("bob"), &["To: bob", "", "..."]),
                mail(None, &["*"]),
                Action::NothingDelivered,
                Action::SpoolEmpty,
            ]
        );
    }

    #[test]
    fn a_mistake_names_its_line() {
        for (text, expected) in [
            ("[limits]\n---\nS: 220", "x.smtp:1: the first line must be"),
            ("# x\nS: 220\n", "x.smtp:2: there is no line `---`"),
            ("# x\n---\n\n", "x.smtp:3: nothing happens"),
            (
                "# x\n---\nS: 220\nX: 220\n",
                "x.smtp:4: `X: 220` means nothing here",
            ),
            ("# x\n---\nS 220\n", "x.smtp:3: `S 220` means nothing here"),
            ("# x\n---\nC! \\y\n", "x.smtp:3: `\\y` means nothing here"),
            ("# x\n---\nC* x x\n", "x.smtp:3: `x` is no number of times"),
            (
                "# x\n---\n| x\n",
                "x.smtp:3: `|` only goes on below `mail:`",
            ),
            (
                "# x\n---\nmail:\nclose\n",
                "x.smtp:3: `mail:` needs the message",
            ),
            (
                "# x\n---\nconnect tls B\n",
                "x.smtp:3: `connect` stands alone",
            ),
            (
                "# x\n---\nconnect from x\n",
                "x.smtp:3: `x` is no IP address",
            ),
        ] {
            let mistake = parse(text).unwrap_err().to_string();
            assert!(mistake.starts_with(expected), "{mistake}");
        }
    }
}
