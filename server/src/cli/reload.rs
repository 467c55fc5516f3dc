//! A daemon that runs, and what becomes of it when its configuration is read anew (docs/reload.md).
//!
//! A reload makes everything that a start makes (configuration, certificates, plugins, processes) beside what is in force, and only then puts it in force, in one step. Whatever fails before leaves all as it was. Sessions keep what
//! they began with; its plugins' processes end with the last of them.

use std::io;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use gatepost_protocol::Level;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::task::AbortOnDropHandle;

use super::assemble::{self, Generation};
use super::control::{self, Answer, Request};
use crate::chain::Chain;
use crate::config::Config;
use crate::dialog::{Apart, Shared};
use crate::listen::{Bindings, Listeners, Service};
use crate::message::Spool;
use crate::outbox::{Outbox, Store};
use crate::report;
use crate::report::journal::Journal;
use crate::services::Core;

/// Whose lines these are in the log.
const LOGGED_AS: &str = "reload";

/// What a daemon has for as long as it runs.
pub struct Kept {
    /// The configuration's file, as it was named at the start.
    pub path: Option<PathBuf>,
    pub services: Arc<Core>,
    pub spool: Arc<Spool>,
    pub outbox: Arc<Outbox>,
    pub store: Arc<Store>,
    pub journal: Option<Arc<Journal>>,
    pub apart: Arc<Apart>,
    pub listeners: Arc<Listeners>,
    /// Tells the outbox which chain is in force.
    pub chain: watch::Sender<Arc<Chain>>,
    pub _tasks: [AbortOnDropHandle<()>; 3],
}

/// A daemon that runs.
pub struct Daemon {
    kept: Kept,
    /// What is in force.
    generation: Generation,
    /// What was in force at the start.
    first: Arc<Config>,
    hangups: Signal,
    requests: mpsc::Receiver<Request>,
}

impl Daemon {
    /// From now on clients are served.
    ///
    /// # Errors
    /// The system takes no handler for SIGHUP.
    pub fn new(kept: Kept, generation: Generation, bindings: Bindings) -> io::Result<Daemon> {
        // Before anybody knows that we are here: without it the signal would end the process.
        let hangups = signal(SignalKind::hangup())?;
        let requests = control::listen(&generation.config.spool_dir);
        kept.listeners.serve(kept.service(&generation), bindings);
        Ok(Daemon {
            kept,
            first: generation.config.clone(),
            generation,
            hangups,
            requests,
        })
    }

    /// Serves, and reloads when it is told to, until the stop and the end of all sessions; then ends plugins' processes, which may take `grace` for what they are at.
    pub async fn serve(mut self, delivering: JoinHandle<()>, grace: Duration) {
        let listeners = self.kept.listeners.clone();
        let mut serving = pin!(listeners.run());
        loop {
            let (plugins, answer) = tokio::select! {
                () = &mut serving => break,
                Some(request) = self.requests.recv() => (request.plugins, Some(request.answer)),
                Some(()) = self.hangups.recv() => (Vec::new(), None),
            };
            let reloaded = tokio::select! {
                () = &mut serving => break,
                reloaded = self.reload(&plugins) => reloaded,
            };
            tell(&reloaded);
            if let Some(answer) = answer {
                // Whoever asked may have left.
                let _ = answer.send(reloaded);
            }
        }
        // What does not get to its end is still in the outbox.
        let _ = tokio::time::timeout(grace, delivering).await;
        if let Some(journal) = &self.kept.journal {
            journal.flush();
        }
        self.generation.processes.shutdown(grace).await;
    }

    /// Reads the configuration anew and starts all of its plugins, or just some of them, by name. What is worth knowing about it; or why all is as it was.
    async fn reload(&mut self, plugins: &[String]) -> Answer {
        let (kept, processes) = (&self.kept, &self.generation.processes);
        let next = assemble::again(kept.path.clone(), &kept.services, processes, plugins);
        let (next, mut said) = next.await?;
        let bindings = kept.listeners.bind(&next.config);
        let bindings = bindings.map_err(|error| error.to_string())?;
        // The log runs: only the level changes, and nothing can fail.
        let _ = report::start(next.config.loglevel, next.config.log_format);
        processes.retire(&next.processes);
        next.answer_questions(&kept.services);
        kept.chain.send_replace(next.chain.clone());
        kept.listeners.serve(kept.service(&next), bindings);
        for setting in fixed(&self.first, &next.config) {
            let line =
                format!("`{setting}` differs from what it was at the start, and takes a restart");
            said.push_str(if said.is_empty() { "" } else { "\n" });
            said.push_str(&line);
        }
        self.generation = next;
        Ok(said)
    }
}

impl Kept {
    fn service(&self, generation: &Generation) -> Service {
        let shared = Shared {
            config: generation.config.clone(),
            chain: generation.chain.clone(),
            services: self.services.clone(),
            spool: self.spool.clone(),
            outbox: Some(self.outbox.clone()),
            store: Some(self.store.clone()),
            journal: self.journal.clone(),
            apart: self.apart.clone(),
        };
        Service::new(Arc::new(shared), generation.credentials.clone())
    }
}

/// Settings that hold as they were at the start, and differ now.
fn fixed(first: &Config, now: &Config) -> impl Iterator<Item = &'static str> {
    let memory = |config: &Config| {
        let limits = &config.limits;
        (limits.memory_per_message, limits.memory_for_messages)
    };
    [
        ("spool_dir", first.spool_dir == now.spool_dir),
        ("journal", first.journal == now.journal),
        ("state", first.state == now.state),
        ("dns_server", first.dns_server == now.dns_server),
        ("log_format", first.log_format == now.log_format),
        (
            "[limits] memory_per_message, memory_for_messages",
            memory(first) == memory(now),
        ),
        ("[outbox]", first.outbox == now.outbox),
        ("[quarantine]", first.quarantine == now.quarantine),
    ]
    .into_iter()
    .filter_map(|(setting, is_as_it_was)| (!is_as_it_was).then_some(setting))
}

fn tell(reloaded: &Answer) {
    let log = |level, text: &str| report::line(level, "", None, LOGGED_AS, format_args!("{text}"));
    match reloaded {
        Ok(said) => {
            said.lines().for_each(|line| log(Level::Warn, line));
            log(Level::Notice, "the new configuration is in force");
        }
        Err(mistakes) => {
            mistakes.lines().for_each(|line| log(Level::Error, line));
            log(
                Level::Error,
                "nothing is changed: the configuration of before is in force",
            );
        }
    }
}
