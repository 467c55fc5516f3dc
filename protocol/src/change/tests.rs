//! What changes make of a session, and which are refused.

use std::collections::BTreeMap;

use super::*;

#[test]
fn a_refused_change_leaves_the_session_as_it_was() {
    let mut session = Session::default();
    let big = Change::connection_note("x", "y".repeat(MAX_NOTE).as_str());
    assert!(big.apply(&mut session, "p").is_err());
    assert!(session.connection.notes.is_empty());
    let early = Change::AddHeader {
        name: "X".into(),
        value: "y".into(),
        at: Edge::Top,
    };
    assert!(
        early
            .apply(&mut session, "p")
            .unwrap_err()
            .to_string()
            .contains("no header yet")
    );
    let forged = Change::AuthResult {
        text: "spf=pass\r\nX: y".into(),
    };
    assert!(forged.apply(&mut session, "p").is_err());
    assert!(session.connection.auth_results.is_empty());
    let null = Change::AddRecipient {
        address: Address::null(),
    };
    assert!(null.apply(&mut session, "p").is_err());
}

#[test]
fn nothing_grows_without_end() {
    let mut session = Session::default();
    session.transaction.header = Some(crate::HeaderBlock::default());
    let field = Change::AddHeader {
        name: "X".into(),
        value: "y".into(),
        at: Edge::Bottom,
    };
    let result = Change::AuthResult {
        text: "spf=pass".into(),
    };
    let mut made = |change: &Change, most: usize| {
        let made = (0..=most).filter(|_| change.apply(&mut session, "p").is_ok());
        assert_eq!(made.count(), most);
    };
    made(&field, MAX_ADDED_FIELDS);
    made(&result, MAX_AUTH_RESULTS);
    let remove = Change::RemoveHeader {
        name: "X".into(),
        nth: Some(1),
    };
    assert!(remove.apply(&mut session, "p").is_ok());
    assert!(
        field.apply(&mut session, "p").is_ok(),
        "there is room again"
    );

    let route = |number: usize, route: Option<&str>| Change::Route {
        address: Some(Address::parse(&format!("u{number}@example.org")).unwrap()),
        route: route.map(str::to_owned),
    };
    for number in 0..MAX_RECIPIENTS {
        route(number, Some("x")).apply(&mut session, "p").unwrap();
    }
    assert!(
        route(MAX_RECIPIENTS, Some("x"))
            .apply(&mut session, "p")
            .is_err()
    );
    assert!(route(0, None).apply(&mut session, "p").is_ok());
    assert!(route(0, Some("y")).apply(&mut session, "p").is_ok());
}

#[test]
fn parameters_stay_with_their_recipient() {
    let mut session = Session::default();
    let address = |text: &str| Address::parse(text).unwrap();
    let never = Parameters::from([("NOTIFY".to_owned(), Some("NEVER".to_owned()))]);
    let transaction = &mut session.transaction;
    transaction.add_recipient(address("a@b"), Parameters::new());
    transaction.add_recipient(address("b@b"), never.clone());
    transaction.add_recipient(address("c@b"), Parameters::new());
    for change in [
        Change::RemoveRecipient {
            address: address("a@b"),
        },
        Change::AddRecipient {
            address: address("d@b"),
        },
    ] {
        change.apply(&mut session, "p").unwrap();
    }
    let transaction = &mut session.transaction;
    transaction.add_recipient(address("e@b"), never);
    let kept: Vec<(&str, bool)> = transaction
        .recipients
        .iter()
        .enumerate()
        .map(|(at, to)| (to.as_str(), !transaction.parameters_of(at).is_empty()))
        .collect();
    assert_eq!(
        kept,
        [("b@b", true), ("c@b", false), ("d@b", false), ("e@b", true)]
    );
}

#[test]
fn a_route_is_for_one_recipient_or_for_all() {
    let mut session = Session::default();
    let address = |text: &str| Address::parse(text).unwrap();
    for recipient in ["a@b", "b@b"] {
        let transaction = &mut session.transaction;
        transaction.add_recipient(address(recipient), Parameters::new());
    }
    let mut set = |who: Option<&str>, route: Option<&str>| {
        let route = Change::Route {
            address: who.map(address),
            route: route.map(str::to_owned),
        };
        let done = route.apply(&mut session, "p").is_ok();
        (done, session.transaction.routes.clone())
    };
    let routes = |list: &[(&str, &str)]| {
        let list = list
            .iter()
            .map(|(who, route)| (address(who), (*route).to_owned()));
        list.collect::<BTreeMap<_, _>>()
    };
    assert_eq!(
        set(None, Some("lmtp")),
        (true, routes(&[("a@b", "lmtp"), ("b@b", "lmtp")]))
    );
    assert_eq!(
        set(Some("b@b"), Some("list")),
        (true, routes(&[("a@b", "lmtp"), ("b@b", "list")]))
    );
    assert_eq!(set(Some("a@b"), None), (true, routes(&[("b@b", "list")])));
    assert_eq!(
        set(None, Some("a\r\nb")),
        (false, routes(&[("b@b", "list")]))
    );
}

#[test]
fn a_score_is_the_connections_before_mail_and_the_transactions_after() {
    let mut session = Session::default();
    let mut give = |points: f64, number| {
        session.transaction.number = number;
        let given = Change::score(points, "x").apply(&mut session, "p").is_ok();
        let (connection, transaction) = (&session.connection, &session.transaction);
        (given, connection.scores.sum(), transaction.scores.sum())
    };
    assert_eq!(give(2.5, 0), (true, 2500, 0));
    assert_eq!(give(-0.0014, 1), (true, 2500, -1));
    assert_eq!(give(1e6, 1), (true, 2500, 999_999_999));
    for wrong in [1e7, -1e7, f64::INFINITY] {
        assert_eq!(give(wrong, 1), (false, 2500, 999_999_999), "{wrong}");
    }
    let forged = Change::score(1.0, "a\r\nX: y");
    assert!(forged.apply(&mut session, "p").is_err());
    assert_eq!(session.score(), 1_000_002_499);
    for _ in 0..100 {
        let one = Change::score(1.0, "one more");
        one.apply(&mut session, "p").unwrap();
    }
    assert_eq!(session.score(), 1_000_102_499);
    assert_eq!(
        session.transaction.scores.entries().len(),
        crate::score::MAX_SCORES
    );
}

#[test]
fn notes_of_a_session_are_bounded() {
    let mut session = Session::default();
    let refused = (0..100).find(|index| {
        let note = Change::connection_note(&format!("n{index}"), "y".repeat(60_000).as_str());
        note.apply(&mut session, "p").is_err()
    });
    assert_eq!(refused, Some(8));
    assert!(
        Change::connection_note("n0", Value::Nil)
            .apply(&mut session, "p")
            .is_ok()
    );
    assert_eq!(session.connection.notes.len(), 7);
}

#[test]
fn naughty_keeps_who_wanted_it() {
    let mut session = Session::default();
    Change::Naughty {
        message: Some("listed".into()),
    }
    .apply(&mut session, "dnsbl")
    .unwrap();
    assert_eq!(session.connection.naughty.as_ref().unwrap().plugin, "dnsbl");
    Change::Naughty { message: None }
        .apply(&mut session, "rcpt_ok")
        .unwrap();
    assert_eq!(session.connection.naughty, None);
}
#[test]
fn flags_of_the_two_scopes_are_apart() {
    let mut session = Session::default();
    let mut apply = |change: Change| {
        change.apply(&mut session, "p").unwrap();
        session.privilege().map(|why| why.into_owned())
    };
    let said = |text: &str| Some(text.to_owned());
    let clear = |scope| Change::Whitelisted {
        reason: None,
        scope,
    };
    let relay = |value, reason: Option<&str>| Change::RelayClient {
        value,
        reason: reason.map(str::to_owned),
    };
    assert_eq!(
        apply(Change::immune(Scope::Transaction, "this once")),
        said("this once")
    );
    assert_eq!(
        apply(Change::whitelisted(Scope::Transaction, "a good sender")),
        said("a good sender")
    );
    assert_eq!(
        apply(Change::whitelisted(Scope::Connection, "friend")),
        said("friend")
    );
    assert_eq!(apply(relay(true, None)), said("relay client"));
    assert_eq!(
        apply(relay(true, Some("our own"))),
        said("relay client: our own")
    );
    assert_eq!(apply(relay(false, Some("no more"))), said("friend"));
    assert_eq!(apply(clear(Scope::Connection)), said("a good sender"));
    assert_eq!(apply(clear(Scope::Transaction)), said("this once"));
    session.transaction = crate::Transaction::default();
    assert!(!session.is_privileged());
    assert_eq!(session.connection.relay_reason, None);
}

#[test]
fn a_connection_may_be_another_one_until_it_is_greeted() {
    let mut session = Session::default();
    let remote = |ip: Option<&str>, port| Change::Remote {
        ip: ip.map(str::to_owned),
        port,
    };
    let said = |change: &Change, session: &mut Session| change.apply(session, "p").unwrap_err();
    let error = said(&remote(None, Some(25)), &mut session).to_string();
    assert_eq!(
        error,
        "change `remote`: there is no address that the port could be of"
    );
    for (ip, port, now) in [
        (Some("192.0.2.1"), None, "192.0.2.1:0"),
        (None, Some(25), "192.0.2.1:25"),
        (Some("::ffff:192.0.2.2"), None, "192.0.2.2:25"),
        (Some("2001:db8::1"), Some(7), "[2001:db8::1]:7"),
    ] {
        remote(ip, port).apply(&mut session, "p").unwrap();
        assert_eq!(session.connection.remote.unwrap().to_string(), now);
    }
    let error = said(&remote(Some("mx\n"), None), &mut session).to_string();
    assert_eq!(error, "change `remote`: `mx\\n` is no IP address");
    let local = Change::Local {
        ip: Some("192.0.2.25".to_owned()),
        port: Some(25),
    };
    local.apply(&mut session, "p").unwrap();
    let info = |info: Option<&str>| Change::RemoteInfo {
        info: info.map(str::to_owned),
    };
    info(Some("alice")).apply(&mut session, "p").unwrap();
    said(&info(Some("alice\r\nX: y")), &mut session);
    said(&info(Some(&"x".repeat(256))), &mut session);
    let connection = &session.connection;
    assert_eq!(connection.local, "192.0.2.25:25".parse().ok());
    assert_eq!(connection.remote, "[2001:db8::1]:7".parse().ok());
    assert_eq!(connection.remote_info.as_deref(), Some("alice"));
    info(None).apply(&mut session, "p").unwrap();
    assert_eq!(session.connection.remote_info, None);
    for change in [local, remote(None, None), info(None)] {
        for hook in Hook::ALL {
            let is_early = matches!(hook, Hook::PreConnection | Hook::Connect);
            assert_eq!(change.check(hook).is_ok(), is_early, "{hook}");
        }
    }
    assert!(Change::Karma { add: 1 }.check(Hook::Mail).is_ok());
}
