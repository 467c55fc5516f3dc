//! A client that hangs up before its message is handed over.

use gatepost_protocol::{BoxFuture, Message};

use super::*;
use crate::plugins::testing::queue;

/// A message whose client hangs up when it is read, which is behind DATA.
struct Leaving<'a>(TestMessage, &'a Departure);

impl Message for Leaving<'_> {
    fn size(&self) -> u64 {
        self.0.size()
    }

    fn read(&self, offset: u64, length: usize) -> BoxFuture<'_, std::io::Result<bytes::Bytes>> {
        self.1.announce();
        self.0.read(offset, length)
    }
}

#[tokio::test]
async fn a_message_whose_client_is_gone_is_not_ended() {
    const CHUNKS: Script = &[
        ("", "220 hello"),
        ("EHLO", "250-hello\r\n250-CHUNKING\r\n250 BINARYMIME"),
        ("MAIL", "250 ok"),
        ("RCPT", "250 ok"),
        ("BDAT", "354 go on, for the script's sake"),
    ];
    for (script, body) in [(FULL, "7BIT"), (CHUNKS, "BINARYMIME")] {
        let (port, told) = serve(script).await;
        let (mut session, message) = mail(&["b@example.org"], b"Subject: x\r\n\r\nbody\r\n");
        session
            .transaction
            .sender_parameters
            .insert("BODY".to_owned(), Some(body.to_owned()));
        let departure = Departure::new();
        let leaving = Leaving(message, &departure);
        let settings = [
            ("server", "127.0.0.1".into()),
            ("port", i64::from(port).into()),
        ];
        let forward = plugin(&DEFINITION, &FakeServices::new(), settings);
        let outcome = queue(&forward, &session, &leaving, &departure).await;
        assert_eq!(
            line(&outcome),
            "skip, given up: the client is gone, and will send the message again"
        );
        assert_eq!(outcome.verdict, Some(Verdict::DenySoft));
        // Neither the dot, nor the last of the octets, nor anything behind the message.
        let (commands, data) = told.await.unwrap();
        let last = commands.last().unwrap();
        assert!(last == "DATA" || last.starts_with("BDAT"), "{commands:?}");
        let left_out = if body == "7BIT" { ".\r\n" } else { "body\r\n" };
        assert!(!data.ends_with(left_out), "{data:?}");
    }
}
