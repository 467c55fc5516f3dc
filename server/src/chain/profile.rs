//! Settings in force for a recipient: its user's over its domain's over the site's. Whoever makes the chain resolves them: those of the configuration
//! once, those that single users have elsewhere when a recipient is there who may have some. A plugin is handed what is in force and looks for nothing
//! itself.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use gatepost_protocol::plugin::{InForce, Subscription};
use gatepost_protocol::{Address, BoxFuture, Hook, Outcome, Plugin, Reject, Value};

use super::policy::Finding;
use super::{Chain, Decision, HookSet, Member, Origins, Rules, Visit};
use crate::config::MaxSize;

/// A plugin of the chain with settings that are not the site's.
pub struct Special {
    /// Its name in the chain.
    pub plugin: Arc<str>,
    /// The uniform settings in force.
    pub rules: Rules,
    /// Where its settings come from.
    pub origins: Arc<Origins>,
    /// Its own settings in force, where they are not the site's.
    pub made: Option<Arc<Made>>,
}

/// A plugin with settings of its own that are not the site's; one for all recipients with the same.
pub struct Made {
    /// Tells it from all others.
    pub(super) id: usize,
    /// The settings, all of them.
    settings: BTreeMap<String, Value>,
    /// The flat files that stand over the site's for it.
    files: Vec<PathBuf>,
    /// The plugin that was made from them; `None`: its process is told of them with each hook.
    pub(super) plugin: Option<Arc<dyn Plugin>>,
    /// Where it takes part, where it was made.
    hooks: Option<HookSet>,
}

/// Numbers what is made.
static MADE: AtomicUsize = AtomicUsize::new(1);

impl Made {
    /// What was made from `settings`, with these flat files over the site's; `plugin` is `None` for one in another process.
    pub fn new(
        settings: BTreeMap<String, Value>,
        files: Vec<PathBuf>,
        plugin: Option<Arc<dyn Plugin>>,
    ) -> Made {
        Made {
            id: MADE.fetch_add(1, Ordering::Relaxed),
            settings,
            files,
            hooks: plugin.as_ref().map(|plugin| HookSet::of(&**plugin)),
            plugin,
        }
    }

    /// Whether it was made from the same.
    pub fn is_of(&self, settings: &BTreeMap<String, Value>, files: &[PathBuf]) -> bool {
        self.settings == *settings && self.files == files
    }
}

impl PartialEq for Made {
    fn eq(&self, other: &Made) -> bool {
        self.id == other.id || self.is_of(&other.settings, &other.files)
    }
}

/// What holds for the recipients of a domain, or for one user.
#[derive(Default)]
pub struct Distinct {
    /// Plugins whose settings differ from the site's.
    pub specials: Vec<Special>,
    /// Plugins that only these recipients have.
    pub own: Option<Arc<Chain>>,
    /// The biggest message.
    pub max_size: Option<MaxSize>,
}

/// What differs, by names in lower case. What is said of a user is complete: its domain is in it already.
#[derive(Default)]
pub struct Distinctions {
    /// By domain.
    pub domains: HashMap<String, Distinct>,
    /// By address.
    pub users: HashMap<String, Distinct>,
    /// Single users have settings elsewhere, too ([`Chain::find_users`]): any recipient may turn out to have its own.
    pub is_open: bool,
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
    /// The biggest message; `None`: as many as the site takes.
    pub max_size: Option<MaxSize>,
    /// `None`: judged with those who have no settings of their own.
    group: Option<Group>,
}

/// A plugin as one profile has it.
pub(super) struct Variant {
    pub rules: Rules,
    pub origins: Arc<Origins>,
    pub own: Option<Arc<Made>>,
}

/// What makes recipients be judged apart, once a message is there.
struct Group {
    variants: BTreeMap<usize, (Rules, Option<Arc<Made>>)>,
    own: Option<Arc<Chain>>,
}

impl PartialEq for Group {
    fn eq(&self, other: &Group) -> bool {
        let is_same = |(one, other)| Arc::ptr_eq(one, other);
        self.own.is_some() == other.own.is_some()
            && self.own.iter().zip(&other.own).all(is_same)
            && self.variants == other.variants
    }
}

impl Made {
    /// Where it takes part, as a variant of `member`.
    pub(super) fn hooks(&self, member: &Member) -> HookSet {
        self.hooks.unwrap_or(member.hooks)
    }
}

impl Profile {
    fn new(distinct: Distinct, members: &[Member]) -> Profile {
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
            let member = members.iter().position(named).expect(
                "the configuration takes no settings for a plugin that the chain does not have",
            );
            if let Some(made) = made.as_ref().filter(|made| made.plugin.is_none()) {
                in_force.insert(plugin.to_string(), made.settings.clone());
            }
            let variant = Variant {
                rules,
                origins,
                own: made,
            };
            variants.insert(member, variant);
        }
        let telling = variants
            .iter()
            .filter(|(at, variant)| is_telling(&members[**at], variant))
            .map(|(at, variant)| (*at, (variant.rules, variant.own.clone())));
        let group = Group {
            variants: telling.collect(),
            own: distinct.own.clone(),
        };
        let is_none = group.variants.is_empty() && group.own.is_none();
        Profile {
            variants,
            in_force,
            own: distinct.own,
            max_size: distinct.max_size,
            group: (!is_none).then_some(group),
        }
    }

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
    fn group(profile: Option<&Arc<Profile>>) -> Option<&Group> {
        profile?.group.as_ref()
    }
    match (group(one), group(other)) {
        (None, None) => true,
        (Some(one), Some(other)) => std::ptr::eq(one, other) || one == other,
        _ => false,
    }
}

/// Whether a difference still shows once the recipients are known: the plugin has a say then, or what it found before may have been deferred for
/// one and not for the other.
fn is_telling(member: &Member, variant: &Variant) -> bool {
    let own = variant.own.as_ref();
    let hooks = own.map_or(member.hooks, |own| own.hooks(member).union(member.hooks));
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

fn is_late(hook: Hook) -> bool {
    hook.has_message() || matches!(hook, Hook::Data | Hook::DataHeadersEnd | Hook::DataLines)
}

/// The settings in force for a recipient, `None` where these are the site's; or what the recipient is told, where they cannot be had.
pub type Found = Result<Option<Arc<Profile>>, Box<Decision>>;

/// Finds what holds for a recipient, with the settings that single users have elsewhere than in the configuration.
pub type Finder = Box<dyn Fn(&Address) -> BoxFuture<'static, Found> + Send + Sync>;

/// The profiles of a chain.
#[derive(Default)]
pub(super) struct Profiles {
    domains: HashMap<String, Arc<Profile>>,
    users: HashMap<String, Arc<Profile>>,
    /// Whether any profile has a plugin otherwise, by member.
    differs: Vec<bool>,
    /// Whether any profile has another `immune` for it.
    differs_in_immunity: Vec<bool>,
    max_size: Option<MaxSize>,
    finder: OnceLock<Finder>,
}

impl Profiles {
    pub(super) fn new(distinctions: Distinctions, members: &[Member]) -> Profiles {
        let all = |named: HashMap<String, Distinct>| {
            named
                .into_iter()
                .map(|(name, distinct)| (name, Arc::new(Profile::new(distinct, members))))
                .collect::<HashMap<_, _>>()
        };
        let (domains, users) = (all(distinctions.domains), all(distinctions.users));
        let mut differs = vec![distinctions.is_open; members.len()];
        let mut differs_in_immunity = differs.clone();
        let mut max_size = distinctions.is_open.then(|| MaxSize {
            bytes: u64::MAX,
            origin: "settings of users elsewhere than in the configuration".into(),
        });
        for profile in domains.values().chain(users.values()) {
            for (member, variant) in profile.variants() {
                differs[member] = true;
                differs_in_immunity[member] |= variant.rules.immune != members[member].rules.immune;
            }
            max_size = max_size.max(profile.max_size.clone());
        }
        Profiles {
            domains,
            users,
            differs,
            differs_in_immunity,
            max_size,
            finder: OnceLock::new(),
        }
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
}

impl Chain {
    /// The settings in force for a recipient.
    ///
    /// # Errors
    /// What the recipient is to be told, where a plugin was to say and could not, or would not have it.
    pub async fn profile(&self, recipient: &Address) -> Found {
        match self.profiles.finder.get() {
            Some(finder) => finder(recipient).await,
            None => Ok(self.configured_profile(recipient)),
        }
    }

    /// Whether the site's settings hold for everybody.
    pub fn has_one_profile(&self) -> bool {
        let Profiles {
            domains,
            users,
            finder,
            ..
        } = &self.profiles;
        domains.is_empty() && users.is_empty() && finder.get().is_none()
    }

    /// What the configuration says of a recipient; `None`: what holds for everybody.
    pub fn configured_profile(&self, recipient: &Address) -> Option<Arc<Profile>> {
        let Profiles { domains, users, .. } = &self.profiles;
        if users.is_empty() && domains.is_empty() {
            return None;
        }
        let user = users.get(&recipient.to_lowercase());
        let domain = || domains.get(&recipient.domain()?.to_lowercase());
        user.or_else(domain).cloned()
    }

    /// From now on the settings in force are those that `finder` brings. The chain has to be made for that ([`Distinctions::is_open`]). Only the first
    /// call counts.
    pub fn find_users(&self, finder: Finder) {
        let _ = self.profiles.finder.set(finder);
    }

    /// What holds for a recipient.
    ///
    /// # Panics
    /// Where it differs in a plugin that is not there.
    pub fn make_profile(&self, distinct: Distinct) -> Arc<Profile> {
        Arc::new(Profile::new(distinct, &self.members))
    }

    /// The biggest message that any recipient takes that has a limit of its own; `u64::MAX` bytes where nobody knows.
    pub fn max_size(&self) -> Option<&MaxSize> {
        self.profiles.max_size.as_ref()
    }

    /// What a plugin said turned out to make no sense: an error of that plugin, in the log and by its `on_error`. `None` where that lets it pass.
    pub fn fault(&self, hook: Hook, plugin: &str, message: String) -> Option<Decision> {
        let at = self.members.iter().position(|it| *it.name == *plugin)?;
        let finding = Finding::from(Outcome::error(message));
        self.decide(&mut Visit::default(), hook, at, &finding)
    }
}
