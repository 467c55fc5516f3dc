//! A message of every kind, with what makes it different from others of its kind.

use gatepost_protocol::frame::{self, Kind};
use gatepost_protocol::wire::*;
use gatepost_protocol::{
    Change, Disposition, EnhancedCode, Hook, Scope, Score, Setting, Value, Verdict,
};
use serde_json::{Value as Json, json};
use std::borrow::Cow;
use std::collections::BTreeMap;

use crate::{hex, matches_file, read, to_json};

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
    let features = ["cancel", "defer", "segments", "settings"]
        .map(text)
        .to_vec();
    message(
        &mut out,
        "the core's hello",
        "core",
        &Hello {
            protocol: text("gatepost-plugin"),
            version: vec![1, 0],
            server: Some(text("gatepost 0.1.0")),
            sdk: None,
            features: features.clone(),
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
            features: features.clone(),
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
            dns_server: Some("192.0.2.53:5353".to_owned()),
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
                        priority: Some(Value::from("first")),
                    },
                    ReadyHook {
                        hook: text("mail"),
                        priority: Some(Value::from(-5)),
                        ..ReadyHook::default()
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
                    immune: Some(gatepost_protocol::Immune::Ignore),
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
            address: Some(Cow::Owned(address.clone())),
            parameters: Some(Cow::Owned(parameters)),
            ..ArgsMessage::default()
        },
        connection: Some(ConnectionFields {
            remote_ip: Some(text("192.0.2.1")),
            remote_port: Some(54321),
            early_talker: Some(true),
            relay_client: Some(false),
            immune: Some(text("our own").into()),
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
    let arrival = ArgsMessage {
        connections: Some(2),
        max_connections: Some(20),
        ..ArgsMessage::default()
    };
    message(
        &mut out,
        "hook pre_connection",
        "core",
        &before("pre_connection", arrival),
    );
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
    let lines = ArgsMessage {
        lines: Some(Cow::Owned(serde_bytes::ByteBuf::from(
            &b"J\xf6rg\r\n.\r\n"[..],
        ))),
        offset: Some(65_530),
        ..ArgsMessage::default()
    };
    message(
        &mut out,
        "hook data_lines",
        "core",
        &before("data_lines", lines),
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
    let in_force = BTreeMap::from([
        (text("limit"), Value::from("20MB")),
        (text("strict"), Value::from(false)),
        (text("words"), Value::from(["a", "J\u{f6}rg"])),
    ]);
    let with_settings = HookMessage {
        id: Some(19),
        hook: "data_post".into(),
        plugins: vec!["a".into(), "quota".into(), "b".into()],
        session: "3f9a1c".into(),
        transaction: Some(1),
        deadline_ms: Some(300_000),
        settings: Some(BTreeMap::from([
            ("b".into(), Cow::Owned(BTreeMap::new())),
            ("quota".into(), Cow::Owned(in_force)),
        ])),
        ..HookMessage::default()
    };
    message(
        &mut out,
        "hook data_post, with a score",
        "core",
        &HookMessage {
            id: Some(24),
            hook: "data_post".into(),
            plugins: vec!["score".into()],
            session: "3f9a1c".into(),
            transaction: Some(1),
            deadline_ms: Some(300_000),
            connection: Some(ConnectionFields {
                score: Some(6_500),
                scores: vec![
                    Score {
                        plugin: "dnsbl".into(),
                        points: 7_000,
                        reason: "listed".into(),
                    },
                    Score {
                        plugin: "vip".into(),
                        points: -500,
                        reason: "".into(),
                    },
                ],
                ..ConnectionFields::default()
            }),
            ..HookMessage::default()
        },
    );
    message(
        &mut out,
        "hook data_post, with settings in force",
        "core",
        &with_settings,
    );
    let queue = HookMessage {
        id: Some(20),
        hook: "queue".into(),
        plugins: vec!["vip".into()],
        session: "3f9a1c".into(),
        transaction: Some(1),
        deadline_ms: Some(300_000),
        transaction_fields: Some(TransactionFields {
            route: Some("lmtp".into()),
            immune: Some("our own".into()),
            whitelisted: Some("whitelisted sender".into()),
            ..TransactionFields::default()
        }),
        ..HookMessage::default()
    };
    message(&mut out, "hook queue, for a route", "core", &queue);
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
    let logged = HookMessage {
        hook: "log".into(),
        plugins: vec!["audit".into()],
        session: "3f9a1c".into(),
        args: ArgsMessage {
            level: Some("notice".into()),
            plugin: Some("vip".into()),
            hook: Some(Hook::Rcpt),
            message: Some("fail, no such user here".into()),
            ..ArgsMessage::default()
        },
        ..HookMessage::default()
    };
    message(&mut out, "event log", "core", &EventMessage(logged));
    let then = HookMessage {
        id: Some(18),
        hook: "mail_pre".into(),
        plugins: vec!["vip".into()],
        session: "3f9a1c".into(),
        args: ArgsMessage {
            line: Some("<007@example.org>".into()),
            address: Some(Cow::Owned(address.clone())),
            parameters: Some(Cow::Owned(BTreeMap::new())),
            ..ArgsMessage::default()
        },
        then: Some(ThenMessage {
            hook: "mail".into(),
            plugins: vec!["vip".into()],
            transaction: Some(1),
        }),
        ..HookMessage::default()
    };
    message(&mut out, "hook mail_pre, and then mail", "core", &then);
    let nothing = || {
        vec![Entry {
            plugin: text("vip"),
            ..Entry::default()
        }]
    };
    message(
        &mut out,
        "result, of two hooks",
        "plugin",
        &ResultMessage {
            id: 18,
            results: nothing(),
            then: Some(nothing()),
        },
    );
    let here = Entry {
        plugin: text("slow"),
        disposition: Some(Disposition::Error),
        message: Some(text("it is at /etc/gatepost/plugins/slow line 12")),
        ..Entry::default()
    };
    message(
        &mut out,
        "unfinished",
        "plugin",
        &Unfinished(ResultMessage {
            id: 18,
            results: [nothing(), vec![here]].concat(),
            then: None,
        }),
    );
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
            then: None,
        },
    );
    message(
        &mut out,
        "result, with a delay",
        "plugin",
        &ResultMessage {
            id: 17,
            results: vec![Entry {
                plugin: text("vip"),
                verdict: Some(Verdict::Ok),
                delay_ms: Some(2500),
                ..Entry::default()
            }],
            then: None,
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
        Change::AddHeader {
            name: text("X-Tag"),
            value: "third".into(),
            at: gatepost_protocol::Edge::Below(2),
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
        Change::RelayClient {
            value: true,
            reason: None,
        },
        Change::RelayClient {
            value: true,
            reason: Some(text("our own")),
        },
        Change::Immune {
            reason: Some(text("our own")),
            scope: Scope::Connection,
        },
        Change::Immune {
            reason: None,
            scope: Scope::Transaction,
        },
        Change::Whitelisted {
            reason: Some(text("whitelisted sender")),
            scope: Scope::Transaction,
        },
        Change::Naughty { message: None },
        Change::AuthResult {
            text: text("iprev=pass policy.iprev=192.0.2.1"),
        },
        Change::Quarantine {
            reason: Some(text("attachment evil.exe")),
        },
        Change::Route {
            address: Some(gatepost_protocol::Address::parse("carol@example.org").unwrap()),
            route: Some(text("lmtp")),
        },
        Change::Route {
            address: None,
            route: None,
        },
        Change::RemoteHost {
            name: text("mail.example.net"),
        },
        Change::Remote {
            ip: Some(text("2001:db8::7")),
            port: Some(40_000),
        },
        Change::Local {
            ip: None,
            port: Some(25),
        },
        Change::RemoteInfo {
            info: Some(text("alice")),
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
            then: None,
        },
    );
    let recipient = |address: &str| RecipientEntry {
        address: gatepost_protocol::Address::parse(address).unwrap(),
        disposition: None,
        message: None,
        verdict: None,
        code: None,
        enhanced: None,
        reply: None,
    };
    message(
        &mut out,
        "result with outcomes for single recipients",
        "plugin",
        &ResultMessage {
            id: 19,
            results: vec![Entry {
                plugin: text("quota"),
                disposition: Some(Disposition::Pass),
                message: Some(text("room for 1 of 3 recipients")),
                recipients: Some(vec![
                    RecipientEntry {
                        disposition: Some(Disposition::Fail),
                        message: Some(text("mailbox full")),
                        ..recipient("bob@example.org")
                    },
                    RecipientEntry {
                        verdict: Some(Verdict::DenySoft),
                        code: Some(452),
                        enhanced: EnhancedCode::parse("4.2.2"),
                        reply: Some(vec![text("not"), text("now")]),
                        ..recipient("\"a b\"@example.org")
                    },
                ]),
                ..Entry::default()
            }],
            then: None,
        },
    );
    message(
        &mut out,
        "result that diverts the message, and scores",
        "plugin",
        &ResultMessage {
            id: 20,
            results: vec![
                Entry {
                    plugin: text("greylist"),
                    disposition: Some(Disposition::Fail),
                    message: Some(text("no reverse DNS")),
                    verdict: Some(Verdict::Declined),
                    changes: Some(vec![
                        Change::score(2.5, "no reverse DNS"),
                        Change::score(-0.125, "known for a year"),
                    ]),
                    ..Entry::default()
                },
                Entry {
                    plugin: text("spam"),
                    verdict: Some(Verdict::Quarantine),
                    message: Some(text("spam")),
                    recipients: Some(vec![
                        RecipientEntry {
                            verdict: Some(Verdict::Discard),
                            ..recipient("bob@example.org")
                        },
                        RecipientEntry {
                            verdict: Some(Verdict::Hold),
                            message: Some(text("bcc")),
                            ..recipient("carol@example.org")
                        },
                    ]),
                    ..Entry::default()
                },
            ],
            then: None,
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
            then: None,
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
            then: None,
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
            then: false,
            told: false,
        },
    );
    message(
        &mut out,
        "log, told already",
        "plugin",
        &Log {
            level: text("debug"),
            message: text("hello"),
            plugin: Some(text("vip")),
            hook: Some(17),
            then: false,
            told: true,
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
    message(
        &mut out,
        "fork",
        "core",
        &Fork {
            path: "/tmp/gatepost-x1y2z3/fork".into(),
        },
    );
    matches_file("messages.json", &Json::Array(out));
}
