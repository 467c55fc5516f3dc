//! `gatepost quarantine` while the daemon runs, and while it does not.

use gatepost::outbox::Outbox;
use gatepost::outbox::store::{Kind, Why};
use gatepost_protocol::services::MemoryMessage;
use gatepost_protocol::{Address, HeaderBlock, Parameters, Session};
use gatepost_tests::server::Server;

/// `headers` would refuse all of these messages, if it were asked when they are released.
const HEAD: &str = r#"
[[plugin]]
name = "headers"
require = ["From"]
[[plugin]]
name = "rcpt_ok"
[[plugin]]
name = "queue/maildir"
path = "$DIR/mail/{local}"
"#;

const HEADER: &str = "Subject: Gr\u{fc}\u{df}e\r\n";

/// Runs it where nothing may go wrong; standard output.
fn done(server: &Server, words: &[&str]) -> String {
    let (code, text, errors) = server.command(words);
    assert_eq!((code, errors.as_str()), (Some(0), ""), "{words:?}");
    text
}

/// Runs it where something has to go wrong; standard error.
fn refused(server: &Server, words: &[&str], expected: i32) -> String {
    let (code, text, errors) = server.command(words);
    assert_eq!((code, text.as_str()), (Some(expected), ""), "{words:?}");
    errors
}

/// Withholds a message as the daemon does, which must not run; its ID.
fn keep(server: &Server, kind: Kind, recipients: &[&str]) -> String {
    let path = server.dir().join("gatepost.toml");
    let config = gatepost::config::load(Some(&path), &gatepost::plugins::all());
    let config = config.unwrap_or_else(|mistakes| panic!("{mistakes}"));
    let mut session = Session::default();
    session.connection.remote = Some("192.0.2.1:1234".parse().expect("an address"));
    let transaction = &mut session.transaction;
    let address = |text: &&str| Address::parse(text).expect("an address");
    transaction.sender = Some(address(&"alice@client.example"));
    let recipients: Vec<Address> = recipients.iter().map(address).collect();
    for recipient in &recipients {
        transaction.add_recipient(recipient.clone(), Parameters::new());
    }
    transaction.header = Some(HeaderBlock::parse(HEADER.into()));
    transaction.header_end = HEADER.len() as u64;
    transaction.body_start = transaction.header_end + 2;
    let text = format!("{HEADER}\r\nhello\r\n");
    transaction.size = text.len() as u64;
    let why = Why {
        kind,
        plugin: "judge",
        reason: "it is \u{1b}[31modd",
    };
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let kept = runtime.block_on(async {
        let outbox = Outbox::open(&config)?;
        let message = MemoryMessage(text.into());
        let store = outbox.store();
        store.keep(&why, &session, &recipients, &message).await
    });
    kept.expect("there is room")
}

fn subject(message: &[u8]) -> bool {
    String::from_utf8_lossy(message).contains(HEADER)
}

#[test]
fn list_show_release_remove() {
    let mut server = Server::start(HEAD);
    assert_eq!(done(&server, &["quarantine", "list"]), "");
    assert!(server.stop().success());
    let quarantined = keep(
        &server,
        Kind::Quarantine,
        &["bob@example.org", "carol@example.org"],
    );
    let held = keep(&server, Kind::Hold, &["dan@example.org"]);
    server.start_again(HEAD);

    let list = done(&server, &["quarantine", "list"]);
    let [first, second] = list.lines().collect::<Vec<_>>()[..] else {
        panic!("{list}")
    };
    let of_first = first.strip_prefix(&format!("{quarantined} quarantined age "));
    let of_first = of_first.unwrap_or_else(|| panic!("{list}"));
    assert!(
        of_first.contains(" size 27 removed in 29d23h from "),
        "{list}"
    );
    assert!(
        of_first.ends_with(
            " from <alice@client.example> to <bob@example.org>,<carol@example.org> by judge: it is \\u{1b}[31modd"
        ),
        "{list}"
    );
    let of_second = second.strip_prefix(&format!("{held} held age "));
    let of_second = of_second.unwrap_or_else(|| panic!("{list}"));
    assert!(of_second.contains(" size 27 from <alice@"), "{list}");
    let only = done(&server, &["quarantine", "list", "--held"]);
    assert_eq!(only.lines().collect::<Vec<_>>(), [second]);
    let shown = done(&server, &["quarantine", "show", &quarantined]);
    for part in [
        "\"kind\": \"quarantine\"",
        "\"plugin\": \"judge\"",
        "\"remote\": \"192.0.2.1:1234\"",
        "\n\nSubject: Gr\u{fc}\u{df}e\r\n\r\nhello\r\n",
    ] {
        assert!(shown.contains(part), "{part} in {shown}");
    }

    // It is not the outbox's yet.
    assert_eq!(done(&server, &["outbox", "list"]), "");
    for word in ["show", "retry", "remove"] {
        let error = refused(&server, &["outbox", word, &quarantined], 1);
        let hint = format!("{quarantined} is quarantined; see `gatepost quarantine show");
        assert!(error.contains(&hint), "{error}");
    }

    // For one recipient, and for nobody else.
    let words = [
        "quarantine",
        "release",
        &quarantined,
        "--rcpt",
        "mallory@example.org",
    ];
    let error = refused(&server, &words, 1);
    assert!(error.contains("not for <mallory@example.org>"), "{error}");
    let words = [
        "quarantine",
        "release",
        &quarantined,
        "--rcpt",
        "carol@example.org",
    ];
    assert_eq!(done(&server, &words), "");
    assert!(subject(&server.message()));
    assert_eq!(server.delivered().len(), 1);
    assert!(server.stage().mail.join("carol/new").exists());
    let list = done(&server, &["quarantine", "list"]);
    assert!(list.contains(" to <bob@example.org> by judge"), "{list}");

    // What is wrong with one of several stops none of the others.
    let missing = "0123456789abcdef";
    let words = ["quarantine", "release", missing, &held, &quarantined];
    let error = refused(&server, &words, 1);
    assert!(
        error.contains("there is no message 0123456789abcdef"),
        "{error}"
    );
    gatepost_tests::wait::until("the others", || {
        (server.delivered().len() == 3).then_some(())
    });
    gatepost_tests::wait::until("an empty folder", || {
        server.spooled().is_empty().then_some(())
    });
    let error = refused(&server, &["quarantine", "release", &held], 1);
    assert!(error.contains("there is no message"), "{error}");
    let error = refused(&server, &["quarantine", "show", "../../gatepost"], 2);
    assert!(error.contains("`gatepost quarantine list`"), "{error}");
    assert!(server.stop().success());
    assert_eq!(server.delivered().len(), 3);
}

#[test]
fn it_works_without_the_daemon_too() {
    let mut server = Server::start(HEAD);
    assert!(server.stop().success());
    let ids = [0; 3].map(|_| keep(&server, Kind::Quarantine, &["bob@example.org"]));
    done(&server, &["quarantine", "release", &ids[0]]);
    let error = refused(&server, &["quarantine", "release", &ids[0]], 1);
    let hint = format!("{} is in the outbox; see `gatepost outbox show", ids[0]);
    assert!(error.contains(&hint), "{error}");
    let waiting = done(&server, &["outbox", "list"]);
    assert!(
        waiting.contains("released; it was quarantined by judge"),
        "{waiting}"
    );
    done(&server, &["quarantine", "remove", &ids[1], &ids[2]]);
    assert_eq!(done(&server, &["quarantine", "list"]), "");
    server.start_again(HEAD);
    assert!(subject(&server.message()));
    server.wait_for_log("the end of its delivery", |text| {
        text == "outbox: delivered to 1 of 1 recipients"
    });
    assert!(server.stop().success());
    assert_eq!(server.delivered().len(), 1);
}

#[test]
fn what_is_quarantined_goes_with_age() {
    let mut server = Server::start(HEAD);
    assert!(server.stop().success());
    let old = keep(&server, Kind::Quarantine, &["bob@example.org"]);
    let held = keep(&server, Kind::Hold, &["bob@example.org"]);
    server.start_again(&format!("[quarantine]\nkeep = \"1ms\"\n{HEAD}"));
    let line = server.wait_for_log("a removal", |text| text.starts_with("quarantine: removed"));
    assert!(line.contains(&old), "{line}");
    let list = done(&server, &["quarantine", "list"]);
    assert!(list.starts_with(&held), "{list}");
    assert_eq!(list.lines().count(), 1, "{list}");
    assert!(server.delivered().is_empty());
}
