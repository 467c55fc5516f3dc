//! Messages that are withheld: quarantined ones, and those that are held until somebody decides.
//!
//! Each is a message in the outbox's folder like any other, with an envelope that says who withheld it and why; nobody tries to deliver it while it says so. To release it is to give it an envelope
//! that does not, in one rename and under its lock. So it is either here or in the outbox, also after a crash, and is released once however many ask for it.

use std::collections::HashSet;
use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use gatepost_protocol::{Address, Level, Message, Session};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tokio::time::interval;
use tokio_util::sync::CancellationToken;

use super::clock::Clock;
use super::envelope::{Envelope, Millis, Withheld, millis, millis_of, recipients_of};
use super::folder::{Claim, Claimed, Folder, blocking};
use super::schedule::{Bounds, Schedule};
use super::{draft_of, size_of};
use crate::config::QuarantineConfig;
use crate::report::{self, Limit};

/// Whose lines these are in the log.
const LOGGED_AS: &str = "quarantine";

/// How often it is looked what is too old.
const LOOK: Duration = Duration::from_secs(60);

/// Bytes of a reason that are kept: it is a plugin's text, of any length.
const MAX_REASON: usize = 1000;

/// How a message is withheld.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// It is taken for harmful, and removed when it is too old.
    Quarantine,
    /// It waits for somebody's decision, for as long as it takes.
    Hold,
}

/// Why a message is withheld.
#[derive(Clone, Copy, Debug)]
pub struct Why<'a> {
    /// How.
    pub kind: Kind,
    /// Whose decision it is.
    pub plugin: &'a str,
    /// What the plugin says; may be empty.
    pub reason: &'a str,
}

/// The withheld messages of a daemon.
pub struct Store {
    keep: Duration,
    clock: Clock,
    folder: Folder,
    pub(super) schedule: Arc<Schedule>,
    /// Told of what is added: the outbox looks whether the command line released something while there is something to release.
    added: Arc<Notify>,
}

impl Kind {
    /// The word for it in lists and in the log.
    pub const fn name(self) -> &'static str {
        match self {
            Kind::Quarantine => "quarantined",
            Kind::Hold => "held",
        }
    }
}

impl Store {
    pub(super) fn new(config: &QuarantineConfig, folder: Folder, added: Arc<Notify>) -> Store {
        Store {
            keep: config.keep,
            clock: Clock::new(),
            folder,
            schedule: Arc::new(Schedule::new(Bounds {
                table: "quarantine",
                max_messages: config.max_messages,
                max_size: config.max_size,
            })),
            added,
        }
    }

    /// Keeps the message of a session, as it would be delivered, for these of its recipients; returns its name. It is durable when this returns.
    ///
    /// # Errors
    /// It is not kept: there are no recipients, or the store or the disk is full.
    pub async fn keep(
        &self,
        why: &Why<'_>,
        session: &Session,
        recipients: &[Address],
        message: &dyn Message,
    ) -> io::Result<String> {
        let transaction = &session.transaction;
        let among: HashSet<&Address> = recipients.iter().collect();
        let mut recipients = recipients_of(transaction);
        recipients.retain(|recipient| among.contains(&recipient.address));
        if recipients.is_empty() {
            return Err(io::Error::other("nobody is to get the message"));
        }
        let room = self.schedule.room(1, size_of(transaction, message));
        let _room = room.map_err(|full| {
            report::count(Limit::Quarantine);
            io::Error::other(full)
        })?;
        let (draft, envelope) = draft_of(&self.folder, session, recipients, message).await?;
        let reason = why.reason;
        let envelope = Envelope {
            withheld: Some(Withheld {
                kind: why.kind,
                plugin: why.plugin.to_owned(),
                reason: reason[..reason.floor_char_boundary(MAX_REASON)].to_owned(),
            }),
            ..envelope
        };
        let (size, due) = (envelope.size, self.due(&envelope).unwrap_or(Millis::MAX));
        let of = envelope.recipients.len();
        let folder = self.folder.clone();
        let ids = blocking(move || folder.commit(vec![(draft, envelope)])).await?;
        for id in &ids {
            self.schedule.insert(id.clone(), size, due);
            let (done, plugin) = (why.kind.name(), why.plugin);
            let text = format_args!("{done} as {id} for {of} recipients by {plugin}: {reason}");
            report::line(Level::Info, &session.id, None, LOGGED_AS, text);
        }
        self.added.notify_one();
        Ok(ids.iter().map(ToString::to_string).collect())
    }

    /// Removes what is too old, until it is told to stop.
    pub async fn run(self: Arc<Store>, stop: CancellationToken) {
        let mut looks = interval(LOOK);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = looks.tick() => {
                    if self.clock.is_believed() {
                        self.expire(millis(SystemTime::now())).await;
                    }
                }
            }
        }
    }

    /// Removes what is too old at this time.
    pub(super) async fn expire(&self, now: Millis) {
        while let Some(id) = self.schedule.take_due(now) {
            let (folder, name) = (self.folder.clone(), id.clone());
            let removed = blocking(move || {
                let claimed = claim(&folder, &name)?;
                if let Claimed::Ours(claim) = &claimed {
                    folder.remove(claim)?;
                }
                Ok(claimed)
            });
            match removed.await {
                Ok(Claimed::Ours(claim)) => {
                    self.schedule.forget(&id);
                    let (sender, of) = (&claim.envelope.sender, claim.envelope.recipients.len());
                    let text = format_args!(
                        "removed, it is older than `keep`: from {sender} for {of} recipients"
                    );
                    report::line(Level::Info, &id, None, LOGGED_AS, text);
                }
                Ok(Claimed::Gone) => self.schedule.forget(&id),
                // The command line releases it: that is seen then.
                Ok(Claimed::Busy) => self.schedule.put_back(&id, now + millis_of(LOOK)),
                Err(error) => {
                    let dir = self.folder.path().display();
                    let text = format_args!("in {dir}: {error}; trying again later");
                    report::line(Level::Error, &id, None, LOGGED_AS, text);
                    self.schedule.put_back(&id, now + millis_of(LOOK));
                }
            }
        }
    }

    /// When a message that is withheld is to go; `None` for one that is not.
    pub(super) fn due(&self, envelope: &Envelope) -> Option<Millis> {
        let withheld = envelope.withheld.as_ref()?;
        Some(
            withheld
                .goes(envelope.arrived, self.keep)
                .unwrap_or(Millis::MAX),
        )
    }
}

impl Withheld {
    /// When a message that came then is removed; `None`: never.
    pub fn goes(&self, arrived: Millis, keep: Duration) -> Option<Millis> {
        match self.kind {
            Kind::Quarantine => Some(arrived.saturating_add(millis_of(keep))),
            Kind::Hold => None,
        }
    }
}

/// Takes hold of a message, which is gone where it is not withheld any more. Blocks.
///
/// # Errors
/// The folder cannot be read, or the envelope makes no sense.
fn claim(folder: &Folder, id: &str) -> io::Result<Claimed> {
    Ok(match folder.claim(id)? {
        Claimed::Ours(claim) if claim.envelope.withheld.is_none() => Claimed::Gone,
        claimed => claimed,
    })
}

/// Hands a message to the outbox, to be delivered at once: for these of its recipients, or all of them where none is named. The others' copy stays. It is durable when this returns. Blocks.
///
/// A message that is released in parts is copied. A crash between the copy and the removal of its recipients here leaves them in both.
///
/// # Errors
/// The disk fails; or the message was released before, or is not for one of them, and nothing is changed.
pub fn release(folder: &Folder, claim: &Claim, only: &[Address], now: Millis) -> io::Result<()> {
    let envelope = &claim.envelope;
    if envelope.withheld.is_none() {
        let text = format!("{} was released before", claim.id);
        return Err(io::Error::other(text));
    }
    let is_among = |address: &Address| {
        let recipients = &mut envelope.recipients.iter();
        recipients.any(|recipient| recipient.address == *address)
    };
    if let Some(stranger) = only.iter().find(|address| !is_among(address)) {
        let text = format!("{} is not for {stranger}", claim.id);
        return Err(io::Error::other(text));
    }
    let (released, rest) = envelope
        .recipients
        .iter()
        .cloned()
        .partition(|recipient| only.is_empty() || only.contains(&recipient.address));
    let released = Envelope {
        recipients: released,
        ..envelope.released(now)
    };
    let rest = Envelope {
        recipients: rest,
        ..envelope.clone()
    };
    if rest.recipients.is_empty() {
        return folder.update(claim, &released);
    }
    let copy = folder.copy(claim)?;
    folder.commit(vec![(copy, released)])?;
    folder.update(claim, &rest)
}
