//! A worker: one running plugin process, its channel, and what it owes. Runs over any channel; who started it is not its business.

mod asking;
mod inbox;
mod promise;

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use gatepost_protocol::channel::{ChannelError, FrameWriter};
use gatepost_protocol::frame;
use gatepost_protocol::plugin::{Answers, Call, Then, Wants};
use gatepost_protocol::wire::{Cancel, EventMessage, Fork, Goodbye, HookMessage};
use gatepost_protocol::{Args, Hook, Outcome};
use rustix::process::{Signal, pidfd_send_signal};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::Instant;

use super::Patience;
use super::calls::Calls;
use super::capture::Lines;
use super::handshake::Features;
use super::link::Reader;
use super::request::{hook_message, hook_message_then, line_message};
use super::stats::{Stats, count};
use crate::report::{self, Limit};
use crate::services::question::Question;
pub(super) use asking::{Asking, Missing, Why};
use promise::Promised;

/// A worker that did not answer so many requests in a row in time is replaced.
const MISSES: u32 = 3;
/// How many bytes may wait for a slow worker before events for it are dropped.
const EVENTS_WAITING: usize = 256 * 1024;

/// What a worker is made from.
pub(super) struct Parts {
    pub(super) name: Arc<str>,
    pub(super) number: u32,
    pub(super) writer: Arc<FrameWriter>,
    /// Where it is a process of ours.
    pub(super) process: Option<OwnedFd>,
    pub(super) features: Features,
    pub(super) concurrency: u32,
    pub(super) calls: Calls,
    pub(super) lines: Arc<Lines>,
    pub(super) stats: Arc<Stats>,
    /// Told whenever a request is done with.
    pub(super) changed: Arc<Notify>,
    pub(super) patience: Patience,
}

/// A running plugin process.
pub(super) struct Worker {
    parts: Parts,
    /// A permit for each request that may be unanswered.
    pub(super) room: Arc<Semaphore>,
    /// How many sessions are bound to it.
    pub(super) sessions: AtomicUsize,
    next_id: AtomicU64,
    /// How many requests whose deadline has passed still have no result.
    late: AtomicUsize,
    state: Mutex<State>,
    /// Something happened that [`Worker::run`] has to look at.
    attention: Notify,
}

#[derive(Default)]
struct State {
    asked: HashMap<u64, Asked>,
    promised: HashMap<u64, Vec<Promised>>,
    /// Why it is not to run on.
    condemned: Option<End>,
    /// Why it takes no more requests.
    ended: Option<Arc<str>>,
    missed: u32,
    /// Somebody has counted its death as a failure.
    mourned: bool,
    told_stray: bool,
}

/// What a worker is asked beside the call.
pub(super) struct Request<'a> {
    pub(super) plugins: Vec<Arc<str>>,
    pub(super) wants: &'a Wants,
    /// The hook that follows, and whom it is put to.
    pub(super) then: Option<(&'a Then<'a>, Vec<Arc<str>>)>,
}

/// A request without a result.
struct Asked {
    /// Who waits; nobody any more after `cancel`.
    waiter: Option<mpsc::UnboundedSender<Letter>>,
    /// When its deadline passed without a result, which counts no more.
    late_since: Option<Instant>,
    /// Until when the result is owed, after `cancel`.
    owed_by: Option<Instant>,
    hook: Hook,
    session: Box<str>,
    plugins: Vec<Arc<str>>,
    /// The hook that is to follow, and who is asked then.
    then: Option<(Hook, Vec<Arc<str>>)>,
    deadline: Instant,
    /// What whoever asked was asked.
    question: Option<Arc<Question>>,
    _permit: OwnedSemaphorePermit,
}

/// What the task that asked is told. It holds the session and the message, so what needs them is done there.
enum Letter {
    Answers(Answers),
    /// Up to where the process is, or ended, which the last of these says.
    Unfinished(Answers),
    /// The answers came when they did not count any more.
    Late,
    Read(Wanted),
    MoreTime {
        call: u64,
        time: Duration,
        _place: OwnedSemaphorePermit,
    },
    Listen {
        call: u64,
        time: Duration,
        place: OwnedSemaphorePermit,
    },
    Ended(Arc<str>),
}

/// A piece of the message that the process wants to read.
struct Wanted {
    call: u64,
    offset: u64,
    length: usize,
    _place: OwnedSemaphorePermit,
}

/// How a channel came to its end.
#[derive(Debug)]
pub(super) enum End {
    /// End of file.
    Closed,
    /// It has to be replaced, for this reason.
    Broken(String),
}

impl Worker {
    pub(super) fn new(parts: Parts) -> Arc<Worker> {
        Arc::new(Worker {
            room: Arc::new(Semaphore::new(parts.concurrency as usize)),
            sessions: AtomicUsize::new(0),
            next_id: AtomicU64::new(1),
            late: AtomicUsize::new(0),
            state: Mutex::default(),
            attention: Notify::new(),
            parts,
        })
    }

    /// Whether it takes requests.
    pub(super) fn is_up(&self) -> bool {
        !self.room.is_closed()
    }

    pub(super) fn segments(&self) -> bool {
        self.parts.features.segments
    }

    /// Whether it can be asked two hooks at once.
    pub(super) fn goes_on(&self) -> bool {
        self.parts.features.then && self.parts.features.segments
    }

    pub(super) fn takes_settings(&self) -> bool {
        self.parts.features.settings
    }

    /// Whether it can be asked to bring up others like itself.
    pub(super) fn forks(&self) -> bool {
        self.parts.features.fork
    }

    /// Tells it to bring up another worker, which connects to the socket at `path`.
    pub(super) fn fork(&self, path: &Path) {
        let fork = Fork {
            path: path.to_owned(),
        };
        if let Ok(frame) = frame::encode(&fork) {
            self.send(&frame);
        }
    }

    /// How many requests it was sent so far.
    pub(super) fn requests(&self) -> u64 {
        self.next_id.load(Ordering::Relaxed)
    }

    /// How much there is to do for it already: requests first, then sessions.
    pub(super) fn load(&self) -> (usize, usize) {
        let free = self.room.available_permits();
        let busy = (self.parts.concurrency as usize).saturating_sub(free);
        (busy, self.sessions.load(Ordering::Relaxed))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a hook to plugins of this worker. `Err`: it was not sent, for this reason.
    pub(super) fn ask(
        self: &Arc<Worker>,
        request: Request<'_>,
        call: &Call<'_>,
        deadline: Instant,
        resumed: bool,
        permit: OwnedSemaphorePermit,
    ) -> Result<Asking, String> {
        let Request {
            plugins,
            wants,
            then,
        } = request;
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let left = deadline.saturating_duration_since(Instant::now());
        let frame = {
            let mut message = match &then {
                Some((then, _)) => hook_message_then(&plugins, wants, call, then),
                None => hook_message(&plugins, wants, call),
            };
            message.id = Some(id);
            let left = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
            message.deadline_ms = Some(left.min(frame::MAX_INTEGER.unsigned_abs()));
            message.resumed = resumed.then_some(true);
            frame::encode(&message)
                .map_err(|error| format!("the hook does not fit a frame: {error}"))?
        };
        let (waiter, letters) = mpsc::unbounded_channel();
        {
            let mut state = self.state();
            if let Some(reason) = &state.ended {
                return Err(reason.to_string());
            }
            let asked = Asked {
                waiter: Some(waiter),
                late_since: None,
                owed_by: None,
                hook: call.hook,
                session: call.session.id.clone(),
                plugins,
                then: then.map(|(then, plugins)| (then.hook, plugins)),
                deadline,
                question: Question::at_hand(),
                _permit: permit,
            };
            state.asked.insert(id, asked);
        }
        self.send(&frame);
        Ok(Asking::new(self.clone(), id, letters, deadline))
    }

    /// Tells observers. Dropped where the worker does not read.
    pub(super) fn tell(&self, plugins: &[&str], wants: &Wants, call: &Call<'_>) {
        self.tell_of(call.hook, hook_message(plugins, wants, call));
    }

    /// Tells them of a line of the log.
    pub(super) fn tell_line(&self, plugins: &[Arc<str>], session: &str, args: &Args<'_>) {
        self.tell_of(Hook::Log, line_message(plugins, session, args));
    }

    fn tell_of(&self, hook: Hook, message: HookMessage<'_>) {
        // `disconnect` is what lets a process forget a session; it is small, and goes as long as anything goes.
        if hook != Hook::Disconnect && self.parts.writer.waiting() > EVENTS_WAITING {
            report::count(Limit::PluginEvents);
            return count(&self.parts.stats.dropped_events);
        }
        match frame::encode(&EventMessage(message)) {
            // A process that is about to be asked something need not be woken twice.
            Ok(frame) => self.sent(self.parts.writer.send_soon(&frame)),
            Err(_) => count(&self.parts.stats.dropped_events),
        }
    }

    fn send(&self, frame: &[u8]) {
        self.sent(self.parts.writer.send(frame));
    }

    fn sent(&self, result: io::Result<()>) {
        if let Err(error) = result {
            let end = match error.kind() {
                io::ErrorKind::TimedOut => {
                    End::Broken("it does not read what it is sent".to_owned())
                }
                _ => End::Closed,
            };
            self.state().condemned.get_or_insert(end);
            self.attention.notify_one();
        }
    }

    /// When the first deadline passed of those that it still owes a result for.
    pub(super) fn held_up_since(&self) -> Option<Instant> {
        if self.late.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let state = self.state();
        let since = state.asked.values().filter_map(|asked| asked.late_since);
        since.min()
    }

    /// Has it replaced, for this reason.
    pub(super) fn condemn(&self, reason: &str) {
        let mut state = self.state();
        state
            .condemned
            .get_or_insert_with(|| End::Broken(reason.to_owned()));
        drop(state);
        self.attention.notify_one();
    }

    /// Counts its death as a failure; whether nobody has done so before.
    pub(super) fn mourn(&self) -> bool {
        !std::mem::replace(&mut self.state().mourned, true)
    }

    /// Says that no more hooks will come.
    pub(super) fn goodbye(&self) {
        if let Ok(frame) = frame::encode(&Goodbye {}) {
            self.send(&frame);
        }
    }

    /// Whether anybody waits for it.
    pub(super) fn is_idle(&self) -> bool {
        let state = self.state();
        state.asked.values().all(|asked| asked.waiter.is_none())
    }

    /// The deadline of a request has passed: asks the process for what it has of the answers, and where it is (docs/protocol.md §7.2). Whether
    /// it was asked. A process that is at an earlier request would be disturbed in that.
    fn ask_what_there_is(&self, id: u64) -> bool {
        let Some(process) = &self.parts.process else {
            return false;
        };
        let mut state = self.state();
        let is_first = state.asked.keys().all(|other| *other >= id);
        let asked = state.asked.get_mut(&id);
        let Some(asked) = asked.filter(|_| is_first && self.parts.features.unfinished) else {
            return false;
        };
        self.note_late(asked);
        drop(state);
        pidfd_send_signal(process, Signal::USR2).is_ok()
    }

    /// Notes that a request's deadline has passed.
    fn note_late(&self, asked: &mut Asked) {
        if asked.late_since.is_none() {
            asked.late_since = Some(Instant::now());
            self.late.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Ends a request whose deadline has passed.
    fn give_up_late(&self, id: u64) {
        count(&self.parts.stats.timeouts);
        count(&self.parts.stats.errors);
        let mut state = self.state();
        if let Some(asked) = state.asked.get_mut(&id) {
            self.note_late(asked);
        }
        state.missed += 1;
        if state.missed >= MISSES {
            let reason = format!("it did not answer {MISSES} hooks in a row in time");
            state.condemned.get_or_insert(End::Broken(reason));
        }
        drop(state);
        self.give_up(id, "timeout");
        self.attention.notify_one();
    }

    /// Ends a request whose result nobody waits for any more.
    fn give_up(&self, id: u64, reason: &'static str) {
        {
            let mut state = self.state();
            let Some(asked) = state.asked.get_mut(&id) else {
                return;
            };
            if asked.waiter.take().is_none() {
                return;
            }
            asked.owed_by = Some(Instant::now() + self.parts.patience.owed);
        }
        self.cancel(id, reason);
        self.attention.notify_one();
    }

    fn cancel(&self, id: u64, reason: &str) {
        let cancel = Cancel {
            id,
            reason: reason.to_owned(),
        };
        if self.parts.features.cancel
            && let Ok(frame) = frame::encode(&cancel)
        {
            self.send(&frame);
        }
    }

    /// Tells it to stop whatever it does.
    pub(super) fn cancel_all(&self, reason: &str) {
        let running: Vec<u64> = self.state().asked.keys().copied().collect();
        for id in running {
            self.cancel(id, reason);
        }
    }

    /// Gives every request that waits for its answer `reason` as its end, and takes no more.
    pub(super) fn end(&self, reason: &str) {
        let reason: Arc<str> = reason.into();
        let (asked, promised) = {
            let mut state = self.state();
            state.ended = Some(reason.clone());
            (
                std::mem::take(&mut state.asked),
                std::mem::take(&mut state.promised),
            )
        };
        self.room.close();
        for waiter in asked.into_values().filter_map(|asked| asked.waiter) {
            count(&self.parts.stats.errors);
            drop(waiter.send(Letter::Ended(reason.clone())));
        }
        for promised in promised.into_values().flatten() {
            promised.keep(Outcome::error(format!("no answer: {reason}")));
        }
        self.parts.changed.notify_waiters();
    }

    /// Takes in what the process sends, until the channel ends or the process has to be replaced. Cancel-safe.
    pub(super) async fn run(self: &Arc<Self>, reader: &mut Reader) -> End {
        let patience = self.parts.patience;
        let tick = patience.frame / 4;
        let mut half_since: Option<Instant> = None;
        let mut flush = std::pin::pin!(self.parts.writer.flush());
        let mut alarm = std::pin::pin!(tokio::time::sleep(tick));
        loop {
            tokio::select! {
                next = reader.next() => {
                    half_since = None;
                    let payload = match next {
                        Ok(Some(payload)) => payload,
                        Ok(None) => return End::Closed,
                        Err(ChannelError::Frame(error)) => {
                            return End::Broken(format!("it broke the plugin protocol: {error}"));
                        }
                        Err(ChannelError::Io(_)) => return End::Closed,
                    };
                    if let Err(reason) = self.receive(&payload) {
                        return End::Broken(reason);
                    }
                    continue;
                }
                _ = &mut flush => return End::Closed,
                () = self.attention.notified() => {}
                () = &mut alarm => {}
            }
            let now = Instant::now();
            half_since = reader.within_frame().then(|| half_since.unwrap_or(now));
            if half_since.is_some_and(|since| now - since >= patience.frame) {
                return End::Broken("it began a frame and did not finish it".to_owned());
            }
            let mut state = self.state();
            if let Some(end) = state.condemned.take() {
                return end;
            }
            let owed = state.asked.values().filter_map(|asked| asked.owed_by).min();
            if owed.is_some_and(|owed| owed <= now) {
                return End::Broken("it owes a result that was cancelled".to_owned());
            }
            let next = now + tick;
            alarm
                .as_mut()
                .reset(owed.map_or(next, |owed| owed.min(next)));
        }
    }
}
