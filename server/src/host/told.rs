//! The log, told to the plugins of a process that follow it: the event `log` (docs/protocol.md §5.8).

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use gatepost_protocol::{Args, Hook, Level};

use super::process::Process;
use super::seating::Slot;
use super::worker::Worker;
use crate::report::{self, Entry, Feed};

/// How long lines gather where nothing else is sent to the process: a burst wakes nobody for each of them.
const GATHER: Duration = Duration::from_millis(2);

/// Processes in whose place others are, and that have sessions still.
static RETIRED: Mutex<Vec<Weak<Process>>> = Mutex::new(Vec::new());

/// What of the log a process has still to be told.
#[derive(Default)]
pub(super) struct Following {
    follower: OnceLock<Follower>,
    /// Lines of sessions that are about to get a worker. Locked while lines are sent, so that they stay in order.
    kept: Mutex<Vec<Entry>>,
    is_retired: AtomicBool,
}

struct Follower {
    feed: Arc<Feed>,
    /// Those of its plugins that want to know, in their order.
    plugins: Vec<Arc<str>>,
}

impl Following {
    /// The lines that wait; `None` where none of its plugins wants to know.
    pub(super) fn feed(&self) -> Option<&Feed> {
        self.follower.get().map(|follower| &*follower.feed)
    }
}

impl Process {
    /// From here on its plugins are told of the log, if one of them wants to be.
    pub(super) fn follow(self: &Arc<Process>) {
        if self.following.feed().is_some() {
            return;
        }
        let declared = self.declared.get().into_iter().flatten();
        let mut plugins: Vec<_> = declared
            .zip(&self.plugins)
            .filter_map(|(declared, name)| {
                let mut hooks = declared.subscriptions.iter();
                let hook = hooks.find(|subscription| subscription.hook == Hook::Log)?;
                Some((hook.priority, name.clone()))
            })
            .collect();
        if plugins.is_empty() {
            return;
        }
        plugins.sort_by_key(|(priority, _)| *priority);
        let follower = Follower {
            feed: report::follow(),
            plugins: plugins.into_iter().map(|(_, name)| name).collect(),
        };
        if self.following.follower.set(follower).is_ok() {
            self.tasks.spawn(self.clone().tell_now_and_then());
        }
    }

    /// Another has taken its place: it is told of its own sessions alone.
    pub(super) fn retire(self: &Arc<Process>) {
        if self.following.feed().is_some() {
            self.following.is_retired.store(true, Ordering::Relaxed);
            let mut retired = retired();
            retired.retain(|process| process.strong_count() > 0);
            retired.push(Arc::downgrade(self));
        }
    }

    async fn tell_now_and_then(self: Arc<Process>) {
        let Some(feed) = self.following.feed() else {
            return;
        };
        loop {
            tokio::select! {
                () = feed.came() => {}
                () = self.closing.cancelled() => return,
            }
            tokio::time::sleep(GATHER).await;
            self.tell_lines();
        }
    }

    /// Tells what waits. To be called before anything else is sent, too: a line comes before what happened after it.
    pub(super) fn tell_lines(&self) {
        let Some(follower) = self.following.follower.get() else {
            return;
        };
        let kept = self.following.kept.lock();
        let mut kept = kept.unwrap_or_else(PoisonError::into_inner);
        let (lines, dropped) = follower.feed.take();
        for line in std::mem::take(&mut *kept).into_iter().chain(lines) {
            if self.pool().arriving.contains(&line.session) {
                kept.push(line);
            } else {
                self.tell_line(&follower.plugins, &line);
            }
        }
        if dropped > 0 {
            let dropped_events = &self.stats.dropped_events;
            dropped_events.fetch_add(dropped, Ordering::Relaxed);
            let line = Entry {
                level: Level::Warn,
                session: "".into(),
                hook: None,
                plugin: None,
                message: format!("report: {dropped} lines are missing here: too many came at once"),
            };
            self.tell_line(&follower.plugins, &line);
        }
    }

    /// A session is looking for its worker: as long as this is held its lines wait for that.
    pub(super) fn arrive<'a>(&'a self, session: &'a str) -> Option<Arrival<'a>> {
        self.following.feed()?;
        let mut pool = self.pool();
        if session.is_empty() || pool.seated(session).is_some() {
            return None;
        }
        pool.arriving.insert(session.into());
        Some(Arrival(self, session))
    }

    fn tell_line(&self, plugins: &[Arc<str>], line: &Entry) {
        let args = Args::Logged {
            level: line.level,
            plugin: line.plugin.as_deref().map(Into::into),
            hook: line.hook,
            message: line.message.as_str().into(),
        };
        let seated = self.pool().seated(&line.session);
        let worker = match seated {
            Some(worker) => Some(worker),
            None if self.following.is_retired.load(Ordering::Relaxed) => return,
            None if is_at_a_retired(&line.session) => return,
            None => self.pool().first(),
        };
        match worker {
            Some(worker) => worker.tell_line(plugins, &line.session, &args),
            None => super::stats::count(&self.stats.dropped_events),
        }
    }
}

/// A session that looks for its worker.
pub(super) struct Arrival<'a>(&'a Process, &'a str);

impl Drop for Arrival<'_> {
    fn drop(&mut self) {
        self.0.pool().arriving.remove(self.1);
    }
}

fn retired() -> MutexGuard<'static, Vec<Weak<Process>>> {
    RETIRED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether a session goes on at a process in whose place another is.
fn is_at_a_retired(session: &str) -> bool {
    let retired: Vec<_> = retired().iter().filter_map(Weak::upgrade).collect();
    retired
        .iter()
        .any(|process| process.pool().seated(session).is_some())
}

impl super::seating::Pool {
    /// The first worker that is at work.
    fn first(&self) -> Option<Arc<Worker>> {
        self.slots.iter().find_map(|slot| match slot {
            Slot::Up(worker) if worker.is_up() => Some(worker.clone()),
            _ => None,
        })
    }
}
