//! What a plugin process sends, and what becomes of it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use gatepost_protocol::channel::Payload;
use gatepost_protocol::outcome::Deferred;
use gatepost_protocol::plugin::Answers;
use gatepost_protocol::services::ServiceErrorCode;
use gatepost_protocol::wire::{CallMessage, Failed, Log};
use gatepost_protocol::{Hook, Level, Outcome, ServiceError};
use tokio::time::Instant;

use super::super::calls::{Params, WITHOUT_HOOK, bad};
use super::super::capture::printable;
use super::super::results::{self, Results, Turn};
use super::super::stats::count;
use super::promise::{Promise, Promised};
use super::{Asked, Letter, Wanted, Worker};
use crate::report;
use crate::services::question::Question;

/// The most that one `message/read` gives, in bytes.
const MAX_READ: u64 = 524_288;

impl Worker {
    /// Deals with one message. `Err`: the process cannot be trusted any more, for this reason.
    pub(super) fn receive(self: &Arc<Worker>, payload: &Payload) -> Result<(), String> {
        let malformed = |error| format!("it broke the plugin protocol: {error}");
        match payload.kind() {
            "result" => {
                self.result(results::read_result(payload).map_err(malformed)?);
            }
            "unfinished" => {
                self.unfinished(results::read_result(payload).map_err(malformed)?);
            }
            "verdict" => {
                let (id, plugin, entry) = results::read_late(payload).map_err(malformed)?;
                match self.take_promise(id, &plugin) {
                    Some(promised) => promised.keep(results::late_outcome(entry, &plugin)),
                    None => self.stray(id),
                }
            }
            "call" => self.call(payload.decode().map_err(malformed)?),
            "log" => self.log(&payload.decode().map_err(malformed)?),
            "error" => {
                let failed: Failed = payload.decode().map_err(malformed)?;
                return Err(format!("it gave up: {}", printable(&failed.message)));
            }
            _ => {}
        }
        Ok(())
    }

    fn result(self: &Arc<Worker>, results: Results) {
        let id = results.id;
        let asked = {
            let mut state = self.state();
            let asked = state.asked.remove(&id);
            match &asked {
                Some(asked) if asked.late_since.is_some() => {
                    self.late.fetch_sub(1, Ordering::Relaxed);
                }
                Some(asked) if asked.waiter.is_some() => state.missed = 0,
                _ => {}
            }
            asked
        };
        match asked.as_ref() {
            Some(asked) if asked.late_since.is_some() => {
                self.stray(id);
                if let Some(waiter) = &asked.waiter {
                    drop(waiter.send(Letter::Late));
                }
            }
            Some(Asked {
                waiter: Some(waiter),
                plugins,
                then,
                deadline,
                ..
            }) => {
                let answers = self.answers(results, plugins, then.as_ref(), *deadline);
                drop(waiter.send(Letter::Answers(answers)));
            }
            _ => self.stray(id),
        }
        // With the request goes its permit, also where nobody waited for the result any more.
        drop(asked);
        self.parts.changed.notify_waiters();
    }

    /// What there is of the answers to a request that the process does not come to the end of.
    fn unfinished(self: &Arc<Worker>, results: Results) {
        let asked = {
            let state = self.state();
            state.asked.get(&results.id).and_then(|asked| {
                let waiter = asked.waiter.clone()?;
                Some((
                    waiter,
                    asked.plugins.clone(),
                    asked.then.clone(),
                    asked.deadline,
                ))
            })
        };
        if let Some((waiter, plugins, then, deadline)) = asked {
            let answers = self.answers(results, &plugins, then.as_ref(), deadline);
            drop(waiter.send(Letter::Unfinished(answers)));
        }
    }

    fn answers(
        self: &Arc<Worker>,
        results: Results,
        plugins: &[Arc<str>],
        then: Option<&(Hook, Vec<Arc<str>>)>,
        deadline: Instant,
    ) -> Answers {
        let Results {
            id,
            here,
            then: there,
        } = results;
        let outcomes = |entries, plugins: &[Arc<str>]| {
            results::turns(entries, plugins, self.parts.features.defer)
                .into_iter()
                .zip(plugins)
                .map(|(turn, plugin)| self.outcome(id, turn, plugin, deadline))
                .collect()
        };
        Answers {
            here: outcomes(here, plugins),
            then: then
                .zip(there)
                .map(|((_, plugins), entries)| outcomes(entries, plugins)),
        }
    }

    fn outcome(
        self: &Arc<Worker>,
        id: u64,
        turn: Turn,
        plugin: &Arc<str>,
        deadline: Instant,
    ) -> Outcome {
        let mut outcome = turn.outcome;
        if let Some(until) = turn.defer {
            let weak = Arc::downgrade(self);
            let (promised, promise) = Promise::new(weak, id, plugin.clone(), deadline);
            self.state().promised.entry(id).or_default().push(promised);
            outcome.defer = Some(Deferred {
                until,
                outcome: Box::pin(promise.wait()),
            });
        }
        outcome
    }

    fn take_promise(&self, id: u64, plugin: &str) -> Option<Promised> {
        let mut state = self.state();
        let all = state.promised.get_mut(&id)?;
        let at = all
            .iter()
            .position(|promised| *promised.plugin == *plugin)?;
        let promised = all.swap_remove(at);
        if all.is_empty() {
            state.promised.remove(&id);
        }
        Some(promised)
    }

    /// Nobody waits for a deferred answer any more.
    pub(super) fn forget(&self, id: u64, plugin: &str, reason: &str) {
        // The plugins of a segment share the id: what one of them still owes is not to be cancelled with another's.
        if self.take_promise(id, plugin).is_some() && !self.state().promised.contains_key(&id) {
            self.cancel(id, reason);
        }
    }

    fn stray(&self, id: u64) {
        count(&self.parts.stats.late);
        if !std::mem::replace(&mut self.state().told_stray, true) {
            report::line(
                Level::Warn,
                "",
                None,
                &self.parts.name,
                format_args!(
                    "worker {} answered request {id}, for which nothing is awaited: late, twice, or never asked; further ones are only counted",
                    self.parts.number
                ),
            );
        }
    }

    /// The hook at hand has until then.
    pub(super) fn postpone(&self, id: u64, deadline: Instant) {
        if let Some(asked) = self.state().asked.get_mut(&id) {
            asked.deadline = deadline;
        }
    }

    fn call(&self, call: CallMessage) {
        let id = call.id;
        let letter = match &*call.method {
            "message/read" => self.read(&call),
            "more_time" => self.more_time(&call),
            "client/spoke" => self.listen(&call),
            _ => {
                let state = self.state();
                let asked = call.hook.and_then(|hook| state.asked.get(&hook));
                let deadline = asked.map(|asked| asked.deadline);
                let question = asked.and_then(|asked| asked.question.clone());
                drop(state);
                let deadline = deadline.unwrap_or_else(|| Instant::now() + WITHOUT_HOOK);
                let serve = || self.parts.calls.serve(&call, deadline);
                return Question::during(question, serve);
            }
        };
        if let Err(error) = letter.and_then(|letter| self.forward(&call, letter)) {
            self.parts.calls.reply(id, Err(error));
        }
    }

    /// Hands a call to the task that waits for the hook it belongs to.
    fn forward(&self, call: &CallMessage, letter: Letter) -> Result<(), ServiceError> {
        let Some(hook) = call.hook else {
            return Err(bad(format!("`{}` needs `for`", call.method)));
        };
        let state = self.state();
        let asked = state.asked.get(&hook);
        let sent = asked
            .and_then(|asked| asked.waiter.as_ref())
            .is_some_and(|waiter| waiter.send(letter).is_ok());
        if sent {
            Ok(())
        } else {
            Err(ServiceError::new(
                ServiceErrorCode::NotFound,
                format!("nobody waits for hook {hook} any more"),
            ))
        }
    }

    fn log(&self, log: &Log) {
        let about = log.hook.and_then(|id| {
            let state = self.state();
            let asked = state.asked.get(&id)?;
            let then = asked.then.as_ref().map(|(hook, _)| *hook);
            let hook = then.filter(|_| log.then).unwrap_or(asked.hook);
            Some((asked.session.clone(), hook))
        });
        let about = about.as_ref().map(|(session, hook)| (&**session, *hook));
        self.parts.lines.say(about, log);
    }

    fn read(&self, call: &CallMessage) -> Result<Letter, ServiceError> {
        let params = Params(&call.params);
        let (offset, length) = (params.amount("offset")?, params.amount("length")?);
        if length > MAX_READ {
            return Err(bad(format!("`length` is {MAX_READ} at most")));
        }
        Ok(Letter::Read(Wanted {
            call: call.id,
            offset,
            length: usize::try_from(length).expect("MAX_READ fits"),
            _place: self.parts.calls.place()?,
        }))
    }

    fn more_time(&self, call: &CallMessage) -> Result<Letter, ServiceError> {
        Ok(Letter::MoreTime {
            call: call.id,
            time: Duration::from_millis(Params(&call.params).amount("ms")?),
            _place: self.parts.calls.place()?,
        })
    }

    fn listen(&self, call: &CallMessage) -> Result<Letter, ServiceError> {
        Ok(Letter::Listen {
            call: call.id,
            time: Duration::from_millis(Params(&call.params).amount("ms")?),
            place: self.parts.calls.place()?,
        })
    }
}
