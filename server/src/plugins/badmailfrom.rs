//! `badmailfrom`: senders that are not wanted.

use std::sync::Arc;

use gatepost_protocol::{
    Answer, Built, Call, Change, Definition, EnhancedCode, Hook, Init, Outcome, Plugin, Policy,
    Setting, Subscription,
};

use super::lists::List;
use super::patterns::Mailboxes;

pub const DEFINITION: Definition = Definition {
    name: "badmailfrom",
    about: "Refuses envelope senders.",
    settings: || {
        vec![Setting::list(
            "addresses",
            "Senders to refuse: an address, @domain, or a regular expression, each with an optional reason behind it; adds to the flat file badmailfrom.",
        )]
    },
    build,
};

/// The flat files that it reads.
pub const FILES: &[&str] = &["badmailfrom"];

struct BadMailFrom(List<Mailboxes>);

fn build(init: Init) -> Built {
    Ok(Arc::new(BadMailFrom(List::new(&init, "addresses", FILES)?)))
}

impl Plugin for BadMailFrom {
    fn subscriptions(&self) -> Vec<Subscription> {
        vec![Subscription::to(Hook::Mail, &[])]
    }

    fn policy(&self) -> Policy {
        super::of_strangers()
    }

    fn call<'a>(&'a self, call: &'a Call<'a>) -> Answer<'a> {
        super::now_or_later(self.judge(call))
    }
}

impl BadMailFrom {
    async fn judge(&self, call: &Call<'_>) -> Outcome {
        let Some(sender) = call.args.address() else {
            return Outcome::declined();
        };
        // Bounces must come through (RFC 5321 §6.1).
        if sender.is_null() {
            return Outcome::skip("null sender");
        }
        let list = match self.0.entries().await {
            Ok(list) => list,
            Err(error) => return Outcome::error(error.to_string()),
        };
        match list.find(sender) {
            Some(entry) => {
                let reason = entry.reason.as_deref();
                Outcome::fail(reason.unwrap_or("Your envelope sender is in my badmailfrom list"))
                    .with_enhanced(EnhancedCode(5, 7, 1))
                    .with_change(Change::Karma { add: -1 })
            }
            None => Outcome::pass(""),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugins::testing::{FakeServices, ask_address, karma, line, plugin, session};

    #[tokio::test]
    async fn senders() {
        let services = FakeServices::new();
        services.file(
            "badmailfrom",
            &["@evil.example", r"^spam-\d+@ No spam, please"],
        );
        let bad = plugin(
            &DEFINITION,
            &services,
            [("addresses", ["x@example.org"].into())],
        );
        let client = session("192.0.2.1");
        for (sender, said, cost) in [
            ("good@example.org", "pass", 0),
            (
                "X@example.org",
                "fail, Your envelope sender is in my badmailfrom list",
                -1,
            ),
            (
                "a@evil.example",
                "fail, Your envelope sender is in my badmailfrom list",
                -1,
            ),
            ("spam-7@example.net", "fail, No spam, please", -1),
            ("", "skip, null sender", 0),
        ] {
            let outcome = ask_address(&bad, Hook::Mail, &client, sender).await;
            assert_eq!(line(&outcome), said, "{sender}");
            assert_eq!(karma(&outcome), cost, "{sender}");
            assert_eq!(outcome.verdict, None, "the operator decides");
        }
    }
}
