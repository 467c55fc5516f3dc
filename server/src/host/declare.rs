//! What plugins declare in `ready`, checked against what this core knows.

use std::sync::Arc;
use std::time::Duration;

use gatepost_protocol::plugin::{Subscription, Wants};
use gatepost_protocol::settings::nearest;
use gatepost_protocol::wire::{Ready, ReadyHook, ReadyPlugin};
use gatepost_protocol::{Field, FieldSet, Hook, Policy, Priority, Setting};

/// What a plugin in another process says of itself.
#[derive(Clone, Debug)]
pub struct Declared {
    /// The settings it knows; `None`: it checks its settings itself.
    pub settings: Option<Vec<Setting>>,
    /// Its own defaults for the uniform settings.
    pub policy: Policy,
    /// Its own default for `loglevel`, as it would stand in the configuration.
    pub loglevel: Option<String>,
    /// The hooks it takes part in.
    pub subscriptions: Vec<Subscription>,
    /// Whether its process can be told of other settings with each hook.
    pub takes_settings: bool,
}

impl Declared {
    /// Whether it takes part in the same hooks, and wants to see the same there.
    pub(super) fn subscribes_like(&self, other: &Declared) -> bool {
        let key = |subscription: &Subscription| {
            let Subscription {
                hook,
                observe,
                wants,
                priority,
                ..
            } = subscription;
            (*hook, *observe, wants.clone(), *priority)
        };
        self.subscriptions.len() == other.subscriptions.len()
            && self
                .subscriptions
                .iter()
                .zip(&other.subscriptions)
                .all(|(one, two)| key(one) == key(two))
    }
}

/// What is declared for each of `names`, in their order; or all that is wrong, with the plugin it is wrong of.
pub(super) fn read(
    ready: &Ready,
    names: &[Arc<str>],
) -> Result<Vec<Declared>, Vec<(Arc<str>, String)>> {
    let mut declared = Vec::with_capacity(names.len());
    let mut mistakes = Vec::new();
    for plugin in &ready.plugins {
        if !names.iter().any(|name| **name == *plugin.name) {
            let known = nearest(&plugin.name, names.iter().map(|name| &**name));
            mistakes.push((
                names[0].clone(),
                unknown("plugin", &plugin.name, known, "its `ready` names"),
            ));
        }
    }
    for name in names {
        let mut found = ready.plugins.iter().filter(|plugin| *plugin.name == **name);
        match (found.next(), found.next()) {
            (Some(plugin), None) => match one(plugin) {
                Ok(one) => declared.push(one),
                Err(wrong) => mistakes.extend(wrong.into_iter().map(|text| (name.clone(), text))),
            },
            (Some(_), Some(_)) => {
                mistakes.push((name.clone(), "its `ready` names it twice".to_owned()));
            }
            (None, _) => mistakes.push((
                name.clone(),
                "its `ready` says nothing about it; a process answers for every plugin it is given"
                    .to_owned(),
            )),
        }
    }
    if mistakes.is_empty() {
        Ok(declared)
    } else {
        Err(mistakes)
    }
}

fn one(plugin: &ReadyPlugin) -> Result<Declared, Vec<String>> {
    let mut mistakes = Vec::new();
    let mut subscriptions: Vec<Subscription> = Vec::new();
    for hook in &plugin.hooks {
        match subscription(hook) {
            Ok(new) if subscriptions.iter().any(|old| old.hook == new.hook) => {
                mistakes.push(format!("it subscribes to `{}` twice", new.hook));
            }
            Ok(new) => subscriptions.push(new),
            Err(wrong) => mistakes.extend(wrong),
        }
    }
    if !mistakes.is_empty() {
        return Err(mistakes);
    }
    let policy = plugin.policy.clone().unwrap_or_default();
    Ok(Declared {
        settings: plugin.settings.clone(),
        policy: Policy {
            reject: policy.reject,
            reject_type: policy.reject_type,
            on_error: policy.on_error,
            immune: policy.immune,
        },
        loglevel: policy.loglevel,
        subscriptions,
        takes_settings: false,
    })
}

fn subscription(declared: &ReadyHook) -> Result<Subscription, Vec<String>> {
    let mut mistakes = Vec::new();
    let hook = Hook::from_name(&declared.hook);
    let place = match hook {
        Some(_) => format!("at `{}` it asks for", declared.hook),
        None => {
            let known = nearest(&declared.hook, Hook::ALL.iter().map(|hook| hook.name()));
            mistakes.push(unknown("hook", &declared.hook, known, "it subscribes to"));
            "it asks for".to_owned()
        }
    };
    let observe = match declared.mode.as_deref() {
        None | Some("decide") => false,
        Some("observe") => true,
        Some(mode) => {
            let known = nearest(mode, ["decide", "observe"].into_iter());
            mistakes.push(unknown("mode", mode, known, &place));
            false
        }
    };
    let mut fields = FieldSet::NONE;
    for name in &declared.fields {
        match Field::from_name(name) {
            Some(field) => fields = fields.union(FieldSet::of(&[field])),
            None => {
                let known = nearest(name, Field::ALL.iter().map(|field| field.name()));
                mistakes.push(unknown("field", name, known, &place));
            }
        }
    }
    let priority = match &declared.priority {
        None => Some(Priority::default()),
        Some(value) => Priority::from_value(value),
    };
    if priority.is_none() {
        mistakes.push(format!(
            "{place} a priority that is neither `first`, `last` nor an integer of 32 bits"
        ));
    }
    match hook {
        Some(hook) if mistakes.is_empty() => Ok(Subscription {
            hook,
            observe: observe || hook.is_event(),
            wants: Wants {
                fields,
                notes: declared.reads.clone(),
            },
            timeout: declared.timeout_ms.map(Duration::from_millis),
            priority: priority.unwrap_or_default(),
        }),
        _ => Err(mistakes),
    }
}

fn unknown(what: &str, name: &str, known: Option<&str>, place: &str) -> String {
    match known {
        Some(known) => format!("{place} an unknown {what} `{name}`; did it mean `{known}`?"),
        None => format!("{place} an unknown {what} `{name}`; is it made for a newer gatepost?"),
    }
}
