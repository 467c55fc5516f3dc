//! `gatepost run`: the server, until it is told to stop.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use gatepost_protocol::{Bounce, BoxFuture, Level, ServiceError, Submission};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::assemble::{self, Assembled, Generation};
use super::reload::{Daemon, Kept};
use super::{FAILED, MISTAKE, THREAD_KEPT};
use crate::config::Config;
use crate::listen::Listeners;
use crate::message::Spool;
use crate::outbox::Outbox;
use crate::report;
use crate::report::journal::{self, Journal};
use crate::services::{Core, Outgoing};

/// Whose lines these are in the log.
const LOGGED_AS: &str = "gatepost";
/// How often the log says which limits were exceeded.
const LIMITS_TOLD: Duration = Duration::from_secs(3600);
/// How long plugin processes get to finish after the last session is over.
const GRACE: Duration = Duration::from_secs(5);

/// Runs the server until SIGTERM or SIGINT.
pub fn run(path: Option<&Path>) -> ExitCode {
    raise_descriptor_limit();
    let Assembled {
        generation,
        services,
        runtime,
    } = match assemble::start(path) {
        Ok(assembled) => assembled,
        Err(code) => return code,
    };
    let served = runtime.block_on(serve(path, generation, services));
    // Nothing that still runs could do anything for a client.
    runtime.shutdown_timeout(Duration::from_secs(1));
    report::limits();
    report::line(Level::Notice, "", None, LOGGED_AS, format_args!("stopped"));
    report::flush();
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err((code, error)) => {
            eprintln!("{error}");
            ExitCode::from(code)
        }
    }
}

/// Serves until the stop; the exit code, and why, where that cannot be begun.
async fn serve(
    path: Option<&Path>,
    generation: Generation,
    services: Arc<Core>,
) -> Result<(), (u8, String)> {
    let processes = generation.processes.clone();
    match begin(path, generation, services).await {
        Ok((daemon, delivering)) => {
            // They are to end with their chain, which a reload replaces.
            drop(processes);
            daemon.serve(delivering, GRACE).await;
            Ok(())
        }
        Err(error) => {
            processes.shutdown(GRACE).await;
            Err(error)
        }
    }
}

type Begun = (Daemon, JoinHandle<()>);

async fn begin(
    path: Option<&Path>,
    generation: Generation,
    services: Arc<Core>,
) -> Result<Begun, (u8, String)> {
    let config = generation.config.clone();
    let spool = Spool::open(&config).map_err(|error| (MISTAKE, error.to_string()))?;
    let stop = stop_on_signal().map_err(|error| (FAILED, error.to_string()))?;
    let listeners = Arc::new(Listeners::new(stop.clone()));
    let bindings = listeners
        .bind(&config)
        .map_err(|error| (FAILED, error.to_string()))?;
    let outbox = Outbox::open(&config).map_err(|error| (MISTAKE, error.to_string()))?;
    services.send_through(Box::new(ByOutbox(outbox.clone())));
    let (chain, chains) = watch::channel(generation.chain.clone());
    let delivering = tokio::spawn(outbox.clone().run(chains, stop.clone()));
    let store = outbox.store().clone();
    let expiring = store.clone().run(stop);
    let journal = journal(&config).map_err(|error| (MISTAKE, error))?;
    let telling = tokio::spawn(tell_limits());
    let keeping = tokio::spawn(keep_a_thread());
    let kept = Kept {
        path: path.map(Path::to_owned),
        services,
        spool: Arc::new(spool),
        outbox,
        store,
        journal,
        apart: Arc::default(),
        listeners,
        chain,
        _tasks: [tokio::spawn(expiring), telling, keeping].map(AbortOnDropHandle::new),
    };
    let daemon = Daemon::new(kept, generation, bindings);
    let daemon = daemon.map_err(|error| (FAILED, error.to_string()))?;
    Ok((daemon, delivering))
}

fn journal(config: &Config) -> Result<Option<Arc<Journal>>, String> {
    if config.journal == 0 {
        return Ok(None);
    }
    let folder = journal::folder(&config.spool_dir);
    match Journal::open(&folder, config.journal) {
        Ok(journal) => Ok(Some(Arc::new(journal))),
        Err(error) => Err(format!(
            "the journal {}: {error}; let the user that Gatepost runs as write there, or set `journal = 0`",
            folder.display()
        )),
    }
}

/// Sees that there is always a thread for work that waits for the disk. Where the system gives no more threads, that one does all of the work in turn; without any, the work could not even be
/// put off.
async fn keep_a_thread() {
    loop {
        // On its own: the runtime panics where there is no thread, and the next time there may be one.
        let _ = tokio::spawn(async { tokio::task::spawn_blocking(|| {}).await }).await;
        tokio::time::sleep(THREAD_KEPT / 2).await;
    }
}

async fn tell_limits() {
    let start = tokio::time::Instant::now() + LIMITS_TOLD;
    let mut hours = tokio::time::interval_at(start, LIMITS_TOLD);
    loop {
        hours.tick().await;
        report::limits();
    }
}

/// Plugins' own mail goes into the outbox.
struct ByOutbox(Arc<Outbox>);

impl Outgoing for ByOutbox {
    fn submit(&self, submission: Submission) -> BoxFuture<'static, Result<String, ServiceError>> {
        let outbox = self.0.clone();
        Box::pin(async move { outbox.submit(submission).await })
    }

    fn bounce(&self, bounce: Bounce) -> BoxFuture<'static, Result<Option<String>, ServiceError>> {
        let outbox = self.0.clone();
        Box::pin(async move { outbox.bounce_for(bounce).await })
    }
}

/// Every connection takes a descriptor, and the usual soft limit of 1024 is for programs that use `select`.
fn raise_descriptor_limit() {
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < hard
    {
        // Where it cannot be raised, connections beyond it wait to be accepted, and the log says so.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}

/// A token that is cancelled at the first SIGTERM or SIGINT. At the second the process ends at once.
fn stop_on_signal() -> std::io::Result<CancellationToken> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let stop = CancellationToken::new();
    let token = stop.clone();
    tokio::spawn(async move {
        for stage in [
            "stopping: running transactions may finish",
            "stopping at once",
        ] {
            let name = tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
            };
            report::line(
                Level::Notice,
                "",
                None,
                LOGGED_AS,
                format_args!("{name}, {stage}"),
            );
            if token.is_cancelled() {
                report::flush();
                std::process::exit(i32::from(FAILED));
            }
            token.cancel();
        }
    });
    Ok(stop)
}
