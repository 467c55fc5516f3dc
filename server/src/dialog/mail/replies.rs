//! What the client is told of a message: one reply for all of its recipients, or one for each.

use std::borrow::Cow;

use gatepost_protocol::{Address, EnhancedCode, Hook, Level, Verdict};

use super::shares::{Delivery, Fate};
use super::{Mail, verdict};
use crate::chain::Decision;
use crate::config::Mixed;
use crate::dialog::Next;
use crate::dialog::reply::{self, Usual};

/// Whether a message gets a reply for each of its recipients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Each {
    /// One for all of them.
    No,
    /// One for each (RFC 2033 §4.2).
    Only,
    /// One for each, then one for all (draft-hall-prdr-00 §4.5).
    ThenAll,
}

/// A reply to a message.
pub(super) struct Told {
    bytes: Vec<u8>,
    pub code: u16,
    pub enhanced: Option<EnhancedCode>,
    pub text: String,
    next: Next,
}

impl Told {
    /// As it goes over the wire, its first line.
    pub fn line(&self) -> String {
        let text = String::from_utf8_lossy(&self.bytes);
        text.lines().next().unwrap_or_default().to_owned()
    }

    /// Whether the client may try again.
    pub fn is_soft(&self) -> bool {
        self.code / 100 == 4
    }
}

impl Mail {
    /// Whether the client hears of each recipient.
    pub(super) fn replies_to_each(&self) -> Each {
        let parameters = &self.visit.session.transaction.sender_parameters;
        if self.dialect.replies_per_recipient {
            Each::Only
        } else if parameters.contains_key("PRDR") && self.accepted.len() > 1 {
            Each::ThenAll
        } else {
            Each::No
        }
    }

    /// Whether recipients whose settings differ are to come in transactions of their own.
    pub(super) fn splits(&self) -> bool {
        let parameters = &self.visit.session.transaction.sender_parameters;
        self.shared.config.mixed == Mixed::Split
            && !self.dialect.replies_per_recipient
            && !parameters.contains_key("PRDR")
    }

    /// Makes of the reply to a message, which begins at `from`, the replies to its recipients, in the order of the RCPT commands that were accepted.
    pub(super) fn spread_reply(&self, output: &mut Vec<u8>, from: usize, recipients: usize) {
        let reply = output.split_off(from);
        let times = match self.replies_to_each() {
            Each::No => 1,
            Each::Only => recipients,
            Each::ThenAll => {
                reply::write(output, ANALYSIS);
                recipients + 1
            }
        };
        for _ in 0..times {
            output.extend_from_slice(&reply);
        }
    }

    /// Gives the reply to a message, or the replies, and one line for the log.
    pub(super) fn reply_to_each(
        &mut self,
        output: &mut Vec<u8>,
        each: Each,
        delivery: &Delivery,
    ) -> Next {
        if each == Each::ThenAll {
            reply::write(output, ANALYSIS);
        }
        if each != Each::No {
            for fate in delivery.fates.iter().flatten() {
                output.extend_from_slice(&self.told(fate).bytes);
            }
        }
        let overall = self.overall(delivery);
        let told = self.told(&overall);
        if each != Each::Only {
            output.extend_from_slice(&told.bytes);
        }
        self.count(told.code, &told.text);
        self.log_fates(delivery);
        if overall.is_taken() {
            Next::Go
        } else {
            told.next
        }
    }

    /// What is said of all recipients together: yes, where the message is safe for one; no for now, where one says so; else no.
    pub(super) fn overall<'a>(&self, delivery: &'a Delivery) -> Cow<'a, Fate> {
        let mut fates = delivery.fates.iter().flatten();
        match fates.find(|fate| fate.is_taken()) {
            Some(taken) => Cow::Borrowed(taken),
            None => Cow::Owned(self.refusal_of(delivery)),
        }
    }

    /// What is said of all who refuse: no for now, where one says so; else no.
    pub(super) fn refusal_of(&self, delivery: &Delivery) -> Fate {
        let fates = delivery.fates.iter().flatten();
        let refusals = || fates.clone().filter(|fate| !fate.is_taken());
        let soft = refusals().find(|fate| self.told(fate).is_soft());
        let refusal = soft.or_else(|| refusals().next()).cloned();
        refusal.unwrap_or_else(Fate::not_queued)
    }

    /// The reply for a fate.
    pub(super) fn told(&self, fate: &Fate) -> Told {
        let (hook, decision) = (fate.hook, &fate.decision);
        let (session, transaction) = (&self.visit.session, &self.visit.session.transaction);
        // Why it is diverted is not the client's to know.
        let silent = Decision::declined();
        let is_taken = fate.is_taken();
        let decision = if fate.is_diverted() {
            &silent
        } else {
            decision
        };
        let (usual, next) = match (hook, decision.verdict) {
            _ if is_taken => {
                let usual = format!("250 2.0.0 Queued as {}.{}", session.id, transaction.number);
                (usual, Next::Go)
            }
            (_, Verdict::Done) => (verdict::done(hook).to_owned(), Next::Go),
            (_, verdict) => match verdict::denial(hook, verdict) {
                Some((usual, next)) => (usual.to_owned(), next),
                None => (verdict::NOT_QUEUED.to_owned(), Next::Go),
            },
        };
        let usual = Usual::of(&usual);
        let mut bytes = Vec::new();
        let is_done = decision.verdict == Verdict::Done;
        let mut code = usual.code;
        // What a plugin dealt with without a word gets none from us.
        if !is_done || !decision.lines.is_empty() {
            code = reply::write_decided(&mut bytes, usual, decision, is_done);
        }
        Told {
            bytes,
            code,
            enhanced: decision.enhanced.or(usual.enhanced),
            text: match decision.lines.is_empty() {
                true => usual.text.to_owned(),
                false => decision.lines.join(" "),
            },
            next,
        }
    }

    /// One line for each thing that became of the message.
    fn log_fates(&self, delivery: &Delivery) {
        let fates: Vec<&Fate> = delivery.fates.iter().flatten().collect();
        let queued = fates.iter().filter(|fate| fate.is_queued()).count();
        if queued > 0 {
            let departed = self.visit.departure.has_happened();
            let twice =
                departed.then_some("the client left before the reply, and will send it again");
            self.log_message(Some(Hook::Queue), "queued", queued, twice);
        }
        let others = fates.iter().filter(|fate| !fate.is_queued());
        let mut said: Vec<((String, String), usize)> = Vec::new();
        for became in others.map(|fate| (fate.what(), fate.why())) {
            match said.iter_mut().find(|(other, _)| *other == became) {
                Some((_, recipients)) => *recipients += 1,
                None => said.push((became, 1)),
            }
        }
        for ((what, why), recipients) in said {
            self.log_message(None, &what, recipients, Some(&why));
        }
    }

    pub(super) fn log_refused(&self, why: &str) {
        let recipients = self.visit.session.transaction.recipients.len();
        self.log_message(None, "refused", recipients, Some(why));
    }

    pub(super) fn log_untold(&self, what: &str, recipient: &Address, told: &Told) {
        self.log(
            Level::Info,
            Some(Hook::Queue),
            format_args!(
                "{what}: {}, {} {}",
                recipient.as_str(),
                told.code,
                told.text
            ),
        );
    }

    /// A line about what became of a message.
    fn log_message(&self, hook: Option<Hook>, what: &str, recipients: usize, why: Option<&str>) {
        let transaction = &self.visit.session.transaction;
        let size = transaction.size;
        let sender = transaction.sender.as_ref().map_or("", Address::as_str);
        let (before, why) = why.map_or(("", ""), |why| (": ", why));
        self.log(
            Level::Info,
            hook,
            format_args!(
                "{what}, from <{sender}>, {recipients} recipients, {size} bytes{before}{why}"
            ),
        );
    }
}

/// draft-hall-prdr-00 §4.5.
const ANALYSIS: &str =
    "353 Content analysis has started; a reply for each recipient follows, then one for all";
