//! Who is to be judged together: the recipients of a message, parted by the settings in force for them, and what became of it for each.

use std::sync::Arc;

use gatepost_protocol::{Address, EnhancedCode, Hook, Parameters, Transaction, Verdict};

use super::Mail;
use crate::chain::{Decision, Profile, agree};
use crate::report::{self, Limit};

/// A recipient whose RCPT was accepted.
pub(super) struct Accepted {
    pub address: Address,
    /// RCPT's.
    pub parameters: Parameters,
    /// The settings in force for it; `None`: the site's.
    pub profile: Option<Arc<Profile>>,
}

/// What became of a message for a recipient.
#[derive(Clone)]
pub(super) struct Fate {
    pub hook: Hook,
    pub decision: Decision,
}

/// Recipients that a message is judged for once, with a copy of the transaction for them alone.
pub(super) struct Share {
    /// Places among the accepted recipients.
    pub members: Vec<usize>,
    pub profile: Option<Arc<Profile>>,
    pub transaction: Transaction,
}

/// A message on its way to its recipients.
pub(super) struct Delivery {
    pub shares: Vec<Share>,
    /// By place among the accepted recipients; `None`: nobody decided yet.
    pub fates: Vec<Option<Fate>>,
    /// Recipients that plugins added, and that refused the message.
    pub strays: Vec<(Address, Fate)>,
    pub sender: Option<Address>,
    /// The transaction with all of them, where there are several shares.
    whole: Option<Transaction>,
}

impl Fate {
    /// Whether the message is safe.
    pub fn is_taken(&self) -> bool {
        self.hook == Hook::Queue && self.decision.verdict == Verdict::Ok
    }

    /// Nobody took the message.
    pub fn not_queued() -> Fate {
        Fate {
            hook: Hook::Queue,
            decision: Decision::declined(),
        }
    }

    /// Who refused it, for the log.
    pub fn why(&self) -> String {
        match (&self.decision.plugin, self.decision.verdict) {
            (Some(plugin), Verdict::Done) => format!("{plugin} dealt with it"),
            (Some(plugin), _) => plugin.to_string(),
            (None, Verdict::Declined) => "nobody took it".to_owned(),
            (None, _) => self.decision.lines.join(" "),
        }
    }

    /// A refusal of our own.
    pub fn refusal(verdict: Verdict, code: u16, enhanced: EnhancedCode, text: String) -> Fate {
        Fate {
            hook: Hook::DataPost,
            decision: Decision {
                verdict,
                code: Some(code),
                enhanced: Some(enhanced),
                lines: vec![text],
                ..Decision::declined()
            },
        }
    }
}

impl Delivery {
    /// Whether some recipients take the message, or still may, and others do not.
    pub fn is_mixed(&self) -> bool {
        let may = |fate: &Option<Fate>| fate.as_ref().is_none_or(Fate::is_taken);
        self.fates.iter().any(may) && !self.fates.iter().all(may)
    }

    /// Whether the message is safe for somebody.
    pub fn is_taken(&self) -> bool {
        self.fates.iter().flatten().any(Fate::is_taken)
    }

    /// Whether somebody's fate is open.
    pub fn is_open(&self) -> bool {
        self.fates.iter().any(Option::is_none)
    }

    /// Whether somebody's fate in a share is open.
    pub fn is_share_open(&self, at: usize) -> bool {
        let mut members = self.shares[at].members.iter();
        members.any(|member| self.fates[*member].is_none())
    }

    /// Gives everybody in a share this fate whose own is open.
    pub fn close_share(&mut self, at: usize, fate: &Fate) {
        for member in &self.shares[at].members {
            self.fates[*member].get_or_insert_with(|| fate.clone());
        }
    }

    /// Gives everybody this fate whose own is open.
    pub fn close(&mut self, fate: &Fate) {
        for open in self.fates.iter_mut().filter(|fate| fate.is_none()) {
            *open = Some(fate.clone());
        }
    }
}

impl Mail {
    /// The biggest message that a recipient with these settings takes, in bytes.
    pub(super) fn max_size_of(&self, profile: Option<&Arc<Profile>>) -> u64 {
        let own = profile.and_then(|profile| profile.max_size);
        own.unwrap_or(self.shared.config.limits.max_size)
    }

    /// The biggest message that anybody takes: of the recipients, where there are some. `u64::MAX`: nobody knows.
    pub(super) fn max_size(&self) -> u64 {
        let site = self.shared.config.limits.max_size;
        let theirs = self.accepted.iter();
        theirs
            .map(|accepted| self.max_size_of(accepted.profile.as_ref()))
            .max()
            .unwrap_or_else(|| site.max(self.shared.chain.max_size().unwrap_or_default()))
    }

    /// Whether nobody is there to get a message: no RCPT was accepted, or plugins took away whom it was accepted for.
    pub(super) fn has_no_recipients(&self) -> bool {
        self.accepted.is_empty() || self.visit.session.transaction.recipients.is_empty()
    }

    /// The recipients are known: the chain is to judge by their settings, where these agree.
    pub(super) fn face_recipients(&mut self) {
        let Some((first, others)) = self.accepted.split_first() else {
            return;
        };
        let first = first.profile.as_ref();
        self.visit.divided = !others
            .iter()
            .all(|other| agree(first, other.profile.as_ref()));
        self.visit.profile = first.filter(|_| !self.visit.divided).cloned();
    }

    /// Parts the recipients by their settings.
    pub(super) async fn share_out(&mut self) -> Delivery {
        let transaction = std::mem::take(&mut self.visit.session.transaction);
        let mut fates = Vec::with_capacity(self.accepted.len());
        let mut shares: Vec<Share> = Vec::with_capacity(1);
        for (at, accepted) in self.accepted.iter().enumerate() {
            let profile = accepted.profile.as_ref();
            match shares
                .iter_mut()
                .find(|share| agree(share.profile.as_ref(), profile))
            {
                Some(share) => share.members.push(at),
                None => shares.push(Share {
                    members: vec![at],
                    profile: profile.cloned(),
                    transaction: Transaction::default(),
                }),
            }
            let most = self.max_size_of(profile);
            fates.push((transaction.size > most).then(|| {
                report::count(Limit::Size);
                let text = format!("Message is bigger than {most} bytes");
                Fate::refusal(Verdict::Deny, 552, EnhancedCode(5, 3, 4), text)
            }));
        }
        let mut delivery = Delivery {
            shares,
            fates,
            strays: Vec::new(),
            sender: transaction.sender.clone(),
            whole: None,
        };
        self.hand_out(&mut delivery, transaction).await;
        delivery
    }

    /// The transaction is that of all recipients again.
    pub(super) fn take_back(&mut self, delivery: &mut Delivery) {
        let first = delivery.shares.first_mut();
        let whole = delivery.whole.take();
        let whole = whole.or_else(|| first.map(|share| std::mem::take(&mut share.transaction)));
        self.visit.session.transaction = whole.unwrap_or_default();
    }

    /// Gives each share its copy of the transaction, with its own recipients. Those that a plugin added are in the share of those with the same settings,
    /// or else in the first.
    async fn hand_out(&self, delivery: &mut Delivery, transaction: Transaction) {
        let Delivery {
            shares,
            fates,
            whole,
            ..
        } = delivery;
        let too_small = |address: &Address| {
            let mut at = self.accepted.iter().zip(fates.iter());
            at.any(|(accepted, fate)| accepted.address == *address && fate.is_some())
        };
        if let [only] = &mut shares[..] {
            only.transaction = transaction;
            if fates.iter().any(Option::is_some) {
                only.transaction.retain_recipients(|to| !too_small(to));
            }
            return;
        }
        let mut places = Vec::with_capacity(transaction.recipients.len());
        for address in &transaction.recipients {
            let mut accepted = self.accepted.iter();
            let profile = match accepted.find(|accepted| accepted.address == *address) {
                // As at RCPT, whatever has changed since.
                Some(accepted) => Ok(accepted.profile.clone()),
                None => self.shared.chain.profile(address).await,
            };
            let place = profile.ok().and_then(|profile| {
                let agrees = |share: &Share| agree(share.profile.as_ref(), profile.as_ref());
                shares.iter().position(agrees)
            });
            places.push(place.unwrap_or_default());
        }
        for (at, share) in shares.iter_mut().enumerate() {
            share.transaction = transaction.clone();
            let mut place = places.iter();
            share
                .transaction
                .retain_recipients(|to| place.next() == Some(&at) && !too_small(to));
        }
        *whole = Some(transaction);
    }
}

/// The transaction for each route that recipients go; those without one go together.
pub(super) fn by_route(transaction: Transaction) -> Vec<Transaction> {
    if transaction.routes.is_empty() {
        return vec![transaction];
    }
    let route = |to: &Address| transaction.routes.get(to).cloned();
    let mut routes: Vec<Option<String>> = Vec::new();
    for recipient in &transaction.recipients {
        let route = route(recipient);
        if !routes.contains(&route) {
            routes.push(route);
        }
    }
    routes
        .into_iter()
        .map(|one| {
            let mut part = transaction.clone();
            part.retain_recipients(|to| route(to) == one);
            part.route = one;
            part
        })
        .collect()
}
