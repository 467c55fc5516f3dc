//! A process that has loaded its plugins and runs none of them: other workers are forked from it, and share what it loaded (docs/protocol.md §3.1).

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use gatepost_protocol::Level;
use tempfile::TempDir;
use tokio::net::{UnixListener, UnixStream};
use tokio::time::timeout;

use super::confine::Folder;
use super::process::Process;
use super::supervise::{Ending, LaunchError, Launched};
use super::worker::Worker;
use crate::report;

/// Where further workers of a process come from.
#[derive(Default)]
pub(super) enum Origin {
    /// Nobody asked yet.
    #[default]
    Unknown,
    /// Each is started by itself.
    Started,
    /// They are forked.
    Template(Template),
}

/// The process that is forked, and where its children report.
pub(super) struct Template {
    /// Weak: its channel is closed when it ends, or is to end.
    worker: Weak<Worker>,
    listener: UnixListener,
    folder: TempDir,
}

/// A worker on its way.
pub(super) enum Next {
    /// It is there, and has shaken hands: it was started by itself.
    Launched(Box<Launched>),
    /// It was forked, and has not spoken yet.
    Forked(UnixStream),
}

impl Template {
    /// `of` has its folder already, where it has one of its own.
    fn of(worker: &Arc<Worker>, of: Option<&Folder>) -> Result<Template, String> {
        let failed = |error| format!("cannot make a socket for its workers: {error}");
        // Not in the spool, whose path may be longer than a socket's can be.
        let folder = tempfile::Builder::new()
            .prefix("gatepost-")
            .tempdir()
            .map_err(failed)?;
        let socket = folder.path().join("fork");
        let listener = UnixListener::bind(&socket).map_err(failed)?;
        if let Some(of) = of {
            of.give(&socket)?;
            of.give(folder.path())?;
        }
        Ok(Template {
            worker: Arc::downgrade(worker),
            listener,
            folder,
        })
    }

    fn worker(&self) -> Option<Arc<Worker>> {
        self.worker.upgrade().filter(|worker| worker.is_up())
    }
}

impl Process {
    /// Another worker: a copy of the process that has the plugins loaded, where it can be copied and there is to be more than one.
    pub(super) async fn next(&self, index: usize) -> Result<Next, LaunchError> {
        let mut origin = self.origin.lock().await;
        if matches!(&*origin, Origin::Template(template) if template.worker().is_none()) {
            *origin = Origin::Unknown;
        }
        if matches!(*origin, Origin::Unknown) && self.bounds().1 > 1 {
            let launched = self.start_one(index).await?;
            if !launched.worker.forks() {
                *origin = Origin::Started;
                return Ok(Next::Launched(Box::new(launched)));
            }
            *origin = Origin::Template(self.keep(launched).await?);
            self.forks.store(true, Ordering::Relaxed);
        }
        let Origin::Template(template) = &*origin else {
            return Ok(Next::Launched(Box::new(self.start_one(index).await?)));
        };
        let Some(worker) = template.worker() else {
            return Err(self.not_forked("the process it is forked from is gone"));
        };
        worker.fork(&template.folder.path().join("fork"));
        drop(worker);
        let accepted = timeout(self.core.patience.hello, template.listener.accept()).await;
        match accepted {
            Ok(Ok((stream, _))) => Ok(Next::Forked(stream)),
            Ok(Err(error)) => Err(self.not_forked(&error.to_string())),
            Err(_) => Err(self.not_forked("it forked no worker in time")),
        }
    }

    /// Makes a worker that is ready the one that others are forked from.
    async fn keep(&self, launched: Launched) -> Result<Template, LaunchError> {
        match Template::of(&launched.worker, self.folder.get()) {
            Ok(template) => {
                if let Some(me) = self.me.upgrade() {
                    self.tasks.spawn(me.look_after(launched));
                }
                Ok(template)
            }
            Err(error) => {
                self.discard(launched).await;
                Err(self.not_forked(&error))
            }
        }
    }

    /// Reads what the template says, to its end. Another is started when the next worker is needed; those that it forked go on.
    async fn look_after(self: Arc<Process>, launched: Launched) {
        if let Ending::Failed(reason) = self.serve(None, launched).await {
            let text =
                format_args!("the process that its workers are forked from failed: {reason}");
            report::line(Level::Error, "", None, &self.name, text);
        }
    }

    fn not_forked(&self, what: &str) -> LaunchError {
        LaunchError::Failed(self.explain(what))
    }
}
