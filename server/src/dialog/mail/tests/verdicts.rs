//! Every verdict at every hook.

use gatepost_protocol::EnhancedCode;

use super::*;
use crate::dialog::reply::Usual;

const VERDICTS: [Option<Verdict>; 7] = [
    Some(Verdict::Deny),
    Some(Verdict::DenySoft),
    Some(Verdict::DenyDisconnect),
    Some(Verdict::DenySoftDisconnect),
    Some(Verdict::Ok),
    Some(Verdict::Done),
    None,
];

/// Per hook the reply to each of [`VERDICTS`]: `!` where the connection is closed behind it, `-` where nothing is sent.
const REPLIES: &[(Hook, [&str; 7])] = &[
    (
        Hook::Connect,
        [
            "550 5.7.1!",
            "450 4.7.1!",
            "550 5.7.1!",
            "450 4.7.1!",
            "220 mx",
            "-",
            "220 mx",
        ],
    ),
    (
        Hook::Helo,
        [
            "550 5.7.1",
            "450 4.7.1",
            "550 5.7.1!",
            "450 4.7.1!",
            "250 mx",
            "-",
            "250 mx",
        ],
    ),
    (
        Hook::Ehlo,
        [
            "550 5.7.1",
            "450 4.7.1",
            "550 5.7.1!",
            "450 4.7.1!",
            "250-mx",
            "-",
            "250-mx",
        ],
    ),
    (
        Hook::Mail,
        [
            "550 5.7.1",
            "450 4.7.1",
            "550 5.7.1!",
            "421 4.7.1!",
            "250 2.1.0",
            "-",
            "250 2.1.0",
        ],
    ),
    (
        Hook::Rcpt,
        [
            "550 5.7.1",
            "450 4.7.1",
            "550 5.7.1!",
            "421 4.7.1!",
            "250 2.1.5",
            "-",
            "450 4.7.1 No plugin decided",
        ],
    ),
    (
        Hook::Data,
        [
            "554 5.7.1",
            "451 4.7.1",
            "554 5.7.1!",
            "451 4.7.1!",
            "354 ",
            "-",
            "354 ",
        ],
    ),
    (
        Hook::DataHeadersEnd,
        [
            "552 5.7.1",
            "452 4.7.1",
            "554 5.7.1!",
            "421 4.7.1!",
            "250 2.0.0",
            "250 2.0.0",
            "250 2.0.0",
        ],
    ),
    (
        Hook::DataPostHeaders,
        [
            "552 5.7.1",
            "452 4.7.1",
            "552 5.7.1!",
            "452 4.7.1!",
            "250 2.0.0",
            "-",
            "250 2.0.0",
        ],
    ),
    (
        Hook::DataPost,
        [
            "552 5.7.1",
            "452 4.7.1",
            "552 5.7.1!",
            "452 4.7.1!",
            "250 2.0.0",
            "-",
            "250 2.0.0",
        ],
    ),
    (
        Hook::QueuePre,
        [
            "552 5.7.1",
            "452 4.7.1",
            "552 5.7.1!",
            "452 4.7.1!",
            "250 2.0.0",
            "-",
            "250 2.0.0",
        ],
    ),
    (
        Hook::Queue,
        [
            "552 5.3.0",
            "452 4.3.0",
            "451 4.3.0",
            "451 4.3.0",
            "250 2.0.0 Queued as 3f9a1c.1",
            "-",
            "451 4.3.0 Queuing declined",
        ],
    ),
    (
        Hook::UnrecognizedCommand,
        [
            "500 5.5.1",
            "500 5.5.1",
            "521 5.5.1!",
            "500 5.5.1",
            "500 5.5.1",
            "-",
            "500 5.5.1",
        ],
    ),
    (
        Hook::Noop,
        [
            "500 5.7.1",
            "250 2.0.0",
            "500 5.7.1!",
            "250 2.0.0",
            "250 2.0.0",
            "-",
            "250 2.0.0",
        ],
    ),
    (
        Hook::Vrfy,
        [
            "554 5.7.1",
            "252 2.1.5",
            "252 2.1.5",
            "252 2.1.5",
            "250 2.1.5",
            "-",
            "252 2.1.5",
        ],
    ),
    (
        Hook::Help,
        [
            "500 5.7.1",
            "214 2.0.0",
            "214 2.0.0",
            "214 2.0.0",
            "214 2.0.0",
            "-",
            "214 2.0.0",
        ],
    ),
    (
        Hook::Rset,
        [
            "250 2.0.0",
            "250 2.0.0",
            "250 2.0.0",
            "250 2.0.0",
            "250 2.0.0",
            "-",
            "250 2.0.0",
        ],
    ),
    (
        Hook::Quit,
        [
            "221 2.0.0!",
            "221 2.0.0!",
            "221 2.0.0!",
            "221 2.0.0!",
            "221 2.0.0!",
            "-!",
            "221 2.0.0!",
        ],
    ),
];

/// The lines that lead to a hook; the last is the one it answers.
fn way(hook: Hook) -> Vec<&'static str> {
    let mut message = TO_DATA.to_vec();
    message.push(MESSAGE);
    match hook {
        Hook::Connect => vec![],
        Hook::Helo => vec!["HELO a"],
        Hook::Ehlo => vec!["EHLO a"],
        Hook::Mail => TO_DATA[..2].to_vec(),
        Hook::Rcpt => TO_DATA[..3].to_vec(),
        Hook::Data => TO_DATA.to_vec(),
        Hook::UnrecognizedCommand => vec!["FOO bar"],
        Hook::Noop => vec!["NOOP with an argument"],
        Hook::Vrfy => vec!["VRFY bob"],
        Hook::Help => vec!["HELP MAIL"],
        Hook::Rset => vec!["RSET"],
        Hook::Quit => vec!["QUIT"],
        _ => message,
    }
}

/// A conversation up to a hook, where a plugin answers so; its reply is next.
async fn reach(hook: Hook, outcome: impl Fn() -> Outcome + Send + Sync + 'static) -> (Bed, Dialog) {
    let mut bed = Bed::bare().saying(hook, outcome);
    if hook != Hook::Rcpt {
        bed = bed.accepting();
    }
    if hook != Hook::Queue {
        bed = bed.keeping();
    }
    let mut dialog = bed.connect();
    let way = way(hook);
    if let Some((last, before)) = way.split_last() {
        dialog.reply().await;
        for line in before {
            dialog.ask(line).await;
        }
        dialog.send(last).await;
    }
    (bed, dialog)
}

#[tokio::test]
async fn every_verdict_at_every_hook() {
    for (hook, replies) in REPLIES {
        for (verdict, expected) in VERDICTS.into_iter().zip(replies) {
            let what = format!("{verdict:?} at {hook}");
            let outcome = move || Outcome {
                verdict,
                ..Outcome::default()
            };
            let (bed, mut dialog) = reach(*hook, outcome).await;
            let closes = expected.ends_with('!');
            let expected = expected.trim_end_matches('!');
            if expected != "-" {
                let reply = dialog.reply().await;
                assert!(reply.starts_with(expected), "{what}: {reply}");
                assert_ne!(Usual::of(reply.trim_end()).text, "", "{what}: {reply}");
            }
            let queued = bed.queued().len();
            let is_message = way(*hook).last() == Some(&MESSAGE);
            if *hook != Hook::Queue {
                assert_eq!(
                    queued,
                    usize::from(is_message && expected.starts_with("250")),
                    "{what}"
                );
            }
            if closes {
                dialog.closed().await;
            } else {
                // Where DATA waits for the message, the next command would be a line of it.
                if expected.starts_with("354") {
                    dialog.expect(".", "250").await;
                }
                // The probe is a command that nobody but the core answers.
                let probe = if *hook == Hook::Rset { "NOOP" } else { "RSET" };
                dialog.expect(probe, "250 2.0.0").await;
            }
        }
    }
}

#[tokio::test]
async fn plugins_word_their_replies() {
    let deny = || {
        Outcome::fail("not here")
            .with_verdict(Verdict::Deny)
            .with_code(553, EnhancedCode(5, 1, 1))
            .with_reply("No such user\nLook again")
    };
    let (_bed, mut dialog) = reach(Hook::Rcpt, deny).await;
    assert_eq!(
        dialog.reply().await,
        "553-5.1.1 No such user\r\n553 5.1.1 Look again\r\n"
    );

    let (_bed, mut dialog) = reach(Hook::Mail, || Outcome::fail("your list is listed")).await;
    assert_eq!(dialog.reply().await, "550 5.7.1 your list is listed\r\n");

    let done = || {
        Outcome::default()
            .with_verdict(Verdict::Done)
            .with_reply("Go on")
    };
    for (hook, code) in [
        (Hook::Connect, "220 Go"),
        (Hook::Quit, "221 2.0.0"),
        (Hook::DataPost, "250 2.0.0"),
        (Hook::Ehlo, "250 Go"),
        (Hook::Help, "214 2.0.0"),
    ] {
        let (_bed, mut dialog) = reach(hook, done).await;
        let reply = dialog.reply().await;
        assert!(reply.starts_with(code), "{hook}: {reply}");
    }
    let own = move || done().with_code(334, EnhancedCode(2, 0, 0));
    let (_bed, mut dialog) = reach(Hook::UnrecognizedCommand, own).await;
    assert_eq!(dialog.reply().await, "334 Go on\r\n");

    let ok = || Outcome::ok("").with_reply("Kept as 17");
    let (_bed, mut dialog) = reach(Hook::Queue, ok).await;
    assert_eq!(dialog.reply().await, "250 2.0.0 Kept as 17\r\n");
}

#[tokio::test]
async fn a_denied_vrfy_ends_the_transaction() {
    let mut bed = Bed::new().saying(Hook::Vrfy, || {
        Outcome::fail("no").with_verdict(Verdict::Deny)
    });
    let mut dialog = bed.after(&TO_DATA[..3]).await;
    dialog.expect("VRFY bob", "554 5.7.1").await;
    dialog.expect("DATA", "503 5.5.1").await;
}

#[tokio::test]
async fn a_refused_greeting_is_not_stored() {
    let mut bed = Bed::new().saying(Hook::Ehlo, || Outcome::fail("no"));
    let mut dialog = bed.after(&["EHLO a"]).await;
    dialog.expect("MAIL FROM:<a@b>", "503").await;
    dialog.expect("HELO a", "250").await;
    dialog.expect("MAIL FROM:<a@b>", "250").await;
    // What was agreed before a refused greeting stays.
    dialog.expect("EHLO b", "550").await;
    dialog.expect("RCPT TO:<a@b>", "250").await;
}
