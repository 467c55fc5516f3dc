//! Puts the rooms together: from a configuration to a chain whose plugins all run.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::process::ExitCode;
use std::sync::{Arc, Weak};
use std::time::Duration;

use gatepost_protocol::settings::parse_duration;
use gatepost_protocol::{
    Address, Args, Definition, Hook, Init, Plugin, Policy, ServiceError, Services, SettingError,
    Settings, Validity, Value, Verdict,
};
use tokio::runtime::Runtime;

use super::origins::origins;
use super::{FAILED, MISTAKE, distinctions};
use crate::chain::{Chain, Entry, Rules, Visit};
use crate::config::{self, Config, FlatFiles, LevelChange, Mistakes, PluginConfig, PluginKind};
use crate::host::{self, Declared, Processes, StartError, Started};
use crate::listen::tls::Credentials;
use crate::services::{Core, DnsConfig, Told};
use crate::{plugins, report};

/// A chain whose plugins run, and all it stands on.
pub struct Assembled {
    pub config: Arc<Config>,
    pub chain: Arc<Chain>,
    pub processes: Processes,
    /// What plugins may ask; the core reads its own flat files by it, too.
    pub services: Arc<Core>,
    /// What TLS needs, where it is configured.
    pub credentials: Option<Arc<Credentials>>,
    pub runtime: Runtime,
}

/// Reads the configuration and starts every plugin. Where anything is wrong it is on standard error, all of it, and the exit code is returned.
pub fn start(path: Option<&Path>) -> Result<Assembled, ExitCode> {
    let definitions = plugins::all();
    let config = config::load(path, &definitions).map_err(|mistakes| wrong(&mistakes))?;
    if !config.warnings.is_empty() {
        eprintln!("{}", config.warnings);
    }
    let failed = |what: &str, error: std::io::Error| {
        eprintln!("{what}: {error}");
        ExitCode::from(FAILED)
    };
    report::start(config.loglevel, config.log_format)
        .map_err(|error| failed("the log cannot be started", error))?;
    let runtime =
        super::runtime().map_err(|error| failed("the runtime cannot be started", error))?;
    let credentials = credentials(&config);
    let services = services(&config);
    let assembled = runtime.block_on(assemble(&config, &definitions, &services));
    let (chain, processes, credentials) = match (assembled, credentials) {
        (Ok((chain, processes)), Ok(credentials)) => (chain, processes, credentials),
        (Ok((_, processes)), Err(mistakes)) => {
            runtime.block_on(processes.shutdown(Duration::ZERO));
            return Err(wrong(&mistakes));
        }
        (Err(mistakes), Ok(_)) => return Err(wrong(&mistakes)),
        (Err(others), Err(mut mistakes)) => {
            mistakes.extend(others);
            return Err(wrong(&mistakes));
        }
    };
    if !chain.asks(Hook::Queue) {
        eprintln!(
            "warning: no plugin takes part in the hook `queue`: every message will be answered 451; add one to the chain, such as queue/maildir"
        );
    }
    Ok(Assembled {
        config: Arc::new(config),
        chain,
        processes,
        services,
        credentials,
        runtime,
    })
}

/// Reads the certificates; what is doubtful about them is on standard error.
fn credentials(config: &Config) -> Result<Option<Arc<Credentials>>, Mistakes> {
    let Some(tls) = &config.tls else {
        return Ok(None);
    };
    match Credentials::read(tls) {
        Ok((credentials, mut warnings)) => {
            for warning in &mut warnings {
                warning.message.insert_str(0, "warning: ");
            }
            if !warnings.is_empty() {
                eprintln!("{}", Mistakes::in_tls(tls, warnings));
            }
            Ok(Some(credentials))
        }
        Err(errors) => Err(Mistakes::in_tls(tls, errors)),
    }
}

fn wrong(mistakes: &Mistakes) -> ExitCode {
    report::flush();
    eprintln!("{mistakes}");
    ExitCode::from(MISTAKE)
}

async fn assemble(
    config: &Config,
    definitions: &[Definition],
    core_services: &Arc<Core>,
) -> Result<(Arc<Chain>, Processes), Mistakes> {
    let services: Arc<dyn Services> = core_services.clone();
    let workshop = Workshop {
        config,
        definitions,
        services: services.clone(),
    };
    // Plugins that only some recipients have run like all others.
    let own = config.scopes.all().flat_map(|scope| &scope.plugins);
    let plugins: Vec<PluginConfig> = config.plugins.iter().chain(own).cloned().collect();
    let mut mistakes = Mistakes::default();
    let mut running: HashMap<Arc<str>, Running> = HashMap::new();
    for plugin in &plugins {
        if let PluginKind::BuiltIn(name) = &plugin.kind {
            match workshop.build(name, &plugin.name, &plugin.settings) {
                Ok(instance) => {
                    let running_one = Running::built_in(plugin, instance);
                    running.insert(plugin.name.clone(), running_one);
                }
                Err(errors) => mistakes.extend(Mistakes::from_settings(plugin, errors)),
            }
        }
    }
    let core = host::Core {
        hostname: config.hostname.clone(),
        spool_dir: config.spool_dir.clone(),
        services,
        patience: host::Patience::default(),
    };
    let configured = |name: &str| plugins.iter().find(|plugin| &*plugin.name == name);
    let processes = match Processes::start(&plugins, &core).await {
        Ok((processes, started)) => {
            for started in started {
                let plugin = configured(&started.name).expect("what was started was configured");
                match Running::foreign(plugin, started) {
                    Ok(one) => drop(running.insert(plugin.name.clone(), one)),
                    Err(errors) => mistakes.extend(Mistakes::from_settings(plugin, errors)),
                }
            }
            Some(processes)
        }
        Err(errors) => {
            for StartError {
                plugin,
                path,
                message,
            } in errors
            {
                let plugin = configured(&plugin).expect("what was to be started was configured");
                mistakes.extend(Mistakes::from_settings(
                    plugin,
                    vec![SettingError { path, message }],
                ));
            }
            None
        }
    };
    let chain = match &processes {
        Some(_) if mistakes.is_empty() => chain(&workshop, &running),
        _ => Err(mistakes),
    };
    match (chain, processes) {
        (Ok(chain), Some(processes)) => {
            if chain.asks(Hook::Config) {
                // The chain's plugins hold the services: not to be held by them in turn.
                let chain = Arc::downgrade(&chain);
                core_services.ask_first(Box::new(move |name| {
                    Box::pin(ask_for_file(chain.clone(), name.to_owned()))
                }));
            }
            if chain.asks(Hook::RecipientValid) {
                let chain = Arc::downgrade(&chain);
                core_services.ask_about_recipients(Box::new(move |address| {
                    Box::pin(ask_about_recipient(chain.clone(), address.clone()))
                }));
            }
            Ok((chain, processes))
        }
        (chain, processes) => {
            if let Some(processes) = processes {
                processes.shutdown(Duration::ZERO).await;
            }
            Err(chain.err().unwrap_or_default())
        }
    }
}

fn chain(
    workshop: &Workshop<'_>,
    running: &HashMap<Arc<str>, Running>,
) -> Result<Arc<Chain>, Mistakes> {
    let distinctions = distinctions::all(workshop, running)?;
    let plugins = workshop.config.plugins.iter();
    let entries = plugins.map(|plugin| running[&plugin.name].entry.clone());
    Ok(Arc::new(Chain::with_distinctions(
        entries.collect(),
        distinctions,
    )))
}

/// The hook `config`: it belongs to no session.
async fn ask_for_file(chain: Weak<Chain>, name: String) -> Option<Vec<String>> {
    let chain = chain.upgrade()?;
    let args = Args::Name(name.as_str().into());
    let mut visit = Visit::default();
    let decision = chain.run(&mut visit, Hook::Config, &args, None).await;
    (decision.verdict == Verdict::Ok).then_some(decision.values)
}

/// The hook `recipient_valid`: it belongs to no session; the settings are those in force for the address.
async fn ask_about_recipient(chain: Weak<Chain>, address: Address) -> Result<Told, ServiceError> {
    let gone = || ServiceError::temporary("the server is shutting down");
    let chain = chain.upgrade().ok_or_else(gone)?;
    let mut visit = Visit::default();
    visit.profile = chain.profile(&address).cloned();
    let args = Args::Recipient(Cow::Borrowed(&address));
    let hook = Hook::RecipientValid;
    let decision = chain.run(&mut visit, hook, &args, None).await;
    let validity = match decision.verdict {
        Verdict::Ok => Validity::Valid,
        verdict if verdict.is_denial() && verdict.is_soft() => {
            let plugin = decision.plugin.as_deref().unwrap_or_default();
            let why = format!(
                "{plugin} cannot tell now whether {} is ours",
                address.as_str()
            );
            return Err(ServiceError::temporary(why));
        }
        verdict if verdict.is_denial() => Validity::Invalid,
        _ => Validity::Unknown,
    };
    let keep = decision.values.first();
    let keep = keep.and_then(|text| parse_duration(text));
    Ok(Told { validity, keep })
}

fn services(config: &Config) -> Arc<Core> {
    let files = FlatFiles::new(config.flat_files.clone());
    Arc::new(Core::new(
        DnsConfig {
            server: config.dns_server,
            ..DnsConfig::default()
        },
        Arc::new(move |name| Ok(files.lines(name).to_vec())),
        config.state.clone(),
        Arc::new(|plugin, level, message| {
            report::line(level, "", None, plugin, format_args!("{message}"))
        }),
    ))
}

/// What plugins are made with.
pub(super) struct Workshop<'a> {
    pub config: &'a Config,
    definitions: &'a [Definition],
    services: Arc<dyn Services>,
}

impl Workshop<'_> {
    /// Makes a built-in; `name` is its name in the chain.
    pub(super) fn build(
        &self,
        built_in: &str,
        name: &str,
        settings: &BTreeMap<String, Value>,
    ) -> Result<Arc<dyn Plugin>, Vec<SettingError>> {
        let definition = self
            .definitions
            .iter()
            .find(|definition| definition.name == built_in)
            .expect("the configuration takes no built-in that there is not");
        let settings = Settings::check(&(definition.settings)(), settings)?;
        (definition.build)(Init {
            name: name.to_owned(),
            source: None,
            settings,
            hostname: self.config.hostname.clone(),
            services: self.services.clone(),
            scratch_dir: None,
        })
    }
}

/// A plugin that runs.
pub(super) struct Running {
    pub entry: Entry,
    /// Its own defaults for the uniform settings.
    pub policy: Policy,
    pub level: Option<LevelChange>,
    /// What it declared, where it is in another process.
    pub declared: Option<Declared>,
}

impl Running {
    fn built_in(plugin: &PluginConfig, instance: Arc<dyn Plugin>) -> Running {
        let policy = instance.policy();
        Running {
            entry: entry(plugin, instance, policy, None),
            policy,
            level: None,
            declared: None,
        }
    }

    /// Checks its configuration against what it declared.
    fn foreign(plugin: &PluginConfig, started: Started) -> Result<Running, Vec<SettingError>> {
        let declared = started.declared;
        let level = check_declared(&declared, plugin)?;
        let policy = declared.policy;
        Ok(Running {
            entry: entry(plugin, started.plugin, policy, level),
            policy,
            level,
            declared: Some(declared),
        })
    }
}

/// Checks the configuration of a plugin in another process against what it declared; returns its own default for `loglevel`.
fn check_declared(
    declared: &Declared,
    plugin: &PluginConfig,
) -> Result<Option<LevelChange>, Vec<SettingError>> {
    if let Some(settings) = &declared.settings {
        Settings::check(settings, &plugin.settings)?;
    }
    match &declared.loglevel {
        None => Ok(None),
        Some(text) => LevelChange::parse(text).map(Some).ok_or_else(|| {
            let message =
                format!("its `ready` has the loglevel `{text}`, which is no level, `+N` or `-N`");
            vec![SettingError {
                path: Vec::new(),
                message,
            }]
        }),
    }
}

fn entry(
    plugin: &PluginConfig,
    instance: Arc<dyn Plugin>,
    own: Policy,
    own_level: Option<LevelChange>,
) -> Entry {
    Entry {
        name: plugin.name.clone(),
        plugin: instance,
        rules: Rules::new(
            plugin.policy,
            own,
            plugin.loglevel.or(own_level),
            plugin.timeout,
        )
        .shadowed(plugin.shadow),
        origins: origins(plugin, &[], own),
        when: plugin.when.clone(),
    }
}
