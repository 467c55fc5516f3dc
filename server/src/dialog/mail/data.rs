//! DATA: the message comes in (RFC 5321 §4.1.1.4).

use std::io;
use std::time::Duration;

use bytes::Bytes;
use gatepost_protocol::{Args, HeaderBlock, Hook, Level};
use tokio::time::Instant;

use super::Mail;
use crate::chain::Decision;
use crate::config::BareNewlines;
use crate::dialog::{End, Next, Stream, Wire};
use crate::message::data::{DataReader, Seen};
use crate::message::{Intake, Spooled};

/// How a message came in.
enum Incoming {
    Whole(Spooled),
    /// Not to be taken, and this is the reply.
    Refused(String),
    /// A plugin does not want it.
    Denied(Decision),
    /// A plugin wants the client gone, in the middle of it.
    CutOff(Decision),
    /// It comes too slowly.
    Trickle,
}

/// What the message is refused for, while the rest of it still comes.
enum Fault {
    TooBig,
    HeaderTooBig,
    TooManyFields,
    Denied(Decision),
}

impl Mail {
    pub(super) async fn data<S: Stream>(
        &mut self,
        wire: &mut Wire<S>,
        argument: &[u8],
    ) -> Result<Next, End> {
        let output = wire.output();
        if self.visit.session.transaction.sender.is_none() {
            return Ok(self.say(output, "503 5.5.1 Say MAIL first"));
        }
        if self.visit.session.transaction.recipients.is_empty() {
            // RFC 5321 §3.3 allows both; RFC 2033 §4.2 wants 503.
            let text = match self.dialect.replies_per_recipient {
                true => "503 5.5.1 No valid recipients",
                false => "554 5.5.1 No valid recipients",
            };
            return Ok(self.say(output, text));
        }
        if !argument.is_empty() {
            return Ok(self.say(output, "501 5.5.4 Syntax: DATA"));
        }
        let decision = self.ask(Hook::Data, &Args::None, None).await;
        if let Some(next) = self.settle(output, Hook::Data, &decision) {
            self.reset().await;
            return Ok(next);
        }
        // Nor may a message come before it is asked for (RFC 2920 §3.1).
        self.look_for_early_input(wire).await?;
        self.say(
            wire.output(),
            "354 Go ahead, and end with a dot on a line of its own",
        );
        let incoming = self.receive(wire).await?;
        let replies_from = wire.output().len();
        let next = match incoming {
            Incoming::Whole(message) => self.deliver(wire, message).await?,
            Incoming::Refused(reply) => {
                self.log_refused(&reply);
                self.say(wire.output(), &reply)
            }
            Incoming::Trickle => self.cut_off(
                wire.output(),
                "421 4.4.2 Your message comes too slowly; try again later",
            ),
            Incoming::Denied(decision) | Incoming::CutOff(decision) => {
                self.refuse(wire.output(), Hook::DataHeadersEnd, &decision)
            }
        };
        self.repeat_reply(wire.output(), replies_from);
        self.reset().await;
        Ok(next)
    }

    /// Gives the reply to a message once for each RCPT that was accepted, in their order, where the protocol has it so (RFC 2033 §4.2).
    fn repeat_reply(&self, output: &mut Vec<u8>, from: usize) {
        if self.dialect.replies_per_recipient {
            let reply = output[from..].to_vec();
            for _ in 1..self.accepted {
                output.extend_from_slice(&reply);
            }
        }
    }

    /// Reads the message to its end.
    async fn receive<S: Stream>(&mut self, wire: &mut Wire<S>) -> Result<Incoming, End> {
        let limits = self.shared.config.limits.clone();
        let mut reader = DataReader::new(limits.max_data_line);
        let mut intake = self.shared.spool.begin();
        let mut head = Head::default();
        let mut fault = None;
        let mut waited = Duration::ZERO;
        let mut came = 0;
        loop {
            let room = intake.room().await;
            let asked = Instant::now();
            let read = wire.data(room).await?;
            waited += asked.elapsed();
            came += read as u64;
            if waited > limits.data_timeout && came < waited.as_secs() * limits.min_data_rate {
                return Ok(Incoming::Trickle);
            }
            let ended = intake.take(read, |block| reader.scan(block));
            if fault.is_none() {
                let has_header = head.take(intake.fresh());
                if intake.size() > limits.max_size {
                    fault = Some(Fault::TooBig);
                } else if head.size() > limits.max_header {
                    fault = Some(Fault::HeaderTooBig);
                } else if has_header {
                    match self.header_came(&mut head).await {
                        Some(Fault::Denied(decision)) if decision.verdict.disconnects() => {
                            return Ok(Incoming::CutOff(decision));
                        }
                        found => fault = found,
                    }
                }
                if fault.is_some() {
                    intake.discard();
                }
            }
            if ended {
                wire.unread(intake.unused());
                break;
            }
        }
        let transaction = &mut self.visit.session.transaction;
        transaction.size = intake.size();
        if fault.is_none() && head.end.is_none() {
            // Without an empty line all of it is header.
            head.end = Some((head.bytes.len(), head.bytes.len()));
            match self.header_came(&mut head).await {
                Some(Fault::Denied(decision)) if decision.verdict.disconnects() => {
                    return Ok(Incoming::CutOff(decision));
                }
                found => fault = found,
            }
        }
        Ok(self.judge(intake, fault, reader.seen()).await)
    }

    /// Tells plugins of the header block while the body still comes. Returns what the message is to be refused for.
    async fn header_came(&mut self, head: &mut Head) -> Option<Fault> {
        let (header_end, body_start) = head.end?;
        let transaction = &mut self.visit.session.transaction;
        let header = HeaderBlock::parse(head.cut(header_end));
        if header.len() > self.shared.config.limits.max_header_fields {
            return Some(Fault::TooManyFields);
        }
        transaction.header = Some(header);
        transaction.header_end = header_end as u64;
        transaction.body_start = body_start as u64;
        let decision = self.ask(Hook::DataHeadersEnd, &Args::None, None).await;
        decision
            .verdict
            .is_denial()
            .then_some(Fault::Denied(decision))
    }

    /// Decides whether what came can be taken.
    async fn judge(&mut self, intake: Intake, fault: Option<Fault>, seen: Seen) -> Incoming {
        let config = &self.shared.config;
        let bare_is_refused = config.bare_newlines == BareNewlines::Reject;
        let reply = match fault {
            Some(Fault::Denied(decision)) => return Incoming::Denied(decision),
            Some(Fault::TooBig) => {
                format!(
                    "552 5.3.4 Message is bigger than {} bytes",
                    config.limits.max_size
                )
            }
            Some(Fault::HeaderTooBig) => {
                format!(
                    "552 5.3.4 Header block is bigger than {} bytes",
                    config.limits.max_header
                )
            }
            Some(Fault::TooManyFields) => {
                format!(
                    "552 5.3.4 Header block has more than {} fields",
                    config.limits.max_header_fields
                )
            }
            None if seen.bare_lf && bare_is_refused => {
                "554 5.6.0 A LF stands alone; lines end in CRLF (RFC 5321 section 2.3.8)".to_owned()
            }
            None if seen.bare_cr && bare_is_refused => {
                "554 5.6.0 A CR stands alone; lines end in CRLF (RFC 5321 section 2.3.8)".to_owned()
            }
            None if seen.long_line => {
                format!(
                    "554 5.6.0 A line is longer than {} bytes",
                    config.limits.max_data_line
                )
            }
            None => match intake.finish().await {
                Ok(message) => return Incoming::Whole(message),
                Err(error) => self.no_storage(&error),
            },
        };
        Incoming::Refused(reply)
    }

    /// The reply where the spool failed.
    pub(super) fn no_storage(&self, error: &io::Error) -> String {
        let folder = self.shared.config.spool_dir.display();
        self.log(
            Level::Error,
            None,
            format_args!(
                "cannot keep a message in {folder}: {error}; it got 451 and will come again"
            ),
        );
        "451 4.3.1 No room to keep your message now; try again later".to_owned()
    }
}

/// The beginning of a message, until its header block is complete.
#[derive(Default)]
struct Head {
    bytes: Vec<u8>,
    end: Option<(usize, usize)>,
}

impl Head {
    /// Takes what came of the message. Returns whether the header block's end was in it.
    fn take(&mut self, fresh: &[u8]) -> bool {
        if self.end.is_some() {
            return false;
        }
        let searched = self.bytes.len();
        self.bytes.extend_from_slice(fresh);
        self.end = HeaderBlock::find_end(&self.bytes, searched);
        self.end.is_some()
    }

    fn size(&self) -> usize {
        self.end
            .map_or(self.bytes.len(), |(header_end, _)| header_end)
    }

    fn cut(&mut self, header_end: usize) -> Bytes {
        let mut bytes = std::mem::take(&mut self.bytes);
        bytes.truncate(header_end);
        bytes.shrink_to_fit();
        bytes.into()
    }
}
