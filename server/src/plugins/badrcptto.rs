//! `badrcptto`: recipients that are not wanted. Unlike qpsmtpd's, it obeys `reject`.

use std::sync::Arc;

use gatepost_protocol::{
    Answer, Built, Call, Change, Definition, EnhancedCode, Hook, Init, Outcome, Plugin, Policy,
    Setting, Subscription,
};

use super::lists::List;
use super::patterns::Mailboxes;

pub const DEFINITION: Definition = Definition {
    name: "badrcptto",
    about: "Refuses envelope recipients.",
    settings: || {
        vec![Setting::list(
            "addresses",
            "Recipients to refuse: an address, @domain, or a regular expression, each with an optional reason behind it; adds to the flat file badrcptto.",
        )]
    },
    build,
};

/// The flat files that it reads.
pub const FILES: &[&str] = &["badrcptto"];

struct BadRcptTo(List<Mailboxes>);

fn build(init: Init) -> Built {
    Ok(Arc::new(BadRcptTo(List::new(&init, "addresses", FILES)?)))
}

impl Plugin for BadRcptTo {
    fn subscriptions(&self) -> Vec<Subscription> {
        vec![Subscription::to(Hook::Rcpt, &[])]
    }

    fn policy(&self) -> Policy {
        super::of_strangers()
    }

    fn call<'a>(&'a self, call: &'a Call<'a>) -> Answer<'a> {
        super::now_or_later(self.judge(call))
    }
}

impl BadRcptTo {
    async fn judge(&self, call: &Call<'_>) -> Outcome {
        let Some(recipient) = call.args.address() else {
            return Outcome::declined();
        };
        let list = match self.0.entries().await {
            Ok(list) => list,
            Err(error) => return Outcome::error(error.to_string()),
        };
        match list.find(recipient) {
            Some(entry) => match &entry.reason {
                Some(reason) => Outcome::fail(reason.as_str()),
                // The client gave the address; telling it the pattern would tell it too much.
                None => Outcome::fail(format!("mail to {} not accepted here", recipient.as_str())),
            }
            .with_enhanced(EnhancedCode(5, 1, 1))
            .with_change(Change::Karma { add: -2 }),
            None => Outcome::pass(""),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugins::testing::{FakeServices, ask_address, karma, line, plugin, session};

    #[tokio::test]
    async fn recipients() {
        let services = FakeServices::new();
        services.file("badrcptto", &["@gone.example We moved", "^list-.*@"]);
        let bad = plugin(
            &DEFINITION,
            &services,
            [("addresses", ["old@example.org"].into())],
        );
        let client = session("192.0.2.1");
        for (recipient, said, cost) in [
            ("bob@example.org", "pass", 0),
            (
                "OLD@example.org",
                "fail, mail to OLD@example.org not accepted here",
                -2,
            ),
            ("x@gone.example", "fail, We moved", -2),
            (
                "list-a@example.org",
                "fail, mail to list-a@example.org not accepted here",
                -2,
            ),
            ("postmaster", "pass", 0),
        ] {
            let outcome = ask_address(&bad, Hook::Rcpt, &client, recipient).await;
            assert_eq!(line(&outcome), said, "{recipient}");
            assert_eq!(karma(&outcome), cost, "{recipient}");
        }
    }
}
