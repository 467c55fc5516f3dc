//! Settings in force for a recipient: its user's over its domain's over the site's. Whoever makes the chain resolves them, once; a plugin is handed
//! what is in force and looks for nothing itself.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use gatepost_protocol::plugin::{InForce, Subscription};
use gatepost_protocol::{Address, Hook, Plugin, Reject, Value};

use super::{Chain, HookSet, Member, Origins, Rules};

/// A plugin of the chain with settings that are not the site's.
pub struct Special {
    /// Its name in the chain.
    pub plugin: Arc<str>,
    /// The uniform settings in force.
    pub rules: Rules,
    /// Where its settings come from.
    pub origins: Arc<Origins>,
    /// Its own settings in force, where they are not the site's.
    pub made: Option<Made>,
}

/// A plugin with settings of its own that are not the site's.
pub struct Made {
    /// The settings, all of them.
    pub settings: BTreeMap<String, Value>,
    /// The plugin that was made from them; `None`: its process is told of them with each hook.
    pub plugin: Option<Arc<dyn Plugin>>,
}

/// What holds for the recipients of a domain, or for one user.
#[derive(Default)]
pub struct Distinct {
    /// Plugins whose settings differ from the site's.
    pub specials: Vec<Special>,
    /// Plugins that only these recipients have.
    pub own: Option<Arc<Chain>>,
    /// Bytes of a message.
    pub max_size: Option<u64>,
}

/// What differs, by names in lower case. What is said of a user is complete: its domain is in it already.
#[derive(Default)]
pub struct Distinctions {
    /// By domain.
    pub domains: HashMap<String, Distinct>,
    /// By address.
    pub users: HashMap<String, Distinct>,
}

impl Distinctions {
    /// Hooks that a plugin takes part in for some recipients only, besides those that it always does.
    pub(super) fn added(&self, plugin: &str, always: HookSet) -> Vec<Subscription> {
        let mut added: Vec<Subscription> = Vec::new();
        let specials = self
            .domains
            .values()
            .chain(self.users.values())
            .flat_map(|distinct| &distinct.specials)
            .filter(|special| *special.plugin == *plugin);
        for made in specials.filter_map(|special| special.made.as_ref()?.plugin.as_ref()) {
            for subscription in made.subscriptions() {
                let is_known = always.has(subscription.hook)
                    || added.iter().any(|other| other.hook == subscription.hook);
                if !is_known {
                    added.push(subscription);
                }
            }
        }
        added
    }
}

/// The settings in force for a recipient.
pub struct Profile {
    variants: HashMap<usize, Variant>,
    in_force: InForce,
    /// Plugins that only this recipient has.
    pub(super) own: Option<Arc<Chain>>,
    /// Bytes of a message; `None`: as many as the site takes.
    pub max_size: Option<u64>,
    group: usize,
}

/// A plugin as one profile has it.
pub(super) struct Variant {
    pub rules: Rules,
    pub origins: Arc<Origins>,
    pub own: Option<Own>,
}

/// A plugin with settings of its own.
pub(super) struct Own {
    /// Tells it from all others of the chain.
    pub id: usize,
    /// `None`: the chain's, told of the settings.
    pub plugin: Option<Arc<dyn Plugin>>,
    pub hooks: HookSet,
    settings: BTreeMap<String, Value>,
}

/// The profiles of a chain.
#[derive(Default)]
pub(super) struct Profiles {
    domains: HashMap<String, Arc<Profile>>,
    users: HashMap<String, Arc<Profile>>,
    /// Whether any profile has a plugin otherwise, by member.
    differs: Vec<bool>,
    /// Whether any profile has another `immune` for it.
    differs_in_immunity: Vec<bool>,
    max_size: Option<u64>,
}

impl Profile {
    pub(super) fn variant(&self, member: usize) -> Option<&Variant> {
        self.variants.get(&member)
    }

    pub(super) fn variants(&self) -> impl Iterator<Item = (usize, &Variant)> {
        self.variants
            .iter()
            .map(|(member, variant)| (*member, variant))
    }

    /// For plugins in other processes.
    pub(super) fn in_force(&self) -> Option<&InForce> {
        (!self.in_force.is_empty()).then_some(&self.in_force)
    }
}

/// Whether a message for both recipients can be judged once: no plugin that still has a say treats them differently.
pub fn agree(one: Option<&Arc<Profile>>, other: Option<&Arc<Profile>>) -> bool {
    let group = |profile: Option<&Arc<Profile>>| profile.map_or(0, |profile| profile.group);
    group(one) == group(other)
}

impl Profiles {
    pub(super) fn new(distinctions: Distinctions, members: &[Member]) -> Profiles {
        let mut maker = Maker {
            members,
            groups: Vec::new(),
            made: 0,
            profiles: Profiles {
                differs: vec![false; members.len()],
                differs_in_immunity: vec![false; members.len()],
                ..Profiles::default()
            },
        };
        let mut all = |named: HashMap<String, Distinct>| {
            named
                .into_iter()
                .map(|(name, distinct)| (name, Arc::new(maker.profile(distinct))))
                .collect::<HashMap<_, _>>()
        };
        let (domains, users) = (all(distinctions.domains), all(distinctions.users));
        Profiles {
            domains,
            users,
            ..maker.profiles
        }
    }

    /// What holds for a recipient; `None`: what holds for everybody.
    pub(super) fn of(&self, recipient: &Address) -> Option<&Arc<Profile>> {
        if self.users.is_empty() && self.domains.is_empty() {
            return None;
        }
        let user = self.users.get(&recipient.as_str().to_lowercase());
        let domain = || self.domains.get(&recipient.domain()?.to_lowercase());
        user.or_else(domain)
    }

    /// Whether it depends on the recipient how a plugin is to be treated.
    pub(super) fn differ_in(&self, member: usize) -> bool {
        self.differs.get(member).copied().unwrap_or_default()
    }

    /// Whether it depends on the recipient which clients a plugin lets be.
    pub(super) fn differ_in_immunity(&self, member: usize) -> bool {
        let differs = self.differs_in_immunity.get(member);
        differs.copied().unwrap_or_default()
    }

    /// The biggest message that any recipient with a limit of its own takes, in bytes.
    pub(super) fn max_size(&self) -> Option<u64> {
        self.max_size
    }
}

/// What makes recipients be judged apart, once a message is there.
#[derive(PartialEq)]
struct Group {
    variants: BTreeMap<usize, (Rules, Option<BTreeMap<String, Value>>)>,
    own: Option<usize>,
}

struct Maker<'a> {
    members: &'a [Member],
    /// Group 0 is the site's.
    groups: Vec<Group>,
    made: usize,
    profiles: Profiles,
}

impl Maker<'_> {
    fn profile(&mut self, distinct: Distinct) -> Profile {
        let mut variants = HashMap::new();
        let mut in_force = InForce::new();
        for Special {
            plugin,
            rules,
            origins,
            made,
        } in distinct.specials
        {
            let named = |member: &Member| member.name == plugin;
            let member = self.members.iter().position(named).expect(
                "the configuration takes no settings for a plugin that the chain does not have",
            );
            self.profiles.differs[member] = true;
            self.profiles.differs_in_immunity[member] |=
                rules.immune != self.members[member].rules.immune;
            let own = made.map(|made| {
                if made.plugin.is_none() {
                    in_force.insert(plugin.to_string(), made.settings.clone());
                }
                self.made += 1;
                Own {
                    id: self.made,
                    hooks: made
                        .plugin
                        .as_ref()
                        .map_or(self.members[member].hooks, |plugin| HookSet::of(&**plugin)),
                    plugin: made.plugin,
                    settings: made.settings,
                }
            });
            let variant = Variant {
                rules,
                origins,
                own,
            };
            variants.insert(member, variant);
        }
        self.profiles.max_size = self.profiles.max_size.max(distinct.max_size);
        let group = self.group(&variants, distinct.own.as_ref());
        Profile {
            variants,
            in_force,
            own: distinct.own,
            max_size: distinct.max_size,
            group,
        }
    }

    fn group(&mut self, variants: &HashMap<usize, Variant>, own: Option<&Arc<Chain>>) -> usize {
        let telling = variants
            .iter()
            .filter(|(at, variant)| self.is_telling(**at, variant))
            .map(|(at, variant)| {
                let settings = variant.own.as_ref().map(|own| own.settings.clone());
                (*at, (variant.rules, settings))
            });
        let group = Group {
            variants: telling.collect(),
            own: own.map(|chain| Arc::as_ptr(chain).addr()),
        };
        if group.variants.is_empty() && group.own.is_none() {
            return 0;
        }
        let known = self.groups.iter().position(|other| *other == group);
        known.unwrap_or_else(|| {
            self.groups.push(group);
            self.groups.len() - 1
        }) + 1
    }

    /// Whether a difference still shows once the recipients are known: the plugin has a say then, or what it found before may have been deferred for
    /// one and not for the other.
    fn is_telling(&self, member: usize, variant: &Variant) -> bool {
        let member = &self.members[member];
        let hooks = variant
            .own
            .as_ref()
            .map_or(member.hooks, |own| own.hooks.union(member.hooks));
        let late = Hook::ALL
            .iter()
            .any(|hook| hooks.has(*hook) && is_late(*hook));
        let early = Hook::ALL
            .iter()
            .any(|hook| hooks.has(*hook) && super::kept::is_early(*hook));
        let defers = [&member.rules, &variant.rules]
            .iter()
            .any(|rules| rules.reject == Reject::Naughty);
        late || early && defers
    }
}

fn is_late(hook: Hook) -> bool {
    hook.has_message() || matches!(hook, Hook::Data | Hook::DataHeadersEnd | Hook::DataLines)
}
