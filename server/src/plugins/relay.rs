//! `relay`: who may relay through us by address.
//!
//! qpsmtpd kept adding every client's networks to its lists and never emptied them; here a list is what its file says.

use std::sync::Arc;

use gatepost_protocol::{
    Answer, Built, Call, Change, Definition, EnhancedCode, Field, Hook, Init, Outcome, Plugin,
    Policy, Setting, Subscription,
};

use super::lists::{List, checked};
use super::patterns::Networks;

pub const DEFINITION: Definition = Definition {
    name: "relay",
    about: "Lets clients relay by their address.",
    settings: || {
        vec![
            Setting::list(
                "clients",
                "Addresses, prefixes (192.168.) and networks (10.0.0.0/8) that may relay; adds to the flat files relayclients and morerelayclients.",
            ),
            Setting::list(
                "not_clients",
                "The same form; these may not relay even if they are in clients; adds to the flat file norelayclients.",
            ),
            Setting::boolean("only", "Whether to accept mail from relay clients alone.")
                .default(false),
        ]
    },
    build,
};

struct Relay {
    clients: List<Networks>,
    not_clients: List<Networks>,
    only: bool,
}

/// The flat files that it reads.
pub const FILES: &[&str] = &["relayclients", "morerelayclients", "norelayclients"];

fn build(init: Init) -> Built {
    let mut errors = Vec::new();
    let clients = List::new(&init, "clients", &["relayclients", "morerelayclients"]);
    let clients = checked(clients, &mut errors);
    let not_clients = List::new(&init, "not_clients", &["norelayclients"]);
    let not_clients = checked(not_clients, &mut errors);
    match (clients, not_clients) {
        (Some(clients), Some(not_clients)) => Ok(Arc::new(Relay {
            clients,
            not_clients,
            only: init.settings.boolean("only"),
        })),
        _ => Err(errors),
    }
}

impl Plugin for Relay {
    fn subscriptions(&self) -> Vec<Subscription> {
        let mut hooks = vec![Subscription::to(Hook::Connect, &[Field::RemoteIp])];
        if self.only {
            hooks.push(Subscription::to(Hook::Rcpt, &[Field::RelayClient]));
        }
        hooks
    }

    fn policy(&self) -> Policy {
        super::of_everybody()
    }

    fn call<'a>(&'a self, call: &'a Call<'a>) -> Answer<'a> {
        match call.hook {
            Hook::Rcpt if call.session.connection.relay_client => {
                Outcome::ok("relay client").into()
            }
            Hook::Rcpt => Outcome::fail("relaying denied")
                .with_enhanced(EnhancedCode(5, 7, 1))
                .into(),
            _ => super::now_or_later(self.connect(call)),
        }
    }
}

impl Relay {
    async fn connect(&self, call: &Call<'_>) -> Outcome {
        let Some(remote) = call.session.connection.remote else {
            return Outcome::skip("no client address");
        };
        let lists = tokio::try_join!(self.not_clients.entries(), self.clients.entries());
        let (denied, allowed) = match lists {
            Ok(lists) => lists,
            Err(error) => return Outcome::error(error.to_string()),
        };
        if let Some(net) = denied.find(remote.ip()) {
            return Outcome::skip(format!("{net} may not relay")).with_change(
                Change::RelayClient {
                    value: false,
                    reason: None,
                },
            );
        }
        match allowed.find(remote.ip()) {
            Some(net) => {
                Outcome::pass(format!("{net} may relay")).with_change(Change::RelayClient {
                    value: true,
                    reason: None,
                })
            }
            None => Outcome::skip("no match"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugins::testing::{
        FakeServices, apply, ask, ask_address, built, line, plugin, session,
    };
    use gatepost_protocol::{Args, Verdict};

    #[tokio::test]
    async fn clients_by_address() {
        let services = FakeServices::new();
        services.file("relayclients", &["192.168.", "10.0.0.0/8"]);
        services.file("morerelayclients", &["198.51.100.7"]);
        services.file("norelayclients", &["10.6.6.6"]);
        let relay = plugin(&DEFINITION, &services, [("clients", ["127.0.0.1"].into())]);
        for (remote, said, relays) in [
            ("127.0.0.1", "pass, 127.0.0.1/32 may relay", true),
            ("192.168.1.2", "pass, 192.168.0.0/16 may relay", true),
            ("198.51.100.7", "pass, 198.51.100.7/32 may relay", true),
            ("10.6.6.6", "skip, 10.6.6.6/32 may not relay", false),
            ("192.0.2.1", "skip, no match", false),
        ] {
            let mut session = session(remote);
            let outcome = ask(&relay, Hook::Connect, &session, Args::None).await;
            apply(&outcome, &mut session);
            assert_eq!(line(&outcome), said);
            assert_eq!(session.connection.relay_client, relays, "{remote}");
        }
    }

    #[tokio::test]
    async fn only_relay_clients() {
        let services = FakeServices::new();
        let relay = plugin(&DEFINITION, &services, [("only", true.into())]);
        let mut session = session("192.0.2.1");
        let denied = ask_address(&relay, Hook::Rcpt, &session, "bob@example.org").await;
        assert_eq!(line(&denied), "fail, relaying denied");
        session.connection.relay_client = true;
        let accepted = ask_address(&relay, Hook::Rcpt, &session, "bob@example.org").await;
        assert_eq!(accepted.verdict, Some(Verdict::Ok));
    }

    #[test]
    fn every_wrong_entry_is_named() {
        let wrong = [
            ("clients", ["nonsense"].into()),
            ("not_clients", ["1.2.3.4", "x/8"].into()),
        ];
        let errors = built(&DEFINITION, &FakeServices::new(), wrong)
            .err()
            .unwrap();
        let paths: Vec<_> = errors.iter().map(|error| error.path.join(".")).collect();
        assert_eq!(paths, ["clients.0", "not_clients.1"]);
    }
}
