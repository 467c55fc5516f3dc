//! Neighbours that share a process are asked in one request.

use std::time::Duration;

use gatepost_protocol::plugin::{Answers, Host, Then, Wants};
use gatepost_protocol::{Args, Call, Hook, Message, Outcome};

use super::ahead::Following;
use super::{Chain, Decision, Profile, Visit};

/// A hook as it is put to a segment.
pub(super) struct Request<'a> {
    pub hook: Hook,
    pub args: &'a Args<'a>,
    pub message: Option<&'a dyn Message>,
    pub timeout: Duration,
    pub wants: &'a Wants,
    /// Who can be asked at the next hook at once.
    pub following: Option<Following<'a>>,
}

impl Chain {
    /// Asks a segment; where the policy lets a failure pass, what stands behind it is asked in its turn.
    pub(super) async fn ask(
        &self,
        visit: &mut Visit,
        host: &dyn Host,
        members: &[usize],
        request: &Request<'_>,
    ) -> Option<Decision> {
        let mut left: Vec<usize> = self.taking_part(visit, request.hook, members).collect();
        let mut following = request.following.as_ref();
        while let Some(first) = left.first()
            && !visit.departure.has_happened()
        {
            if self.spares(visit, request.hook, *first) {
                let first = left.remove(0);
                self.spare(visit, request.hook, first);
                continue;
            }
            // Up to the next that is spared: the order of the lines in the log is the configuration's.
            let spared = |at: &usize| self.spares(visit, request.hook, *at);
            let together = left.iter().position(spared).unwrap_or(left.len());
            if let Some(trace) = &mut visit.trace {
                trace.ask();
            }
            let following = following.take().filter(|_| together == left.len());
            let answered = self.answered(visit, request.hook, &left[..together]);
            let answers = if let Some(here) = answered {
                Answers { here, then: None }
            } else {
                let names = self.named(&left[..together]);
                let Request {
                    hook,
                    args,
                    message,
                    timeout,
                    wants,
                    ..
                } = request;
                let call = Call {
                    hook: *hook,
                    session: &visit.session,
                    args,
                    message: *message,
                    deadline: *timeout,
                    settings: visit.profile.as_deref().and_then(Profile::in_force),
                    departure: &visit.departure,
                    speech: visit.speech.as_deref(),
                };
                match following {
                    Some(following) => {
                        let then = Then {
                            hook: following.next.hook,
                            plugins: &self.named(&following.members),
                            wants: following.wants,
                            args: following.next.args,
                            transaction: following.next.transaction,
                        };
                        host.ask_then(&names, wants, &call, &then).await
                    }
                    None => Answers {
                        here: host.ask(&names, wants, &call).await,
                        then: None,
                    },
                }
            };
            // A host answers for one plugin at least; were it none, the first has failed.
            let outcomes = if answers.here.is_empty() {
                vec![Outcome::error("no answer")]
            } else {
                answers.here
            };
            if let (Some(following), Some(outcomes)) = (following, answers.then) {
                visit.ahead = Some(following.answered_with(self.id, outcomes));
            }
            let ran = outcomes.len().min(together);
            for (at, outcome) in left[..ran].iter().zip(outcomes) {
                // One before it gave the client a flag: the order says that this one was not asked.
                if self.spares(visit, request.hook, *at) {
                    self.spare(visit, request.hook, *at);
                    continue;
                }
                if let Some(decision) =
                    self.settle(visit, request.hook, *at, request.timeout, outcome)
                {
                    return Some(decision);
                }
            }
            left.drain(..ran);
        }
        None
    }

    pub(super) fn taking_part<'a>(
        &'a self,
        visit: &'a Visit,
        hook: Hook,
        members: &'a [usize],
    ) -> impl Iterator<Item = usize> + 'a {
        members
            .iter()
            .copied()
            .filter(move |at| self.takes_part(visit, hook, *at))
    }
}
