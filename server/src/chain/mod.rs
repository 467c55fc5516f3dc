//! Hook in, verdict out: the order of the plugins, the operator's policy, and the changes that plugins ask for.

mod ahead;
mod build;
mod flags;
mod kept;
mod origins;
mod policy;
mod profile;
mod segment;
mod settle;
#[cfg(test)]
mod tests;
mod visit;

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::FutureExt;
use gatepost_protocol::plugin::{Host, Wants};
use gatepost_protocol::{
    Answer, Args, Call, Field, FieldSet, Hook, Message, Outcome, Plugin, Verdict,
};

use crate::config::When;

pub use ahead::Upcoming;
pub use build::Entry;
use build::HookSet;
pub use origins::Origins;
use policy::Finding;
pub use policy::Rules;
use profile::Profiles;
pub use profile::{Distinct, Distinctions, Finder, Found, Made, Profile, Special, agree};
use segment::Request;
use visit::Owed;
pub use visit::{Decision, Visit};

/// How long a plugin may take over a hook where neither the operator nor the plugin says: well within what clients wait (RFC 5321 §4.5.3.2).
const DEADLINE: Duration = Duration::from_secs(30);
/// The same for hooks with a whole message at hand; clients wait 10 minutes there (RFC 5321 §4.5.3.2.6).
const MESSAGE_DEADLINE: Duration = Duration::from_secs(300);

/// The longest that plugins may let a client wait for a reply: that is how long the least patient of those that follow RFC 5321 §4.5.3.2 wait.
pub const MAX_DELAY: Duration = Duration::from_secs(300);

/// The plugins in their order, and per hook the ones that take part.
pub struct Chain {
    /// Tells it from other chains that a session meets.
    id: usize,
    members: Vec<Member>,
    profiles: Profiles,
    steps: [Vec<Step>; Hook::COUNT],
    observers: [Vec<Step>; Hook::COUNT],
    fields: FieldSet,
    hosts: Vec<Farewell>,
    /// Lives as long as the chain.
    held: OnceLock<Box<dyn Any + Send + Sync>>,
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
    origins: Arc<Origins>,
    when: Option<When>,
    /// Where it takes part with the site's settings.
    hooks: HookSet,
    /// Where it does so with any that the configuration has.
    listed: HookSet,
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

    /// Whether anybody is still to see more of the message that comes in.
    pub fn wants_lines(&self, visit: &Visit) -> bool {
        let hook = Hook::DataLines as usize;
        let members = self.steps[hook].iter().flat_map(Step::members);
        let mut members = members.copied();
        !self.observers[hook].is_empty()
            || members.any(|at| self.takes_part(visit, Hook::DataLines, at))
    }

    /// Keeps something for as long as anybody has the chain, such as the processes of its plugins. Only the first call counts.
    pub fn hold(&self, what: impl Any + Send + Sync) {
        let _ = self.held.set(Box::new(what));
    }

    /// Whether anybody in another process subscribed to a field, at any hook.
    pub fn wants(&self, field: Field) -> bool {
        self.fields.has(field)
    }

    /// Who is asked at a hook, in order; plugins that are asked in one request stand together.
    pub fn asked_at(&self, hook: Hook) -> impl Iterator<Item = Vec<&str>> {
        let is_listed = move |step: &&Step| {
            let mut members = step.members().iter();
            members.any(|member| self.members[*member].listed.has(hook))
        };
        self.steps[hook as usize]
            .iter()
            .filter(is_listed)
            .map(|step| self.names(step))
    }

    /// Who is told of a hook without being asked.
    pub fn told_of(&self, hook: Hook) -> impl Iterator<Item = &str> {
        self.observers[hook as usize]
            .iter()
            .flat_map(|step| self.names(step))
    }

    fn names(&self, step: &Step) -> Vec<&str> {
        self.named(step.members())
    }

    fn named(&self, members: &[usize]) -> Vec<&str> {
        let members = members.iter();
        members.map(|at| &*self.members[*at].name).collect()
    }

    /// Puts a hook to the plugins, applies what they change, and says what was decided; to those, too, that only the recipients at hand have. For events:
    /// tells, and returns `Declined` at once.
    pub async fn run(
        &self,
        visit: &mut Visit,
        hook: Hook,
        args: &Args<'_>,
        message: Option<&dyn Message>,
    ) -> Decision {
        self.run_then(visit, hook, args, message, None).await
    }

    /// The same, where another hook may come next: plugins of another process that have nothing to say at this one may be asked for both at once.
    /// Then the caller puts that next one, with nothing in between that a plugin could see or that could keep it from being put.
    pub async fn run_then(
        &self,
        visit: &mut Visit,
        hook: Hook,
        args: &Args<'_>,
        message: Option<&dyn Message>,
        next: Option<Upcoming<'_>>,
    ) -> Decision {
        if visit.ahead.as_ref().is_some_and(|ahead| ahead.hook != hook) {
            visit.ahead = None;
        }
        if self.has_nothing_to_do(visit, hook) {
            return Decision::declined();
        }
        if hook.is_event() {
            for own in visit.met.clone() {
                own.run_alone(visit, hook, args, message, None).await;
            }
        }
        let profile = visit.profile.as_ref();
        let own = profile.and_then(|profile| profile.own.clone());
        let Some(own) = own.filter(|_| is_for_recipients(hook)) else {
            return self.run_alone(visit, hook, args, message, next).await;
        };
        if !visit.met.iter().any(|met| Arc::ptr_eq(met, &own)) {
            visit.met.push(own.clone());
        }
        if hook == Hook::Queue {
            // Who is to keep their mail, recipients may say first.
            let decision = own.run_alone(visit, hook, args, message, None).await;
            if decision.verdict != Verdict::Declined {
                return decision;
            }
            return self.run_alone(visit, hook, args, message, None).await;
        }
        let decision = self.run_alone(visit, hook, args, message, None).await;
        // A recipient that nobody accepted is none, whatever it has of its own.
        if decision.ends_message() || hook == Hook::Rcpt && decision.verdict != Verdict::Ok {
            return decision;
        }
        let theirs = own.run_alone(visit, hook, args, message, None).await;
        if theirs.ends_message() {
            theirs
        } else {
            decision
        }
    }

    /// Whether running a hook would change nothing; most hooks of most sessions are such.
    fn has_nothing_to_do(&self, visit: &Visit, hook: Hook) -> bool {
        !self.asks(hook)
            && (hook != Hook::Disconnect || self.hosts.is_empty())
            && visit.has_nothing_pending()
    }

    async fn run_alone(
        &self,
        visit: &mut Visit,
        hook: Hook,
        args: &Args<'_>,
        message: Option<&dyn Message>,
        next: Option<Upcoming<'_>>,
    ) -> Decision {
        self.tell(visit, hook, args);
        if hook == Hook::Rcpt
            && let Some(trace) = &mut visit.trace
        {
            trace.concern(args.address().map(std::slice::from_ref));
        }
        if !visit.kept.is_empty() || !visit.asked_late.is_empty() {
            self.forget(visit, hook);
        }
        let shown = self.show_deferred(visit, hook);
        let decision = self.walk(visit, hook, args, message, next).await;
        if shown {
            visit.session.connection.naughty = None;
        }
        decision.unwrap_or_else(Decision::declined)
    }

    async fn walk(
        &self,
        visit: &mut Visit,
        hook: Hook,
        args: &Args<'_>,
        message: Option<&dyn Message>,
        next: Option<Upcoming<'_>>,
    ) -> Option<Decision> {
        if !visit.owed.is_empty()
            && let Some(decision) = self.collect(visit, hook).await
        {
            return Some(decision);
        }
        if (visit.profile.is_some() || !visit.kept.is_empty())
            && let Some(decision) = self.recall(visit, hook).await
        {
            return Some(decision);
        }
        if visit.rehearsal && matches!(hook, Hook::Queue | Hook::QueuePost) {
            return self.rehearse(visit, hook);
        }
        let steps = &self.steps[hook as usize];
        for (at, step) in steps.iter().enumerate() {
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
                    let is_last = at + 1 == steps.len();
                    let next = next.as_ref().filter(|_| is_last);
                    let request = Request {
                        hook,
                        args,
                        message,
                        timeout: *timeout,
                        wants,
                        following: next
                            .and_then(|next| self.following(visit, host, *timeout, next)),
                    };
                    self.ask(visit, &**host, members, &request).await
                }
            };
            if decision.is_some() {
                return decision;
            }
        }
        None
    }

    /// Names who would be asked first to keep the message, in the place of its answer.
    fn rehearse(&self, visit: &mut Visit, hook: Hook) -> Option<Decision> {
        if hook != Hook::Queue {
            return None;
        }
        let steps = self.steps[hook as usize].iter();
        let mut members = steps.flat_map(Step::members).copied();
        let at = members.find(|at| self.takes_part(visit, hook, *at))?;
        let finding = Finding::from(Outcome::ok("not asked; it would be the first to be"));
        self.decide(visit, hook, at, &finding)
    }

    /// Tells the observers of a hook; nobody waits for them.
    fn tell(&self, visit: &Visit, hook: Hook, args: &Args<'_>) {
        let call = Call {
            hook,
            session: &visit.session,
            args,
            message: None,
            deadline: DEADLINE,
            settings: None,
            departure: &visit.departure,
            speech: visit.speech.as_deref(),
        };
        for step in &self.observers[hook as usize] {
            match step {
                Step::Call { member, .. } => {
                    let member = &self.members[*member];
                    if member.is_wanted(visit) {
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
                    let names = self.taking_part(visit, hook, members);
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
                if self.members[*member].is_wanted(visit) {
                    names.push(&self.members[*member].name);
                    wants.add(wanted);
                }
            }
            host.tell(&names, &wants, call);
        }
    }

    /// Takes in the answers that were deferred until this hook. One that comes with the first recipient is an answer for all of them.
    async fn collect(&self, visit: &mut Visit, hook: Hook) -> Option<Decision> {
        let due = |owed: &Owed| owed.chain == self.id && owed.until == hook;
        while let Some(at) = visit.owed.iter().position(due) {
            let owed = visit.owed.remove(at);
            let outcome = match tokio::time::timeout_at(owed.deadline, owed.answer).await {
                Ok(Ok(outcome)) => outcome,
                Ok(Err(_)) => Outcome::error("the plugin panicked"),
                Err(_) => Outcome::error("the deferred answer did not come in time"),
            };
            if hook == Hook::Rcpt {
                self.keep_for_all(visit, owed.member, outcome);
            } else if let Some(decision) = self.settle(visit, hook, owed.member, DEADLINE, outcome)
            {
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
        if !self.takes_part(visit, hook, at) {
            return None;
        }
        if self.spares(visit, hook, at) {
            self.spare(visit, hook, at);
            return None;
        }
        let timeout = self.rules(visit, at).timeout.unwrap_or(timeout);
        if let Some(trace) = &mut visit.trace {
            trace.ask();
        }
        let outcome = self.consult(visit, hook, args, message, at, timeout).await;
        self.settle(visit, hook, at, timeout, outcome)
    }

    /// Asks one plugin, the one that the recipients at hand have.
    async fn consult(
        &self,
        visit: &Visit,
        hook: Hook,
        args: &Args<'_>,
        message: Option<&dyn Message>,
        at: usize,
        timeout: Duration,
    ) -> Outcome {
        let profile = visit.profile.as_deref();
        let own = profile.and_then(|profile| profile.variant(at)?.own.as_ref()?.plugin.as_ref());
        let plugin = own.unwrap_or(&self.members[at].plugin);
        let call = Call {
            hook,
            session: &visit.session,
            args,
            message,
            deadline: timeout,
            settings: profile.and_then(Profile::in_force),
            departure: &visit.departure,
            speech: visit.speech.as_deref(),
        };
        match std::panic::catch_unwind(AssertUnwindSafe(|| plugin.call(&call))) {
            Ok(Answer::Now(outcome)) => outcome,
            Ok(Answer::Later(answer)) => {
                match tokio::time::timeout(timeout, AssertUnwindSafe(answer).catch_unwind()).await {
                    Ok(Ok(outcome)) => outcome,
                    Ok(Err(_)) => Outcome::error("the plugin panicked"),
                    Err(_) => Outcome::error(format!("no answer within {timeout:?}")),
                }
            }
            Err(_) => Outcome::error("the plugin panicked"),
        }
    }

    /// The uniform settings in force for the recipients at hand.
    fn rules(&self, visit: &Visit, at: usize) -> Rules {
        let variant = visit
            .profile
            .as_ref()
            .and_then(|profile| profile.variant(at));
        variant.map_or(self.members[at].rules, |variant| variant.rules)
    }

    /// Where the settings come from that are in force for the recipients at hand.
    fn origins(&self, visit: &Visit, at: usize) -> Arc<Origins> {
        let variant = visit
            .profile
            .as_ref()
            .and_then(|profile| profile.variant(at));
        variant
            .map_or(&self.members[at].origins, |variant| &variant.origins)
            .clone()
    }

    /// Whether a plugin is to be asked at a hook, as the recipients at hand have it.
    fn takes_part(&self, visit: &Visit, hook: Hook, at: usize) -> bool {
        let variant = visit
            .profile
            .as_ref()
            .and_then(|profile| profile.variant(at));
        let own = variant.and_then(|variant| variant.own.as_ref());
        let member = &self.members[at];
        own.map_or(member.hooks, |own| own.hooks(member)).has(hook)
            && member.is_wanted(visit)
            && (hook != Hook::DataLines || !visit.sated.contains(&(self.id, at)))
            // Whoever keeps a message keeps it, whether that counts or not.
            && (hook != Hook::Queue || !self.is_shadow(visit, at))
    }
}

/// Whether recipients' own plugins are asked at a hook.
const fn is_for_recipients(hook: Hook) -> bool {
    matches!(
        hook,
        Hook::Rcpt | Hook::DataPostHeaders | Hook::DataPost | Hook::QueuePre | Hook::Queue
    )
}

impl Member {
    /// Whether its condition holds.
    fn is_wanted(&self, visit: &Visit) -> bool {
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
