//! A message that some recipients are not to get, though it is taken: thrown away, or kept in the store (docs/recipients.md). 250 is said of it only when the
//! store has it on disk.

use std::collections::HashMap;
use std::io;

use gatepost_protocol::{Address, EnhancedCode, Level, Message, Verdict};

use super::Mail;
use super::replies::Each;
use super::shares::{Delivery, Fate};
use crate::outbox::store::{Kind, Why};

/// Recipients of a share to whom a message does not go, and why.
pub(super) struct Diverted {
    share: usize,
    recipients: Vec<Address>,
    fate: Fate,
}

impl Delivery {
    /// Notes that a share's message does not go to these recipients.
    pub fn divert(&mut self, share: usize, recipients: &[Address], fate: &Fate) {
        let same = |other: &&mut Diverted| other.share == share && other.fate.is_same(fate);
        match self.diverted.iter_mut().find(same) {
            Some(known) => known.recipients.extend_from_slice(recipients),
            None => self.diverted.push(Diverted {
                share,
                recipients: recipients.to_vec(),
                fate: fate.clone(),
            }),
        }
    }

    fn take_diverted(&mut self, share: usize) -> Vec<Diverted> {
        let all = std::mem::take(&mut self.diverted);
        let (taken, left) = all.into_iter().partition(|it| it.share == share);
        self.diverted = left;
        taken
    }

    /// Gives those of a share another fate who had this one.
    fn replace(&mut self, share: usize, before: &Fate, after: &Fate) {
        for member in &self.shares[share].members {
            if let Some(fate) = &mut self.fates[*member]
                && fate.is_same(before)
            {
                *fate = after.clone();
            }
        }
    }
}

impl Mail {
    /// Sees to what was diverted before anybody has the message. Where that fails and the client cannot be told of each recipient, it is told to come again for
    /// all of them: to try again for some by ourselves would deliver what was not to be.
    pub(super) async fn keep_diverted(
        &mut self,
        delivery: &mut Delivery,
        each: Each,
        message: &dyn Message,
    ) {
        for at in 0..delivery.shares.len() {
            if !delivery.diverted.iter().any(|it| it.share == at) {
                continue;
            }
            self.enter(&mut delivery.shares[at]);
            if !std::mem::replace(&mut delivery.shares[at].has_trace, true) {
                self.add_trace(message).await;
            }
            let lost = self.keep_share(delivery, at, message).await;
            self.leave(&mut delivery.shares[at]);
            let is_told = |address: &Address| {
                each != Each::No && self.accepted.iter().any(|it| it.address == *address)
            };
            if !lost.iter().all(is_told) {
                delivery.fates.fill(Some(not_kept()));
                return;
            }
        }
    }

    /// Sees to what was diverted of a share whose transaction is at hand. Returns for whom that failed; they refuse the message for now.
    pub(super) async fn keep_share(
        &mut self,
        delivery: &mut Delivery,
        at: usize,
        message: &dyn Message,
    ) -> Vec<Address> {
        let mut lost = Vec::new();
        for diverted in delivery.take_diverted(at) {
            match self.keep_one(&diverted, message).await {
                Ok(kept_as) => {
                    let fate = Fate {
                        kept_as,
                        ..diverted.fate.clone()
                    };
                    delivery.replace(at, &diverted.fate, &fate);
                }
                Err(error) => {
                    let verdict = diverted.fate.decision.verdict.name();
                    let why = diverted.fate.why();
                    self.log(
                        Level::Error,
                        None,
                        format_args!("cannot {verdict} the message as {why} wants it: {error}; it got 451 and will come again"),
                    );
                    delivery.replace(at, &diverted.fate, &not_kept());
                    lost.extend(diverted.recipients);
                }
            }
        }
        lost
    }

    /// Keeps the message at hand for some of its recipients, by a name that is returned; where it is to be thrown away, or nothing is real, by none.
    async fn keep_one(
        &mut self,
        diverted: &Diverted,
        message: &dyn Message,
    ) -> io::Result<Option<String>> {
        let decision = &diverted.fate.decision;
        let kind = match decision.verdict {
            Verdict::Quarantine => Kind::Quarantine,
            Verdict::Hold => Kind::Hold,
            _ => return Ok(None),
        };
        let Some(store) = self.shared.store.clone() else {
            return Ok(None);
        };
        if diverted.recipients.is_empty() {
            // Plugins took away whom it was for.
            return Ok(None);
        }
        let reason = decision.lines.join(" ");
        let why = Why {
            kind,
            plugin: decision.plugin.as_deref().unwrap_or_default(),
            reason: &reason,
        };
        let accepted = self.accepted.iter();
        let parameters: HashMap<&Address, _> = accepted
            .map(|accepted| (&accepted.address, &accepted.parameters))
            .collect();
        let transaction = &mut self.visit.session.transaction;
        let others = std::mem::take(&mut transaction.recipients);
        let of_others = std::mem::take(&mut transaction.recipient_parameters);
        for address in &diverted.recipients {
            let own = parameters.get(address).map(|own| (*own).clone());
            transaction.add_recipient(address.clone(), own.unwrap_or_default());
        }
        let session = &self.visit.session;
        let kept = store.keep(&why, session, &diverted.recipients, message);
        let kept = kept.await;
        let transaction = &mut self.visit.session.transaction;
        transaction.recipients = others;
        transaction.recipient_parameters = of_others;
        kept.map(Some)
    }
}

pub(super) fn not_kept() -> Fate {
    let text = "No room to keep your message now; try again later";
    Fate::refusal(
        Verdict::DenySoft,
        451,
        EnhancedCode(4, 3, 1),
        text.to_owned(),
    )
}
