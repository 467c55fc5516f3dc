//! BDAT: the message comes in chunks whose octets are counted (RFC 3030 §2).
//!
//! What a chunk is refused for matters less than that its octets are read: they follow the command whatever we think of it, and taken for commands they
//! would be somebody else's (RFC 3030 §4.2).

use gatepost_protocol::{Args, Hook, Verdict};

use super::Mail;
use super::incoming::Incoming;
use crate::dialog::{End, Next, Stream, Wire};
use crate::message::data::Framing;

/// The reply to what cannot stand between chunks.
pub const BEGUN: &str = "503 5.5.1 The message has begun; go on with BDAT, or start anew with RSET";

/// How much is read at once of a chunk that nobody wants.
const SKIPPED: usize = 16 * 1024;

/// Where a transaction is with its chunks.
#[derive(Default)]
pub enum Chunks {
    /// None came.
    #[default]
    None,
    /// More are to come.
    Coming(Box<Incoming>),
    /// One was refused, and with it the message. A client that pipelines sends the others all the same.
    Refused {
        /// Recipients that the transaction had.
        recipients: usize,
    },
}

/// The argument of BDAT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Chunk {
    size: u64,
    is_last: bool,
}

/// Why an argument is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Malformed {
    /// Nothing says that octets follow.
    NoSize,
    /// Octets follow, and nobody knows how many.
    Size,
    /// So many octets follow.
    Behind(u64),
}

impl Chunk {
    /// RFC 3030 §2: `chunk-size [ SP "LAST" ]`.
    fn parse(argument: &[u8]) -> Result<Chunk, Malformed> {
        let mut words = argument
            .split(|byte| *byte == b' ')
            .filter(|word| !word.is_empty());
        let size = words.next().ok_or(Malformed::NoSize)?;
        let is_number = size.iter().all(u8::is_ascii_digit);
        let size = std::str::from_utf8(size)
            .ok()
            .filter(|_| is_number)
            .and_then(|size| size.parse().ok())
            .filter(|size| *size <= i64::MAX as u64)
            .ok_or(Malformed::Size)?;
        match (words.next(), words.next()) {
            (None, _) => Ok(Chunk {
                size,
                is_last: false,
            }),
            (Some(last), None) if last.eq_ignore_ascii_case(b"LAST") => Ok(Chunk {
                size,
                is_last: true,
            }),
            _ => Err(Malformed::Behind(size)),
        }
    }
}

impl Mail {
    pub(super) async fn bdat<S: Stream>(
        &mut self,
        wire: &mut Wire<S>,
        argument: &[u8],
    ) -> Result<Next, End> {
        const SYNTAX: &str = "501 5.5.4 Syntax: BDAT size [LAST]";
        let chunk = match Chunk::parse(argument) {
            Ok(chunk) => chunk,
            Err(Malformed::NoSize) => return Ok(self.say(wire.output(), SYNTAX)),
            Err(Malformed::Size) => {
                // Where the next command begins would be a guess.
                self.say(wire.output(), SYNTAX);
                return Ok(Next::Close);
            }
            Err(Malformed::Behind(size)) => {
                skip(wire, size).await?;
                self.say(wire.output(), SYNTAX);
                return Ok(self.chunk_refused(false, Next::Go).await);
            }
        };
        let mut incoming = match std::mem::take(&mut self.chunks) {
            Chunks::Coming(incoming) => incoming,
            Chunks::None => match self.first_chunk(wire, chunk).await? {
                Ok(incoming) => Box::new(incoming),
                Err(next) => return Ok(next),
            },
            Chunks::Refused { recipients } => {
                skip(wire, chunk.size).await?;
                let output = wire.output();
                let from = output.len();
                // Not said as a mistake of the client's: it may have sent this chunk before it heard of the refusal.
                let reply = "503 5.5.1 The message was refused with an earlier chunk";
                crate::dialog::reply::write(output, reply);
                if chunk.is_last {
                    self.spread_reply(output, from, recipients);
                } else {
                    self.chunks = Chunks::Refused { recipients };
                }
                return Ok(Next::Go);
            }
        };
        if incoming.size().saturating_add(chunk.size) > self.max_size() {
            incoming.too_big();
        }
        let mut left = chunk.size;
        while left > 0 && !incoming.is_cut_off() {
            let at_most = usize::try_from(left).unwrap_or(usize::MAX);
            let block = self.read_block(wire, &mut incoming, at_most).await?;
            left -= block.read as u64;
        }
        if chunk.is_last {
            self.end_of_chunks(&mut incoming).await;
            let next = self.end_of_message(wire, *incoming).await?;
            self.reset().await;
            return Ok(next);
        }
        if let Some(refusal) = self.refusal(&mut incoming) {
            let next = self.turn_down(wire.output(), &refusal);
            return Ok(self.chunk_refused(false, next).await);
        }
        self.chunks = Chunks::Coming(incoming);
        let reply = format!("250 2.0.0 {} octets received", chunk.size);
        Ok(self.say(wire.output(), &reply))
    }

    /// Whether there is a transaction for a message, and what plugins think of it. An error is what comes next: the octets were read, the reply given.
    async fn first_chunk<S: Stream>(
        &mut self,
        wire: &mut Wire<S>,
        chunk: Chunk,
    ) -> Result<Result<Incoming, Next>, End> {
        let transaction = &self.visit.session.transaction;
        let has_sender = transaction.sender.is_some();
        if self.has_no_recipients() {
            skip(wire, chunk.size).await?;
            let output = wire.output();
            let from = output.len();
            let next = match has_sender {
                true => self.say(output, "503 5.5.1 No valid recipients"),
                false => self.say(output, "503 5.5.1 Say MAIL first"),
            };
            if has_sender && chunk.is_last {
                // RFC 2033 §4.3: as many replies as recipients, even if there is none.
                self.spread_reply(output, from, 0);
            }
            return Ok(Err(self.chunk_refused(chunk.is_last, next).await));
        }
        self.face_recipients();
        let decision = self.ask(Hook::Data, &Args::None, None).await;
        let disconnects = decision.verdict.disconnects();
        if decision.verdict.is_denial() || decision.verdict == Verdict::Done {
            if !disconnects {
                skip(wire, chunk.size).await?;
            }
            let output = wire.output();
            let from = output.len();
            if let Some(next) = self.settle(output, Hook::Data, &decision) {
                if chunk.is_last && !disconnects {
                    self.spread_reply(output, from, self.accepted.len());
                }
                return Ok(Err(self.chunk_refused(chunk.is_last, next).await));
            }
        }
        let framing = match self.is_binary() {
            true => Framing::Binary,
            false => Framing::Chunks,
        };
        Ok(Ok(self.incoming(framing)))
    }

    /// A chunk was refused, and the transaction ends with it.
    async fn chunk_refused(&mut self, is_last: bool, next: Next) -> Next {
        let recipients = match self.chunks {
            Chunks::Refused { recipients } => recipients,
            _ => self.accepted.len(),
        };
        self.reset().await;
        if !is_last {
            self.chunks = Chunks::Refused { recipients };
        }
        next
    }

    /// Whether the sender declared binary data (RFC 3030 §3).
    pub(super) fn is_binary(&self) -> bool {
        let parameters = &self.visit.session.transaction.sender_parameters;
        let body = parameters.get("BODY").and_then(Option::as_deref);
        body.is_some_and(|body| body.eq_ignore_ascii_case("BINARYMIME"))
    }
}

/// Reads octets and drops them.
async fn skip<S: Stream>(wire: &mut Wire<S>, size: u64) -> Result<(), End> {
    let mut left = size;
    let mut room = vec![0; usize::try_from(size).map_or(SKIPPED, |size| size.min(SKIPPED))];
    while left > 0 {
        let at_most = usize::try_from(left).map_or(SKIPPED, |left| left.min(SKIPPED));
        left -= wire.data(&mut room[..at_most]).await? as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments() {
        let chunk = |size, is_last| Ok(Chunk { size, is_last });
        for (argument, read) in [
            ("0", chunk(0, false)),
            ("86", chunk(86, false)),
            ("0086 last", chunk(86, true)),
            ("9223372036854775807", chunk(i64::MAX as u64, false)),
            ("", Err(Malformed::NoSize)),
            ("9223372036854775808", Err(Malformed::Size)),
            ("18446744073709551617", Err(Malformed::Size)),
            ("-1", Err(Malformed::Size)),
            ("+1", Err(Malformed::Size)),
            ("0x10", Err(Malformed::Size)),
            ("12a LAST", Err(Malformed::Size)),
            ("LAST", Err(Malformed::Size)),
            ("5 FIRST", Err(Malformed::Behind(5))),
            ("5 LAST LAST", Err(Malformed::Behind(5))),
        ] {
            assert_eq!(Chunk::parse(argument.as_bytes()), read, "{argument:?}");
        }
    }
}
