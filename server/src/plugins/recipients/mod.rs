//! `recipients`: who the recipients are here, from lists, a call to the next server, a command. It answers `recipient_valid`.

mod callout;
mod command;
mod entries;

use std::sync::Arc;

use gatepost_protocol::{
    Address, Answer, Built, Call, Definition, Hook, Init, Outcome, Plugin, ServiceError, Setting,
    SettingError, Subscription,
};

use super::lists::{List, checked};
use super::patterns::Domains;
use callout::CallOut;
use command::Command;
use entries::{Addresses, Patterns};

pub const DEFINITION: Definition = Definition {
    name: "recipients",
    about: "Says which addresses exist here.",
    settings: || {
        vec![
            Setting::list(
                "addresses",
                "Recipients that exist: addresses, or @domain for all of a domain; adds to the flat file recipients.",
            ),
            Setting::list(
                "patterns",
                "Regular expressions that match recipients that exist.",
            ),
            Setting::text(
                "callout",
                "The server to ask: smtp://HOST:PORT, lmtp://HOST:PORT or lmtp:unix:PATH.",
            ),
            Setting::list(
                "command",
                "A program with its first arguments; -- and the address are added. It exits with 0 for yes, with 1 for no.",
            ),
            Setting::list(
                "domains",
                "Domains whose recipients are all known here; .example.org stands for everything below it. Not set: all domains.",
            ),
        ]
    },
    build,
};

/// What is in a list is at hand: an answer that is kept would hide that the list has changed.
const NOT_KEPT: &str = "0s";

/// What a source that has to be waited for says.
enum Said {
    /// There is such an address; why.
    Yes(String),
    /// There is none; why.
    No(String),
}

struct Recipients {
    addresses: List<Addresses>,
    patterns: List<Patterns>,
    callout: Option<CallOut>,
    command: Option<Command>,
    domains: Option<List<Domains>>,
}

/// The flat files that it reads.
pub const FILES: &[&str] = &["recipients"];

fn build(init: Init) -> Built {
    let settings = &init.settings;
    let mut errors: Vec<SettingError> = Vec::new();
    let addresses = checked(List::new(&init, "addresses", FILES), &mut errors);
    let patterns = checked(List::new(&init, "patterns", &[]), &mut errors);
    let domains = settings.get("domains").and_then(|_| {
        let list = List::new(&init, "domains", &[]);
        checked(list, &mut errors)
    });
    let callout = settings.text("callout").and_then(|url| {
        let callout = CallOut::new(url, &init.hostname);
        callout
            .map_err(|wrong| errors.push(SettingError::at("callout", wrong)))
            .ok()
    });
    let command = settings.get("command").and_then(|_| {
        let command = Command::new(&settings.list("command"));
        command
            .map_err(|wrong| errors.push(SettingError::at("command", wrong)))
            .ok()
    });
    match (addresses, patterns) {
        (Some(addresses), Some(patterns)) if errors.is_empty() => Ok(Arc::new(Recipients {
            addresses,
            patterns,
            callout,
            command,
            domains,
        })),
        _ => Err(errors),
    }
}

impl Plugin for Recipients {
    fn subscriptions(&self) -> Vec<Subscription> {
        vec![Subscription::to(Hook::RecipientValid, &[])]
    }

    fn call<'a>(&'a self, call: &'a Call<'a>) -> Answer<'a> {
        match call.args.address() {
            Some(address) => super::now_or_later(self.judge(address)),
            None => Outcome::declined().into(),
        }
    }
}

impl Recipients {
    async fn judge(&self, address: &Address) -> Outcome {
        match self.look(address).await {
            Ok(outcome) => outcome,
            Err(error) => Outcome::error(format!("{}: {error}", address.as_str())),
        }
    }

    async fn look(&self, address: &Address) -> Result<Outcome, ServiceError> {
        let name = address.as_str();
        let Some(domain) = address.domain() else {
            // RFC 5321 §4.5.1: what needs no domain is postmaster.
            return Ok(Outcome::ok(format!("{name}: no domain")));
        };
        let ours = self
            .domains
            .as_ref()
            .is_none_or(|domains| domains.own().has(&domain.to_lowercase()));
        if ours && super::is_postmaster(address) {
            return Ok(at_hand(Outcome::ok(name)));
        }
        let key = address.to_lowercase();
        let addresses = self.addresses.entries().await?;
        if addresses.has(&key) {
            return Ok(at_hand(Outcome::ok(format!("{name} is listed"))));
        }
        let patterns = self.patterns.own();
        if let Some(pattern) = patterns.find(&key) {
            return Ok(at_hand(Outcome::ok(format!("{name} matches {pattern}"))));
        }
        if !ours {
            return Ok(Outcome::skip(format!("{name}: not in domains")));
        }
        if self.callout.is_some() || self.command.is_some() {
            return Ok(self.ask(address).await);
        }
        // A list that was lost is not to refuse everybody.
        if addresses.is_empty() && patterns.is_empty() {
            return Ok(Outcome::skip(format!("{name}: there are no sources")));
        }
        Ok(at_hand(Outcome::fail(format!("{name} is not listed"))))
    }

    /// Asks the sources that have to be waited for. One yes is enough; who cannot tell may be the one that knows the address.
    async fn ask(&self, address: &Address) -> Outcome {
        let name = address.as_str();
        let (mut no, mut unsure) = (String::new(), None);
        let callout = async { Some(self.callout.as_ref()?.ask(address).await) };
        let command = async { Some(self.command.as_ref()?.ask(address).await) };
        let mut hear = |said: Option<Result<Said, String>>| match said? {
            Ok(Said::Yes(why)) => Some(Outcome::ok(format!("{name}: {why}"))),
            Ok(Said::No(why)) => {
                no = why;
                None
            }
            Err(why) => {
                unsure.get_or_insert(why);
                None
            }
        };
        if let Some(yes) = hear(callout.await) {
            return yes;
        }
        if let Some(yes) = hear(command.await) {
            return yes;
        }
        match unsure {
            Some(why) => Outcome::error(format!("{name}: {why}")),
            None => Outcome::fail(format!("{name}: {no}")),
        }
    }
}

fn at_hand(mut outcome: Outcome) -> Outcome {
    outcome.values = vec![NOT_KEPT.to_owned()];
    outcome
}

#[cfg(test)]
mod tests;
