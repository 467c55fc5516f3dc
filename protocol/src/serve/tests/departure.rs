//! A process of one plugin, with the test at the other end of its channel.

use std::sync::Arc;

use crate::frame::{self, Kind};
use crate::serve::*;
use crate::wire::{Cancel, HookMessage, Init, InitPlugin, Ready, ResultMessage};
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

struct Core {
    reader: FrameReader<tokio::net::unix::OwnedReadHalf>,
    writer: FrameWriter,
}

impl Core {
    fn send<T: Kind>(&self, message: &T) {
        self.writer.send(&frame::encode(message).unwrap()).unwrap();
    }

    async fn next<T: serde::de::DeserializeOwned>(&mut self) -> T {
        let next = tokio::time::timeout(Duration::from_secs(20), self.reader.next());
        let payload = next.await.expect("a message in time").unwrap().unwrap();
        payload.decode().unwrap()
    }

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
        self.next().await
    }
}

#[tokio::test]
async fn a_queue_plugin_is_told_of_a_departure_and_any_other_is_stopped() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let (source, sink) = theirs.into_split();
    let process = tokio::spawn(converse(KEEPS, source, Sink::Unix(sink)));
    let (source, sink) = ours.into_split();
    let mut core = Core {
        reader: FrameReader::new(source),
        writer: FrameWriter::new(Sink::Unix(sink)),
    };
    let _: crate::wire::Hello = core.next().await;
    core.send(&Init {
        hostname: "mx.example.org".to_owned(),
        worker: 1,
        scratch_dir: None,
        dns_server: None,
        plugins: vec![InitPlugin {
            name: "keeps".to_owned(),
            ..InitPlugin::default()
        }],
    });
    let _: Ready = core.next().await;

    let told = core.cancel(1, "queue", "disconnect").await;
    assert_eq!(
        (told.id, told.results[0].verdict),
        (1, Some(Verdict::DenySoft))
    );
    for (id, hook, reason) in [(2, "queue", "timeout"), (3, "data_post", "disconnect")] {
        let stopped = core.cancel(id, hook, reason).await;
        assert_eq!((stopped.id, stopped.results.len()), (id, 0), "{reason}");
    }
    drop(core);
    assert_eq!(process.await.unwrap(), Ok(()));
}
