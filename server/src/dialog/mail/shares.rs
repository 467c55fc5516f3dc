//! Who is to be judged together: the recipients of a message, parted by the settings in force for them, and what became of it for each.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use gatepost_protocol::{Address, EnhancedCode, Hook, Parameters, Transaction, Verdict};

use super::Mail;
use super::divert::Diverted;
use crate::chain::{Decision, Profile, agree};
use crate::report::{self, Limit};

/// A recipient whose RCPT was accepted.
pub(super) struct Accepted {
    pub address: Address,
    /// RCPT's.
    pub parameters: Parameters,
    /// The settings in force for it; `None`: the site's.
    pub profile: Option<Arc<Profile>>,
    /// Where its message is to go instead.
    pub diverted: Option<Decision>,
}

/// What became of a message for a recipient.
#[derive(Clone)]
pub(super) struct Fate {
    pub hook: Hook,
    pub decision: Decision,
    /// In the store, its name there.
    pub kept_as: Option<String>,
}

/// Recipients that a message is judged for once, with a copy of the transaction for them alone.
pub(super) struct Share {
    /// Places among the accepted recipients.
    pub members: Vec<usize>,
    pub profile: Option<Arc<Profile>>,
    pub transaction: Transaction,
    /// Our trace headers are in it.
    pub has_trace: bool,
    /// It was diverted before the message came: nobody judges it any more.
    is_diverted: bool,
}

/// A message on its way to its recipients.
pub(super) struct Delivery {
    pub shares: Vec<Share>,
    /// By place among the accepted recipients; `None`: nobody decided yet.
    pub fates: Vec<Option<Fate>>,
    /// Recipients that plugins added, and that refused the message.
    pub strays: Vec<(Address, Fate)>,
    pub sender: Option<Address>,
    /// Who is not to get the message, though it is taken; not yet seen to.
    pub diverted: Vec<Diverted>,
    /// The transaction with all of them, where there are several shares.
    whole: Option<Transaction>,
}

impl Fate {
    /// What a decision makes of it.
    pub fn new(hook: Hook, decision: Decision) -> Fate {
        Fate {
            hook,
            decision,
            kept_as: None,
        }
    }

    /// Whether the client need not care any more: the message is safe, or goes where somebody wants it to go.
    pub fn is_taken(&self) -> bool {
        self.is_queued() || self.is_diverted()
    }

    /// Whether a queue plugin has the message.
    pub fn is_queued(&self) -> bool {
        self.hook == Hook::Queue && self.decision.verdict == Verdict::Ok
    }

    /// Whether the message is taken, and does not go to the recipient.
    pub fn is_diverted(&self) -> bool {
        self.decision.verdict.diverts()
    }

    /// Whether both are the same verdict of one plugin for one reason.
    pub fn is_same(&self, other: &Fate) -> bool {
        let (one, other) = (&self.decision, &other.decision);
        one.verdict == other.verdict && one.plugin == other.plugin && one.lines == other.lines
    }

    /// Nobody took the message.
    pub fn not_queued() -> Fate {
        Fate::new(Hook::Queue, Decision::declined())
    }

    /// What was done, for the log.
    pub fn what(&self) -> String {
        let what = match self.decision.verdict {
            Verdict::Discard => "discarded",
            Verdict::Quarantine => "quarantined",
            Verdict::Hold => "held",
            _ if self.is_queued() => "queued",
            _ => "refused",
        };
        match &self.kept_as {
            Some(id) => format!("{what} as {id}"),
            None => what.to_owned(),
        }
    }

    /// Who decided, for the log, and why where the client is not told.
    pub fn why(&self) -> String {
        match (&self.decision.plugin, self.decision.verdict) {
            (Some(plugin), verdict) if verdict.diverts() && !self.decision.lines.is_empty() => {
                format!("{plugin}, {}", self.decision.lines.join(" "))
            }
            (Some(plugin), Verdict::Done) => format!("{plugin} dealt with it"),
            (Some(plugin), _) => plugin.to_string(),
            (None, Verdict::Declined) => "nobody took it".to_owned(),
            (None, _) => self.decision.lines.join(" "),
        }
    }

    /// A refusal of our own.
    pub fn refusal(verdict: Verdict, code: u16, enhanced: EnhancedCode, text: String) -> Fate {
        let decision = Decision {
            verdict,
            code: Some(code),
            enhanced: Some(enhanced),
            lines: vec![text],
            ..Decision::declined()
        };
        Fate::new(Hook::DataPost, decision)
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

    /// Gives everybody in a share this fate whose own is open. Where it is that of others who were put in their place, who has the message did not get the parameters of these, and
    /// will tell nobody of them (RFC 3461 §5.2.2).
    pub fn close_share(&mut self, at: usize, fate: &Fate) {
        for member in &self.shares[at].members {
            self.fates[*member].get_or_insert_with(|| {
                let mut fate = fate.clone();
                fate.decision.values.clear();
                fate
            });
        }
    }

    /// Gives everybody this fate whose own is open, or is that the message is diverted, as long as it is not.
    pub fn close(&mut self, fate: &Fate) {
        self.diverted.clear();
        let is_open = |fate: &Option<Fate>| fate.as_ref().is_none_or(Fate::is_diverted);
        for open in self.fates.iter_mut().filter(|fate| is_open(fate)) {
            *open = Some(fate.clone());
        }
    }
}

impl Mail {
    /// The biggest message that a recipient with these settings takes, in bytes.
    pub(super) fn max_size_of(&self, profile: Option<&Arc<Profile>>) -> u64 {
        let own = profile.and_then(|profile| profile.max_size.as_ref());
        own.map_or(self.shared.config.limits.max_size, |own| own.bytes)
    }

    /// The biggest message that anybody takes: of the recipients, where there are some. `u64::MAX`: nobody knows.
    pub(super) fn max_size(&self) -> u64 {
        let site = self.shared.config.limits.max_size;
        let theirs = self.accepted.iter();
        theirs
            .map(|accepted| self.max_size_of(accepted.profile.as_ref()))
            .max()
            .unwrap_or_else(|| {
                let most = self.shared.chain.max_size();
                site.max(most.map(|most| most.bytes).unwrap_or_default())
            })
    }

    /// The message is bigger than [`Mail::max_size`].
    pub(super) fn exceeded_max_size(&mut self) {
        let theirs = self.accepted.iter().map(|accepted| &accepted.profile);
        let most = theirs.max_by_key(|profile| self.max_size_of(profile.as_ref()));
        if let Some(profile) = most.cloned() {
            return self.exceeded_size(profile.as_ref());
        }
        let shared = Arc::clone(&self.shared);
        let site = shared.config.limits.max_size;
        match shared.chain.max_size().filter(|most| most.bytes > site) {
            Some(most) => {
                report::count(Limit::Size);
                self.because_of(&most.origin);
            }
            None => self.exceeded(Limit::Size),
        }
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
        let mut exceeded = Vec::new();
        // A recipient that was named twice is one.
        let named = self.accepted.iter();
        let diverted: HashMap<&Address, &Decision> = named
            .filter_map(|accepted| Some((&accepted.address, accepted.diverted.as_ref()?)))
            .collect();
        for (at, accepted) in self.accepted.iter().enumerate() {
            let profile = accepted.profile.as_ref();
            let elsewhere = diverted.get(&accepted.address);
            let is_diverted = elsewhere.is_some();
            match shares.iter_mut().find(|share| {
                share.is_diverted == is_diverted && agree(share.profile.as_ref(), profile)
            }) {
                Some(share) => share.members.push(at),
                None => shares.push(Share {
                    members: vec![at],
                    profile: profile.cloned(),
                    transaction: Transaction::default(),
                    has_trace: false,
                    is_diverted,
                }),
            }
            let most = self.max_size_of(profile);
            let is_too_big = (transaction.size > most).then(|| {
                exceeded.push(accepted.profile.clone());
                let text = format!("Message is bigger than {most} bytes");
                Fate::refusal(Verdict::Deny, 552, EnhancedCode(5, 3, 4), text)
            });
            let elsewhere = elsewhere.map(|to| Fate::new(Hook::Rcpt, (**to).clone()));
            fates.push(is_too_big.or(elsewhere));
        }
        let is_diverted = !diverted.is_empty();
        for profile in exceeded {
            self.exceeded_size(profile.as_ref());
        }
        let mut delivery = Delivery {
            shares,
            fates,
            strays: Vec::new(),
            sender: transaction.sender.clone(),
            diverted: Vec::new(),
            whole: None,
        };
        self.hand_out(&mut delivery, transaction).await;
        if is_diverted {
            self.divert_shares(&mut delivery);
        }
        delivery
    }

    /// Notes who is not to get the message as their RCPT already said. Whom a plugin added to them shares the fate of the first.
    fn divert_shares(&self, delivery: &mut Delivery) {
        for at in 0..delivery.shares.len() {
            if !delivery.shares[at].is_diverted {
                continue;
            }
            let members = delivery.shares[at].members.iter();
            let fates: Vec<(&Address, Fate)> = members
                .map(|member| (&self.accepted[*member].address, &delivery.fates[*member]))
                .filter_map(|(address, fate)| Some((address, fate.clone()?)))
                .filter(|(_, fate)| fate.is_diverted())
                .collect();
            let of: HashMap<&Address, &Fate> = fates.iter().map(|(to, fate)| (*to, fate)).collect();
            let first = fates.first().map(|(_, fate)| fate);
            for recipient in delivery.shares[at].transaction.recipients.clone() {
                if let Some(fate) = of.get(&recipient).copied().or(first) {
                    delivery.divert(at, &[recipient], fate);
                }
            }
        }
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
        let is_refused = |fate: &Option<Fate>| fate.as_ref().is_some_and(|fate| !fate.is_taken());
        let too_small = |address: &Address| {
            let mut at = self.accepted.iter().zip(fates.iter());
            at.any(|(accepted, fate)| accepted.address == *address && is_refused(fate))
        };
        if let [only] = &mut shares[..] {
            only.transaction = transaction;
            if fates.iter().any(is_refused) {
                only.transaction.retain_recipients(|to| !too_small(to));
            }
            return;
        }
        let diverted: HashSet<&Address> = shares
            .iter()
            .filter(|share| share.is_diverted)
            .flat_map(|share| &share.members)
            .map(|member| &self.accepted[*member].address)
            .collect();
        let mut places = Vec::with_capacity(transaction.recipients.len());
        for address in &transaction.recipients {
            let mut accepted = self.accepted.iter();
            let profile = match accepted.find(|accepted| accepted.address == *address) {
                // As at RCPT, whatever has changed since.
                Some(accepted) => Ok(accepted.profile.clone()),
                None => self.shared.chain.profile(address).await,
            };
            let is_diverted = diverted.contains(address);
            let fits = |share: &Share| share.is_diverted == is_diverted;
            let place = profile.ok().and_then(|profile| {
                let agrees =
                    |share: &Share| fits(share) && agree(share.profile.as_ref(), profile.as_ref());
                shares.iter().position(agrees)
            });
            let place = place.or_else(|| shares.iter().position(fits));
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
