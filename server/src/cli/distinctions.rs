//! From `[domain."…"]` and `[user."…"]` to what is in force for their recipients.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use gatepost_protocol::{Policy, SettingError, Settings, Value};

use super::assemble::{Running, Workshop};
use super::origins::origins;
use crate::chain::{Chain, Distinct, Distinctions, Made, Rules, Special};
use crate::config::{Mistakes, Override, PluginConfig, PluginKind, Scope};

/// What differs for the recipients of every domain and user that has settings of its own.
pub(super) fn all(
    workshop: &Workshop<'_>,
    running: &HashMap<Arc<str>, Running>,
) -> Result<Distinctions, Mistakes> {
    let scopes = &workshop.config.scopes;
    let mut bench = Bench {
        workshop,
        running,
        mistakes: Mistakes::default(),
    };
    let mut distinctions = Distinctions::default();
    for (name, scope) in &scopes.domains {
        let distinct = bench.distinct(&[scope]);
        distinctions.domains.insert(name.clone(), distinct);
    }
    for (name, scope) in &scopes.users {
        let domain = name.rsplit_once('@').map_or("", |(_, domain)| domain);
        let scopes: Vec<&Scope> = scopes
            .domains
            .get(domain)
            .into_iter()
            .chain([scope])
            .collect();
        distinctions
            .users
            .insert(name.clone(), bench.distinct(&scopes));
    }
    if bench.mistakes.is_empty() {
        Ok(distinctions)
    } else {
        Err(Mistakes::new(bench.mistakes.iter().cloned().collect()))
    }
}

struct Bench<'a> {
    workshop: &'a Workshop<'a>,
    running: &'a HashMap<Arc<str>, Running>,
    mistakes: Mistakes,
}

impl Bench<'_> {
    /// What differs where these scopes hold, each over those before it.
    fn distinct(&mut self, scopes: &[&Scope]) -> Distinct {
        let own = scopes.iter().flat_map(|scope| &scope.plugins);
        let own: Vec<_> = own
            .map(|plugin| self.running[&plugin.name].entry.clone())
            .collect();
        let plugins = &self.workshop.config.plugins;
        let specials = plugins.iter().filter_map(|plugin| {
            let overrides = scopes.iter().flat_map(|scope| &scope.overrides);
            let overrides: Vec<&Override> =
                overrides.filter(|own| own.plugin == plugin.name).collect();
            if overrides.is_empty() {
                return None;
            }
            match self.special(plugin, &overrides) {
                Ok(special) => Some(special),
                Err(errors) => {
                    self.note(scopes, &overrides, errors);
                    None
                }
            }
        });
        Distinct {
            specials: specials.collect(),
            own: (!own.is_empty()).then(|| Arc::new(Chain::new(own))),
            max_size: scopes.iter().rev().find_map(|scope| scope.max_size),
        }
    }

    /// Shows each wrong setting where it was set; what a domain has wrong is not shown again for its users.
    fn note(&mut self, scopes: &[&Scope], overrides: &[&Override], errors: Vec<SettingError>) {
        let innermost = scopes.last().map_or(&[][..], |scope| &scope.overrides);
        for error in errors {
            let sets = |own: &&&Override| {
                let key = error.path.first();
                key.is_none_or(|key| own.settings.contains_key(key))
            };
            let at = overrides.iter().rev().find(sets).or(overrides.last());
            if let Some(own) = at.filter(|own| innermost.iter().any(|it| std::ptr::eq(it, **own))) {
                self.mistakes
                    .extend(Mistakes::from_override(own, vec![error]));
            }
        }
    }

    fn special(
        &self,
        plugin: &PluginConfig,
        overrides: &[&Override],
    ) -> Result<Special, Vec<SettingError>> {
        let running = &self.running[&plugin.name];
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
        let made = if settings == plugin.settings {
            None
        } else {
            Some(self.make(plugin, running, settings)?)
        };
        Ok(Special {
            plugin: plugin.name.clone(),
            rules: Rules::new(policy, running.policy, loglevel, timeout).shadowed(plugin.shadow),
            origins: origins(plugin, overrides, running.policy),
            made,
        })
    }

    fn make(
        &self,
        plugin: &PluginConfig,
        running: &Running,
        settings: BTreeMap<String, Value>,
    ) -> Result<Made, Vec<SettingError>> {
        let whole = |message: &str| {
            vec![SettingError {
                path: Vec::new(),
                message: message.to_owned(),
            }]
        };
        let made = match (&plugin.kind, &running.declared) {
            (PluginKind::BuiltIn(name), _) => {
                Some(self.workshop.build(name, &plugin.name, &settings)?)
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
        Ok(Made {
            settings,
            plugin: made,
        })
    }
}
