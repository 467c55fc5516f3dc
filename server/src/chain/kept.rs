//! What was found before the recipients are known, where it depends on the recipient what that costs: it waits, and each recipient answers by its own
//! settings. A plugin that is another one for a recipient is asked then what it would have said before.

use std::borrow::Cow;

use gatepost_protocol::{Args, Change, Disposition, Hook, Immune, Outcome, Verdict};

use super::policy::{Finding, Mark};
use super::visit::{Decision, Visit};
use super::{Chain, DEADLINE};

/// A finding that waits for the recipients.
pub(super) struct Kept {
    /// Whose member it is.
    pub chain: usize,
    pub member: usize,
    /// Of a plugin with settings of its own: which one; `None`: the site's.
    pub own: Option<usize>,
    /// It was found for recipients who agree, all of them.
    pub is_for_all: bool,
    /// Where it was found.
    pub hook: Hook,
    pub finding: Finding,
}

/// Whether a hook comes before the recipients are known.
pub(super) fn is_early(hook: Hook) -> bool {
    matches!(hook, Hook::Connect | Hook::Helo | Hook::Ehlo | Hook::Mail)
}

/// Whether recipients with different settings share a hook.
pub(super) fn is_shared(hook: Hook) -> bool {
    matches!(hook, Hook::Data | Hook::DataHeadersEnd | Hook::DataLines)
}

impl Chain {
    /// Whether a finding has to wait: for the recipients, where they may judge it differently; and if it diverts the message, until that is there.
    pub(super) fn waits(&self, visit: &Visit, hook: Hook, at: usize, finding: &Finding) -> bool {
        self.is_before_recipients(visit, hook) && self.profiles.differ_in(at) && costs(finding)
            || (is_early(hook) || is_shared(hook))
                && self
                    .rules_at(visit, hook, at)
                    .judge(finding)
                    .verdict
                    .diverts()
    }

    /// Which plugin it is that the recipients at hand have, if it is not the site's.
    pub(super) fn own(&self, visit: &Visit, at: usize) -> Option<usize> {
        let variant = visit.profile.as_ref()?.variant(at)?;
        variant.own.as_ref().map(|own| own.id)
    }

    /// Whether it is not known yet at a hook, or not one of them, for whose settings it is.
    pub(super) fn is_before_recipients(&self, visit: &Visit, hook: Hook) -> bool {
        is_early(hook) || visit.divided && is_shared(hook)
    }

    /// Makes an answer count that was deferred until RCPT: for every recipient, by its own settings.
    pub(super) fn keep_for_all(&self, visit: &mut Visit, at: usize, mut outcome: Outcome) {
        if self.is_shadow(visit, at) {
            return self.note_shadow(visit, Hook::Rcpt, at, outcome);
        }
        self.apply(visit, Hook::Rcpt, at, &mut outcome);
        self.note_delay(visit, Hook::Rcpt, &outcome);
        let finding = Finding::from(outcome);
        if costs(&finding) {
            self.trace_kept(visit, Hook::Rcpt, at, &finding);
            visit.kept.push(Kept {
                chain: self.id,
                member: at,
                own: None,
                is_for_all: false,
                hook: Hook::Connect,
                finding,
            });
        } else {
            self.decide(visit, Hook::Rcpt, at, &finding);
        }
    }

    /// Notes what was found and waits for the recipients to judge it.
    fn trace_kept(&self, visit: &mut Visit, hook: Hook, at: usize, finding: &Finding) {
        if visit.trace.is_some() {
            let mut judgement = self.rules_at(visit, hook, at).judge(finding);
            if costs(finding) {
                judgement.verdict = Verdict::Declined;
                judgement.mark = Mark::Kept;
            }
            self.trace(visit, hook, at, &judgement, finding);
        }
    }

    /// Forgets what a repeated step of the conversation finds anew.
    pub(super) fn forget(&self, visit: &mut Visit, hook: Hook) {
        let again: fn(Hook) -> bool = match hook {
            Hook::Connect => |_| true,
            Hook::Helo | Hook::Ehlo => |kept| matches!(kept, Hook::Helo | Hook::Ehlo | Hook::Mail),
            Hook::ResetTransaction => |kept| kept == Hook::Mail || is_shared(kept),
            _ => return,
        };
        visit.kept.retain(|kept| !again(kept.hook));
        visit.asked_late.retain(|(_, hook)| !again(*hook));
    }

    /// Judges by the settings of the recipients at hand what waited for them.
    pub(super) async fn recall(&self, visit: &mut Visit, hook: Hook) -> Option<Decision> {
        let due: fn(Hook) -> bool = match hook {
            Hook::Rcpt => is_early,
            Hook::DataPostHeaders => is_shared,
            _ => return None,
        };
        if hook == Hook::Rcpt {
            self.ask_late(visit).await;
        }
        let kept = std::mem::take(&mut visit.kept);
        let mut decision = None;
        for kept in &kept {
            if decision.is_none() && due(kept.hook) && self.concerns(visit, kept) {
                if let Some(trace) = &mut visit.trace {
                    trace.found_at(kept.hook);
                }
                decision = self.decide(visit, hook, kept.member, &kept.finding);
                decision = decision.and_then(|decision| set_aside(visit, hook, decision));
            }
        }
        visit.kept = kept;
        decision
    }

    /// Shows plugins the rejection that was deferred for the recipients at hand. Returns whether it has to be taken back.
    pub(super) fn show_deferred(&self, visit: &mut Visit, hook: Hook) -> bool {
        if visit.kept.is_empty()
            || visit.session.connection.naughty.is_some()
            || visit.session.transaction.sender.is_none()
            || visit.divided && is_shared(hook)
        {
            return false;
        }
        let deferred = visit.kept.iter().filter(|kept| self.concerns(visit, kept));
        let naughty = deferred
            .map(|kept| {
                let rules = self.rules_at(visit, hook, kept.member);
                (kept, rules.judge(&kept.finding))
            })
            .find(|(_, judgement)| judgement.mark == Mark::Naughty)
            .map(|(kept, judgement)| self.naughty(kept.member, &kept.finding, judgement.wanted));
        visit.session.connection.naughty = naughty;
        visit.session.connection.naughty.is_some()
    }

    /// Whether what was kept is what the recipients at hand have to answer for.
    fn concerns(&self, visit: &Visit, kept: &Kept) -> bool {
        kept.chain == self.id && (kept.is_for_all || kept.own == self.own(visit, kept.member))
    }

    /// Asks plugins that are other ones for the recipient at hand what they would have said before it was known, once each.
    async fn ask_late(&self, visit: &mut Visit) {
        let Some(profile) = visit.profile.clone() else {
            return;
        };
        for (at, variant) in profile.variants() {
            let Some(own) = &variant.own else { continue };
            // Not for good: a transaction's flag may be gone with it.
            if variant.rules.immune == Immune::Skip && visit.session.is_privileged() {
                continue;
            }
            for (hook, args) in said_before(visit) {
                if !own.hooks(&self.members[at]).has(hook)
                    || visit.asked_late.contains(&(own.id, hook))
                    || !self.members[at].is_wanted(visit)
                {
                    continue;
                }
                visit.asked_late.push((own.id, hook));
                let timeout = variant.rules.timeout.unwrap_or(DEADLINE);
                if let Some(trace) = &mut visit.trace {
                    trace.ask();
                }
                let mut outcome = self.consult(visit, hook, &args, None, at, timeout).await;
                if let Some(deferred) = outcome.defer.take() {
                    let late = tokio::time::timeout(timeout, deferred.outcome).await;
                    outcome = late.unwrap_or_else(|_| {
                        Outcome::error("the deferred answer did not come in time")
                    });
                }
                if self.is_shadow(visit, at) {
                    self.note_shadow(visit, hook, at, outcome);
                    continue;
                }
                // The score is one for all recipients: it must not depend on who of them was named, nor count a find once for each.
                let gives_points = |change: &Change| matches!(change, Change::Score { .. });
                outcome.changes.retain(|change| !gives_points(change));
                self.apply(visit, hook, at, &mut outcome);
                self.note_delay(visit, hook, &outcome);
                let finding = Finding::from(outcome);
                self.trace_kept(visit, hook, at, &finding);
                if costs(&finding) {
                    visit.kept.push(Kept {
                        chain: self.id,
                        member: at,
                        own: Some(own.id),
                        is_for_all: false,
                        hook,
                        finding,
                    });
                }
            }
        }
    }
}

/// What diverts the message for a recipient does not accept that recipient, nor keep others from refusing it: it waits until somebody does either. The
/// first counts.
pub(super) fn set_aside(visit: &mut Visit, hook: Hook, decision: Decision) -> Option<Decision> {
    if hook != Hook::Rcpt || !decision.verdict.diverts() {
        return Some(decision);
    }
    visit.diverted.get_or_insert(decision);
    None
}

/// Whether a verdict that diverts the message has a meaning at a hook: what is found there is about a message to come, or at hand.
pub(super) fn may_divert(hook: Hook) -> bool {
    is_early(hook) || is_shared(hook) || super::is_for_recipients(hook)
}

/// Whether a finding may cost the client something, by some settings.
fn costs(finding: &Finding) -> bool {
    match finding.verdict {
        Some(verdict) => verdict.is_negative(),
        None => matches!(
            finding.disposition,
            Some(Disposition::Fail | Disposition::Error)
        ),
    }
}

/// The hooks up to RCPT with their arguments, as far as the conversation came.
fn said_before(visit: &Visit) -> Vec<(Hook, Args<'static>)> {
    let connection = &visit.session.connection;
    let mut hooks = vec![(Hook::Connect, Args::None)];
    if let (Some(hello), Some(host)) = (&connection.hello, &connection.hello_host) {
        let hook = match &**hello {
            "HELO" => Hook::Helo,
            _ => Hook::Ehlo,
        };
        hooks.push((hook, Args::Host(Cow::Owned(host.clone()))));
    }
    let transaction = &visit.session.transaction;
    if let Some(sender) = &transaction.sender {
        let args = Args::Address {
            address: Cow::Owned(sender.clone()),
            parameters: Cow::Owned(transaction.sender_parameters.clone()),
        };
        hooks.push((Hook::Mail, args));
    }
    hooks
}
