//! Deferred answers: promised in a result, kept by a `verdict` (docs/protocol.md §6.4).

use std::sync::{Arc, Weak};

use gatepost_protocol::Outcome;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::Worker;

/// The end of a promise that the process keeps.
pub(super) struct Promised {
    pub(super) plugin: Arc<str>,
    answer: oneshot::Sender<Outcome>,
}

/// The end of a promise that the chain waits at. When it is dropped the process is told that nobody waits any more.
pub(super) struct Promise {
    worker: Weak<Worker>,
    id: u64,
    plugin: Arc<str>,
    answer: oneshot::Receiver<Outcome>,
    deadline: Instant,
}

impl Promised {
    /// Answers.
    pub(super) fn keep(self, outcome: Outcome) {
        // Where nobody waits any more the verdict is dropped (§6.4).
        drop(self.answer.send(outcome));
    }
}

impl Promise {
    /// A promise of `plugin` for the hook `id`.
    pub(super) fn new(
        worker: Weak<Worker>,
        id: u64,
        plugin: Arc<str>,
        deadline: Instant,
    ) -> (Promised, Promise) {
        let (sender, receiver) = oneshot::channel();
        let promised = Promised {
            plugin: plugin.clone(),
            answer: sender,
        };
        let promise = Promise {
            worker,
            id,
            plugin,
            answer: receiver,
            deadline,
        };
        (promised, promise)
    }

    /// What was promised; an error outcome where it did not come in time.
    pub(super) async fn wait(mut self) -> Outcome {
        match tokio::time::timeout_at(self.deadline, &mut self.answer).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => Outcome::error("no answer: its process is gone"),
            Err(_) => {
                self.forget("timeout");
                Outcome::error("the deferred answer did not come in time")
            }
        }
    }

    fn forget(&self, reason: &str) {
        if let Some(worker) = self.worker.upgrade() {
            worker.forget(self.id, &self.plugin, reason);
        }
    }
}

impl Drop for Promise {
    fn drop(&mut self) {
        self.forget("disconnect");
    }
}
