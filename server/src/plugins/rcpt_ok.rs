//! `rcpt_ok`: for which domains we take mail. It stands last of the plugins that take part in `rcpt`: without its `ok` nobody accepts a recipient.

use std::collections::HashSet;
use std::sync::Arc;

use gatepost_protocol::{
    Answer, Built, Call, Definition, EnhancedCode, Field, Hook, Init, Outcome, Plugin, Setting,
    Subscription,
};

use super::lists::{Entries, List};

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

/// Domains, and suffixes with their dot, in lower case.
#[derive(Clone, Default)]
struct Domains(HashSet<String>);

impl Entries for Domains {
    fn add(&mut self, entry: &str) -> Result<(), String> {
        // Behind the domain qpsmtpd's files may hold a remark.
        let entry = entry.split_whitespace().next().unwrap_or_default();
        let domain = entry.strip_prefix('.').unwrap_or(entry);
        if !gatepost_protocol::address::is_domain_utf8(domain)
            && !gatepost_protocol::address::is_literal(domain)
        {
            return Err("expected a domain, such as example.org or .example.org".to_owned());
        }
        self.0.insert(entry.to_lowercase());
        Ok(())
    }
}

impl Domains {
    fn has(&self, domain: &str) -> bool {
        self.0.contains(domain)
            || domain
                .match_indices('.')
                .any(|(dot, _)| self.0.contains(&domain[dot..]))
    }
}

struct RcptOk {
    hostname: String,
    hosts: List<Domains>,
}

fn build(init: Init) -> Built {
    Ok(Arc::new(RcptOk {
        hostname: init.hostname.to_ascii_lowercase(),
        hosts: List::new(&init, "hosts", &["rcpthosts", "morercpthosts"])?,
    }))
}

impl Plugin for RcptOk {
    fn subscriptions(&self) -> Vec<Subscription> {
        vec![Subscription::to(
            Hook::Rcpt,
            &[Field::RelayClient, Field::Immune],
        )]
    }

    fn call<'a>(&'a self, call: &'a Call<'a>) -> Answer<'a> {
        if let Some(immune) = super::immunity(call.session) {
            return Outcome::ok(immune.message).into();
        }
        let Some(recipient) = call.args.address() else {
            return Outcome::declined().into();
        };
        let Some(domain) = recipient.domain() else {
            // RFC 5321 §4.5.1: postmaster is always here, with a domain or without.
            return Outcome::ok("no domain").into();
        };
        let domain = domain.to_lowercase();
        if domain == self.hostname || self.hosts.own().has(&domain) {
            return ours(&domain).into();
        }
        super::now_or_later(self.judge(domain))
    }
}

fn ours(domain: &str) -> Outcome {
    Outcome::ok(format!("{domain} in rcpthosts"))
}

impl RcptOk {
    async fn judge(&self, domain: String) -> Outcome {
        match self.hosts.entries().await {
            Ok(hosts) if hosts.has(&domain) => ours(&domain),
            Ok(_) => Outcome::fail("Relaying denied").with_enhanced(EnhancedCode(5, 7, 1)),
            Err(error) => Outcome::error(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugins::testing::{FakeServices, ask_address, built, line, plugin, session};
    use gatepost_protocol::Verdict;

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

    #[test]
    fn a_wrong_domain_is_named() {
        let wrong = [("hosts", ["example.org", "*.example.org"].into())];
        let errors = built(&DEFINITION, &FakeServices::new(), wrong)
            .err()
            .unwrap();
        assert_eq!(errors[0].path, ["hosts", "1"]);
    }
}
