//! A session's own notes of what happened, until a transaction of it is over and they become a record.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use gatepost_protocol::session::Session;
use gatepost_protocol::{Address, Change, Hook};
use serde::Serialize;
use tokio::time::Instant;

use super::record::{Record, Reply, Step, Text, Told, Turn};
use crate::report::line;

/// Bytes of steps of a session that belong to no transaction.
const MAX_SESSION: usize = 16 << 10;
/// Bytes of steps of a transaction.
const MAX_TRANSACTION: usize = 64 << 10;
/// Of these, bytes that the envelope may take: the message is what matters most.
const MAX_ENVELOPE: usize = 40 << 10;
/// Recipients of a record.
const MAX_RECIPIENTS: usize = 1000;
/// Characters of a text that somebody else wrote.
const MAX_TEXT: usize = 400;

/// What happened in a session so far.
pub struct Trace {
    began: SystemTime,
    clock: Instant,
    /// Steps as JSON, a comma behind each.
    session: Vec<u8>,
    transaction: Vec<u8>,
    /// There was a record already.
    has_record: bool,
    /// Something was refused since.
    is_news: bool,
    left_out: u64,
    /// Whom the hook at hand is about, where it is not everybody.
    concerned: Option<Arc<str>>,
    next: Next,
    /// Settings behind the reply that comes next.
    because: Vec<String>,
    /// What recipients were told so far.
    told: Vec<Told>,
    ended: Option<Ended>,
}

/// What is known already of the turn that comes next.
#[derive(Default)]
struct Next {
    asked: Option<Instant>,
    found_at: Option<Hook>,
    recipient: Option<String>,
    changes: Vec<String>,
}

/// A transaction that is over, and whose last reply is not there yet.
struct Ended {
    head: Record<'static>,
    /// Recipients that nothing was said about.
    waiting: Vec<Address>,
}

impl Default for Trace {
    fn default() -> Trace {
        Trace {
            began: SystemTime::now(),
            clock: Instant::now(),
            session: Vec::new(),
            transaction: Vec::new(),
            has_record: false,
            is_news: false,
            left_out: 0,
            concerned: None,
            next: Next::default(),
            because: Vec::new(),
            told: Vec::new(),
            ended: None,
        }
    }
}

impl Trace {
    /// The hook at hand is about these recipients alone; `None`: about everybody.
    pub fn concern(&mut self, recipients: Option<&[Address]>) {
        self.concerned = recipients.map(|recipients| {
            let names: Vec<&str> = recipients.iter().map(Address::as_str).collect();
            names.join(", ").into()
        });
    }

    /// A plugin is asked: its time begins.
    pub fn ask(&mut self) {
        self.next.asked = Some(Instant::now());
    }

    /// The next turn is about something that was found before.
    pub fn found_at(&mut self, hook: Hook) {
        self.next.found_at = Some(hook);
    }

    /// The next turn is about one recipient.
    pub fn single_out(&mut self, recipient: &Address) {
        self.next.recipient = Some(recipient.as_str().to_owned());
    }

    /// The plugin whose turn comes next changed something. Values are left out at `auth`, where they may be secrets.
    pub fn changed(&mut self, hook: Hook, change: &Change) {
        let is_secret = matches!(hook, Hook::AuthMechanism | Hook::Auth);
        let text = super::changes::describe(change, !is_secret);
        self.next.changes.push(text);
    }

    /// The plugin whose turn comes next lets the client wait so long.
    pub fn delayed(&mut self, delay: Duration) {
        self.next.changes.push(format!("delay {delay:?}"));
    }

    /// A plugin had its turn. Time, changes and whom it is about are filled in.
    pub fn turn(&mut self, session: &Session, turn: Turn<'_>) {
        let Next {
            asked,
            found_at,
            recipient,
            changes,
        } = std::mem::take(&mut self.next);
        let now = Instant::now();
        let everybody = self.concerned.clone();
        let concerned = recipient.as_deref().or(everybody.as_deref());
        let turn = Turn {
            at: micros(now - self.clock),
            took: asked.map(|asked| micros(now - asked)),
            found_at: found_at.map_or(Text::Borrowed(""), |hook| hook.name().into()),
            message: cut(turn.message),
            recipients: cut(concerned.unwrap_or_default().into()),
            changes: changes.into_iter().map(|text| cut(text.into())).collect(),
            ..turn
        };
        let limit = match &*turn.hook {
            "mail" | "rcpt" => MAX_ENVELOPE,
            _ => MAX_TRANSACTION,
        };
        self.write(session.transaction.number > 0, limit, &Step::Turn(turn));
    }

    /// A setting of the core decides about the reply that comes next. `origin`: as it is written, with its place.
    pub fn because(&mut self, origin: String) {
        if !self.because.contains(&origin) {
            self.because.push(origin);
        }
    }

    /// A command had its reply. `reply`: the lines as they go over the wire.
    pub fn reply(&mut self, in_transaction: bool, command: &str, reply: &[u8]) {
        let text = String::from_utf8_lossy(reply).replace("\r\n", "\n");
        let text = text.trim_end();
        let because = std::mem::take(&mut self.because);
        let step = Step::Reply(Reply {
            at: micros(self.clock.elapsed()),
            command: cut(command.into()),
            reply: cut(text.into()),
            because: because.into_iter().map(|text| cut(text.into())).collect(),
        });
        self.is_news |= matches!(reply.first(), Some(b'4' | b'5'));
        let limit = match command.as_bytes() {
            [b'R' | b'r', ..] => MAX_ENVELOPE,
            _ => MAX_TRANSACTION,
        };
        self.write(in_transaction, limit, &step);
    }

    /// What became of the message for a recipient, as far as it is known.
    pub fn told(&mut self, address: &str, reply: &str, became: String) {
        if self.told.len() < MAX_RECIPIENTS {
            self.told.push(Told {
                address: cut(address.into()).into_owned(),
                reply: cut(reply.into()).into_owned(),
                became,
            });
        } else {
            self.left_out += 1;
        }
    }

    /// The transaction at hand is over. `accepted`: the recipients that RCPT took.
    pub fn close<'a>(&mut self, session: &Session, accepted: impl Iterator<Item = &'a Address>) {
        let transaction = &session.transaction;
        let recipients = std::mem::take(&mut self.told);
        let is_known = |address: &&Address| {
            let mut known = recipients.iter();
            known.any(|told| told.address == address.as_str())
        };
        let room = MAX_RECIPIENTS.saturating_sub(recipients.len());
        let waiting = accepted.filter(|it| !is_known(it)).take(room);
        let waiting = waiting.cloned().collect();
        let mut head = self.head(session);
        head.id = format!("{}.{}", session.id, transaction.number).into();
        head.sender = transaction
            .sender
            .as_ref()
            .map(|sender| sender.as_str().to_owned().into());
        head.size = transaction.size;
        head.recipients = recipients;
        self.ended = Some(Ended { head, waiting });
    }

    /// The record of the transaction that ended with the last reply, if one did. `reply`: what was said about its message; `None`: nothing was.
    pub fn end(&mut self, reply: Option<&[u8]>) -> Option<Vec<u8>> {
        let Ended { mut head, waiting } = self.ended.take()?;
        let (reply, became) = match reply {
            Some(reply) => {
                let became = match reply.first() {
                    Some(b'4') => "put off",
                    _ => "refused",
                };
                (String::from_utf8_lossy(reply), became)
            }
            None => (Cow::Borrowed(""), "no message came"),
        };
        let reply = cut(reply.trim_end().into());
        head.recipients
            .extend(waiting.into_iter().map(|address| Told {
                address: address.as_str().to_owned(),
                reply: reply.clone().into_owned(),
                became: became.to_owned(),
            }));
        let record = self.record(head);
        self.transaction = Vec::new();
        self.left_out = 0;
        (self.has_record, self.is_news) = (true, false);
        Some(record)
    }

    /// The record of what no transaction had in it, where there is something.
    pub fn rest(&mut self, session: &Session) -> Option<Vec<u8>> {
        if self.has_record && !self.is_news {
            return None;
        }
        let mut head = self.head(session);
        head.id = session.id.to_string().into();
        Some(self.record(head))
    }

    fn head(&self, session: &Session) -> Record<'static> {
        let connection = &session.connection;
        let hello = connection
            .hello
            .as_ref()
            .zip(connection.hello_host.as_ref());
        Record {
            began: line::stamp(self.began).into(),
            client: connection
                .remote
                .map(|remote| remote.to_string())
                .unwrap_or_default()
                .into(),
            hello: hello
                .map(|(hello, host)| format!("{hello} {host}"))
                .unwrap_or_default()
                .into(),
            tls: connection
                .tls
                .as_ref()
                .map(|tls| tls.version.clone().into_owned())
                .unwrap_or_default()
                .into(),
            user: connection.authenticated.clone().unwrap_or_default().into(),
            left_out: self.left_out,
            ..Record::default()
        }
    }

    /// A line: the head, and in it the steps.
    fn record(&self, mut head: Record<'_>) -> Vec<u8> {
        head.took = micros(self.clock.elapsed());
        head.left_out = self.left_out;
        let room = self.session.len() + self.transaction.len() + 512;
        let mut line = Vec::with_capacity(room);
        append(&mut line, &head);
        line.pop();
        line.extend_from_slice(b",\"steps\":[");
        line.extend_from_slice(&self.session);
        line.extend_from_slice(&self.transaction);
        if line.last() == Some(&b',') {
            line.pop();
        }
        line.extend_from_slice(b"]}\n");
        line
    }

    fn write(&mut self, in_transaction: bool, limit: usize, step: &Step<'_>) {
        let (steps, limit) = match in_transaction {
            true => (&mut self.transaction, limit),
            false => (&mut self.session, MAX_SESSION),
        };
        if steps.len() > limit {
            self.left_out += 1;
            return;
        }
        append(steps, step);
        steps.push(b',');
    }
}

fn append(to: &mut Vec<u8>, what: &impl Serialize) {
    serde_json::to_writer(to, what).expect("a record has text keys, and memory takes everything");
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// At most so much of a text as a record has room for.
fn cut(text: Text<'_>) -> Text<'_> {
    if text.len() <= MAX_TEXT {
        return text;
    }
    let end = text.floor_char_boundary(MAX_TEXT);
    format!("{}\u{2026}", &text[..end]).into()
}
