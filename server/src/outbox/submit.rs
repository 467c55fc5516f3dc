//! Mail of plugins' own: messages, and notifications about messages that a plugin took over and could not deliver.

use std::io;
use std::time::SystemTime;

use bytes::Bytes;
use gatepost_protocol::services::{MemoryMessage, ServiceErrorCode};
use gatepost_protocol::{
    Address, Bounce, Direction, HeaderBlock, Parameters, ServiceError, Session, Submission,
};

use super::envelope::{Envelope, Kind, Recipient};
use super::folder::{blocking, random};
use super::{Action, LINE, News, Outbox};
use crate::message::data::normalized;
use crate::message::date;

impl Outbox {
    /// Keeps a plugin's own message, to be delivered at once; returns its name. It is durable when this returns.
    ///
    /// # Errors
    /// It is no message; or the outbox or the disk is full.
    pub async fn submit(&self, submission: Submission) -> Result<String, ServiceError> {
        let (sender, recipients) = (submission.sender, submission.recipients);
        if recipients.is_empty() || recipients.iter().any(|recipient| recipient.is_null()) {
            return Err(bad("a message needs recipients"));
        }
        let (header, rest) = parsed(&submission.message)?;
        let header = self.completed(header).map_err(|error| later(&error))?;
        let mut sender_parameters = Parameters::new();
        if !header.is_ascii() || !rest.is_ascii() {
            sender_parameters.insert("BODY".to_owned(), Some("8BITMIME".to_owned()));
        }
        let needs_utf8 = recipients.iter().any(Address::needs_smtputf8);
        if !header.is_ascii() || sender.needs_smtputf8() || needs_utf8 {
            sender_parameters.insert("SMTPUTF8".to_owned(), None);
        }
        let size = (header.len() + rest.len()) as u64;
        let room = self.schedule.room(1, size);
        let _room = room.map_err(|full| later(&io::Error::other(full)))?;
        let recipients = recipients.into_iter().map(|address| Recipient {
            address,
            parameters: Parameters::new(),
            route: None,
        });
        let envelope = Envelope {
            sender,
            sender_parameters,
            ..Envelope::of_our_own(
                Kind::Message,
                "plugin".to_owned(),
                recipients.collect(),
                size,
                header.len() as u64,
            )
        };
        let folder = self.folder.clone();
        let draft = blocking(move || {
            let mut draft = folder.draft()?;
            draft.write(&header)?;
            draft.write(&rest)?;
            Ok(draft)
        });
        let draft = draft.await.map_err(|error| later(&error))?;
        let ids = self.commit(vec![(draft, envelope)]).await;
        let ids = ids.map_err(|error| later(&error))?;
        Ok(ids.iter().map(ToString::to_string).collect())
    }

    /// Tells a sender of a message that did not reach a recipient; returns the notification's name, or `None` where there may be none. It is durable when this returns.
    ///
    /// # Errors
    /// What was given makes no notification; or the outbox or the disk is full.
    pub async fn bounce_for(&self, bounce: Bounce) -> Result<Option<String>, ServiceError> {
        if !(400..600).contains(&bounce.code) {
            return Err(bad("`code` is to be a reply code from 400 to 599"));
        }
        let class = u16::from(bounce.enhanced.map_or(5, |code| code.0));
        if bounce.enhanced.is_some() && class != bounce.code / 100 {
            return Err(bad("`enhanced` is to be of the class of `code`"));
        }
        let (header, rest) = parsed(&bounce.message)?;
        let header_end = header.len() as u64;
        let message: Bytes = [header.as_ref(), &rest].concat().into();
        let mut session = Session::default();
        session.connection.direction = Direction::Local;
        let transaction = &mut session.transaction;
        if !bounce.sender.as_str().is_ascii() || !bounce.recipient.as_str().is_ascii() {
            let parameters = &mut transaction.sender_parameters;
            parameters.insert("SMTPUTF8".to_owned(), None);
        }
        transaction.sender = Some(bounce.sender);
        transaction.size = message.len() as u64;
        transaction.header = Some(HeaderBlock::parse(header));
        transaction.header_end = header_end;
        transaction.body_start = header_end + 2;
        let news = [News {
            recipient: bounce.recipient,
            parameters: Parameters::new(),
            action: Action::Failed,
            code: bounce.code,
            enhanced: bounce.enhanced,
            text: bounce.text,
        }];
        let message = MemoryMessage(message);
        let told = self.notify(&session, &message, &news).await;
        let told = told.map_err(|error| later(&error))?;
        Ok(told.first().map(ToString::to_string))
    }

    /// A header block with what every message of ours has (RFC 5322 §3.6, RFC 3834 §5).
    fn completed(&self, header: Bytes) -> io::Result<Bytes> {
        let mut header = HeaderBlock::parse(header);
        let message_id = format!("<{}@{}>", random(16)?, self.hostname);
        for (name, value) in [
            ("Date", date::rfc5322(SystemTime::now())),
            ("Message-ID", message_id),
            ("Auto-Submitted", "auto-generated".to_owned()),
        ] {
            if header.first(name).is_none() {
                let added = header.add(name, value.as_bytes(), false);
                added.map_err(io::Error::other)?;
            }
        }
        Ok(header.to_bytes())
    }
}

/// The header block of a text, and the rest from the empty line on; all lines end in CRLF.
fn parsed(text: &[u8]) -> Result<(Bytes, Bytes), ServiceError> {
    let mut lines = normalized(text);
    if !lines.ends_with(b"\r\n") {
        lines.extend_from_slice(b"\r\n");
    }
    if lines.contains(&0) {
        return Err(bad("there is a NUL in the message"));
    }
    if lines
        .split(|byte| *byte == b'\n')
        .any(|line| line.len() > LINE + 1)
    {
        return Err(bad("a line of the message is longer than 998 bytes"));
    }
    let (header_end, _) = match HeaderBlock::find_end(&lines, 0) {
        Some(end) => end,
        None => {
            let end = lines.len();
            lines.extend_from_slice(b"\r\n");
            (end, end)
        }
    };
    let mut header = Bytes::from(lines);
    let rest = header.split_off(header_end);
    Ok((header, rest))
}

fn bad(message: &str) -> ServiceError {
    ServiceError::new(ServiceErrorCode::BadParams, message)
}

fn later(error: &io::Error) -> ServiceError {
    ServiceError::temporary(format!("the outbox cannot take it: {error}"))
}
