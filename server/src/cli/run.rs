//! `gatepost run`: the server, until it is told to stop.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use gatepost_protocol::{Bounce, BoxFuture, Level, ServiceError, Submission};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::assemble::{self, Assembled};
use super::{FAILED, MISTAKE};
use crate::config::{Config, ListenTls};
use crate::dialog::{Apart, Shared};
use crate::listen::Listeners;
use crate::message::Spool;
use crate::outbox::Outbox;
use crate::report;
use crate::report::journal::{self, Journal};
use crate::services::Outgoing;

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
        config,
        chain,
        processes,
        services,
        credentials,
        runtime,
        users: _,
    } = match assemble::start(path) {
        Ok(assembled) => assembled,
        Err(code) => return code,
    };
    let served = runtime.block_on(async {
        let served = async {
            let spool = Spool::open(&config).map_err(|error| (MISTAKE, error.to_string()))?;
            let listeners = Listeners::bind(&config, credentials)
                .map_err(|error| (FAILED, error.to_string()))?;
            let stop = stop_on_signal().map_err(|error| (FAILED, error.to_string()))?;
            let addresses = listeners
                .addresses()
                .map_err(|error| (FAILED, error.to_string()))?;
            for (address, listen) in addresses.iter().zip(&config.listen) {
                let direction = listen.direction.name();
                let tls = match listen.tls {
                    ListenTls::Off => "",
                    ListenTls::StartTls => ", STARTTLS",
                    ListenTls::Implicit => ", TLS",
                };
                let text = format_args!("listening on {address} ({direction}{tls})");
                report::line(Level::Notice, "", None, "listen", text);
            }
            let outbox = Outbox::open(&config).map_err(|error| (MISTAKE, error.to_string()))?;
            services.send_through(Box::new(ByOutbox(outbox.clone())));
            let delivering = outbox.clone().run(chain.clone(), stop.clone());
            let delivering = tokio::spawn(delivering);
            let store = outbox.store().clone();
            let expiring = store.clone().run(stop.clone());
            let _expiring = AbortOnDropHandle::new(tokio::spawn(expiring));
            let journal = journal(&config).map_err(|error| (MISTAKE, error))?;
            let shared = Arc::new(Shared {
                config,
                chain,
                services,
                spool: Arc::new(spool),
                outbox: Some(outbox),
                store: Some(store),
                journal: journal.clone(),
                apart: Apart::default(),
            });
            let _telling = AbortOnDropHandle::new(tokio::spawn(tell_limits()));
            listeners.run(shared, stop).await;
            // What does not get to its end is still in the outbox.
            let _ = tokio::time::timeout(GRACE, delivering).await;
            if let Some(journal) = journal {
                journal.flush();
            }
            Ok(())
        };
        let served: Result<(), (u8, String)> = served.await;
        processes.shutdown(GRACE).await;
        served
    });
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
