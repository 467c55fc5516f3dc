//! Order, syntax, and what each command does.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

#[tokio::test]
async fn a_session_from_greeting_to_quit() {
    let mut bed = Bed::new();
    let mut dialog = bed.connect();
    assert_eq!(
        dialog.reply().await,
        "220 mx.example.org ESMTP Gatepost\r\n"
    );
    assert_eq!(
        dialog.ask("ehlo client.example").await,
        "250-mx.example.org greets client.example\r\n250-PIPELINING\r\n250-SIZE 10485760\r\n250-8BITMIME\r\n250-ENHANCEDSTATUSCODES\r\n250-SMTPUTF8\r\n250-DSN\r\n250-CHUNKING\r\n250-BINARYMIME\r\n250-PRDR\r\n250-LIMITS MAILMAX=100 RCPTMAX=100\r\n250 HELP\r\n"
    );
    for (line, reply) in [
        ("mail from:<a@b> size=100 BODY=8BITMIME", "250 2.1.0"),
        ("Rcpt To: <postmaster>", "250 2.1.5"),
        ("DATA", "354 "),
        (MESSAGE, "250 2.0.0 Queued as 3f9a1c.1"),
        ("MAIL FROM:<>", "250 2.1.0"),
        ("RCPT TO:<@relay.example:c@d>", "250 2.1.5"),
        ("DATA", "354 "),
        // An empty message ends at once.
        (".", "250 2.0.0 Queued as 3f9a1c.2"),
        ("NOOP again and again", "250 2.0.0"),
        ("QUIT", "221 2.0.0"),
    ] {
        dialog.expect(line, reply).await;
    }
    dialog.closed().await;
    assert_eq!(bed.queued().len(), 2);
}

#[tokio::test]
async fn order_and_syntax() {
    for script in [
        &[
            ("MAIL FROM:<a@b>", "503 5.5.1"),
            ("RCPT TO:<a@b>", "503 5.5.1"),
            ("DATA", "503 5.5.1"),
            ("RSET", "250"),
            ("NOOP", "250"),
        ][..],
        &[
            ("EHLO", "501 5.5.4"),
            ("EHLO a b", "501 5.5.4"),
            ("HELO -", "501 5.5.4"),
            ("HELO [192.0.2.1]", "250 "),
        ],
        &[
            ("HELO a", "250"),
            ("MAIL FROM:<a@b>", "250"),
            ("MAIL FROM:<a@b>", "503 5.5.1"),
            ("DATA", "554 5.5.1"),
            ("RCPT TO:<c@d>", "250"),
        ],
        // A new greeting is a RSET.
        &[
            ("EHLO a", "250"),
            ("MAIL FROM:<a@b>", "250"),
            ("EHLO b", "250"),
            ("RCPT TO:<a@b>", "503 5.5.1"),
            ("MAIL FROM:<a@b>", "250"),
        ],
        &[
            ("EHLO a", "250"),
            ("MAIL FROM:<a@b>", "250"),
            ("RSET", "250"),
            ("RCPT TO:<a@b>", "503 5.5.1"),
        ],
        &[
            ("EHLO a", "250"),
            ("MAIL a@b", "501 5.5.4"),
            ("MAIL FROM:<a b@c>", "501 5.1.7"),
            ("MAIL FROM:<a@b> X=1", "555 5.5.4"),
        ],
        &[
            ("EHLO a", "250"),
            ("MAIL FROM:<a@b> SIZE=10485761", "552 5.3.4"),
            ("MAIL FROM:<a@b> SIZE=10485760", "250"),
        ],
        &[
            ("EHLO a", "250"),
            ("MAIL FROM:<a@b>", "250"),
            ("RCPT TO:<>", "501 5.1.3"),
            ("RCPT TO:<a@b> SIZE=1", "555 5.5.4"),
        ],
        &[
            ("EHLO a", "250"),
            ("MAIL FROM:<a@b>", "250"),
            ("RCPT TO:<c@d>", "250"),
            ("DATA now", "501 5.5.4"),
            ("DATA", "354"),
        ],
        &[
            ("FOO", "500 5.5.1"),
            ("", "500 5.5.1"),
            ("STARTTLS", "502 5.5.1"),
            ("EXPN x", "502 5.5.1"),
            ("VRFY", "501 5.5.4"),
            ("GET / HTTP/1.1", "500 5.5.1"),
        ],
    ] {
        let mut dialog = Bed::new().after(&[]).await;
        for (line, reply) in script {
            dialog.expect(line, reply).await;
        }
        dialog.hang_up().await;
    }
}

#[tokio::test]
async fn a_browser_is_sent_away() {
    let mut dialog = Bed::new().after(&[]).await;
    dialog
        .send("POST / HTTP/1.1\r\nHost: x\r\n\r\nMAIL FROM:<a@b>")
        .await;
    assert!(dialog.reply().await.starts_with("502 5.5.1"));
    dialog.closed().await;
}

#[tokio::test]
async fn plugins_see_commands_we_do_not_know() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&seen);
    let mut bed = Bed::new().plugin(&[Hook::UnrecognizedCommand, Hook::Vrfy], move |call| {
        log.lock().unwrap().push(format!("{:?}", call.args));
        Outcome::declined().into()
    });
    let mut dialog = bed.after(&["foo a\tb ", "VRFY x\u{1}y"]).await;
    dialog.ask("QUIT").await;
    assert_eq!(
        *seen.lock().unwrap(),
        [
            r#"Command { command: "FOO", argument: "a?b" }"#,
            r#"Argument("x?y")"#
        ]
    );
}

#[tokio::test]
async fn events_are_told_in_order() {
    let told = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&told);
    let mut bed = Bed::new().plugin(&Hook::ALL, move |call| {
        if !matches!(call.hook, Hook::Ok | Hook::Deny) {
            let transaction = &call.session.transaction;
            log.lock()
                .unwrap()
                .push(format!("{} {}", call.hook, transaction.number));
        }
        let verdict = (call.hook == Hook::Rcpt).then_some(Verdict::Ok);
        Outcome {
            verdict,
            ..Outcome::default()
        }
        .into()
    });
    // The recorder is to be the first in the chain.
    bed.plugins.reverse();
    let mut dialog = bed.after(TO_DATA).await;
    dialog.expect(MESSAGE, "250").await;
    dialog.expect("MAIL FROM:<a@b>", "250").await;
    dialog.expect("QUIT", "221").await;
    dialog.closed().await;
    let expected = [
        "pre_connection 0",
        "connect 0",
        "ehlo_parse 0",
        "ehlo 0",
        "capabilities 0",
        "mail_parse 0",
        "mail_pre 0",
        "mail 1",
        "rcpt_parse 1",
        "rcpt_pre 1",
        "rcpt 1",
        "data 1",
        "data_headers_end 1",
        "data_lines 1",
        "data_post_headers 1",
        "received_line 1",
        "data_post 1",
        "queue_pre 1",
        "queue 1",
        "queue_post 1",
        "reset_transaction 1",
        "mail_parse 0",
        "mail_pre 0",
        "mail 2",
        "quit 2",
        "reset_transaction 2",
        "disconnect 0",
    ];
    assert_eq!(*told.lock().unwrap(), expected);
}

/// Counts the writes to a stream.
struct Counting(DuplexStream, Arc<AtomicUsize>);

impl Stream for Counting {}

impl tokio::io::AsyncRead for Counting {
    fn poll_read(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        buffer: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::pin::Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl tokio::io::AsyncWrite for Counting {
    fn poll_write(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        bytes: &[u8],
    ) -> std::task::Poll<std::io::Result<usize>> {
        self.1.fetch_add(1, Ordering::Relaxed);
        std::pin::Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::pin::Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::pin::Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

#[tokio::test]
async fn pipelined_commands_get_their_replies_in_one_write() {
    let mut bed = Bed::new();
    let writes = Arc::new(AtomicUsize::new(0));
    let mut dialog = bed.connect_through(|stream| Counting(stream, Arc::clone(&writes)));
    dialog.reply().await;
    let all = format!(
        "EHLO a\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nRCPT TO:<e@f>\r\nDATA\r\n{MESSAGE}\r\nMAIL FROM:<a@b>\r\nQUIT\r\n"
    );
    dialog.raw(all.as_bytes()).await;
    for code in [
        "250-",
        "250 2.1.0",
        "250 2.1.5",
        "250 2.1.5",
        "354 ",
        "250 2.0.0",
        "250 2.1.0",
        "221 ",
    ] {
        let reply = dialog.reply().await;
        assert!(reply.starts_with(code), "{code}: {reply}");
    }
    dialog.closed().await;
    assert_eq!(bed.queued().len(), 1);
    assert_eq!(
        writes.load(Ordering::Relaxed),
        2,
        "the greeting, and all the rest"
    );
}

/// Keeps what is written until it is flushed, as TLS may.
type Keeping = tokio::io::BufStream<DuplexStream>;

impl Stream for Keeping {
    fn is_secure(&self) -> bool {
        true
    }
}

#[tokio::test(start_paused = true)]
async fn no_reply_stays_in_what_encrypts() {
    let mut dialog = Bed::new().connect_through(Keeping::new);
    assert!(dialog.reply().await.starts_with("220 "));
    dialog.expect("EHLO client.example", "250").await;
    dialog.expect("QUIT", "221").await;
    dialog.closed().await;
}
