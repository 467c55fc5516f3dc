use super::*;
use gatepost_protocol::{Address, Direction};
use proptest::prelude::*;

fn session() -> Session {
    let mut session = Session::default();
    session.connection.remote = Some("[::ffff:192.0.2.7]:4711".parse().unwrap());
    session.connection.direction = Direction::Submission;
    session.connection.hello = Some("EHLO".into());
    session.connection.hello_host = Some("Client.Example".to_owned());
    session.connection.karma = -2;
    session.connection.scores.add("p", 6500, "");
    session.connection.relay_client = true;
    session.connection.tls = Some(Box::default());
    session.transaction.sender = Some(Address::null());
    session.transaction.whitelisted = Some("a good sender".to_owned());
    session.transaction.recipients = vec![Address::parse("a@b.example").unwrap()];
    session
}

#[test]
fn conditions_hold_as_they_read() {
    for (text, holds) in [
        ("direction == \"submission\"", true),
        ("direction == 'inbound' && !authenticated", false),
        ("direction != 'inbound' && !authenticated", true),
        ("relay_client", true),
        ("!relay_client || immune", false),
        ("tls && relay_client", true),
        ("whitelisted == 'a good sender' && !immune", true),
        ("!tls", false),
        ("naughty || karma < 0", true),
        ("karma <= -2 && karma >= -2 && karma == -2", true),
        ("karma != -2 || karma > -2", false),
        ("karma", true),
        ("score >= 6.5 && score < 6.501 && score > -1", true),
        ("score == 6", false),
        ("recipient_count > 1", false),
        ("recipient_count == 1", true),
        ("remote_ip == \"192.0.2.7\"", true),
        ("remote_ip == \"::ffff:192.0.2.7\"", true),
        ("remote_ip != \"192.0.2.7\"", false),
        ("remote_ip in \"192.0.2.0/24\"", true),
        ("remote_ip in \"2001:db8::/32\"", false),
        ("remote_ip in \"192.0.2.7\"", true),
        ("hello_host == \"client.example\"", true),
        ("hello == \"HELO\"", false),
        ("sender", true),
        ("sender == \"\"", true),
        ("remote_host", false),
        ("remote_host != \"x.example\"", true),
        ("!!quarantine", false),
        // `&&` binds closer than `||`.
        ("relay_client || relay_client && immune", true),
        ("(relay_client || relay_client) && immune", false),
    ] {
        let when = When::parse(text).unwrap();
        assert_eq!(when.holds(&session()), holds, "{text}");
    }
}

#[test]
fn mistakes_point_at_their_place() {
    for (text, offset, message) in [
        ("", 0, "a name is missing here, such as `direction`"),
        (
            "relay_client &&",
            15,
            "a name is missing here, such as `direction`",
        ),
        (
            "relayclient",
            0,
            "unknown name `relayclient`; did you mean `relay_client`?",
        ),
        (
            "score >= '5'",
            9,
            "`score` is a number: expected one such as 5 or 7.5, without quotes",
        ),
        (
            "score >= 5.0001",
            9,
            "`score` is a number: expected one such as 5 or 7.5, without quotes",
        ),
        ("karma && 5", 9, "expected a name, such as `direction`"),
        (
            "direction = 'inbound'",
            10,
            "expected `&&`, `||` or a comparison with `==`",
        ),
        (
            "direction == inbound",
            13,
            "expected a text in quotes or a whole number",
        ),
        (
            "direction == 'inbond'",
            13,
            "unknown direction \"inbond\"; did you mean \"inbound\"?",
        ),
        (
            "direction < 'inbound'",
            10,
            "`direction` is text: it compares with `==` and `!=` only",
        ),
        (
            "karma > 'x'",
            8,
            "`karma` is a number: expected one without quotes",
        ),
        (
            "karma > 99999999999999999999",
            8,
            "this number is too large",
        ),
        ("sender == 5", 10, "`sender` is text: expected it in quotes"),
        ("sender == 'x", 10, "this text is never closed"),
        ("(immune || naughty", 0, "this `(` is never closed"),
        (
            "(immune naughty)",
            8,
            "expected `&&`, `||` or `)` before this",
        ),
        ("immune naughty", 7, "expected `&&` or `||` before this"),
        ("immune)", 6, "this `)` closes nothing"),
        (
            "immune & naughty",
            7,
            "expected `&&`, `||` or a comparison with `==`",
        ),
        (
            "remote_ip == '192.0.2.0/24'",
            13,
            "\"192.0.2.0/24\" is a network: write `remote_ip in \"192.0.2.0/24\"`",
        ),
        (
            "remote_ip in '192.0.2'",
            13,
            "\"192.0.2\" is no network, such as \"192.0.2.0/24\" or \"2001:db8::/32\"",
        ),
        (
            "sender in 'x'",
            7,
            "`in` is for `remote_ip`; compare `sender` with `==`",
        ),
        (
            "relay_client == 1",
            13,
            "`relay_client` is true or false by itself: write `relay_client` or `!relay_client`",
        ),
    ] {
        let wrong = When::parse(text).unwrap_err();
        assert_eq!(wrong, (offset, message.to_owned()), "{text}");
    }
}

#[test]
fn nesting_has_an_end() {
    let deep = |depth: usize| format!("{}karma{}", "(".repeat(depth), ")".repeat(depth));
    assert!(When::parse(&deep(50)).is_ok());
    assert!(When::parse(&deep(51)).is_err());
    assert!(When::parse(&"!".repeat(100_000)).is_err());
}

fn node() -> impl Strategy<Value = Node> {
    let text_names: Vec<TextName> = TextName::ALL[1..].to_vec();
    let names: Vec<Name> = Name::all().collect();
    let leaf = prop_oneof![
        proptest::sample::select(names).prop_map(Node::Set),
        (
            proptest::sample::select(text_names),
            any::<bool>(),
            "[^\"]{0,9}|[^']{0,9}"
        )
            .prop_map(|(name, equal, text)| Node::Text(name, equal, text)),
        (
            proptest::sample::select(NumberName::ALL),
            proptest::sample::select(Order::ALL),
            any::<i64>()
        )
            .prop_map(|(name, order, number)| Node::Number(name, order, number)),
        (any::<bool>(), any::<IpAddr>())
            .prop_map(|(equal, address)| Node::Address(equal, address.to_canonical())),
        (any::<IpAddr>(), 0u8..=32)
            .prop_map(|(address, bits)| Node::Network(IpNet::new(address, bits).unwrap())),
    ];
    leaf.prop_recursive(6, 40, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 2..4).prop_map(Node::Any),
            proptest::collection::vec(inner.clone(), 2..4).prop_map(Node::All),
            inner.prop_map(|node| Node::Not(Box::new(node))),
        ]
    })
}

proptest! {
    #[test]
    fn whatever_is_printed_reads_back_the_same(node in node()) {
        let when = When(node);
        prop_assert_eq!(When::parse(&when.to_string()), Ok(when));
    }

    #[test]
    fn no_text_makes_the_parser_panic(text in "\\PC{0,40}") {
        if let Err((offset, _)) = When::parse(&text) {
            prop_assert!(text.is_char_boundary(offset));
        }
    }

    #[test]
    fn no_mix_of_its_own_words_makes_the_parser_panic(
        words in proptest::collection::vec(proptest::sample::select(vec![
            "(", ")", "!", "&&", "||", "==", "!=", "<=", ">", "in", "karma", "sender", "remote_ip",
            "direction", "5", "-", "\"x\"", "'", "\"10.0.0.0/8\"", " ", "\u{e9}",
        ]), 0..12)
    ) {
        let text = words.concat();
        if let Ok(when) = When::parse(&text) {
            prop_assert_eq!(When::parse(&when.to_string()), Ok(when));
        }
    }
}
