//! The core's stand-in for a plugin in another process.

use std::sync::Arc;

use gatepost_protocol::plugin::{Host, Subscription, Wants};
use gatepost_protocol::{Answer, Call, Hook, Outcome, Plugin, Policy};

use super::declare::Declared;
use super::process::Process;

/// A plugin in another process.
pub(super) struct Foreign {
    name: Arc<str>,
    process: Arc<Process>,
    subscriptions: Vec<Subscription>,
    policy: Policy,
    wants: [Wants; Hook::COUNT],
}

impl Foreign {
    pub(super) fn new(name: Arc<str>, process: Arc<Process>, declared: &Declared) -> Foreign {
        let mut wants = std::array::from_fn(|_| Wants::default());
        for subscription in &declared.subscriptions {
            wants[subscription.hook as usize] = subscription.wants.clone();
        }
        Foreign {
            name,
            process,
            subscriptions: declared.subscriptions.clone(),
            policy: declared.policy,
            wants,
        }
    }
}

impl Plugin for Foreign {
    fn subscriptions(&self) -> Vec<Subscription> {
        self.subscriptions.clone()
    }

    fn policy(&self) -> Policy {
        self.policy
    }

    fn call<'a>(&'a self, call: &'a Call<'a>) -> Answer<'a> {
        let wants = &self.wants[call.hook as usize];
        if call.hook.is_event() {
            self.process.tell(&[&self.name], wants, call);
            return Outcome::declined().into();
        }
        Answer::later(async move {
            let mut outcomes = self.process.ask(&[&self.name], wants, call).await;
            outcomes
                .pop()
                .unwrap_or_else(|| Outcome::error("no answer"))
        })
    }

    fn host(&self) -> Option<Arc<dyn Host>> {
        Some(self.process.clone())
    }
}
