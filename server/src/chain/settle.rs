//! The one place where an outcome counts: its changes, the policy, its line in the log.

use std::time::Duration;

use gatepost_protocol::session::Naughty;
use gatepost_protocol::{
    Address, Args, Change, Disposition, EnhancedCode, Hook, Level, Outcome, Verdict,
};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::flags::{is_about_client, mark};
use super::kept::{Kept, is_shared, may_divert, set_aside};
use super::policy::{Finding, Judgement, Mark, fitting_code, reply_lines};
use super::visit::{Decision, Owed, Visit};
use super::{Chain, MAX_DELAY, Member};
use crate::report::journal::Turn;
use crate::report::{self, Limit};

impl Chain {
    /// Makes an outcome count. `Some` where it ends the walk.
    pub(super) fn settle(
        &self,
        visit: &mut Visit,
        hook: Hook,
        at: usize,
        timeout: Duration,
        mut outcome: Outcome,
    ) -> Option<Decision> {
        let is_shadow = self.is_shadow(visit, at);
        let mut score = 0;
        if !is_shadow {
            score = self.apply(visit, hook, at, &mut outcome);
            self.note_delay(visit, hook, &outcome);
        }
        if let Some(deferred) = outcome.defer.take() {
            self.trace_deferred(visit, hook, at, deferred.until);
            let answer = AbortOnDropHandle::new(tokio::spawn(deferred.outcome));
            visit.owed.push(Owed {
                chain: self.id,
                member: at,
                until: deferred.until,
                answer,
                deadline: Instant::now() + timeout,
            });
            return None;
        }
        if is_shadow {
            self.note_shadow(visit, hook, at, outcome);
            return None;
        }
        let values = std::mem::take(&mut outcome.values);
        let mut spared = Vec::new();
        if !outcome.recipients.is_empty() {
            let decided = visit.decided.len();
            spared = self.settle_recipients(visit, hook, at, &mut outcome);
            for (_, _, decision) in &mut visit.decided[decided..] {
                decision.values.clone_from(&values);
            }
            let nobody_is_left = visit.session.transaction.recipients.is_empty();
            if nobody_is_left && visit.decided.len() > decided {
                return Some(Decision::declined());
            }
        }
        let settings = std::mem::take(&mut outcome.settings);
        let settings = (!settings.is_empty()).then(|| Box::new(settings));
        let mut finding = self.fitting(visit, hook, at, Finding::from(outcome));
        finding.score = score;
        if self.waits(visit, hook, at, &finding) {
            self.keep(visit, hook, at, finding);
            if hook == Hook::DataLines {
                // What its recipients have to answer for is enough to know once.
                visit.sated.push((self.id, at));
            }
            return None;
        }
        let decision = self.decide(visit, hook, at, &finding)?;
        if hook == Hook::DataLines && decision.verdict == Verdict::Ok {
            // It speaks for itself: the others may want to see more.
            visit.sated.push((self.id, at));
            return None;
        }
        let decision = set_aside(visit, hook, decision)?;
        let decision = Decision {
            values,
            settings,
            ..decision
        };
        if spared.is_empty() {
            return Some(decision);
        }
        // What holds for the others does not hold for those whose own outcome lets them pass.
        let transaction = &mut visit.session.transaction;
        for address in transaction.recipients.clone() {
            if !spared.contains(&address) {
                transaction.remove_recipient(&address);
                visit.decided.push((address, hook, decision.clone()));
            }
        }
        None
    }

    /// A verdict that has no meaning at a hook is a mistake of the plugin's, or of who set its `reject_type`.
    fn fitting(&self, visit: &Visit, hook: Hook, at: usize, finding: Finding) -> Finding {
        let verdict = self.rules_at(visit, hook, at).judge(&finding).verdict;
        if !verdict.diverts() || may_divert(hook) {
            return finding;
        }
        let text = format!("at `{hook}` there is no message to {}", verdict.name());
        Outcome::error(text).into()
    }

    /// Puts a finding aside until the recipients are known.
    fn keep(&self, visit: &mut Visit, hook: Hook, at: usize, finding: Finding) {
        let member = &self.members[at];
        let mut judgement = self.rules_at(visit, hook, at).judge(&finding);
        judgement.verdict = Verdict::Declined;
        judgement.mark = Mark::Kept;
        self.log(visit, hook, at, &judgement, &finding);
        self.trace(visit, hook, at, &judgement, &finding);
        self.announce(visit, hook, member, &judgement, &finding.message);
        visit.kept.push(Kept {
            chain: self.id,
            member: at,
            own: self.own(visit, at),
            is_for_all: is_shared(hook) && !visit.divided,
            hook,
            finding: Finding {
                score: 0,
                ..finding
            },
        });
    }

    /// Whether what a plugin finds about this client does not count.
    pub(super) fn is_shadow(&self, visit: &Visit, at: usize) -> bool {
        let client = visit.session.connection.remote.map(|remote| remote.ip());
        self.rules(visit, at)
            .is_shadow(&self.members[at].name, client)
    }

    /// Writes down what would have become of an outcome, and leaves everything as it is.
    pub(super) fn note_shadow(&self, visit: &mut Visit, hook: Hook, at: usize, outcome: Outcome) {
        let mut outcome = outcome;
        if let Some(trace) = &mut visit.trace {
            for change in &outcome.changes {
                trace.changed(hook, change);
            }
            if !outcome.delay.is_zero() && hook.has_reply() {
                trace.delayed(outcome.delay);
            }
        }
        for (address, own) in std::mem::take(&mut outcome.recipients) {
            if let Some(trace) = &mut visit.trace {
                trace.single_out(&address);
            }
            let mut own = Finding::from(own);
            own.message = format!("{}: {}", address.as_str(), own.message);
            self.note_finding_in_shadow(visit, hook, at, &own);
        }
        self.note_finding_in_shadow(visit, hook, at, &Finding::from(outcome));
    }

    fn note_finding_in_shadow(&self, visit: &mut Visit, hook: Hook, at: usize, finding: &Finding) {
        let mut judgement = self.rules_at(visit, hook, at).judge(finding);
        judgement.verdict = Verdict::Declined;
        judgement.mark = Mark::Shadow;
        self.log(visit, hook, at, &judgement, finding);
        self.trace(visit, hook, at, &judgement, finding);
    }

    /// Makes the changes that an outcome asks for. One that is refused makes it an error; those before it stand. Returns the points that were given.
    pub(super) fn apply(
        &self,
        visit: &mut Visit,
        hook: Hook,
        at: usize,
        outcome: &mut Outcome,
    ) -> i64 {
        let before = visit.session.score();
        for change in std::mem::take(&mut outcome.changes) {
            let plugin = &self.members[at].name;
            let made = change
                .check(hook)
                .and_then(|()| change.apply(&mut visit.session, plugin));
            if let Err(error) = made {
                *outcome = Outcome::error(error.to_string());
                break;
            }
            if let Change::Remote { .. } = change {
                // What the log says of the client from here on is about another address than what it said before.
                let session = &visit.session;
                let now = session.connection.remote.map(|remote| remote.to_string());
                let text = format_args!("the client is {} now", now.unwrap_or_default());
                report::line(Level::Info, &session.id, Some(hook), plugin, text);
            }
            if let Some(trace) = &mut visit.trace {
                trace.changed(hook, &change);
            }
        }
        visit.session.score().saturating_sub(before)
    }

    /// Adds to what the client has to wait for its reply.
    pub(super) fn note_delay(&self, visit: &mut Visit, hook: Hook, outcome: &Outcome) {
        if outcome.delay.is_zero() || !hook.has_reply() {
            return;
        }
        let wanted = visit.delay.saturating_add(outcome.delay);
        if wanted > MAX_DELAY {
            report::count(Limit::PluginDelay);
        }
        visit.delay = wanted.min(MAX_DELAY);
        if let Some(trace) = &mut visit.trace {
            trace.delayed(outcome.delay);
        }
    }

    /// Takes out the recipients for whom an outcome decides by itself. Returns those that it lets pass by themselves.
    fn settle_recipients(
        &self,
        visit: &mut Visit,
        hook: Hook,
        at: usize,
        outcome: &mut Outcome,
    ) -> Vec<Address> {
        if !super::is_for_recipients(hook) || hook == Hook::Rcpt {
            *outcome = Outcome::error(format!(
                "at `{hook}` there are no outcomes for single recipients"
            ));
            return Vec::new();
        }
        let mut spared = Vec::new();
        for (address, own) in std::mem::take(&mut outcome.recipients) {
            if !visit.session.transaction.recipients.contains(&address) {
                continue;
            }
            if let Some(trace) = &mut visit.trace {
                trace.single_out(&address);
            }
            let mut own = Finding::from(own);
            let said = std::mem::take(&mut own.message);
            own.message = format!("{}: {said}", address.as_str());
            if own.reply.is_empty() && !said.is_empty() {
                own.reply = vec![said];
            }
            match self.decide(visit, hook, at, &own) {
                // Only at `queue` a yes says that nobody else is to be asked.
                Some(decision) if decision.ends_message() || hook == Hook::Queue => {
                    visit.session.transaction.remove_recipient(&address);
                    visit.decided.push((address, hook, decision));
                }
                _ => spared.push(address),
            }
        }
        spared
    }

    /// Judges a finding by the settings in force. `Some` where it decides.
    pub(super) fn decide(
        &self,
        visit: &mut Visit,
        hook: Hook,
        at: usize,
        finding: &Finding,
    ) -> Option<Decision> {
        let member = &self.members[at];
        let mut judgement = self.rules_at(visit, hook, at).judge(finding);
        if visit.is_released && judgement.verdict.diverts() {
            judgement.verdict = Verdict::Declined;
            judgement.mark = Mark::Released;
        }
        if judgement.mark == Mark::Naughty && visit.session.connection.naughty.is_none() {
            // The first failure is the one that is told; later ones are in the log.
            let naughty = self.naughty(at, finding, judgement.wanted);
            visit.session.connection.naughty = Some(naughty);
        }
        self.log(visit, hook, at, &judgement, finding);
        self.trace(visit, hook, at, &judgement, finding);
        self.announce(visit, hook, member, &judgement, &finding.message);
        if judgement.verdict == Verdict::Declined {
            return None;
        }
        let is_told = match judgement.disposition {
            Disposition::Fail => judgement.verdict.is_negative(),
            _ => judgement.verdict.diverts(),
        };
        let said = if finding.reply.is_empty() && is_told {
            std::slice::from_ref(&finding.message)
        } else {
            &finding.reply
        };
        let code = fitting_code(judgement.verdict, finding.code);
        let class = |enhanced: &EnhancedCode| match judgement.verdict {
            Verdict::Ok => enhanced.0 == 2,
            verdict if verdict.diverts() => false,
            Verdict::Done => code.is_none_or(|code| code / 100 == u16::from(enhanced.0)),
            verdict => enhanced.0 == if verdict.is_soft() { 4 } else { 5 },
        };
        Some(Decision {
            verdict: judgement.verdict,
            plugin: Some(member.name.clone()),
            code,
            enhanced: finding.enhanced.filter(class),
            lines: reply_lines(said, visit.utf8),
            values: Vec::new(),
            settings: None,
        })
    }

    /// The deferred rejection that a finding asks for.
    pub(super) fn naughty(&self, at: usize, finding: &Finding, wanted: Verdict) -> Naughty {
        Naughty {
            plugin: self.members[at].name.to_string(),
            message: if finding.reply.is_empty() {
                finding.message.clone()
            } else {
                finding.reply.join("\n")
            },
            verdict: wanted,
        }
    }

    pub(super) fn log(
        &self,
        visit: &Visit,
        hook: Hook,
        at: usize,
        judgement: &Judgement,
        finding: &Finding,
    ) {
        let level = match judgement.disposition {
            _ if judgement.silent => Level::Debug,
            Disposition::Error => Level::Warn,
            _ => Level::Info,
        };
        let level = self.rules(visit, at).level(level);
        if report::enabled(level) {
            report::disposition(
                level,
                &visit.session.id,
                hook,
                &self.members[at].name,
                judgement.disposition,
                mark(visit, judgement).as_deref(),
                &finding.line(),
            );
        }
    }

    /// Notes a plugin's turn, where somebody may ask why.
    pub(super) fn trace(
        &self,
        visit: &mut Visit,
        hook: Hook,
        at: usize,
        judgement: &Judgement,
        finding: &Finding,
    ) {
        if visit.trace.is_none() {
            return;
        }
        let origins = self.origins(visit, at);
        let is_privileged = is_about_client(hook) && visit.session.is_privileged();
        let behind = origins.behind(finding, judgement, is_privileged);
        let verdict = |verdict: Verdict| match verdict {
            Verdict::Declined => "",
            verdict => verdict.name(),
        };
        let turn = Turn {
            hook: hook.name().into(),
            plugin: (&*self.members[at].name).into(),
            found: (!judgement.silent).then_some(judgement.disposition),
            message: finding.message.as_str().into(),
            wanted: match judgement.wanted == judgement.verdict {
                true => "",
                false => verdict(judgement.wanted),
            }
            .into(),
            verdict: verdict(judgement.verdict).into(),
            mark: mark(visit, judgement).unwrap_or_default(),
            because: behind.map(Into::into).collect(),
            ..Turn::default()
        };
        if let Some(trace) = &mut visit.trace {
            trace.turn(&visit.session, turn);
        }
    }

    /// The same for an answer that comes later.
    fn trace_deferred(&self, visit: &mut Visit, hook: Hook, at: usize, until: Hook) {
        if let Some(trace) = &mut visit.trace {
            let turn = Turn {
                hook: hook.name().into(),
                plugin: (&*self.members[at].name).into(),
                message: format!("will answer at {until}").into(),
                ..Turn::default()
            };
            trace.turn(&visit.session, turn);
        }
    }

    /// The events `deny` and `ok`, for whoever observes them.
    pub(super) fn announce(
        &self,
        visit: &Visit,
        hook: Hook,
        member: &Member,
        judgement: &Judgement,
        message: &str,
    ) {
        let event = if judgement.verdict.is_negative() {
            Hook::Deny
        } else {
            Hook::Ok
        };
        if self.observers[event as usize].is_empty() || hook.is_event() {
            return;
        }
        let args = Args::Decided {
            plugin: (&*member.name).into(),
            hook,
            verdict: judgement.verdict,
            message: message.into(),
        };
        self.tell(visit, event, &args);
    }
}
