//! A request in flight, as the task that asked sees it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use gatepost_protocol::plugin::{Answers, Call};
use gatepost_protocol::services::ServiceErrorCode;
use gatepost_protocol::{Hook, Message, ServiceError, Value};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::super::calls::{Answer, map};
use super::{Letter, Wanted, Worker};

/// A request whose result is awaited. When it is dropped before that, with all of the daemon, the worker is told to stop.
pub(in super::super) struct Asking {
    worker: Arc<Worker>,
    id: u64,
    letters: mpsc::UnboundedReceiver<Letter>,
    deadline: Instant,
    /// What `more_time` gave.
    added: Duration,
    over: bool,
    /// Up to where the process is, or ended.
    unfinished: Option<Answers>,
}

/// Why there is no result, and what there is of it.
pub(in super::super) struct Missing {
    pub(in super::super) why: Why,
    /// Answers up to the plugin that it is for, whose own is an error that says where it is.
    pub(in super::super) unfinished: Option<Answers>,
}

/// Why there is no result.
pub(in super::super) enum Why {
    /// There was none within this time.
    Late(Duration),
    /// The worker is gone.
    Gone(Arc<str>),
}

/// How long a process may take to say where it is.
const WHEREABOUTS: Duration = Duration::from_millis(100);

impl Asking {
    pub(super) fn new(
        worker: Arc<Worker>,
        id: u64,
        letters: mpsc::UnboundedReceiver<Letter>,
        deadline: Instant,
    ) -> Asking {
        Asking {
            worker,
            id,
            letters,
            deadline,
            added: Duration::ZERO,
            over: false,
            unfinished: None,
        }
    }

    /// The answers, when they are there. The plugins read the message of `call` meanwhile: it is only lent, so it is read from here. Those at `queue`
    /// are told when the client hangs up; what they answer counts nevertheless.
    pub(in super::super) async fn answers(mut self, call: &Call<'_>) -> Result<Answers, Missing> {
        let mut reads = VecDeque::new();
        let mut reading = FuturesUnordered::new();
        // Made when somebody wants it, which is seldom.
        let mut listening: Option<FuturesUnordered<_>> = None;
        let mut alarm = std::pin::pin!(tokio::time::sleep_until(self.deadline));
        let mut departed = std::pin::pin!(call.departure.happened());
        let mut is_to_tell = call.hook == Hook::Queue;
        let mut is_late = false;
        loop {
            // One at a time: a block may have half a megabyte.
            if reading.is_empty()
                && let Some((message, letter)) = reads.pop_front()
            {
                reading.push(read(message, letter));
            }
            tokio::select! {
                biased;
                letter = self.letters.recv() => match letter {
                    Some(Letter::Answers(answers)) => {
                        self.over = true;
                        return Ok(answers);
                    }
                    Some(Letter::Unfinished(answers)) => {
                        self.unfinished = Some(answers);
                        if is_late {
                            return Err(self.late(call));
                        }
                    }
                    Some(Letter::Late) => return Err(self.late(call)),
                    Some(Letter::Read(wanted)) => match call.message {
                        Some(message) => reads.push_back((message, wanted)),
                        None => {
                            let none = format!("there is no message at `{}`", call.hook);
                            let error = ServiceError::new(ServiceErrorCode::NotFound, none);
                            self.worker.parts.calls.reply(wanted.call, Err(error));
                        }
                    },
                    Some(Letter::Listen { call: id, time, place }) => match call.speech {
                        Some(speech) => {
                            let listening = listening.get_or_insert_with(FuturesUnordered::new);
                            listening.push(async move {
                                let spoke = speech.within(time).await;
                                (id, spoke, place)
                            });
                        }
                        None => {
                            let none = format!("at `{}` the client need not be silent", call.hook);
                            let error = ServiceError::new(ServiceErrorCode::NotFound, none);
                            self.worker.parts.calls.reply(id, Err(error));
                        }
                    },
                    Some(Letter::MoreTime { call: id, .. }) if is_late => {
                        let late = ServiceError::new(ServiceErrorCode::Failed, "it is too late");
                        self.worker.parts.calls.reply(id, Err(late));
                    }
                    Some(Letter::MoreTime { call: id, time, .. }) => {
                        let answer = self.give_more_time(time.min(call.deadline));
                        alarm.as_mut().reset(self.deadline);
                        self.worker.parts.calls.reply(id, answer);
                    }
                    Some(Letter::Ended(reason)) => {
                        self.over = true;
                        return Err(self.missing(Why::Gone(reason)));
                    }
                    None => return Err(self.missing(Why::Gone("its request was lost".into()))),
                },
                Some((id, data)) = reading.next(), if !reading.is_empty() => {
                    let answer = data
                        .map(|data| map([("data", Value::Bytes(data.to_vec()))]))
                        .map_err(|error| ServiceError::temporary(error.to_string()));
                    self.worker.parts.calls.reply(id, answer);
                }
                Some((id, spoke, _place)) = async { listening.as_mut()?.next().await }, if listening.is_some() => {
                    let answer = map([("spoke", Value::Boolean(spoke))]);
                    self.worker.parts.calls.reply(id, Ok(answer));
                }
                () = &mut departed, if is_to_tell => {
                    is_to_tell = false;
                    self.worker.cancel(self.id, "disconnect");
                }
                () = &mut alarm => {
                    if is_late || !self.worker.ask_what_there_is(self.id) {
                        return Err(self.late(call));
                    }
                    is_late = true;
                    alarm.as_mut().reset(Instant::now() + WHEREABOUTS);
                }
            }
        }
    }

    fn late(&mut self, call: &Call<'_>) -> Missing {
        self.over = true;
        self.worker.give_up_late(self.id);
        self.missing(Why::Late(call.deadline + self.added))
    }

    fn missing(&mut self, why: Why) -> Missing {
        let unfinished = self.unfinished.take();
        Missing { why, unfinished }
    }

    fn give_more_time(&mut self, time: Duration) -> Answer {
        if self.added > Duration::ZERO {
            let twice = "this hook was given more time already";
            return Err(ServiceError::new(ServiceErrorCode::Failed, twice));
        }
        self.added = time;
        self.deadline += time;
        self.worker.postpone(self.id, self.deadline);
        Ok(map([]))
    }
}

async fn read(message: &dyn Message, wanted: Wanted) -> (u64, std::io::Result<Bytes>) {
    let data = message.read(wanted.offset, wanted.length).await;
    (wanted.call, data)
}

impl Drop for Asking {
    fn drop(&mut self) {
        if !self.over {
            self.worker.give_up(self.id, "shutdown");
        }
    }
}
