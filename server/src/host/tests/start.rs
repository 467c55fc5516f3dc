//! Handshakes that fail, and what the operator is told.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use gatepost_protocol::wire::{Hello, InitError, InitErrorItem, Ready, ReadyHook, ReadyPolicy};
use gatepost_protocol::{Field, FieldSet, Hook, OnError, Reject, Setting, Value};

use super::super::{Processes, StartError};
use super::fake::{ALL, Desk, Fake, Says, attached, core, hook, ready};

async fn refused(names: &[&str], ready: Ready) -> Vec<(String, String)> {
    let says = Says {
        features: ALL,
        ready,
    };
    let started = Fake::new()
        .start(names, &says, Arc::new(Desk::default()))
        .await;
    let errors = started.err().expect("it is not to start");
    let shown = errors
        .into_iter()
        .map(|error| (error.plugin.to_string(), error.message));
    shown.collect()
}

#[tokio::test]
async fn what_a_plugin_declares_is_handed_on() {
    let rcpt = ReadyHook {
        mode: Some("observe".to_owned()),
        fields: vec!["remote_ip".to_owned(), "sender".to_owned()],
        reads: vec!["geo".to_owned()],
        timeout_ms: Some(1500),
        ..hook("rcpt")
    };
    let mut ready = ready(8, &[("vip", &[rcpt, hook("queue_post")])]);
    ready.plugins[0].settings = Some(vec![Setting::text("colour", "the colour")]);
    ready.plugins[0].policy = Some(ReadyPolicy {
        reject: Some(Reject::Naughty),
        on_error: Some(OnError::Skip),
        loglevel: Some("+2".to_owned()),
        ..ReadyPolicy::default()
    });
    let says = Says {
        features: ALL,
        ready,
    };
    let pair = Fake::new()
        .start(&["vip"], &says, Arc::new(Desk::default()))
        .await
        .unwrap();
    let init = &pair.peer.init;
    assert_eq!(
        (&*init.hostname, init.worker, &init.scratch_dir),
        ("mx.example.org", 1, &None)
    );
    assert_eq!(init.plugins[0].settings["colour"], Value::from("red"));
    assert_eq!(init.plugins[0].args, ["argument"]);
    let declared = &pair.started[0].declared;
    assert_eq!(declared.settings.as_ref().unwrap()[0].name, "colour");
    assert_eq!(
        (declared.policy.reject, declared.policy.on_error),
        (Some(Reject::Naughty), Some(OnError::Skip))
    );
    assert_eq!(declared.loglevel.as_deref(), Some("+2"));
    let subscriptions = pair.started[0].plugin.subscriptions();
    let [rcpt, queue_post] = subscriptions.as_slice() else {
        panic!("{subscriptions:?}");
    };
    assert_eq!((rcpt.hook, rcpt.observe), (Hook::Rcpt, true));
    assert_eq!(
        rcpt.wants.fields,
        FieldSet::of(&[Field::RemoteIp, Field::Sender])
    );
    assert_eq!(rcpt.wants.notes, ["geo"]);
    assert_eq!(rcpt.timeout, Some(Duration::from_millis(1500)));
    assert_eq!(
        (queue_post.hook, queue_post.observe),
        (Hook::QueuePost, true)
    );
    assert_eq!(pair.started[0].plugin.policy(), declared.policy);
}

#[tokio::test]
async fn every_mistake_in_a_ready_is_named_with_the_nearest_name() {
    let wrong = ReadyHook {
        mode: Some("obserev".to_owned()),
        fields: vec!["remote_pi".to_owned(), "moon_phase".to_owned()],
        priority: Some("frist".into()),
        ..hook("rctp")
    };
    let ready = ready(
        8,
        &[
            ("one", &[wrong]),
            ("tow", &[]),
            ("three", &[hook("rcpt"), hook("rcpt")]),
        ],
    );
    let errors = refused(&["one", "two", "three"], ready).await;
    let expected = [
        (
            "one",
            "its `ready` names an unknown plugin `tow`; did it mean `two`?",
        ),
        (
            "one",
            "it subscribes to an unknown hook `rctp`; did it mean `rcpt`?",
        ),
        (
            "one",
            "it asks for an unknown mode `obserev`; did it mean `observe`?",
        ),
        (
            "one",
            "it asks for an unknown field `remote_pi`; did it mean `remote_ip`?",
        ),
        (
            "one",
            "it asks for an unknown field `moon_phase`; is it made for a newer gatepost?",
        ),
        (
            "one",
            "it asks for a priority that is neither `first`, `last` nor an integer of 32 bits",
        ),
        (
            "two",
            "its `ready` says nothing about it; a process answers for every plugin it is given",
        ),
        ("three", "it subscribes to `rcpt` twice"),
    ];
    let expected = expected.map(|(plugin, message)| (plugin.to_owned(), message.to_owned()));
    assert_eq!(errors, expected);
    let errors = refused(&["vip"], super::fake::ready(0, &[("vip", &[])])).await;
    assert_eq!(
        errors[0].1,
        "its `ready` says concurrency 0; 1 to 1000 are possible"
    );
}

#[tokio::test]
async fn a_refused_setting_keeps_its_plugin_and_its_path() {
    let fake = Fake::new();
    let plugins = [fake.plugin("one"), fake.plugin("two")];
    let core = core(Arc::new(Desk::default()));
    let (started, _peer) = tokio::join!(Processes::start(&plugins, &core), async {
        let peer = fake.accept(ALL).await;
        let item = |plugin: &str, path: Vec<Value>, message: &str| InitErrorItem {
            plugin: plugin.to_owned(),
            path,
            message: message.to_owned(),
        };
        let zone = vec![Value::from("zones"), Value::from(2)];
        peer.send(&InitError {
            errors: vec![
                item("two", zone, "not a domain name"),
                item("", vec![], "no moon"),
            ],
        });
        peer
    });
    let errors = started.err().unwrap();
    let error = |plugin: &str, path: &[&str], message: &str| StartError {
        plugin: plugin.into(),
        path: path.iter().map(|part| (*part).to_owned()).collect(),
        message: message.to_owned(),
    };
    let expected = [
        error("two", &["zones", "2"], "not a domain name"),
        error("one", &[], "no moon"),
    ];
    assert_eq!(errors, expected);
}

#[tokio::test]
async fn an_old_plugin_is_told_from_a_new_one() {
    let fake = Fake::new();
    let plugins = [fake.plugin("vip")];
    let core = core(Arc::new(Desk::default()));
    let (started, ()) = tokio::join!(Processes::start(&plugins, &core), async {
        let peer = fake.greet(Hello {
            protocol: "gatepost-plugin".to_owned(),
            version: vec![0, 9],
            server: None,
            sdk: Some("gatepost-basic 0.1".to_owned()),
            features: Vec::new(),
            max_frame: None,
        });
        let mut peer = peer.await;
        let _: Hello = peer.next("hello").await;
        peer.ends().await;
    });
    let says = "it speaks version 0.9 of the plugin protocol, and gatepost 0.1.0 speaks 1.0: upgrade gatepost-basic 0.1";
    assert_eq!(started.err().unwrap()[0].message, says);
}

#[tokio::test]
async fn a_plugin_that_nobody_runs_is_an_error_at_start() {
    let plugins = [attached("vip", Path::new("/nowhere/vip.sock"))];
    let core = core(Arc::new(Desk::default()));
    let errors = Processes::start(&plugins, &core).await.err().unwrap();
    let says =
        "nobody listens at /nowhere/vip.sock: start the plugin, or mend the path in `attach`";
    assert_eq!(errors[0].message, says);
}
