//! A process of one plugin that waits for the client to speak, with the test at the other end of its channel.

use std::sync::Arc;
use std::time::Duration;

use super::Core;
use crate::plugin::Definition;
use crate::services::ServiceErrorCode;
use crate::wire::{CallError, CallMessage, HookMessage, InitPlugin, ReplyMessage, ResultMessage};
use crate::{Answer, Call, Hook, Outcome, Plugin, Subscription, Value};

/// Waits for the client to speak, and says whether it did.
struct Hears;

impl Plugin for Hears {
    fn subscriptions(&self) -> Vec<Subscription> {
        [Hook::Connect, Hook::Mail]
            .map(|hook| Subscription::to(hook, &[]))
            .to_vec()
    }

    fn call<'a>(&'a self, call: &'a Call<'a>) -> Answer<'a> {
        Answer::later(async {
            let Some(speech) = call.speech else {
                return Outcome::skip("may speak");
            };
            let at_once = speech.within(Duration::ZERO).await;
            let later = speech.within(Duration::from_secs(1 << 32)).await;
            Outcome::skip(format!("{at_once} {later}"))
        })
    }
}

const HEARS: &[Definition] = &[Definition {
    name: "hears",
    about: "",
    settings: Vec::new,
    build: |_| Ok(Arc::new(Hears)),
}];

impl Core {
    /// What the plugin says at a hook, where its looks at the client come to this.
    async fn look(&mut self, id: u64, hook: &str, looks: &[Option<bool>]) -> String {
        self.send(&HookMessage {
            id: Some(id),
            hook: hook.into(),
            plugins: vec!["hears".into()],
            ..HookMessage::default()
        });
        for look in looks {
            let call: CallMessage = self.receive().await;
            assert_eq!((&*call.method, call.hook), ("client/spoke", Some(id)));
            let spoke = |spoke| Value::Map([("spoke".to_owned(), Value::Boolean(spoke))].into());
            self.send(&ReplyMessage {
                id: call.id,
                ok: look.map(spoke),
                error: look.is_none().then(|| CallError {
                    code: ServiceErrorCode::NotFound,
                    message: "it may speak".to_owned(),
                }),
            });
        }
        let mut result: ResultMessage = self.receive().await;
        assert_eq!(result.id, id);
        result.results.remove(0).message.unwrap()
    }
}

#[tokio::test]
async fn a_plugin_waits_for_the_client_to_speak() {
    let hears = InitPlugin {
        name: "hears".to_owned(),
        ..InitPlugin::default()
    };
    let mut core = Core::of(HEARS, vec![hears]).await;
    for (id, looks, said) in [
        (1, &[Some(false), Some(true)][..], "false true"),
        (2, &[Some(true)], "true true"),
        (3, &[Some(false), Some(false)], "false false"),
        (4, &[None], "false false"),
    ] {
        assert_eq!(core.look(id, "connect", looks).await, said);
    }
    assert_eq!(core.look(5, "mail", &[]).await, "may speak");
}
