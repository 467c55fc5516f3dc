//! `gatepost run`: the server, until it is told to stop.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use gatepost_protocol::{Bounce, BoxFuture, Level, ServiceError, Submission};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::geteuid;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::assemble::{self, Assembled, Failure, Generation};
use super::handover::Predecessor;
use super::reload::{Daemon, Kept};
use super::service_manager::{self, State};
use super::{FAILED, MISTAKE, TAKE_OVER, THREAD_KEPT, leftovers, privileges};
use crate::config::Config;
use crate::listen::{Inherited, Listeners};
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

/// Runs the server until SIGTERM or SIGINT, or until another process takes its place. `takes_over`: this one is such a process.
pub fn run(path: Option<&Path>, takes_over: bool) -> ExitCode {
    let (mut predecessor, mut sockets) = match inherited(takes_over) {
        Ok(inherited) => inherited,
        Err(failure) => return failed(failure, None),
    };
    let (assembled, program) = match prepare(path, &mut sockets) {
        Ok(prepared) => prepared,
        Err(failure) => return failed(failure, predecessor),
    };
    let Assembled {
        generation,
        services,
        runtime,
    } = assembled;
    let origin = Origin {
        path,
        program,
        sockets,
    };
    let served = runtime.block_on(serve(origin, &mut predecessor, generation, services));
    // Nothing that still runs could do anything for a client.
    runtime.shutdown_timeout(Duration::from_secs(1));
    report::limits();
    report::line(Level::Notice, "", None, LOGGED_AS, format_args!("stopped"));
    report::flush();
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failed(failure, predecessor),
    }
}

/// Says why this process does not serve, also to whom it was to follow.
fn failed((code, why): Failure, predecessor: Option<Predecessor>) -> ExitCode {
    report::flush();
    eprintln!("{why}");
    if let Some(predecessor) = predecessor {
        predecessor.failed(&why);
    }
    ExitCode::from(code)
}

/// What this process was started with.
struct Origin<'a> {
    path: Option<&'a Path>,
    program: PathBuf,
    sockets: Inherited,
}

/// The daemon whose place is to be taken, and the sockets that are there already.
fn inherited(takes_over: bool) -> Result<(Option<Predecessor>, Inherited), Failure> {
    if takes_over {
        let (predecessor, sockets) = Predecessor::meet().map_err(|error| {
            let text = format!("{TAKE_OVER} is for `gatepost upgrade` alone: {error}");
            (MISTAKE, text)
        })?;
        return Ok((Some(predecessor), sockets));
    }
    match Inherited::from_service_manager() {
        Ok(sockets) => Ok((None, sockets)),
        Err(error) => Err((MISTAKE, error.to_string())),
    }
}

/// Does what root is needed for, gives that up, and starts the plugins.
fn prepare(path: Option<&Path>, sockets: &mut Inherited) -> Result<(Assembled, PathBuf), Failure> {
    // Before anybody can put another file there.
    let program = own_program().map_err(|error| (FAILED, error.to_string()))?;
    raise_descriptor_limit();
    let config = assemble::read(path)?;
    if privileges::are_to_be_dropped(&config) {
        let bound = sockets.bind_tcp(&config);
        bound.map_err(|error| (FAILED, error.to_string()))?;
    }
    privileges::drop(&config).map_err(|why| (MISTAKE, why))?;
    let ended = leftovers::clear(&config.spool_dir);
    let assembled = assemble::start_all(config)?;
    for process in ended {
        let text = format_args!("ended process {process}, which a daemon that was killed has left");
        report::line(Level::Notice, "", None, LOGGED_AS, text);
    }
    if geteuid().is_root() {
        let text = format_args!("this runs as root, plugins and all: set `run_as`");
        report::line(Level::Warn, "", None, LOGGED_AS, text);
    }
    Ok((assembled, program))
}

/// The file that this process was started from, by the name that it was started by: a link leads to another program after an upgrade.
fn own_program() -> io::Result<PathBuf> {
    let name = std::env::args_os().next().map(PathBuf::from);
    let typed = name.filter(|name| name.components().count() > 1 && name.is_file());
    match typed {
        Some(name) => std::path::absolute(name),
        None => std::env::current_exe(),
    }
}

/// Serves until the stop; the exit code, and why, where that cannot be begun.
async fn serve(
    origin: Origin<'_>,
    predecessor: &mut Option<Predecessor>,
    generation: Generation,
    services: Arc<Core>,
) -> Result<(), Failure> {
    let processes = generation.processes.clone();
    match begin(origin, predecessor, generation, services).await {
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
    origin: Origin<'_>,
    predecessor: &mut Option<Predecessor>,
    generation: Generation,
    services: Arc<Core>,
) -> Result<Begun, Failure> {
    let config = generation.config.clone();
    let failed = |error: io::Error| (FAILED, error.to_string());
    let spool = Spool::open(&config).map_err(|error| (MISTAKE, error.to_string()))?;
    let stop = stop_on_signal().map_err(failed)?;
    let listeners = Arc::new(Listeners::new(origin.sockets, stop.clone()));
    let bindings = listeners
        .bind(&config)
        .map_err(|error| (FAILED, error.to_string()))?;
    let outbox = Outbox::open(&config).map_err(|error| (MISTAKE, error.to_string()))?;
    services.send_through(Box::new(ByOutbox(outbox.clone())));
    let journal = journal(&config).map_err(|error| (MISTAKE, error))?;
    let is_successor = predecessor.is_some();
    // From here on, what two daemons share is touched.
    let mut leaving = match predecessor.take() {
        Some(predecessor) => Some(predecessor.take_over().await.map_err(failed)?),
        None => {
            if let Some(addr) = listeners.unused() {
                let text = format!(
                    "a socket at {addr} was passed (LISTEN_FDS), and no [[listen]] has this `addr`: add one, or correct `ListenStream=` of the socket unit"
                );
                return Err((MISTAKE, text));
            }
            None
        }
    };
    let (chain, chains) = watch::channel(generation.chain.clone());
    let delivering = tokio::spawn(outbox.clone().run(chains, stop.clone()));
    let store = outbox.store().clone();
    let expiring = store.clone().run(stop);
    let telling = tokio::spawn(tell_limits());
    let keeping = tokio::spawn(keep_a_thread());
    let watchdog = tokio::spawn(service_manager::keep_alive(is_successor));
    let kept = Kept {
        path: origin.path.map(Path::to_owned),
        program: origin.program,
        services,
        spool: Arc::new(spool),
        outbox,
        store,
        journal,
        apart: Arc::default(),
        listeners,
        chain,
        _tasks: [tokio::spawn(expiring), telling, keeping, watchdog].map(AbortOnDropHandle::new),
    };
    let mut daemon = Daemon::new(kept, generation, bindings).map_err(failed)?;
    if let Some(leaving) = &mut leaving {
        leaving.serving().await.map_err(failed)?;
    }
    daemon.is_in_force(leaving);
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
        for is_first in [true, false] {
            let name = tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
            };
            let text = match is_first {
                true => "stopping: running transactions may finish",
                false => "stopping at once",
            };
            let text = format_args!("{name}, {text}");
            report::line(Level::Notice, "", None, LOGGED_AS, text);
            if !is_first {
                report::flush();
                std::process::exit(i32::from(FAILED));
            }
            service_manager::tell(State::Stopping);
            token.cancel();
        }
    });
    Ok(stop)
}
