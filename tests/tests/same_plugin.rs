//! The same plugins built in and as a child process (`gatepost plugin serve`): clients and operators cannot tell which.

use gatepost::cli::transcript::text_of;
use gatepost_tests::server::Server;
use gatepost_tests::smtp::Client;

/// Plugins for every phase, with their settings.
const CHAIN: [(&str, &str); 8] = [
    ("relay", "clients = [\"192.0.2.0/24\"]"),
    ("helo", "reject = \"naughty\"\nhosts = [\"bad.example\"]"),
    ("badmailfrom", "addresses = [\"@evil.example\"]"),
    (
        "badrcptto",
        "addresses = [\"nobody@example.org\"]\nreject_type = \"temp\"",
    ),
    ("naughty", ""),
    ("rcpt_ok", "hosts = [\"example.org\"]"),
    ("headers", "require = [\"From\", \"Date\"]"),
    ("queue/maildir", "path = \"$DIR/mail\""),
];

/// What a client sends, line by line, each answered before the next.
const CONVERSATIONS: [&[&str]; 3] = [
    &[
        "EHLO client.example",
        "MAIL FROM:<bob@evil.example>",
        "MAIL FROM:<alice@client.example> SIZE=100",
        "RCPT TO:<nobody@example.org>",
        "RCPT TO:<bob@elsewhere.example>",
        "RCPT TO:<bob@example.org>",
        "DATA",
        "Subject: no date\r\n\r\nbody\r\n.",
        "MAIL FROM:<alice@client.example>",
        "RCPT TO:<bob@example.org>",
        "RCPT TO:<carol@example.org>",
        "DATA",
        "From: a@client.example\r\nDate: DATE\r\nX-Odd : \tvalue\r\n\r\n..dot\r\n8 bit: \u{e9}\r\n.",
        "NOOP",
        "VRFY bob",
        "QUIT",
    ],
    &[
        "HELO bad.example",
        "MAIL FROM:<>",
        "RCPT TO:<bob@example.org>",
        "QUIT",
    ],
    &[
        "HELO [127.0.0.1]",
        "MAIL FROM:<>",
        "RCPT TO:<postmaster>",
        "QUIT",
    ],
];

/// All that can be seen of a server that is spoken to: replies, log lines, delivered messages.
fn seen(as_children: bool) -> String {
    let mut head = String::new();
    for (name, settings) in CHAIN {
        head.push_str(&format!("[[plugin]]\nname = \"{name}\"\n{settings}\n"));
        if as_children {
            head.push_str("run = [\"$BIN/gatepost\", \"plugin\", \"serve\"]\n");
        }
    }
    let mut server = Server::start(&head);
    let mut seen = String::new();
    let date = "Sun, 22 Nov 2026 10:00:00 +0000";
    for conversation in CONVERSATIONS {
        let mut client = Client::connect(server.address());
        for line in conversation {
            client.send(format!("{}\r\n", line.replace("DATE", date)).as_bytes());
            seen.push_str(&client.reply());
        }
    }
    let delivered = server.delivered();
    server.stop();
    let log = server.log();
    let dispositions = log
        .iter()
        .map(|line| text_of(line))
        .filter(|text| text.starts_with('('));
    seen.extend(dispositions.map(|text| format!("{text}\n")));
    for file in delivered {
        seen.push_str(&String::from_utf8_lossy(
            &std::fs::read(file).expect("a delivered message"),
        ));
    }
    without_chance(&seen)
}

/// Session ids, the names of files, folders and the time are different every time.
fn without_chance(seen: &str) -> String {
    let kept = seen.lines().map(|line| match line.split_once(" as 1") {
        Some((start, _)) => start.split(" in ").next().unwrap_or_default().to_owned(),
        None if line.contains(" id ") || line.starts_with('\t') && line.contains(':') => {
            String::new()
        }
        None if line.starts_with("250 2.") => line.split(' ').take(3).collect::<Vec<_>>().join(" "),
        None => line.to_owned(),
    });
    kept.collect::<Vec<_>>().join("\n")
}

#[test]
fn give_the_same_transcript() {
    let (built_in, child) = (seen(false), seen(true));
    assert!(
        built_in.contains("550 5.7.1") && built_in.contains("(queue) queue/maildir: pass"),
        "{built_in}"
    );
    assert!(built_in.contains("NAUGHTY"), "{built_in}");
    assert_eq!(built_in, child);
}
