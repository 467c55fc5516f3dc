//! From the configured plugins to running processes.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use gatepost_protocol::wire::{InitErrorItem, InitPlugin};
use gatepost_protocol::{Plugin, Value};
use tokio::runtime::Handle;

use super::Core;
use super::declare::{self, Declared};
use super::foreign::Foreign;
use super::process::{Process, Target};
use super::seating::Slot;
use super::supervise::LaunchError;
use crate::config::{PluginConfig, PluginKind};

/// All plugin processes of a configuration. Each is ended with the last that has it, if nobody did so before.
#[derive(Clone)]
pub struct Processes(Vec<Arc<Owned>>);

struct Owned(Arc<Process>);

impl Drop for Owned {
    fn drop(&mut self) {
        let process = self.0.clone();
        // At the end of the runtime the system ends it, when its channels close.
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(async move { process.shutdown(Duration::ZERO).await });
        }
    }
}

/// A plugin in another process, ready to be put into the chain.
pub struct Started {
    /// Its name in the configuration.
    pub name: Arc<str>,
    /// The plugin.
    pub plugin: Arc<dyn Plugin>,
    /// What it declared.
    pub declared: Declared,
    /// The process it lives in.
    pub process: Arc<Process>,
}

/// Why a plugin did not start, for the operator.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct StartError {
    /// The plugin; the first one of its process, where it is the process that failed.
    pub plugin: Arc<str>,
    /// Keys and indices (from 0) that lead to the setting it is about; empty where it is about none.
    pub path: Vec<String>,
    /// What happened, and what to do.
    pub message: String,
}

impl Processes {
    /// Starts what the configuration has of plugin processes, and attaches to those that somebody else runs. The plugins come in the order
    /// of the configuration. An error is all that is wrong; nothing runs on then.
    pub async fn start(
        plugins: &[PluginConfig],
        core: &Core,
    ) -> Result<(Processes, Vec<Started>), Vec<StartError>> {
        Processes::start_beside(plugins, core, &Processes(Vec::new()), |_| true).await
    }

    /// The same, where others run already: of these a process is taken over as it is, if it is the same by the configuration and no plugin in it is to be `renewed`.
    pub async fn start_beside(
        plugins: &[PluginConfig],
        core: &Core,
        others: &Processes,
        renewed: impl Fn(&str) -> bool,
    ) -> Result<(Processes, Vec<Started>), Vec<StartError>> {
        let processes = group(plugins).into_iter().map(|(target, members)| {
            let process = process(target, &members, core);
            let is_renewed = process.plugins.iter().any(|plugin| renewed(plugin));
            let other = others.0.iter().find(|other| other.0.is_like(&process));
            match other.filter(|_| !is_renewed) {
                Some(other) => (other.clone(), false),
                None => (Arc::new(Owned(process)), true),
            }
        });
        let processes: Vec<(Arc<Owned>, bool)> = processes.collect();
        let new = processes.iter().filter(|(_, is_new)| *is_new);
        let results = join_all(new.map(|(process, _)| process.0.start())).await;
        let errors: Vec<StartError> = results
            .into_iter()
            .filter_map(Result::err)
            .flatten()
            .collect();
        if !errors.is_empty() {
            let new = processes.iter().filter(|(_, is_new)| *is_new);
            join_all(new.map(|(process, _)| process.0.shutdown(Duration::ZERO))).await;
            return Err(errors);
        }
        let processes = processes.into_iter().map(|(process, _)| process);
        let processes = Processes(processes.collect());
        let started = plugins
            .iter()
            .filter_map(|plugin| processes.started(&plugin.name))
            .collect();
        Ok((processes, started))
    }

    fn started(&self, name: &Arc<str>) -> Option<Started> {
        self.iter().find_map(|process| {
            let at = process.plugins.iter().position(|plugin| plugin == name)?;
            let declared = process.declared.get()?.get(at)?.clone();
            Some(Started {
                name: name.clone(),
                plugin: Arc::new(Foreign::new(name.clone(), process.clone(), &declared)),
                declared,
                process: process.clone(),
            })
        })
    }

    /// The processes, in the order of their first plugins.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Process>> {
        self.0.iter().map(|owned| &owned.0)
    }

    /// From now on plugins in them are told of the log.
    pub fn follow(&self) {
        self.iter().for_each(Process::follow);
    }

    /// Others have taken their place, but for those that are among them: of the log they are told no more than what is about sessions of theirs.
    pub fn retire(&self, others: &Processes) {
        let is_other = |process: &&Arc<Process>| !others.iter().any(|it| Arc::ptr_eq(it, process));
        self.iter().filter(is_other).for_each(Process::retire);
    }

    /// Ends them all: running requests may take `grace`.
    pub async fn shutdown(&self, grace: Duration) {
        join_all(self.iter().map(|process| process.shutdown(grace))).await;
    }
}

/// Which plugins share a process: those with an equal program, and those at one socket.
fn group(plugins: &[PluginConfig]) -> Vec<(Target, Vec<&PluginConfig>)> {
    let mut groups: Vec<(Target, Vec<&PluginConfig>)> = Vec::new();
    for plugin in plugins {
        let target = match &plugin.kind {
            PluginKind::BuiltIn(_) => continue,
            PluginKind::Run(program) => Target::Run(program.clone()),
            PluginKind::Attach(path) => Target::Attach(path.clone()),
        };
        match groups.iter_mut().find(|(known, _)| *known == target) {
            Some((_, members)) => members.push(plugin),
            None => groups.push((target, vec![plugin])),
        }
    }
    groups
}

fn process(target: Target, members: &[&PluginConfig], core: &Core) -> Arc<Process> {
    let named = match &target {
        Target::Run(program) => program.process.as_deref(),
        Target::Attach(_) => None,
    };
    let first = &members[0].name;
    let name = match (named, members.len()) {
        (Some(name), _) => name.into(),
        (None, 1) => first.clone(),
        (None, number) => format!("{first}+{}", number - 1).into(),
    };
    let init = members.iter().map(|plugin| InitPlugin {
        name: plugin.name.to_string(),
        source: plugin.source.name.clone(),
        dirs: plugin.source.dirs.clone(),
        settings: plugin.settings.clone(),
        args: plugin.source.args.clone(),
    });
    Process::new(name, target, init.collect(), core.clone())
}

impl Process {
    /// Whether another is the same by the configuration.
    fn is_like(&self, other: &Process) -> bool {
        let (core, its) = (&self.core, &other.core);
        self.target == other.target
            && self.init == other.init
            && core.hostname == its.hostname
            && core.spool_dir == its.spool_dir
    }

    /// Brings up the least number of workers, and learns from the first what its plugins declare.
    async fn start(self: &Arc<Process>) -> Result<(), Vec<StartError>> {
        // One first: what is wrong with it is wrong with all of them, and worth saying once.
        let first = self.launch(0).await.map_err(|error| self.errors(error))?;
        match declare::read(&first.ready, &self.plugins) {
            Ok(mut declared) => {
                for plugin in &mut declared {
                    plugin.takes_settings = first.worker.takes_settings();
                }
                drop(self.declared.set(declared));
            }
            Err(mistakes) => {
                self.discard(first).await;
                return Err(mistakes
                    .into_iter()
                    .map(|(plugin, message)| StartError {
                        plugin,
                        path: Vec::new(),
                        message,
                    })
                    .collect());
            }
        }
        let (least, _) = self.bounds();
        let more = join_all((1..least).map(|index| self.launch(index))).await;
        let mut errors = Vec::new();
        let workers = std::iter::once(Ok(first)).chain(more);
        for (index, worker) in workers.enumerate() {
            match worker {
                Ok(launched) => {
                    self.pool().slots.push(launched.slot());
                    self.tasks
                        .spawn(self.clone().supervise(index, Some(launched)));
                }
                Err(error) => {
                    self.pool().slots.push(Slot::Starting);
                    errors.extend(self.errors(error));
                }
            }
        }
        if errors.is_empty() {
            Ok(())
        } else {
            Err(errors)
        }
    }

    fn errors(&self, error: LaunchError) -> Vec<StartError> {
        let first = &self.plugins[0];
        match error {
            LaunchError::Failed(message) => vec![StartError {
                plugin: first.clone(),
                path: Vec::new(),
                message,
            }],
            LaunchError::Settings(items) => {
                items.into_iter().map(|item| self.setting(item)).collect()
            }
        }
    }

    fn setting(&self, item: InitErrorItem) -> StartError {
        let mut plugins = self.plugins.iter();
        let plugin = plugins.find(|plugin| ***plugin == *item.plugin);
        let path = item.path.iter().map(|part| match part {
            Value::Integer(index) => index.to_string(),
            key => key.as_text().unwrap_or("?").to_owned(),
        });
        StartError {
            plugin: plugin.unwrap_or(&self.plugins[0]).clone(),
            path: path.collect(),
            message: super::capture::printable(&item.message),
        }
    }
}
