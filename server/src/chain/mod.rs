//! Hook in, verdict out: the order of the plugins, the operator's policy, and the changes that plugins ask for.

mod build;
mod policy;
#[cfg(test)]
mod tests;
mod visit;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use gatepost_protocol::plugin::{Host, Wants};
use gatepost_protocol::session::Naughty;
use gatepost_protocol::{
    Answer, Args, Call, Disposition, Field, FieldSet, Hook, Level, Message, Outcome, Plugin,
    Verdict,
};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use crate::config::When;
use crate::report;

pub use build::Entry;
pub use policy::Rules;
use policy::{Judgement, Mark, fitting_code, reply_lines};
use visit::Owed;
pub use visit::{Decision, Visit};

/// How long a plugin may take over a hook where neither the operator nor the plugin says: well within what clients wait (RFC 5321 §4.5.3.2).
const DEADLINE: Duration = Duration::from_secs(30);
/// The same for hooks with a whole message at hand; clients wait 10 minutes there (RFC 5321 §4.5.3.2.6).
const MESSAGE_DEADLINE: Duration = Duration::from_secs(300);

/// The plugins in their order, and per hook the ones that take part.
pub struct Chain {
    members: Vec<Member>,
    steps: [Vec<Step>; Hook::COUNT],
    observers: [Vec<Step>; Hook::COUNT],
    fields: FieldSet,
    hosts: Vec<Farewell>,
}

/// What a host is to hear at the end of a session.
struct Farewell {
    host: Arc<dyn Host>,
    /// Those of its plugins that observe it.
    members: Vec<(usize, Wants)>,
}

/// A plugin of the chain.
struct Member {
    name: Arc<str>,
    plugin: Arc<dyn Plugin>,
    rules: Rules,
    when: Option<When>,
}

/// One thing to do at a hook.
enum Step {
    /// Call a plugin that lives in this process.
    Call { member: usize, timeout: Duration },
    /// Ask neighbours that share a process, in one request.
    Segment {
        host: Arc<dyn Host>,
        members: Vec<usize>,
        wants: Wants,
        timeout: Duration,
    },
}

impl Chain {
    /// Whether anybody takes part in a hook; asking costs nothing. Answers that were deferred until a hook do not count: always
    /// [`Chain::run`] a hook, unless preparing for it is what costs.
    pub fn asks(&self, hook: Hook) -> bool {
        !self.steps[hook as usize].is_empty() || !self.observers[hook as usize].is_empty()
    }

    /// Whether anybody in another process subscribed to a field, at any hook.
    pub fn wants(&self, field: Field) -> bool {
        self.fields.has(field)
    }

    /// Who is asked at a hook, in order; plugins that are asked in one request stand together.
    pub fn asked_at(&self, hook: Hook) -> impl Iterator<Item = Vec<&str>> {
        self.steps[hook as usize]
            .iter()
            .map(|step| self.names(step))
    }

    /// Who is told of a hook without being asked.
    pub fn told_of(&self, hook: Hook) -> impl Iterator<Item = &str> {
        self.observers[hook as usize]
            .iter()
            .flat_map(|step| self.names(step))
    }

    fn names(&self, step: &Step) -> Vec<&str> {
        step.members()
            .iter()
            .map(|member| &*self.members[*member].name)
            .collect()
    }

    /// Puts a hook to the plugins, applies what they change, and says what was decided. For events: tells, and returns `Declined` at once.
    pub async fn run(
        &self,
        visit: &mut Visit,
        hook: Hook,
        args: &Args<'_>,
        message: Option<&dyn Message>,
    ) -> Decision {
        self.tell(visit, hook, args);
        if !visit.owed.is_empty()
            && let Some(decision) = self.collect(visit, hook).await
        {
            return decision;
        }
        for step in &self.steps[hook as usize] {
            if visit.departure.has_happened() {
                break;
            }
            let decision = match step {
                Step::Call { member, timeout } => {
                    self.call(visit, hook, args, message, *member, *timeout)
                        .await
                }
                Step::Segment {
                    host,
                    members,
                    wants,
                    timeout,
                } => {
                    let request = Request {
                        hook,
                        args,
                        message,
                        timeout: *timeout,
                        wants,
                    };
                    self.ask(visit, &**host, members, &request).await
                }
            };
            if let Some(decision) = decision {
                return decision;
            }
        }
        Decision::declined()
    }

    /// Tells the observers of a hook; nobody waits for them.
    fn tell(&self, visit: &Visit, hook: Hook, args: &Args<'_>) {
        let call = Call {
            hook,
            session: &visit.session,
            args,
            message: None,
            deadline: DEADLINE,
            departure: &visit.departure,
        };
        for step in &self.observers[hook as usize] {
            match step {
                Step::Call { member, .. } => {
                    let member = &self.members[*member];
                    if member.takes_part(visit) {
                        // An observer's answer is nobody's business; one that cannot answer at once is dropped.
                        let told = AssertUnwindSafe(|| drop(member.plugin.call(&call)));
                        let _ = std::panic::catch_unwind(told);
                    }
                }
                Step::Segment { .. } if hook == Hook::Disconnect => {}
                Step::Segment {
                    host,
                    members,
                    wants,
                    ..
                } => {
                    let names = self.taking_part(visit, members);
                    let names: Vec<&str> = names.map(|at| &*self.members[at].name).collect();
                    if !names.is_empty() {
                        host.tell(&names, wants, &call);
                    }
                }
            }
        }
        if hook == Hook::Disconnect {
            self.farewell(visit, &call);
        }
    }

    /// Tells every host of the end of a session, once, whether or not a plugin of it wants to know: it forgets the session then
    /// (docs/protocol.md §4).
    fn farewell(&self, visit: &Visit, call: &Call<'_>) {
        for Farewell { host, members } in &self.hosts {
            let mut wants = Wants::default();
            let mut names: Vec<&str> = Vec::new();
            for (member, wanted) in members {
                if self.members[*member].takes_part(visit) {
                    names.push(&self.members[*member].name);
                    wants.add(wanted);
                }
            }
            host.tell(&names, &wants, call);
        }
    }

    /// Takes in the answers that were deferred until this hook.
    async fn collect(&self, visit: &mut Visit, hook: Hook) -> Option<Decision> {
        while let Some(at) = visit.owed.iter().position(|owed| owed.until == hook) {
            let owed = visit.owed.remove(at);
            let outcome = match tokio::time::timeout_at(owed.deadline, owed.answer).await {
                Ok(Ok(outcome)) => outcome,
                Ok(Err(_)) => Outcome::error("the plugin panicked"),
                Err(_) => Outcome::error("the deferred answer did not come in time"),
            };
            if let Some(decision) = self.settle(visit, hook, owed.member, DEADLINE, outcome) {
                return Some(decision);
            }
        }
        None
    }

    async fn call(
        &self,
        visit: &mut Visit,
        hook: Hook,
        args: &Args<'_>,
        message: Option<&dyn Message>,
        at: usize,
        timeout: Duration,
    ) -> Option<Decision> {
        let member = &self.members[at];
        if !member.takes_part(visit) {
            return None;
        }
        let outcome = {
            let call = Call {
                hook,
                session: &visit.session,
                args,
                message,
                deadline: timeout,
                departure: &visit.departure,
            };
            let answer = std::panic::catch_unwind(AssertUnwindSafe(|| member.plugin.call(&call)));
            match answer {
                Ok(Answer::Now(outcome)) => outcome,
                Ok(Answer::Later(answer)) => {
                    match tokio::time::timeout(timeout, AssertUnwindSafe(answer).catch_unwind())
                        .await
                    {
                        Ok(Ok(outcome)) => outcome,
                        Ok(Err(_)) => Outcome::error("the plugin panicked"),
                        Err(_) => Outcome::error(format!("no answer within {timeout:?}")),
                    }
                }
                Err(_) => Outcome::error("the plugin panicked"),
            }
        };
        self.settle(visit, hook, at, timeout, outcome)
    }

    /// Asks a segment; where the policy lets a failure pass, what stands behind it is asked in its turn.
    async fn ask(
        &self,
        visit: &mut Visit,
        host: &dyn Host,
        members: &[usize],
        request: &Request<'_>,
    ) -> Option<Decision> {
        let mut left: Vec<usize> = self.taking_part(visit, members).collect();
        while !left.is_empty() && !visit.departure.has_happened() {
            let outcomes = {
                let names: Vec<&str> = left.iter().map(|at| &*self.members[*at].name).collect();
                let Request {
                    hook,
                    args,
                    message,
                    timeout,
                    wants,
                } = request;
                let call = Call {
                    hook: *hook,
                    session: &visit.session,
                    args,
                    message: *message,
                    deadline: *timeout,
                    departure: &visit.departure,
                };
                host.ask(&names, wants, &call).await
            };
            // A host answers for one plugin at least; were it none, the first has failed.
            let outcomes = if outcomes.is_empty() {
                vec![Outcome::error("no answer")]
            } else {
                outcomes
            };
            let ran = outcomes.len().min(left.len());
            for (at, outcome) in left.iter().zip(outcomes) {
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

    fn taking_part<'a>(
        &'a self,
        visit: &'a Visit,
        members: &'a [usize],
    ) -> impl Iterator<Item = usize> + 'a {
        members
            .iter()
            .copied()
            .filter(|at| self.members[*at].takes_part(visit))
    }

    /// Makes an outcome count: its changes, the policy, its line in the log. `Some` where it ends the walk.
    fn settle(
        &self,
        visit: &mut Visit,
        hook: Hook,
        at: usize,
        timeout: Duration,
        mut outcome: Outcome,
    ) -> Option<Decision> {
        let member = &self.members[at];
        for change in std::mem::take(&mut outcome.changes) {
            if let Err(error) = change.apply(&mut visit.session, &member.name) {
                outcome = Outcome::error(error.to_string());
                break;
            }
        }
        if let Some(deferred) = outcome.defer.take() {
            let answer = AbortOnDropHandle::new(tokio::spawn(deferred.outcome));
            visit.owed.push(Owed {
                member: at,
                until: deferred.until,
                answer,
                deadline: Instant::now() + timeout,
            });
            return None;
        }
        let judgement = member.rules.judge(&outcome);
        if judgement.mark == Mark::Naughty && visit.session.connection.naughty.is_none() {
            // The first failure is the one that is told; later ones are in the log.
            visit.session.connection.naughty = Some(Naughty {
                plugin: member.name.to_string(),
                message: if outcome.reply.is_empty() {
                    outcome.message.clone()
                } else {
                    outcome.reply.join("\n")
                },
                verdict: judgement.wanted,
            });
        }
        self.log(visit, hook, member, &judgement, &outcome.message);
        self.announce(visit, hook, member, &judgement, &outcome.message);
        if judgement.verdict == Verdict::Declined {
            return None;
        }
        let said = if outcome.reply.is_empty()
            && judgement.verdict.is_denial()
            && judgement.disposition == Disposition::Fail
        {
            std::slice::from_ref(&outcome.message)
        } else {
            &outcome.reply
        };
        let code = fitting_code(judgement.verdict, outcome.code);
        let class = |enhanced: &gatepost_protocol::EnhancedCode| match judgement.verdict {
            Verdict::Ok => enhanced.0 == 2,
            Verdict::Done => code.is_none_or(|code| code / 100 == u16::from(enhanced.0)),
            verdict => enhanced.0 == if verdict.is_soft() { 4 } else { 5 },
        };
        Some(Decision {
            verdict: judgement.verdict,
            plugin: Some(member.name.clone()),
            code,
            enhanced: outcome.enhanced.filter(class),
            lines: reply_lines(said, visit.utf8),
            values: outcome.values,
        })
    }

    fn log(
        &self,
        visit: &Visit,
        hook: Hook,
        member: &Member,
        judgement: &Judgement,
        message: &str,
    ) {
        let level = match judgement.disposition {
            _ if judgement.silent => Level::Debug,
            Disposition::Error => Level::Warn,
            _ => Level::Info,
        };
        let level = member.rules.level(level);
        if report::enabled(level) {
            let mark = match judgement.mark {
                Mark::None => None,
                Mark::Tolerated => Some("tolerated"),
                Mark::Naughty => Some("NAUGHTY"),
            };
            report::disposition(
                level,
                &visit.session.id,
                hook,
                &member.name,
                judgement.disposition,
                mark,
                message,
            );
        }
    }

    /// The events `deny` and `ok`, for whoever observes them.
    fn announce(
        &self,
        visit: &Visit,
        hook: Hook,
        member: &Member,
        judgement: &Judgement,
        message: &str,
    ) {
        let event = if judgement.verdict.is_denial() {
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

/// A hook as it is put to a segment.
struct Request<'a> {
    hook: Hook,
    args: &'a Args<'a>,
    message: Option<&'a dyn Message>,
    timeout: Duration,
    wants: &'a Wants,
}

impl Member {
    fn takes_part(&self, visit: &Visit) -> bool {
        self.when
            .as_ref()
            .is_none_or(|when| when.holds(&visit.session))
    }
}

impl Step {
    fn members(&self) -> &[usize] {
        match self {
            Step::Call { member, .. } => std::slice::from_ref(member),
            Step::Segment { members, .. } => members,
        }
    }
}
