//! Puts the rooms together: from a configuration to a chain whose plugins all run.

use std::collections::HashMap;
use std::path::Path;
use std::process::ExitCode;
use std::sync::{Arc, Weak};
use std::time::Duration;

use gatepost_protocol::{
    Args, Definition, Hook, Init, Plugin, Policy, Services, SettingError, Settings, Verdict,
};
use tokio::runtime::Runtime;

use super::{FAILED, MISTAKE};
use crate::chain::{Chain, Entry, Rules, Visit};
use crate::config::{self, Config, FlatFiles, LevelChange, Mistakes, PluginConfig, PluginKind};
use crate::host::{self, Declared, Processes, StartError, Started};
use crate::listen::tls::Credentials;
use crate::services::{Core, DnsConfig};
use crate::{plugins, report};

/// A chain whose plugins run, and all it stands on.
pub struct Assembled {
    pub config: Arc<Config>,
    pub chain: Arc<Chain>,
    pub processes: Processes,
    /// What the plugins ask, for the core's own flat files.
    pub services: Arc<dyn Services>,
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
    let mut mistakes = Mistakes::default();
    let mut entries: HashMap<&str, Entry> = HashMap::new();
    for plugin in &config.plugins {
        if let PluginKind::BuiltIn(name) = &plugin.kind {
            match build(config, definitions, name, plugin, &services) {
                Ok(instance) => {
                    let policy = instance.policy();
                    entries.insert(&plugin.name, entry(plugin, instance, policy, None));
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
    let configured = |name: &str| config.plugins.iter().find(|plugin| &*plugin.name == name);
    let processes = match Processes::start(&config.plugins, &core).await {
        Ok((processes, started)) => {
            for Started {
                name,
                plugin: instance,
                declared,
                ..
            } in started
            {
                let plugin = configured(&name).expect("what was started was configured");
                match check_declared(&declared, plugin) {
                    Ok(level) => drop(entries.insert(
                        &plugin.name,
                        entry(plugin, instance, declared.policy, level),
                    )),
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
    match processes {
        Some(processes) if mistakes.is_empty() => {
            let in_order = config
                .plugins
                .iter()
                .filter_map(|plugin| entries.remove(&*plugin.name));
            let chain = Arc::new(Chain::new(in_order.collect()));
            if chain.asks(Hook::Config) {
                // The chain's plugins hold the services: not to be held by them in turn.
                let chain = Arc::downgrade(&chain);
                core_services.ask_first(Box::new(move |name| {
                    Box::pin(ask_for_file(chain.clone(), name.to_owned()))
                }));
            }
            Ok((chain, processes))
        }
        processes => {
            if let Some(processes) = processes {
                processes.shutdown(Duration::ZERO).await;
            }
            Err(mistakes)
        }
    }
}

/// The hook `config`: it belongs to no session.
async fn ask_for_file(chain: Weak<Chain>, name: String) -> Option<Vec<String>> {
    let chain = chain.upgrade()?;
    let args = Args::Name(name.as_str().into());
    let mut visit = Visit::default();
    let decision = chain.run(&mut visit, Hook::Config, &args, None).await;
    (decision.verdict == Verdict::Ok).then_some(decision.values)
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

fn build(
    config: &Config,
    definitions: &[Definition],
    name: &str,
    plugin: &PluginConfig,
    services: &Arc<dyn Services>,
) -> Result<Arc<dyn Plugin>, Vec<SettingError>> {
    let definition = definitions
        .iter()
        .find(|definition| definition.name == name)
        .expect("the configuration takes no built-in that there is not");
    let settings = Settings::check(&(definition.settings)(), &plugin.settings)?;
    (definition.build)(Init {
        name: plugin.name.to_string(),
        source: None,
        settings,
        hostname: config.hostname.clone(),
        services: services.clone(),
        scratch_dir: None,
    })
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
        ),
        when: plugin.when.clone(),
    }
}
