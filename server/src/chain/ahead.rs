//! Two hooks in one request. Several hooks follow each other with nothing in between, such as `mail_pre` and `mail`; plugins of another process that
//! have nothing to say at the first are asked for both at once (docs/protocol.md §4), which saves waking that process twice.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use gatepost_protocol::plugin::{Host, Wants};
use gatepost_protocol::{Args, Hook, Outcome};

use super::{Chain, Step, Visit};

/// The hook that is put next, unless somebody has something to say at the one at hand.
#[derive(Clone, Copy)]
pub struct Upcoming<'a> {
    /// The hook.
    pub hook: Hook,
    /// What it is about.
    pub args: &'a Args<'a>,
    /// The number of the transaction by then.
    pub transaction: u32,
}

/// Plugins that can be asked at the next hook together with the one at hand.
pub(super) struct Following<'a> {
    pub next: Upcoming<'a>,
    pub members: Vec<usize>,
    pub wants: &'a Wants,
}

/// What plugins said to a hook before it was put.
pub(super) struct Ahead {
    /// Whose members.
    chain: usize,
    pub hook: Hook,
    members: Vec<usize>,
    /// In a mutex that nobody ever waits for: a visit is lent to several tasks, and an outcome may hold a future, which cannot be.
    outcomes: Mutex<Vec<Outcome>>,
}

impl Following<'_> {
    pub fn answered_with(&self, chain: usize, outcomes: Vec<Outcome>) -> Box<Ahead> {
        Box::new(Ahead {
            chain,
            hook: self.next.hook,
            members: self.members.clone(),
            outcomes: Mutex::new(outcomes),
        })
    }
}

impl Chain {
    /// Who of a host can be asked at the next hook as well: those who are asked first there, before anybody else is asked or told, and about whom nothing
    /// can change until then.
    pub(super) fn following<'a>(
        &'a self,
        visit: &Visit,
        host: &Arc<dyn Host>,
        timeout: Duration,
        next: &Upcoming<'a>,
    ) -> Option<Following<'a>> {
        let first = self.steps[next.hook as usize].first()?;
        let Step::Segment {
            host: theirs,
            members,
            wants,
            timeout: at_next,
        } = first
        else {
            return None;
        };
        let is_same = Arc::ptr_eq(host, theirs) && *at_next == timeout;
        let is_told = !self.observers[next.hook as usize].is_empty();
        if !is_same || is_told || !visit.is_plain() {
            return None;
        }
        let members: Vec<usize> = self.taking_part(visit, next.hook, members).collect();
        let is_spared = |at: &usize| self.spares(visit, next.hook, *at);
        if members.is_empty() || members.iter().any(is_spared) {
            return None;
        }
        Some(Following {
            next: *next,
            members,
            wants,
        })
    }

    /// What these said to a hook already.
    pub(super) fn answered(
        &self,
        visit: &mut Visit,
        hook: Hook,
        members: &[usize],
    ) -> Option<Vec<Outcome>> {
        let ahead = visit.ahead.take()?;
        let is_this = ahead.chain == self.id && ahead.hook == hook && ahead.members == members;
        let outcomes = ahead.outcomes.into_inner();
        is_this.then(|| outcomes.unwrap_or_else(PoisonError::into_inner))
    }
}
