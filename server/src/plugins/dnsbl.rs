//! `dnsbl`: DNS lists of clients (RFC 5782).
//!
//! All zones are asked at once when the client connects, while the session goes on. What they say is noted, and judged at every RCPT: the
//! answer that comes late is one answer, and a client that was refused its first recipient must not get its second through.
//!
//! Where qpsmtpd's differs: it looked for a zone's own message where none could be, closed the connection at once, and counted every
//! answer as a listing. Here an answer outside 127.0.0.0/8 is no answer of a list, and 127.255.255.0/24 is how lists say that they do not
//! serve our resolver.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use gatepost_protocol::services::reverse_labels;
use gatepost_protocol::{
    Answer, Built, Call, Change, Definition, EnhancedCode, Field, Hook, Init, OnError, Outcome,
    Plugin, Policy, RecordType, ServiceError, Services, Setting, Subscription, Value,
};

use super::lists::{Entries, List, checked};
use super::patterns::Networks;

pub const DEFINITION: Definition = Definition {
    name: "dnsbl",
    about: "Asks DNS lists about the client's address.",
    settings: || {
        vec![
            Setting::list(
                "zones",
                "Lists to ask, each with an optional message of its own behind a colon, in which %IP% is the client (zen.example.net:See https://example.net/%IP%); adds to the flat file dnsbl_zones.",
            ),
            Setting::list(
                "allow",
                "Addresses, prefixes and networks that are not asked about; adds to the flat file dnsbl_allow.",
            ),
            Setting::text(
                "reject_message",
                "What to say before the list's own text; the flat file dnsbl_rejectmsg where this is not set.",
            ),
        ]
    },
    build,
};

/// The longest text of a list that is passed on to the client: with our own words it fits a reply line (RFC 5321 §4.5.3.1.5).
const MAX_TEXT: usize = 300;

/// Recipients that must be reachable for those who are listed by mistake (RFC 5321 §4.5.1, RFC 2142 §4, §5).
const REACHABLE: [&str; 4] = ["postmaster", "abuse", "mailer-daemon", "root"];

#[derive(Clone)]
struct Zone {
    name: String,
    message: Option<String>,
}

#[derive(Clone, Default)]
struct Zones(Vec<Zone>);

impl Entries for Zones {
    fn add(&mut self, entry: &str) -> Result<(), String> {
        let (name, message) = match entry.split_once(':') {
            Some((name, message)) => (name, Some(message.trim().to_owned())),
            None => (entry, None),
        };
        let name = name.trim().trim_end_matches('.');
        if !gatepost_protocol::address::is_domain(name) {
            return Err("expected a zone, such as zen.example.net".to_owned());
        }
        self.0.push(Zone {
            name: name.to_owned(),
            message: message.filter(|message| !message.is_empty()),
        });
        Ok(())
    }
}

struct Dnsbl {
    name: String,
    services: Arc<dyn Services>,
    zones: List<Zones>,
    allow: List<Networks>,
    reject_message: Option<String>,
}

/// The flat files that it reads.
pub const FILES: &[&str] = &["dnsbl_zones", "dnsbl_allow", "dnsbl_rejectmsg"];

fn build(init: Init) -> Built {
    let mut errors = Vec::new();
    let zones = checked(List::new(&init, "zones", &["dnsbl_zones"]), &mut errors);
    let allow = checked(List::new(&init, "allow", &["dnsbl_allow"]), &mut errors);
    match (zones, allow) {
        (Some(zones), Some(allow)) => Ok(Arc::new(Dnsbl {
            zones,
            allow,
            reject_message: init.settings.text("reject_message").map(str::to_owned),
            name: init.name,
            services: init.services,
        })),
        _ => Err(errors),
    }
}

impl Plugin for Dnsbl {
    fn subscriptions(&self) -> Vec<Subscription> {
        vec![
            Subscription::to(Hook::Connect, &[Field::RemoteIp]),
            Subscription::to(Hook::Rcpt, &[Field::Naughty]).reading(&[&self.name]),
        ]
    }

    fn policy(&self) -> Policy {
        Policy {
            on_error: Some(OnError::Skip),
            ..super::of_strangers()
        }
    }

    fn call<'a>(&'a self, call: &'a Call<'a>) -> Answer<'a> {
        match call.hook {
            Hook::Connect => super::now_or_later(self.connect(call)),
            _ => self.rcpt(call).into(),
        }
    }
}

impl Dnsbl {
    async fn connect(&self, call: &Call<'_>) -> Outcome {
        let Some(remote) = call.session.connection.remote else {
            return Outcome::skip("no client address");
        };
        let lists = tokio::try_join!(
            self.zones.entries(),
            self.allow.entries(),
            self.services.config("dnsbl_rejectmsg"),
        );
        let (zones, allow, from_file) = match lists {
            Ok(lists) => lists,
            Err(error) => return Outcome::error(error.to_string()),
        };
        if zones.0.is_empty() {
            return Outcome::skip("no zones");
        }
        let client = remote.ip().to_canonical();
        if let Some(net) = allow.find(client) {
            return Outcome::skip(format!("{net} in allow"));
        }
        let before = self.reject_message.clone().or(from_file.into_iter().next());
        let (name, services) = (self.name.clone(), Arc::clone(&self.services));
        Outcome::defer(Hook::Rcpt, async move {
            match look_up(&*services, &zones.0, client).await {
                Ok(None) => Outcome::pass(""),
                Ok(Some((zone, text))) => {
                    let text = match before {
                        Some(before) => format!("{before} {text}"),
                        None => text,
                    };
                    let found = [("zone", zone), ("text", text)];
                    Outcome::declined()
                        .with_change(Change::Karma { add: -1 })
                        .with_change(Change::connection_note(&name, map(found)))
                }
                Err(error) => Outcome::declined()
                    .with_change(Change::connection_note(&name, map([("error", error)]))),
            }
        })
    }

    fn rcpt(&self, call: &Call<'_>) -> Outcome {
        let connection = &call.session.connection;
        let noted = connection.notes.get(&self.name);
        if noted.is_none() && connection.naughty.is_none() {
            return Outcome::declined();
        }
        let recipient = call.args.address();
        let local = recipient.map(|address| address.local_unquoted().to_ascii_lowercase());
        if let Some(local) = local.filter(|local| REACHABLE.contains(&local.as_str())) {
            return Outcome::skip(format!("{local} takes mail from everyone"))
                .with_change(Change::Naughty { message: None });
        }
        let naughty = connection.naughty.as_ref();
        if naughty.is_some_and(|naughty| naughty.plugin == self.name) {
            // Kept already, at an earlier recipient.
            return Outcome::declined();
        }
        let text = |key: &str| noted.and_then(|noted| noted.get(key)?.as_text());
        match (text("zone"), text("text"), text("error")) {
            (Some(zone), Some(text), _) => Outcome::fail(format!("listed in {zone}"))
                .with_reply(text)
                .with_enhanced(EnhancedCode(5, 7, 1)),
            (_, _, Some(error)) => Outcome::error(error),
            _ => Outcome::declined(),
        }
    }
}

fn map<const N: usize>(entries: [(&str, String); N]) -> Value {
    let entries = entries.map(|(key, value)| (key.to_owned(), Value::Text(value)));
    Value::Map(entries.into())
}

/// The first list to say that it has the client: its name and what to tell the client. An error where none did and one could not be asked.
async fn look_up(
    services: &dyn Services,
    zones: &[Zone],
    client: IpAddr,
) -> Result<Option<(String, String)>, String> {
    let labels = reverse_labels(client);
    let mut asking: FuturesUnordered<_> = zones
        .iter()
        .map(|zone| ask(services, zone, &labels))
        .collect();
    let mut trouble = Vec::new();
    while let Some((zone, listed)) = asking.next().await {
        match listed {
            Ok(false) => {}
            Ok(true) => {
                let text = text_for(services, zone, &labels, client).await;
                return Ok(Some((zone.name.clone(), text)));
            }
            Err(error) => trouble.push(error),
        }
    }
    if trouble.is_empty() {
        Ok(None)
    } else {
        trouble.sort();
        Err(trouble.join("; "))
    }
}

async fn ask<'a>(
    services: &dyn Services,
    zone: &'a Zone,
    labels: &str,
) -> (&'a Zone, Result<bool, String>) {
    let name = format!("{labels}.{}.", zone.name);
    let listed = match services.dns(&name, RecordType::A).await {
        Ok(answer) => judge(&zone.name, &answer.records),
        Err(ServiceError { message, .. }) => Err(message),
    };
    (zone, listed)
}

fn judge(zone: &str, records: &[String]) -> Result<bool, String> {
    let answers: Vec<Ipv4Addr> = records.iter().flat_map(|record| record.parse()).collect();
    // Answers to a wrong name, from a public resolver or after too many questions; whoever took them for listings refused everybody.
    if let Some(refusal) = answers
        .iter()
        .find(|ip| ip.octets()[..3] == [127, 255, 255])
    {
        return Err(format!("{zone} does not answer our resolver ({refusal})"));
    }
    Ok(answers.iter().any(Ipv4Addr::is_loopback))
}

async fn text_for(services: &dyn Services, zone: &Zone, labels: &str, client: IpAddr) -> String {
    if let Some(message) = &zone.message {
        return message.replace("%IP%", &client.to_string());
    }
    let name = format!("{labels}.{}.", zone.name);
    // Without its text a listing is still one.
    let texts = services.dns(&name, RecordType::Txt).await;
    let text = texts
        .ok()
        .and_then(|answer| answer.records.into_iter().next());
    match text {
        Some(text) => text.chars().take(MAX_TEXT).collect(),
        None => format!("{client} is listed in {}", zone.name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugins::testing::{
        Dns, FakeServices, apply, ask, ask_address, karma, line, plugin, session,
    };
    use gatepost_protocol::{Args, Session};

    /// Connects, and collects what comes later as the chain does before RCPT.
    async fn connected(dnsbl: &Arc<dyn Plugin>, remote: &str) -> (Session, Outcome) {
        let mut client = session(remote);
        let at_connect = ask(dnsbl, Hook::Connect, &client, Args::None).await;
        let deferred = at_connect.defer.expect("deferred");
        assert_eq!(deferred.until, Hook::Rcpt);
        let later = deferred.outcome.await;
        apply(&later, &mut client);
        (client, later)
    }

    #[tokio::test]
    async fn a_listed_client_is_told_the_lists_text_at_every_recipient() {
        let services = FakeServices::new();
        services.file("dnsbl_zones", &["b.example"]);
        services.records("2.0.0.127.b.example.", RecordType::A, &["127.0.0.4"]);
        services.records(
            "2.0.0.127.b.example.",
            RecordType::Txt,
            &["See https://b.example"],
        );
        let dnsbl = plugin(&DEFINITION, &services, [("zones", ["a.example"].into())]);
        let (client, later) = connected(&dnsbl, "127.0.0.2").await;
        assert_eq!((line(&later).as_str(), karma(&later)), ("-", -1));
        for recipient in ["bob@example.org", "eve@example.org"] {
            let outcome = ask_address(&dnsbl, Hook::Rcpt, &client, recipient).await;
            assert_eq!(line(&outcome), "fail, listed in b.example");
            assert_eq!(outcome.reply, ["See https://b.example"]);
            assert_eq!((outcome.verdict, karma(&outcome)), (None, 0));
        }
        let asked = [
            "A 2.0.0.127.a.example.",
            "A 2.0.0.127.b.example.",
            "TXT 2.0.0.127.b.example.",
        ];
        assert_eq!(services.asked(), asked);
    }

    #[tokio::test]
    async fn a_zones_own_message_and_the_operators_go_before_the_lists() {
        let services = FakeServices::new();
        services.records("1.2.0.192.a.example.", RecordType::A, &["127.0.0.2"]);
        services.file("dnsbl_rejectmsg", &["Blocked:"]);
        let zones = ["a.example:See https://a.example/?%IP%"].into();
        let dnsbl = plugin(&DEFINITION, &services, [("zones", zones)]);
        let (client, _) = connected(&dnsbl, "192.0.2.1").await;
        let outcome = ask_address(&dnsbl, Hook::Rcpt, &client, "bob@example.org").await;
        assert_eq!(outcome.reply, ["Blocked: See https://a.example/?192.0.2.1"]);
        assert_eq!(services.asked(), ["A 1.2.0.192.a.example."]);
    }

    #[tokio::test]
    async fn who_is_not_listed_passes() {
        let services = FakeServices::new();
        services.records("1.2.0.192.wild.example.", RecordType::A, &["203.0.113.1"]);
        services.answer("1.2.0.192.empty.example.", RecordType::A, Dns::NoRecords);
        let zones = ["wild.example", "empty.example", "none.example"].into();
        let dnsbl = plugin(&DEFINITION, &services, [("zones", zones)]);
        let (client, later) = connected(&dnsbl, "192.0.2.1").await;
        assert_eq!((line(&later).as_str(), karma(&later)), ("pass", 0));
        let outcome = ask_address(&dnsbl, Hook::Rcpt, &client, "bob@example.org").await;
        assert_eq!(line(&outcome), "-");
    }

    #[tokio::test]
    async fn a_list_that_does_not_answer_is_an_error_unless_another_has_the_client() {
        let services = FakeServices::new();
        services.answer("1.2.0.192.dead.example.", RecordType::A, Dns::Broken);
        services.records(
            "1.2.0.192.full.example.",
            RecordType::A,
            &["127.255.255.255"],
        );
        services.records("2.2.0.192.a.example.", RecordType::A, &["127.0.0.2"]);
        services.answer("2.2.0.192.dead.example.", RecordType::A, Dns::Broken);
        let zones = ["dead.example", "full.example", "a.example"].into();
        let dnsbl = plugin(&DEFINITION, &services, [("zones", zones)]);
        let (client, _) = connected(&dnsbl, "192.0.2.1").await;
        let outcome = ask_address(&dnsbl, Hook::Rcpt, &client, "bob@example.org").await;
        assert_eq!(
            line(&outcome),
            "error, DNS: A 1.2.0.192.dead.example.: no answer; full.example does not answer our resolver (127.255.255.255)"
        );
        let (client, _) = connected(&dnsbl, "192.0.2.2").await;
        let outcome = ask_address(&dnsbl, Hook::Rcpt, &client, "bob@example.org").await;
        assert_eq!(line(&outcome), "fail, listed in a.example");
        assert_eq!(dnsbl.policy().on_error, Some(OnError::Skip));
    }

    #[tokio::test]
    async fn postmaster_is_reachable_and_only_postmaster() {
        let services = FakeServices::new();
        services.records("1.2.0.192.a.example.", RecordType::A, &["127.0.0.2"]);
        let dnsbl = plugin(&DEFINITION, &services, [("zones", ["a.example"].into())]);
        let (mut client, _) = connected(&dnsbl, "192.0.2.1").await;
        let keep = |client: &mut Session| {
            let kept = Change::Naughty {
                message: Some("listed".to_owned()),
            };
            kept.apply(client, "test").unwrap();
        };
        keep(&mut client);
        let again = ask_address(&dnsbl, Hook::Rcpt, &client, "bob@example.org").await;
        assert_eq!(line(&again), "-", "kept once");
        for recipient in [
            "Postmaster",
            "abuse@example.org",
            "root@x.example",
            "mailer-daemon@x.example",
        ] {
            keep(&mut client);
            let outcome = ask_address(&dnsbl, Hook::Rcpt, &client, recipient).await;
            assert!(line(&outcome).starts_with("skip, "), "{recipient}");
            apply(&outcome, &mut client);
            assert_eq!(client.connection.naughty, None, "{recipient}");
        }
        let other = ask_address(&dnsbl, Hook::Rcpt, &client, "postmaster-bob@example.org").await;
        assert_eq!(line(&other), "fail, listed in a.example");
    }

    #[tokio::test]
    async fn the_allowed_are_not_asked_about() {
        let services = FakeServices::new();
        let settings = [
            ("zones", ["a.example"].into()),
            ("allow", ["192.0.2."].into()),
        ];
        let dnsbl = plugin(&DEFINITION, &services, settings);
        let outcome = ask(&dnsbl, Hook::Connect, &session("192.0.2.1"), Args::None).await;
        assert_eq!(line(&outcome), "skip, 192.0.2.0/24 in allow");
        assert!(services.asked().is_empty());
    }

    #[tokio::test]
    async fn with_a_real_resolver() {
        let zone = "2.0.0.127 IN A 127.0.0.2\n2.0.0.127 IN TXT \"test entry\"\n";
        let v6 = reverse_labels("2001:db8::1".parse().unwrap());
        let zone = format!("{zone}{v6} IN A 127.0.0.3\n");
        let server = crate::services::test_dns::TestDns::start(&[("bl.example.", &zone)]).await;
        let core = crate::services::Core::new(
            server.config(),
            Arc::new(|_| Ok(Vec::new())),
            "/nonexistent".into(),
            Arc::new(|_, _, _| {}),
        );
        let zones = [Zone {
            name: "bl.example".to_owned(),
            message: None,
        }];
        let ask = async |client: &str| {
            look_up(&core, &zones, client.parse().unwrap())
                .await
                .unwrap()
        };
        assert_eq!(ask("127.0.0.2").await.unwrap().1, "test entry");
        assert_eq!(ask("127.0.0.3").await, None);
        assert_eq!(
            ask("2001:db8::1").await.unwrap().1,
            "2001:db8::1 is listed in bl.example"
        );
    }
}
