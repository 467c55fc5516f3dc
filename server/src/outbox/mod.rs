//! What is owed to those who do not hear of it in the dialog: notifications to senders, and messages that some recipients could not take yet.
//!
//! What is withheld until somebody releases it lies beside that ([`store`]). All of it is on disk before the client is told 250 ([`folder`]), and goes to the same plugins as what clients bring ([`delivery`]) until somebody takes it, or it is too old.

mod clock;
mod delivery;
mod envelope;
pub mod folder;
mod notify;
mod run;
mod schedule;
pub mod store;
mod submit;
mod suppress;
#[cfg(test)]
mod tests;

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use gatepost_protocol::delivered::Delivered;
use gatepost_protocol::{
    Address, EnhancedCode, Level, Message, Parameters, Session, Success, Transaction,
};
use tokio::sync::Notify;

use crate::config::{Config, OutboxConfig};
pub use crate::message::dsn::Action;
use crate::report;
use clock::Clock;
use envelope::{Client, millis_of, recipients_of};
pub use envelope::{Envelope, Kind, Millis, Recipient, Withheld, millis, time};
use folder::{Draft, Folder, Id, blocking};
use schedule::{Bounds, Schedule};
pub use store::Store;
use suppress::{Event, Rate};

/// Whose lines these are in the log.
const LOGGED_AS: &str = "outbox";

/// The longest line of mail that is not binary, without its end (RFC 5322 §2.1.1).
const LINE: usize = 998;

/// The outbox of a daemon.
pub struct Outbox {
    hostname: String,
    config: OutboxConfig,
    folder: Folder,
    schedule: Arc<Schedule>,
    store: Arc<Store>,
    rate: Rate,
    clock: Clock,
    /// Something was added, here or to the store.
    added: Arc<Notify>,
}

/// What became of a message for a recipient.
#[derive(Clone, Debug)]
pub struct News {
    /// Who.
    pub recipient: Address,
    /// RCPT's.
    pub parameters: Parameters,
    /// What became of it.
    pub action: Action,
    /// Reply code.
    pub code: u16,
    /// Enhanced code.
    pub enhanced: Option<EnhancedCode>,
    /// What the client would have been told.
    pub text: String,
}

impl News {
    /// That a recipient has it, where the sender wants to know (RFC 3461 §5.2). `values`: what the plugin that took it said.
    pub fn of_success(
        recipient: &Address,
        parameters: &Parameters,
        enhanced: Option<EnhancedCode>,
        values: &[String],
    ) -> Option<News> {
        let action = match Success::of(values) {
            Success::Delivered => Action::Delivered,
            Success::Relayed => Action::Relayed,
            Success::None => return None,
        };
        Event::Success.is_named(parameters).then(|| News {
            recipient: recipient.clone(),
            parameters: parameters.clone(),
            action,
            code: 250,
            enhanced: enhanced.or(Some(EnhancedCode(2, 0, 0))),
            text: String::new(),
        })
    }
}

impl Outbox {
    /// Opens the outbox of a configuration, in `outbox` below its `spool_dir`: clears away what a crash left half-written, and reads what waits.
    ///
    /// # Errors
    /// The folder cannot be read, or cleared.
    pub fn open(config: &Config) -> io::Result<Arc<Outbox>> {
        let folder = Folder::below(&config.spool_dir);
        let added = Arc::new(Notify::new());
        let bounds = Bounds {
            table: "outbox",
            max_messages: config.outbox.max_messages,
            max_size: config.outbox.max_size,
        };
        let store = Store::new(&config.quarantine, folder.clone(), Arc::clone(&added));
        let outbox = Outbox {
            hostname: config.hostname.clone(),
            config: config.outbox.clone(),
            schedule: Arc::new(Schedule::new(bounds)),
            store: Arc::new(store),
            rate: Rate::new(&config.outbox),
            clock: Clock::new(),
            folder,
            added,
        };
        // All of it is read now.
        outbox.folder.take_changed();
        let read = outbox.folder.clear().and_then(|()| outbox.reread());
        read.map_err(|error| {
            let dir = outbox.folder.path().display();
            let hint = "let the user that Gatepost runs as read and write it";
            io::Error::new(error.kind(), format!("the outbox {dir}: {error}; {hint}"))
        })?;
        Ok(Arc::new(outbox))
    }

    /// What is withheld from delivery in the same folder.
    pub fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// Takes in what is in the folder. Blocks.
    fn reread(&self) -> io::Result<()> {
        let known = (self.schedule.known(), self.store.schedule.known());
        let mut found = Vec::new();
        let mut withheld = Vec::new();
        for entry in self.folder.list()? {
            match entry.envelope {
                Ok(envelope) => match self.store.due(&envelope) {
                    Some(due) => withheld.push((entry.id, envelope.size, due)),
                    None => found.push((entry.id, envelope.size, envelope.due)),
                },
                Err(error) => self.log(
                    Level::Error,
                    &entry.id,
                    format_args!("cannot be read and stays where it is: {error}"),
                ),
            }
        }
        self.schedule.replace(known.0, found.into_iter());
        self.store.schedule.replace(known.1, withheld.into_iter());
        Ok(())
    }

    /// Keeps the message of a session for the recipients of its transaction, and tries again later. It is durable when this returns.
    ///
    /// # Errors
    /// It is not kept: the outbox is full, or the disk is.
    pub async fn keep(
        &self,
        session: &Session,
        message: &dyn Message,
        why: &str,
    ) -> io::Result<()> {
        let transaction = &session.transaction;
        if transaction.recipients.is_empty() {
            return Ok(());
        }
        let room = self.schedule.room(1, size_of(transaction, message));
        let _room = room.map_err(io::Error::other)?;
        let recipients = recipients_of(transaction);
        let (draft, envelope) = draft_of(&self.folder, session, recipients, message).await?;
        let envelope = Envelope {
            attempts: 1,
            due: self.due_after(1, &envelope, envelope.arrived),
            reason: why.to_owned(),
            ..envelope
        };
        let recipients = envelope.recipients.len();
        let ids = self.commit(vec![(draft, envelope)]).await?;
        for id in ids {
            report::line(
                Level::Info,
                &session.id,
                None,
                LOGGED_AS,
                format_args!("kept as {id} for {recipients} recipients: {why}"),
            );
        }
        Ok(())
    }

    /// Makes messages durable, and has them delivered.
    async fn commit(&self, drafts: Vec<(Draft, Envelope)>) -> io::Result<Vec<Id>> {
        let known: Vec<(u64, Millis)> = drafts
            .iter()
            .map(|(_, envelope)| (envelope.size, envelope.due))
            .collect();
        let folder = self.folder.clone();
        let ids = blocking(move || folder.commit(drafts)).await?;
        for (id, (size, due)) in ids.iter().zip(known) {
            self.schedule.insert(id.clone(), size, due);
        }
        self.added.notify_one();
        Ok(ids)
    }

    /// How long to wait after so many attempts: twice as long each time, and a little more or less, so that what failed together is not tried together for ever.
    fn backoff(&self, attempts: u32) -> Duration {
        let doubled = 1_u32.checked_shl(attempts.saturating_sub(1));
        let wait = self
            .config
            .retry
            .saturating_mul(doubled.unwrap_or(u32::MAX));
        let spread = RandomState::new().hash_one(attempts) % 401;
        // Within u32: below 1201.
        wait.min(self.config.retry_max) * (800 + spread as u32) / 1000
    }

    /// No message is due later than that, unless the clock was set back since.
    fn latest_due(&self, now: Millis) -> Millis {
        now.saturating_add(millis_of(self.config.retry_max).saturating_mul(2))
    }

    /// When a message is due after so many attempts. One is made in time for what else is to happen: that its sender is told of the delay, and that it is given up.
    fn due_after(&self, attempts: u32, envelope: &Envelope, now: Millis) -> Millis {
        let due = now.saturating_add(millis_of(self.backoff(attempts)));
        let turns = [self.config.notify_delay, self.config.max_age];
        let turns = turns.into_iter().map(|age| envelope.after(age));
        turns.filter(|turn| now < *turn).fold(due, Millis::min)
    }

    fn log(&self, level: Level, id: &str, text: std::fmt::Arguments<'_>) {
        report::line(level, id, None, LOGGED_AS, text);
    }
}

/// A session's transaction as the log has it; empty where there was no session.
fn name_of(session: &Session) -> String {
    if session.id.is_empty() {
        return String::new();
    }
    format!("{}.{}", session.id, session.transaction.number)
}

/// Bytes of a session's message as it is delivered.
fn size_of(transaction: &Transaction, message: &dyn Message) -> u64 {
    Delivered::new(transaction, message).remaining()
}

/// Writes the message of a session, with what is known of it: it was not tried, and is due.
async fn draft_of(
    folder: &Folder,
    session: &Session,
    recipients: Vec<Recipient>,
    message: &dyn Message,
) -> io::Result<(Draft, Envelope)> {
    let transaction = &session.transaction;
    let folder = folder.clone();
    let draft = blocking(move || folder.draft()).await?;
    let draft = copy(draft, Delivered::new(transaction, message)).await?;
    let header_end = header_length(transaction);
    let body = transaction
        .body_start
        .saturating_sub(transaction.header_end);
    let envelope = Envelope {
        sender: transaction.sender.clone().unwrap_or_default(),
        sender_parameters: transaction.sender_parameters.clone(),
        quarantine: transaction.quarantine.clone(),
        client: Client::of(session),
        body_start: header_end + body,
        ..Envelope::of_our_own(
            Kind::Message,
            name_of(session),
            recipients,
            draft.size(),
            header_end,
        )
    };
    Ok((draft, envelope))
}

/// Bytes of the header block as it is delivered.
fn header_length(transaction: &Transaction) -> u64 {
    let header = transaction.header.as_ref();
    header.map_or(0, |header| header.to_bytes().len() as u64)
}

/// Appends a message.
async fn copy(mut draft: Draft, mut content: Delivered<'_>) -> io::Result<Draft> {
    while let Some(block) = content.next().await? {
        draft = append(draft, block).await?;
    }
    Ok(draft)
}

async fn append(mut draft: Draft, bytes: impl AsRef<[u8]> + Send + 'static) -> io::Result<Draft> {
    blocking(move || {
        draft.write(bytes.as_ref())?;
        Ok(draft)
    })
    .await
}
