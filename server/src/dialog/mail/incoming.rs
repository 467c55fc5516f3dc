//! A message comes in, whoever finds its end: block by block into the spool, its header block to the plugins, up to the verdict whether what came can be taken.

use std::borrow::Cow;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use gatepost_protocol::{Args, HeaderBlock, Hook, Level};
use tokio::time::Instant;

use super::Mail;
use super::lines::Lines;
use crate::chain::Decision;
use crate::config::BareNewlines;
use crate::dialog::{End, Next, Stream, Wire};
use crate::message::data::{DataReader, Framing, normalized};
use crate::message::{Intake, Spooled};
use crate::report::Limit;

/// A message that comes in. Dropped, nothing of it is left.
pub struct Incoming {
    intake: Intake,
    reader: DataReader,
    head: Head,
    /// Where plugins look at the message as it comes in: what they have not seen.
    lines: Option<Lines>,
    fault: Option<Fault>,
    /// How long the client was waited for.
    waited: Duration,
}

/// What a message is refused for, while the rest of it still comes.
enum Fault {
    TooBig,
    HeaderTooBig,
    TooManyFields,
    Denied(Hook, Decision),
}

/// Why a message is not taken.
pub enum Refusal {
    /// This is the reply.
    Reply(String),
    /// A plugin at this hook does not want it.
    Denied(Hook, Decision),
}

/// What one block brought.
pub struct Block {
    /// Bytes that were read.
    pub read: usize,
    /// The end of data was among them.
    pub ended: bool,
}

impl Incoming {
    /// A plugin wants the client gone, in the middle of its message.
    pub fn is_cut_off(&self) -> bool {
        matches!(&self.fault, Some(Fault::Denied(_, decision)) if decision.verdict.disconnects())
    }

    /// Bytes that came so far.
    pub fn size(&self) -> u64 {
        self.intake.size()
    }

    /// The message is bigger than we take, or is going to be.
    pub fn too_big(&mut self) {
        self.fault.get_or_insert(Fault::TooBig);
        self.intake.discard();
    }
}

impl Mail {
    /// A message of which nothing came yet.
    pub(super) fn incoming(&mut self, framing: Framing) -> Incoming {
        self.visit.begin_message();
        let config = &self.shared.config;
        Incoming {
            intake: self.shared.spool.begin(),
            reader: DataReader::new(framing, config.bare_newlines, config.limits.max_data_line),
            head: Head::default(),
            lines: self.shared.chain.asks(Hook::DataLines).then(Lines::default),
            fault: None,
            waited: Duration::ZERO,
        }
    }

    /// Reads the next block of a message, of at most so many bytes.
    pub(super) async fn read_block<S: Stream>(
        &mut self,
        wire: &mut Wire<S>,
        incoming: &mut Incoming,
        at_most: usize,
    ) -> Result<Block, End> {
        let Incoming { intake, reader, .. } = incoming;
        let room = intake.room().await;
        let length = room.len().min(at_most);
        let asked = Instant::now();
        let read = wire.data(&mut room[..length]).await?;
        incoming.waited += asked.elapsed();
        let (limits, came) = (&self.shared.config.limits, intake.size() + read as u64);
        if incoming.waited > limits.data_timeout
            && came < incoming.waited.as_secs() * limits.min_data_rate
        {
            return Err(End::Slow);
        }
        let scan = intake.take(read, |block| reader.scan(block));
        if scan.ended {
            wire.unread(intake.give_back());
        }
        self.take_fresh(incoming, scan.bare).await;
        Ok(Block {
            read,
            ended: scan.ended,
        })
    }

    /// Looks at what the last scan brought. `bare`: a CR or LF stands alone in it.
    async fn take_fresh(&mut self, incoming: &mut Incoming, bare: bool) {
        if incoming.fault.is_some() {
            return;
        }
        let max_size = self.max_size();
        let config = &self.shared.config;
        let Incoming {
            intake,
            head,
            lines,
            ..
        } = incoming;
        let mut take = |fresh: &[u8]| {
            if let Some(lines) = lines {
                lines.add(fresh);
            }
            head.take(fresh)
        };
        let has_header = if bare && config.bare_newlines == BareNewlines::Normalize {
            let lines = normalized(intake.fresh());
            intake.replace(&lines).await;
            take(&lines)
        } else {
            take(intake.fresh())
        };
        if intake.size() > max_size {
            incoming.fault = Some(Fault::TooBig);
        } else if head.size() > config.limits.max_header {
            incoming.fault = Some(Fault::HeaderTooBig);
        } else if has_header {
            self.header_came(incoming).await;
        }
        self.show_lines(incoming, false).await;
        if incoming.fault.is_some() {
            incoming.intake.discard();
        }
    }

    /// Tells plugins of the header block while the body still comes.
    async fn header_came(&mut self, incoming: &mut Incoming) {
        let Some((header_end, body_start)) = incoming.head.end else {
            return;
        };
        let header = incoming.head.cut(header_end);
        incoming.reader.check_header(&header);
        let transaction = &mut self.visit.session.transaction;
        let header = HeaderBlock::parse(header);
        if header.len() > self.shared.config.limits.max_header_fields {
            incoming.fault = Some(Fault::TooManyFields);
            return;
        }
        transaction.header = Some(header);
        transaction.header_end = header_end as u64;
        transaction.body_start = body_start as u64;
        let decision = self.ask(Hook::DataHeadersEnd, &Args::None, None).await;
        if decision.verdict.is_denial() {
            incoming.fault = Some(Fault::Denied(Hook::DataHeadersEnd, decision));
        }
    }

    /// Shows plugins what they have not seen of the message, once they know its header. Nothing more is read while they look: that is all the
    /// client feels of how slow they are.
    async fn show_lines(&mut self, incoming: &mut Incoming, is_last: bool) {
        if incoming.lines.is_none() || incoming.head.end.is_none() {
            return;
        }
        if incoming.fault.is_some() || self.is_malformed(&incoming.reader) {
            incoming.lines = None;
        }
        while let Some(lines) = &mut incoming.lines
            && let Some((block, offset)) = lines.next(is_last)
        {
            let args = Args::Lines {
                lines: Cow::Owned(block),
                offset,
            };
            let decision = self.ask(Hook::DataLines, &args, None).await;
            if decision.verdict.is_denial() {
                incoming.fault = Some(Fault::Denied(Hook::DataLines, decision));
                incoming.lines = None;
            } else if !self.shared.chain.wants_lines(&self.visit) {
                incoming.lines = None;
            }
        }
    }

    /// Whether what was read breaks the rules for lines, so that the message cannot be taken any more.
    fn is_malformed(&self, reader: &DataReader) -> bool {
        let seen = reader.seen();
        seen.long_line || self.refuses_bare(reader) && (seen.bare_cr || seen.bare_lf)
    }

    /// Whether a CR or LF that stands alone is a reason to refuse.
    fn refuses_bare(&self, reader: &DataReader) -> bool {
        match self.shared.config.bare_newlines {
            BareNewlines::Reject => true,
            // Nobody rewrites binary data, and only its header can be at fault.
            BareNewlines::Normalize => reader.is_binary(),
            BareNewlines::Keep => false,
        }
    }

    /// The last chunk of a message was read.
    pub(super) async fn end_of_chunks(&mut self, incoming: &mut Incoming) {
        let Incoming { intake, reader, .. } = incoming;
        let scan = intake.take(0, |held| reader.end(held));
        self.take_fresh(incoming, scan.bare).await;
    }

    /// Takes a message that came in to its end.
    pub(super) async fn keep(&mut self, mut incoming: Incoming) -> Result<Spooled, Refusal> {
        if incoming.fault.is_none() && incoming.head.end.is_none() {
            // Without an empty line all of it is header.
            let length = incoming.head.bytes.len();
            incoming.head.end = Some((length, length));
            self.header_came(&mut incoming).await;
        }
        self.show_lines(&mut incoming, true).await;
        if let Some(refusal) = self.refusal(&mut incoming) {
            return Err(refusal);
        }
        if incoming.intake.lacked_memory() {
            self.exceeded(Limit::MessageMemory);
        }
        match incoming.intake.finish().await {
            Ok(message) => Ok(message),
            Err(error) => Err(Refusal::Reply(self.no_storage(&error))),
        }
    }

    /// Decides whether what came so far can be taken.
    pub(super) fn refusal(&mut self, incoming: &mut Incoming) -> Option<Refusal> {
        self.visit.session.transaction.size = incoming.size();
        let shared = Arc::clone(&self.shared);
        let config = &shared.config;
        let seen = incoming.reader.seen();
        let bare_is_refused = self.refuses_bare(&incoming.reader);
        let reply = match incoming.fault.take() {
            Some(Fault::Denied(hook, decision)) => return Some(Refusal::Denied(hook, decision)),
            Some(Fault::TooBig) => {
                self.exceeded_max_size();
                format!("552 5.3.4 Message is bigger than {} bytes", self.max_size())
            }
            Some(Fault::HeaderTooBig) => {
                self.exceeded(Limit::Header);
                format!(
                    "552 5.3.4 Header block is bigger than {} bytes",
                    config.limits.max_header
                )
            }
            Some(Fault::TooManyFields) => {
                self.exceeded(Limit::HeaderFields);
                format!(
                    "552 5.3.4 Header block has more than {} fields",
                    config.limits.max_header_fields
                )
            }
            None if seen.bare_lf && bare_is_refused => {
                self.because("bare_newlines");
                "554 5.6.0 A LF stands alone; lines end in CRLF (RFC 5321 section 2.3.8)".to_owned()
            }
            None if seen.bare_cr && bare_is_refused => {
                self.because("bare_newlines");
                "554 5.6.0 A CR stands alone; lines end in CRLF (RFC 5321 section 2.3.8)".to_owned()
            }
            None if seen.long_line => {
                self.exceeded(Limit::DataLine);
                format!(
                    "554 5.6.0 A line is longer than {} bytes",
                    config.limits.max_data_line
                )
            }
            None => return None,
        };
        Some(Refusal::Reply(reply))
    }

    /// Gives the reply to a message that is not taken.
    pub(super) fn turn_down(&mut self, output: &mut Vec<u8>, refusal: &Refusal) -> Next {
        match refusal {
            Refusal::Reply(reply) => {
                self.log_refused(reply);
                self.say(output, reply)
            }
            Refusal::Denied(hook, decision) => self.refuse(output, *hook, decision),
        }
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
