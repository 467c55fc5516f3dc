//! Whole exchanges: those of the RFCs, those that must fail, and whatever a client may send.

mod oauth;
mod plain;
mod scram;

use proptest::prelude::*;

use super::scram::derive;
use super::*;

/// What a client and we see of a connection.
const CHANNEL: &[u8] = b"thirty-two bytes of tls-exporter";

fn context() -> Context<'static> {
    Context {
        hostname: "mx.example.org",
        channel_binding: Some(CHANNEL),
        plus_offered: true,
    }
}

fn begin(mechanism: Mechanism, initial: &str) -> Step {
    start(mechanism, &context(), Some(initial.as_bytes()))
}

fn challenged(step: Step) -> (String, Exchange) {
    match step {
        Step::Challenge(text, exchange) => (String::from_utf8(text).unwrap(), exchange),
        other => panic!("no challenge: {other:?}"),
    }
}

fn asked(step: Step) -> (Question, Pending) {
    match step {
        Step::Ask(question, pending) => (question, pending),
        other => panic!("no question: {other:?}"),
    }
}

fn failed(step: Step) -> Failure {
    match step {
        Step::Failed(failure) => failure,
        other => panic!("no failure: {other:?}"),
    }
}

fn done(step: Step) -> Identity {
    match step {
        Step::Done(identity) => identity,
        other => panic!("not done: {other:?}"),
    }
}

fn identity(user: &str, authzid: Option<&str>) -> Identity {
    Identity {
        user: user.to_owned(),
        authzid: authzid.map(str::to_owned),
    }
}

fn password(text: &str) -> Reply {
    Reply::Password(Secret::new(text))
}

#[test]
fn a_mechanism_goes_by_its_name_in_any_case() {
    for mechanism in Mechanism::ALL {
        let name = mechanism.name().to_ascii_lowercase();
        assert_eq!(Mechanism::from_name(&name), Some(mechanism));
    }
    assert_eq!(Mechanism::from_name("SCRAM-SHA-1"), None);
}

/// RFC 4422 §5.1: where the client begins and has not, it is asked to with nothing. CRAM-MD5's challenge has tests of its own.
#[test]
fn who_begins() {
    for mechanism in Mechanism::ALL {
        let (text, _) = challenged(start(mechanism, &context(), None));
        let expected = match mechanism {
            Mechanism::CramMd5 => continue,
            Mechanism::Login => "Username:",
            _ => "",
        };
        assert_eq!(text, expected, "{}", mechanism.name());
    }
    assert_eq!(
        failed(begin(Mechanism::CramMd5, "")),
        Failure::InitialResponse
    );
}

#[test]
fn an_answer_to_another_question_is_no_use() {
    let cram = |reply| {
        let (_, exchange) = challenged(start(Mechanism::CramMd5, &context(), None));
        let step = exchange.step(b"tim b913a602c7eda7a495b4e6e7334d3890");
        asked(step).1.answered(reply)
    };
    let scram = |reply| {
        let step = begin(Mechanism::ScramSha256, "n,,n=user,r=x");
        asked(step).1.answered(reply)
    };
    let plain = |reply| asked(begin(Mechanism::Plain, "\0tim\0x")).1.answered(reply);
    let bearer = |reply| {
        asked(begin(Mechanism::Oauthbearer, oauth::MESSAGE))
            .1
            .answered(reply)
    };
    for step in [
        cram(Reply::Accepted(Some("tom".to_owned()))),
        cram(Reply::ScramKeys(derive(b"x", vec![0; 16]))),
        cram(Reply::Unavailable),
        scram(Reply::Accepted(None)),
        scram(Reply::Unavailable),
        plain(password("x")),
        plain(Reply::Unavailable),
        bearer(password("x")),
        bearer(Reply::Unavailable),
    ] {
        assert!(matches!(failed(step), Failure::Unavailable(_)));
    }
    assert_eq!(failed(cram(Reply::Refused)), Failure::Credentials);
}

#[test]
fn limits_hold() {
    let name = "x".repeat(MAX_NAME);
    asked(begin(Mechanism::Plain, &format!("\0{name}\0y")));
    let failure = failed(begin(Mechanism::Plain, &format!("\0{name}x\0y")));
    assert!(matches!(failure, Failure::Malformed(_)));

    let longest = format!("\0x\0{}", "y".repeat(MAX_RESPONSE - 3));
    asked(begin(Mechanism::Plain, &longest));
    assert_eq!(
        failed(begin(Mechanism::Plain, &format!("{longest}y"))),
        Failure::TooLong
    );
}

#[test]
fn no_secret_is_printed() {
    let plain = begin(Mechanism::Plain, "\0tim\0hunter2");
    let token = begin(
        Mechanism::Oauthbearer,
        "n,a=tim,\x01auth=Bearer hunter2\x01\x01",
    );
    let salted = asked(begin(Mechanism::ScramSha256, "n,,n=tim,r=x"))
        .1
        .answered(password("hunter2"));
    let keys = Reply::ScramKeys(ScramKeys {
        salt: vec![42],
        iterations: 4096,
        stored_key: [42; 32],
        server_key: [42; 32],
    });
    let (_, exchange) = challenged(salted);
    let printed = format!(
        "{plain:?} {token:?} {exchange:?} {:?} {keys:?}",
        password("hunter2")
    );
    assert!(printed.contains("tim"), "{printed}");
    assert!(
        !printed.contains("hunter2") && !printed.contains("42"),
        "{printed}"
    );
}

/// Plays an exchange to its end: responses to what is sent, replies to what is asked.
fn play(mut step: Step, responses: &[Vec<u8>], reply: &Reply) -> Step {
    let mut responses = responses.iter();
    loop {
        step = match step {
            Step::Challenge(text, exchange) => match responses.next() {
                Some(response) => exchange.step(response),
                None => return Step::Challenge(text, exchange),
            },
            Step::Ask(_, pending) => pending.answered(reply.clone()),
            end => return end,
        };
    }
}

fn mechanism() -> impl Strategy<Value = Mechanism> {
    proptest::sample::select(&Mechanism::ALL[..])
}

fn keys() -> Reply {
    Reply::ScramKeys(ScramKeys {
        salt: vec![7; 16],
        iterations: 4096,
        stored_key: [7; 32],
        server_key: [7; 32],
    })
}

fn reply() -> impl Strategy<Value = Reply> {
    prop_oneof![
        Just(Reply::Accepted(None)),
        Just(Reply::Accepted(Some("owner".to_owned()))),
        Just(Reply::Unavailable),
        Just(password("secret")),
        Just(keys()),
    ]
}

/// Anything, and what comes near to a message.
fn response() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..60),
        "[nyp,=acmr\x01 \\x00AB\u{e9}]{0,40}".prop_map(String::into_bytes),
        "n,,n=[a-z=]{1,3},r=[!-~]{0,5}".prop_map(String::into_bytes),
        "(n,(a=[a-z])?,)?\x01?(user=[a-z]\x01)?auth=Bearer [a-z]{0,2}\x01\x01"
            .prop_map(String::into_bytes),
        "c=biws,r=[a-z]{0,5},p=[A-Z]{43}=".prop_map(String::into_bytes),
    ]
}

proptest! {
    #[test]
    fn nothing_a_client_sends_stops_a_mechanism(
        mechanism in mechanism(), begins in any::<bool>(),
        responses in proptest::collection::vec(response(), 1..5), reply in reply()
    ) {
        let (initial, rest) = if begins { (Some(&responses[0][..]), &responses[1..]) } else { (None, &responses[..]) };
        let end = play(start(mechanism, &context(), initial), rest, &reply);
        if let Step::Done(identity) = end {
            prop_assert!(matches!(reply, Reply::Accepted(_)), "{identity:?} by {}", mechanism.name());
            prop_assert!(!identity.user.is_empty());
        }
    }
}
