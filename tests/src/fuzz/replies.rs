//! Where commands begin, told a second time: a client's bytes, walked through by the replies to them. What the server took for a command, or for part of
//! a message, must be what it was.

use std::collections::VecDeque;

/// What a conversation came to.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// Messages that were acknowledged.
    pub queued: usize,
    /// AUTH commands that succeeded.
    pub authenticated: usize,
}

/// A reply: its code, and its last line.
struct Reply {
    code: u16,
    text: String,
}

/// Reads what a client was told (RFC 5321 §4.2), and walks through what it said. Panics where the two do not fit.
pub fn told(output: &[u8], said: &[u8], is_lmtp: bool, max_line: usize) -> Told {
    let mut walk = Walk {
        left: said,
        replies: replies(output),
        told: Told::default(),
        is_over: false,
        is_lmtp,
        has_sender: false,
        accepted: 0,
        chunks: Chunks::None,
    };
    assert_eq!(walk.reply().map(|greeting| greeting.code), Some(220));
    while let Some(line) = walk.line() {
        if walk.command(line, max_line).is_none() || walk.is_over {
            break;
        }
    }
    assert!(
        walk.replies.is_empty(),
        "replies to nothing: {}",
        output.escape_ascii()
    );
    walk.told
}

/// Every line ends in CRLF, is 512 bytes long at most (§4.5.3.1.5), and printable.
fn replies(output: &[u8]) -> VecDeque<Reply> {
    let text = std::str::from_utf8(output).expect("replies are UTF-8");
    let mut replies = VecDeque::new();
    let mut open: Option<u16> = None;
    for line in text.split_inclusive('\n') {
        let line = line
            .strip_suffix("\r\n")
            .expect("a reply line ends in CRLF");
        assert!(
            line.len() <= 510 && !line.contains(char::is_control),
            "{line:?}"
        );
        let code: u16 = line[..3].parse().expect("a reply begins with its code");
        assert!(
            (200..600).contains(&code) && open.is_none_or(|open| open == code),
            "{line:?}"
        );
        match line.as_bytes().get(3) {
            Some(b'-') => open = Some(code),
            Some(b' ') => {
                open = None;
                let text = line.to_owned();
                replies.push_back(Reply { code, text });
            }
            _ => panic!("{line:?}"),
        }
    }
    assert!(open.is_none(), "a reply without its last line");
    replies
}

/// Where a transaction is with BDAT.
#[derive(Clone, Copy)]
enum Chunks {
    None,
    Coming,
    /// One was refused, and those behind it will be; so many recipients there were.
    Refused(usize),
}

struct Walk<'a> {
    left: &'a [u8],
    replies: VecDeque<Reply>,
    told: Told,
    is_over: bool,
    is_lmtp: bool,
    has_sender: bool,
    /// RCPT commands of the transaction that were accepted.
    accepted: usize,
    chunks: Chunks,
}

impl<'a> Walk<'a> {
    fn reply(&mut self) -> Option<Reply> {
        self.replies.pop_front()
    }

    /// The next line, with its end.
    fn line(&mut self) -> Option<&'a [u8]> {
        let end = self.left.iter().position(|byte| *byte == b'\n')?;
        Some(self.take(end + 1))
    }

    fn take(&mut self, length: usize) -> &'a [u8] {
        let (taken, left) = self.left.split_at(length);
        self.left = left;
        taken
    }

    /// The one reply to a line. Notes where it ends the conversation.
    fn answer(&mut self) -> Reply {
        let reply = self.reply().expect("every command gets a reply");
        // A limit says so itself, behind the reply to what went beyond it; but for this one, which is the reply.
        const OWN: &str = "421 4.7.0 Too many transactions";
        let is_cut_off = |next: &Reply| next.code == 421 && !next.text.starts_with(OWN);
        if self.replies.front().is_some_and(is_cut_off) {
            self.reply();
            self.is_over = true;
        }
        self.is_over |= matches!(reply.code, 221 | 421)
            || [
                "500 5.5.2 Line too long, and no end of it",
                "500 5.5.2 Lines end in CRLF",
                "500 5.5.2 That is no line",
                "502 5.5.1 This is SMTP, not HTTP",
            ]
            .iter()
            .any(|last| reply.text.starts_with(last));
        reply
    }

    /// A command, and what belongs to it. `None`: there is no more of it.
    fn command(&mut self, line: &[u8], max_line: usize) -> Option<()> {
        let text = line.strip_suffix(b"\r\n").unwrap_or_default();
        let is_fit = line.len() <= max_line && !text.iter().any(|byte| matches!(byte, b'\r' | 0));
        let text = if is_fit { text.trim_ascii_end() } else { &[] };
        let mut words = text.splitn(2, |byte| *byte == b' ');
        let verb = words.next().unwrap_or_default().to_ascii_uppercase();
        let argument = words.next().unwrap_or_default();
        if verb == b"BDAT" {
            return self.bdat(argument);
        }
        let reply = self.answer();
        match (verb.as_slice(), reply.code) {
            (b"MAIL" | b"RSET" | b"EHLO" | b"HELO" | b"LHLO", 250) => {
                (self.accepted, self.chunks) = (0, Chunks::None);
                self.has_sender = verb == b"MAIL";
            }
            (b"RCPT", 250) => self.accepted += 1,
            (b"DATA", 354) => {
                let length = end_of_data(self.left)?;
                self.take(length);
                self.end_of_message();
            }
            (b"AUTH", 334) => self.exchange()?,
            (b"AUTH", 235) => self.told.authenticated += 1,
            (_, 354 | 334 | 235 | 353) => panic!("{}", reply.text),
            _ => {}
        }
        Some(())
    }

    /// RFC 4954 §4: after 334 a line is a response.
    fn exchange(&mut self) -> Option<()> {
        loop {
            self.line()?;
            match self.answer().code {
                334 => {}
                code => {
                    self.told.authenticated += usize::from(code == 235);
                    return Some(());
                }
            }
        }
    }

    /// RFC 3030 §2: what the size says belongs to the command, whatever the reply.
    fn bdat(&mut self, argument: &[u8]) -> Option<()> {
        let text = String::from_utf8_lossy(argument);
        let words: Vec<&str> = text.split(' ').filter(|word| !word.is_empty()).collect();
        let is_last = match words.get(1..).unwrap_or_default() {
            [] => Some(false),
            [last] if last.eq_ignore_ascii_case("LAST") => Some(true),
            _ => None,
        };
        let digits = words
            .first()
            .is_none_or(|size| size.bytes().all(|b| b.is_ascii_digit()));
        let size = words.first().map(|size| size.parse::<u64>());
        let length = match size {
            None => {
                let reply = self.answer();
                assert!(
                    reply.text.starts_with("501 5.5.4 Syntax: BDAT"),
                    "{}",
                    reply.text
                );
                return Some(());
            }
            Some(Ok(size)) if digits && size <= i64::MAX as u64 => usize::try_from(size).ok()?,
            // Where the next command begins nobody knows.
            Some(_) => {
                let reply = self.answer();
                assert!(
                    reply.text.starts_with("501 5.5.4 Syntax: BDAT"),
                    "{}",
                    reply.text
                );
                return None;
            }
        };
        if length > self.left.len() {
            return None;
        }
        self.take(length);
        match (is_last, self.chunks) {
            (None, _) => {
                self.answer();
                self.refused();
            }
            (Some(false), _) => match (self.answer().code, self.chunks) {
                (250, Chunks::None | Chunks::Coming) => self.chunks = Chunks::Coming,
                (250, Chunks::Refused(_)) => panic!("a chunk is taken, and not the one before"),
                _ => self.refused(),
            },
            (Some(true), Chunks::Refused(recipients)) => {
                (self.has_sender, self.accepted) = (true, recipients);
                self.end_of_message();
            }
            // Nothing was begun that could have recipients.
            (Some(true), _) if !self.has_sender => drop(self.answer()),
            (Some(true), _) => self.end_of_message(),
        }
        Some(())
    }

    fn refused(&mut self) {
        self.chunks = match self.chunks {
            Chunks::Refused(recipients) => Chunks::Refused(recipients),
            _ => Chunks::Refused(self.accepted),
        };
        (self.has_sender, self.accepted) = (false, 0);
    }

    /// The replies to a message.
    fn end_of_message(&mut self) {
        let recipients = std::mem::take(&mut self.accepted);
        (self.has_sender, self.chunks) = (false, Chunks::None);
        let mut times = 1;
        if self.is_lmtp {
            // None where there is no recipient (RFC 2033 §4.3).
            times = recipients;
        } else if self.replies.front().is_some_and(|first| first.code == 353) {
            self.reply();
            times = recipients + 1;
        }
        let mut codes = Vec::new();
        for _ in 0..times {
            codes.push(self.answer().code);
        }
        assert!(codes.iter().all(|code| *code == codes[0]), "{codes:?}");
        self.told.queued += usize::from(codes.first() == Some(&250));
    }
}

/// How long the data is, its end included (RFC 5321 §4.1.1.4). `None`: it has no end.
fn end_of_data(data: &[u8]) -> Option<usize> {
    if data.starts_with(b".\r\n") {
        return Some(3);
    }
    let end = data.windows(5).position(|bytes| bytes == b"\r\n.\r\n")?;
    Some(end + 5)
}
