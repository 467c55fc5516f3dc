//! The task that delivers what is due, a few messages at a time.

use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use gatepost_protocol::{HeaderBlock, Level, Message, Session};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::delivery::{self, Attempt, Attempted};
use super::envelope::{Envelope, Kind, Millis, Recipient, millis, millis_of, time};
use super::folder::{Claim, Claimed, Id, Stored, blocking};
use super::{Action, News, Outbox};
use crate::chain::Chain;

/// Deliveries that are under way at once.
const PARALLEL: usize = 4;
/// How often it is looked whether the command line changed something, while something waits.
const LOOK: Duration = Duration::from_secs(1);

impl Outbox {
    /// Delivers what is due, by the chain that is in force, until it is told to stop; then what is under way is finished. Where nothing waits this costs nothing.
    pub async fn run(
        self: Arc<Outbox>,
        chains: watch::Receiver<Arc<Chain>>,
        stop: CancellationToken,
    ) {
        let mut deliveries = JoinSet::new();
        while !stop.is_cancelled() {
            self.schedule.bring_forward(self.latest_due(now()));
            while deliveries.len() < PARALLEL
                && let Some(id) = self.schedule.take_due(now())
            {
                let chain = Arc::clone(&chains.borrow());
                deliveries.spawn(Arc::clone(&self).deliver(chain, id));
            }
            let wait = match self.schedule.next_due() {
                Some(due) if deliveries.len() < PARALLEL => {
                    Some(Duration::from_millis(due.saturating_sub(now())).min(LOOK))
                }
                None if self.store.schedule.is_empty() => None,
                _ => Some(LOOK),
            };
            tokio::select! {
                () = stop.cancelled() => {}
                () = self.added.notified() => {}
                Some(_) = deliveries.join_next() => {}
                () = sleep(wait.unwrap_or_default()), if wait.is_some() => self.look().await,
            }
        }
        while deliveries.join_next().await.is_some() {}
    }

    /// Takes in what another daemon changed in the folder, and delivers what is due.
    pub async fn read_again(self: &Arc<Outbox>) {
        let outbox = Arc::clone(self);
        self.tell_error(blocking(move || outbox.reread()).await);
        self.added.notify_one();
    }

    fn tell_error(&self, read: io::Result<()>) {
        if let Err(error) = read {
            self.log(
                Level::Error,
                "",
                format_args!("{}: {error}", self.folder.path().display()),
            );
        }
    }

    /// Looks whether the command line changed something.
    async fn look(self: &Arc<Outbox>) {
        let outbox = Arc::clone(self);
        let read = blocking(move || match outbox.folder.take_changed() {
            true => outbox.reread(),
            false => Ok(()),
        });
        self.tell_error(read.await);
    }

    /// Makes an attempt for a message that was taken from the schedule.
    async fn deliver(self: Arc<Outbox>, chain: Arc<Chain>, id: Id) {
        let (folder, name) = (self.folder.clone(), id.clone());
        let claimed = blocking(move || folder.claim(&name)).await;
        let mut claim = match claimed {
            Ok(Claimed::Ours(claim)) => claim,
            Ok(Claimed::Gone) => return self.schedule.forget(&id),
            // Another daemon is at it, or the command line: what it leaves is looked at again.
            Ok(Claimed::Busy) => return self.schedule.put_back(&id, now() + millis_of(LOOK)),
            Err(error) => return self.stuck(&id, &error),
        };
        if let Some(unsaved) = self.schedule.recall(&id) {
            claim.envelope = unsaved;
        } else {
            let (now, due) = (now(), claim.envelope.due);
            if now < due && due <= self.latest_due(now) {
                return self.schedule.put_back(&id, due);
            }
        }
        let message = claim.message();
        let attempted = match self.attempt(&chain, &claim, &message).await {
            Ok(attempted) => attempted,
            Err(error) => return self.stuck(&id, &error),
        };
        let next = self.conclude(&chain, &claim, &message, attempted).await;
        let (is_over, due) = (next.recipients.is_empty(), next.due);
        let (folder, saved) = (self.folder.clone(), next.clone());
        let saving = blocking(move || match is_over {
            true => folder.remove(&claim),
            false => folder.update(&claim, &saved),
        });
        match saving.await {
            Ok(()) if is_over => self.schedule.forget(&id),
            Ok(()) => self.schedule.put_back(&id, due),
            Err(error) => {
                self.schedule.remember(id.clone(), next);
                self.stuck(&id, &error);
            }
        }
    }

    /// The disk fails, or is full.
    fn stuck(&self, id: &Id, error: &io::Error) {
        let dir = self.folder.path().display();
        self.log(
            Level::Error,
            id,
            format_args!("in {dir}: {error}; trying again later"),
        );
        self.schedule
            .put_back(id, now() + millis_of(self.config.retry));
    }

    async fn attempt(
        &self,
        chain: &Chain,
        claim: &Claim,
        message: &Stored,
    ) -> io::Result<Attempted> {
        let session = self.session(chain, claim, message).await?;
        let attempt = Attempt::new(chain, &self.store, session, message);
        Ok(attempt.make(&claim.envelope).await)
    }

    async fn session(&self, chain: &Chain, claim: &Claim, message: &Stored) -> io::Result<Session> {
        let envelope = &claim.envelope;
        let length = usize::try_from(envelope.header_end).unwrap_or(usize::MAX);
        let header = HeaderBlock::parse(message.read(0, length).await?);
        let path = self.folder.bytes_of(&claim.id);
        Ok(delivery::session(chain, envelope, &claim.id, header, path))
    }

    /// What is to be done after an attempt: the envelope with those who have not got the message yet.
    async fn conclude(
        &self,
        chain: &Chain,
        claim: &Claim,
        message: &Stored,
        attempted: Attempted,
    ) -> Envelope {
        let Attempted {
            taken,
            successes,
            mut later,
            mut failed,
        } = attempted;
        let envelope = &claim.envelope;
        if taken > 0 {
            let of = taken + later.len() + failed.len();
            let text = format_args!("delivered to {taken} of {of} recipients");
            self.log(Level::Info, &claim.id, text);
        }
        if let Err(error) = self.tell(chain, claim, message, &successes).await {
            // To deliver it once more would be worse.
            let text = format_args!("its sender is not told of the delivery: {error}");
            self.log(Level::Error, &claim.id, text);
        }
        let expires = envelope.after(self.config.max_age);
        let late = envelope.after(self.config.notify_delay);
        let now = now();
        let is_believed = self.clock.is_believed();
        if now >= expires && is_believed {
            failed.append(&mut later);
        }
        if !failed.is_empty()
            && let Err(error) = self.give_up(chain, claim, message, &failed).await
        {
            let text = format_args!("its sender cannot be told yet: {error}");
            self.log(Level::Error, &claim.id, text);
            later.append(&mut failed);
        }
        let mut delay_told = envelope.delay_told;
        if !delay_told && now >= late && is_believed {
            let action = Action::Delayed(time(expires));
            let delays = later.iter().map(|(_, said)| News {
                action,
                ..said.clone()
            });
            let delays: Vec<News> = delays.collect();
            match self.tell(chain, claim, message, &delays).await {
                Ok(()) => delay_told = true,
                Err(error) => {
                    let text = format_args!("its sender cannot be told of the delay yet: {error}");
                    self.log(Level::Error, &claim.id, text);
                }
            }
        }
        let attempts = envelope.attempts.saturating_add(1);
        let due = self.due_after(attempts, envelope, now);
        let said = later.first().map(|(_, said)| said);
        let reason = said.map(|said| format!("{} {}", said.code, said.text));
        if let Some(reason) = &reason {
            let (waiting, wait) = (later.len(), due.saturating_sub(now) / 1000);
            let text = format_args!(
                "{waiting} recipients wait after attempt {attempts}, for {wait} s: {reason}"
            );
            self.log(Level::Info, &claim.id, text);
        }
        Envelope {
            attempts,
            due,
            // Where the clock was ahead when it came, it would never be old enough.
            arrived: envelope.arrived.min(now),
            released: envelope.released.map(|released| released.min(now)),
            reason: reason.unwrap_or_default(),
            delay_told,
            recipients: later.into_iter().map(|(recipient, _)| recipient).collect(),
            ..envelope.clone()
        }
    }

    /// Some recipients will never have it, and their sender is told.
    async fn give_up(
        &self,
        chain: &Chain,
        claim: &Claim,
        message: &Stored,
        failed: &[(Recipient, News)],
    ) -> io::Result<()> {
        let news: Vec<News> = failed.iter().map(|(_, said)| said.clone()).collect();
        self.tell(chain, claim, message, &news).await?;
        let kind = claim.envelope.kind.name();
        for (recipient, said) in failed {
            let to = recipient.address.as_str();
            let (code, text) = (said.code, &said.text);
            let text = format_args!("{kind} given up for {to}: {code} {text}");
            self.log(Level::Warn, &claim.id, text);
        }
        Ok(())
    }

    /// Tells the sender of a message what became of it; of a notification nobody is told (RFC 5321 §6.1).
    async fn tell(
        &self,
        chain: &Chain,
        claim: &Claim,
        message: &Stored,
        news: &[News],
    ) -> io::Result<()> {
        let envelope = &claim.envelope;
        if news.is_empty() || envelope.kind != Kind::Message {
            return Ok(());
        }
        let session = self.session(chain, claim, message).await?;
        self.notify_late(&session, message, news, time(envelope.arrived))
            .await?;
        Ok(())
    }
}

fn now() -> Millis {
    millis(SystemTime::now())
}
