//! Clients that plugins let wait.

use tokio::time::Instant;

use super::*;

const DELAY: Duration = Duration::from_secs(10);

/// A plugin that lets the client wait at these hooks, and has nothing to say.
fn slow(bed: Bed, hooks: &[Hook]) -> Bed {
    bed.plugin(hooks, |_| Outcome::declined().delayed(DELAY).into())
}

/// How long a reply takes that begins like this.
async fn took(dialog: &mut Dialog, line: &str, start: &str) -> Duration {
    let asked = Instant::now();
    dialog.expect(line, start).await;
    asked.elapsed()
}

#[tokio::test(start_paused = true)]
async fn a_client_waits_at_each_command() {
    let hooks = Hook::ALL.map(|hook| (hook, hook.has_reply()));
    let hooks: Vec<Hook> = hooks
        .into_iter()
        .filter_map(|(hook, has_reply)| has_reply.then_some(hook))
        .collect();
    let mut bed = slow(Bed::bare(), &hooks).accepting().keeping();
    let began = Instant::now();
    let mut dialog = bed.connect();
    assert!(dialog.reply().await.starts_with("220"));
    // For whether it may come, and for the greeting.
    assert_eq!(began.elapsed(), DELAY * 2);
    for (line, start, delays) in [
        // Before it is read, at the command, and for its list.
        ("EHLO client.example", "250", 3),
        ("NOOP", "250", 1),
        ("VRFY bob", "252", 1),
        ("HELP", "214", 1),
        ("XYZZY", "500", 1),
        ("MAIL FROM:<a@b>", "250", 3),
        ("RCPT TO:<c@d>", "250", 3),
        ("DATA", "354", 1),
        // While it comes, twice; before it is kept, three times; and not behind that.
        (MESSAGE, "250", 5),
        ("RSET", "250", 1),
        ("QUIT", "221", 1),
    ] {
        assert_eq!(
            took(&mut dialog, line, start).await,
            DELAY * delays,
            "{line}"
        );
    }
    dialog.closed().await;
    assert_eq!(bed.queued().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn earlier_replies_do_not_wait() {
    let mut bed = slow(Bed::bare(), &[Hook::Help]).accepting().keeping();
    let mut dialog = bed.after(&[]).await;
    let began = Instant::now();
    dialog.raw(b"NOOP\r\nHELP\r\nNOOP\r\n").await;
    assert!(dialog.reply().await.starts_with("250"));
    assert_eq!(began.elapsed(), Duration::ZERO);
    for start in ["214", "250"] {
        assert!(dialog.reply().await.starts_with(start));
        assert_eq!(began.elapsed(), DELAY);
    }
    dialog.hang_up().await;
}

#[tokio::test(start_paused = true)]
async fn the_wait_counts_for_no_limit_on_the_client() {
    let mut bed = slow(Bed::bare(), &[Hook::Noop, Hook::Connect]).accepting();
    let limits = &mut bed.config.limits;
    (limits.command_timeout, limits.hello_timeout) = (DELAY / 2, DELAY / 2);
    let mut dialog = bed.connect();
    assert!(dialog.reply().await.starts_with("220"));
    for _ in 0..3 {
        dialog.expect("NOOP", "250").await;
    }
    tokio::time::sleep(DELAY / 4).await;
    dialog.expect("EHLO client.example", "250").await;
    dialog.hang_up().await;
}

#[tokio::test(start_paused = true)]
async fn who_hangs_up_while_waiting_is_gone_at_once_and_has_no_message_kept() {
    let mut bed = slow(Bed::bare(), &[Hook::DataPost]).accepting().keeping();
    let mut dialog = bed.after(TO_DATA).await;
    dialog.send(MESSAGE).await;
    // The session waits by now: nothing else is left to do.
    tokio::time::sleep(DELAY / 2).await;
    let began = Instant::now();
    dialog.hang_up().await;
    assert_eq!(began.elapsed(), Duration::ZERO);
    assert_eq!(bed.queued(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_stop_waits_for_nobody_who_waits() {
    let mut bed = slow(Bed::bare(), &[Hook::Rcpt]).accepting().keeping();
    let mut dialog = bed.after(&TO_DATA[..2]).await;
    dialog.send(TO_DATA[2]).await;
    tokio::time::sleep(DELAY / 2).await;
    let began = Instant::now();
    bed.stop.soon.cancel();
    assert!(dialog.reply().await.starts_with("250"));
    assert_eq!(began.elapsed(), Duration::ZERO);
    // In the middle of a transaction, it may go on.
    dialog.expect("DATA", "354").await;
    dialog.expect(MESSAGE, "250").await;
    assert!(dialog.reply().await.starts_with("421"));
    dialog.closed().await;
}

#[tokio::test(start_paused = true)]
async fn a_session_waits_no_longer_than_it_may_take() {
    let mut bed = slow(Bed::bare(), &[Hook::Noop]);
    bed.config.limits.session_timeout = DELAY / 2;
    let mut dialog = bed.after(&[]).await;
    assert_eq!(took(&mut dialog, "NOOP", "250").await, DELAY / 2);
    assert!(dialog.reply().await.starts_with("421"));
    dialog.closed().await;
}
