//! `helo`: whether the client's name for itself can be true.
//!
//! qpsmtpd meant to refuse address literals that are not the client's and refused none, since it cut the brackets off names that had none. Here a
//! forged literal is refused, except one of private address space: a client behind a router cannot know how the world sees it.

use std::net::IpAddr;
use std::sync::Arc;

use gatepost_protocol::{
    Answer, Built, Call, Change, Definition, DnsStatus, EnhancedCode, Field, Hook, Init, Outcome,
    Plugin, Policy, RecordType, RejectType, ServiceError, Services, Setting, SettingError,
    Subscription,
};
use regex::Regex;

use super::lists::{Entries, List};
use super::patterns;

pub const DEFINITION: Definition = Definition {
    name: "helo",
    about: "Checks the name that the client greets with, and keeps it in X-HELO.",
    settings: || {
        vec![
            Setting::text("policy", "How much to ask of the name: lenient, rfc (a domain name that is in the DNS), or strict (one that leads to the client).").default("lenient"),
            Setting::list("hosts", "Names to refuse, or regular expressions; a leading ! refuses what does not match; adds to the flat file badhelo."),
        ]
    },
    build,
};

/// What makes an entry of `badhelo` a regular expression. A dot does not: names have dots.
const REGEX_IN_NAME: &[char] = &[
    '{', '}', '[', ']', '(', ')', '^', '$', '|', '*', '+', '?', '\\', '!',
];

/// The longest name that goes into X-HELO: a header line has 998 bytes at most.
const MAX_NAME: usize = 900;

#[derive(Clone, Copy, PartialEq, PartialOrd)]
enum Strictness {
    Lenient,
    Rfc,
    Strict,
}

#[derive(Clone, Default)]
struct BadNames {
    names: Vec<String>,
    patterns: Vec<(Regex, bool)>,
}

impl Entries for BadNames {
    fn add(&mut self, entry: &str) -> Result<(), String> {
        if !entry.contains(REGEX_IN_NAME) {
            self.names.push(entry.to_ascii_lowercase());
            return Ok(());
        }
        let (pattern, wanted) = match entry.strip_prefix('!') {
            Some(pattern) => (pattern, false),
            None => (entry, true),
        };
        self.patterns.push((patterns::regex(pattern)?, wanted));
        Ok(())
    }
}

impl BadNames {
    fn has(&self, name: &str) -> bool {
        self.names.iter().any(|bad| bad.eq_ignore_ascii_case(name))
            || self
                .patterns
                .iter()
                .any(|(regex, wanted)| regex.is_match(name) == *wanted)
    }
}

struct Helo {
    strictness: Strictness,
    bad_names: List<BadNames>,
    services: Arc<dyn Services>,
}

/// The flat files that it reads.
pub const FILES: &[&str] = &["badhelo"];

fn build(init: Init) -> Built {
    let strictness = match init.settings.text("policy").unwrap_or_default() {
        "lenient" => Strictness::Lenient,
        "rfc" => Strictness::Rfc,
        "strict" => Strictness::Strict,
        other => {
            let message = format!("`{other}` is no policy; expected lenient, rfc or strict");
            return Err(vec![SettingError::at("policy", message)]);
        }
    };
    Ok(Arc::new(Helo {
        strictness,
        bad_names: List::new(&init, "hosts", FILES)?,
        services: init.services,
    }))
}

impl Plugin for Helo {
    fn subscriptions(&self) -> Vec<Subscription> {
        let fields = [Field::RemoteIp];
        vec![
            Subscription::to(Hook::Helo, &fields),
            Subscription::to(Hook::Ehlo, &fields),
            Subscription::to(Hook::DataPost, &[Field::HelloHost]),
        ]
    }

    fn policy(&self) -> Policy {
        Policy {
            reject_type: Some(RejectType::Disconnect),
            ..super::of_strangers()
        }
    }

    fn call<'a>(&'a self, call: &'a Call<'a>) -> Answer<'a> {
        if call.hook == Hook::DataPost {
            return x_helo(call).into();
        }
        super::now_or_later(self.judge(call))
    }
}

/// Keeps the name for whoever reads the message, and takes away what the client may have put in its place.
fn x_helo(call: &Call<'_>) -> Outcome {
    let Some(name) = &call.session.connection.hello_host else {
        return Outcome::declined();
    };
    let printable = |character: char| {
        if character.is_control() {
            '?'
        } else {
            character
        }
    };
    let name: String = name.chars().take(MAX_NAME).map(printable).collect();
    Outcome::declined()
        .with_change(Change::RemoveHeader {
            name: "X-HELO".to_owned(),
            nth: None,
        })
        .with_change(Change::AddHeader {
            name: "X-HELO".to_owned(),
            value: name.as_str().into(),
            at: gatepost_protocol::Edge::Top,
        })
}

/// A test's end: nothing found, or what to tell the client, or no answer from the DNS.
type Found = Result<Option<String>, ServiceError>;

impl Helo {
    async fn judge(&self, call: &Call<'_>) -> Outcome {
        let (Some(remote), Some(name)) = (call.session.connection.remote, call.args.text()) else {
            return Outcome::declined();
        };
        let name = name.trim();
        if name.is_empty() {
            return Outcome::skip("no name").with_change(Change::Karma { add: -2 });
        }
        let client = remote.ip().to_canonical();
        let mut karma = 0;
        let found = match self.by_itself(name, client).await {
            Ok(None) if self.strictness >= Strictness::Rfc => {
                self.by_dns(name, client, &mut karma).await
            }
            found => found,
        };
        let outcome = match found {
            Ok(None) => Outcome::pass(""),
            Ok(Some(message)) => {
                karma = -1;
                Outcome::fail(message).with_enhanced(EnhancedCode(5, 7, 1))
            }
            Err(error) => Outcome::error(error.to_string()),
        };
        if karma == 0 {
            return outcome;
        }
        outcome.with_change(Change::Karma { add: karma })
    }

    /// What the name itself shows.
    async fn by_itself(&self, name: &str, client: IpAddr) -> Found {
        let says = |text: &str| Ok(Some(text.to_owned()));
        if self.bad_names.entries().await?.has(name) {
            return Ok(Some(format!("I do not believe you are {name}.")));
        }
        if name.trim_end_matches('.').eq_ignore_ascii_case("localhost") && !client.is_loopback() {
            return says("You are not localhost");
        }
        let literal = literal(name);
        if literal.is_some_and(|literal| literal != client && !is_private(literal)) {
            return says("Forged IPs not accepted here");
        }
        if name.parse::<IpAddr>().is_ok() {
            return says("Plain IP is invalid HELO hostname (RFC 5321 section 4.1.3)");
        }
        if self.strictness == Strictness::Lenient {
            return Ok(None);
        }
        if literal.is_some() {
            return match self.strictness {
                Strictness::Strict => says("Bracketed IP is not accepted here"),
                _ => Ok(None),
            };
        }
        if !name.trim_end_matches('.').contains('.') {
            return says("HELO name is not fully qualified (RFC 5321 section 2.3.5)");
        }
        if !gatepost_protocol::address::is_domain(name.trim_end_matches('.')) {
            return says("HELO name contains invalid FQDN characters (RFC 1035)");
        }
        Ok(None)
    }

    /// What the DNS says of the name and of the client.
    async fn by_dns(&self, name: &str, client: IpAddr, karma: &mut i64) -> Found {
        let forward = match literal(name) {
            Some(_) => None,
            None => {
                let (v4, v6) = tokio::try_join!(
                    self.services.dns(name, RecordType::A),
                    self.services.dns(name, RecordType::Aaaa),
                )?;
                if v4.status == DnsStatus::NoSuchName && v6.status == DnsStatus::NoSuchName {
                    return Ok(Some("HELO hostname does not exist".to_owned()));
                }
                let addresses = v4.records.iter().chain(&v6.records);
                let mut addresses = addresses
                    .flat_map(|record| record.parse::<IpAddr>())
                    .peekable();
                if addresses.peek().is_none() {
                    return Ok(Some("HELO hostname did not resolve".to_owned()));
                }
                Some(addresses.any(|address| address == client))
            }
        };
        let reverse = self
            .services
            .dns(&client.to_string(), RecordType::Ptr)
            .await?;
        if reverse.records.is_empty() {
            return Ok(Some(format!("no reverse DNS for {client}")));
        }
        let plain = |name: &str| name.trim_end_matches('.').to_ascii_lowercase();
        let reverse = reverse
            .records
            .iter()
            .any(|record| plain(record) == plain(name));
        match forward {
            Some(true) if reverse => *karma = 1,
            Some(false) if !reverse && self.strictness == Strictness::Strict => {
                return Ok(Some("That HELO hostname fails FCrDNS".to_owned()));
            }
            _ => {}
        }
        Ok(None)
    }
}

/// The address in `[192.0.2.1]` or `[IPv6:2001:db8::1]` (RFC 5321 §4.1.3).
fn literal(name: &str) -> Option<IpAddr> {
    let inner = name.strip_prefix('[')?.strip_suffix(']')?;
    let tag = inner
        .get(..5)
        .filter(|tag| tag.eq_ignore_ascii_case("IPv6:"));
    let address = tag.map_or(inner, |tag| &inner[tag.len()..]);
    address
        .parse::<IpAddr>()
        .ok()
        .map(|address| address.to_canonical())
}

fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_private() || v4.is_loopback() || v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unique_local() || v6.is_loopback() || v6.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugins::testing::{
        Dns, FakeServices, ask, ask_with, built, karma, line, plugin, session, with_message,
    };
    use gatepost_protocol::{Args, Session};
    use std::borrow::Cow;

    async fn greet(helo: &Arc<dyn Plugin>, session: &Session, name: &str) -> Outcome {
        ask(helo, Hook::Ehlo, session, Args::Host(Cow::Borrowed(name))).await
    }

    #[tokio::test]
    async fn lenient() {
        let services = FakeServices::new();
        services.file(
            "badhelo",
            &["aol.com", r"^mail\d+\.spam", "!^[a-z0-9.:\\[\\]-]+$"],
        );
        let helo = plugin(
            &DEFINITION,
            &services,
            [("hosts", ["mx.example.org"].into())],
        );
        let client = session("192.0.2.1");
        for (name, said) in [
            ("client.example", "pass"),
            ("nodots", "pass"),
            ("AOL.com", "fail, I do not believe you are AOL.com."),
            (
                "mx.example.org",
                "fail, I do not believe you are mx.example.org.",
            ),
            (
                "mail77.spam.example",
                "fail, I do not believe you are mail77.spam.example.",
            ),
            ("under_score", "fail, I do not believe you are under_score."),
            ("localhost", "fail, You are not localhost"),
            ("[192.0.2.1]", "pass"),
            ("[192.0.2.9]", "fail, Forged IPs not accepted here"),
            ("[IPv6:2001:db8::1]", "fail, Forged IPs not accepted here"),
            ("[192.168.1.5]", "pass"),
            (
                "192.0.2.1",
                "fail, Plain IP is invalid HELO hostname (RFC 5321 section 4.1.3)",
            ),
        ] {
            let outcome = greet(&helo, &client, name).await;
            assert_eq!(line(&outcome), said, "{name}");
            assert_eq!(
                karma(&outcome),
                if said == "pass" { 0 } else { -1 },
                "{name}"
            );
        }
        assert_eq!(karma(&greet(&helo, &client, " ").await), -2);
        assert_eq!(
            line(&greet(&helo, &session("127.0.0.1"), "localhost").await),
            "pass"
        );
        assert!(services.asked().is_empty(), "lenient needs no DNS");
        assert_eq!(helo.policy().reject_type, Some(RejectType::Disconnect));
    }

    fn dns() -> Arc<FakeServices> {
        let services = FakeServices::new();
        services.records("good.example", RecordType::A, &["192.0.2.1"]);
        services.records("192.0.2.1", RecordType::Ptr, &["good.example"]);
        services.records("other.example", RecordType::A, &["192.0.2.77"]);
        services.answer("empty.example", RecordType::A, Dns::NoRecords);
        services.answer("dead.example", RecordType::A, Dns::Broken);
        services
    }

    #[tokio::test]
    async fn rfc_and_strict() {
        let rfc = plugin(&DEFINITION, &dns(), [("policy", "rfc".into())]);
        let strict = plugin(&DEFINITION, &dns(), [("policy", "strict".into())]);
        let client = session("192.0.2.1");
        for (name, by_rfc, by_strict) in [
            ("good.example", "pass", "pass"),
            ("Good.Example.", "pass", "pass"),
            (
                "nodots",
                "fail, HELO name is not fully qualified (RFC 5321 section 2.3.5)",
                "",
            ),
            (
                "sp@ce.example",
                "fail, HELO name contains invalid FQDN characters (RFC 1035)",
                "",
            ),
            ("nowhere.example", "fail, HELO hostname does not exist", ""),
            ("empty.example", "fail, HELO hostname did not resolve", ""),
            (
                "other.example",
                "pass",
                "fail, That HELO hostname fails FCrDNS",
            ),
            (
                "[192.0.2.1]",
                "pass",
                "fail, Bracketed IP is not accepted here",
            ),
            ("dead.example", "error, DNS: A dead.example: no answer", ""),
        ] {
            let by_strict = if by_strict.is_empty() {
                by_rfc
            } else {
                by_strict
            };
            let services_name = name.trim_end_matches('.').to_ascii_lowercase();
            assert_eq!(
                line(&greet(&rfc, &client, &services_name).await),
                by_rfc,
                "{name}"
            );
            assert_eq!(
                line(&greet(&strict, &client, &services_name).await),
                by_strict,
                "{name}"
            );
        }
        assert_eq!(karma(&greet(&rfc, &client, "good.example").await), 1);
        let nameless = greet(&rfc, &session("192.0.2.9"), "good.example").await;
        assert_eq!(line(&nameless), "fail, no reverse DNS for 192.0.2.9");
    }

    #[tokio::test]
    async fn x_helo_is_ours() {
        let helo = plugin(&DEFINITION, &FakeServices::new(), []);
        let mut client = session("192.0.2.1");
        client.connection.hello_host = Some("client\texample".to_owned());
        let (mut client, message) = with_message(client, b"X-Helo: forged\r\nFrom: a@b\r\n\r\n");
        let outcome = ask_with(&helo, Hook::DataPost, &client, Args::None, Some(&message)).await;
        crate::plugins::testing::apply(&outcome, &mut client);
        let header = client.transaction.header.unwrap().to_bytes();
        assert_eq!(header, &b"X-HELO: client?example\r\nFrom: a@b\r\n"[..]);
    }

    #[test]
    fn a_wrong_policy_is_named() {
        let errors = built(
            &DEFINITION,
            &FakeServices::new(),
            [("policy", "rcf".into())],
        )
        .err()
        .unwrap();
        assert_eq!(errors[0].path, ["policy"]);
    }
}
