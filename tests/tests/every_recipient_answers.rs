//! The tables of docs/recipients.md, row by row: what a plugin in Python and one in Perl say of single recipients, and what the client, the mailboxes and the sender see of it.

use std::collections::BTreeMap;
use std::io::Write;
use std::process::{Command, Stdio};

use gatepost_tests::server::Server;
use gatepost_tests::smtp::Client;
use gatepost_tests::wait::until;

const PYTHON: Language = Language {
    plugin: r#"
        run = ["python3", "$ROOT/tests/plugins/judge.py"]
        env = { PYTHONPATH = "$ROOT/sdk-python/src" }
    "#,
    hard: "554",
    soft: "450",
};
// What a plugin of qpsmtpd's kind says has no code of its own.
const PERL: Language = Language {
    plugin: r#"
        run = ["perl", "$ROOT/sdk-perl/bin/gatepost-perl"]
        source = "$ROOT/tests/plugins/judge.pl"
    "#,
    hard: "552",
    soft: "452",
};

/// A plugin, and the codes with which it refuses for good and for now.
struct Language {
    plugin: &'static str,
    hard: &'static str,
    soft: &'static str,
}

/// How the client can hear of recipients.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Speaks {
    Smtp,
    Prdr,
    Lmtp,
}

/// A message, and what becomes of it.
struct Row {
    speaks: Speaks,
    mixed: &'static [&'static str],
    recipients: &'static [&'static str],
    /// The codes of the replies after DATA; HARD and SOFT are the plugin's.
    replies: &'static [&'static str],
    /// Who gets it.
    delivered: &'static [&'static str],
    /// Of whom the sender is told.
    told: &'static [&'static str],
    /// For whom it is tried again.
    kept: &'static [&'static str],
    /// For whom it is in the store.
    stored: &'static [&'static str],
}

const ALL: &[&str] = &["split", "bounce", "discard", "reject"];
const NO: &[&str] = &[];

#[rustfmt::skip]
const ROWS: &[Row] = &[
    // Nobody refuses.
    row(Speaks::Smtp, ALL, &["ann", "bob"], &["250"], &["ann", "bob"], NO, NO),
    row(Speaks::Prdr, ALL, &["ann", "bob"], &["353", "250", "250", "250"], &["ann", "bob"], NO, NO),
    row(Speaks::Lmtp, ALL, &["ann", "bob"], &["250", "250"], &["ann", "bob"], NO, NO),
    // All refuse.
    row(Speaks::Smtp, ALL, &["hard1", "hard2"], &["HARD"], NO, NO, NO),
    row(Speaks::Smtp, ALL, &["hard1", "soft1"], &["SOFT"], NO, NO, NO),
    row(Speaks::Smtp, ALL, &["late-hard1", "late-soft1"], &["SOFT"], NO, NO, NO),
    row(Speaks::Prdr, ALL, &["hard1", "soft1"], &["353", "HARD", "SOFT", "SOFT"], NO, NO, NO),
    row(Speaks::Lmtp, ALL, &["hard1", "soft1"], &["HARD", "SOFT"], NO, NO, NO),
    // Some refuse, and the client can be told.
    row(Speaks::Prdr, ALL, &["ann", "hard1", "soft1"], &["353", "250", "HARD", "SOFT", "250"], &["ann"], NO, NO),
    row(Speaks::Prdr, ALL, &["late-hard1", "ann", "late-soft1"], &["353", "HARD", "250", "SOFT", "250"], &["ann"], NO, NO),
    row(Speaks::Lmtp, ALL, &["soft1", "ann", "hard1"], &["SOFT", "250", "HARD"], &["ann"], NO, NO),
    row(Speaks::Lmtp, ALL, &["late-soft1", "ann", "late-hard1"], &["SOFT", "250", "HARD"], &["ann"], NO, NO),
    // The message is diverted for all.
    row(Speaks::Smtp, ALL, &["ann", "all-discard1"], &["250"], NO, NO, NO),
    row(Speaks::Smtp, ALL, &["ann", "all-quarantine1"], &["250"], NO, NO, NO).stored(&["all-quarantine1", "ann"]),
    row(Speaks::Smtp, ALL, &["ann", "late-all-hold1"], &["250"], NO, NO, NO).stored(&["ann", "late-all-hold1"]),
    row(Speaks::Prdr, ALL, &["all-hold1", "ann"], &["353", "250", "250", "250"], NO, NO, NO).stored(&["all-hold1", "ann"]),
    row(Speaks::Lmtp, ALL, &["ann", "all-quarantine1"], &["250", "250"], NO, NO, NO).stored(&["all-quarantine1", "ann"]),
    // It is diverted for some.
    row(Speaks::Smtp, ALL, &["ann", "discard1", "hold1", "quarantine1"], &["250"], &["ann"], NO, NO).stored(&["hold1", "quarantine1"]),
    row(Speaks::Smtp, ALL, &["late-discard1", "ann", "late-quarantine1"], &["250"], &["ann"], NO, NO).stored(&["late-quarantine1"]),
    row(Speaks::Prdr, ALL, &["quarantine1", "discard1", "ann"], &["353", "250", "250", "250", "250"], &["ann"], NO, NO).stored(&["quarantine1"]),
    row(Speaks::Lmtp, ALL, &["hold1", "ann", "late-hold1", "discard1"], &["250", "250", "250", "250"], &["ann"], NO, NO).stored(&["hold1", "late-hold1"]),
    // It is diverted for some, and refused by others: as if the former had it.
    row(Speaks::Prdr, ALL, &["quarantine1", "hard1", "soft1"], &["353", "250", "HARD", "SOFT", "250"], NO, NO, NO).stored(&["quarantine1"]),
    row(Speaks::Lmtp, ALL, &["hard1", "discard1"], &["HARD", "250"], NO, NO, NO),
    row(Speaks::Smtp, &["split"], &["eve", "quarantine2", "hard3"], &["451"], NO, NO, NO),
    row(Speaks::Smtp, &["bounce"], &["quarantine1", "hard2"], &["250"], NO, &["hard2"], NO).stored(&["quarantine1"]),
    row(Speaks::Smtp, &["discard"], &["quarantine1", "hard1"], &["250"], NO, NO, NO).stored(&["quarantine1"]),
    row(Speaks::Smtp, &["reject"], &["quarantine1", "hard1"], &["HARD"], NO, NO, NO),
    row(Speaks::Smtp, &["bounce", "discard", "reject"], &["discard1", "soft1"], &["SOFT"], NO, NO, NO),
    row(Speaks::Smtp, &["split", "bounce", "reject"], &["quarantine1", "late-hard2"], &["250"], NO, &["late-hard2"], NO).stored(&["quarantine1"]),
    row(Speaks::Smtp, ALL, &["discard1", "late-soft1"], &["250"], NO, NO, &["late-soft1"]),
    // Some refuse for good before anybody has it.
    row(Speaks::Smtp, &["split"], &["ann", "hard1"], &["451"], NO, NO, NO),
    row(Speaks::Smtp, &["bounce"], &["ann", "hard1"], &["250"], &["ann"], &["hard1"], NO),
    row(Speaks::Smtp, &["discard"], &["ann", "hard1"], &["250"], &["ann"], NO, NO),
    row(Speaks::Smtp, &["reject"], &["ann", "hard1"], &["HARD"], NO, NO, NO),
    // Some refuse for now before anybody has it.
    row(Speaks::Smtp, &["split"], &["cid", "soft1"], &["451"], NO, NO, NO),
    row(Speaks::Smtp, &["bounce", "discard", "reject"], &["ann", "soft1"], &["SOFT"], NO, NO, NO),
    // Some refuse when others have it.
    row(Speaks::Smtp, &["split", "bounce", "reject"], &["dan", "late-hard1"], &["250"], &["dan"], &["late-hard1"], NO),
    row(Speaks::Smtp, &["discard"], &["dan", "late-hard1"], &["250"], &["dan"], NO, NO),
    row(Speaks::Smtp, ALL, &["dan", "late-soft1"], &["250"], &["dan"], NO, &["late-soft1"]),
];

const fn row(
    speaks: Speaks,
    mixed: &'static [&'static str],
    recipients: &'static [&'static str],
    replies: &'static [&'static str],
    delivered: &'static [&'static str],
    told: &'static [&'static str],
    kept: &'static [&'static str],
) -> Row {
    Row {
        speaks,
        mixed,
        recipients,
        replies,
        delivered,
        told,
        kept,
        stored: NO,
    }
}

impl Row {
    const fn stored(mut self, stored: &'static [&'static str]) -> Row {
        self.stored = stored;
        self
    }
}

/// Plays the rows that hold for a setting, in one daemon for each protocol.
fn play(language: &Language, mixed: &str) {
    let Language { plugin, hard, soft } = language;
    for protocol in ["smtp", "lmtp"] {
        let server = Server::start(&format!(
            r#"
            mixed = "{mixed}"
            [[listen]]
            protocol = "{protocol}"
            [[plugin]]
            name = "rcpt_ok"
            [[plugin]]
            name = "judge"
            {plugin}
            [[plugin]]
            name = "queue/maildir"
            path = "$DIR/mail/{{local}}"
            "#
        ));
        let rows = ROWS.iter().enumerate().filter(|(_, row)| {
            row.mixed.contains(&mixed) && (row.speaks == Speaks::Lmtp) == (protocol == "lmtp")
        });
        for (number, row) in rows {
            let replies: Vec<String> = row
                .replies
                .iter()
                .map(|code| code.replace("HARD", hard).replace("SOFT", soft))
                .collect();
            assert_eq!(
                send(&server, row, number),
                replies,
                "replies of row {number}, {:?}, mixed = {mixed}",
                row.speaks
            );
            let what = format!("row {number}, mixed = {mixed}");
            let subject = format!("Subject: row {number}\r\n");
            let expected: Vec<String> = row.delivered.iter().map(|to| (*to).to_owned()).collect();
            assert_eq!(
                delivered(&server, &subject),
                expected,
                "mailboxes of {what}"
            );
            for recipient in row.told {
                let told = until(&format!("a notification of {what}"), || {
                    notification(&server, &subject, recipient)
                });
                check_notification(&told, recipient, hard, number);
            }
            let kept = until_kept(&server, row.kept);
            assert_eq!(kept, row.kept, "what is kept of {what}");
            assert_eq!(stored(&server), row.stored, "what is stored of {what}");
        }
        // Nobody was told but of whom the rows say so.
        let told = ROWS.iter().filter(|row| {
            row.mixed.contains(&mixed) && (row.speaks == Speaks::Lmtp) == (protocol == "lmtp")
        });
        let told: usize = told.map(|row| row.told.len()).sum();
        assert_eq!(in_mailbox(&server, "alice").len(), told, "mixed = {mixed}");
    }
}

/// The codes of the replies to a message, after DATA.
fn send(server: &Server, row: &Row, number: usize) -> Vec<String> {
    let mut client = Client::connect(server.address());
    let (hello, prdr, replies) = match row.speaks {
        Speaks::Smtp => ("EHLO", "", 1),
        Speaks::Prdr => ("EHLO", " PRDR", row.recipients.len() + 2),
        Speaks::Lmtp => ("LHLO", "", row.recipients.len()),
    };
    client.ask(&format!("{hello} client.example"), "250");
    client.ask(
        &format!("MAIL FROM:<alice@client.example>{prdr} ENVID=row{number} RET=HDRS"),
        "250",
    );
    for recipient in row.recipients {
        client.ask(
            &format!("RCPT TO:<{recipient}@example.org> ORCPT=rfc822;{recipient}+2Bx@old.example"),
            "250",
        );
    }
    client.ask("DATA", "354");
    client.send(format!("Subject: row {number}\r\n\r\nx\r\n.\r\n").as_bytes());
    (0..replies)
        .map(|_| client.reply()[..3].to_owned())
        .collect()
}

/// The messages in a mailbox.
fn in_mailbox(server: &Server, local: &str) -> Vec<Vec<u8>> {
    let new = server.stage().mail.join(local).join("new");
    let files = std::fs::read_dir(new).into_iter().flatten().flatten();
    files
        .map(|file| std::fs::read(file.path()).expect("a delivered message can be read"))
        .collect()
}

fn contains(message: &[u8], text: &str) -> bool {
    String::from_utf8_lossy(message).contains(text)
}

/// Whose mailboxes hold the message itself.
fn delivered(server: &Server, subject: &str) -> Vec<String> {
    let mailboxes = std::fs::read_dir(&server.stage().mail)
        .into_iter()
        .flatten();
    let mut names: Vec<String> = mailboxes
        .flatten()
        .map(|mailbox| mailbox.file_name().to_string_lossy().into_owned())
        .filter(|name| {
            let mut messages = in_mailbox(server, name).into_iter();
            name != "alice" && messages.any(|message| contains(&message, subject))
        })
        .collect();
    names.sort();
    names
}

/// The notification about a recipient of a message, in its sender's mailbox.
fn notification(server: &Server, subject: &str, recipient: &str) -> Option<Vec<u8>> {
    let final_recipient = format!("Final-Recipient: rfc822; {recipient}@example.org");
    in_mailbox(server, "alice")
        .into_iter()
        .find(|message| contains(message, subject) && contains(message, &final_recipient))
}

/// Has a notification read by Python's email package, and looks at each field (RFC 3464).
fn check_notification(message: &[u8], recipient: &str, code: &str, number: usize) {
    let script = gatepost_tests::programs::root().join("tests/plugins/notification.py");
    let mut python = Command::new("python3")
        .arg(script)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("Python is there");
    let mut input = python.stdin.take().expect("it is piped");
    input.write_all(message).expect("it is read");
    drop(input);
    let output = python.wait_with_output().expect("it ends");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(message)
    );
    let said = String::from_utf8(output.stdout).expect("it is UTF-8");
    let fields: BTreeMap<&str, &str> = said
        .lines()
        .filter_map(|line| line.split_once(": "))
        .collect();
    // The plugin in Python names its enhanced code; at `queue` the usual one is another.
    let is_usual = code != "554" && recipient.starts_with("late");
    let status = if is_usual { "5.3.0" } else { "5.7.1" };
    let expected = [
        ("report-type", "delivery-status".to_owned()),
        ("auto-submitted", "auto-replied".to_owned()),
        ("to", "alice@client.example".to_owned()),
        (
            "parts",
            "text/plain message/delivery-status text/rfc822-headers".to_owned(),
        ),
        ("reporting-mta", "dns; mx.example.org".to_owned()),
        ("original-envelope-id", format!("row{number}")),
        (
            "original-recipient",
            format!("rfc822; {recipient}+x@old.example"),
        ),
        (
            "final-recipient",
            format!("rfc822; {recipient}@example.org"),
        ),
        ("action", "failed".to_owned()),
        ("status", status.to_owned()),
        (
            "diagnostic-code",
            format!("smtp; {code} {status} not wanted"),
        ),
        ("subject", format!("row {number}")),
    ];
    for (name, value) in expected {
        assert_eq!(fields.get(name), Some(&value.as_str()), "{name} in\n{said}");
    }
}

/// For whom messages wait in the outbox; what was in it before is taken out.
fn until_kept(server: &Server, expected: &[&str]) -> Vec<String> {
    let outbox = server.stage().spool.join("outbox");
    let look = || {
        let files = std::fs::read_dir(&outbox).into_iter().flatten().flatten();
        let envelopes = files.map(|file| file.path()).filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "json")
        });
        envelopes
            .filter_map(|path| Some((std::fs::read_to_string(&path).ok()?, path)))
            .filter(|(text, _)| !text.contains("\"notification\"") && !text.contains(WITHHELD))
            .collect::<Vec<_>>()
    };
    let kept = until("what is kept", || {
        Some(look()).filter(|kept| kept.len() == expected.len())
    });
    kept.into_iter()
        .map(|(text, path)| {
            std::fs::remove_file(&path).expect("it is there");
            let known = expected.iter().find(|name| text.contains(**name));
            known.map_or(text.clone(), |name| (*name).to_owned())
        })
        .collect()
}

const WITHHELD: &str = "\"withheld\"";

/// For whom messages are in the store, which say who withheld them and hold our trace; what was in it is taken out.
fn stored(server: &Server) -> Vec<String> {
    let outbox = server.stage().spool.join("outbox");
    let files = std::fs::read_dir(&outbox).into_iter().flatten().flatten();
    let mut names = Vec::new();
    for path in files.map(|file| file.path()) {
        let Ok(text) = std::fs::read_to_string(&path) else {
            continue;
        };
        if path.extension().is_none_or(|extension| extension != "json") || !text.contains(WITHHELD)
        {
            continue;
        }
        let envelope: serde_json::Value = serde_json::from_str(&text).expect("it is JSON");
        let withheld = &envelope["withheld"];
        assert_eq!(
            (&withheld["plugin"], &withheld["reason"]),
            (&"judge".into(), &"looks bad".into())
        );
        let kind = withheld["kind"].as_str().expect("it says how");
        for recipient in envelope["recipients"].as_array().expect("it has some") {
            let address = recipient["address"].as_str().expect("it is text");
            let local = address.split('@').next().unwrap_or_default().to_owned();
            assert!(local.contains(kind) || local == "ann", "{kind}: {local}");
            let original = recipient["parameters"]["ORCPT"].as_str();
            assert!(original.is_some_and(|it| it.contains(&local)), "{text}");
            names.push(local);
        }
        let message = std::fs::read(path.with_extension("msg")).expect("it is there");
        assert!(contains(&message, "Received: from client.example"));
        std::fs::remove_file(path.with_extension("msg")).expect("it is there");
        std::fs::remove_file(&path).expect("it is there");
    }
    names.sort();
    names
}

#[test]
fn of_plugins_in_python() {
    for mixed in ALL {
        play(&PYTHON, mixed);
    }
}

#[test]
fn of_plugins_in_perl() {
    for mixed in ALL {
        play(&PERL, mixed);
    }
}

#[test]
fn split_takes_recipients_that_disagreed_one_by_one() {
    let plugin = PYTHON.plugin;
    let server = Server::start(&format!(
        r#"
        [[plugin]]
        name = "rcpt_ok"
        [[plugin]]
        name = "judge"
        {plugin}
        [[plugin]]
        name = "queue/maildir"
        "#
    ));
    let mut client = Client::greet(server.address());
    client.ask("MAIL FROM:<alice@client.example>", "250");
    client.ask("RCPT TO:<ann@example.org>", "250");
    client.ask("RCPT TO:<hard@example.org>", "250");
    client.ask("DATA", "354");
    client.send(b"Subject: x\r\n\r\nx\r\n.\r\n");
    client.expect("451");
    // As clients do that got a 4xx: again for all, then for those who got a 4xx again.
    client.ask("MAIL FROM:<alice@client.example>", "250");
    client.ask("RCPT TO:<ann@example.org>", "250");
    client.ask("RCPT TO:<hard@example.org>", "452");
    client.ask("DATA", "354");
    client.send(b"Subject: x\r\n\r\nx\r\n.\r\n");
    client.expect("250");
    client.ask("MAIL FROM:<alice@client.example>", "250");
    client.ask("RCPT TO:<hard@example.org>", "250");
    client.ask("DATA", "354");
    client.send(b"Subject: x\r\n\r\nx\r\n.\r\n");
    client.expect("554");
    assert_eq!(server.delivered().len(), 1);
}
