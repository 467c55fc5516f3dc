//! Puts the rooms together: from a configuration to a chain whose plugins all run.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use gatepost_protocol::{
    Address, Args, Definition, Hook, Init, Plugin, Policy, ServiceError, Services, SettingError,
    Settings, Validity, Value, Verdict,
};
use tokio::runtime::Runtime;

use super::origins::origins;
use super::users::Users;
use super::{FAILED, MISTAKE, distinctions};
use crate::chain::{Chain, Entry, Made, Rules, Visit};
use crate::config::{self, Config, FlatFiles, LevelChange, Mistakes, PluginConfig, PluginKind};
use crate::host::{self, Declared, Processes, StartError, Started};
use crate::listen::tls::Credentials;
use crate::services::{
    ConfigHook, Core, DnsConfig, OwnFileHook, OwnFiles, RecipientHook, Told, kept_for,
};
use crate::{plugins, report};

/// A chain whose plugins run, and all it stands on.
pub struct Assembled {
    pub generation: Generation,
    /// What plugins may ask; the core reads its own flat files by it, too.
    pub services: Arc<Core>,
    pub runtime: Runtime,
}

/// What a configuration became. A reload makes another one.
pub struct Generation {
    pub config: Arc<Config>,
    pub chain: Arc<Chain>,
    /// Who has settings elsewhere than in the configuration, where anybody may have.
    pub users: Option<Arc<Users>>,
    /// They end with the chain.
    pub processes: Processes,
    /// What TLS needs, where it is configured.
    pub credentials: Option<Arc<Credentials>>,
}

impl Generation {
    /// From now on its flat files and its plugins answer what the core is asked, and its plugins are told of the log.
    pub fn answer_questions(&self, services: &Core) {
        let files = FlatFiles::new(self.config.flat_files.clone());
        services.read_files(Arc::new(move |name| Ok(files.lines(name)?.to_vec())));
        // The chain's plugins hold the services: not to be held by them in turn.
        let chain = Arc::downgrade(&self.chain);
        let hook: ConfigHook =
            Arc::new(move |name| Box::pin(ask_for_file(chain.clone(), name.to_owned())));
        services.ask_first(self.chain.asks(Hook::Config).then_some(hook));
        let chain = Arc::downgrade(&self.chain);
        let hook: RecipientHook =
            Box::new(move |address| Box::pin(ask_about_recipient(chain.clone(), address.clone())));
        services.ask_about_recipients(self.chain.asks(Hook::RecipientValid).then_some(hook));
        services.look_first(self.users.as_ref().map(|users| {
            let users = Arc::downgrade(users);
            let hook: OwnFileHook = Arc::new(move |name, address| {
                let (users, name, address) = (users.clone(), name.to_owned(), address.clone());
                Box::pin(async move { users.upgrade()?.own_file(name, address).await })
            });
            hook
        }));
        self.processes.follow();
    }
}

/// Reads the configuration and starts every plugin. Where anything is wrong it is on standard error, all of it, and the exit code is returned.
pub fn start(path: Option<&Path>) -> Result<Assembled, ExitCode> {
    start_with(path, |_| ())
}

/// The same with a configuration that is changed before anything starts.
pub fn start_with(
    path: Option<&Path>,
    change: impl FnOnce(&mut Config),
) -> Result<Assembled, ExitCode> {
    let started = read(path).and_then(|mut config| {
        change(&mut config);
        start_all(config)
    });
    started.map_err(|(code, text)| {
        report::flush();
        eprintln!("{text}");
        ExitCode::from(code)
    })
}

/// Why nothing can be started: an exit code, and what is wrong.
pub type Failure = (u8, String);

/// Reads the configuration.
pub fn read(path: Option<&Path>) -> Result<Config, Failure> {
    config::load(path, &plugins::all()).map_err(|mistakes| wrong(&mistakes))
}

/// Starts every plugin of a configuration. What is doubtful about it is on standard error.
pub fn start_all(config: Config) -> Result<Assembled, Failure> {
    if !config.warnings.is_empty() {
        eprintln!("{}", config.warnings);
    }
    let failed = |what: &str, error: std::io::Error| (FAILED, format!("{what}: {error}"));
    report::start(config.loglevel, config.log_format)
        .map_err(|error| failed("the log cannot be started", error))?;
    let config = Arc::new(config);
    let runtime =
        super::runtime().map_err(|error| failed("the runtime cannot be started", error))?;
    let services = services(&config);
    let made = runtime.block_on(make(config, plugins::all(), &services, None));
    let (generation, warnings) = made.map_err(|mistakes| wrong(&mistakes))?;
    if !warnings.is_empty() {
        eprintln!("{warnings}");
    }
    {
        let _runtime = runtime.enter();
        generation.answer_questions(&services);
    }
    Ok(Assembled {
        generation,
        services,
        runtime,
    })
}

/// The same for a daemon that runs: what is to be in force after a reload. Nothing that is in force is touched. Where plugins are `renewed` by name, the processes of others
/// are taken over from those of `before`, as far as they are the same.
///
/// # Errors
/// All that is wrong with the configuration, or with a plugin that does not start.
pub async fn again(
    path: Option<PathBuf>,
    services: &Arc<Core>,
    before: &Processes,
    renewed: &[String],
) -> Result<(Generation, String), String> {
    let definitions = plugins::all();
    let read = tokio::task::spawn_blocking(move || {
        let read = config::load(path.as_deref(), &definitions);
        read.map(|config| (config, definitions))
    });
    let read = read.await.map_err(|error| error.to_string())?;
    let (config, definitions) = read.map_err(|mistakes| mistakes.to_string())?;
    let doubtful = config.warnings.to_string();
    let own = config.scopes.all().flat_map(|scope| &scope.plugins);
    let names: Vec<&str> = config
        .plugins
        .iter()
        .chain(own)
        .map(|it| &*it.name)
        .collect();
    if let Some(unknown) = renewed.iter().find(|name| !names.contains(&name.as_str())) {
        return Err(format!(
            "there is no plugin `{unknown}` in the configuration"
        ));
    }
    let made = make(
        Arc::new(config),
        definitions,
        services,
        Some((before, renewed)),
    )
    .await;
    let (generation, warnings) = made.map_err(|mistakes| mistakes.to_string())?;
    let warnings = [doubtful, warnings]
        .into_iter()
        .filter(|text| !text.is_empty());
    Ok((generation, warnings.collect::<Vec<_>>().join("\n")))
}

/// Makes of a configuration what it says; and says what is doubtful about it.
async fn make(
    config: Arc<Config>,
    definitions: Vec<Definition>,
    services: &Arc<Core>,
    before: Option<(&Processes, &[String])>,
) -> Result<(Generation, String), Mistakes> {
    let credentials = credentials(&config);
    let assembled = assemble(&config, definitions, services, before).await;
    let (chain, users, processes, (credentials, mut warnings)) = match (assembled, credentials) {
        (Ok((chain, users, processes)), Ok(credentials)) => (chain, users, processes, credentials),
        // What was started ends with its last owner.
        (Ok(_), Err(mistakes)) => return Err(mistakes),
        (Err(mistakes), Ok(_)) => return Err(mistakes),
        (Err(others), Err(mut mistakes)) => {
            mistakes.extend(others);
            return Err(mistakes);
        }
    };
    if !chain.asks(Hook::Queue) {
        let nobody = "warning: no plugin takes part in the hook `queue`: every message will be answered 451; add one to the chain, such as queue/maildir";
        warnings = match warnings.is_empty() {
            true => nobody.to_owned(),
            false => format!("{warnings}\n{nobody}"),
        };
    }
    chain.hold(processes.clone());
    let generation = Generation {
        config,
        chain,
        users,
        processes,
        credentials,
    };
    Ok((generation, warnings))
}

/// Reads the certificates, and says what is doubtful about them.
fn credentials(config: &Config) -> Result<(Option<Arc<Credentials>>, String), Mistakes> {
    let Some(tls) = &config.tls else {
        return Ok((None, String::new()));
    };
    match Credentials::read(tls) {
        Ok((credentials, mut warnings)) => {
            for warning in &mut warnings {
                warning.message.insert_str(0, "warning: ");
            }
            let warnings = Mistakes::in_tls(tls, warnings).to_string();
            Ok((Some(credentials), warnings))
        }
        Err(errors) => Err(Mistakes::in_tls(tls, errors)),
    }
}

fn wrong(mistakes: &Mistakes) -> Failure {
    (MISTAKE, mistakes.to_string())
}

type Parts = (Arc<Chain>, Option<Arc<Users>>, Processes);

async fn assemble(
    config: &Arc<Config>,
    definitions: Vec<Definition>,
    services: &Arc<Core>,
    before: Option<(&Processes, &[String])>,
) -> Result<Parts, Mistakes> {
    let services: Arc<dyn Services> = services.clone();
    let mut workshop = Workshop {
        config: config.clone(),
        definitions,
        services: services.clone(),
        running: HashMap::new(),
        made: Mutex::default(),
    };
    // Plugins that only some recipients have run like all others.
    let own = config.scopes.all().flat_map(|scope| &scope.plugins);
    let plugins: Vec<PluginConfig> = config.plugins.iter().chain(own).cloned().collect();
    let mut mistakes = Mistakes::default();
    let mut running: HashMap<Arc<str>, Running> = HashMap::new();
    for plugin in &plugins {
        if let PluginKind::BuiltIn(name) = &plugin.kind {
            match workshop.build(name, &plugin.name, &plugin.settings, &[]) {
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
        dns_server: config.dns_server,
        services,
        patience: host::Patience::default(),
    };
    let configured = |name: &str| plugins.iter().find(|plugin| &*plugin.name == name);
    let started = match before {
        None => Processes::start(&plugins, &core).await,
        Some((others, renewed)) => {
            let is_renewed = |name: &str| renewed.is_empty() || renewed.iter().any(|it| it == name);
            Processes::start_beside(&plugins, &core, others, is_renewed).await
        }
    };
    let processes = match started {
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
    workshop.running = running;
    let chain = match &processes {
        Some(_) if mistakes.is_empty() => chain(&workshop),
        _ => Err(mistakes),
    };
    match (chain, processes) {
        (Ok(chain), Some(processes)) => {
            let users = Users::new(&Arc::new(workshop), &chain);
            if let Some(users) = users.clone() {
                chain.find_users(Box::new(move |address| {
                    Box::pin(users.clone().find(address.clone()))
                }));
            }
            Ok((chain, users, processes))
        }
        (chain, processes) => {
            // Others may have those that were there before.
            if let Some(processes) = processes.filter(|_| before.is_none()) {
                processes.shutdown(Duration::ZERO).await;
            }
            Err(chain.err().unwrap_or_default())
        }
    }
}

fn chain(workshop: &Workshop) -> Result<Arc<Chain>, Mistakes> {
    let mut distinctions = distinctions::all(workshop)?;
    let plugins = workshop.config.plugins.iter();
    let entries = plugins.map(|plugin| workshop.running[&plugin.name].entry.clone());
    let entries: Vec<Entry> = entries.collect();
    let brings_settings = |entry: &Entry| {
        let hooks = entry.plugin.subscriptions();
        hooks.iter().any(|it| it.hook == Hook::UserConfig)
    };
    distinctions.is_open =
        workshop.config.user_config.is_some() || entries.iter().any(brings_settings);
    Ok(Arc::new(Chain::with_distinctions(entries, distinctions)))
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
    let decision = match chain.profile(&address).await {
        Ok(profile) => {
            visit.profile = profile;
            let args = Args::Recipient(Cow::Borrowed(&address));
            let hook = Hook::RecipientValid;
            chain.run(&mut visit, hook, &args, None).await
        }
        Err(refusal) => *refusal,
    };
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
    let keep = kept_for(&decision.values, validity == Validity::Valid);
    Ok(Told { validity, keep })
}

fn services(config: &Config) -> Arc<Core> {
    let files = FlatFiles::new(config.flat_files.clone());
    Arc::new(Core::new(
        DnsConfig {
            server: config.dns_server,
            ..DnsConfig::default()
        },
        Arc::new(move |name| Ok(files.lines(name)?.to_vec())),
        config.state.clone(),
        Arc::new(|plugin, level, message| {
            let all = report::Audience::All;
            report::said(level, "", None, plugin, all, format_args!("{message}"))
        }),
    ))
}

/// What plugins are made with, and which there are.
pub(super) struct Workshop {
    pub config: Arc<Config>,
    pub definitions: Vec<Definition>,
    services: Arc<dyn Services>,
    /// What was started with the daemon.
    pub running: HashMap<Arc<str>, Running>,
    /// What was made from other settings and is in use, by the plugin's name in the chain.
    made: Mutex<HashMap<Arc<str>, Vec<Weak<Made>>>>,
}

impl Workshop {
    /// Makes a built-in; `name` is its name in the chain, `files` are flat files that stand over the site's for it.
    pub(super) fn build(
        &self,
        built_in: &str,
        name: &str,
        settings: &BTreeMap<String, Value>,
        files: &[PathBuf],
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
            services: self.services_with(files),
            scratch_dir: None,
        })
    }

    /// The services of who has these flat files, all of one folder, over the site's.
    fn services_with(&self, files: &[PathBuf]) -> Arc<dyn Services> {
        let Some(folder) = files.first().and_then(|file| file.parent()) else {
            return self.services.clone();
        };
        let name = |file: &PathBuf| Some(file.file_name()?.to_str()?.to_owned());
        let names = files.iter().filter_map(name).collect();
        let files = FlatFiles::new(folder.to_owned());
        Arc::new(OwnFiles {
            site: self.services.clone(),
            names,
            files: Arc::new(move |name| Ok(files.lines(name)?.to_vec())),
        })
    }

    /// What was made before from the same.
    pub(super) fn made(
        &self,
        plugin: &str,
        settings: &BTreeMap<String, Value>,
        files: &[PathBuf],
    ) -> Option<Arc<Made>> {
        let made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        let mut made = made.get(plugin)?.iter().filter_map(Weak::upgrade);
        made.find(|made| made.is_of(settings, files))
    }

    /// Remembers what was made, for as long as anybody has it.
    pub(super) fn remember(&self, plugin: &Arc<str>, new: &Arc<Made>) {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        let made = made.entry(plugin.clone()).or_default();
        made.retain(|made| made.strong_count() > 0);
        made.push(Arc::downgrade(new));
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
    /// A built-in, as configured.
    pub(super) fn built_in(plugin: &PluginConfig, instance: Arc<dyn Plugin>) -> Running {
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
        origins: origins(plugin, &[], &[], own),
        when: plugin.when.clone(),
    }
}
