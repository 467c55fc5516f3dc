//! One attempt: a message of the outbox is put to the plugins, in a session of its own.
//!
//! Only `queue_pre`, `queue` and `queue_post` are asked. A message that some recipients could not take was judged by all others when it came in, and passed; to judge it again would
//! let a filter refuse what the client was told is kept. A notification is ours: a filter that finds the spam in what it quotes would keep its sender from learning of a loss.

use std::sync::Arc;

use gatepost_protocol::{
    Address, Args, EnhancedCode, Field, HeaderBlock, Hook, Session, Transaction, Verdict,
};

use super::envelope::{Envelope, Recipient};
use super::folder::Stored;
use super::store::{self, Store};
use super::{Action, News};
use crate::chain::{Chain, Decision, Profile, Visit, agree};

/// What an attempt came to.
#[derive(Default)]
pub struct Attempted {
    /// How many have it now.
    pub taken: usize,
    /// What senders who asked for it are to be told of these.
    pub successes: Vec<News>,
    /// Who may take it later, and what was said.
    pub later: Vec<(Recipient, News)>,
    /// Who never will, and what was said.
    pub failed: Vec<(Recipient, News)>,
}

impl Attempted {
    fn note(&mut self, recipient: Recipient, fate: Fate) {
        match fate {
            Fate::Taken(success) => {
                self.taken += 1;
                self.successes.extend(success);
            }
            Fate::Later(said) => self.later.push((recipient, said)),
            Fate::Failed(said) => self.failed.push((recipient, said)),
        }
    }
}

/// What became of a message for a recipient.
enum Fate {
    /// With what its sender asked to be told.
    Taken(Option<News>),
    Later(News),
    Failed(News),
}

/// Recipients that go the same way by the same settings.
struct Group {
    profile: Option<Arc<Profile>>,
    route: Option<String>,
    recipients: Vec<Recipient>,
}

/// An attempt under way.
pub struct Attempt<'a> {
    chain: &'a Chain,
    store: &'a Store,
    visit: Visit,
    message: &'a Stored,
}

impl<'a> Attempt<'a> {
    /// An attempt in a session.
    pub fn new(
        chain: &'a Chain,
        store: &'a Store,
        session: Session,
        message: &'a Stored,
    ) -> Attempt<'a> {
        let mut visit = Visit::new(session);
        visit.utf8 = visit.session.transaction.is_smtputf8();
        Attempt {
            chain,
            store,
            visit,
            message,
        }
    }

    /// Puts the message to the plugins, for each group of recipients.
    pub async fn make(mut self, envelope: &Envelope) -> Attempted {
        let mut attempted = Attempted::default();
        self.visit.is_released = envelope.released.is_some();
        let whole = std::mem::take(&mut self.visit.session.transaction);
        let (groups, unsettled) = groups(self.chain, &envelope.recipients).await;
        for (recipient, fate) in unsettled {
            attempted.note(recipient, fate);
        }
        for group in groups {
            self.enter(&whole, &group);
            let fates = self.put(&group).await;
            for (recipient, fate) in group.recipients.into_iter().zip(fates) {
                attempted.note(recipient, fate);
            }
        }
        for event in [Hook::ResetTransaction, Hook::Disconnect] {
            self.chain
                .run(&mut self.visit, event, &Args::None, None)
                .await;
        }
        attempted
    }

    /// The transaction is for this group alone.
    fn enter(&mut self, whole: &Transaction, group: &Group) {
        let mut transaction = whole.clone();
        transaction.route.clone_from(&group.route);
        let is_of_group =
            |address: &Address| group.recipients.iter().any(|of| of.address == *address);
        transaction.retain_recipients(is_of_group);
        self.visit.session.transaction = transaction;
        self.visit.profile.clone_from(&group.profile);
    }

    /// What becomes of the message for each recipient of a group, in their order.
    async fn put(&mut self, group: &Group) -> Vec<Fate> {
        let mut decided: Vec<(Address, Hook, Decision)> = Vec::new();
        let mut hook = Hook::QueuePre;
        let mut decision = self.ask(hook).await;
        decided.append(&mut self.visit.decided);
        if !decision.ends_message() && !self.visit.session.transaction.recipients.is_empty() {
            hook = Hook::Queue;
            decision = self.ask(hook).await;
            decided.append(&mut self.visit.decided);
            if decision.verdict == Verdict::Ok {
                self.ask(Hook::QueuePost).await;
            }
        }
        // Whom a plugin replaced by others shares their fate. With whom the message is did not get the parameters, and will tell nobody of this recipient (RFC 3461 §5.2.2).
        let replaced = Decision {
            values: Vec::new(),
            ..decision.clone()
        };
        let at_hand = self.visit.session.transaction.recipients.clone();
        let of_each = |recipient: &Recipient| {
            let own = decided
                .iter()
                .find(|(address, ..)| *address == recipient.address);
            match own {
                Some((_, hook, decision)) => (*hook, decision),
                None if at_hand.contains(&recipient.address) => (hook, &decision),
                None => (hook, &replaced),
            }
        };
        let mut fates = Vec::with_capacity(group.recipients.len());
        for recipient in &group.recipients {
            let (hook, decision) = of_each(recipient);
            fates.push(match decision.verdict.diverts() {
                true => self.divert(recipient, decision).await,
                false => fate(recipient, hook, decision),
            });
        }
        fates
    }

    /// Has the message thrown away for a recipient, or kept in the store, as a plugin wants it.
    async fn divert(&mut self, recipient: &Recipient, decision: &Decision) -> Fate {
        let kind = match decision.verdict {
            Verdict::Quarantine => store::Kind::Quarantine,
            Verdict::Hold => store::Kind::Hold,
            _ => return Fate::Taken(None),
        };
        let reason = decision.lines.join(" ");
        let why = store::Why {
            kind,
            plugin: decision.plugin.as_deref().unwrap_or_default(),
            reason: &reason,
        };
        let transaction = &mut self.visit.session.transaction;
        let recipients = std::mem::take(&mut transaction.recipients);
        let parameters = std::mem::take(&mut transaction.recipient_parameters);
        transaction.add_recipient(recipient.address.clone(), recipient.parameters.clone());
        let (session, whom) = (&self.visit.session, [recipient.address.clone()]);
        let kept = self.store.keep(&why, session, &whom, self.message).await;
        let transaction = &mut self.visit.session.transaction;
        transaction.recipients = recipients;
        transaction.recipient_parameters = parameters;
        match kept {
            Ok(_) => Fate::Taken(None),
            Err(error) => {
                let text = format!("It cannot be kept in the store: {error}");
                Fate::Later(refusal(
                    recipient,
                    &Decision::declined(),
                    451,
                    EnhancedCode(4, 3, 1),
                    &text,
                ))
            }
        }
    }

    async fn ask(&mut self, hook: Hook) -> Decision {
        self.chain
            .run(&mut self.visit, hook, &Args::None, Some(self.message))
            .await
    }
}

/// The session of an attempt. `header` is the message's header block.
pub fn session(
    chain: &Chain,
    envelope: &Envelope,
    id: &str,
    header: HeaderBlock,
    path: std::path::PathBuf,
) -> Session {
    let path = chain.wants(Field::Path).then_some(path);
    envelope.session(id, envelope.attempts.saturating_add(1), header, path)
}

/// Recipients that go together; and those of whom nobody can tell now by what settings they are judged, or whose settings refuse them.
async fn groups(chain: &Chain, recipients: &[Recipient]) -> (Vec<Group>, Vec<(Recipient, Fate)>) {
    let mut groups: Vec<Group> = Vec::new();
    let mut unsettled = Vec::new();
    for recipient in recipients {
        let profile = match chain.profile(&recipient.address).await {
            Ok(profile) => profile,
            Err(decision) => {
                unsettled.push((recipient.clone(), fate(recipient, Hook::Rcpt, &decision)));
                continue;
            }
        };
        let goes_with = |group: &&mut Group| {
            group.route == recipient.route && agree(group.profile.as_ref(), profile.as_ref())
        };
        match groups.iter_mut().find(goes_with) {
            Some(group) => group.recipients.push(recipient.clone()),
            None => groups.push(Group {
                profile,
                route: recipient.route.clone(),
                recipients: vec![recipient.clone()],
            }),
        }
    }
    (groups, unsettled)
}

/// What a decision means for a recipient. That nobody takes part is no refusal: the operator may be about to put that right.
fn fate(recipient: &Recipient, hook: Hook, decision: &Decision) -> Fate {
    match decision.verdict {
        Verdict::Ok if hook == Hook::Queue => Fate::Taken(News::of_success(
            &recipient.address,
            &recipient.parameters,
            decision.enhanced,
            &decision.values,
        )),
        Verdict::Done => Fate::Taken(None),
        verdict if verdict.is_denial() && !verdict.is_soft() => Fate::Failed(refusal(
            recipient,
            decision,
            554,
            EnhancedCode(5, 3, 0),
            "The message was refused",
        )),
        _ => Fate::Later(refusal(
            recipient,
            decision,
            451,
            EnhancedCode(4, 3, 0),
            "Nobody could take the message yet",
        )),
    }
}

fn refusal(
    recipient: &Recipient,
    decision: &Decision,
    code: u16,
    enhanced: EnhancedCode,
    text: &str,
) -> News {
    let said = decision.lines.join(" ");
    News {
        recipient: recipient.address.clone(),
        parameters: recipient.parameters.clone(),
        action: Action::Failed,
        code: decision.code.unwrap_or(code),
        enhanced: Some(decision.enhanced.unwrap_or(enhanced)),
        text: if said.is_empty() {
            text.to_owned()
        } else {
            said
        },
    }
}
