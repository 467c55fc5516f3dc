//! `rcpt_ok`: for which domains we take mail, and for whom in them, where anybody knows that. It stands last of the plugins that take part in
//! `rcpt`: without its `ok` nobody accepts a recipient.

use std::sync::Arc;
use std::time::Duration;

use gatepost_protocol::{
    Address, Answer, Built, Call, Change, Definition, EnhancedCode, Field, Hook, Init, Outcome,
    Plugin, Policy, Services, Setting, Subscription, Validity,
};

use super::lists::List;
use super::patterns::Domains;

pub const DEFINITION: Definition = Definition {
    name: "rcpt_ok",
    about: "Accepts recipients in our domains and refuses to relay to others.",
    settings: || {
        vec![Setting::list(
            "hosts",
            "Domains to take mail for; .example.org stands for everything below it; adds to our host name and the flat files rcpthosts and morercpthosts.",
        )]
    },
    build,
};

/// Whoever is asked for a recipient has an answer or an error by then, and the client waits five minutes (RFC 5321 §4.5.3.2.3).
const TIMEOUT: Duration = Duration::from_secs(60);

struct RcptOk {
    hostname: String,
    hosts: List<Domains>,
    services: Arc<dyn Services>,
}

/// The flat files that it reads.
pub const FILES: &[&str] = &["rcpthosts", "morercpthosts"];

fn build(init: Init) -> Built {
    Ok(Arc::new(RcptOk {
        hostname: init.hostname.to_ascii_lowercase(),
        hosts: List::new(&init, "hosts", FILES)?,
        services: Arc::clone(&init.services),
    }))
}

impl Plugin for RcptOk {
    fn subscriptions(&self) -> Vec<Subscription> {
        let mut rcpt = Subscription::to(Hook::Rcpt, &[Field::RelayClient]);
        rcpt.timeout = Some(TIMEOUT);
        vec![rcpt]
    }

    /// Whoever is whitelisted may send to us, and no further.
    fn policy(&self) -> Policy {
        super::of_everybody()
    }

    fn call<'a>(&'a self, call: &'a Call<'a>) -> Answer<'a> {
        if call.session.connection.relay_client {
            return Outcome::ok("relay client").into();
        }
        let Some(recipient) = call.args.address() else {
            return Outcome::declined().into();
        };
        let Some(domain) = recipient.domain() else {
            // RFC 5321 §4.5.1: postmaster is always here, with a domain or without.
            return Outcome::ok("no domain").into();
        };
        super::now_or_later(self.judge(recipient, domain.to_lowercase()))
    }
}

impl RcptOk {
    async fn judge(&self, recipient: &Address, domain: String) -> Outcome {
        if domain != self.hostname && !self.hosts.own().has(&domain) {
            match self.hosts.entries().await {
                Ok(hosts) if hosts.has(&domain) => {}
                Ok(_) => {
                    return Outcome::fail("Relaying denied").with_enhanced(EnhancedCode(5, 7, 1));
                }
                Err(error) => return Outcome::error(error.to_string()),
            }
        }
        // RFC 5321 §4.5.1.
        if super::is_postmaster(recipient) {
            return ours(&domain);
        }
        match self.services.recipient_valid(recipient).await {
            Ok(Validity::Valid | Validity::Unknown) => ours(&domain),
            Ok(Validity::Invalid) => Outcome::fail("no such user here")
                .with_enhanced(EnhancedCode(5, 1, 1))
                .with_change(Change::Karma { add: -1 }),
            // RFC 3463 §3.5: a directory that is away.
            Err(error) => Outcome::error(error.to_string())
                .with_code(450, EnhancedCode(4, 4, 3))
                .with_reply("Cannot tell now whether there is such a user here; try again later"),
        }
    }
}

fn ours(domain: &str) -> Outcome {
    Outcome::ok(format!("{domain} in rcpthosts"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugins::testing::{FakeServices, ask_address, built, karma, line, plugin, session};
    use gatepost_protocol::{ServiceError, Verdict};

    #[tokio::test]
    async fn our_domains() {
        let services = FakeServices::new();
        services.file("rcpthosts", &["example.net", ".sub.example.net"]);
        services.file("morercpthosts", &["more.example"]);
        let rcpt_ok = plugin(&DEFINITION, &services, [("hosts", ["Example.org"].into())]);
        let mut client = session("192.0.2.1");
        for (recipient, said, verdict) in [
            (
                "bob@EXAMPLE.ORG",
                "pass, example.org in rcpthosts",
                Some(Verdict::Ok),
            ),
            (
                "bob@mx.example.org",
                "pass, mx.example.org in rcpthosts",
                Some(Verdict::Ok),
            ),
            (
                "bob@example.net",
                "pass, example.net in rcpthosts",
                Some(Verdict::Ok),
            ),
            (
                "bob@a.b.sub.example.net",
                "pass, a.b.sub.example.net in rcpthosts",
                Some(Verdict::Ok),
            ),
            (
                "bob@more.example",
                "pass, more.example in rcpthosts",
                Some(Verdict::Ok),
            ),
            ("Postmaster", "pass, no domain", Some(Verdict::Ok)),
            ("bob@sub.example.net", "fail, Relaying denied", None),
            ("bob@notexample.org", "fail, Relaying denied", None),
            (
                "bob@example.org.evil.example",
                "fail, Relaying denied",
                None,
            ),
            ("bob@[192.0.2.9]", "fail, Relaying denied", None),
        ] {
            let outcome = ask_address(&rcpt_ok, Hook::Rcpt, &client, recipient).await;
            assert_eq!(line(&outcome), said, "{recipient}");
            assert_eq!(outcome.verdict, verdict, "{recipient}");
        }
        client.connection.relay_client = true;
        let outcome = ask_address(&rcpt_ok, Hook::Rcpt, &client, "bob@elsewhere.example").await;
        assert_eq!(
            (line(&outcome).as_str(), outcome.verdict),
            ("pass, relay client", Some(Verdict::Ok))
        );
    }

    #[tokio::test]
    async fn recipients_in_our_domains() {
        let services = FakeServices::new();
        services.recipient("bob@example.org", Ok(Validity::Valid));
        services.recipient("gone@example.org", Ok(Validity::Invalid));
        services.recipient("postmaster@example.org", Ok(Validity::Invalid));
        services.recipient("gone@elsewhere.example", Ok(Validity::Valid));
        let away = ServiceError::temporary("the directory is away");
        services.recipient("away@example.org", Err(away));
        let rcpt_ok = plugin(&DEFINITION, &services, [("hosts", ["example.org"].into())]);
        let mut client = session("192.0.2.1");
        for (recipient, said, cost) in [
            ("bob@example.org", "pass, example.org in rcpthosts", 0),
            ("carol@example.org", "pass, example.org in rcpthosts", 0),
            ("gone@example.org", "fail, no such user here", -1),
            (
                "PostMaster@example.org",
                "pass, example.org in rcpthosts",
                0,
            ),
            ("away@example.org", "error, the directory is away", 0),
            ("gone@elsewhere.example", "fail, Relaying denied", 0),
        ] {
            let outcome = ask_address(&rcpt_ok, Hook::Rcpt, &client, recipient).await;
            assert_eq!(line(&outcome), said, "{recipient}");
            assert_eq!(karma(&outcome), cost, "{recipient}");
        }
        client.connection.relay_client = true;
        let outcome = ask_address(&rcpt_ok, Hook::Rcpt, &client, "gone@example.org").await;
        assert_eq!(line(&outcome), "pass, relay client");
    }

    #[test]
    fn a_wrong_domain_is_named() {
        let wrong = [("hosts", ["example.org", "*.example.org"].into())];
        let errors = built(&DEFINITION, &FakeServices::new(), wrong)
            .err()
            .unwrap();
        assert_eq!(errors[0].path, ["hosts", "1"]);
    }
}
