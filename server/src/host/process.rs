//! A plugin process: its workers, and which session is at which.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use gatepost_protocol::outcome::BoxFuture;
use gatepost_protocol::plugin::{Answers, Call, Host, Then, Wants};
use gatepost_protocol::wire::InitPlugin;
use gatepost_protocol::{Disposition, Hook, Outcome};
use tokio::sync::{Notify, OnceCell};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Core;
use super::circuit::{Circuits, Leave};
use super::confine::{Folder, Group};
use super::declare::Declared;
use super::seating::{Place, Pool};
use super::span::span;
use super::stats::{Counts, Stats, count};
use super::template::Origin;
use super::told::Following;
use super::worker::{Missing, Request, Why};
use crate::config::Program;
use crate::report::{self, Limit};

/// How a plugin process comes to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// We start it.
    Run(Program),
    /// Somebody else did.
    Attach(PathBuf),
}

/// A configured plugin process with all of its workers.
pub struct Process {
    pub(super) me: Weak<Process>,
    pub(super) name: Arc<str>,
    pub(super) target: Target,
    /// Whether a worker has one session at a time.
    pub(super) exclusive: bool,
    /// The plugins it holds, in the order of the chain.
    pub(super) plugins: Vec<Arc<str>>,
    pub(super) init: Vec<InitPlugin>,
    /// What its first worker declared.
    pub(super) declared: OnceLock<Vec<Declared>>,
    /// Where further workers come from.
    pub(super) origin: tokio::sync::Mutex<Origin>,
    /// Whether they are forked. Such a process runs its plugins one by one, and a copy of it costs little: each session gets one of its own,
    /// as long as there may be more.
    pub(super) forks: AtomicBool,
    pub(super) core: Core,
    /// Its own folder, where it is held and needs one.
    pub(super) folder: OnceCell<Folder>,
    /// Its control group, where it is to have one.
    pub(super) group: OnceCell<Group>,
    pub(super) pool: Mutex<Pool>,
    /// A request was done with, or a worker came or went.
    pub(super) changed: Arc<Notify>,
    pub(super) waiting: AtomicUsize,
    pub(super) stats: Arc<Stats>,
    circuits: Circuits,
    /// What it has to be told of the log.
    pub(super) following: Arc<Following>,
    pub(super) closing: CancellationToken,
    pub(super) tasks: TaskTracker,
}

impl Process {
    pub(super) fn new(
        name: Arc<str>,
        target: Target,
        init: Vec<InitPlugin>,
        core: Core,
    ) -> Arc<Process> {
        let exclusive = match &target {
            Target::Run(program) => program.exclusive,
            Target::Attach(_) => false,
        };
        Arc::new_cyclic(|me| Process {
            me: me.clone(),
            exclusive,
            name,
            target,
            plugins: init
                .iter()
                .map(|plugin| plugin.name.as_str().into())
                .collect(),
            init,
            circuits: Circuits::new(core.patience.pause),
            declared: OnceLock::new(),
            origin: tokio::sync::Mutex::default(),
            forks: AtomicBool::new(false),
            core,
            folder: OnceCell::new(),
            group: OnceCell::new(),
            pool: Mutex::default(),
            changed: Arc::default(),
            waiting: AtomicUsize::new(0),
            stats: Arc::default(),
            following: Arc::default(),
            closing: CancellationToken::new(),
            tasks: TaskTracker::new(),
        })
    }

    /// Its name in the log: the configuration's `process`, or the first of its plugins and how many more there are.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it did so far.
    pub fn counts(&self) -> Counts {
        self.stats.counts()
    }

    pub(super) fn pool(&self) -> MutexGuard<'_, Pool> {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many workers there are at least and at most.
    pub(super) fn bounds(&self) -> (usize, usize) {
        match &self.target {
            Target::Run(program) => {
                let least = program.workers.0.max(1);
                (least, program.workers.1.max(least))
            }
            Target::Attach(_) => (1, 1),
        }
    }

    async fn answer(
        &self,
        plugins: &[&str],
        wants: &Wants,
        call: &Call<'_>,
        then: Option<&Then<'_>>,
    ) -> Answers {
        count(&self.stats.requests);
        let began = Instant::now();
        let no_answer = |why: &str| {
            let first = plugins.first().copied().unwrap_or(&self.name);
            let after = span(began.elapsed());
            let hook = call.hook;
            format!("{first} gave no answer at {hook}, after {after}: {why}")
        };
        let not_asked = |why: &str| {
            count(&self.stats.errors);
            Answers {
                here: vec![Outcome::error(no_answer(why))],
                then: None,
            }
        };
        let leave = match self.circuits.enter(call.hook) {
            Ok(leave) => leave,
            Err(why) => {
                count(&self.stats.unasked);
                report::count(Limit::PluginCircuit);
                return not_asked(&why);
            }
        };
        let failed_at = |hook: Hook, leave: &Leave<'_>, why: &str| {
            // What ends with the daemon, or with a reload, failed for no fault of its own.
            if !self.closing.is_cancelled() {
                self.circuits
                    .failed(hook, leave, why, &self.name, &self.stats);
            }
        };
        let deadline = began + call.deadline;
        let arrival = self.arrive(&call.session.id);
        let placed = self.place(call, deadline).await;
        drop(arrival);
        self.tell_lines();
        let (worker, permit, resumed) = match placed {
            Ok(placed) => placed,
            Err(why) => {
                // Who waited for a worker that others keep busy waited as long as for a silent one.
                if Instant::now() >= deadline {
                    failed_at(call.hook, &leave, &why);
                }
                return not_asked(&why);
            }
        };
        // Without `segments` one is asked at a time; whoever asked comes back for the rest.
        let most = if worker.segments() { plugins.len() } else { 1 };
        let Some(segment) = self.names(plugins.iter().take(most)) else {
            return not_asked("its process does not hold it");
        };
        // A request for two hooks fails as a whole: where one of them failed lately, each is asked by itself.
        let is_sound = |then: &&Then<'_>| {
            [call.hook, then.hook]
                .iter()
                .all(|hook| self.circuits.is_sound(*hook))
        };
        let then = then.filter(|_| worker.goes_on()).filter(is_sound);
        let then = then.and_then(|then| Some((then, self.names(then.plugins.iter())?)));
        let both = then.as_ref().map(|(then, _)| {
            let mut both = wants.clone();
            both.add(then.wants);
            both
        });
        let request = Request {
            plugins: segment,
            wants: both.as_ref().unwrap_or(wants),
            then,
        };
        let then_hook = request.then.as_ref().map(|(then, _)| then.hook);
        let together = request.plugins.len();
        match worker.ask(request, call, deadline, resumed, permit) {
            Ok(asking) => match asking.answers(call).await {
                Ok(answers) => {
                    self.circuits.answered(call.hook, &self.name);
                    answers
                }
                Err(Missing { why, unfinished }) => {
                    let (why, text, is_new) = match why {
                        // However many it had, it died once.
                        Why::Gone(why) => (why.to_string(), no_answer(&why), worker.mourn()),
                        Why::Late(within) => {
                            let why = format!("no answer within {}", span(within));
                            (why.clone(), why, true)
                        }
                    };
                    let known = unfinished.and_then(|answers| ended_at(answers, &why));
                    let at_next = known.as_ref().is_some_and(|known| known.then.is_some());
                    if is_new && let Some(hook) = then_hook.filter(|_| at_next) {
                        if let Ok(leave) = self.circuits.enter(hook) {
                            failed_at(hook, &leave, &why);
                        }
                    } else if is_new {
                        failed_at(call.hook, &leave, &why);
                    }
                    known.unwrap_or_else(|| nowhere(&text, together, call.hook, then_hook))
                }
            },
            Err(why) => not_asked(&why),
        }
    }

    fn names<'a>(&self, plugins: impl Iterator<Item = &'a &'a str>) -> Option<Vec<Arc<str>>> {
        let known = |name: &str| self.plugins.iter().find(|known| &***known == name);
        plugins.map(|name| known(name).cloned()).collect()
    }

    /// No more hooks: lets running requests finish for `grace`, then closes the channels and waits until the workers are gone.
    pub async fn shutdown(&self, grace: Duration) {
        self.pool().close(Instant::now() + grace);
        self.closing.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

/// The answers up to the plugin that a request failed over. Nothing where they do not say which that is.
fn ended_at(mut answers: Answers, why: &str) -> Option<Answers> {
    let outcomes = answers.then.as_mut().unwrap_or(&mut answers.here);
    let last = outcomes.last_mut()?;
    if last.disposition != Some(Disposition::Error) {
        return None;
    }
    last.message = format!("{why}: {}", last.message);
    Some(answers)
}

/// Over which of its plugins a request failed is not known: it is laid at the first one's door. So it is at which of its hooks; it is not asked again
/// at the other, which would take as long again.
fn nowhere(why: &str, together: usize, hook: Hook, then: Option<Hook>) -> Answers {
    let mut text = why.to_owned();
    if together > 1 {
        text.push_str(&format!(" ({together} plugins were asked together)"));
    }
    if let Some(then) = then {
        text.push_str(&format!(" ({hook} and {then} were one request)"));
    }
    let error = || vec![Outcome::error(text.clone())];
    Answers {
        here: error(),
        then: then.map(|_| error()),
    }
}

impl Host for Process {
    fn ask<'a>(
        &'a self,
        plugins: &'a [&'a str],
        wants: &'a Wants,
        call: &'a Call<'a>,
    ) -> BoxFuture<'a, Vec<Outcome>> {
        Box::pin(async move { self.answer(plugins, wants, call, None).await.here })
    }

    fn ask_then<'a>(
        &'a self,
        plugins: &'a [&'a str],
        wants: &'a Wants,
        call: &'a Call<'a>,
        then: &'a Then<'a>,
    ) -> BoxFuture<'a, Answers> {
        Box::pin(self.answer(plugins, wants, call, Some(then)))
    }

    fn tell(&self, plugins: &[&str], wants: &Wants, call: &Call<'_>) {
        let session = &call.session.id;
        let seated = if call.hook == Hook::Disconnect {
            self.tell_lines();
            self.leave(session)
        } else {
            None
        };
        let worker = match seated {
            Some(worker) => worker,
            None if plugins.is_empty() => return,
            None => match self.choose(session, false) {
                Place::At(worker, _) => worker,
                Place::HeldUp(..) | Place::Wait | Place::None(_) => {
                    return count(&self.stats.dropped_events);
                }
            },
        };
        self.tell_lines();
        worker.tell(plugins, wants, call);
        if call.hook == Hook::Disconnect {
            // An observer of `disconnect` alone was seated for this one event.
            self.leave(session);
        }
    }
}
