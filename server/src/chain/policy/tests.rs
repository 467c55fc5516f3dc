//! The table of docs/protocol.md §6.2, and texts of plugins in replies.

use super::*;

fn rules(operator: Policy) -> Rules {
    Rules::new(operator, Policy::default(), None, None)
}

#[test]
fn the_table_of_the_protocol() {
    let reject = |reject| {
        rules(Policy {
            reject: Some(reject),
            ..Policy::default()
        })
    };
    let on_error = |on_error| {
        rules(Policy {
            on_error: Some(on_error),
            ..Policy::default()
        })
    };
    let typed = rules(Policy {
        reject_type: Some(RejectType::TempDisconnect),
        ..Policy::default()
    });
    let diverting = rules(Policy {
        reject_type: Some(RejectType::Quarantine),
        ..Policy::default()
    });
    let now = rules(Policy::default());
    let held = || Outcome::declined().with_verdict(Verdict::Hold);
    let friend = now.towards(true);
    let strict = rules(Policy {
        immune: Some(Immune::Ignore),
        ..Policy::default()
    });
    let strict = strict.towards(true);
    let denied = || Outcome::declined().with_verdict(Verdict::DenySoft);
    use Verdict::*;
    for (name, rules, outcome, verdict, mark) in [
        ("nothing", &now, Outcome::declined(), Declined, Mark::None),
        ("pass", &now, Outcome::pass("x"), Declined, Mark::None),
        ("skip", &now, Outcome::skip("x"), Declined, Mark::None),
        ("fail", &now, Outcome::fail("x"), Deny, Mark::None),
        (
            "fail, typed",
            &typed,
            Outcome::fail("x"),
            DenySoftDisconnect,
            Mark::None,
        ),
        (
            "fail, tolerated",
            &reject(Reject::Tolerate),
            Outcome::fail("x"),
            Declined,
            Mark::Tolerated,
        ),
        (
            "fail, naughty",
            &reject(Reject::Naughty),
            Outcome::fail("x"),
            Declined,
            Mark::Naughty,
        ),
        (
            "fail, reported only",
            &now,
            Outcome::fail("x").with_verdict(Declined),
            Declined,
            Mark::None,
        ),
        ("deny", &now, denied(), DenySoft, Mark::None),
        (
            "deny, typed",
            &typed,
            denied(),
            DenySoftDisconnect,
            Mark::None,
        ),
        (
            "deny, tolerated",
            &reject(Reject::Tolerate),
            denied(),
            Declined,
            Mark::Tolerated,
        ),
        ("hold", &now, held(), Hold, Mark::None),
        (
            "hold, typed",
            &typed,
            held(),
            DenySoftDisconnect,
            Mark::None,
        ),
        (
            "hold, tolerated",
            &reject(Reject::Tolerate),
            held(),
            Declined,
            Mark::Tolerated,
        ),
        (
            "hold, naughty",
            &reject(Reject::Naughty),
            held(),
            Declined,
            Mark::Naughty,
        ),
        (
            "fail, diverted",
            &diverting,
            Outcome::fail("x"),
            Quarantine,
            Mark::None,
        ),
        (
            "deny, diverted",
            &diverting,
            denied(),
            Quarantine,
            Mark::None,
        ),
        (
            "error, diverted does not matter",
            &diverting,
            Outcome::error("x"),
            DenySoft,
            Mark::None,
        ),
        ("error", &now, Outcome::error("x"), DenySoft, Mark::None),
        (
            "error, skip",
            &on_error(OnError::Skip),
            Outcome::error("x"),
            Declined,
            Mark::None,
        ),
        (
            "error, reject",
            &on_error(OnError::Reject),
            Outcome::error("x"),
            Deny,
            Mark::None,
        ),
        (
            "error, tolerated does not matter",
            &reject(Reject::Tolerate),
            Outcome::error("x"),
            DenySoft,
            Mark::None,
        ),
        (
            "fail of a friend",
            &friend,
            Outcome::fail("x"),
            Declined,
            Mark::Forgiven,
        ),
        (
            "deny of a friend",
            &friend,
            denied(),
            Declined,
            Mark::Forgiven,
        ),
        (
            "fail of a friend, naughty",
            &reject(Reject::Naughty).towards(true),
            Outcome::fail("x"),
            Declined,
            Mark::Forgiven,
        ),
        (
            "fail of a friend, tolerated anyway",
            &reject(Reject::Tolerate).towards(true),
            Outcome::fail("x"),
            Declined,
            Mark::Tolerated,
        ),
        (
            "fail of a friend, who is like all others",
            &strict,
            Outcome::fail("x"),
            Deny,
            Mark::None,
        ),
        (
            "error at a friend",
            &friend,
            Outcome::error("x"),
            DenySoft,
            Mark::None,
        ),
        ("ok", &now, Outcome::ok("x"), Ok, Mark::None),
        (
            "done",
            &now,
            Outcome::pass("x").with_verdict(Done),
            Done,
            Mark::None,
        ),
    ] {
        let judgement = rules.judge(&outcome.into());
        assert_eq!(
            (judgement.verdict, judgement.mark),
            (verdict, mark),
            "{name}"
        );
    }
}

#[test]
fn the_operator_wins_over_the_plugin_and_the_plugin_over_the_core() {
    let plugin = Policy {
        reject: Some(Reject::Tolerate),
        reject_type: Some(RejectType::Temp),
        on_error: Some(OnError::Skip),
        immune: Some(Immune::Skip),
    };
    let own = Rules::new(Policy::default(), plugin, None, None);
    assert_eq!(
        own.judge(&Outcome::fail("x").into()).verdict,
        Verdict::Declined
    );
    assert_eq!(
        own.judge(&Outcome::error("x").into()).verdict,
        Verdict::Declined
    );
    assert_eq!(own.immune, Immune::Skip);
    let operator = Policy {
        reject: Some(Reject::Now),
        immune: Some(Immune::Ignore),
        ..Policy::default()
    };
    let rules = Rules::new(operator, plugin, None, None);
    assert_eq!(rules.immune, Immune::Ignore);
    assert_eq!(
        rules.judge(&Outcome::fail("x").into()).verdict,
        Verdict::DenySoft
    );
    // A plugin's own reject_type is for failures without a verdict.
    let explicit = Outcome::declined().with_verdict(Verdict::DenyDisconnect);
    assert_eq!(
        rules.judge(&explicit.into()).verdict,
        Verdict::DenyDisconnect
    );
}

#[test]
fn a_plugins_text_cannot_forge_a_reply() {
    let text = ["a\r\n250 ok\0\x1b[2J", "caf\u{e9}", "", " "].map(str::to_owned);
    assert_eq!(reply_lines(&text, false), ["a", "250 ok??[2J", "caf?"]);
    assert_eq!(reply_lines(&text, true), ["a", "250 ok??[2J", "caf\u{e9}"]);
    assert_eq!(reply_lines(&["\u{85}x".to_owned()], true), ["?x"]);
    for long in ["x", "\u{e9}"] {
        let long = [long.repeat(2000)];
        assert_eq!(reply_lines(&long, true)[0].len(), MAX_REPLY_LINE);
    }
    assert_eq!(
        reply_lines(&vec!["x".to_owned(); 500], false).len(),
        MAX_REPLY_LINES
    );
}

#[test]
fn a_code_must_be_of_the_verdicts_class() {
    assert_eq!(fitting_code(Verdict::Deny, Some(550)), Some(550));
    assert_eq!(fitting_code(Verdict::Deny, Some(250)), None);
    assert_eq!(fitting_code(Verdict::DenySoft, Some(550)), None);
    assert_eq!(fitting_code(Verdict::Ok, Some(550)), None);
    assert_eq!(fitting_code(Verdict::Done, Some(502)), Some(502));
}

#[test]
fn canaries_are_about_their_share_and_stay_the_same() {
    let rules = rules(Policy::default());
    let clients = || (0..20_000u32).map(|n| IpAddr::from((0xc000_0000 + n * 7).to_be_bytes()));
    let chosen = |plugin: &str, share| {
        let rules = rules.shadowed(Shadow::share(share).unwrap());
        clients()
            .filter(|client| !rules.is_shadow(plugin, Some(*client)))
            .collect::<Vec<_>>()
    };
    for (share, least, most) in [
        ("5%", 900, 1100),
        ("0.5%", 70, 130),
        ("100%", 20_000, 20_000),
    ] {
        let number = chosen("dnsbl", share).len();
        assert!((least..=most).contains(&number), "{share}: {number}");
    }
    let five = chosen("dnsbl", "5%");
    assert_eq!(five, chosen("dnsbl", "5%"));
    let ten = chosen("dnsbl", "10%");
    assert!(
        five.iter().all(|client| ten.contains(client)),
        "a greater share has all of a smaller one"
    );
    assert_ne!(five, chosen("helo", "5%"));
    assert!(
        rules
            .shadowed(Shadow::Canary(10_000))
            .is_shadow("dnsbl", None)
    );
    // What was chosen by an earlier version stays chosen.
    assert_eq!(lot("dnsbl", "192.0.2.1".parse().unwrap()), 3050);
}
