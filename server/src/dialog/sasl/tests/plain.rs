//! PLAIN and LOGIN.

use super::*;

/// RFC 4616 §4.
#[test]
fn plain_as_in_the_rfc() {
    let (_, exchange) = challenged(start(Mechanism::Plain, &context(), None));
    let (question, pending) = asked(exchange.step(b"\0tim\0tanstaaftanstaaf"));
    let Question::Password {
        identity: tim,
        password,
    } = question
    else {
        panic!("another question");
    };
    assert_eq!(tim, identity("tim", None));
    assert_eq!(password.reveal(), "tanstaaftanstaaf");
    assert_eq!(done(pending.answered(Reply::Accepted(None))), tim);

    let kurt = || asked(begin(Mechanism::Plain, "Ursel\0Kurt\0xipj3plmq")).1;
    assert_eq!(
        done(kurt().answered(Reply::Accepted(None))),
        identity("Kurt", Some("Ursel"))
    );
    assert_eq!(
        done(kurt().answered(Reply::Accepted(Some("Ursel".to_owned())))),
        identity("Ursel", None)
    );
    assert_eq!(
        failed(kurt().answered(Reply::Refused)),
        Failure::Credentials
    );
}

#[test]
fn plain_takes_three_fields_and_no_less() {
    for response in [
        "",
        "tim",
        "\0tim",
        "\0tim\0",
        "\0\0secret",
        "\0tim\0secret\0",
        "\0tim\0\u{7}",
        "\u{ad}\0tim\0secret",
    ] {
        let failure = failed(begin(Mechanism::Plain, response));
        assert!(
            matches!(failure, Failure::Malformed(_)),
            "{response:?}: {failure:?}"
        );
    }
    let latin1 = start(Mechanism::Plain, &context(), Some(b"\0tim\0\xe9"));
    assert_eq!(failed(latin1), Failure::Malformed("not UTF-8"));
}

#[test]
fn names_and_passwords_are_compared_prepared() {
    let (question, _) = asked(begin(Mechanism::Plain, "\0I\u{ad}X\0e\u{301}"));
    let Question::Password { identity, password } = question else {
        panic!("another question");
    };
    assert_eq!(
        (identity.user.as_str(), password.reveal()),
        ("IX", "\u{e9}")
    );
}

#[test]
fn login_asks_for_name_and_password() {
    let (_, exchange) = challenged(start(Mechanism::Login, &context(), None));
    let (prompt, exchange) = challenged(exchange.step(b"tim"));
    assert_eq!(prompt, "Password:");
    let (question, pending) = asked(exchange.step(b"secret"));
    assert!(
        matches!(&question, Question::Password { identity: tim, password } if tim.user == "tim" && password.reveal() == "secret")
    );
    assert_eq!(
        done(pending.answered(Reply::Accepted(None))),
        identity("tim", None)
    );
    let (prompt, _) = challenged(begin(Mechanism::Login, "tim"));
    assert_eq!(prompt, "Password:");
}
