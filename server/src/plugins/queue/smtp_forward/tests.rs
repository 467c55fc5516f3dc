//! Against a small server on loopback that follows a script.

mod departure;

use super::*;
use crate::plugins::testing::{
    FakeServices, TestMessage, ask_with, built, line, plugin, session, with_message,
};
use gatepost_protocol::{Address, Args, Departure, Session};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;

/// What a server says to which command, by the command's beginning; the first that fits. An empty answer closes the connection.
type Script = &'static [(&'static str, &'static str)];

const PLAIN: Script = &[
    ("", "220 hello"),
    ("EHLO", "502 what"),
    ("HELO mx.example.org", "250 hello"),
    ("MAIL FROM:<", "250 ok"),
    ("RCPT", "250 ok"),
    ("DATA", "354 go on"),
    (".", "250 taken"),
];

const FULL: Script = &[
    ("", "220-hello\r\n220 hello"),
    (
        "EHLO",
        "250-hello\r\n250-PIPELINING\r\n250-SIZE 1000000\r\n250 8BITMIME",
    ),
    ("MAIL", "250 2.1.0 ok"),
    ("RCPT TO:<gone@", "550 5.1.1 no such user"),
    (
        "RCPT TO:<busy@",
        "452-4.2.2 mailbox full\r\n452 4.2.2 come back",
    ),
    ("RCPT", "250 2.1.5 ok"),
    ("DATA", "354 go on"),
    (".", "250 2.0.0 queued as ABC"),
];

/// Serves one connection and returns what it was told: the commands, and the data as it came.
async fn serve(script: Script) -> (u16, tokio::task::JoinHandle<(Vec<String>, String)>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let told = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut stream = BufReader::new(stream);
        let answer = |command: &str| {
            let found = script
                .iter()
                .skip(1)
                .find(|(start, _)| command.starts_with(start));
            found.map_or("500 not in the script", |(_, answer)| answer)
        };
        let (mut commands, mut data, mut in_data) = (Vec::new(), String::new(), false);
        let mut say = script[0].1;
        loop {
            if !say.is_empty() {
                let _ = stream
                    .get_mut()
                    .write_all(format!("{say}\r\n").as_bytes())
                    .await;
            } else if !in_data {
                return (commands, data);
            }
            let mut line = String::new();
            if stream.read_line(&mut line).await.unwrap_or(0) == 0 {
                return (commands, data);
            }
            let command = line.trim_end();
            say = match (in_data, command) {
                (true, ".") | (false, _) => answer(command),
                (true, _) => "",
            };
            if in_data {
                data.push_str(&line);
            } else {
                commands.push(command.to_owned());
            }
            in_data = if in_data {
                command != "."
            } else {
                say.starts_with("354")
            };
        }
    });
    (port, told)
}

fn mail(recipients: &[&str], message: &[u8]) -> (Session, TestMessage) {
    let (mut session, message) = with_message(session("192.0.2.1"), message);
    let transaction = &mut session.transaction;
    transaction.sender = Some(Address::parse("a@example.net").unwrap());
    transaction.recipients = recipients
        .iter()
        .map(|to| Address::parse(to).unwrap())
        .collect();
    (session, message)
}

async fn forward(port: u16, session: &Session, message: &TestMessage) -> Outcome {
    let settings = [
        ("server", "127.0.0.1".into()),
        ("port", i64::from(port).into()),
    ];
    let forward = plugin(&DEFINITION, &FakeServices::new(), settings);
    ask_with(&forward, Hook::Queue, session, Args::None, Some(message)).await
}

#[tokio::test]
async fn a_message_is_handed_over_with_its_edits() {
    let (port, told) = serve(FULL).await;
    let (mut session, message) = mail(
        &["b@example.org", "c@example.org"],
        b"Subject: x\r\n\r\n.dot\r\nend\r\n",
    );
    session
        .transaction
        .sender_parameters
        .insert("BODY".to_owned(), Some("8bitmime".to_owned()));
    session
        .transaction
        .header
        .as_mut()
        .unwrap()
        .add("Received", b"by us", true)
        .unwrap();
    let outcome = forward(port, &session, &message).await;
    assert_eq!(
        line(&outcome),
        format!("pass, 127.0.0.1:{port}: queued as ABC")
    );
    assert_eq!(
        (outcome.verdict, outcome.reply),
        (Some(Verdict::Ok), vec!["Queued! queued as ABC".to_owned()])
    );
    let (commands, data) = told.await.unwrap();
    assert_eq!(
        commands,
        [
            "EHLO mx.example.org",
            "MAIL FROM:<a@example.net> SIZE=42 BODY=8BITMIME",
            "RCPT TO:<b@example.org>",
            "RCPT TO:<c@example.org>",
            "DATA",
            "QUIT"
        ]
    );
    assert_eq!(
        data,
        "Received: by us\r\nSubject: x\r\n\r\n..dot\r\nend\r\n.\r\n"
    );
}

#[tokio::test]
async fn an_old_server_is_spoken_to_step_by_step() {
    let (port, told) = serve(PLAIN).await;
    let (mut session, message) = mail(&["b@example.org"], b"Subject: x\r\n\r\nno end");
    session.transaction.sender = None;
    let outcome = forward(port, &session, &message).await;
    assert_eq!(line(&outcome), format!("pass, 127.0.0.1:{port}: taken"));
    let (commands, data) = told.await.unwrap();
    assert_eq!(commands[2..4], ["MAIL FROM:<>", "RCPT TO:<b@example.org>"]);
    assert_eq!(data, "Subject: x\r\n\r\nno end\r\n.\r\n");
}

#[tokio::test]
async fn a_large_message_comes_whole() {
    let body = "0123456789abcdef\r\n.\r\n".repeat(48_000);
    let (port, told) = serve(&[
        ("", "220 hello"),
        ("EHLO", "250 hello"),
        ("MAIL", "250 ok"),
        ("RCPT", "250 ok"),
        ("DATA", "354 go on"),
        (".", "250 taken"),
    ])
    .await;
    let (session, message) = mail(
        &["b@example.org"],
        format!("Subject: x\r\n\r\n{body}").as_bytes(),
    );
    let outcome = forward(port, &session, &message).await;
    assert_eq!(outcome.verdict, Some(Verdict::Ok), "{outcome:?}");
    let (_, data) = told.await.unwrap();
    // The test server ends its data at the first line that is a dot alone: had one not been stuffed the rest would be missing.
    assert_eq!(
        data,
        format!(
            "Subject: x\r\n\r\n{}.\r\n",
            body.replace("\r\n.\r\n", "\r\n..\r\n")
        )
    );
}

#[tokio::test]
async fn one_refused_recipient_refuses_the_message() {
    for (recipients, code, enhanced, reply, verdict) in [
        (
            &["b@x.example", "gone@x.example"][..],
            550,
            EnhancedCode(5, 1, 1),
            "<gone@x.example>: no such user",
            Verdict::Deny,
        ),
        (
            &["busy@x.example", "b@x.example"],
            452,
            EnhancedCode(4, 2, 2),
            "<busy@x.example>: mailbox full come back",
            Verdict::DenySoft,
        ),
        (
            &["busy@x.example", "gone@x.example"],
            550,
            EnhancedCode(5, 1, 1),
            "<gone@x.example>: no such user",
            Verdict::Deny,
        ),
    ] {
        let (port, told) = serve(FULL).await;
        let (session, message) = mail(recipients, b"Subject: x\r\n\r\nbody\r\n");
        let outcome = forward(port, &session, &message).await;
        assert_eq!(outcome.verdict, Some(verdict), "{outcome:?}");
        assert_eq!(
            (outcome.code, outcome.enhanced),
            (Some(code), Some(enhanced))
        );
        assert_eq!(outcome.reply, [reply]);
        let (commands, data) = told.await.unwrap();
        assert!(
            !commands.contains(&"DATA".to_owned()) && data.is_empty(),
            "nothing was sent"
        );
    }
}

#[tokio::test]
async fn other_refusals_are_passed_on_and_trouble_is_ours() {
    const AT_MAIL: Script = &[
        ("", "220 hi"),
        ("EHLO", "250 hi"),
        ("MAIL", "553 5.7.1 not you"),
    ];
    const AT_END: Script = &[
        ("", "220 hi"),
        ("EHLO", "250 hi"),
        ("MAIL", "250 ok"),
        ("RCPT", "250 ok"),
        ("DATA", "354 go"),
        (".", "554 5.6.0 spam"),
    ];
    const CLOSING: Script = &[
        ("", "220 hi"),
        ("EHLO", "250 hi"),
        ("MAIL", "421 4.3.2 shutting down"),
    ];
    const UNFRIENDLY: Script = &[("", "554 go away")];
    const GONE: Script = &[("", "220 hi"), ("EHLO", "")];
    const NONSENSE: Script = &[("", "HTTP/1.1 400 Bad Request")];
    const SMALL: Script = &[("", "220 hi"), ("EHLO", "250-hi\r\n250 SIZE 10")];
    for (script, code, verdict, reply) in [
        (AT_MAIL, 553, Some(Verdict::Deny), "not you"),
        (AT_END, 554, Some(Verdict::Deny), "spam"),
        (CLOSING, 451, Some(Verdict::DenySoft), "shutting down"),
        (
            SMALL,
            552,
            Some(Verdict::Deny),
            "The message is larger than 10 bytes",
        ),
        (
            UNFRIENDLY,
            451,
            None,
            "The next server cannot be reached; try again later",
        ),
        (
            GONE,
            451,
            None,
            "The next server cannot be reached; try again later",
        ),
        (
            NONSENSE,
            451,
            None,
            "The next server cannot be reached; try again later",
        ),
    ] {
        let (port, _told) = serve(script).await;
        let (session, message) = mail(&["b@example.org"], b"Subject: x\r\n\r\nbody\r\n");
        let outcome = forward(port, &session, &message).await;
        assert_eq!(
            (outcome.code, outcome.verdict),
            (Some(code), verdict),
            "{outcome:?}"
        );
        assert_eq!(outcome.reply, [reply]);
        assert!(
            outcome.message.starts_with("127.0.0.1:"),
            "{}",
            outcome.message
        );
    }
}

#[tokio::test]
async fn nobody_there() {
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = closed.local_addr().unwrap().port();
    drop(closed);
    let (session, message) = mail(&["b@example.org"], b"Subject: x\r\n\r\nbody\r\n");
    let outcome = forward(port, &session, &message).await;
    assert!(
        line(&outcome).starts_with(&format!("error, 127.0.0.1:{port}: Connection refused")),
        "{outcome:?}"
    );
    assert_eq!((outcome.code, outcome.verdict), (Some(451), None));
}

#[tokio::test]
async fn a_lone_cr_or_lf_is_never_forwarded() {
    for body in ["a\n.\r\nMAIL FROM:<evil@x>\r\n", "a\r.\r\n", "end\r"] {
        let (port, told) = serve(FULL).await;
        let (session, message) = mail(
            &["b@example.org"],
            format!("Subject: x\r\n\r\n{body}").as_bytes(),
        );
        let outcome = forward(port, &session, &message).await;
        assert_eq!(
            (outcome.code, outcome.verdict),
            (Some(554), Some(Verdict::Deny)),
            "{outcome:?}"
        );
        assert_eq!(outcome.enhanced, Some(EnhancedCode(5, 6, 0)));
        let (_, data) = told.await.unwrap();
        assert!(
            !data.ends_with("\r\n.\r\n"),
            "the end of data was not sent: {data:?}"
        );
    }
}

#[tokio::test]
async fn a_binary_message_is_not_converted_for_a_server_that_takes_none() {
    let (port, told) = serve(FULL).await;
    let (mut session, message) = mail(&["b@example.org"], b"Subject: x\r\n\r\n\0\n");
    session
        .transaction
        .sender_parameters
        .insert("BODY".to_owned(), Some("BinaryMIME".to_owned()));
    let outcome = forward(port, &session, &message).await;
    assert_eq!(
        (outcome.code, outcome.enhanced, outcome.verdict),
        (Some(554), Some(EnhancedCode(5, 6, 1)), Some(Verdict::Deny)),
        "{outcome:?}"
    );
    let (commands, _) = told.await.unwrap();
    assert_eq!(commands, ["EHLO mx.example.org", "QUIT"]);
}

#[tokio::test]
async fn a_silent_server_is_not_waited_for_for_ever() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = silent.local_addr().unwrap().port();
    let (session, message) = mail(&["b@example.org"], b"Subject: x\r\n\r\nbody\r\n");
    let transaction = &session.transaction;
    let timeouts = Timeouts {
        command: Duration::from_millis(50),
        ..Timeouts::default()
    };
    let content = Delivered::new(transaction, &message);
    let failure = smtp_client::send(
        "127.0.0.1",
        port,
        "mx",
        transaction,
        content,
        &timeouts,
        &Departure::new(),
    )
    .await
    .unwrap_err();
    assert_eq!(failure.to_string(), "waited 50ms for its greeting");
}

const EXTENDED: Script = &[
    ("", "220 hello"),
    (
        "EHLO",
        "250-hello\r\n250-SIZE\r\n250-8bitmime\r\n250-dsn\r\n250 SMTPUTF8",
    ),
    ("MAIL", "250 ok"),
    ("RCPT TO:<gone@", "550 5.1.1 no such user"),
    ("RCPT", "250 ok"),
    ("DATA", "354 go on"),
    (".", "250 taken"),
];

/// A transaction that uses all that can be passed on.
fn asking(recipients: &[&str]) -> (Session, TestMessage) {
    let (mut session, message) = mail(&[], "Subject: Gr\u{fc}\u{df}e\r\n\r\nbody\r\n".as_bytes());
    let parameters = |given: &[(&str, Option<&str>)]| {
        given
            .iter()
            .map(|(keyword, value)| ((*keyword).to_owned(), value.map(str::to_owned)))
            .collect()
    };
    let transaction = &mut session.transaction;
    transaction.sender_parameters = parameters(&[
        ("AUTH", Some("<>")),
        ("BODY", Some("8bitmime")),
        ("ENVID", Some("QQ+2B1")),
        ("RET", Some("HDRS")),
        ("SIZE", Some("5")),
        ("SMTPUTF8", None),
    ]);
    for to in recipients {
        transaction.add_recipient(
            Address::parse_utf8(to).unwrap(),
            parameters(&[
                ("NOTIFY", Some("NEVER")),
                ("ORCPT", Some("utf-8;b\u{f6}b@example.org")),
            ]),
        );
    }
    transaction.add_recipient(
        Address::parse("added@example.org").unwrap(),
        parameters(&[]),
    );
    (session, message)
}

/// RFC 3461 §5.2.1, RFC 6531 §3.2, RFC 6152 §3.
#[tokio::test]
async fn what_the_client_asked_for_is_passed_on() {
    let (port, told) = serve(EXTENDED).await;
    let (session, message) = asking(&["j\u{f6}rg@example.org", "b@example.org"]);
    let outcome = forward(port, &session, &message).await;
    assert_eq!(outcome.verdict, Some(Verdict::Ok), "{outcome:?}");
    let (commands, _) = told.await.unwrap();
    let size = message_size(&session, &message);
    assert_eq!(
        commands[1..5],
        [
            format!(
                "MAIL FROM:<a@example.net> SIZE={size} BODY=8BITMIME SMTPUTF8 RET=HDRS ENVID=QQ+2B1"
            ),
            "RCPT TO:<j\u{f6}rg@example.org> NOTIFY=NEVER ORCPT=utf-8;b\u{f6}b@example.org"
                .to_owned(),
            "RCPT TO:<b@example.org> NOTIFY=NEVER ORCPT=utf-8;b\u{f6}b@example.org".to_owned(),
            "RCPT TO:<added@example.org>".to_owned(),
        ]
    );
}

fn message_size(session: &Session, message: &TestMessage) -> u64 {
    Delivered::new(&session.transaction, message).remaining()
}

#[tokio::test]
async fn parameters_are_not_in_the_words_of_a_refusal() {
    let (port, _told) = serve(EXTENDED).await;
    let (session, message) = asking(&["gone@example.org"]);
    let outcome = forward(port, &session, &message).await;
    assert_eq!(outcome.reply, ["<gone@example.org>: no such user"]);
}

#[tokio::test]
async fn what_the_next_server_does_not_offer_is_left_out() {
    const DSN: Script = &[
        ("", "220 hello"),
        ("EHLO", "250-hello\r\n250 DSN"),
        ("MAIL", "250 ok"),
        ("RCPT", "250 ok"),
        ("DATA", "354 go on"),
        (".", "250 taken"),
    ];
    for (script, mail, rcpt) in [
        (PLAIN, "", ""),
        (
            DSN,
            " RET=HDRS ENVID=QQ+2B1",
            " NOTIFY=NEVER ORCPT=utf-8;b\\x{F6}b@example.org",
        ),
    ] {
        let (port, told) = serve(script).await;
        let (mut session, message) = asking(&["b@example.org"]);
        session.transaction.header = None;
        let outcome = forward(port, &session, &message).await;
        assert_eq!(outcome.verdict, Some(Verdict::Ok), "{outcome:?}");
        let (commands, _) = told.await.unwrap();
        assert!(
            commands.contains(&format!("MAIL FROM:<a@example.net>{mail}")),
            "{commands:?}"
        );
        assert!(
            commands.contains(&format!("RCPT TO:<b@example.org>{rcpt}")),
            "{commands:?}"
        );
    }
}

/// RFC 6531 §3.5, RFC 8689 §4.2.1, RFC 3030 §3.
#[tokio::test]
async fn what_cannot_go_on_as_it_was_asked_is_refused_for_good() {
    let set = |keyword: &str, value: Option<&str>| {
        let (mut session, message) = asking(&["b@example.org"]);
        let parameters = &mut session.transaction.sender_parameters;
        parameters.insert(keyword.to_owned(), value.map(str::to_owned));
        (session, message)
    };
    for ((session, message), called, code, enhanced) in [
        (
            asking(&["j\u{f6}rg@example.org"]),
            true,
            553,
            EnhancedCode(5, 6, 7),
        ),
        (asking(&["b@example.org"]), true, 554, EnhancedCode(5, 6, 9)),
        (set("REQUIRETLS", None), false, 550, EnhancedCode(5, 7, 30)),
        (
            set("BODY", Some("BINARYMIME")),
            false,
            554,
            EnhancedCode(5, 6, 1),
        ),
    ] {
        let (port, told) = serve(FULL).await;
        let outcome = forward(port, &session, &message).await;
        assert_eq!(
            (outcome.verdict, outcome.code, outcome.enhanced),
            (Some(Verdict::Deny), Some(code), Some(enhanced)),
            "{outcome:?}"
        );
        // One that was never called would wait for ever.
        if called {
            let (commands, _) = told.await.unwrap();
            let mut verbs = commands.iter().map(|command| &command[..4]);
            assert!(
                verbs.all(|verb| matches!(verb, "EHLO" | "QUIT")),
                "{commands:?}"
            );
        } else {
            assert!(!told.is_finished());
        }
    }
}

#[test]
fn wrong_settings_are_named() {
    let wrong = [("server", "a b".into()), ("port", 70_000.into())];
    let errors = built(&DEFINITION, &FakeServices::new(), wrong)
        .err()
        .unwrap();
    let paths: Vec<_> = errors.iter().map(|error| error.path.join(".")).collect();
    assert_eq!(paths, ["server", "port"]);
}
