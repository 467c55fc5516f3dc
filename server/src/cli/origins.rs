//! Where the settings of a plugin come from, in words.

use std::path::PathBuf;
use std::sync::Arc;

use gatepost_protocol::{Immune, OnError, Policy, Reject, RejectType};

use crate::chain::Origins;
use crate::config::{Location, Override, PluginConfig, Shadow, Spans};

/// A table of the configuration with settings for a plugin.
struct Table<'a> {
    /// Whose settings they are, with a space behind; empty: everybody's.
    owner: String,
    policy: Policy,
    spans: &'a Spans,
}

/// Where what is in force for a plugin was set: in its own table, in those over it, each over the ones before it, or as a default of the plugin's `own`. `files` are
/// flat files that stand over the site's.
pub(super) fn origins(
    plugin: &PluginConfig,
    over: &[&Override],
    files: &[PathBuf],
    own: Policy,
) -> Arc<Origins> {
    let mut places = vec![at(&plugin.name, &plugin.location)];
    let mut tables = vec![Table {
        owner: String::new(),
        policy: plugin.policy,
        spans: &plugin.spans,
    }];
    for over in over {
        let owner = format!("[{}] ", over.owner);
        if !over.settings.is_empty() {
            let what = format!("{owner}plugin.{}", over.plugin);
            places.push(at(&what, &over.location));
        }
        tables.push(Table {
            owner,
            policy: over.policy,
            spans: &over.spans,
        });
    }
    places.extend(files.iter().map(|file| file.display().to_string()));
    let find = |key: &str, word: fn(&Policy) -> Option<&'static str>, usual: &str| {
        let set = tables
            .iter()
            .rev()
            .find_map(|table| Some((table, word(&table.policy)?)));
        if let Some((table, word)) = set {
            let what = format!("{}{key} = {}", table.owner, shown(word));
            return match table.spans.location_of(key) {
                Some(place) => at(&what, &place),
                None => what,
            };
        }
        match word(&own) {
            Some(word) => format!("{key} = {} (the plugin's default)", shown(word)),
            None => format!("{key} = {} (default)", shown(usual)),
        }
    };
    Arc::new(Origins {
        places,
        reject: find("reject", |it| it.reject.map(Reject::word), "true"),
        reject_type: find(
            "reject_type",
            |it| it.reject_type.map(RejectType::word),
            "perm",
        ),
        forces_type: tables
            .iter()
            .any(|table| table.policy.reject_type.is_some()),
        on_error: find("on_error", |it| it.on_error.map(OnError::word), "tempfail"),
        immune: find("immune", |it| it.immune.map(Immune::word), "tolerate"),
        shadow: shadow(plugin),
    })
}

fn shadow(plugin: &PluginConfig) -> String {
    let (key, what) = match plugin.shadow {
        Shadow::Off => return String::new(),
        Shadow::On => ("shadow", "shadow = true".to_owned()),
        Shadow::Canary(share) => {
            let (whole, part) = (share / 100, share % 100);
            let part = match part {
                0 => String::new(),
                part => format!(".{part:02}"),
            };
            ("canary", format!("canary = \"{whole}{part}%\""))
        }
    };
    match plugin.spans.location_of(key) {
        Some(place) => at(&what, &place),
        None => what,
    }
}

fn at(what: &str, place: &Location) -> String {
    format!("{what} ({}:{})", place.file.display(), place.line)
}

fn shown(word: &str) -> String {
    match word {
        "true" | "false" => word.to_owned(),
        word => format!("\"{word}\""),
    }
}
