//! From a list of plugins to what is done at each hook.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use gatepost_protocol::plugin::{Subscription, Wants};
use gatepost_protocol::{Field, FieldSet, Hook, Plugin};

use super::profile::{Distinctions, Profiles};
use super::{Chain, DEADLINE, Farewell, MESSAGE_DEADLINE, Member, Origins, Rules, Step};
use crate::config::When;

/// A plugin and what is in force for it.
#[derive(Clone)]
pub struct Entry {
    /// Its name, unique in the chain.
    pub name: Arc<str>,
    /// The plugin.
    pub plugin: Arc<dyn Plugin>,
    /// The uniform settings.
    pub rules: Rules,
    /// Where its settings come from.
    pub origins: Arc<Origins>,
    /// The condition under which it is asked.
    pub when: Option<When>,
}

/// A set of hooks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct HookSet(u64);

impl HookSet {
    /// Those that a plugin takes part in.
    pub fn of(plugin: &dyn Plugin) -> HookSet {
        let hooks = plugin.subscriptions().into_iter();
        HookSet(hooks.fold(0, |bits, subscription| bits | 1 << subscription.hook as u8))
    }

    /// Whether a hook is in it.
    pub const fn has(self, hook: Hook) -> bool {
        self.0 & (1 << hook as u8) != 0
    }

    /// With one more.
    pub const fn with(self, hook: Hook) -> HookSet {
        HookSet(self.0 | 1 << hook as u8)
    }

    /// Both together.
    pub const fn union(self, other: HookSet) -> HookSet {
        HookSet(self.0 | other.0)
    }
}

/// A plugin's part in a hook, before it has its place in the order.
struct Part {
    member: usize,
    subscription: Subscription,
    /// Whether it is asked depends on the session, or on the recipients.
    is_conditional: bool,
    timeout: Duration,
}

/// Hooks at which the recipients are known, and a plugin may take part for some of them only; but for `queue`, where that is what it is for.
const FOR_RECIPIENTS: [Hook; 6] = [
    Hook::Rcpt,
    Hook::Data,
    Hook::DataHeadersEnd,
    Hook::DataPostHeaders,
    Hook::DataPost,
    Hook::QueuePre,
];

/// Numbers chains.
static CHAINS: AtomicUsize = AtomicUsize::new(0);

impl Chain {
    /// Puts plugins into a chain, in this order.
    pub fn new(entries: Vec<Entry>) -> Chain {
        Chain::with_distinctions(entries, Distinctions::default())
    }

    /// The same, with what differs for some recipients.
    ///
    /// # Panics
    /// Where it differs in a plugin that is not there.
    pub fn with_distinctions(entries: Vec<Entry>, distinctions: Distinctions) -> Chain {
        let mut chain = Chain {
            id: CHAINS.fetch_add(1, Ordering::Relaxed),
            profiles: Profiles::default(),
            members: Vec::with_capacity(entries.len()),
            steps: std::array::from_fn(|_| Vec::new()),
            observers: std::array::from_fn(|_| Vec::new()),
            fields: FieldSet::NONE,
            hosts: Vec::new(),
            held: Default::default(),
        };
        let mut parts = Vec::new();
        for Entry {
            name,
            plugin,
            rules,
            origins,
            when,
        } in entries
        {
            let member = chain.members.len();
            if when.as_ref().is_some_and(When::asks_for_early_talkers) {
                let field = FieldSet::of(&[Field::EarlyTalker]);
                chain.fields = chain.fields.union(field);
            }
            for subscription in plugin.subscriptions() {
                let timeout = rules
                    .timeout
                    .or(subscription.timeout)
                    .unwrap_or(default_deadline(subscription.hook));
                chain.fields = chain.fields.union(subscription.wants.fields);
                parts.push(Part {
                    member,
                    subscription,
                    is_conditional: when.is_some(),
                    timeout,
                });
            }
            let hooks = HookSet::of(&*plugin);
            let mut listed = hooks;
            let mut added = distinctions.added(&name, hooks);
            for subscription in &added {
                listed = listed.with(subscription.hook);
            }
            if distinctions.is_open && plugin.host().is_none() {
                // With what settings it will be made, nobody knows yet.
                let unknown = FOR_RECIPIENTS.into_iter().filter(|it| !listed.has(*it));
                added.extend(unknown.map(|hook| Subscription::to(hook, &[])));
            }
            for subscription in added {
                let timeout = subscription
                    .timeout
                    .unwrap_or(default_deadline(subscription.hook));
                parts.push(Part {
                    member,
                    subscription,
                    is_conditional: true,
                    timeout,
                });
            }
            chain.members.push(Member {
                name,
                plugin,
                rules,
                origins,
                when,
                hooks,
                listed,
            });
        }
        // Within the same priority the order of the entries stays.
        parts.sort_by_key(|part| part.subscription.priority);
        for part in parts {
            chain.enlist(part);
        }
        chain.profiles = Profiles::new(distinctions, &chain.members);
        chain
    }

    fn enlist(&mut self, part: Part) {
        let Part {
            member,
            subscription,
            is_conditional,
            timeout,
        } = part;
        let lists = if subscription.observe {
            &mut self.observers
        } else {
            &mut self.steps
        };
        let steps = &mut lists[subscription.hook as usize];
        let Some(host) = self.members[member].plugin.host() else {
            steps.push(Step::Call { member, timeout });
            return;
        };
        let known = self
            .hosts
            .iter()
            .position(|known| Arc::ptr_eq(&known.host, &host));
        let at = known.unwrap_or_else(|| {
            let (host, members) = (host.clone(), Vec::new());
            self.hosts.push(Farewell { host, members });
            self.hosts.len() - 1
        });
        if subscription.hook == Hook::Disconnect {
            self.hosts[at]
                .members
                .push((member, subscription.wants.clone()));
        }
        // A condition may depend on what the neighbours before it change, so it is looked at only when they are done.
        if let Some(Step::Segment {
            host: before,
            members,
            wants,
            timeout: longest,
        }) = steps.last_mut()
            && Arc::ptr_eq(before, &host)
            && !is_conditional
        {
            members.push(member);
            wants.add(&subscription.wants);
            *longest = timeout.max(*longest);
            return;
        }
        let mut wants = Wants::default();
        wants.add(&subscription.wants);
        steps.push(Step::Segment {
            host,
            members: vec![member],
            wants,
            timeout,
        });
    }
}

fn default_deadline(hook: Hook) -> Duration {
    if hook.has_message() {
        MESSAGE_DEADLINE
    } else {
        DEADLINE
    }
}
