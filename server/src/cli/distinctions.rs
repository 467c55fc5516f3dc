//! From `[domain."…"]` and `[user."…"]`, and what single users have elsewhere, to what is in force for their recipients.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use gatepost_protocol::{Policy, SettingError, Settings, Value};

use super::assemble::{Running, Workshop};
use super::origins::origins;
use crate::chain::{Chain, Distinct, Distinctions, Entry, Made, Rules, Special};
use crate::config::{Mistake, Mistakes, Override, PluginConfig, PluginKind, Scope};
use crate::plugins;

/// Flat files of a user, which stand over the site's.
#[derive(Clone, Copy)]
pub(super) struct Files<'a> {
    pub folder: &'a Path,
    pub names: &'a BTreeSet<String>,
}

/// What differs for the recipients of every domain and user that has settings of its own in the configuration.
pub(super) fn all(workshop: &Workshop) -> Result<Distinctions, Mistakes> {
    let scopes = &workshop.config.scopes;
    let mut bench = Bench {
        workshop,
        files: None,
        mistakes: Mistakes::default(),
    };
    let mut distinctions = Distinctions::default();
    for (name, scope) in &scopes.domains {
        let distinct = bench.distinct(&[scope], &[scope]);
        distinctions.domains.insert(name.clone(), distinct);
    }
    for (name, scope) in &scopes.users {
        let domain = name.rsplit_once('@').map_or("", |(_, domain)| domain);
        let domain = scopes.domains.get(domain);
        let scopes: Vec<&Scope> = domain.into_iter().chain([scope]).collect();
        // What a domain has wrong is not shown again for its users.
        distinctions
            .users
            .insert(name.clone(), bench.distinct(&scopes, &[scope]));
    }
    if bench.mistakes.is_empty() {
        Ok(distinctions)
    } else {
        Err(Mistakes::new(bench.mistakes.iter().cloned().collect()))
    }
}

/// What differs for a user with these scopes, each over those before it, and with flat files.
pub(super) fn one(
    workshop: &Workshop,
    scopes: &[&Scope],
    files: Option<Files<'_>>,
) -> Result<Distinct, Mistakes> {
    let mut bench = Bench {
        workshop,
        files,
        mistakes: Mistakes::default(),
    };
    let distinct = bench.distinct(scopes, scopes);
    if bench.mistakes.is_empty() {
        Ok(distinct)
    } else {
        Err(bench.mistakes)
    }
}

struct Bench<'a> {
    workshop: &'a Workshop,
    files: Option<Files<'a>>,
    mistakes: Mistakes,
}

impl Bench<'_> {
    /// What differs where these scopes hold, each over those before it. What is wrong is shown where it is one of `shown`.
    fn distinct(&mut self, scopes: &[&Scope], shown: &[&Scope]) -> Distinct {
        let own = self.own_plugins(scopes);
        let workshop = self.workshop;
        let mut specials = Vec::new();
        for plugin in &workshop.config.plugins {
            let overrides = scopes.iter().flat_map(|scope| &scope.overrides);
            let overrides: Vec<&Override> =
                overrides.filter(|own| own.plugin == plugin.name).collect();
            let files = self.files_for(plugin);
            if overrides.is_empty() && files.is_empty() {
                continue;
            }
            match self.special(plugin, &overrides, files) {
                Ok(special) => specials.push(special),
                Err(errors) => self.note(shown, &overrides, errors),
            }
        }
        Distinct {
            specials,
            own: (!own.is_empty()).then(|| Arc::new(Chain::new(own))),
            max_size: scopes.iter().rev().find_map(|scope| scope.max_size.clone()),
        }
    }

    /// Plugins that only these recipients have: those of the configuration run already. Of two with one name the innermost is taken.
    fn own_plugins(&mut self, scopes: &[&Scope]) -> Vec<Entry> {
        let workshop = self.workshop;
        let mut entries: Vec<Entry> = Vec::new();
        for scope in scopes {
            let mut configured = workshop.config.scopes.all();
            let runs = configured.any(|other| std::ptr::eq(other, *scope));
            for plugin in &scope.plugins {
                let entry = match (&plugin.kind, runs) {
                    (PluginKind::BuiltIn(name), false) => {
                        let files = self.files_for(plugin);
                        let built = workshop.build(name, &plugin.name, &plugin.settings, &files);
                        built
                            .map(|instance| Running::built_in(plugin, instance).entry)
                            .map_err(|errors| Mistakes::from_settings(plugin, errors))
                    }
                    _ => Ok(workshop.running[&plugin.name].entry.clone()),
                };
                match entry {
                    Ok(entry) => {
                        entries.retain(|other| other.name != entry.name);
                        entries.push(entry);
                    }
                    Err(mistakes) => self.mistakes.extend(mistakes),
                }
            }
        }
        entries
    }

    /// The flat files of the user that a built-in reads.
    fn files_for(&self, plugin: &PluginConfig) -> Vec<PathBuf> {
        let (Some(files), PluginKind::BuiltIn(name)) = (self.files, &plugin.kind) else {
            return Vec::new();
        };
        let read = plugins::flat_files(name).iter();
        let own = read.filter(|name| files.names.contains(**name));
        own.map(|name| files.folder.join(name)).collect()
    }

    /// Shows each wrong setting where it was set.
    fn note(&mut self, shown: &[&Scope], overrides: &[&Override], errors: Vec<SettingError>) {
        for error in errors {
            let sets = |own: &&&Override| {
                let key = error.path.first();
                key.is_none_or(|key| own.settings.contains_key(key))
            };
            let at = overrides.iter().rev().find(sets).or(overrides.last());
            let is_shown = |own: &&&Override| {
                let mut shown = shown.iter().flat_map(|scope| &scope.overrides);
                shown.any(|it| std::ptr::eq(it, **own))
            };
            match (at, self.files) {
                (Some(own), _) => {
                    if let Some(own) = Some(own).filter(is_shown) {
                        self.mistakes
                            .extend(Mistakes::from_override(own, vec![error]));
                    }
                }
                (None, Some(files)) => {
                    let mistake = Mistake::in_file(files.folder, error.message);
                    self.mistakes.extend(mistake.into());
                }
                (None, None) => {}
            }
        }
    }

    fn special(
        &self,
        plugin: &PluginConfig,
        overrides: &[&Override],
        files: Vec<PathBuf>,
    ) -> Result<Special, Vec<SettingError>> {
        let running = &self.workshop.running[&plugin.name];
        let mut policy = plugin.policy;
        let mut loglevel = plugin.loglevel.or(running.level);
        let mut timeout = plugin.timeout;
        let mut settings = plugin.settings.clone();
        for own in overrides {
            policy = Policy {
                reject: own.policy.reject.or(policy.reject),
                reject_type: own.policy.reject_type.or(policy.reject_type),
                on_error: own.policy.on_error.or(policy.on_error),
                immune: own.policy.immune.or(policy.immune),
            };
            loglevel = own.loglevel.or(loglevel);
            timeout = own.timeout.or(timeout);
            settings.extend(own.settings.clone());
        }
        let origins = origins(plugin, overrides, &files, running.policy);
        let made = if settings == plugin.settings && files.is_empty() {
            None
        } else {
            Some(self.make(plugin, running, settings, files)?)
        };
        Ok(Special {
            plugin: plugin.name.clone(),
            rules: Rules::new(policy, running.policy, loglevel, timeout).shadowed(plugin.shadow),
            origins,
            made,
        })
    }

    fn make(
        &self,
        plugin: &PluginConfig,
        running: &Running,
        settings: BTreeMap<String, Value>,
        files: Vec<PathBuf>,
    ) -> Result<Arc<Made>, Vec<SettingError>> {
        if let Some(made) = self.workshop.made(&plugin.name, &settings, &files) {
            return Ok(made);
        }
        let whole = |message: &str| {
            vec![SettingError {
                path: Vec::new(),
                message: message.to_owned(),
            }]
        };
        let made = match (&plugin.kind, &running.declared) {
            (PluginKind::BuiltIn(name), _) => {
                Some(self.workshop.build(name, &plugin.name, &settings, &files)?)
            }
            (_, Some(declared)) if !declared.takes_settings => {
                return Err(whole(
                    "its process cannot be told of settings of single recipients: the SDK it is written with is too old",
                ));
            }
            (_, declared) => {
                if let Some(known) = declared.as_ref().and_then(|it| it.settings.as_ref()) {
                    Settings::check(known, &settings)?;
                }
                None
            }
        };
        let made = Arc::new(Made::new(settings, files, made));
        self.workshop.remember(&plugin.name, &made);
        Ok(made)
    }
}
