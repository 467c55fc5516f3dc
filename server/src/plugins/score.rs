//! `score`: what becomes of a message by the points that plugins gave it. The points are the message's; the thresholds are those of whoever it is for.
//!
//! qpsmtpd has nothing like it: there each plugin refuses by itself, or counts karma for the connection.

use std::fmt::Write as _;
use std::sync::Arc;

use gatepost_protocol::change::Bytes;
use gatepost_protocol::{
    Answer, Built, Call, Change, Definition, Edge, EnhancedCode, Field, Hook, Init, Outcome,
    Plugin, Points, Session, Setting, SettingError, Settings, Subscription, Value, Verdict,
};

pub const DEFINITION: Definition = Definition {
    name: "score",
    about: "Decides about messages by the points that other plugins gave them.",
    settings: || {
        vec![
            Setting::any(
                "tempfail_at",
                "From how many points on a message is refused for now.",
            ),
            Setting::any(
                "reject_at",
                "From how many points on a message is refused for good.",
            ),
            Setting::any(
                "quarantine_at",
                "From how many points on a message is kept in quarantine.",
            ),
            Setting::any(
                "hold_at",
                "From how many points on a message is held until somebody decides.",
            ),
            Setting::any(
                "discard_at",
                "From how many points on a message is thrown away.",
            ),
            Setting::text(
                "header",
                "The header that says the points, such as X-Gatepost-Score.",
            ),
        ]
    },
    build,
};

const THRESHOLDS: [(&str, Verdict); 5] = [
    ("tempfail_at", Verdict::DenySoft),
    ("reject_at", Verdict::Deny),
    ("quarantine_at", Verdict::Quarantine),
    ("hold_at", Verdict::Hold),
    ("discard_at", Verdict::Discard),
];

struct Score {
    /// The lowest first.
    thresholds: Vec<(Points, Verdict)>,
    header: Option<String>,
}

fn build(init: Init) -> Built {
    let settings = &init.settings;
    let mut errors = Vec::new();
    let mut thresholds: Vec<(Points, Verdict)> = Vec::new();
    for (key, verdict) in THRESHOLDS {
        match threshold(settings, key) {
            Ok(None) => {}
            Ok(Some(points)) => match thresholds.iter().find(|(other, _)| *other == points) {
                None => thresholds.push((points, verdict)),
                Some((_, other)) => {
                    let other = THRESHOLDS.iter().find(|(_, verdict)| verdict == other);
                    let other = other.map_or("", |(key, _)| key);
                    let message = format!(
                        "`{other}` is {points} as well; of two thresholds one has to be higher"
                    );
                    errors.push(SettingError::at(key, message));
                }
            },
            Err(error) => errors.push(error),
        }
    }
    thresholds.sort_by_key(|(points, _)| *points);
    let header = settings.text("header").map(str::to_owned);
    if let Some(name) = &header
        && !gatepost_protocol::header::is_name(name)
    {
        let message = format!("`{name}` is no header name; write it without its colon");
        errors.push(SettingError::at("header", message));
    }
    match errors.is_empty() {
        true => Ok(Arc::new(Score { thresholds, header })),
        false => Err(errors),
    }
}

fn threshold(settings: &Settings, key: &str) -> Result<Option<Points>, SettingError> {
    let points = match settings.get(key) {
        None => return Ok(None),
        Some(Value::Integer(number)) => number.checked_mul(1000).map(Points),
        Some(value) => value.as_text().and_then(Points::parse),
    };
    match points {
        Some(points) if points > Points(0) => Ok(Some(points)),
        _ => {
            let message = "expected a number of points above 0, such as 5 or \"7.5\"";
            Err(SettingError::at(key, message))
        }
    }
}

impl Plugin for Score {
    fn subscriptions(&self) -> Vec<Subscription> {
        let fields = [Field::Score];
        vec![
            Subscription::to(Hook::Rcpt, &fields),
            Subscription::to(Hook::DataPost, &fields),
        ]
    }

    fn call<'a>(&'a self, call: &'a Call<'a>) -> Answer<'a> {
        let is_complete = call.hook == Hook::DataPost;
        let mut outcome = self.judge(call.session, is_complete);
        if is_complete && let Some(name) = &self.header {
            outcome = outcome
                .with_change(Change::RemoveHeader {
                    name: name.clone(),
                    nth: None,
                })
                .with_change(Change::AddHeader {
                    name: name.clone(),
                    value: Bytes::from(&*header_value(call.session)),
                    at: Edge::Top,
                });
        }
        outcome.into()
    }
}

impl Score {
    /// What becomes of the message. Before it is there only a refusal is of use: whatever else it is to be, more points, or less, may change that.
    fn judge(&self, session: &Session, is_complete: bool) -> Outcome {
        let score = Points(session.score());
        let reached = self.thresholds.iter().rev().find(|(at, _)| *at <= score);
        let given = given(session);
        match reached {
            Some((at, verdict)) if is_complete || verdict.is_denial() => {
                let outcome = Outcome::fail(format!("score {score}, {at} is too much: {given}"));
                outcome
                    .with_verdict(*verdict)
                    .with_enhanced(match verdict.is_soft() {
                        true => EnhancedCode(4, 7, 1),
                        false => EnhancedCode(5, 7, 1),
                    })
            }
            _ if !is_complete => Outcome::declined(),
            _ if given.is_empty() => Outcome::pass(format!("score {score}")),
            _ => Outcome::pass(format!("score {score}: {given}")),
        }
    }
}

/// `dnsbl 4 (listed), headers 2.5 (no date)`.
fn given(session: &Session) -> String {
    let mut text = String::new();
    let mut known = 0_i64;
    for score in session.scores() {
        known = known.saturating_add(score.points);
        let (points, before) = (Points(score.points), separator(&text));
        let _ = write!(text, "{before}{} {points}", score.plugin);
        if !score.reason.is_empty() {
            let _ = write!(text, " ({})", score.reason);
        }
    }
    let others = session.score().saturating_sub(known);
    if others != 0 {
        let before = separator(&text);
        let _ = write!(text, "{before}others {}", Points(others));
    }
    text
}

/// `6.5 (dnsbl 4, headers 2.5)`: points by plugin, a line of the header each four of them (RFC 5322 §2.1.1).
fn header_value(session: &Session) -> String {
    let mut sums: Vec<(&str, i64)> = Vec::new();
    for score in session.scores() {
        match sums.iter_mut().find(|(plugin, _)| *plugin == score.plugin) {
            Some((_, sum)) => *sum = sum.saturating_add(score.points),
            None => sums.push((&score.plugin, score.points)),
        }
    }
    let known = sums
        .iter()
        .fold(0_i64, |sum, (_, points)| sum.saturating_add(*points));
    let score = session.score();
    if known != score {
        sums.push(("others", score.saturating_sub(known)));
    }
    let mut text = Points(score).to_string();
    for (at, (plugin, points)) in sums.iter().enumerate() {
        let before = match at {
            0 => " (",
            at if at % 4 == 0 => ",\r\n\t",
            _ => ", ",
        };
        let _ = write!(text, "{before}{plugin} {}", Points(*points));
    }
    if !sums.is_empty() {
        text.push(')');
    }
    text
}

fn separator(text: &str) -> &'static str {
    if text.is_empty() { "" } else { ", " }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugins::testing::{
        FakeServices, ask, ask_address, built, line, plugin, session, with_message,
    };
    use gatepost_protocol::Args;

    fn scored(points: &[(&str, i64)]) -> Session {
        let mut session = session("192.0.2.1");
        for (plugin, points) in points {
            session.connection.scores.add(plugin, *points, "found");
        }
        session
    }

    #[tokio::test]
    async fn the_highest_threshold_reached_decides() {
        let settings = [
            ("quarantine_at", 5.into()),
            ("reject_at", "7.5".into()),
            ("discard_at", 10.into()),
        ];
        let score = plugin(&DEFINITION, &FakeServices::new(), settings);
        for (points, at_rcpt, at_the_end) in [
            (4999, None, None),
            (5000, None, Some(Verdict::Quarantine)),
            (7499, None, Some(Verdict::Quarantine)),
            (7500, Some(Verdict::Deny), Some(Verdict::Deny)),
            (10_000, None, Some(Verdict::Discard)),
            (-20_000, None, None),
        ] {
            let client = scored(&[("dnsbl", points)]);
            let early = ask_address(&score, Hook::Rcpt, &client, "bob@example.org").await;
            let late = ask(&score, Hook::DataPost, &client, Args::None).await;
            assert_eq!(early.verdict, at_rcpt, "{points}");
            assert_eq!(late.verdict, at_the_end, "{points}");
        }
        let client = scored(&[("dnsbl", 4000), ("headers", 2500)]);
        let late = ask(&score, Hook::DataPost, &client, Args::None).await;
        assert_eq!(
            line(&late),
            "fail, score 6.5, 5 is too much: dnsbl 4 (found), headers 2.5 (found)"
        );
    }

    #[tokio::test]
    async fn the_header_says_who_gave_how_much() {
        let settings = [("header", "X-Score".into())];
        let score = plugin(&DEFINITION, &FakeServices::new(), settings);
        let value = |outcome: &Outcome| match &outcome.changes[..] {
            [Change::RemoveHeader { .. }, Change::AddHeader { value, .. }] => {
                String::from_utf8(value.0.clone()).unwrap()
            }
            other => panic!("{other:?}"),
        };
        let many: Vec<(&str, i64)> = (0..100).map(|_| ("dnsbl", 1000)).collect();
        for (client, expected) in [
            (scored(&[]), "0"),
            (
                scored(&[("a", 4000), ("b", 2500), ("a", -500)]),
                "6 (a 3.5, b 2.5)",
            ),
            (scored(&many), "100 (dnsbl 64, others 36)"),
        ] {
            let (client, _) = with_message(client, b"X-Score: 0\r\n\r\n");
            let outcome = ask(&score, Hook::DataPost, &client, Args::None).await;
            assert_eq!(value(&outcome), expected);
        }
    }

    #[test]
    fn mistakes_in_thresholds() {
        let wrong = |settings: &[(&'static str, Value)]| {
            let errors = built(&DEFINITION, &FakeServices::new(), settings.to_vec());
            errors.err().unwrap().remove(0)
        };
        for value in [Value::from(0), "x".into(), "-1".into(), "7,5".into()] {
            let error = wrong(&[("reject_at", value)]);
            assert_eq!(error.path, ["reject_at"]);
            assert!(error.message.contains("such as 5"), "{error}");
        }
        let same = wrong(&[("reject_at", 5.into()), ("hold_at", "5.0".into())]);
        assert_eq!(
            same.message,
            "`reject_at` is 5 as well; of two thresholds one has to be higher"
        );
        assert_eq!(wrong(&[("header", "X Score".into())]).path, ["header"]);
    }
}
