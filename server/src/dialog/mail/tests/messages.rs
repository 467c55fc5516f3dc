//! Messages: what is kept of them, and what happens when they do not come whole.

use gatepost_protocol::{Change, HeaderBlock};
use tokio::sync::Notify;

use super::*;
use crate::config::BareNewlines;
use crate::dialog::LMTP;

/// Sends a message through, and gives what was queued.
async fn through(bed: &mut Bed, message: &str) -> String {
    let mut dialog = bed.after(TO_DATA).await;
    dialog.expect(message, "250 2.0.0").await;
    dialog.ask("QUIT").await;
    dialog.closed().await;
    bed.queued().pop().unwrap()
}

#[tokio::test]
async fn a_message_is_kept_byte_for_byte_below_the_trace_headers() {
    let odd =
        "X-Space : x\r\nSubject:\tfolded\r\n  twice \r\nno colon\r\n\r\n\0body\r\n..\r\n.x\r\n";
    let stuffed = odd.replace("\r\n.", "\r\n..");
    for size in [0, 100, 20_000, 200_000] {
        let more = "another line, to make it long\r\n".repeat(size / 31);
        let queued = through(&mut Bed::new(), &format!("{stuffed}{more}.")).await;
        let (trace, rest) = queued.split_at(queued.find("X-Space").unwrap());
        assert_eq!(rest, format!("{odd}{more}"));
        assert!(
            trace.starts_with("Received: from client.example ([192.0.2.1])\r\n\tby mx.example.org (Gatepost) with ESMTP id 3f9a1c.1\r\n\tfor <c@d>;\r\n\t"),
            "{trace}"
        );
        assert!(
            trace.ends_with(" +0000\r\nAuthentication-Results: mx.example.org; none\r\n"),
            "{trace}"
        );
    }
}

#[tokio::test]
async fn header_and_body_are_told_apart() {
    for (message, header, header_end, body_start) in [
        ("A: b\r\n\r\nbody\r\n", "A: b\r\n", 6, 8),
        ("\r\nbody\r\n", "", 0, 2),
        ("A: b\r\n", "A: b\r\n", 6, 6),
        ("", "", 0, 0),
    ] {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&seen);
        let hooks = [Hook::DataHeadersEnd, Hook::DataPostHeaders];
        let mut bed = Bed::new().plugin(&hooks, move |call| {
            let transaction = &call.session.transaction;
            let header = transaction
                .header
                .as_ref()
                .map(HeaderBlock::to_bytes)
                .unwrap();
            log.lock()
                .unwrap()
                .push((header, transaction.header_end, transaction.body_start));
            Outcome::declined().into()
        });
        through(&mut bed, &format!("{message}.")).await;
        let expected = (header.into(), header_end, body_start);
        assert_eq!(
            *seen.lock().unwrap(),
            [expected.clone(), expected],
            "{message}"
        );
    }
}

#[tokio::test]
async fn plugins_change_header_and_envelope() {
    let mut bed = Bed::new();
    bed.plugins.insert(
        0,
        Small {
            hooks: vec![Hook::DataHeadersEnd, Hook::ReceivedLine],
            fields: vec![],
            respond: Box::new(|call| {
                if call.hook == Hook::ReceivedLine {
                    let default = call.args.text().unwrap();
                    assert!(
                        default.starts_with("Received: from client.example"),
                        "{default}"
                    );
                    let mut outcome = Outcome::ok("");
                    outcome.values = vec!["by a plugin".to_owned(), "of mine".to_owned()];
                    return outcome.into();
                }
                let auth = Change::AuthResult {
                    text: "spf=pass".to_owned(),
                };
                let tag = Change::AddHeader {
                    name: "X-Tag".into(),
                    value: "y".into(),
                    at: Default::default(),
                };
                Outcome::declined()
                    .with_change(auth)
                    .with_change(tag)
                    .into()
            }),
        },
    );
    let queued = through(
        &mut bed,
        "Authentication-Results: mx.example.org; spf=forged\r\nA: b\r\n\r\nbody\r\n.",
    )
    .await;
    assert_eq!(
        queued,
        "Received: by a plugin\r\n\tof mine\r\nAuthentication-Results: mx.example.org;\r\n\tspf=pass\r\nX-Tag: y\r\n\
         Original-Authentication-Results: mx.example.org; spf=forged\r\nA: b\r\n\r\nbody\r\n"
    );
}

#[tokio::test]
async fn a_file_is_there_for_whoever_wants_one() {
    let seen = Arc::new(Mutex::new(None));
    let log = Arc::clone(&seen);
    let mut bed = Bed::new();
    bed.plugins.insert(
        0,
        Small {
            hooks: vec![Hook::DataPostHeaders],
            fields: vec![Field::Path],
            respond: Box::new(move |call| {
                let path = call.session.transaction.path.clone().unwrap();
                *log.lock().unwrap() = Some((std::fs::read_to_string(&path).unwrap(), path));
                Outcome::declined().into()
            }),
        },
    );
    through(&mut bed, MESSAGE).await;
    let (text, path) = seen.lock().unwrap().take().unwrap();
    assert_eq!(text, "Subject: x\r\n\r\nbody\r\n");
    assert!(!path.exists());
}

#[tokio::test]
async fn nothing_but_crlf_dot_crlf_smuggles_a_message_out() {
    let smuggled = "MAIL FROM:<x@y>\r\nRCPT TO:<c@d>\r\nDATA\r\nsmuggled";
    for end in [
        "\n.\n",
        "\n.\r\n",
        "\r\n.\n",
        "\r.\r",
        "\r\n.\r",
        "\r.\r\n",
        "\r\n.\r\r\n",
    ] {
        let mut bed = Bed::new();
        bed.config.bare_newlines = BareNewlines::Keep;
        let queued = through(&mut bed, &format!("A: b\r\n\r\nbody{end}{smuggled}\r\n.")).await;
        assert!(queued.ends_with("smuggled\r\n"), "{end:?}");
        assert_eq!(bed.queued().len(), 1, "{end:?}");

        let mut bed = Bed::new();
        let mut dialog = bed.after(TO_DATA).await;
        dialog
            .expect(
                &format!("A: b\r\n\r\nbody{end}{smuggled}\r\n."),
                "554 5.6.0",
            )
            .await;
        dialog.expect("QUIT", "221").await;
        assert_eq!(bed.queued(), [""; 0], "{end:?}");
    }
}

#[tokio::test]
async fn a_client_that_leaves_before_the_reply_leaves_nothing() {
    let whole = format!("{MESSAGE}\r\n");
    for cut in 0..=whole.len() {
        let mut bed = Bed::new();
        let mut dialog = bed.after(TO_DATA).await;
        dialog.raw(&whole.as_bytes()[..cut]).await;
        dialog.hang_up().await;
        assert_eq!(bed.queued(), [""; 0], "left after {cut} bytes");
    }
}

#[tokio::test]
async fn a_client_that_leaves_while_plugins_think_finds_nothing_delivered() {
    let (thinking, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (started, wait) = (Arc::clone(&thinking), Arc::clone(&go_on));
    let mut bed = Bed::new().plugin(&[Hook::DataPost], move |_| {
        let (started, wait) = (Arc::clone(&started), Arc::clone(&wait));
        Answer::later(async move {
            started.notify_one();
            wait.notified().await;
            Outcome::declined()
        })
    });
    let mut dialog = bed.after(TO_DATA).await;
    dialog.send(MESSAGE).await;
    thinking.notified().await;
    let (stream, server) = (dialog.stream, dialog.server);
    drop(stream);
    go_on.notify_one();
    server.await.unwrap();
    assert_eq!(bed.queued(), [""; 0]);
}

#[tokio::test]
async fn a_client_that_leaves_finds_nothing_delivered_by_chunk_and_in_lmtp_either() {
    let chunk = "BDAT 20 LAST\r\nSubject: x\r\n\r\nbody\r\n";
    for (dialect, hello) in [
        (&SMTP, "EHLO client.example"),
        (&LMTP, "LHLO client.example"),
    ] {
        let to_message = [hello, "MAIL FROM:<a@b>", "RCPT TO:<c@d>"];
        for last in [chunk.to_owned(), format!("DATA\r\n{MESSAGE}\r\n")] {
            let (thinking, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
            let (started, wait) = (Arc::clone(&thinking), Arc::clone(&go_on));
            let mut bed = Bed::new().plugin(&[Hook::DataPost], move |_| {
                let (started, wait) = (Arc::clone(&started), Arc::clone(&wait));
                Answer::later(async move {
                    started.notify_one();
                    wait.notified().await;
                    Outcome::declined()
                })
            });
            bed.dialect = dialect;
            let mut dialog = bed.after(&to_message).await;
            dialog.raw(last.as_bytes()).await;
            thinking.notified().await;
            let (stream, server) = (dialog.stream, dialog.server);
            drop(stream);
            go_on.notify_one();
            server.await.unwrap();
            assert_eq!(bed.queued(), [""; 0], "{last}");
        }
        for cut in 0..=chunk.len() {
            let mut bed = Bed::new();
            bed.dialect = dialect;
            let mut dialog = bed.after(&to_message).await;
            dialog.raw(&chunk.as_bytes()[..cut]).await;
            dialog.hang_up().await;
            assert_eq!(bed.queued(), [""; 0], "left after {cut} bytes");
        }
    }
}

#[tokio::test]
async fn a_client_that_said_all_it_had_to_say_is_not_gone() {
    let mut bed = Bed::new();
    let mut dialog = bed.after(TO_DATA).await;
    dialog
        .raw(format!("{MESSAGE}\r\nQUIT\r\n").as_bytes())
        .await;
    dialog.stream.shutdown().await.unwrap();
    assert!(dialog.reply().await.starts_with("250 2.0.0"));
    assert!(dialog.reply().await.starts_with("221"));
    dialog.closed().await;
    assert_eq!(bed.queued().len(), 1);
}

#[tokio::test]
async fn the_header_is_judged_while_the_body_comes() {
    let deny = || Outcome::fail("bad header").with_verdict(Verdict::DenyDisconnect);
    let mut bed = Bed::new().saying(Hook::DataHeadersEnd, deny);
    let mut dialog = bed.after(TO_DATA).await;
    // The body never ends, and the reply comes nevertheless.
    dialog.send("A: b\r\n\r\nbody").await;
    assert_eq!(dialog.reply().await, "554 5.7.1 bad header\r\n");
    dialog.closed().await;

    let mut bed = Bed::new().saying(Hook::DataHeadersEnd, || Outcome::fail("bad header"));
    let mut dialog = bed.after(TO_DATA).await;
    dialog.send("A: b\r\n\r\nbody").await;
    dialog.expect(".", "552 5.7.1 bad header").await;
    dialog.expect("MAIL FROM:<a@b>", "250").await;
    assert_eq!(bed.queued(), [""; 0]);
}

#[tokio::test]
async fn a_message_in_circles_is_refused() {
    for (hops, reply) in [(100, "250 2.0.0"), (101, "554 5.4.6")] {
        let mut dialog = Bed::new().after(TO_DATA).await;
        let message = format!("{}\r\nbody\r\n.", "Received: x\r\n".repeat(hops));
        dialog.expect(&message, reply).await;
    }
}

#[tokio::test]
async fn without_room_in_the_spool_it_is_451_until_there_is_room_again() {
    let mut bed = Bed::new();
    bed.config.limits.memory_per_message = 0;
    bed.config.spool_dir = bed.spool.path().join("spool");
    let mut dialog = bed.after(&TO_DATA[..3]).await;
    std::fs::remove_dir(&bed.config.spool_dir).unwrap();
    dialog.expect("DATA", "354").await;
    dialog.expect(MESSAGE, "451 4.3.1").await;
    std::fs::create_dir(&bed.config.spool_dir).unwrap();
    for line in &TO_DATA[1..] {
        dialog.ask(line).await;
    }
    dialog.expect(MESSAGE, "250 2.0.0").await;
    assert_eq!((bed.queued().len(), files(&bed.config.spool_dir)), (1, 0));
}
