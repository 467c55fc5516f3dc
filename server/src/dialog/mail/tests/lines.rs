//! Plugins that look at a message as it comes in.

use super::*;
use crate::config::BareNewlines;

type Seen = Arc<Mutex<Vec<(u64, String)>>>;

/// A plugin that is shown a message, and answers by its text.
fn looking(bed: Bed, answer: impl Fn(&str) -> Outcome + Send + Sync + 'static) -> (Bed, Seen) {
    let seen = Seen::default();
    let shown = Arc::clone(&seen);
    let bed = bed.plugin(&[Hook::DataLines], move |call| {
        let gatepost_protocol::Args::Lines { lines, offset } = call.args else {
            panic!("no lines");
        };
        assert!(call.session.transaction.header.is_some());
        let text = String::from_utf8(lines.to_vec()).unwrap();
        let outcome = answer(&text);
        shown.lock().unwrap().push((*offset, text));
        outcome.into()
    });
    (bed, seen)
}

fn refusing(text: &str) -> Outcome {
    if text.contains("spam") {
        Outcome::fail("no spam").with_verdict(Verdict::Deny)
    } else if text.contains("worm") {
        Outcome::fail("no worms").with_verdict(Verdict::DenyDisconnect)
    } else {
        Outcome::declined()
    }
}

/// A header, and lines of a body, more than a block of them.
fn big(word: &str) -> String {
    format!(
        "Subject: x\r\n\r\n{word}\r\n{}",
        "a line\r\n".repeat(12_000)
    )
}

#[tokio::test]
async fn a_message_is_shown_as_it_is_kept() {
    let (bed, seen) = looking(Bed::new(), refusing);
    let mut bed = bed;
    let mut dialog = bed.after(TO_DATA).await;
    dialog.expect("Subject: x\r\n\r\n..dots\r\n.", "250").await;
    dialog.hang_up().await;
    let shown = "Subject: x\r\n\r\n.dots\r\n";
    assert_eq!(*seen.lock().unwrap(), [(0, shown.to_owned())]);
    assert!(bed.queued()[0].ends_with(shown), "below our trace");
}

#[tokio::test]
async fn by_data_and_by_chunks_it_is_the_same() {
    let message = big("fine");
    let mut both = Vec::new();
    for by_chunks in [false, true] {
        let (mut bed, seen) = looking(Bed::new(), refusing);
        let mut dialog = bed.after(&TO_DATA[..3]).await;
        if by_chunks {
            let (head, tail) = message.split_at(40_001);
            for (chunk, last) in [(head, ""), (tail, " LAST")] {
                let command = format!("BDAT {}{last}\r\n{chunk}", chunk.len());
                dialog.raw(command.as_bytes()).await;
                assert!(dialog.reply().await.starts_with("250"));
            }
        } else {
            dialog.expect("DATA", "354").await;
            dialog.expect(&format!("{message}."), "250").await;
        }
        dialog.hang_up().await;
        assert!(bed.queued()[0].ends_with(&message));
        both.push(std::mem::take(&mut *seen.lock().unwrap()));
    }
    assert!(both[0] == both[1]);
    let texts = both[0].iter().map(|(_, text)| &**text);
    assert!(texts.collect::<String>() == message);
    assert_eq!(both[0].len(), 2);
    assert_eq!(both[0][1].0, both[0][0].1.len() as u64);
}

#[tokio::test]
async fn a_denial_ends_it_early() {
    for (word, reply, goes_on) in [
        ("spam", "552 5.7.1 no spam", true),
        ("worm", "554 5.7.1 no worms", false),
    ] {
        let (mut bed, seen) = looking(Bed::new(), refusing);
        let mut dialog = bed.after(TO_DATA).await;
        let message = big(word);
        if goes_on {
            // The reply comes when all of it was sent.
            dialog.expect(&format!("{message}."), reply).await;
            dialog.expect("QUIT", "221").await;
        } else {
            dialog.raw(message.as_bytes()).await;
            assert!(dialog.reply().await.starts_with(reply));
        }
        dialog.closed().await;
        assert_eq!(seen.lock().unwrap().len(), 1, "{word}");
        assert_eq!(bed.queued(), [""; 0]);
    }
}

#[tokio::test]
async fn a_denied_chunk_is_refused_at_once() {
    let (mut bed, _) = looking(Bed::new(), refusing);
    let mut dialog = bed.after(&TO_DATA[..3]).await;
    let message = big("spam");
    let chunk = format!("BDAT {}\r\n{message}", message.len());
    dialog.raw(chunk.as_bytes()).await;
    assert!(dialog.reply().await.starts_with("552 5.7.1 no spam"));
    dialog.expect("BDAT 0 LAST", "503").await;
    dialog.expect("NOOP", "250").await;
    dialog.hang_up().await;
}

#[tokio::test]
async fn who_has_seen_enough_sees_the_next_message() {
    let (mut bed, seen) = looking(Bed::new(), |_| Outcome::ok("seen enough"));
    let mut dialog = bed.after(&TO_DATA[..1]).await;
    for _ in 0..2 {
        for command in &TO_DATA[1..] {
            dialog.ask(command).await;
        }
        dialog.expect(&format!("{}.", big("fine")), "250").await;
    }
    dialog.hang_up().await;
    let offsets = seen
        .lock()
        .unwrap()
        .iter()
        .map(|(offset, _)| *offset)
        .collect::<Vec<_>>();
    assert_eq!(offsets, [0, 0]);
    assert_eq!(bed.queued().len(), 2);
}

#[tokio::test]
async fn lines_that_are_made_right_are_shown_right_and_wrong_ones_not_at_all() {
    let message = "Subject: x\r\n\r\none\ntwo\r\n";
    for (newlines, reply, shown) in [
        (BareNewlines::Reject, "554", None),
        (
            BareNewlines::Normalize,
            "250",
            Some("Subject: x\r\n\r\none\r\ntwo\r\n"),
        ),
        (BareNewlines::Keep, "250", Some(message)),
    ] {
        let (mut bed, seen) = looking(Bed::new(), refusing);
        bed.config.bare_newlines = newlines;
        let mut dialog = bed.after(TO_DATA).await;
        dialog.expect(&format!("{message}."), reply).await;
        dialog.hang_up().await;
        let texts = seen
            .lock()
            .unwrap()
            .iter()
            .map(|(_, text)| text.clone())
            .collect::<Vec<_>>();
        assert_eq!(
            texts,
            shown.map(str::to_owned).into_iter().collect::<Vec<_>>()
        );
    }
}

#[tokio::test]
async fn binary_data_without_lines_is_shown_in_pieces() {
    let (mut bed, seen) = looking(Bed::new(), refusing);
    let mut dialog = bed.after(&TO_DATA[..1]).await;
    dialog
        .expect("MAIL FROM:<a@b> BODY=BINARYMIME", "250")
        .await;
    dialog.expect(TO_DATA[2], "250").await;
    let message = format!("Subject: x\r\n\r\n{}", "\0".repeat(600 * 1024));
    let chunk = format!("BDAT {} LAST\r\n{message}", message.len());
    dialog.raw(chunk.as_bytes()).await;
    assert!(dialog.reply().await.starts_with("250"));
    dialog.hang_up().await;
    let lengths = seen
        .lock()
        .unwrap()
        .iter()
        .map(|(_, text)| text.len())
        .collect::<Vec<_>>();
    assert_eq!(lengths, [14, 512 * 1024, 88 * 1024]);
}

#[tokio::test]
async fn nothing_more_is_read_while_a_plugin_looks() {
    let release = Arc::new(tokio::sync::Notify::new());
    let waiting = Arc::clone(&release);
    let mut bed = Bed::new().plugin(&[Hook::DataLines], move |_| {
        let waiting = Arc::clone(&waiting);
        Answer::later(async move {
            waiting.notified().await;
            Outcome::declined()
        })
    });
    let mut dialog = bed.after(TO_DATA).await;
    let message = big("fine").repeat(10);
    {
        // Blocks, and what the stream between holds.
        let (mut sent, bytes) = (0, format!("{message}.\r\n").into_bytes());
        let mut writing = Box::pin(dialog.raw(&bytes));
        while sent < 20 {
            tokio::select! {
                biased;
                () = &mut writing => panic!("all of it was taken while the first block was looked at"),
                () = tokio::task::yield_now() => sent += 1,
            }
        }
        release.notify_one();
        tokio::select! {
            () = &mut writing => {}
            () = async { loop { release.notify_one(); tokio::task::yield_now().await; } } => {}
        }
    }
    tokio::select! {
        reply = dialog.reply() => assert!(reply.starts_with("250")),
        () = async { loop { release.notify_one(); tokio::task::yield_now().await; } } => {}
    }
    dialog.hang_up().await;
}
