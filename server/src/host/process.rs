//! A plugin process: its workers, and which session is at which.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use gatepost_protocol::outcome::BoxFuture;
use gatepost_protocol::plugin::{Answers, Call, Host, Then, Wants};
use gatepost_protocol::wire::InitPlugin;
use gatepost_protocol::{Hook, Outcome};
use tokio::sync::{Notify, OnceCell, OwnedSemaphorePermit};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Core;
use super::circuit::Circuits;
use super::confine::Folder;
use super::declare::Declared;
use super::span::span;
use super::stats::{Counts, Stats, count};
use super::template::Origin;
use super::told::Following;
use super::worker::{Missing, Request, Worker};
use crate::config::Program;
use crate::report::{self, Limit};

/// How many requests may wait for a worker of one process.
const MAX_WAITING: usize = 1024;

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
    exclusive: bool,
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
    pub(super) pool: Mutex<Pool>,
    /// A request was done with, or a worker came or went.
    pub(super) changed: Arc<Notify>,
    waiting: AtomicUsize,
    pub(super) stats: Arc<Stats>,
    circuits: Circuits,
    /// What it has to be told of the log.
    pub(super) following: Arc<Following>,
    pub(super) closing: CancellationToken,
    pub(super) tasks: TaskTracker,
}

/// The workers, and the sessions that are bound to them.
#[derive(Default)]
pub(super) struct Pool {
    pub(super) slots: Vec<Slot>,
    sessions: HashMap<Box<str>, Seat>,
    /// Sessions that look for a worker, of a process that follows the log.
    pub(super) arriving: HashSet<Box<str>>,
    /// Until when running requests may take; set at shutdown.
    pub(super) until: Option<Instant>,
}

/// A place for a worker.
pub(super) enum Slot {
    /// On its way.
    Starting,
    /// Nobody is in it.
    Vacant,
    /// At work.
    Up(Arc<Worker>),
    /// Failed, for this reason; it is started again after a while.
    Down(Arc<str>),
}

/// Where a session is. Weak: a dead worker's channel is closed though its sessions go on.
struct Seat {
    worker: Weak<Worker>,
    /// Its worker died, and no hook has said so yet.
    resumed: bool,
}

enum Place {
    At(Arc<Worker>, bool),
    /// Another worker is on its way.
    Wait,
    None(String),
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
        let failed = |why: &str| {
            // What ends with the daemon, or with a reload, failed for no fault of its own.
            if !self.closing.is_cancelled() {
                let (hook, name, stats) = (call.hook, &self.name, &self.stats);
                self.circuits.failed(hook, &leave, why, name, stats);
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
                    failed(&why);
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
        let fail = |text: String| {
            let Some(then) = then_hook else {
                return Answers {
                    here: vec![Outcome::error(text)],
                    then: None,
                };
            };
            // At which of the two is not known. It is not asked again at the other: that would take as long again.
            let text = format!("{text} ({} and {then} were one request)", call.hook);
            let error = || vec![Outcome::error(text.clone())];
            Answers {
                here: error(),
                then: Some(error()),
            }
        };
        match worker.ask(request, call, deadline, resumed, permit) {
            Ok(asking) => match asking.answers(call).await {
                Ok(answers) => {
                    self.circuits.answered(call.hook, &self.name);
                    answers
                }
                Err(Missing::Gone(why)) => {
                    // However many it had, it died once.
                    if worker.mourn() {
                        failed(&why);
                    }
                    fail(no_answer(&why))
                }
                Err(Missing::Late(within)) => {
                    let why = format!("no answer within {}", span(within));
                    failed(&why);
                    fail(why)
                }
            },
            Err(why) => not_asked(&why),
        }
    }

    fn names<'a>(&self, plugins: impl Iterator<Item = &'a &'a str>) -> Option<Vec<Arc<str>>> {
        let known = |name: &str| self.plugins.iter().find(|known| &***known == name);
        plugins.map(|name| known(name).cloned()).collect()
    }

    /// A worker for a session, with leave to ask it now.
    async fn place(
        &self,
        call: &Call<'_>,
        deadline: Instant,
    ) -> Result<(Arc<Worker>, OwnedSemaphorePermit, bool), String> {
        loop {
            // Made before looking, so that nothing that happens in between is missed.
            let changed = self.changed.notified();
            match self.choose(&call.session.id, true) {
                Place::At(worker, resumed) => {
                    if let Ok(permit) = worker.room.clone().try_acquire_owned() {
                        return Ok((worker, permit, resumed));
                    }
                    let _waiting = self.wait()?;
                    let permit = worker.room.clone().acquire_owned();
                    match tokio::time::timeout_at(deadline, permit).await {
                        Ok(Ok(permit)) => return Ok((worker, permit, resumed)),
                        // It died meanwhile; nothing was sent to it, so another can be asked.
                        Ok(Err(_)) => {}
                        Err(_) => return Err("its worker was busy all the time".to_owned()),
                    }
                }
                Place::Wait => {
                    let _waiting = self.wait()?;
                    if tokio::time::timeout_at(deadline, changed).await.is_err() {
                        return Err("its workers were busy all the time".to_owned());
                    }
                }
                Place::None(why) => return Err(why),
            }
        }
    }

    fn wait(&self) -> Result<Waiting<'_>, String> {
        let waiting = Waiting(&self.waiting);
        if self.waiting.fetch_add(1, Ordering::Relaxed) < MAX_WAITING {
            Ok(waiting)
        } else {
            report::count(Limit::PluginRequests);
            Err(format!(
                "{MAX_WAITING} requests wait for its workers already"
            ))
        }
    }

    /// The worker of a session; for a new one the least loaded. `ask`: it is to be asked and not only told.
    fn choose(&self, session: &str, ask: bool) -> Place {
        let mut pool = self.pool();
        if pool.until.is_some() {
            return Place::None("the server is shutting down".to_owned());
        }
        let mut resumed = false;
        if let Some(seat) = pool.sessions.get_mut(session) {
            match seat.worker.upgrade().filter(|worker| worker.is_up()) {
                Some(worker) => {
                    let resumed = ask && std::mem::take(&mut seat.resumed);
                    return Place::At(worker, resumed);
                }
                None => resumed = true,
            }
        }
        let up = pool.slots.iter().filter_map(|slot| match slot {
            Slot::Up(worker) if worker.is_up() => Some(worker),
            _ => None,
        });
        let Some(worker) = up.min_by_key(|worker| self.burden(worker)).cloned() else {
            // A copy is made sooner than a worker that failed is started anew.
            if ask && self.forks.load(Ordering::Relaxed) && self.bring_another(&mut pool) {
                return Place::Wait;
            }
            return Place::None(pool.why_down());
        };
        if ask && self.is_busy(&worker, session) && self.bring_another(&mut pool) {
            return Place::Wait;
        }
        if self.exclusive && !session.is_empty() && worker.load().1 > 0 {
            return match ask {
                true => Place::Wait,
                false => Place::None("all of its workers have a session".to_owned()),
            };
        }
        // What belongs to no session needs no seat.
        if !session.is_empty() {
            worker.sessions.fetch_add(1, Ordering::Relaxed);
            let seat = Seat {
                worker: Arc::downgrade(&worker),
                resumed: resumed && !ask,
            };
            pool.sessions.insert(session.into(), seat);
        }
        Place::At(worker, resumed && ask)
    }

    /// What there is to do for a worker: sessions count first where each is to have its own.
    fn burden(&self, worker: &Worker) -> (usize, usize) {
        let (requests, sessions) = worker.load();
        match self.forks.load(Ordering::Relaxed) || self.exclusive {
            true => (sessions, requests),
            false => (requests, sessions),
        }
    }

    /// Whether a new session had better have another worker than this, the least burdened.
    fn is_busy(&self, worker: &Worker, session: &str) -> bool {
        let (_, sessions) = worker.load();
        let own = !session.is_empty() && (self.forks.load(Ordering::Relaxed) || self.exclusive);
        own && sessions > 0 || worker.room.available_permits() == 0
    }

    /// Starts another worker, unless there are enough; says whether one is on its way.
    fn bring_another(&self, pool: &mut Pool) -> bool {
        let starting = |slot: &&Slot| matches!(slot, Slot::Starting);
        let starting = pool.slots.iter().filter(starting).count();
        let (_, most) = self.bounds();
        // One for each that waits, and for whoever is going to.
        if starting > self.waiting.load(Ordering::Relaxed) || pool.number() >= most {
            return starting > 0;
        }
        let Some(me) = self.me.upgrade() else {
            return false;
        };
        let vacant = |slot: &Slot| matches!(slot, Slot::Vacant);
        let index = pool.slots.iter().position(vacant).unwrap_or_else(|| {
            pool.slots.push(Slot::Vacant);
            pool.slots.len() - 1
        });
        pool.slots[index] = Slot::Starting;
        self.tasks.spawn(me.supervise(index, None));
        true
    }

    /// Ends a session: its worker, if it is still there.
    fn leave(&self, session: &str) -> Option<Arc<Worker>> {
        let seat = self.pool().sessions.remove(session)?;
        let worker = seat.worker.upgrade()?;
        worker.sessions.fetch_sub(1, Ordering::Relaxed);
        if self.exclusive {
            self.changed.notify_waiters();
        }
        Some(worker).filter(|worker| worker.is_up())
    }

    /// No more hooks: lets running requests finish for `grace`, then closes the channels and waits until the workers are gone.
    pub async fn shutdown(&self, grace: Duration) {
        {
            let mut pool = self.pool();
            pool.until = Some(Instant::now() + grace);
            pool.sessions.clear();
        }
        self.closing.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

impl Pool {
    /// How many workers there are, those on their way included.
    pub(super) fn number(&self) -> usize {
        let vacant = |slot: &&Slot| matches!(slot, Slot::Vacant);
        self.slots.len() - self.slots.iter().filter(vacant).count()
    }

    /// The worker of a session that has one.
    pub(super) fn seated(&self, session: &str) -> Option<Arc<Worker>> {
        let worker = self.sessions.get(session)?.worker.upgrade();
        worker.filter(|worker| worker.is_up())
    }

    fn why_down(&self) -> String {
        let down = self.slots.iter().find_map(|slot| match slot {
            Slot::Down(reason) => Some(reason),
            _ => None,
        });
        match down {
            Some(reason) => format!("its process is down: {reason}"),
            None => "its process is being started again".to_owned(),
        }
    }
}

/// One request that waits for a worker.
struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
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
                Place::Wait | Place::None(_) => return count(&self.stats.dropped_events),
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
