//! The shared test vectors of `protocol/vectors/`, which every SDK passes: what is in the files is what this crate says and takes.
//!
//! `UPDATE_VECTORS=1 cargo test -p gatepost-protocol --test vectors` writes the files anew.

#![allow(clippy::unwrap_used)] // A test may stop where it stands.

use std::borrow::Cow;
use std::collections::BTreeMap;

use gatepost_protocol::frame::{self, FrameError, Kind, MAX_FRAME};
use gatepost_protocol::wire::*;
use gatepost_protocol::{Change, Disposition, EnhancedCode, Hook, Scope, Setting, Value, Verdict};
use serde_json::{Value as Json, json};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
        .collect()
}

fn framed(payload: &[u8]) -> Vec<u8> {
    [
        &u32::try_from(payload.len()).unwrap().to_be_bytes(),
        payload,
    ]
    .concat()
}

/// Bytes are written `{"$bytes": "<hex>"}`.
fn to_json(value: &Value) -> Json {
    match value {
        Value::Nil => Json::Null,
        Value::Boolean(truth) => json!(truth),
        Value::Integer(number) => json!(number),
        Value::Text(text) => json!(text),
        Value::Bytes(bytes) => json!({ "$bytes": hex(bytes) }),
        Value::List(list) => list.iter().map(to_json).collect(),
        Value::Map(map) => Json::Object(
            map.iter()
                .map(|(key, value)| (key.clone(), to_json(value)))
                .collect(),
        ),
    }
}

fn read(frame_bytes: &[u8]) -> Result<Value, FrameError> {
    let head = frame_bytes.get(..4).ok_or(FrameError::Truncated)?;
    let length = frame::length(head.try_into().unwrap())?;
    let payload = frame_bytes
        .get(4..4 + length)
        .ok_or(FrameError::Truncated)?;
    frame::check(payload)?;
    frame::decode(payload)
}

fn error_name(error: &FrameError) -> &'static str {
    match error {
        FrameError::Empty => "empty",
        FrameError::TooLong(_) => "too_long",
        FrameError::Truncated => "truncated",
        FrameError::Trailing => "trailing",
        FrameError::NotAMap => "not_a_map",
        FrameError::Depth => "depth",
        FrameError::BadKey => "bad_key",
        FrameError::DuplicateKey(_) => "duplicate_key",
        FrameError::Ext => "ext",
        FrameError::Float => "float",
        FrameError::IntegerRange => "integer_range",
        FrameError::Malformed(_) => "malformed",
    }
}

/// Compares with the file, or writes it.
fn matches_file(name: &str, made: &Json) {
    let path = format!("{}/vectors/{name}", env!("CARGO_MANIFEST_DIR"));
    let text = serde_json::to_string_pretty(made).unwrap() + "\n";
    if std::env::var_os("UPDATE_VECTORS").is_some() {
        std::fs::write(&path, text).unwrap();
        return;
    }
    let file: Json = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    assert_eq!(
        &file, made,
        "{name} is not what the crate says; see the head of this test"
    );
}

#[test]
fn frames() {
    let nested = |depth: usize| {
        // A map whose value is lists within lists.
        let mut payload = b"\x81\xa1v".to_vec();
        payload.extend(std::iter::repeat_n(0x91, depth - 1));
        payload.push(0xc0);
        payload
    };
    let mut long_text = b"\x81\xa1v\xda\x01\x2c".to_vec();
    long_text.extend_from_slice(&[b'x'; 300]);
    let good: Vec<(&str, Vec<u8>)> = vec![
        ("a kind and nothing else", b"\x81\xa4kind\xa7goodbye".to_vec()),
        ("an unknown kind", b"\x81\xa4kind\xa6future".to_vec()),
        ("nil, true, false", b"\x83\xa1a\xc0\xa1b\xc3\xa1c\xc2".to_vec()),
        ("integers of every width", b"\x89\xa1a\x00\xa1b\x7f\xa1c\xe0\xa1d\xcc\xff\xa1e\xcd\xff\xff\xa1f\xce\xff\xff\xff\xff\xa1g\xd0\x80\xa1h\xd1\x80\x00\xa1i\xd2\x80\x00\x00\x00".to_vec()),
        ("two to the fifty-third", b"\x82\xa1a\xcf\x00\x20\x00\x00\x00\x00\x00\x00\xa1b\xd3\xff\xe0\x00\x00\x00\x00\x00\x00".to_vec()),
        ("an integer wider than it need be", b"\x81\xa1a\xcf\x00\x00\x00\x00\x00\x00\x00\x07".to_vec()),
        ("text that looks like a number", b"\x81\xa7address\xa3007".to_vec()),
        ("empty text, list and map", b"\x83\xa1a\xa0\xa1b\x90\xa1c\x80".to_vec()),
        ("text beyond ASCII", b"\x81\xa1a\xa5J\xc3\xb6rg".to_vec()),
        ("bytes that are not UTF-8", b"\x81\xa1a\xc4\x03\xff\x00\xfe".to_vec()),
        ("a text of 300 bytes", long_text),
        ("wide headers for short things", b"\xde\x00\x02\xd9\x01a\xdc\x00\x01\x01\xda\x00\x01b\xdf\x00\x00\x00\x01\xa1c\xdb\x00\x00\x00\x01d".to_vec()),
        ("as deep as may be", nested(16)),
    ];
    let mut broken: Vec<(&str, Vec<u8>)> = vec![
        ("length 0", vec![0, 0, 0, 0]),
        (
            "length 1 MiB and one",
            (u32::try_from(MAX_FRAME).unwrap() + 1)
                .to_be_bytes()
                .to_vec(),
        ),
        ("length 4 GiB", vec![0xff; 4]),
        ("half a length", vec![0, 0]),
        ("half a frame", b"\0\0\0\x0a\x81\xa4kind".to_vec()),
    ];
    let payloads: Vec<(&str, Vec<u8>)> = vec![
        ("text cut off", b"\x81\xa1a\xa9abc".to_vec()),
        (
            "a map with fewer entries than it says",
            b"\x82\xa1a\x01".to_vec(),
        ),
        (
            "a list of four thousand million",
            b"\x81\xa1a\xdd\xff\xff\xff\xff".to_vec(),
        ),
        (
            "a map of four thousand million",
            b"\xdf\xff\xff\xff\xff".to_vec(),
        ),
        ("bytes behind the map", b"\x81\xa1a\x01\xc0".to_vec()),
        ("two maps", b"\x81\xa1a\x01\x81\xa1a\x01".to_vec()),
        ("a list", b"\x91\x01".to_vec()),
        ("an integer", b"\x01".to_vec()),
        ("nil", b"\xc0".to_vec()),
        ("too deep", nested(17)),
        ("a key twice", b"\x82\xa1a\x01\xa1a\x02".to_vec()),
        (
            "a key twice further down",
            b"\x81\xa1m\x83\xa1a\x01\xa1b\x02\xa1a\x03".to_vec(),
        ),
        ("a key that is an integer", b"\x81\x01\x01".to_vec()),
        ("a key that is nil", b"\x81\xc0\x01".to_vec()),
        ("an ext type", b"\x81\xa1a\xd4\x01\x00".to_vec()),
        ("a timestamp", b"\x81\xa1a\xd6\xff\x00\x00\x00\x00".to_vec()),
        ("a long ext type", b"\x81\xa1a\xc7\x01\x05\x00".to_vec()),
        ("a short float", b"\x81\xa1a\xca\x3f\x80\x00\x00".to_vec()),
        (
            "a long float",
            b"\x81\xa1a\xcb\x3f\xf0\x00\x00\x00\x00\x00\x00".to_vec(),
        ),
        (
            "beyond two to the fifty-third",
            b"\x81\xa1a\xcf\x00\x20\x00\x00\x00\x00\x00\x01".to_vec(),
        ),
        (
            "below minus two to the fifty-third",
            b"\x81\xa1a\xd3\xff\xdf\xff\xff\xff\xff\xff\xff".to_vec(),
        ),
        (
            "the byte that MessagePack never uses",
            b"\x81\xa1a\xc1".to_vec(),
        ),
    ];
    broken.extend(
        payloads
            .into_iter()
            .map(|(name, payload)| (name, framed(&payload))),
    );

    let good: Vec<Json> = good
        .into_iter()
        .map(|(name, payload)| {
            let frame_bytes = framed(&payload);
            let value = read(&frame_bytes).unwrap_or_else(|error| panic!("{name}: {error}"));
            json!({ "name": name, "hex": hex(&frame_bytes), "value": to_json(&value) })
        })
        .collect();
    let broken: Vec<Json> = broken
        .into_iter()
        .map(|(name, frame_bytes)| {
            let error = read(&frame_bytes).expect_err(name);
            json!({ "name": name, "hex": hex(&frame_bytes), "error": error_name(&error) })
        })
        .collect();
    matches_file("frames.json", &json!({ "frames": good, "broken": broken }));
}

fn message<T: Kind + PartialEq + std::fmt::Debug>(
    out: &mut Vec<Json>,
    name: &str,
    from: &str,
    message: &T,
) {
    let frame_bytes = frame::encode(message).unwrap();
    let payload = &frame_bytes[4..];
    assert_eq!(frame::check(payload), Ok(T::KIND), "{name}");
    assert_eq!(&frame::decode::<T>(payload).unwrap(), message, "{name}");
    let value = read(&frame_bytes).unwrap();
    out.push(
        json!({ "name": name, "from": from, "hex": hex(&frame_bytes), "value": to_json(&value) }),
    );
}

#[test]
fn messages() {
    let mut out = Vec::new();
    let text = |text: &str| text.to_owned();
    message(
        &mut out,
        "the core's hello",
        "core",
        &Hello {
            protocol: text("gatepost-plugin"),
            version: vec![1, 0],
            server: Some(text("gatepost 0.1.0")),
            sdk: None,
            features: vec![text("cancel"), text("defer"), text("segments")],
            max_frame: Some(1_048_576),
        },
    );
    message(
        &mut out,
        "a plugin's hello",
        "plugin",
        &Hello {
            protocol: text("gatepost-plugin"),
            version: vec![1, 0],
            server: None,
            sdk: Some(text("gatepost-python 0.1.0")),
            features: vec![text("cancel"), text("defer"), text("segments")],
            max_frame: None,
        },
    );
    let settings = BTreeMap::from([
        (text("addresses"), Value::from(["nobody@example.org"])),
        (text("most"), Value::from(7)),
        (text("strict"), Value::from(true)),
    ]);
    message(
        &mut out,
        "init",
        "core",
        &Init {
            hostname: text("mx.example.org"),
            worker: 1,
            scratch_dir: Some("/var/spool/gatepost/plugins/vip.1".into()),
            plugins: vec![
                InitPlugin {
                    name: text("vip"),
                    source: Some(text("plugins/vip.py")),
                    settings,
                    ..InitPlugin::default()
                },
                InitPlugin {
                    name: text("ident/p0f"),
                    source: Some(text("ident/p0f")),
                    dirs: vec!["/usr/share/qpsmtpd/plugins".into()],
                    args: vec![text("/tmp/.p0f_socket"), text("version"), text("3")],
                    ..InitPlugin::default()
                },
            ],
        },
    );
    message(
        &mut out,
        "ready",
        "plugin",
        &Ready {
            concurrency: 64,
            plugins: vec![ReadyPlugin {
                name: text("vip"),
                hooks: vec![
                    ReadyHook {
                        hook: text("rcpt"),
                        fields: vec![text("remote_ip"), text("sender")],
                        reads: vec![text("karma_history")],
                        timeout_ms: Some(2000),
                        mode: None,
                    },
                    ReadyHook {
                        hook: text("deny"),
                        mode: Some(text("observe")),
                        ..ReadyHook::default()
                    },
                ],
                settings: Some(vec![
                    Setting::list("addresses", "whom to refuse").required(),
                    Setting::text("message", "what to say").default("no such user here"),
                ]),
                policy: Some(ReadyPolicy {
                    on_error: Some(gatepost_protocol::OnError::Skip),
                    reject: Some(gatepost_protocol::Reject::Tolerate),
                    reject_type: None,
                    loglevel: Some(text("-1")),
                }),
            }],
        },
    );
    message(
        &mut out,
        "init_error",
        "plugin",
        &InitError {
            errors: vec![InitErrorItem {
                plugin: text("dnsbl"),
                path: vec![Value::from("zones"), Value::from(2)],
                message: text("not a domain name"),
            }],
        },
    );
    let address = gatepost_protocol::Address::parse("007@example.org").unwrap();
    let parameters = BTreeMap::from([(text("NOTIFY"), Some(text("NEVER"))), (text("X"), None)]);
    let rcpt = HookMessage {
        id: Some(17),
        hook: "rcpt".into(),
        plugins: vec!["vip".into()],
        session: "3f9a1c".into(),
        transaction: Some(1),
        deadline_ms: Some(30_000),
        args: ArgsMessage {
            address: Some(Cow::Owned(address)),
            parameters: Some(Cow::Owned(parameters)),
            ..ArgsMessage::default()
        },
        connection: Some(ConnectionFields {
            remote_ip: Some(text("192.0.2.1")),
            remote_port: Some(54321),
            early_talker: Some(true),
            relay_client: Some(false),
            karma: Some(-2),
            ..ConnectionFields::default()
        }),
        ..HookMessage::default()
    };
    message(&mut out, "hook rcpt", "core", &rcpt);
    let ehlo = HookMessage {
        id: Some(16),
        hook: "ehlo".into(),
        plugins: vec!["vip".into()],
        session: "3f9a1c".into(),
        deadline_ms: Some(30_000),
        args: ArgsMessage {
            host: Some("client.example".into()),
            ..ArgsMessage::default()
        },
        connection: Some(ConnectionFields {
            tls_version: Some("TLSv1.3".into()),
            tls_cipher: Some("TLS_AES_256_GCM_SHA384".into()),
            tls_server_name: Some("mx.example.org".into()),
            tls_client_name: Some("client.example".into()),
            ..ConnectionFields::default()
        }),
        ..HookMessage::default()
    };
    message(&mut out, "hook ehlo over TLS", "core", &ehlo);
    let before = |hook: &'static str, args| HookMessage {
        id: Some(17),
        hook: hook.into(),
        plugins: vec!["vip".into()],
        session: "3f9a1c".into(),
        deadline_ms: Some(30_000),
        args,
        ..HookMessage::default()
    };
    let line = ArgsMessage {
        line: Some("FROM:<a@example.org> SIZE=10".into()),
        ..ArgsMessage::default()
    };
    message(
        &mut out,
        "hook mail_parse",
        "core",
        &before("mail_parse", line),
    );
    let capabilities = ArgsMessage {
        capabilities: Some(vec!["PIPELINING".into(), "SIZE 1000".into()]),
        ..ArgsMessage::default()
    };
    message(
        &mut out,
        "hook capabilities",
        "core",
        &before("capabilities", capabilities),
    );
    let data_post = HookMessage {
        id: Some(18),
        hook: "data_post".into(),
        plugins: vec!["a".into(), "b".into()],
        session: "3f9a1c".into(),
        transaction: Some(1),
        deadline_ms: Some(30_000),
        transaction_fields: Some(TransactionFields {
            sender: Some(Cow::Owned(gatepost_protocol::Address::null())),
            recipients: Some(Cow::Owned(vec![
                gatepost_protocol::Address::parse("bob@example.org").unwrap(),
                gatepost_protocol::Address::parse_utf8("j\u{f6}rg@example.org").unwrap(),
            ])),
            recipient_parameters: Some(Cow::Owned(vec![
                BTreeMap::new(),
                BTreeMap::from([(text("NOTIFY"), Some(text("NEVER")))]),
            ])),
            size: Some(31),
            header: Some(serde_bytes::ByteBuf::from(&b"Subject: J\xf6rg\r\n"[..])),
            path: Some(Cow::Owned("/var/spool/gatepost/3f9a1c.1".into())),
            header_end: Some(15),
            body_start: Some(17),
            ..TransactionFields::default()
        }),
        notes: Some(NotesMessage {
            connection: BTreeMap::from([(
                Cow::Borrowed("karma_history"),
                Cow::Owned(Value::from(-3)),
            )]),
            transaction: BTreeMap::from([(
                Cow::Borrowed("p0f"),
                Cow::Owned(Value::Map(BTreeMap::from([(
                    text("genre"),
                    Value::from("Linux"),
                )]))),
            )]),
        }),
        resumed: Some(true),
        ..HookMessage::default()
    };
    message(
        &mut out,
        "hook data_post, to a segment of two",
        "core",
        &data_post,
    );
    let denied = HookMessage {
        hook: "deny".into(),
        plugins: vec!["audit".into()],
        session: "3f9a1c".into(),
        transaction: Some(1),
        args: ArgsMessage {
            plugin: Some("vip".into()),
            hook: Some(Hook::Rcpt),
            verdict: Some(Verdict::DenySoft),
            message: Some("later".into()),
            ..ArgsMessage::default()
        },
        ..HookMessage::default()
    };
    message(&mut out, "event deny", "core", &EventMessage(denied));
    message(
        &mut out,
        "result, nothing to say",
        "plugin",
        &ResultMessage {
            id: 17,
            results: vec![Entry {
                plugin: text("vip"),
                ..Entry::default()
            }],
        },
    );
    let mut changes = vec![
        Change::Note {
            scope: Scope::Transaction,
            name: text("seen"),
            value: Value::from(1),
        },
        Change::AddHeader {
            name: text("X-Tag"),
            value: "seen".into(),
            at: gatepost_protocol::Edge::Top,
        },
        Change::ReplaceHeader {
            name: text("Subject"),
            value: "[spam] x".into(),
            nth: Some(1),
        },
        Change::RemoveHeader {
            name: text("X-Old"),
            nth: None,
        },
        Change::AddRecipient {
            address: gatepost_protocol::Address::parse("carol@example.org").unwrap(),
        },
        Change::RemoveRecipient {
            address: gatepost_protocol::Address::parse("bob@example.org").unwrap(),
        },
        Change::SetSender {
            address: gatepost_protocol::Address::null(),
        },
    ];
    changes.extend([
        Change::Karma { add: -1 },
        Change::RelayClient { value: true },
        Change::Immune {
            reason: Some(text("whitelisted host")),
        },
        Change::Naughty { message: None },
        Change::AuthResult {
            text: text("iprev=pass policy.iprev=192.0.2.1"),
        },
        Change::Quarantine {
            reason: Some(text("attachment evil.exe")),
        },
        Change::RemoteHost {
            name: text("mail.example.net"),
        },
    ]);
    message(
        &mut out,
        "result with everything",
        "plugin",
        &ResultMessage {
            id: 18,
            results: vec![
                Entry {
                    plugin: text("a"),
                    changes: Some(changes),
                    ..Entry::default()
                },
                Entry {
                    plugin: text("b"),
                    disposition: Some(Disposition::Fail),
                    message: Some(text("found it")),
                    verdict: Some(Verdict::DenyDisconnect),
                    code: Some(554),
                    enhanced: EnhancedCode::parse("5.7.1"),
                    reply: Some(vec![text("no"), text("really not")]),
                    ..Entry::default()
                },
            ],
        },
    );
    message(
        &mut out,
        "result that defers",
        "plugin",
        &ResultMessage {
            id: 19,
            results: vec![Entry {
                plugin: text("dnsbl"),
                defer: Some(Hook::Rcpt),
                ..Entry::default()
            }],
        },
    );
    message(
        &mut out,
        "the deferred verdict",
        "plugin",
        &Late {
            id: 19,
            result: Entry {
                plugin: text("dnsbl"),
                disposition: Some(Disposition::Fail),
                message: Some(text("listed in zen.example.net")),
                ..Entry::default()
            },
        },
    );
    message(
        &mut out,
        "result of received_line",
        "plugin",
        &ResultMessage {
            id: 20,
            results: vec![Entry {
                plugin: text("r"),
                verdict: Some(Verdict::Ok),
                values: Some(vec![text("Received: from x"), text("\tby y")]),
                ..Entry::default()
            }],
        },
    );
    message(
        &mut out,
        "cancel",
        "core",
        &Cancel {
            id: 17,
            reason: text("timeout"),
        },
    );
    let params = Value::Map(BTreeMap::from([
        (text("name"), Value::from("2.0.0.127.zen.example.net.")),
        (text("type"), Value::from("A")),
    ]));
    message(
        &mut out,
        "call dns",
        "plugin",
        &CallMessage {
            id: 5,
            hook: Some(17),
            method: text("dns"),
            params,
        },
    );
    let ok = Value::Map(BTreeMap::from([
        (text("status"), Value::from("found")),
        (text("records"), Value::from(["127.0.0.2"])),
    ]));
    message(
        &mut out,
        "reply",
        "core",
        &ReplyMessage {
            id: 5,
            ok: Some(ok),
            error: None,
        },
    );
    let data = Value::Map(BTreeMap::from([(
        text("data"),
        Value::Bytes(b"J\xf6rg\r\n".to_vec()),
    )]));
    message(
        &mut out,
        "reply with bytes",
        "core",
        &ReplyMessage {
            id: 6,
            ok: Some(data),
            error: None,
        },
    );
    message(
        &mut out,
        "reply, an error",
        "core",
        &ReplyMessage {
            id: 7,
            ok: None,
            error: Some(CallError {
                code: gatepost_protocol::services::ServiceErrorCode::Temporary,
                message: text("the name server does not answer"),
            }),
        },
    );
    message(
        &mut out,
        "log",
        "plugin",
        &Log {
            level: text("info"),
            message: text("hello"),
            plugin: Some(text("vip")),
            hook: Some(17),
        },
    );
    message(
        &mut out,
        "error",
        "plugin",
        &Failed {
            message: text("out of memory"),
        },
    );
    message(&mut out, "goodbye", "core", &Goodbye {});
    matches_file("messages.json", &Json::Array(out));
}

#[test]
fn text_may_come_as_bytes_and_bytes_as_text() {
    let payload = b"\x83\xa4kind\xc4\x06result\xa2id\x07\xa7results\x91\x82\xa6plugin\xc4\x03vip\xa7changes\x91\x83\xa2op\xc4\x0aadd_header\xa4name\xc4\x01X\xa5value\xa1y";
    assert_eq!(frame::check(payload), Ok("result"));
    let result: ResultMessage = frame::decode(payload).unwrap();
    assert_eq!(result.results[0].plugin, "vip");
    let change = &result.results[0].changes.as_ref().unwrap()[0];
    assert_eq!(
        change,
        &Change::AddHeader {
            name: "X".into(),
            value: "y".into(),
            at: gatepost_protocol::Edge::Top
        }
    );
}

#[test]
fn the_files_hold_whole_frames() {
    for name in ["frames.json", "messages.json"] {
        let path = format!("{}/vectors/{name}", env!("CARGO_MANIFEST_DIR"));
        let file: Json = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        let list = if name == "frames.json" {
            &file["frames"]
        } else {
            &file
        };
        for entry in list.as_array().unwrap() {
            let value = read(&unhex(entry["hex"].as_str().unwrap())).unwrap();
            assert_eq!(to_json(&value), entry["value"], "{}", entry["name"]);
        }
    }
}
