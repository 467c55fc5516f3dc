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
mod tests;
