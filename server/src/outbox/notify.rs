//! Notifications: who is told, how much of the message goes back, and into the outbox with it.

use std::io;
use std::time::{Instant, SystemTime};

use bytes::Bytes;
use gatepost_protocol::delivered::{Delivered, is_binary};
use gatepost_protocol::{Level, Message, Parameters, Session, Transaction};

use super::envelope::{Envelope, Kind, Recipient};
use super::folder::{Draft, Id, blocking, random};
use super::suppress::{Event, suppressed};
use super::{Action, LINE, LOGGED_AS, News, Outbox, append, copy, name_of};
use crate::message::dsn::{Notification, Original, Report};
use crate::report;

/// Up to here a whole message goes back where its sender did not say (RFC 3461 §4.3). Senders like to have their words back; to send megabytes to an address that may be
/// forged does harm, and the header block shows well enough which message it was.
const WHOLE: u64 = 64 << 10;

/// What of a message can go back.
struct Content {
    header: Bytes,
    /// Bytes of all of it.
    size: u64,
    eight_bit_body: bool,
    /// Its lines can be in a message that is not binary.
    is_text: bool,
}

impl Outbox {
    /// Tells the sender of a session's message what became of it, as far as there may be notifications. They are durable when this returns; it gives their names.
    ///
    /// # Errors
    /// None of them is kept: the outbox is full, or the disk is.
    pub async fn notify(
        &self,
        session: &Session,
        message: &dyn Message,
        news: &[News],
    ) -> io::Result<Vec<Id>> {
        self.notify_late(session, message, news, SystemTime::now())
            .await
    }

    /// The same for a message that came before. `arrived`: when.
    pub(super) async fn notify_late(
        &self,
        session: &Session,
        message: &dyn Message,
        news: &[News],
        arrived: SystemTime,
    ) -> io::Result<Vec<Id>> {
        let owed: Vec<&News> = news
            .iter()
            .filter(|news| self.may_tell(session, news))
            .collect();
        if owed.is_empty() {
            return Ok(Vec::new());
        }
        let transaction = &session.transaction;
        let content = inspect(transaction, message).await?;
        let mut drafts = Vec::with_capacity(owed.len());
        let mut rooms = Vec::with_capacity(owed.len());
        for (at, news) in owed.iter().enumerate() {
            let whole = content.goes_back_whole(transaction, news.action, at == 0);
            let notification = self.notification(session, news, arrived, &content, whole)?;
            let original = if whole {
                content.size
            } else {
                content.header.len() as u64
            };
            let own =
                notification.header.len() + notification.before.len() + notification.after.len();
            let room = self.schedule.room(1, own as u64 + original);
            rooms.push(room.map_err(io::Error::other)?);
            let original = match whole {
                true => Ok(Delivered::new(transaction, message)),
                false => Err(content.header.clone()),
            };
            drafts.push(self.draft(session, notification, original).await?);
        }
        let ids = self.commit(drafts).await?;
        let sender = transaction.sender.clone().unwrap_or_default();
        for (id, news) in ids.iter().zip(owed) {
            let recipient = news.recipient.as_str();
            report::line(
                Level::Info,
                &session.id,
                None,
                LOGGED_AS,
                format_args!("notification {id} for {sender} about {recipient}"),
            );
        }
        Ok(ids)
    }

    /// Whether there is a notification; the log says why where there is none.
    fn may_tell(&self, session: &Session, news: &News) -> bool {
        let event = Event::from(news.action);
        let suppressed = suppressed(session, &news.parameters, event).or_else(|| {
            let sender = session.transaction.sender.as_ref()?.to_lowercase();
            self.rate.count(sender, Instant::now()).err()
        });
        if let Some(reason) = suppressed {
            let recipient = news.recipient.as_str();
            report::line(
                Level::Info,
                &session.id,
                None,
                LOGGED_AS,
                format_args!("no notification about {recipient}: {reason}"),
            );
        }
        suppressed.is_none()
    }

    fn notification(
        &self,
        session: &Session,
        news: &News,
        arrived: SystemTime,
        content: &Content,
        whole: bool,
    ) -> io::Result<Notification> {
        let transaction = &session.transaction;
        let sender = transaction.sender.clone().unwrap_or_default();
        // Nobody can have written it into the message: it is made now, and 24 bytes are not guessed.
        let (id, boundary) = (random(16)?, random(24)?);
        let log_id = name_of(session);
        let header = transaction.header.as_ref();
        let report = Report {
            hostname: &self.hostname,
            id: &id,
            boundary: &boundary,
            time: SystemTime::now(),
            sender: &sender,
            envelope_id: value(&transaction.sender_parameters, "ENVID"),
            log_id: Some(log_id.as_str()).filter(|name| !name.is_empty()),
            arrived,
            received_from: session.connection.hello_host.as_deref(),
            utf8: transaction.is_smtputf8(),
            recipient: &news.recipient,
            original_recipient: value(&news.parameters, "ORCPT"),
            action: news.action,
            code: news.code,
            enhanced: news.enhanced,
            text: &news.text,
            original: Original {
                header: &content.header,
                message_id: header.and_then(|header| header.first("Message-ID")),
                whole,
                eight_bit_body: content.eight_bit_body,
            },
        };
        Ok(report.write())
    }

    /// Writes a notification. `original`: the message, or else its header block.
    async fn draft(
        &self,
        session: &Session,
        notification: Notification,
        original: Result<Delivered<'_>, Bytes>,
    ) -> io::Result<(Draft, Envelope)> {
        let Notification {
            header,
            before,
            after,
            eight_bit,
            smtputf8,
        } = notification;
        let header_end = header.len() as u64;
        let folder = self.folder.clone();
        let draft = blocking(move || {
            let mut draft = folder.draft()?;
            draft.write(header.as_bytes())?;
            draft.write(before.as_bytes())?;
            Ok(draft)
        })
        .await?;
        let draft = match original {
            Ok(message) => copy(draft, message).await?,
            Err(header) => append(draft, header).await?,
        };
        let draft = append(draft, after).await?;
        let mut sender_parameters = Parameters::new();
        if eight_bit {
            sender_parameters.insert("BODY".to_owned(), Some("8BITMIME".to_owned()));
        }
        if smtputf8 {
            sender_parameters.insert("SMTPUTF8".to_owned(), None);
        }
        let recipient = Recipient {
            address: session.transaction.sender.clone().unwrap_or_default(),
            parameters: Parameters::new(),
            route: None,
        };
        // From nobody: nothing may come back because of it (RFC 3464 §2).
        let envelope = Envelope {
            sender_parameters,
            ..Envelope::of_our_own(
                Kind::Notification,
                name_of(session),
                vec![recipient],
                draft.size(),
                header_end,
            )
        };
        Ok((draft, envelope))
    }
}

impl Content {
    /// RET's word counts (RFC 3461 §4.3). Each notification of several stands for itself, but the first alone brings a big message back.
    fn goes_back_whole(&self, transaction: &Transaction, action: Action, is_first: bool) -> bool {
        if !self.is_text || action != Action::Failed {
            return false;
        }
        match value(&transaction.sender_parameters, "RET") {
            Some(ret) if ret.eq_ignore_ascii_case("HDRS") => false,
            Some(ret) if ret.eq_ignore_ascii_case("FULL") => is_first || self.size <= WHOLE,
            _ => self.size <= WHOLE,
        }
    }
}

/// Reads a message once, to know what it is made of.
async fn inspect(transaction: &Transaction, message: &dyn Message) -> io::Result<Content> {
    let header = transaction.header.as_ref();
    let header = header.map(|header| header.to_bytes()).unwrap_or_default();
    let mut blocks = Delivered::new(transaction, message);
    let mut content = Content {
        size: blocks.remaining(),
        eight_bit_body: false,
        is_text: !is_binary(transaction),
        header,
    };
    let (mut left, mut line, mut last) = (content.header.len(), 0, 0);
    while let Some(block) = blocks.next().await? {
        for &byte in block.iter() {
            // RFC 2045 §2.8: lines of 998 bytes at most that end in CRLF, no NUL, and CR and LF nowhere else.
            let stands_alone = (last == b'\r') != (byte == b'\n');
            line = if byte == b'\n' { 0 } else { line + 1 };
            if stands_alone || byte == 0 || line > LINE + 1 {
                content.is_text = false;
            }
            last = byte;
            if left > 0 {
                left -= 1;
            } else if !byte.is_ascii() {
                content.eight_bit_body = true;
            }
        }
    }
    if last == b'\r' {
        content.is_text = false;
    }
    Ok(content)
}

fn value<'a>(parameters: &'a Parameters, keyword: &str) -> Option<&'a str> {
    parameters.get(keyword)?.as_deref()
}
