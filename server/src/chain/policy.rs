//! The operator's policy: from what a plugin found to what the client is told (docs/protocol.md §6.2).

use std::borrow::Cow;
use std::net::IpAddr;
use std::time::Duration;

use gatepost_protocol::{
    Disposition, EnhancedCode, Immune, Level, OnError, Outcome, Points, Policy, Reject, RejectType,
    Verdict,
};

use crate::config::{LevelChange, Shadow};

/// The longest line of plugin text in a reply: with its codes it stays within the 512 octets of RFC 5321 §4.5.3.1.5.
const MAX_REPLY_LINE: usize = 480;
/// The most lines of plugin text in a reply.
const MAX_REPLY_LINES: usize = 20;

/// What is in force for a plugin: the operator's settings, else the plugin's own defaults, else the core's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    pub(super) reject: Reject,
    /// Set by the operator: it overrides the plugin's verdict.
    forced_type: Option<RejectType>,
    default_type: RejectType,
    on_error: OnError,
    pub(super) immune: Immune,
    /// Whether the one who is judged has a flag that is honoured here.
    forgives: bool,
    loglevel: Option<LevelChange>,
    shadow: Shadow,
    /// The operator's deadline.
    pub timeout: Option<Duration>,
}

/// What a plugin found and what it wants done: an outcome without changes.
#[derive(Clone, Debug, Default)]
pub struct Finding {
    pub verdict: Option<Verdict>,
    pub disposition: Option<Disposition>,
    pub message: String,
    pub code: Option<u16>,
    pub enhanced: Option<EnhancedCode>,
    pub reply: Vec<String>,
    /// Points that were given with it, in thousandths: for its line.
    pub score: i64,
}

impl Finding {
    /// Its sentence as the log has it.
    pub fn line(&self) -> Cow<'_, str> {
        let (message, score) = (&self.message, Points(self.score));
        match (self.score, message.is_empty()) {
            (0, _) => message.into(),
            (_, true) => format!("(score {score:+})").into(),
            (_, false) => format!("{message} (score {score:+})").into(),
        }
    }
}

impl From<Outcome> for Finding {
    fn from(outcome: Outcome) -> Finding {
        Finding {
            verdict: outcome.verdict,
            disposition: outcome.disposition,
            message: outcome.message,
            code: outcome.code,
            enhanced: outcome.enhanced,
            reply: outcome.reply,
            score: 0,
        }
    }
}

/// How a failure was dealt with, as its log line says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// Nothing special.
    None,
    /// `reject = false`.
    Tolerated,
    /// The client has one of the core's flags, and `immune` honours it.
    Forgiven,
    /// The same, and the plugin was not asked.
    Spared,
    /// `reject = "naughty"`.
    Naughty,
    /// Each recipient answers for itself.
    Kept,
    /// Somebody released the message from the store.
    Released,
    /// `shadow = true`, or not one of `canary`.
    Shadow,
}

impl Mark {
    /// How the log and the journal say it. `privilege` is why the client is let be.
    pub fn text(self, privilege: Option<&str>) -> Option<Cow<'static, str>> {
        let text = match self {
            Mark::None | Mark::Spared => return None,
            Mark::Forgiven => {
                let why = privilege.unwrap_or_default();
                return Some(format!("tolerated ({why})").into());
            }
            Mark::Tolerated => "tolerated",
            Mark::Naughty => "NAUGHTY",
            Mark::Kept => "kept for the recipients",
            Mark::Released => "released",
            Mark::Shadow => "shadow",
        };
        Some(text.into())
    }
}

/// An outcome, judged.
#[derive(Debug, PartialEq, Eq)]
pub struct Judgement {
    /// What is to be done now.
    pub verdict: Verdict,
    /// What the plugin wanted, where it was tolerated or deferred.
    pub wanted: Verdict,
    /// What it found, for its line.
    pub disposition: Disposition,
    /// Whether it said anything worth a line.
    pub silent: bool,
    /// How a failure was dealt with.
    pub mark: Mark,
}

impl Rules {
    /// Puts the operator's settings over the plugin's own defaults.
    pub fn new(
        operator: Policy,
        plugin: Policy,
        loglevel: Option<LevelChange>,
        timeout: Option<Duration>,
    ) -> Rules {
        Rules {
            reject: operator.reject.or(plugin.reject).unwrap_or(Reject::Now),
            forced_type: operator.reject_type,
            default_type: plugin.reject_type.unwrap_or(RejectType::Perm),
            on_error: operator
                .on_error
                .or(plugin.on_error)
                .unwrap_or(OnError::TempFail),
            immune: operator
                .immune
                .or(plugin.immune)
                .unwrap_or(Immune::Tolerate),
            forgives: false,
            loglevel,
            shadow: Shadow::Off,
            timeout,
        }
    }

    /// The same, but what is found counts for some clients only, or for none.
    #[must_use]
    pub fn shadowed(self, shadow: Shadow) -> Rules {
        Rules { shadow, ..self }
    }

    /// The same, for a client that has one of the core's flags, or has none.
    #[must_use]
    pub fn towards(self, is_privileged: bool) -> Rules {
        Rules {
            forgives: is_privileged && self.immune != Immune::Ignore,
            ..self
        }
    }

    /// Whether what `plugin` finds about a client is only written down. Of a plugin and a client it is always the same; a client without an address is
    /// no canary.
    pub fn is_shadow(&self, plugin: &str, client: Option<IpAddr>) -> bool {
        match (self.shadow, client) {
            (Shadow::Off, _) => false,
            (Shadow::Canary(share), Some(client)) => lot(plugin, client) >= share,
            (Shadow::On | Shadow::Canary(_), _) => true,
        }
    }

    /// What becomes of a finding.
    pub fn judge(&self, finding: &Finding) -> Judgement {
        let Finding {
            verdict,
            disposition,
            ..
        } = finding;
        let plain = |verdict, disposition| Judgement {
            verdict,
            wanted: verdict,
            disposition,
            silent: finding.disposition.is_none()
                && verdict == Verdict::Declined
                && finding.score == 0,
            mark: Mark::None,
        };
        match (verdict, disposition) {
            (Some(wanted), found) if wanted.is_negative() => {
                let wanted = self.forced_type.map_or(*wanted, RejectType::verdict);
                self.deny(wanted, found.unwrap_or(Disposition::Fail))
            }
            (Some(verdict), found) => {
                let quiet = if *verdict == Verdict::Declined {
                    Disposition::Skip
                } else {
                    Disposition::Pass
                };
                plain(*verdict, found.unwrap_or(quiet))
            }
            (None, Some(Disposition::Fail)) => self.deny(
                self.forced_type.unwrap_or(self.default_type).verdict(),
                Disposition::Fail,
            ),
            (None, Some(Disposition::Error)) => {
                let verdict = match self.on_error {
                    OnError::Skip => Verdict::Declined,
                    OnError::TempFail => Verdict::DenySoft,
                    OnError::Reject => Verdict::Deny,
                };
                plain(verdict, Disposition::Error)
            }
            (None, found) => plain(Verdict::Declined, found.unwrap_or(Disposition::Skip)),
        }
    }

    fn deny(&self, wanted: Verdict, disposition: Disposition) -> Judgement {
        let (verdict, mark) = match self.reject {
            Reject::Tolerate => (Verdict::Declined, Mark::Tolerated),
            Reject::Now | Reject::Naughty if self.forgives => (Verdict::Declined, Mark::Forgiven),
            Reject::Now => (wanted, Mark::None),
            Reject::Naughty => (Verdict::Declined, Mark::Naughty),
        };
        Judgement {
            verdict,
            wanted,
            disposition,
            silent: false,
            mark,
        }
    }

    /// The level of a plugin's line that would be at `level`.
    pub fn level(&self, level: Level) -> Level {
        match self.loglevel {
            None => level,
            Some(LevelChange::Fixed(fixed)) => fixed,
            Some(LevelChange::Shift(by)) => level.shifted(by),
        }
    }
}

/// A number below 10000 for a client, by which canaries are chosen: another one for each plugin, and the same in every process. 64-bit FNV-1a, its bits mixed.
fn lot(plugin: &str, client: IpAddr) -> u16 {
    let octets = match client.to_canonical() {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    };
    let bytes = plugin.bytes().chain([0]).chain(octets);
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let mixed = (hash ^ hash >> 32).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    u16::try_from(mixed % 10_000).expect("a rest of 10000 is below it")
}

/// Makes a plugin's text safe for a reply: printable, bounded in length and number of lines. Empty lines at the end go. What is not ASCII
/// is only for a client that said `utf8` (RFC 6531 §3.7.4.1).
pub fn reply_lines(lines: &[String], utf8: bool) -> Vec<String> {
    let is_fit = |c: char| (' '..='~').contains(&c) || utf8 && !c.is_ascii() && !c.is_control();
    let mut safe: Vec<String> = lines
        .iter()
        .flat_map(|text| text.split('\n'))
        .take(MAX_REPLY_LINES)
        .map(|line| {
            let line = line.strip_suffix('\r').unwrap_or(line);
            let mut printable: String = line
                .chars()
                .take(MAX_REPLY_LINE)
                .map(|c| if is_fit(c) { c } else { '?' })
                .collect();
            printable.truncate(printable.floor_char_boundary(MAX_REPLY_LINE));
            printable
        })
        .collect();
    while safe
        .last()
        .is_some_and(|line: &String| line.trim().is_empty())
    {
        safe.pop();
    }
    safe
}

/// The plugin's reply code, where it is of the class that the verdict needs (RFC 5321 §4.2.1).
pub fn fitting_code(verdict: Verdict, code: Option<u16>) -> Option<u16> {
    let class = match verdict {
        verdict if verdict.is_denial() => {
            if verdict.is_soft() {
                4
            } else {
                5
            }
        }
        Verdict::Ok => 2,
        Verdict::Done => return code.filter(|code| (200..600).contains(code)),
        _ => return None,
    };
    code.filter(|code| code / 100 == class)
}

#[cfg(test)]
mod tests {
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
}
