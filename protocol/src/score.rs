//! Scores: points that plugins give a client or a message, in thousandths, with who gave them and why. What they come to is for a plugin to judge that
//! has thresholds, such as the built-in `score`.

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Serialize};

/// How many scores of a connection, and of a transaction, are kept with their reasons; what comes behind only adds up.
pub const MAX_SCORES: usize = 64;

/// Points that a plugin gave at once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Score<'a> {
    /// Who gave them.
    #[serde(default)]
    pub plugin: Cow<'a, str>,
    /// How many, in thousandths.
    pub points: i64,
    /// Why; may be empty.
    #[serde(default)]
    pub reason: Cow<'a, str>,
}

impl Score<'_> {
    /// The same, with texts of its own.
    pub fn to_static(&self) -> Score<'static> {
        Score {
            plugin: self.plugin.to_string().into(),
            points: self.points,
            reason: self.reason.to_string().into(),
        }
    }

    /// The same, with the texts of this one.
    pub fn borrowed(&self) -> Score<'_> {
        Score {
            plugin: (&*self.plugin).into(),
            points: self.points,
            reason: (&*self.reason).into(),
        }
    }
}

/// What a connection or a transaction was given so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scores {
    sum: i64,
    entries: Vec<Score<'static>>,
}

impl Scores {
    /// Scores that add up to a sum, of which these are known.
    pub fn of(sum: i64, entries: Vec<Score<'static>>) -> Scores {
        Scores { sum, entries }
    }

    /// Adds points, in thousandths.
    pub fn add(&mut self, plugin: &str, points: i64, reason: &str) {
        self.sum = self.sum.saturating_add(points);
        if self.entries.len() < MAX_SCORES {
            self.entries.push(Score {
                plugin: plugin.to_owned().into(),
                points,
                reason: reason.to_owned().into(),
            });
        }
    }

    /// All points together, in thousandths.
    pub const fn sum(&self) -> i64 {
        self.sum
    }

    /// Each score, in the order in which they were given; the first 64.
    pub fn entries(&self) -> &[Score<'static>] {
        &self.entries
    }
}

/// Thousandths of a point as people write them: `2.5`, `-0.125`, `4`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Points(pub i64);

impl Points {
    /// Reads a decimal number with at most three places behind the point.
    pub fn parse(text: &str) -> Option<Points> {
        let (sign, digits) = match text.strip_prefix('-') {
            Some(digits) => (-1, digits),
            None => (1, text),
        };
        let (whole, rest) = digits.split_once('.').unwrap_or((digits, "0"));
        let is_number = |text: &str, most: usize| {
            !text.is_empty() && text.len() <= most && text.bytes().all(|byte| byte.is_ascii_digit())
        };
        if !is_number(whole, 16) || !is_number(rest, 3) {
            return None;
        }
        let thousandths: i128 = format!("{whole}{rest:0<3}").parse().ok()?;
        i64::try_from(sign * thousandths).ok().map(Points)
    }
}

impl fmt::Display for Points {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, rest) = (self.0.unsigned_abs() / 1000, self.0.unsigned_abs() % 1000);
        let rest = format!(".{rest:03}");
        let rest = rest.trim_end_matches('0').trim_end_matches('.');
        f.pad_integral(self.0 >= 0, "", &format!("{whole}{rest}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_are_written_as_they_are_read() {
        for (text, points) in [
            ("0", 0),
            ("5", 5000),
            ("7.5", 7500),
            ("-0.125", -125),
            ("9223372036854775.807", i64::MAX),
            ("-9223372036854775.808", i64::MIN),
        ] {
            assert_eq!(Points::parse(text), Some(Points(points)), "{text}");
            assert_eq!(Points(points).to_string(), text);
        }
        assert_eq!(Points::parse("2.50"), Some(Points(2500)));
        assert_eq!(format!("{:+}", Points(2500)), "+2.5");
        for wrong in [
            "",
            "-",
            ".5",
            "5.",
            "1.2345",
            "1e3",
            "+1",
            "1,5",
            " 1",
            "9223372036854775.808",
        ] {
            assert_eq!(Points::parse(wrong), None, "{wrong}");
        }
    }
}
