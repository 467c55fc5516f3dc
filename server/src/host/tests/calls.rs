//! What a plugin asks of the core.

use std::time::Duration;

use gatepost_protocol::plugin::{Host, Wants};
use gatepost_protocol::services::ServiceErrorCode;
use gatepost_protocol::wire::{CallMessage, ReplyMessage};
use gatepost_protocol::{Hook, Speech, Value};

use super::fake::{Bytes, Peer, call, hook, map, said, session, vip};

async fn ask(peer: &mut Peer, hook: Option<u64>, method: &str, params: Value) -> ReplyMessage {
    peer.send(&CallMessage {
        id: 7,
        hook,
        method: method.to_owned(),
        params,
    });
    let reply: ReplyMessage = peer.next("reply").await;
    assert_eq!(reply.id, 7);
    reply
}

#[tokio::test]
async fn the_services_of_the_core_answer() {
    let mut pair = vip(&[hook("rcpt")]).await;
    let peer = &mut pair.peer;
    let key = || ("key", Value::from("vip/k"));
    let set = map([
        key(),
        ("value", Value::Bytes(vec![0, 255])),
        ("ttl_ms", Value::from(1500)),
    ]);
    let dns = |name: &str| map([("name", Value::from(name)), ("type", Value::from("A"))]);
    let found = map([
        ("status", Value::from("found")),
        ("records", Value::from(["192.0.2.25"])),
    ]);
    let values = map([("values", Value::from(["line of me"]))]);
    let sum = map([("value", Value::from(42))]);
    let address = |address: &str| map([("address", Value::from(address))]);
    let validity = |name: &str| map([("validity", Value::from(name))]);
    let stored = map([("value", Value::Bytes(vec![0, 255]))]);
    let submit = map([
        ("sender", Value::from("")),
        ("recipients", Value::from(["a@b", "c@d"])),
        ("message", Value::Bytes(b"x\n".to_vec())),
    ]);
    let submitted = map([("id", Value::from("<> to a@b,c@d: x\\n"))]);
    let bounce = |sender: &str| {
        map([
            ("sender", Value::from(sender)),
            ("recipient", Value::from("c@d")),
            ("text", Value::from("gone")),
            ("message", Value::Bytes(Vec::new())),
            ("enhanced", Value::from("5.1.1")),
        ])
    };
    let bounced = map([("id", Value::from("a@b about c@d: 550 5.1.1 gone"))]);
    for (method, params, expected) in [
        ("dns", dns("mx.example.org."), found),
        ("config", map([("name", Value::from("me"))]), values),
        (
            "recipient/valid",
            address("bob@example.org"),
            validity("valid"),
        ),
        (
            "recipient/valid",
            address("eve@example.org"),
            validity("unknown"),
        ),
        ("state/get", map([key()]), map([])),
        ("state/set", set, map([])),
        ("state/get", map([key()]), stored),
        ("state/add", map([key(), ("add", Value::from(2))]), sum),
        ("message/submit", submit, submitted),
        ("message/bounce", bounce("a@b"), bounced),
        ("message/bounce", bounce(""), map([])),
    ] {
        let reply = ask(peer, None, method, params).await;
        assert_eq!((reply.ok, reply.error), (Some(expected), None), "{method}");
    }
    use ServiceErrorCode::{BadParams, Failed, NotFound, Temporary, UnknownMethod};
    for (method, params, code, says) in [
        (
            "dns",
            dns("gone.example.org."),
            Temporary,
            "no server answers",
        ),
        (
            "dns",
            map([("name", Value::from("x"))]),
            BadParams,
            "`type` is to be a text",
        ),
        (
            "recipient/valid",
            address("away@example.org"),
            Temporary,
            "no server answers",
        ),
        (
            "recipient/valid",
            address("bob@"),
            BadParams,
            "`address`: `bob@` is no address: the domain is malformed",
        ),
        ("state/delete", map([key()]), Failed, "the disk is full"),
        (
            "state/add",
            map([key()]),
            BadParams,
            "`add` is to be an integer",
        ),
        (
            "message/submit",
            map([
                ("sender", Value::from("")),
                ("recipients", Value::from(["b"])),
            ]),
            BadParams,
            "`recipients`: `b` is no address: there is no domain",
        ),
        (
            "message/bounce",
            map([("sender", Value::from("a@b\r\n"))]),
            BadParams,
            "`sender`: `a@b\\r\\n` is no address: the domain is malformed",
        ),
        (
            "dance",
            Value::Nil,
            UnknownMethod,
            "no such method: `dance`",
        ),
        (
            "more_time",
            map([("ms", Value::from(1))]),
            BadParams,
            "`more_time` needs `for`",
        ),
    ] {
        let error = ask(peer, None, method, params).await.error.unwrap();
        assert_eq!((error.code, &*error.message), (code, says), "{method}");
    }
    let late = map([("ms", Value::from(1))]);
    let error = ask(peer, Some(99), "more_time", late).await.error.unwrap();
    assert_eq!(error.code, NotFound);
}

#[tokio::test]
async fn a_hook_reads_its_message_and_gets_more_time_once() {
    let mut pair = vip(&[hook("data_post")]).await;
    let process = pair.process().clone();
    let session = session("s");
    let message = Bytes(b"Subject: x\r\n\r\nbody");
    let mut data_post = call(Hook::DataPost, &session, Duration::from_millis(300));
    data_post.message = Some(&message);
    let wants = Wants::default();
    let read = |offset: i64, length: i64| {
        map([
            ("offset", Value::from(offset)),
            ("length", Value::from(length)),
        ])
    };
    let (outcomes, ()) = tokio::join!(process.ask(&["vip"], &wants, &data_post), async {
        let peer = &mut pair.peer;
        let id = peer.hook().await.id;
        for (offset, length, expected) in
            [(14, 100, &b"body"[..]), (0, 7, b"Subject"), (99, 1, b"")]
        {
            let reply = ask(peer, id, "message/read", read(offset, length)).await;
            let data = map([("data", Value::Bytes(expected.to_vec()))]);
            assert_eq!(reply.ok, Some(data));
        }
        for (offset, length) in [(-1, 1), (0, 524_289)] {
            let reply = ask(peer, id, "message/read", read(offset, length)).await;
            assert_eq!(reply.error.unwrap().code, ServiceErrorCode::BadParams);
        }
        let more = || map([("ms", Value::from(3_600_000))]);
        let given = ask(peer, id, "more_time", more()).await;
        assert_eq!((given.ok, given.error), (Some(map([])), None));
        let twice = ask(peer, id, "more_time", more()).await;
        assert!(twice.error.unwrap().message.contains("already"));
        // Past the first deadline, within the one that was asked for.
        tokio::time::sleep(Duration::from_millis(400)).await;
        peer.answer(id, vec![said("vip", "thorough")]);
    });
    assert_eq!(outcomes[0].message, "thorough");
    // Up to the hook's own time again, and not up to what was asked for.
    let (outcomes, ()) = tokio::join!(process.ask(&["vip"], &wants, &data_post), async {
        let id = pair.peer.hook().await.id;
        let hour = map([("ms", Value::from(3_600_000))]);
        ask(&mut pair.peer, id, "more_time", hour).await;
    });
    assert_eq!(outcomes[0].message, "no answer within 600 ms");
}

#[tokio::test]
async fn a_plugin_hears_who_speaks_too_early_as_soon_as_that_is() {
    let mut pair = vip(&[hook("connect")]).await;
    let process = pair.process().clone();
    let (session, speech) = (session("s"), Speech::new());
    let mut connect = call(Hook::Connect, &session, Duration::from_secs(30));
    connect.speech = Some(&speech);
    let wants = Wants::default();
    let wait = |ms: i64| map([("ms", Value::from(ms))]);
    let spoke = |spoke: bool| Some(map([("spoke", Value::from(spoke))]));
    let (outcomes, (), ()) = tokio::join!(
        process.ask(&["vip"], &wants, &connect),
        async {
            let peer = &mut pair.peer;
            let id = peer.hook().await.id;
            for (ms, expected) in [(0, false), (10, false), (60_000, true), (0, true)] {
                let reply = ask(peer, id, "client/spoke", wait(ms)).await;
                assert_eq!(reply.ok, spoke(expected), "{ms}");
            }
            peer.answer(id, vec![said("vip", "heard it")]);
        },
        async {
            speech.wanted().await;
            speech.note_silence();
            // The two looks that find nothing, and the one that waits.
            speech.wanted().await;
            speech.wanted().await;
            speech.note_end(true);
        }
    );
    assert_eq!(outcomes[0].message, "heard it");
    connect.speech = None;
    let (_, ()) = tokio::join!(process.ask(&["vip"], &wants, &connect), async {
        let peer = &mut pair.peer;
        let id = peer.hook().await.id;
        let error = ask(peer, id, "client/spoke", wait(60_000)).await.error;
        assert_eq!(error.unwrap().code, ServiceErrorCode::NotFound);
        peer.answer(id, vec![said("vip", "never mind")]);
    });
}

#[tokio::test]
async fn a_call_ends_with_its_hook_and_a_hook_without_a_message_has_none() {
    let mut pair = vip(&[hook("rcpt")]).await;
    let process = pair.process().clone();
    let session = session("s");
    let (wants, rcpt) = (
        Wants::default(),
        call(Hook::Rcpt, &session, Duration::from_millis(100)),
    );
    let (outcomes, ()) = tokio::join!(process.ask(&["vip"], &wants, &rcpt), async {
        let peer = &mut pair.peer;
        let id = peer.hook().await.id;
        let read = map([("offset", Value::from(0)), ("length", Value::from(1))]);
        let none = ask(peer, id, "message/read", read).await.error.unwrap();
        assert_eq!(none.message, "there is no message at `rcpt`");
        let never = map([
            ("name", Value::from("never.example.org.")),
            ("type", Value::from("A")),
        ]);
        peer.send(&CallMessage {
            id: 8,
            hook: id,
            method: "dns".to_owned(),
            params: never,
        });
        let mut kinds = Vec::new();
        for _ in 0..2 {
            kinds.push(peer.next_kind().await);
        }
        kinds.sort_unstable();
        assert_eq!(kinds, ["cancel", "reply"]);
    });
    assert_eq!(outcomes[0].message, "no answer within 100 ms");
}
