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
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::task::AbortOnDropHandle;

use super::assemble::{self, Generation};
use super::control::{self, Answer, Control, Wanted};
use super::handover::{Leaving, Successor};
use super::service_manager::{self, State};
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
const UPGRADED_AS: &str = "upgrade";

/// What a daemon has for as long as it runs.
pub struct Kept {
    /// The configuration's file, as it was named at the start.
    pub path: Option<PathBuf>,
    /// The program that an upgrade starts.
    pub program: PathBuf,
    pub services: Arc<Core>,
    pub spool: Arc<Spool>,
    pub outbox: Arc<Outbox>,
    pub store: Arc<Store>,
    pub journal: Option<Arc<Journal>>,
    pub apart: Arc<Apart>,
    pub listeners: Arc<Listeners>,
    /// Tells the outbox which chain is in force.
    pub chain: watch::Sender<Arc<Chain>>,
    pub _tasks: [AbortOnDropHandle<()>; 4],
}

/// A daemon that runs.
pub struct Daemon {
    kept: Kept,
    /// What is in force.
    generation: Generation,
    /// What was in force at the start.
    first: Arc<Config>,
    hangups: Signal,
    control: Control,
    /// Ends with the daemon whose place we took.
    leaving: Option<JoinHandle<()>>,
}

impl Daemon {
    /// From now on clients are served.
    ///
    /// # Errors
    /// The system takes no handler for SIGHUP.
    pub fn new(kept: Kept, generation: Generation, bindings: Bindings) -> io::Result<Daemon> {
        // Before anybody knows that we are here: without it the signal would end the process.
        let hangups = signal(SignalKind::hangup())?;
        let control = control::listen(&generation.config.spool_dir, &kept.listeners);
        kept.listeners.serve(kept.service(&generation), bindings);
        Ok(Daemon {
            kept,
            first: generation.config.clone(),
            generation,
            hangups,
            control,
            leaving: None,
        })
    }

    /// Nobody else serves any more, but for the daemon whose place we took, which has its last clients.
    pub fn is_in_force(&mut self, leaving: Option<Leaving>) {
        self.kept.listeners.take_files();
        match leaving {
            None => service_manager::tell(State::Ready),
            Some(leaving) => {
                let outbox = self.kept.outbox.clone();
                self.leaving = Some(tokio::spawn(async move {
                    // What it kept since we looked.
                    outbox.read_again().await;
                    leaving.gone().await;
                    outbox.read_again().await;
                }));
            }
        }
    }

    /// Serves, and reloads when it is told to, until the stop and the end of all sessions; then ends plugins' processes, which may take `grace` for what they are at.
    pub async fn serve(mut self, delivering: JoinHandle<()>, grace: Duration) {
        let listeners = self.kept.listeners.clone();
        let mut serving = pin!(listeners.run());
        let mut successor = None;
        while successor.is_none() {
            let (wanted, answer) = tokio::select! {
                () = &mut serving => break,
                Some(request) = self.control.requests.recv() => (request.wanted, Some(request.answer)),
                Some(()) = self.hangups.recv() => (Wanted::Reload(Vec::new()), None),
            };
            let answered = match wanted {
                Wanted::Reload(plugins) => tokio::select! {
                    () = &mut serving => break,
                    reloaded = self.reload(&plugins) => {
                        tell(&reloaded);
                        reloaded
                    }
                },
                Wanted::Upgrade(within) => tokio::select! {
                    () = &mut serving => break,
                    upgraded = self.upgrade(within) => upgraded.map(|(it, said)| {
                        successor = Some(it);
                        said
                    }),
                },
            };
            if let Some(answer) = answer {
                // Whoever asked may have left.
                let _ = answer.send(answered);
            }
        }
        if successor.is_some() {
            serving.await;
        }
        // What does not get to its end is still in the outbox.
        let _ = tokio::time::timeout(grace, delivering).await;
        if let Some(journal) = &self.kept.journal {
            journal.flush();
        }
        self.generation.processes.shutdown(grace).await;
        // Our successor learns by our end that there is nothing more to come, also of those before us.
        if let (Some(_), Some(leaving)) = (successor, self.leaving) {
            let _ = leaving.await;
        }
    }

    /// Has a new process take our place. It, and what is to be known; or why we go on.
    async fn upgrade(&mut self, within: Duration) -> Result<(Successor, String), String> {
        let log =
            |level, text: &str| report::line(level, "", None, UPGRADED_AS, format_args!("{text}"));
        match self.replace(within).await {
            Ok((successor, pid)) => {
                let said = format!(
                    "process {pid} has taken the place of {}",
                    std::process::id()
                );
                log(Level::Notice, &said);
                Ok((successor, said))
            }
            Err(why) => {
                why.lines().for_each(|line| log(Level::Error, line));
                log(Level::Error, "nothing is changed: this process goes on");
                // It may have taken the hint that the command line left for us.
                self.kept.outbox.read_again().await;
                Err(why)
            }
        }
    }

    async fn replace(&mut self, within: Duration) -> Result<(Successor, u32), String> {
        let kept = &self.kept;
        let sockets = || {
            let mut sockets = kept.listeners.sockets()?;
            sockets.extend(self.control.socket()?);
            Ok(sockets)
        };
        let sockets = sockets().map_err(|error: io::Error| error.to_string())?;
        let started = Successor::start(&kept.program, kept.path.as_deref(), sockets);
        let mut successor = started.await?;
        successor.ready(within).await?;
        let pid = successor.go().await?;
        kept.listeners.hand_over();
        self.control.close();
        Ok((successor, pid))
    }

    /// Reads the configuration anew and starts all of its plugins, or just some of them, by name. What is worth knowing about it; or why all is as it was.
    async fn reload(&mut self, plugins: &[String]) -> Answer {
        service_manager::tell(State::Reloading);
        let reloaded = self.renew(plugins).await;
        service_manager::tell(State::Ready);
        reloaded
    }

    async fn renew(&mut self, plugins: &[String]) -> Answer {
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
        ("run_as", first.run_as == now.run_as),
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
