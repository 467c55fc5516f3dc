//! A core that speaks with [`converse`] over two pipes.

mod departure;
mod speech;

use std::collections::BTreeMap;
use std::sync::Mutex;

use tokio::net::unix::pipe;
use tokio::task::JoinHandle;

use super::*;
use crate::frame::{self, Kind};
use crate::plugin::{Call, Init, Plugin, Subscription};
use crate::{
    Address, Answer, Built, Disposition, Hook, Outcome, Setting, SettingError, Value, wire,
};

/// Says what its settings and its memory are, and is heard when a session ends. With `only` it takes part in that hook alone.
struct Parrot {
    init: Init,
    heard: Mutex<usize>,
}

const PARROT: Definition = Definition {
    name: "parrot",
    about: "says what it was made from",
    settings: || {
        vec![
            Setting::text("word", "what it says").required(),
            Setting::size("most", "how much").default("1KB"),
            Setting::text("only", "where it takes part"),
        ]
    },
    build: |init| -> Built {
        if init.settings.text("word") == Some("silence") {
            return Err(vec![SettingError::at("word", "nobody can say that")]);
        }
        Ok(Arc::new(Parrot {
            init,
            heard: Mutex::default(),
        }))
    },
};

impl Plugin for Parrot {
    fn subscriptions(&self) -> Vec<Subscription> {
        let hooks = [
            Hook::Rcpt,
            Hook::DataPost,
            Hook::QueuePre,
            Hook::RecipientValid,
            Hook::Deny,
            Hook::Disconnect,
        ];
        let only = self.init.settings.text("only");
        let hooks = hooks
            .into_iter()
            .filter(|hook| only.is_none_or(|only| only == hook.name()));
        hooks.map(|hook| Subscription::to(hook, &[])).collect()
    }

    fn call<'a>(&'a self, call: &'a Call<'a>) -> Answer<'a> {
        let settings = &self.init.settings;
        let word = settings.text("word").unwrap_or_default();
        if call.hook.is_event() {
            let services = &self.init.services;
            services.log(
                &self.init.name,
                crate::Level::Info,
                &format!("{word} heard {}", call.hook.name()),
            );
            return Outcome::declined().into();
        }
        if call.hook == Hook::RecipientValid {
            let address = call.args.address().unwrap();
            let asked = self.init.services.recipient_valid(address);
            return Answer::later(async { Outcome::skip(asked.await.unwrap().name()) });
        }
        if call.hook == Hook::QueuePre {
            let bob = Address::parse("bob@example.org").unwrap();
            return Outcome::pass("room")
                .for_recipient(bob, Outcome::fail("full").with_reply("no\nroom"))
                .into();
        }
        let mut heard = self.heard.lock().unwrap();
        *heard += 1;
        Outcome::pass(format!(
            "{word}, {}, {heard}",
            settings.size("most").unwrap_or_default()
        ))
        .into()
    }
}

static PARROTS: [Definition; 1] = [PARROT];

const PATIENCE: Duration = Duration::from_secs(30);

/// The core's end.
struct Core {
    reader: FrameReader<pipe::Receiver>,
    writer: FrameWriter,
    worker: JoinHandle<Result<(), String>>,
    next: u64,
}

fn given(settings: &[(&str, &str)]) -> BTreeMap<String, Value> {
    let settings = settings.iter();
    settings
        .map(|(key, value)| ((*key).to_owned(), Value::from(*value)))
        .collect()
}

impl Core {
    /// Starts `parrot`, and `other` beside it, which says `b`.
    async fn start() -> Core {
        let plugin = |name: &str, word| wire::InitPlugin {
            name: name.to_owned(),
            settings: given(&[("word", word)]),
            ..wire::InitPlugin::default()
        };
        Core::of(&PARROTS, vec![plugin("parrot", "a"), plugin("other", "b")]).await
    }

    /// Starts these plugins.
    async fn of(definitions: &'static [Definition], plugins: Vec<wire::InitPlugin>) -> Core {
        let (to_worker, from_core) = pipe::pipe().unwrap();
        let (to_core, from_worker) = pipe::pipe().unwrap();
        let worker = tokio::spawn(converse(definitions, from_core, Sink::Pipe(to_core)));
        let mut core = Core {
            reader: FrameReader::new(from_worker),
            writer: FrameWriter::new(Sink::Pipe(to_worker)),
            worker,
            next: 0,
        };
        let number = plugins.len();
        let hello: wire::Hello = core.receive().await;
        assert!(hello.features.contains(&"settings".to_owned()), "{hello:?}");
        core.send(&wire::Init {
            hostname: "mx.example.org".to_owned(),
            worker: 1,
            scratch_dir: None,
            dns_server: None,
            plugins,
        });
        let ready: wire::Ready = core.receive().await;
        assert_eq!(ready.plugins.len(), number);
        core
    }

    fn send<T: Kind>(&self, message: &T) {
        self.writer.send(&frame::encode(message).unwrap()).unwrap();
    }

    async fn receive<T: Kind + serde::de::DeserializeOwned>(&mut self) -> T {
        let next = tokio::time::timeout(PATIENCE, self.reader.next()).await;
        let payload = next.expect("an answer in time").unwrap().unwrap();
        assert_eq!(payload.kind(), T::KIND, "{payload:?}");
        payload.decode().unwrap()
    }

    fn message(
        hook: &'static str,
        plugins: &[&'static str],
        settings: &[(&'static str, &[(&str, &str)])],
    ) -> wire::HookMessage<'static> {
        let settings = settings
            .iter()
            .map(|(name, settings)| ((*name).into(), std::borrow::Cow::Owned(given(settings))));
        wire::HookMessage {
            hook: hook.into(),
            plugins: plugins.iter().map(|name| (*name).into()).collect(),
            session: "s1".into(),
            settings: Some(settings.collect()),
            ..wire::HookMessage::default()
        }
    }

    /// What the plugins answer, `disposition message`.
    async fn hook(
        &mut self,
        hook: &'static str,
        plugins: &[&'static str],
        settings: &[(&'static str, &[(&str, &str)])],
    ) -> Vec<String> {
        self.next += 1;
        self.send(&wire::HookMessage {
            id: Some(self.next),
            ..Core::message(hook, plugins, settings)
        });
        let result: wire::ResultMessage = self.receive().await;
        assert_eq!(result.id, self.next);
        let said = result.results.into_iter().map(|entry| {
            let found = entry.disposition.map_or("nothing", |found| found.name());
            format!("{found} {}", entry.message.unwrap_or_default())
        });
        said.collect()
    }

    async fn event(&mut self, hook: &'static str, logs: usize) -> Vec<String> {
        let message = Core::message(hook, &["parrot", "other"], &[]);
        self.send(&wire::EventMessage(message));
        let mut said = Vec::new();
        for _ in 0..logs {
            said.push(self.receive::<wire::Log>().await.message);
        }
        // What else it has to say would come before this.
        assert_eq!(self.hook("rcpt", &[], &[]).await, [""; 0]);
        said
    }
}

#[tokio::test]
async fn settings_in_force_are_another_instance_of_the_plugin_they_are_for() {
    let mut core = Core::start().await;
    let both = ["parrot", "other"];
    let site = ["pass a, 1024, 1", "pass b, 1024, 1"];
    assert_eq!(core.hook("rcpt", &both, &[]).await, site);
    let own: (&str, &[(&str, &str)]) = ("parrot", &[("word", "c"), ("most", "2KB")]);
    let with = ["pass c, 2048, 1", "pass b, 1024, 2"];
    assert_eq!(core.hook("rcpt", &both, &[own]).await, with);
    let own_again = ["pass c, 2048, 2", "pass b, 1024, 3"];
    assert_eq!(core.hook("rcpt", &both, &[own]).await, own_again);
    let site_again = ["pass a, 1024, 2", "pass b, 1024, 4"];
    assert_eq!(core.hook("rcpt", &both, &[]).await, site_again);
    let default: (&str, &[(&str, &str)]) = ("parrot", &[("word", "c")]);
    let complete = ["pass c, 1024, 1"];
    assert_eq!(core.hook("rcpt", &["parrot"], &[default]).await, complete);
}

#[tokio::test]
async fn settings_that_are_refused_are_an_error_of_that_plugin_and_end_the_segment() {
    let mut core = Core::start().await;
    let wrong: [(&str, &[(&str, &str)]); 3] = [
        ("parrot", &[("word", "silence")]),
        ("parrot", &[("wort", "c"), ("word", "c"), ("most", "lots")]),
        ("parrot", &[]),
    ];
    let said = [
        "error the settings in force cannot be used: word: nobody can say that",
        "error the settings in force cannot be used: most: expected a size with its unit, such as \"64KB\" or \"50MB\"; \
         wort: unknown setting `wort`; did you mean `word`?",
        "error the settings in force cannot be used: `word` is missing: what it says",
    ];
    for (settings, said) in wrong.into_iter().zip(said) {
        assert_eq!(
            core.hook("rcpt", &["other", "parrot", "other"], &[settings])
                .await[1..],
            [said]
        );
    }
}

#[tokio::test]
async fn an_instance_takes_part_where_its_settings_and_the_first_one_do() {
    let mut core = Core::start().await;
    let only: (&str, &[(&str, &str)]) = ("parrot", &[("word", "c"), ("only", "data_post")]);
    let said = core.hook("rcpt", &["parrot", "other"], &[only]).await;
    assert_eq!(said, ["nothing ", "pass b, 1024, 1"]);
    let said = core.hook("data_post", &["parrot"], &[only]).await;
    assert_eq!(said, ["pass c, 1024, 1"]);
}

#[tokio::test]
async fn the_instance_that_was_not_asked_for_longest_is_forgotten() {
    let mut core = Core::start().await;
    let words: Vec<String> = (0..65).map(|number| format!("w{number}")).collect();
    for word in words[..64].iter().chain([&words[0], &words[64]]) {
        let own: (&str, &[(&str, &str)]) = ("parrot", &[("word", word)]);
        core.hook("rcpt", &["parrot"], &[own]).await;
    }
    for (word, heard) in [(0, 3), (64, 2), (2, 2), (1, 1)] {
        let own: (&str, &[(&str, &str)]) = ("parrot", &[("word", &words[word])]);
        let said = core.hook("rcpt", &["parrot"], &[own]).await;
        assert_eq!(said, [format!("pass w{word}, 1024, {heard}")]);
    }
}

#[tokio::test]
async fn all_instances_that_were_asked_about_a_session_are_told_of_its_end() {
    let mut core = Core::start().await;
    let own: (&str, &[(&str, &str)]) = ("parrot", &[("word", "c")]);
    for _ in 0..2 {
        core.hook("rcpt", &["parrot"], &[own]).await;
    }
    let denied = ["a heard deny", "b heard deny"];
    assert_eq!(core.event("deny", 2).await, denied);
    let over = [
        "a heard disconnect",
        "c heard disconnect",
        "b heard disconnect",
    ];
    assert_eq!(core.event("disconnect", 3).await, over);
    assert_eq!(
        core.event("disconnect", 2).await,
        [over[0], over[2]],
        "once"
    );
}

#[tokio::test]
async fn outcomes_for_single_recipients_end_the_segment() {
    let mut core = Core::start().await;
    core.send(&wire::HookMessage {
        id: Some(1),
        ..Core::message("queue_pre", &["parrot", "other"], &[])
    });
    let result: wire::ResultMessage = core.receive().await;
    let [entry] = result.results.as_slice() else {
        panic!("{result:?}");
    };
    assert_eq!(entry.disposition, Some(Disposition::Pass));
    let bob = wire::RecipientEntry {
        address: Address::parse("bob@example.org").unwrap(),
        disposition: Some(Disposition::Fail),
        message: Some("full".to_owned()),
        verdict: None,
        code: None,
        enhanced: None,
        reply: Some(vec!["no".to_owned(), "room".to_owned()]),
    };
    assert_eq!(entry.recipients, Some(vec![bob]));
}

#[tokio::test]
async fn a_call_names_the_hook_it_belongs_to() {
    let mut core = Core::start().await;
    let address = Address::parse("bob@example.org").unwrap();
    let args = wire::ArgsMessage {
        address: Some(std::borrow::Cow::Owned(address)),
        ..wire::ArgsMessage::default()
    };
    core.send(&wire::HookMessage {
        id: Some(17),
        args,
        ..Core::message("recipient_valid", &["parrot"], &[])
    });
    let call: wire::CallMessage = core.receive().await;
    assert_eq!((call.hook, &*call.method), (Some(17), "recipient/valid"));
    let address = call.params.get("address").and_then(Value::as_text);
    assert_eq!(address, Some("bob@example.org"));
    let validity = [("validity".to_owned(), Value::from("invalid"))];
    core.send(&wire::ReplyMessage {
        id: call.id,
        ok: Some(Value::Map(validity.into())),
        error: None,
    });
    let result: wire::ResultMessage = core.receive().await;
    assert_eq!(result.results[0].message.as_deref(), Some("invalid"));
}

#[tokio::test]
async fn the_end_of_the_channel_ends_the_conversation() {
    let Core { writer, worker, .. } = Core::start().await;
    drop(writer);
    assert_eq!(worker.await.unwrap(), Ok(()));
}
