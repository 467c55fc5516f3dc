//! A client of SMTP (RFC 5321), as much of it as handing one message to a known server needs.
//!
//! The message counts as handed over when the server answered the end of data with 2xx, and then to all recipients: if it refuses one of them nothing is
//! sent. Nothing that is not a line of its own is ever sent as one: a message with a lone CR or LF, or with a NUL that hides a dot, is refused here, since servers that take those for
//! line ends, or drop it, would read commands in it.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use gatepost_protocol::delivered::{self, Delivered};
use gatepost_protocol::{Address, Departure, Transaction};
use tokio::net::TcpStream;

use super::envelope::{self, Offers};
use crate::plugins::conversation::{Conversation, Reply, Trouble, within};

/// Waits of RFC 5321 §4.5.3.2.
#[derive(Clone, Debug)]
pub struct Timeouts {
    /// Until the connection stands. TCP's own patience is longer than our client's.
    pub connect: Duration,
    /// §4.5.3.2.1 to .3: the greeting, MAIL and RCPT, and what has no wait of its own.
    pub command: Duration,
    /// §4.5.3.2.4: until the server says 354.
    pub data: Duration,
    /// §4.5.3.2.5: sending a block.
    pub block: Duration,
    /// §4.5.3.2.6: until the server answers the end of data.
    pub end: Duration,
}

impl Default for Timeouts {
    fn default() -> Timeouts {
        let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
        Timeouts {
            connect: Duration::from_secs(30),
            command: minutes(5),
            data: minutes(2),
            block: minutes(3),
            end: minutes(10),
        }
    }
}

/// Why a message was not handed over.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The connection or the conversation failed: nobody said no.
    #[error("{0}")]
    Trouble(String),
    /// Our client hung up, and the message was not ended.
    #[error("the client is gone")]
    Departed,
    /// The server said no.
    #[error("{command} was refused: {} {}", reply.code, reply.text)]
    Refused {
        /// To what.
        command: String,
        /// In which words.
        reply: Reply,
    },
    /// The message has a CR or LF that stands alone.
    #[error(
        "the message has a CR or LF that stands alone, which is never forwarded (RFC 5321 section 2.3.8)"
    )]
    BareNewline,
    /// A line of the message begins with a NUL: a server that drops it may see a dot alone on a line behind it.
    #[error(
        "a line of the message begins with a NUL, which is never forwarded: behind it a dot may end the data for some (RFC 5321 section 4.5.2)"
    )]
    Nul,
    /// The message is binary, and the server takes no such.
    #[error(
        "the message is binary (BODY=BINARYMIME), and the server does not offer CHUNKING and BINARYMIME (RFC 3030 section 3)"
    )]
    Binary,
    /// The message is larger than the server takes (RFC 1870).
    #[error("the message has {size} bytes, and the server takes {limit}")]
    TooLarge {
        /// Ours.
        size: u64,
        /// Theirs.
        limit: u64,
    },
    /// The message may only travel under TLS (RFC 8689), which we cannot speak.
    #[error("the message asks for TLS on its whole way, which is not there yet")]
    NeedsTls,
    /// An address, or else the header block, is not ASCII (RFC 6531).
    #[error("{} outside ASCII, and the server does not offer SMTPUTF8", what_is(.0.as_ref()))]
    NeedsUtf8(Option<Address>),
}

impl From<Trouble> for Failure {
    fn from(Trouble(reason): Trouble) -> Failure {
        Failure::Trouble(reason)
    }
}

fn what_is(address: Option<&Address>) -> String {
    address.map_or_else(
        || "the header block is".to_owned(),
        |address| format!("{address} is"),
    )
}

/// A message was handed over.
#[derive(Debug)]
pub struct Sent {
    /// What the server answered to it.
    pub reply: Reply,
    /// It offers DSN, and was passed what our client asked for (RFC 3461 §5.2.1).
    pub dsn: bool,
}

/// Commands that are sent before their replies are read: few enough that neither side's buffers fill while both write (RFC 2920 §3.1).
const PIPELINE: usize = 50;

/// Hands a message to `server:port` and returns what the server answered to it. `hostname` is our name,
/// `transaction` has at least one recipient. Where our client departs before the message is ended it is not.
pub async fn send(
    server: &str,
    port: u16,
    hostname: &str,
    transaction: &Transaction,
    content: Delivered<'_>,
    timeouts: &Timeouts,
    departure: &Departure,
) -> Result<Sent, Failure> {
    envelope::check(transaction)?;
    let connecting = TcpStream::connect((server, port));
    let stream = within(timeouts.connect, "to connect", connecting).await?;
    // Commands and their answers are small and waited for.
    stream.set_nodelay(true).map_err(trouble("connecting"))?;
    let mut client = Client {
        conversation: Conversation::new(stream),
        timeouts,
        departure,
        in_message: false,
    };
    let sent = client.hand_over(hostname, transaction, content).await;
    // Whatever became of the message, its fate does not hang on this. In the middle of a message it would be one of its lines: there the end of the
    // connection says that the rest does not come.
    if !client.in_message {
        let _ = client.conversation.stream().try_write(b"QUIT\r\n");
    }
    sent
}

struct Client<'a> {
    conversation: Conversation<TcpStream>,
    timeouts: &'a Timeouts,
    departure: &'a Departure,
    in_message: bool,
}

impl Client<'_> {
    async fn hand_over(
        &mut self,
        hostname: &str,
        transaction: &Transaction,
        content: Delivered<'_>,
    ) -> Result<Sent, Failure> {
        let command = self.timeouts.command;
        let lines = self.conversation.greet("EHLO", hostname, command).await?;
        let mut offers = Offers::default();
        for line in &lines {
            offers.read(line);
        }
        let size = content.remaining();
        if let Some(Some(limit)) = offers.size
            && size > limit
            && limit > 0
        {
            return Err(Failure::TooLarge { size, limit });
        }
        let is_binary = delivered::is_binary(transaction);
        if is_binary && !(offers.chunking && offers.binary) {
            return Err(Failure::Binary);
        }
        self.envelope(transaction, &offers, size).await?;
        if is_binary {
            // Nothing in the octets can end them, whatever the server thinks of lines.
            self.in_message = true;
            let bdat = format!("BDAT {size} LAST\r\n");
            self.conversation.write(bdat.as_bytes(), command).await?;
            self.octets(content).await?;
        } else {
            let reply = self.conversation.ask("DATA", self.timeouts.data).await?;
            if reply.code != 354 {
                return Err(refused("DATA", reply));
            }
            self.in_message = true;
            self.content(content).await?;
        }
        self.in_message = false;
        let reply = self
            .conversation
            .reply("an answer to the message", self.timeouts.end)
            .await?;
        match reply.code {
            200..=299 => Ok(Sent {
                reply,
                dsn: offers.dsn,
            }),
            _ => Err(refused("the message", reply)),
        }
    }

    /// MAIL and every RCPT. One refusal is a refusal of the whole; one that is for good goes before one that is for now, since trying again cannot mend it.
    async fn envelope(
        &mut self,
        transaction: &Transaction,
        offers: &Offers,
        size: u64,
    ) -> Result<(), Failure> {
        let commands = envelope::commands(transaction, offers, size)?;
        let at_once = if offers.pipelining { PIPELINE } else { 1 };
        let mut refusals = Vec::new();
        for group in commands.chunks(at_once) {
            let lines = group
                .iter()
                .map(|command| format!("{}{}\r\n", command.name, command.parameters));
            let lines: String = lines.collect();
            let wait = self.timeouts.command;
            self.conversation.write(lines.as_bytes(), wait).await?;
            for command in group {
                let reply = self.conversation.reply(&command.name, wait).await?;
                if reply.code / 100 != 2 {
                    refusals.push((&command.name, reply));
                }
            }
            // Without its sender accepted, every recipient is refused for the wrong reason.
            if refusals
                .first()
                .is_some_and(|(command, _)| *command == &commands[0].name)
            {
                refusals.truncate(1);
                break;
            }
        }
        let for_good = refusals.iter().position(|(_, reply)| reply.code / 100 == 5);
        match refusals.into_iter().nth(for_good.unwrap_or(0)) {
            Some((command, reply)) => Err(refused(command, reply)),
            None => Ok(()),
        }
    }

    async fn content(&mut self, mut content: Delivered<'_>) -> Result<(), Failure> {
        let mut lines = Lines::new();
        let mut out = Vec::new();
        let read = trouble("reading the message");
        while let Some(block) = content.next().await.map_err(&read)? {
            out.clear();
            lines.stuff(&block, &mut out)?;
            self.conversation.write(&out, self.timeouts.block).await?;
        }
        out.clear();
        lines.finish(&mut out)?;
        self.before_commit()?;
        Ok(self.conversation.write(&out, self.timeouts.block).await?)
    }

    async fn octets(&mut self, mut content: Delivered<'_>) -> Result<(), Failure> {
        let read = trouble("reading the message");
        while let Some(block) = content.next().await.map_err(&read)? {
            if content.remaining() == 0 {
                self.before_commit()?;
            }
            self.conversation.write(&block, self.timeouts.block).await?;
        }
        Ok(())
    }

    /// What comes next makes the message the server's (RFC 5321 §6.1): the last moment to spare the recipients a duplicate.
    fn before_commit(&self) -> Result<(), Failure> {
        match self.departure.has_happened() {
            true => Err(Failure::Departed),
            false => Ok(()),
        }
    }
}

fn trouble(what: &str) -> impl Fn(io::Error) -> Failure {
    move |error| Failure::Trouble(format!("{what}: {error}"))
}

fn refused(command: &str, reply: Reply) -> Failure {
    // 1xx and 3xx, and 2xx to DATA, mean nothing here, and nothing that a client could act on.
    if !matches!(reply.code, 400..=599) {
        return Failure::Trouble(format!(
            "to {command} it says {} {}",
            reply.code, reply.text
        ));
    }
    Failure::Refused {
        command: command.to_owned(),
        reply,
    }
}

/// Lines on their way into DATA: a dot in front of a dot (RFC 5321 §4.5.2), no CR or LF alone, and no NUL that hides a dot.
struct Lines {
    at_start: bool,
    held_cr: bool,
}

impl Lines {
    fn new() -> Lines {
        Lines {
            at_start: true,
            held_cr: false,
        }
    }

    fn stuff(&mut self, block: &Bytes, out: &mut Vec<u8>) -> Result<(), Failure> {
        let mut rest = &block[..];
        if self.held_cr && !rest.is_empty() {
            rest = rest.strip_prefix(b"\n").ok_or(Failure::BareNewline)?;
            out.extend_from_slice(b"\r\n");
            (self.held_cr, self.at_start) = (false, true);
        }
        while let Some(first) = rest.first() {
            match *first {
                b'.' if self.at_start => out.push(b'.'),
                // A dot in front would be transparent too, but alone on its line to servers that stop reading a line at NUL.
                0 if self.at_start => return Err(Failure::Nul),
                _ => {}
            }
            self.at_start = false;
            let Some(at) = memchr::memchr2(b'\r', b'\n', rest) else {
                out.extend_from_slice(rest);
                break;
            };
            out.extend_from_slice(&rest[..at]);
            match &rest[at..] {
                [b'\r', b'\n', behind @ ..] => {
                    out.extend_from_slice(b"\r\n");
                    self.at_start = true;
                    rest = behind;
                }
                [b'\r'] => {
                    self.held_cr = true;
                    break;
                }
                _ => return Err(Failure::BareNewline),
            }
        }
        Ok(())
    }

    fn finish(&mut self, out: &mut Vec<u8>) -> Result<(), Failure> {
        if self.held_cr {
            return Err(Failure::BareNewline);
        }
        if !self.at_start {
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(b".\r\n");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn stuffed(blocks: &[&[u8]]) -> Result<Vec<u8>, Failure> {
        let mut lines = Lines::new();
        let mut out = Vec::new();
        for block in blocks {
            lines.stuff(&Bytes::copy_from_slice(block), &mut out)?;
        }
        lines.finish(&mut out)?;
        Ok(out)
    }

    #[test]
    fn dots_and_ends() {
        assert_eq!(stuffed(&[b""]).unwrap(), b".\r\n");
        assert_eq!(
            stuffed(&[b"a\r\n.\r\n..b\r\n"]).unwrap(),
            b"a\r\n..\r\n...b\r\n.\r\n"
        );
        assert_eq!(stuffed(&[b"no end"]).unwrap(), b"no end\r\n.\r\n");
        for bare in ["a\nb", "a\rb", "a\r", "\n.\r\n", "\r\r\n"] {
            assert!(
                matches!(stuffed(&[bare.as_bytes()]), Err(Failure::BareNewline)),
                "{bare:?}"
            );
        }
        for hidden in ["\0.\r\n", "a\r\n\0\0.\r\n"] {
            assert!(
                matches!(stuffed(&[hidden.as_bytes()]), Err(Failure::Nul)),
                "{hidden:?}"
            );
        }
        assert_eq!(stuffed(&[b"a\0.\r\n"]).unwrap(), b"a\0.\r\n.\r\n");
    }

    proptest! {
        #[test]
        fn block_boundaries_change_nothing(
            bytes in proptest::collection::vec(prop_oneof![Just(b'\r'), Just(b'\n'), Just(b'.'), Just(b'x')], 0..30),
            cuts in (0usize..30, 0usize..30),
        ) {
            let first = cuts.0.min(bytes.len());
            let second = cuts.1.min(bytes.len()).max(first);
            let parts = [&bytes[..first], &bytes[first..second], &bytes[second..]];
            let whole = stuffed(&[&bytes]).ok();
            prop_assert_eq!(stuffed(&parts).ok(), whole.clone());
            // What a server makes of it, read by the letter, is the message.
            if let Some(wire) = whole {
                let text = String::from_utf8(wire).unwrap();
                let body = text.strip_suffix(".\r\n").unwrap();
                prop_assert!(!body.contains("\r\n.\r\n") && !body.starts_with(".\r\n"));
                let unstuffed: String = body
                    .split_inclusive("\r\n")
                    .map(|line| line.strip_prefix('.').unwrap_or(line))
                    .collect();
                let sent = String::from_utf8(bytes).unwrap();
                prop_assert!(unstuffed == sent || unstuffed == sent + "\r\n");
            }
        }
    }
}
