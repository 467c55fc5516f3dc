//! OAUTHBEARER and XOAUTH2.

use super::*;

/// RFC 7628 §4.1.
pub const MESSAGE: &str = "n,a=user@example.com,\x01host=server.example.com\x01port=143\x01\
    auth=Bearer vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg==\x01\x01";

#[test]
fn a_token_as_in_the_rfc() {
    let (question, pending) = asked(begin(Mechanism::Oauthbearer, MESSAGE));
    let Question::Token { user, token } = question else {
        panic!("another question");
    };
    assert_eq!(user.as_deref(), Some("user@example.com"));
    assert_eq!(token.reveal(), "vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg==");
    assert_eq!(
        done(pending.answered(Reply::Accepted(None))),
        identity("user@example.com", None)
    );
    let (_, pending) = asked(begin(Mechanism::Oauthbearer, MESSAGE));
    assert_eq!(
        done(pending.answered(Reply::Accepted(Some("alice".to_owned())))),
        identity("alice", Some("user@example.com"))
    );
}

/// RFC 7628 §3.2.3 and §4.3: the client hears why, answers with ^A (XOAUTH2: nothing), and only then is it over.
#[test]
fn a_refused_token_is_told_why_first() {
    let google = "user=user@example.com\x01auth=Bearer ya29.vF9dft4qmTc2Nvb3R\x01\x01";
    let oauthbearer = r#"{"status":"invalid_token"}"#;
    let xoauth2 = r#"{"status":"401","schemes":"bearer"}"#;
    for (mechanism, message, expected) in [
        (Mechanism::Oauthbearer, MESSAGE, oauthbearer),
        (Mechanism::Xoauth2, google, xoauth2),
    ] {
        let (_, pending) = asked(begin(mechanism, message));
        let (error, exchange) = challenged(pending.answered(Reply::Refused));
        assert_eq!(error, expected);
        assert_eq!(failed(exchange.step(b"\x01")), Failure::Credentials);
    }
    for (mechanism, message, expected) in [
        (Mechanism::Oauthbearer, "n,,\x01auth=\x01\x01", oauthbearer),
        (Mechanism::Oauthbearer, "n,,\x01\x01", oauthbearer),
        (
            Mechanism::Xoauth2,
            "user=tim\x01auth=Bearer \x01\x01",
            xoauth2,
        ),
    ] {
        let (error, exchange) = challenged(begin(mechanism, message));
        assert_eq!(error, expected);
        assert_eq!(failed(exchange.step(b"")), Failure::Credentials);
    }
}

#[test]
fn a_token_may_tell_whose_it_is() {
    let nameless = || {
        asked(begin(
            Mechanism::Oauthbearer,
            "n,,\x01auth=bearer x.y\x01\x01",
        ))
    };
    let (question, pending) = nameless();
    assert!(matches!(question, Question::Token { user: None, .. }));
    let alice = Reply::Accepted(Some("alice".to_owned()));
    assert_eq!(done(pending.answered(alice)), identity("alice", None));
    assert!(matches!(
        failed(nameless().1.answered(Reply::Accepted(None))),
        Failure::Unavailable(_)
    ));
}

#[test]
fn what_is_no_token_is_malformed() {
    for (mechanism, message) in [
        (Mechanism::Oauthbearer, ""),
        (Mechanism::Oauthbearer, "n,,auth=Bearer x\x01\x01"),
        (Mechanism::Oauthbearer, "n,,\x01auth=Bearer x\x01"),
        (Mechanism::Oauthbearer, "n,,\x01auth=Bearer x\x01\x01\x01"),
        (Mechanism::Oauthbearer, "n,,\x01auth=Basic x\x01\x01"),
        (Mechanism::Oauthbearer, "n,,\x01auth=Bearer x y\x01\x01"),
        (
            Mechanism::Oauthbearer,
            "n,,\x01auth=Bearer x\x01auth=Bearer y\x01\x01",
        ),
        (Mechanism::Xoauth2, "auth=Bearer x\x01\x01"),
        (Mechanism::Xoauth2, "user=\x01auth=Bearer x\x01\x01"),
        (Mechanism::Xoauth2, "user=tim\x01Bearer x\x01\x01"),
    ] {
        let failure = failed(begin(mechanism, message));
        assert!(
            matches!(failure, Failure::Malformed(_)),
            "{message:?}: {failure:?}"
        );
    }
    let bound = begin(
        Mechanism::Oauthbearer,
        "p=tls-exporter,,\x01auth=Bearer x\x01\x01",
    );
    assert!(matches!(failed(bound), Failure::ChannelBinding(_)));
}
