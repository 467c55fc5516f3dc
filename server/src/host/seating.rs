//! Which session is at which worker of a process, and when there is to be another.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use gatepost_protocol::plugin::Call;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, timeout_at};

use super::process::Process;
use super::worker::Worker;
use crate::report::{self, Limit};

/// How many requests may wait for a worker of one process.
const MAX_WAITING: usize = 1024;

/// How long after a deadline a worker may take to come out of the hook, while somebody waits for it.
const COMES_OUT: Duration = Duration::from_millis(100);

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

/// What there is for a session.
pub(super) enum Place {
    /// A worker, and whether the session has lost another.
    At(Arc<Worker>, bool),
    /// Its worker, which is at a hook whose deadline has passed, and until when it may come out of that.
    HeldUp(Arc<Worker>, Instant),
    /// Another worker is on its way.
    Wait,
    /// Nothing, for this reason.
    None(String),
}

impl Process {
    /// A worker for a session, with leave to ask it now.
    pub(super) async fn place(
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
                    match timeout_at(deadline, permit).await {
                        Ok(Ok(permit)) => return Ok((worker, permit, resumed)),
                        // It died meanwhile; nothing was sent to it, so another can be asked.
                        Ok(Err(_)) => {}
                        Err(_) => return Err("its worker was busy all the time".to_owned()),
                    }
                }
                Place::Wait => {
                    let _waiting = self.wait()?;
                    if timeout_at(deadline, changed).await.is_err() {
                        return Err("its workers were busy all the time".to_owned());
                    }
                }
                Place::HeldUp(worker, until) => {
                    let _waiting = self.wait()?;
                    if timeout_at(until.min(deadline), changed).await.is_err() {
                        if Instant::now() >= deadline {
                            return Err("its worker did not come out of another hook".to_owned());
                        }
                        self.replace(&worker, deadline).await;
                    }
                }
                Place::None(why) => return Err(why),
            }
        }
    }

    /// Ends a worker that is needed and does not come out of a hook.
    async fn replace(&self, worker: &Worker, deadline: Instant) {
        worker.condemn("it did not come out of a hook when the deadline had passed");
        loop {
            let changed = self.changed.notified();
            if !worker.is_up() || timeout_at(deadline, changed).await.is_err() {
                return;
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
    pub(super) fn choose(&self, session: &str, ask: bool) -> Place {
        let mut pool = self.pool();
        if pool.until.is_some() {
            return Place::None("the server is shutting down".to_owned());
        }
        let mut resumed = false;
        if let Some(seat) = pool.sessions.get_mut(session) {
            match seat.worker.upgrade().filter(|worker| worker.is_up()) {
                Some(worker) => {
                    // Only where another can be had at little cost, and one does one thing at a time.
                    if ask
                        && self.forks.load(Ordering::Relaxed)
                        && let Some(since) = worker.held_up_since()
                    {
                        return Place::HeldUp(worker, since + COMES_OUT);
                    }
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
        let Some(worker) = up
            .min_by_key(|worker| (worker.held_up_since().is_some(), self.burden(worker)))
            .cloned()
        else {
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
        let held_up = self.forks.load(Ordering::Relaxed) && worker.held_up_since().is_some();
        own && sessions > 0 || held_up || worker.room.available_permits() == 0
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
    pub(super) fn leave(&self, session: &str) -> Option<Arc<Worker>> {
        let seat = self.pool().sessions.remove(session)?;
        let worker = seat.worker.upgrade()?;
        worker.sessions.fetch_sub(1, Ordering::Relaxed);
        if self.exclusive {
            self.changed.notify_waiters();
        }
        Some(worker).filter(|worker| worker.is_up())
    }
}

impl Pool {
    /// Nobody gets a worker any more; requests that run have until then.
    pub(super) fn close(&mut self, until: Instant) {
        self.until = Some(until);
        self.sessions.clear();
    }

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
