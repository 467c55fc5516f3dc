//! The plugins that are built in, a file each, in qpsmtpd's names (docs/plugins.md tells operators about them).
//!
//! A plugin says what it found; what that costs the client is the operator's `reject` and `reject_type`, and nothing here looks at them.

mod auth;
mod badmailfrom;
mod badrcptto;
mod conversation;
mod date;
mod dnsbl;
mod earlytalker;
mod headers;
mod helo;
mod lists;
mod naughty;
mod patterns;
mod queue;
mod rcpt_ok;
mod recipients;
mod relay;
mod score;
#[cfg(test)]
mod testing;

use std::task::{Context, Poll, Waker};

use gatepost_protocol::{Address, Answer, Definition, Immune, Outcome, Policy};

/// Every built-in.
pub fn all() -> Vec<Definition> {
    vec![
        relay::DEFINITION,
        auth::auth_flat_file::DEFINITION,
        dnsbl::DEFINITION,
        earlytalker::DEFINITION,
        helo::DEFINITION,
        badmailfrom::DEFINITION,
        badrcptto::DEFINITION,
        rcpt_ok::DEFINITION,
        recipients::DEFINITION,
        naughty::DEFINITION,
        headers::DEFINITION,
        score::DEFINITION,
        queue::maildir::DEFINITION,
        queue::smtp_forward::DEFINITION,
        queue::discard::DEFINITION,
    ]
}

/// The flat files that a built-in reads to judge recipients, or who comes to them.
pub fn flat_files(name: &str) -> &'static [&'static str] {
    match name {
        "badmailfrom" => badmailfrom::FILES,
        "badrcptto" => badrcptto::FILES,
        "dnsbl" => dnsbl::FILES,
        "helo" => helo::FILES,
        "rcpt_ok" => rcpt_ok::FILES,
        "recipients" => recipients::FILES,
        "relay" => relay::FILES,
        _ => &[],
    }
}

/// The policy of a check of strangers: whoever may relay, is whitelisted or immune is none.
fn of_strangers() -> Policy {
    Policy {
        immune: Some(Immune::Skip),
        ..Policy::default()
    }
}

/// The policy of what concerns everybody: where mail may go.
fn of_everybody() -> Policy {
    Policy {
        immune: Some(Immune::Ignore),
        ..Policy::default()
    }
}

/// Whether it is the one that every domain has (RFC 5321 §4.5.1).
fn is_postmaster(address: &Address) -> bool {
    address.local().eq_ignore_ascii_case("postmaster")
}

/// The answer of a future that mostly has nothing to wait for, because the lists it reads are at hand: then it is an answer now.
fn now_or_later<'a>(outcome: impl Future<Output = Outcome> + Send + 'a) -> Answer<'a> {
    let mut outcome = Box::pin(outcome);
    match outcome
        .as_mut()
        .poll(&mut Context::from_waker(Waker::noop()))
    {
        Poll::Ready(outcome) => Answer::Now(outcome),
        Poll::Pending => Answer::Later(outcome),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::borrow::Cow;
    use std::collections::BTreeSet;

    use gatepost_protocol::plugin::Subscription;
    use gatepost_protocol::{Args, Hook};

    #[test]
    fn every_plugin_and_setting_is_documented_and_defaults_fit() {
        let manual = include_str!("../../../docs/plugins.md");
        let mut names = BTreeSet::new();
        for definition in all() {
            assert!(
                names.insert(definition.name),
                "{} is there twice",
                definition.name
            );
            let section = manual
                .split("\n## ")
                .find(|section| section.starts_with(&format!("{}\n", definition.name)))
                .unwrap_or_else(|| {
                    panic!("docs/plugins.md has no section `## {}`", definition.name)
                });
            for setting in (definition.settings)() {
                assert!(!setting.help.is_empty());
                let row = format!("| `{}` |", setting.name);
                assert!(section.contains(&row), "{}: no row {row}", definition.name);
            }
        }
    }

    #[tokio::test]
    async fn a_check_of_strangers_is_of_nobody_else() {
        use crate::chain::{Chain, Entry, Rules, Visit};
        use gatepost_protocol::{Address, Args, Change, Hook, Scope, Value, Verdict};
        let services = testing::FakeServices::new();
        let bad = || [("addresses", ["@example.org"].into())];
        let plugin = |definition: &Definition| testing::plugin(definition, &services, []);
        for (name, plugin, hook) in [
            (
                "badmailfrom",
                testing::plugin(&badmailfrom::DEFINITION, &services, bad()),
                Hook::Mail,
            ),
            (
                "badrcptto",
                testing::plugin(&badrcptto::DEFINITION, &services, bad()),
                Hook::Rcpt,
            ),
            ("earlytalker", plugin(&earlytalker::DEFINITION), Hook::Mail),
            ("helo", plugin(&helo::DEFINITION), Hook::Helo),
            ("dnsbl", plugin(&dnsbl::DEFINITION), Hook::Rcpt),
            ("naughty", plugin(&naughty::DEFINITION), Hook::Rcpt),
            ("headers", plugin(&headers::DEFINITION), Hook::DataPost),
            ("rcpt_ok", plugin(&rcpt_ok::DEFINITION), Hook::Rcpt),
        ] {
            let rules = Rules::new(Policy::default(), plugin.policy(), None, None);
            let chain = Chain::new(vec![Entry {
                name: name.into(),
                plugin,
                rules,
                origins: Default::default(),
                when: None,
            }]);
            let address = Address::parse("bob@example.org").unwrap();
            let args = match hook {
                Hook::Helo => Args::Host("localhost".into()),
                Hook::DataPost => Args::None,
                _ => Args::Address {
                    address: std::borrow::Cow::Owned(address),
                    parameters: Default::default(),
                },
            };
            for is_friend in [false, true] {
                let (mut session, message) =
                    testing::with_message(testing::session("192.0.2.1"), b"Subject: x\r\n\r\n");
                session.connection.early_talker = true;
                session.connection.naughty = Some(gatepost_protocol::session::Naughty {
                    plugin: "other".to_owned(),
                    message: "bad".to_owned(),
                    verdict: Verdict::Deny,
                });
                let listed = ["zone", "text"].map(|key| (key.to_owned(), "x".into()));
                let noted = ("test".to_owned(), Value::Map(listed.into()));
                session.connection.notes.extend([noted]);
                if is_friend {
                    let friend = Change::whitelisted(Scope::Connection, "friend");
                    friend.apply(&mut session, "x").unwrap();
                }
                let decision = chain
                    .run(&mut Visit::new(session), hook, &args, Some(&message))
                    .await;
                let is_refused = !is_friend || name == "rcpt_ok";
                assert_eq!(decision.verdict.is_denial(), is_refused, "{name}");
            }
        }
    }

    #[tokio::test]
    async fn the_flat_files_that_are_read_are_known() {
        for definition in all() {
            let services = testing::FakeServices::new();
            // Those with settings that are required read no files.
            let Ok(plugin) = testing::built(&definition, &services, []) else {
                continue;
            };
            let session = testing::session("192.0.2.1");
            let host = || Args::Host("client.example".into());
            let address = Address::parse("bob@example.org").unwrap();
            let recipient = || Args::Recipient(Cow::Owned(address.clone()));
            for Subscription { hook, .. } in plugin.subscriptions() {
                match hook {
                    Hook::Connect => testing::ask(&plugin, hook, &session, Args::None).await,
                    Hook::Helo | Hook::Ehlo => testing::ask(&plugin, hook, &session, host()).await,
                    Hook::Mail | Hook::Rcpt => {
                        testing::ask_address(&plugin, hook, &session, "bob@example.org").await
                    }
                    Hook::RecipientValid => {
                        testing::ask(&plugin, hook, &session, recipient()).await
                    }
                    _ => continue,
                };
            }
            let known = flat_files(definition.name).iter();
            let known: BTreeSet<String> = known.map(|name| (*name).to_owned()).collect();
            assert_eq!(services.read(), known, "{}", definition.name);
        }
    }

    #[tokio::test]
    async fn an_answer_that_must_wait_arrives_too() {
        let (send, receive) = tokio::sync::oneshot::channel::<()>();
        let answer = now_or_later(async {
            let _ = receive.await;
            Outcome::pass("in the end")
        });
        let Answer::Later(later) = answer else {
            panic!("there was something to wait for")
        };
        send.send(()).unwrap();
        assert_eq!(later.await.message, "in the end");
        assert!(matches!(
            now_or_later(async { Outcome::declined() }),
            Answer::Now(_)
        ));
    }
}
