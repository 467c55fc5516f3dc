//! The plugins of one channel: each as `init` has it made, and other instances of it for the settings in force that come with a hook
//! (docs/protocol.md §4).

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use crate::Hook;
use crate::plugin::{Definition, Init, Plugin};
use crate::services::Services;
use crate::settings::{SettingError, Settings};
use crate::value::Value;
use crate::wire;

/// How many other instances of a plugin are kept. The one that was not asked for longest goes, and is made again when it is wanted.
const MAX_OTHERS: usize = 64;

type Given = BTreeMap<String, Value>;

/// What every plugin of the channel is made from.
struct Maker {
    definitions: &'static [Definition],
    hostname: String,
    scratch_dir: Option<PathBuf>,
    services: Arc<dyn Services>,
}

struct Hosted {
    definition: &'static Definition,
    source: Option<String>,
    plugin: Arc<dyn Plugin>,
    /// The one that was asked last stands last.
    others: Mutex<Vec<Other>>,
}

struct Other {
    given: Given,
    plugin: Arc<dyn Plugin>,
    hooks: Vec<Hook>,
}

/// The plugins of one channel.
pub(super) struct Plugins {
    maker: Maker,
    hosted: HashMap<String, Hosted>,
    /// By session, the other instances that were asked about it: they are to know of its end.
    asked: Mutex<HashMap<String, Vec<Asked>>>,
}

struct Asked {
    name: String,
    other: Weak<dyn Plugin>,
}

impl Plugins {
    /// Makes those of `init`; gives them with what `ready` says of them, or all that is wrong.
    pub fn make(
        definitions: &'static [Definition],
        init: wire::Init,
        services: Arc<dyn Services>,
    ) -> Result<(Plugins, Vec<wire::ReadyPlugin>), Vec<wire::InitErrorItem>> {
        let maker = Maker {
            definitions,
            hostname: init.hostname,
            scratch_dir: init.scratch_dir,
            services,
        };
        let mut hosted = HashMap::new();
        let mut ready = Vec::new();
        let mut errors = Vec::new();
        for item in init.plugins {
            match maker.first(&item) {
                Ok(one) => {
                    ready.push(announce(one.definition, &item.name, &*one.plugin));
                    hosted.insert(item.name, one);
                }
                Err(mistakes) => errors.extend(mistakes.into_iter().map(|error| {
                    let path = error.path.iter().map(|step| Value::from(step.as_str()));
                    wire::InitErrorItem {
                        plugin: item.name.clone(),
                        path: path.collect(),
                        message: error.message,
                    }
                })),
            }
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        let plugins = Plugins {
            maker,
            hosted,
            asked: Mutex::default(),
        };
        Ok((plugins, ready))
    }

    /// The instance of a plugin that a hook is for; `None` where by these settings it takes no part in it. An error says why there is none.
    pub fn get(
        &self,
        name: &str,
        hook: Hook,
        message: &wire::HookMessage<'_>,
    ) -> Result<Option<Arc<dyn Plugin>>, String> {
        let Some(hosted) = self.hosted.get(name) else {
            return Err("this process has no plugin of that name".to_owned());
        };
        let in_force = message.settings.as_ref().and_then(|all| all.get(name));
        let Some(in_force) = in_force else {
            return Ok(Some(hosted.plugin.clone()));
        };
        let other = hosted.other(&self.maker, name, in_force, hook);
        let Some(plugin) = other.map_err(|errors| refused(&errors))? else {
            return Ok(None);
        };
        let mut asked = lock(&self.asked);
        let asked = asked.entry(message.session.to_string()).or_default();
        let same = |asked: &Asked| std::ptr::addr_eq(asked.other.as_ptr(), Arc::as_ptr(&plugin));
        if !asked.iter().any(same) {
            asked.retain(|asked| asked.other.strong_count() > 0);
            asked.push(Asked {
                name: name.to_owned(),
                other: Arc::downgrade(&plugin),
            });
        }
        Ok(Some(plugin))
    }

    /// Who is to be told of an event: the plugin; of the end of a session or transaction also its other instances that were asked about the session.
    pub fn observers(&self, name: &str, message: &wire::HookMessage<'_>) -> Vec<Arc<dyn Plugin>> {
        let mut told: Vec<_> = self
            .hosted
            .get(name)
            .map(|it| it.plugin.clone())
            .into_iter()
            .collect();
        if matches!(&*message.hook, "reset_transaction" | "disconnect")
            && let Some(asked) = lock(&self.asked).get(&*message.session)
        {
            let others = asked.iter().filter(|asked| asked.name == name);
            told.extend(others.filter_map(|asked| asked.other.upgrade()));
        }
        told
    }

    /// The session is over.
    pub fn forget(&self, session: &str) {
        lock(&self.asked).remove(session);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn refused(errors: &[SettingError]) -> String {
    let errors: Vec<String> = errors
        .iter()
        .map(|error| match error.path.as_slice() {
            [] => error.message.clone(),
            path => format!("{}: {}", path.join("."), error.message),
        })
        .collect();
    format!(
        "the settings in force cannot be used: {}",
        errors.join("; ")
    )
}

impl Hosted {
    /// The instance that is made from these settings, if it takes part in the hook.
    fn other(
        &self,
        maker: &Maker,
        name: &str,
        given: &Given,
        hook: Hook,
    ) -> Result<Option<Arc<dyn Plugin>>, Vec<SettingError>> {
        let mut others = lock(&self.others);
        let known = others.iter().rposition(|other| other.given == *given);
        let other = match known {
            Some(at) => others.remove(at),
            None => {
                let plugin = maker.make(self.definition, name, self.source.clone(), given)?;
                if others.len() == MAX_OTHERS {
                    others.remove(0);
                }
                let subscriptions = plugin.subscriptions().into_iter();
                Other {
                    given: given.clone(),
                    hooks: subscriptions
                        .map(|subscription| subscription.hook)
                        .collect(),
                    plugin,
                }
            }
        };
        let takes_part = other.hooks.contains(&hook);
        let plugin = takes_part.then(|| other.plugin.clone());
        others.push(other);
        Ok(plugin)
    }
}

impl Maker {
    fn first(&self, item: &wire::InitPlugin) -> Result<Hosted, Vec<SettingError>> {
        let definition = self.definition(item).ok_or_else(|| {
            let known = self.definitions.iter().map(|definition| definition.name);
            let known: Vec<&str> = known.collect();
            let message = format!(
                "this program has no plugin of that name; it has {}",
                known.join(", ")
            );
            vec![SettingError {
                path: Vec::new(),
                message,
            }]
        })?;
        let plugin = self.make(definition, &item.name, item.source.clone(), &item.settings)?;
        Ok(Hosted {
            definition,
            source: item.source.clone(),
            plugin,
            others: Mutex::default(),
        })
    }

    fn make(
        &self,
        definition: &Definition,
        name: &str,
        source: Option<String>,
        given: &Given,
    ) -> Result<Arc<dyn Plugin>, Vec<SettingError>> {
        (definition.build)(Init {
            name: name.to_owned(),
            source,
            settings: Settings::check(&(definition.settings)(), given)?,
            hostname: self.hostname.clone(),
            services: self.services.clone(),
            scratch_dir: self.scratch_dir.clone(),
        })
    }

    fn definition(&self, item: &wire::InitPlugin) -> Option<&'static Definition> {
        let named = |name: &str| {
            self.definitions
                .iter()
                .find(|definition| definition.name == name)
        };
        let plain = item.name.split(':').next().unwrap_or(&item.name);
        item.source
            .as_deref()
            .and_then(named)
            .or_else(|| named(plain))
            .or(match self.definitions {
                [only] => Some(only),
                _ => None,
            })
    }
}

fn announce(definition: &Definition, name: &str, plugin: &dyn Plugin) -> wire::ReadyPlugin {
    let hooks = plugin
        .subscriptions()
        .into_iter()
        .map(|subscription| wire::ReadyHook {
            hook: subscription.hook.name().to_owned(),
            mode: subscription.observe.then(|| "observe".to_owned()),
            fields: subscription
                .wants
                .fields
                .iter()
                .map(|field| field.name().to_owned())
                .collect(),
            reads: subscription.wants.notes,
            timeout_ms: subscription
                .timeout
                .map(|timeout| u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX)),
            priority: subscription.priority.to_value(),
        });
    let policy = plugin.policy();
    wire::ReadyPlugin {
        name: name.to_owned(),
        hooks: hooks.collect(),
        settings: Some((definition.settings)()),
        policy: Some(wire::ReadyPolicy {
            reject: policy.reject,
            reject_type: policy.reject_type,
            on_error: policy.on_error,
            immune: policy.immune,
            loglevel: None,
        }),
    }
}
