//! A process of one plugin, with the test at the other end of its channel.

use std::sync::Arc;

use super::Core;
use crate::plugin::Definition;
use crate::wire::{Cancel, HookMessage, InitPlugin, ResultMessage};
use crate::{Answer, Call, Hook, Outcome, Plugin, Subscription, Verdict};

/// Works until the client is gone.
struct Keeps;

impl Plugin for Keeps {
    fn subscriptions(&self) -> Vec<Subscription> {
        vec![Subscription::to(Hook::Queue, &[])]
    }

    fn call<'a>(&'a self, call: &'a Call<'a>) -> Answer<'a> {
        Answer::later(async {
            call.departure.happened().await;
            assert!(call.departure.has_happened());
            Outcome::skip("gone").with_verdict(Verdict::DenySoft)
        })
    }
}

const KEEPS: &[Definition] = &[Definition {
    name: "keeps",
    about: "",
    settings: Vec::new,
    build: |_| Ok(Arc::new(Keeps)),
}];

impl Core {
    /// Puts `hook` to the plugin, and sends `cancel` behind it.
    async fn cancel(&mut self, id: u64, hook: &str, reason: &str) -> ResultMessage {
        self.send(&HookMessage {
            id: Some(id),
            hook: hook.into(),
            plugins: vec!["keeps".into()],
            ..HookMessage::default()
        });
        self.send(&Cancel {
            id,
            reason: reason.to_owned(),
        });
        self.receive().await
    }
}

#[tokio::test]
async fn a_queue_plugin_is_told_of_a_departure_and_any_other_is_stopped() {
    let keeps = InitPlugin {
        name: "keeps".to_owned(),
        ..InitPlugin::default()
    };
    let mut core = Core::of(KEEPS, vec![keeps]).await;
    let told = core.cancel(1, "queue", "disconnect").await;
    assert_eq!(
        (told.id, told.results[0].verdict),
        (1, Some(Verdict::DenySoft))
    );
    for (id, hook, reason) in [(2, "queue", "timeout"), (3, "data_post", "disconnect")] {
        let stopped = core.cancel(id, hook, reason).await;
        assert_eq!((stopped.id, stopped.results.len()), (id, 0), "{reason}");
    }
    let worker = core.worker;
    drop((core.reader, core.writer));
    assert_eq!(worker.await.unwrap(), Ok(()));
}
