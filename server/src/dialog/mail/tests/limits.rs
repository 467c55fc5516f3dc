//! What clients may use up, and for how long they may wait.

use super::*;

#[tokio::test]
async fn long_lines_are_refused_and_their_ends_found() {
    let mut bed = Bed::new();
    bed.config.limits.max_command_line = 100;
    let mut dialog = bed.after(&[]).await;
    for (length, reply) in [(98, "250 2.0.0"), (99, "500 5.5.2"), (20_000, "500 5.5.2")] {
        dialog
            .expect(&format!("NOOP {}", "x".repeat(length - 5)), reply)
            .await;
    }
    let endless = dialog.raw(&[b'x'; 80_000]);
    assert!(
        tokio::time::timeout(Duration::from_secs(60), endless)
            .await
            .is_ok()
    );
    assert!(dialog.reply().await.starts_with("500 5.5.2"));
    dialog.closed().await;
}

#[tokio::test]
async fn lines_that_are_none() {
    let mut dialog = Bed::new().after(&[]).await;
    dialog.expect("NOOP a\0b", "501 5.5.2").await;
    dialog.expect("NOOP a\rb", "500 5.5.2").await;
    dialog
        .raw(b"NOOP\nMAIL FROM:<smuggled@example.org>\r\n")
        .await;
    assert!(dialog.reply().await.starts_with("500 5.5.2"));
    dialog.closed().await;
}

#[tokio::test]
async fn limits_of_a_message() {
    let mut bed = Bed::new();
    bed.config.limits.max_size = 300;
    bed.config.limits.max_header = 100;
    bed.config.limits.max_data_line = 50;
    let (line, header) = ("x".repeat(48), "A: b\r\n");
    let mut dialog = bed.after(&TO_DATA[..1]).await;
    for (message, reply) in [
        (format!("{header}\r\n{line}\r\n."), "250 2.0.0"),
        (format!("{header}\r\n{line}x\r\n."), "554 5.6.0"),
        (format!("{}\r\nbody\r\n.", header.repeat(16)), "250 2.0.0"),
        (
            format!("{}\r\nbody\r\n.", header.repeat(17)),
            "552 5.3.4 Header",
        ),
        (format!("{}.", header.repeat(17)), "552 5.3.4 Header"),
        (
            format!("{header}\r\n{}.", format!("{}\r\n", &line[2..]).repeat(6)),
            "250 2.0.0",
        ),
        (
            format!("{header}\r\n{}\r\n.", format!("{line}\r\n").repeat(6)),
            "552 5.3.4 Message",
        ),
        // And again, as often as it tries.
        (
            format!("{header}\r\n{}\r\n.", format!("{line}\r\n").repeat(9000)),
            "552 5.3.4 Message",
        ),
    ] {
        for command in &TO_DATA[1..] {
            dialog.ask(command).await;
        }
        dialog.expect(&message, reply).await;
    }
    assert_eq!(bed.queued().len(), 3);
}

#[tokio::test]
async fn what_comes_behind_the_limit_of_a_message_is_not_kept() {
    let mut bed = Bed::new();
    bed.config.limits.memory_per_message = 0;
    bed.config.limits.max_size = 1 << 20;
    let mut dialog = bed.after(TO_DATA).await;
    let lines = b"sixteen  bytes\r\n".repeat(1 << 15);
    let spool = Arc::clone(&bed.spool);
    let kept = async |count| {
        let waiting = async {
            while files(spool.path()) != count {
                tokio::task::yield_now().await;
            }
        };
        let waited = tokio::time::timeout(Duration::from_secs(20), waiting).await;
        assert!(waited.is_ok(), "not {count} files");
    };
    dialog.raw(b"Subject: x\r\n\r\n").await;
    dialog.raw(&lines).await;
    kept(1).await;
    dialog.raw(&lines).await;
    dialog.raw(&lines).await;
    kept(0).await;
    dialog.expect(".", "552 5.3.4").await;
    dialog.hang_up().await;
}

#[tokio::test]
async fn recipients_transactions_and_errors_are_counted() {
    let mut bed = Bed::new();
    bed.config.limits.max_recipients = 2;
    bed.config.limits.max_transactions = 2;
    let mut dialog = bed.after(&TO_DATA[..2]).await;
    for reply in ["250", "250", "452 4.5.3", "452 4.5.3"] {
        dialog.expect("RCPT TO:<c@d>", reply).await;
    }
    dialog.expect("DATA", "354").await;
    dialog.expect(MESSAGE, "250 2.0.0").await;
    dialog.expect("MAIL FROM:<a@b>", "250").await;
    dialog.expect("RSET", "250").await;
    dialog.expect("MAIL FROM:<a@b>", "421 4.7.0").await;
    dialog.closed().await;

    let mut bed = Bed::new();
    bed.config.limits.max_errors = 3;
    let mut dialog = bed.after(&[]).await;
    for _ in 0..3 {
        dialog.expect("FOO", "500").await;
    }
    assert!(dialog.reply().await.starts_with("421 4.7.0"));
    dialog.closed().await;
}

#[tokio::test(start_paused = true)]
async fn a_silent_client_is_told_and_left() {
    let started = tokio::time::Instant::now();
    let mut dialog = Bed::new().after(&TO_DATA[..2]).await;
    assert!(dialog.reply().await.starts_with("421 4.4.2"));
    assert_eq!(started.elapsed().as_secs(), 300);
    dialog.closed().await;

    let started = tokio::time::Instant::now();
    let mut dialog = Bed::new().after(TO_DATA).await;
    dialog.send("half a message").await;
    assert!(dialog.reply().await.starts_with("421 4.4.2"));
    assert_eq!(started.elapsed().as_secs(), 180);
    dialog.closed().await;
}

#[tokio::test(start_paused = true)]
async fn a_client_has_to_greet_in_time_whatever_else_it_says() {
    for noop in [false, true] {
        let started = tokio::time::Instant::now();
        let mut dialog = Bed::new().after(&[]).await;
        while noop && started.elapsed().as_secs() < 290 {
            tokio::time::sleep(Duration::from_secs(10)).await;
            dialog.expect("NOOP", "250").await;
        }
        let reply = dialog.reply().await;
        assert!(reply.starts_with("421 4.4.2 You did not greet"), "{reply}");
        assert_eq!(started.elapsed().as_secs(), 300);
        dialog.closed().await;
    }
    // One that greeted has all the time it needs between commands.
    let mut bed = Bed::new();
    bed.config.limits.hello_timeout = Duration::from_secs(2);
    let mut dialog = bed.after(&TO_DATA[..1]).await;
    tokio::time::sleep(Duration::from_secs(200)).await;
    dialog.expect("NOOP", "250").await;
}

#[tokio::test(start_paused = true)]
async fn a_message_that_trickles_is_not_waited_for() {
    // Ten bytes a second are asked for.
    for (bytes, is_taken) in [(150, true), (50, false)] {
        let started = tokio::time::Instant::now();
        let mut bed = Bed::new();
        let mut dialog = bed.after(TO_DATA).await;
        while started.elapsed().as_secs() < 600 {
            tokio::time::sleep(Duration::from_secs(10)).await;
            let line = format!("{}\r\n", "x".repeat(bytes - 2));
            if dialog.stream.write_all(line.as_bytes()).await.is_err() {
                break;
            }
        }
        if is_taken {
            dialog.expect(".", "250 2.0.0").await;
        } else {
            assert_eq!(started.elapsed().as_secs(), 200);
            assert!(dialog.reply().await.starts_with("421 4.4.2 Your message"));
            dialog.closed().await;
        }
    }
}

#[tokio::test]
async fn commands_that_lead_nowhere_are_counted() {
    let mut bed = Bed::new();
    bed.config.limits.max_unknown_commands = 2;
    let mut dialog = bed.after(&[]).await;
    dialog.expect("FOO", "500").await;
    // Commands of RFCs are no guesses.
    dialog.expect("ETRN x", "502").await;
    dialog.expect("BAR", "500").await;
    assert!(
        dialog
            .reply()
            .await
            .starts_with("421 4.7.0 Too many unknown")
    );
    dialog.closed().await;

    let mut bed = Bed::new();
    bed.config.limits.max_idle_commands = 4;
    let mut dialog = bed.after(&TO_DATA[..2]).await;
    dialog.expect("NOOP", "250").await;
    dialog.expect("RCPT TO:<c@d>", "250").await;
    for idle in ["NOOP", "VRFY x", "RSET", "HELP"] {
        dialog.expect(idle, "2").await;
    }
    let reply = dialog.reply().await;
    assert!(reply.starts_with("421 4.7.0 Too many commands"), "{reply}");
    dialog.closed().await;
}

#[tokio::test]
async fn fields_of_a_header_are_counted() {
    let mut bed = Bed::new();
    bed.config.limits.max_header_fields = 3;
    let mut dialog = bed.after(&TO_DATA[..1]).await;
    for (message, reply) in [
        ("A: b\r\nC: d\r\n e\r\nF: g\r\n\r\nbody\r\n.", "250 2.0.0"),
        (
            "A: b\r\nC: d\r\nE: f\r\nG: h\r\n\r\nbody\r\n.",
            "552 5.3.4 Header",
        ),
        ("A: b\r\nC: d\r\nE: f\r\nG: h\r\n.", "552 5.3.4 Header"),
    ] {
        for command in &TO_DATA[1..] {
            dialog.ask(command).await;
        }
        dialog.expect(message, reply).await;
    }
    assert_eq!(bed.queued().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn no_session_lasts_for_ever() {
    for in_data in [false, true] {
        let started = tokio::time::Instant::now();
        let mut bed = Bed::new();
        bed.config.limits.min_data_rate = 0;
        let mut dialog = bed
            .after(if in_data { TO_DATA } else { &TO_DATA[..1] })
            .await;
        let end = loop {
            tokio::time::sleep(Duration::from_secs(100)).await;
            if in_data {
                dialog.send("drip").await;
            } else {
                dialog.send("NOOP").await;
            }
            if started.elapsed() >= Duration::from_secs(3600) {
                break dialog;
            }
            if !in_data {
                assert!(dialog.reply().await.starts_with("250"));
            }
        };
        let mut dialog = end;
        let mut reply = dialog.reply().await;
        // What was sent in the very last moment may still be answered.
        if reply.starts_with("250") {
            reply = dialog.reply().await;
        }
        assert!(reply.starts_with("421 4.4.2 The session"), "{reply}");
        dialog.closed().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_read_is_left() {
    let mut bed = Bed::new();
    bed.config.limits.max_idle_commands = u32::MAX;
    bed.config.limits.hello_timeout = Duration::from_secs(3600);
    let dialog = bed.after(&[]).await;
    let (mut stream, server) = (dialog.stream, dialog.server);
    let started = tokio::time::Instant::now();
    let flood = tokio::spawn(async move { while stream.write_all(b"HELP\r\n").await.is_ok() {} });
    tokio::time::timeout(Duration::from_secs(700), server)
        .await
        .unwrap()
        .unwrap();
    // To say why would only take longer.
    assert_eq!(started.elapsed().as_secs(), 300);
    flood.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_client_that_reads_late_sees_every_reply_once_and_the_last_one() {
    for stops in [false, true] {
        let mut bed = Bed::new();
        bed.config.limits.max_idle_commands = u32::MAX;
        bed.config.limits.session_timeout = Duration::from_secs(if stops { 60 } else { 10 });
        let mut dialog = bed.after(&[]).await;
        let help = dialog.ask("HELP").await;
        // More replies than the stream takes.
        dialog.raw(&b"HELP\r\n".repeat(1000)).await;
        tokio::time::sleep(Duration::from_secs(9)).await;
        if stops {
            bed.stop.now.cancel();
        }
        tokio::time::sleep(Duration::from_secs(2)).await;
        let mut read = String::new();
        dialog.stream.read_to_string(&mut read).await.unwrap();
        let (replies, last) = read.split_at(read.rfind("421 4.").unwrap());
        assert!(replies.len() > help.len() * 100);
        assert_eq!(replies, help.repeat(replies.len() / help.len()));
        let why = if stops { "421 4.3.2" } else { "421 4.4.2" };
        assert!(last.starts_with(why) && last.ends_with("\r\n"), "{last}");
    }
}

#[tokio::test(start_paused = true)]
async fn who_is_turned_away_in_the_midst_of_talking_can_read_why() {
    let mut dialog = Bed::new().after(&[]).await;
    dialog.raw(b"NOOP\nNOOP\r\n").await;
    assert!(dialog.reply().await.starts_with("500 5.5.2"));
    assert_eq!(dialog.reply().await, "");
    // A connection that is closed on what nobody reads is reset, and with it goes what the client did not read yet.
    dialog.raw(&[b'x'; 100_000]).await;
    dialog.closed().await;
}

#[tokio::test]
async fn when_we_stop_transactions_finish_first() {
    let mut bed = Bed::new();
    let mut idle = bed.after(&TO_DATA[..1]).await;
    bed.stop.soon.cancel();
    assert!(idle.reply().await.starts_with("421 4.3.2"));
    idle.closed().await;

    let mut bed = Bed::new();
    let mut busy = bed.after(&TO_DATA[..2]).await;
    bed.stop.soon.cancel();
    busy.expect("RCPT TO:<c@d>", "250").await;
    busy.expect("DATA", "354").await;
    busy.expect(MESSAGE, "250 2.0.0").await;
    assert!(busy.reply().await.starts_with("421 4.3.2"));
    busy.closed().await;
    assert_eq!(bed.queued().len(), 1);

    let mut bed = Bed::new();
    let mut slow = bed.after(TO_DATA).await;
    bed.stop.soon.cancel();
    slow.send("half a message").await;
    bed.stop.now.cancel();
    assert!(slow.reply().await.starts_with("421 4.3.2"));
    slow.closed().await;
    assert_eq!(bed.queued(), [""; 0]);
}
