//! What senders are told besides failures: that a message is late, and that it arrived.

use super::*;

#[tokio::test]
async fn its_sender_is_told_once_that_it_is_late() {
    // Who may relay need not have asked.
    for (may_relay, told) in [(true, 1), (false, 0)] {
        let mut bed = Bed::new();
        bed.config.outbox.notify_delay = Duration::ZERO;
        let attempts = Mutex::new(0);
        let running = bed.run(move |transaction, _| {
            let mut attempts = attempts.lock().unwrap();
            if transaction.sender == Some(Address::null()) || *attempts == 2 {
                return Outcome::ok("");
            }
            *attempts += 1;
            soft()
        });
        let (mut session, message) = incoming("hello\r\n", &["bob@example.org"]);
        session.connection.relay_client = may_relay;
        running.outbox.keep(&session, &message, "").await.unwrap();
        let seen = running.emptied(&bed, 3 + told).await;
        let mut notifications = seen
            .iter()
            .filter(|seen| to(seen) == ["alice@client.example"]);
        if let Some(notification) = notifications.next() {
            let text = &notification.text;
            for part in [
                "Subject: Delayed mail\r\n",
                "Action: delayed\r\nStatus: 4.2.1\r\nDiagnostic-Code: smtp; 450 4.2.1 come again\r\n",
                "\r\nWill-Retry-Until: ",
                "text/rfc822-headers",
            ] {
                assert!(text.contains(part), "{part} in {text}");
            }
        }
    }
}

#[tokio::test]
async fn what_is_late_is_tried_when_its_sender_is_to_be_told() {
    let mut bed = Bed::new();
    bed.config.outbox.retry = Duration::from_secs(3600);
    let outbox = bed.open();
    let (session, message) = incoming("hello\r\n", &["bob@example.org"]);
    outbox.keep(&session, &message, "").await.unwrap();
    let envelope = outbox.folder.list().unwrap().remove(0).envelope.unwrap();
    let wait = envelope.due - envelope.arrived;
    assert!(wait >= 2_880_000, "{wait} ms");
    bed.config.outbox.notify_delay = Duration::from_secs(60);
    let outbox = bed.open();
    outbox.keep(&session, &message, "").await.unwrap();
    let envelopes = outbox.folder.list().unwrap();
    let waits = envelopes.into_iter().map(|found| {
        let envelope = found.envelope.unwrap();
        envelope.due - envelope.arrived
    });
    assert_eq!(waits.min(), Some(60_000));
}

#[tokio::test]
async fn who_asked_is_told_of_success() {
    for (success, action, times) in [
        (Some(Success::Delivered), "Action: delivered\r\n", 2),
        (Some(Success::Relayed), "Action: relayed\r\n", 2),
        (None, "Action: relayed\r\n", 2),
        (Some(Success::None), "", 1),
    ] {
        let bed = Bed::new();
        let running = bed.run(move |_, _| match success {
            Some(success) => Outcome::ok("").with_success(success),
            None => Outcome::ok(""),
        });
        let (mut session, message) = incoming("hello\r\n", &["bob@example.org", "eve@example.org"]);
        let asks = Parameters::from([("NOTIFY".to_owned(), Some("SUCCESS".to_owned()))]);
        session.transaction.recipient_parameters = vec![asks, Parameters::new()];
        running.outbox.keep(&session, &message, "").await.unwrap();
        let seen = running.emptied(&bed, times).await;
        if let Some(notification) = seen.get(1) {
            let text = &notification.text;
            for part in [
                "Final-Recipient: rfc822; bob@example.org\r\n",
                action,
                "Status: 2.0.0\r\n",
            ] {
                assert!(text.contains(part), "{part} in {text}");
            }
            assert!(!text.contains("Diagnostic-Code"), "{text}");
        }
    }
}
