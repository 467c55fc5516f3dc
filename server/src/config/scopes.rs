//! `[domain."…"]` and `[user."…"]`: settings that hold for some recipients only.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use gatepost_protocol::settings::{Kind, nearest};
use gatepost_protocol::{Address, Definition, Policy, Value, address};

use super::mistakes::Spans;
use super::origins::{self, MaxSize};
use super::plugin::{self, CORE_KEYS, Uniform};
use super::reader::{Item, Keys, Reader};
use super::types::{LevelChange, PluginConfig};
use super::{Location, core};

/// The uniform settings that a domain or a user may have of its own.
const OWN_KEYS: [&str; 6] = [
    "reject",
    "reject_type",
    "loglevel",
    "on_error",
    "immune",
    "timeout",
];

/// What holds for the recipients of a domain, or for one user.
#[derive(Clone, Debug, Default)]
pub struct Scope {
    /// Bytes of a message.
    pub max_size: Option<MaxSize>,
    /// Settings of their own for plugins of the chain.
    pub overrides: Vec<Override>,
    /// Plugins of their own, in order.
    pub plugins: Vec<PluginConfig>,
}

/// Settings for a plugin of the chain, over those that it has there.
#[derive(Clone, Debug)]
pub struct Override {
    /// Whose settings they are: `user."bob@example.org"`.
    pub owner: Arc<str>,
    /// The plugin's name in the chain.
    pub plugin: Arc<str>,
    /// Its own settings.
    pub settings: BTreeMap<String, Value>,
    /// The uniform settings.
    pub policy: Policy,
    /// Its `loglevel`.
    pub loglevel: Option<LevelChange>,
    /// Its deadline.
    pub timeout: Option<Duration>,
    /// Where it stands in the file, to say so in errors.
    pub location: Location,
    /// Where its settings stand in the file.
    pub spans: Spans,
}

/// All scopes, by their names in lower case.
#[derive(Clone, Debug, Default)]
pub struct Scopes {
    /// By domain.
    pub domains: BTreeMap<String, Scope>,
    /// By address.
    pub users: BTreeMap<String, Scope>,
}

impl Scopes {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.domains.is_empty() && self.users.is_empty()
    }

    /// Every scope.
    pub fn all(&self) -> impl Iterator<Item = &Scope> {
        self.domains.values().chain(self.users.values())
    }
}

/// Reads both tables; `chain` are the plugins that everybody has.
pub(super) fn read(
    reader: &mut Reader,
    keys: &mut Keys<'_>,
    chain: &[PluginConfig],
    sdk_perl: Option<&Path>,
    definitions: &[Definition],
) -> Scopes {
    let mut scopes = Scopes::default();
    let within = Within {
        chain,
        sdk_perl,
        definitions,
        runs_programs: true,
    };
    if let Some(item) = keys.get("domain") {
        within.read(
            reader,
            "domain",
            item,
            &mut scopes.domains,
            |reader, name, span| {
                if address::is_domain_utf8(name) {
                    return true;
                }
                let message =
                    format!("`{name}` is no domain; write one like [domain.\"example.org\"]");
                reader.mistake(span, message);
                false
            },
        );
    }
    if let Some(item) = keys.get("user") {
        within.read(
            reader,
            "user",
            item,
            &mut scopes.users,
            |reader, name, span| {
                if Address::parse_utf8(name).is_ok_and(|address| address.domain().is_some()) {
                    return true;
                }
                let message =
                    format!("`{name}` is no address; write one like [user.\"bob@example.org\"]");
                reader.mistake(span, message);
                false
            },
        );
    }
    scopes
}

/// Reads a user's settings that stand elsewhere; `address` is the user's, in lower case.
pub(super) fn read_user(
    reader: &mut Reader,
    keys: Keys<'_>,
    address: &str,
    chain: &[PluginConfig],
    definitions: &[Definition],
) -> Scope {
    let within = Within {
        chain,
        sdk_perl: None,
        definitions,
        runs_programs: false,
    };
    let owner = format!("user.\"{address}\"").into();
    within.scope(reader, address, &owner, keys)
}

/// What the scopes of a configuration refer to.
struct Within<'a> {
    chain: &'a [PluginConfig],
    sdk_perl: Option<&'a Path>,
    definitions: &'a [Definition],
    /// Whether plugins may be programs: these are started with the daemon.
    runs_programs: bool,
}

impl Within<'_> {
    fn read(
        &self,
        reader: &mut Reader,
        kind: &str,
        item: &Item<'_>,
        scopes: &mut BTreeMap<String, Scope>,
        is_name: impl Fn(&mut Reader, &str, Range<usize>) -> bool,
    ) {
        let Some(table) = reader.table(item) else {
            return;
        };
        for (name, span, item) in table.rest() {
            if !is_name(reader, name, span.clone()) {
                continue;
            }
            let owner = format!("{kind}.\"{name}\"").into();
            let Some(keys) = reader.table(item) else {
                continue;
            };
            let scope = self.scope(reader, name, &owner, keys);
            if scopes.insert(name.to_lowercase(), scope).is_some() {
                let message =
                    format!("`{name}` is there already; the case of letters does not count");
                reader.mistake(span, message);
            }
        }
    }

    fn scope(
        &self,
        reader: &mut Reader,
        name: &str,
        owner: &Arc<str>,
        mut keys: Keys<'_>,
    ) -> Scope {
        let mut scope = Scope {
            max_size: keys.get("max_size").and_then(|item| {
                let bytes = reader.number(item, Kind::Size, 1, core::MAX_SIZE, " bytes")?;
                let owner = format!("[{owner}] ");
                let origin = origins::origin(reader, &owner, "max_size", Some(item), "").into();
                Some(MaxSize { bytes, origin })
            }),
            ..Scope::default()
        };
        if let Some(item) = keys.get("plugin") {
            if item.get_ref().is_array() {
                self.list(reader, name, owner, item, &mut scope);
            } else if let Some(table) = reader.table(item) {
                for (plugin, span, item) in table.rest() {
                    let found = self.overriding(reader, owner, plugin, span, item);
                    scope.overrides.extend(found);
                }
            }
        }
        keys.finish(reader);
        scope
    }

    /// `[[user."…".plugin]]`: a plugin of the user's own, or settings for one of the chain, where it has that name.
    fn list(
        &self,
        reader: &mut Reader,
        whose: &str,
        owner: &Arc<str>,
        item: &Item<'_>,
        scope: &mut Scope,
    ) {
        let mut own = plugin::Chain::new(self.sdk_perl, self.definitions);
        for table in reader.tables("plugin", item) {
            let name = table
                .get_ref()
                .as_table()
                .and_then(|table| table.get("name"));
            let name = name.and_then(|name| name.get_ref().as_str());
            let program = runs(table).filter(|_| !self.runs_programs);
            match name {
                Some(name) if self.in_chain(name).is_some() => {
                    let found = self.overriding(reader, owner, name, table.span(), table);
                    scope.overrides.extend(found);
                }
                _ if let Some((key, span)) = program => {
                    let message = format!(
                        "`{key}` is for gatepost.toml alone: a plugin that a user has elsewhere is a built-in one"
                    );
                    reader.mistake(span, message);
                }
                _ => {
                    if let Some(mut plugin) = own.plugin(reader, table) {
                        plugin.name = format!("{}:{}", plugin.name, whose.to_lowercase()).into();
                        scope.plugins.push(plugin);
                    }
                }
            }
        }
    }

    fn in_chain(&self, name: &str) -> Option<&PluginConfig> {
        self.chain.iter().find(|plugin| &*plugin.name == name)
    }

    fn overriding(
        &self,
        reader: &mut Reader,
        owner: &Arc<str>,
        name: &str,
        span: Range<usize>,
        item: &Item<'_>,
    ) -> Option<Override> {
        let mut keys = reader.table(item)?;
        let Some(plugin) = self.in_chain(name) else {
            let names = || self.chain.iter().map(|plugin| &*plugin.name);
            let hint = match nearest(name, names()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("there are {}", names().collect::<Vec<_>>().join(", ")),
            };
            reader.mistake(
                span,
                format!("no plugin of the chain is called `{name}`; {hint}"),
            );
            return None;
        };
        for key in CORE_KEYS {
            keys.get(key);
            if let Some(span) = keys.key_span(key)
                && *key != "name"
                && !OWN_KEYS.contains(key)
            {
                let message = format!(
                    "`{key}` is the same for everybody: it stands at the plugin's [[plugin]] only"
                );
                reader.mistake(span, message);
            }
        }
        let (settings, spans) = plugin::own_settings(reader, &keys, item.span());
        let Uniform {
            policy,
            loglevel,
            timeout,
            ..
        } = Uniform::read(reader, &mut keys);
        Some(Override {
            owner: owner.clone(),
            plugin: plugin.name.clone(),
            settings,
            policy,
            loglevel,
            timeout,
            location: reader.source.location(span.start),
            spans,
        })
    }
}

/// The key that makes a plugin a program, and its place.
fn runs(table: &Item<'_>) -> Option<(&'static str, Range<usize>)> {
    let table = table.get_ref().as_table()?;
    let place = |key| Some((key, table.get_key_value(key)?.0.span()));
    plugin::KINDS.into_iter().find_map(place)
}
