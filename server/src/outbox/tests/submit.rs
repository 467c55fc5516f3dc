//! Mail of plugins' own.

use gatepost_protocol::services::ServiceErrorCode;
use gatepost_protocol::{Address, Bounce, Direction, EnhancedCode, Outcome, Submission};

use super::{Bed, to};
use crate::outbox::folder;

fn address(text: &str) -> Address {
    Address::parse_utf8(text).unwrap()
}

#[tokio::test]
async fn a_plugin_sends_a_message() {
    let bed = Bed::new();
    let running = bed.run(|_, _| Outcome::ok(""));
    let submission = Submission {
        sender: address("robot@example.org"),
        recipients: vec![address("bob@example.org"), address("j\u{f6}rg@example.org")],
        message: b"Subject: quota\nDate: today\n\nfull\n.\r\nend".to_vec(),
    };
    let id = running.outbox.submit(submission).await.unwrap();
    assert!(folder::is_id(&id), "{id}");
    let seen = running.emptied(&bed, 1).await;
    let (session, text) = (&seen[0].session, &seen[0].text);
    assert_eq!(&*session.id, id);
    assert_eq!(session.connection.direction, Direction::Local);
    assert_eq!(to(&seen[0]), ["bob@example.org", "j\u{f6}rg@example.org"]);
    assert_eq!(
        session.transaction.sender,
        Some(address("robot@example.org"))
    );
    assert!(session.transaction.is_smtputf8());
    assert!(
        text.starts_with("Subject: quota\r\nDate: today\r\nMessage-ID: <"),
        "{text}"
    );
    let rest = "@mx.example.org>\r\nAuto-Submitted: auto-generated\r\n\r\nfull\r\n.\r\nend\r\n";
    assert!(text.ends_with(rest), "{text}");
    assert_eq!(
        session.transaction.header_end + 2,
        session.transaction.body_start
    );
}

#[tokio::test]
async fn a_message_without_a_body_is_one() {
    let bed = Bed::new();
    let running = bed.run(|_, _| Outcome::ok(""));
    let submission = Submission {
        sender: Address::null(),
        recipients: vec![address("bob@example.org")],
        message: b"Subject: x".to_vec(),
    };
    running.outbox.submit(submission).await.unwrap();
    let seen = running.emptied(&bed, 1).await;
    assert!(seen[0].text.starts_with("Subject: x\r\nDate: "), "{seen:?}");
    assert!(seen[0].text.ends_with("auto-generated\r\n\r\n"), "{seen:?}");
}

#[tokio::test]
async fn what_is_no_message_is_refused() {
    let outbox = Bed::new().open();
    let long = vec![b'x'; 999];
    for (recipients, message) in [
        (vec![], &b"Subject: x\n\n"[..]),
        (vec![Address::null()], b"Subject: x\n\n"),
        (vec![address("a@b")], b"Subject: x\0\n\n"),
        (vec![address("a@b")], &long),
    ] {
        let error = outbox.submit(Submission {
            sender: Address::null(),
            recipients,
            message: message.to_vec(),
        });
        assert_eq!(error.await.unwrap_err().code, ServiceErrorCode::BadParams);
    }
}

#[tokio::test]
async fn a_plugin_sends_a_notification() {
    let bed = Bed::new();
    let running = bed.run(|_, _| Outcome::ok(""));
    let bounce = Bounce {
        sender: address("alice@client.example"),
        recipient: address("bob@example.org"),
        code: 551,
        enhanced: Some(EnhancedCode(5, 1, 6)),
        text: "he moved".to_owned(),
        message: b"Subject: x\nMessage-ID: <1@client.example>\n".to_vec(),
    };
    for wrong in [
        Bounce {
            code: 250,
            ..bounce.clone()
        },
        Bounce {
            code: 451,
            ..bounce.clone()
        },
    ] {
        let error = running.outbox.bounce_for(wrong).await.unwrap_err();
        assert_eq!(error.code, ServiceErrorCode::BadParams);
    }
    let silent = Bounce {
        sender: Address::null(),
        ..bounce.clone()
    };
    assert_eq!(running.outbox.bounce_for(silent).await, Ok(None));
    let id = running.outbox.bounce_for(bounce).await.unwrap();
    let seen = running.emptied(&bed, 1).await;
    assert_eq!(id.as_deref(), Some(&*seen[0].session.id));
    assert_eq!(seen[0].session.transaction.sender, Some(Address::null()));
    for part in [
        "In-Reply-To: <1@client.example>\r\n",
        "Final-Recipient: rfc822; bob@example.org\r\nAction: failed\r\nStatus: 5.1.6\r\nDiagnostic-Code: smtp; 551 5.1.6 he moved\r\n\r\n",
        "\r\n\r\nSubject: x\r\nMessage-ID: <1@client.example>\r\n\r\n\r\n--",
    ] {
        assert!(seen[0].text.contains(part), "{part} in {}", seen[0].text);
    }
}
