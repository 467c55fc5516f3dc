//! Keeps a worker running: start, serve, replace.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use gatepost_protocol::Level;
use gatepost_protocol::wire::{Init, InitErrorItem, Ready};
use tempfile::TempDir;
use tokio::time::{Instant, timeout};

use super::calls::Calls;
use super::capture::Lines;
use super::confine::{Folder, Group};
use super::declare;
use super::handshake::{Handshake, Refusal};
use super::link::{Child, Link, Reader};
use super::mark;
use super::process::{Process, Target};
use super::seating::Slot;
use super::span::span;
use super::stats::count;
use super::template::Next;
use super::worker::{End, Parts, Worker};
use crate::config::Program;
use crate::report;

/// How long after the end of a process its last frames may take, and after the end of its channel its exit status.
const LAST_WORDS: Duration = Duration::from_millis(50);

/// A worker that is ready.
pub(super) struct Launched {
    pub(super) worker: Arc<Worker>,
    reader: Reader,
    child: Option<Child>,
    pub(super) ready: Ready,
}

/// How a worker's time was over.
pub(super) enum Ending {
    /// It has to be replaced, for this reason.
    Failed(String),
    /// The daemon stops.
    Shutdown,
    /// It was more than are needed.
    Idle,
}

/// Why a worker is not ready.
pub(super) enum LaunchError {
    /// It refused its settings.
    Settings(Vec<InitErrorItem>),
    /// Anything else, and what to do.
    Failed(String),
}

impl Launched {
    /// Lets it be asked, before anybody takes in what it answers.
    pub(super) fn slot(&self) -> Slot {
        Slot::Up(self.worker.clone())
    }
}

impl Process {
    /// Brings a worker to where it can be asked: a copy of one that has its plugins loaded, where that can be had.
    pub(super) async fn launch(&self, index: usize) -> Result<Launched, LaunchError> {
        let stream = match self.next(index).await? {
            Next::Launched(launched) => return Ok(*launched),
            Next::Forked(stream) => stream,
        };
        let number = number(index);
        let scratch = self.scratch(number).await.map_err(LaunchError::Failed)?;
        let scratch_dir = Some(scratch.path().to_owned());
        let link = Link::forked(stream, scratch);
        let lines = Arc::new(Lines::new(self.name.clone(), self.following.clone()));
        self.greet(link, number, scratch_dir, lines).await
    }

    /// Starts a worker by itself, or connects to it.
    pub(super) async fn start_one(&self, index: usize) -> Result<Launched, LaunchError> {
        let number = number(index);
        let lines = Arc::new(Lines::new(self.name.clone(), self.following.clone()));
        let mut scratch_dir = None;
        let link = match &self.target {
            Target::Attach(path) => Link::attach(path).await,
            Target::Run(program) => match self.places(number, program).await {
                Ok(scratch) => {
                    scratch_dir = Some(scratch.path().to_owned());
                    let mark = mark::value(&self.core.spool_dir);
                    let held = (self.folder.get(), self.group.get());
                    Link::spawn(program, &mark, held, scratch, &lines)
                }
                Err(error) => Err(error),
            },
        };
        self.greet(link, number, scratch_dir, lines).await
    }

    async fn greet(
        &self,
        link: Result<Link, String>,
        number: u32,
        scratch_dir: Option<PathBuf>,
        lines: Arc<Lines>,
    ) -> Result<Launched, LaunchError> {
        let mut link = link.map_err(|error| LaunchError::Failed(self.explain(&error)))?;
        let calls = Calls::new(self.core.services.clone(), link.writer.clone());
        let init = Init {
            hostname: self.core.hostname.clone(),
            worker: number,
            scratch_dir,
            dns_server: self.core.dns_server.map(|server| server.to_string()),
            plugins: self.init.clone(),
        };
        let handshake = Handshake {
            reader: &mut link.reader,
            writer: &link.writer,
            calls: &calls,
            lines: &lines,
        };
        match handshake.run(&init, self.core.patience).await {
            Ok((features, ready)) => {
                let parts = Parts {
                    name: self.name.clone(),
                    number,
                    writer: link.writer,
                    process: link.process,
                    features,
                    concurrency: ready.concurrency,
                    calls,
                    lines,
                    stats: self.stats.clone(),
                    changed: self.changed.clone(),
                    patience: self.core.patience,
                };
                Ok(Launched {
                    worker: Worker::new(parts),
                    reader: link.reader,
                    child: link.child,
                    ready,
                })
            }
            Err(refusal) => Err(self.refused(refusal, link.child, &lines).await),
        }
    }

    /// Its scratch folder; and its control group, where it is to be in one.
    async fn places(&self, number: u32, program: &Program) -> Result<TempDir, String> {
        if program.confine.has_group() {
            let make = async || Group::make(&program.confine);
            let made = self.group.get_or_try_init(make).await;
            made.map_err(|error| format!("confine: {error}"))?;
        }
        self.scratch(number).await
    }

    /// What plugins keep there is of the mail, so that only the daemon's user may enter it, or the plugin's own.
    async fn scratch(&self, number: u32) -> Result<TempDir, String> {
        let shared = mark::scratch_in(&self.core.spool_dir);
        let name = self.name.replace(['/', '\0'], "-");
        let folder = match &self.target {
            Target::Run(program) if program.confine.has_folder() => {
                let make = async || Folder::make(&program.confine, &shared, &name);
                Some(self.folder.get_or_try_init(make).await?)
            }
            _ => None,
        };
        let parent = folder.map_or(&*shared, Folder::path);
        let scratch = std::fs::create_dir_all(parent)
            .and_then(|()| {
                tempfile::Builder::new()
                    .prefix(&mark::scratch_name(&name, number))
                    .permissions(std::fs::Permissions::from_mode(0o700))
                    .tempdir_in(parent)
            })
            .map_err(|error| {
                let parent = parent.display();
                format!("its scratch folder cannot be made in {parent}: {error}; create that folder, or set `spool_dir`")
            })?;
        if let Some(folder) = folder {
            folder.give(scratch.path())?;
        }
        Ok(scratch)
    }

    /// What a process is called in errors: what was typed to start it.
    pub(super) fn explain(&self, what: &str) -> String {
        match &self.target {
            Target::Run(program) => format!("`{}`: {what}", program.argv.join(" ")),
            Target::Attach(_) => what.to_owned(),
        }
    }

    async fn refused(
        &self,
        refusal: Refusal,
        mut child: Option<Child>,
        lines: &Lines,
    ) -> LaunchError {
        let mut what = match refusal {
            Refusal::Settings(errors) if !errors.is_empty() => {
                self.end(child).await;
                return LaunchError::Settings(errors);
            }
            Refusal::Settings(_) => "it refused its settings and did not say why".to_owned(),
            Refusal::Broken(what) => what,
            Refusal::Closed(when) => match &mut child {
                Some(child) => match timeout(LAST_WORDS, child.ended()).await {
                    Ok(how) => format!("{how} {when}"),
                    Err(_) => format!("it closed its channel {when}"),
                },
                None => format!("it closed the connection {when}"),
            },
        };
        self.end(child).await;
        let tail = lines.tail();
        if !tail.is_empty() {
            what.push_str("; the last lines of its standard error:");
            for line in tail {
                what.push_str("\n    ");
                what.push_str(&line);
            }
        }
        LaunchError::Failed(self.explain(&what))
    }

    /// Ends a worker that is not to be used.
    pub(super) async fn discard(&self, launched: Launched) {
        self.end(launched.child).await;
    }

    async fn end(&self, child: Option<Child>) {
        if let Some(child) = child {
            child.end(Instant::now(), self.core.patience.term).await;
        }
    }

    /// Runs a worker, and another in its place when it fails, until the process is shut down.
    pub(super) async fn supervise(self: Arc<Self>, index: usize, mut first: Option<Launched>) {
        let patience = self.core.patience;
        let mut backoff = patience.backoff.0;
        let mut failed = false;
        loop {
            let launched = match first.take() {
                Some(launched) => Ok(launched),
                None => tokio::select! {
                    launched = self.launch(index) => launched,
                    () = self.closing.cancelled() => return,
                },
            };
            let reason = match launched {
                Ok(launched) => {
                    self.compare(&launched.ready);
                    if failed {
                        report::line(
                            Level::Notice,
                            "",
                            None,
                            &self.name,
                            format_args!("worker {} is ready again", index + 1),
                        );
                    }
                    self.set(index, launched.slot());
                    let since = Instant::now();
                    let Ending::Failed(reason) = self.serve(Some(index), launched).await else {
                        return;
                    };
                    if since.elapsed() >= patience.steady {
                        backoff = patience.backoff.0;
                    }
                    reason
                }
                Err(error) => error.to_string(),
            };
            failed = true;
            count(&self.stats.restarts);
            report::line(
                Level::Error,
                "",
                None,
                &self.name,
                format_args!(
                    "worker {} failed: {reason}; the next start is in {} ({})",
                    index + 1,
                    span(backoff),
                    self.counts()
                ),
            );
            self.set(index, Slot::Down(reason.into()));
            tokio::select! {
                () = tokio::time::sleep(backoff) => {}
                () = self.closing.cancelled() => return,
            }
            backoff = (backoff * 2).min(patience.backoff.1);
            self.set(index, Slot::Starting);
        }
    }

    fn set(&self, index: usize, slot: Slot) {
        self.pool().slots[index] = slot;
        self.changed.notify_waiters();
    }

    /// A worker is at work, to its end. `index`: its place in the pool; `None` for one that only others are forked from.
    pub(super) async fn serve(&self, index: Option<usize>, launched: Launched) -> Ending {
        let Launched {
            worker,
            mut reader,
            mut child,
            ..
        } = launched;
        let killed = self.killed_for_memory();
        let mut ending = tokio::select! {
            end = worker.run(&mut reader) => Ending::Failed(how(end, child.as_mut()).await),
            status = ended(child.as_mut()) => {
                // A child of its own may hold the channel open; what it wrote before it ended is read all the same.
                drop(timeout(LAST_WORDS, worker.run(&mut reader)).await);
                Ending::Failed(status)
            }
            () = self.drained(&worker) => Ending::Shutdown,
            () = self.superfluous(index, &worker) => Ending::Idle,
        };
        if let Ending::Failed(reason) = &mut ending
            && self.killed_for_memory() > killed
        {
            reason.push_str(": the memory of its control group is used up");
        }
        let patience = self.core.patience;
        let set = |slot| {
            if let Some(index) = index {
                self.set(index, slot);
            }
        };
        match &ending {
            Ending::Failed(reason) => {
                // First the slot, so that whoever is told comes to another worker.
                set(Slot::Down(reason.as_str().into()));
                worker.end(reason);
                if let Some(child) = child {
                    self.tasks.spawn(child.end(Instant::now(), patience.term));
                }
            }
            Ending::Idle => {
                worker.goodbye();
                worker.end("it had nothing to do");
                drop((worker, reader));
                if let Some(child) = child {
                    let until = Instant::now() + patience.term;
                    self.tasks.spawn(child.end(until, patience.term));
                }
            }
            Ending::Shutdown => {
                set(Slot::Down("the server is shutting down".into()));
                worker.end("the server is shutting down");
                // The last of the channel: its end is what tells the process to exit.
                drop((worker, reader));
                if let Some(child) = child {
                    let until = self.pool().until.unwrap_or_else(Instant::now);
                    child.end(until, patience.term).await;
                }
            }
        }
        ending
    }

    fn killed_for_memory(&self) -> u64 {
        self.group.get().map_or(0, Group::killed_for_memory)
    }

    /// Resolves when a worker was not needed for a while and there are more than the least number; its place is vacant then.
    async fn superfluous(&self, index: Option<usize>, worker: &Worker) {
        let Some(index) = index else {
            return std::future::pending().await;
        };
        let mut requests = None;
        loop {
            tokio::time::sleep(self.core.patience.idle).await;
            let mut pool = self.pool();
            let (least, _) = self.bounds();
            if worker.load() == (0, 0)
                && requests == Some(worker.requests())
                && pool.number() > least
            {
                pool.slots[index] = Slot::Vacant;
                return;
            }
            requests = Some(worker.requests());
        }
    }

    /// Resolves at shutdown, when what ran is done or its time is over.
    async fn drained(&self, worker: &Worker) {
        self.closing.cancelled().await;
        worker.goodbye();
        let until = self.pool().until.unwrap_or_else(Instant::now);
        loop {
            let changed = self.changed.notified();
            if worker.is_idle() || tokio::time::timeout_at(until, changed).await.is_err() {
                return worker.cancel_all("shutdown");
            }
        }
    }

    /// A worker that subscribes to something else than the first one would never be asked for it.
    fn compare(&self, ready: &Ready) {
        let Some(declared) = self.declared.get() else {
            return;
        };
        let same = declare::read(ready, &self.plugins).is_ok_and(|new| {
            let both = new.iter().zip(declared);
            new.len() == declared.len()
                && both.into_iter().all(|(new, old)| new.subscribes_like(old))
        });
        if !same {
            report::line(
                Level::Warn,
                "",
                None,
                &self.name,
                format_args!(
                    "a new worker takes part in other hooks than the first one did: restart gatepost to use them"
                ),
            );
        }
    }
}

/// A worker's number, for people and for itself.
fn number(index: usize) -> u32 {
    u32::try_from(index + 1).unwrap_or(u32::MAX)
}

async fn how(end: End, child: Option<&mut Child>) -> String {
    match (end, child) {
        (End::Broken(reason), _) => reason,
        (End::Closed, Some(child)) => timeout(LAST_WORDS, child.ended())
            .await
            .unwrap_or_else(|_| "it closed its channel".to_owned()),
        (End::Closed, None) => "it closed the connection".to_owned(),
    }
}

/// Waits for the end of a child; for ever where there is none of our own.
async fn ended(child: Option<&mut Child>) -> String {
    match child.filter(|child| child.is_own()) {
        Some(child) => child.ended().await,
        None => std::future::pending().await,
    }
}

impl std::fmt::Display for LaunchError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            LaunchError::Failed(what) => f.write_str(what),
            LaunchError::Settings(errors) => {
                f.write_str("it refused its settings")?;
                for error in errors {
                    write!(f, "; {}: {}", error.plugin, error.message)?;
                }
                Ok(())
            }
        }
    }
}
