//! From a list of plugins to what is done at each hook.

use std::sync::Arc;
use std::time::Duration;

use gatepost_protocol::plugin::{Subscription, Wants};
use gatepost_protocol::{FieldSet, Hook, Plugin};

use super::{Chain, DEADLINE, Farewell, MESSAGE_DEADLINE, Member, Rules, Step};
use crate::config::When;

/// A plugin and what is in force for it.
pub struct Entry {
    /// Its name, unique in the chain.
    pub name: Arc<str>,
    /// The plugin.
    pub plugin: Arc<dyn Plugin>,
    /// The uniform settings.
    pub rules: Rules,
    /// The condition under which it is asked.
    pub when: Option<When>,
}

impl Chain {
    /// Puts plugins into a chain, in this order.
    pub fn new(entries: Vec<Entry>) -> Chain {
        let mut chain = Chain {
            members: Vec::with_capacity(entries.len()),
            steps: std::array::from_fn(|_| Vec::new()),
            observers: std::array::from_fn(|_| Vec::new()),
            fields: FieldSet::NONE,
            hosts: Vec::new(),
        };
        for Entry {
            name,
            plugin,
            rules,
            when,
        } in entries
        {
            let member = chain.members.len();
            for subscription in plugin.subscriptions() {
                let timeout = rules
                    .timeout
                    .or(subscription.timeout)
                    .unwrap_or(default_deadline(subscription.hook));
                chain.fields = chain.fields.union(subscription.wants.fields);
                chain.enlist(member, &*plugin, &subscription, when.is_some(), timeout);
            }
            chain.members.push(Member {
                name,
                plugin,
                rules,
                when,
            });
        }
        chain
    }

    fn enlist(
        &mut self,
        member: usize,
        plugin: &dyn Plugin,
        subscription: &Subscription,
        conditional: bool,
        timeout: Duration,
    ) {
        let lists = if subscription.observe {
            &mut self.observers
        } else {
            &mut self.steps
        };
        let steps = &mut lists[subscription.hook as usize];
        let Some(host) = plugin.host() else {
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
            && !conditional
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
