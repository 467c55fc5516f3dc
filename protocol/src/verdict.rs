//! What a plugin wants done (verdict), what it found (disposition), and the codes of a reply.

use serde::{Deserialize, Serialize};

/// What SMTP should do: qpsmtpd's return codes, and three ways to take a message that its recipients do not get (docs/protocol.md §6.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Nothing to say; the next plugin is asked.
    Declined,
    /// Yes, and no further plugin is asked.
    Ok,
    /// Refuse for good, 5xx.
    Deny,
    /// Refuse for now, 4xx.
    #[serde(rename = "denysoft")]
    DenySoft,
    /// Refuse for good and close the connection.
    DenyDisconnect,
    /// Refuse for now and close the connection.
    #[serde(rename = "denysoft_disconnect")]
    DenySoftDisconnect,
    /// The plugin dealt with the command.
    Done,
    /// Take the message, and throw it away.
    Discard,
    /// Take the message, and keep it in the store, for a limited time.
    Quarantine,
    /// Take the message, and keep it in the store until somebody decides.
    Hold,
}

impl Verdict {
    /// The name on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Verdict::Declined => "declined",
            Verdict::Ok => "ok",
            Verdict::Deny => "deny",
            Verdict::DenySoft => "denysoft",
            Verdict::DenyDisconnect => "deny_disconnect",
            Verdict::DenySoftDisconnect => "denysoft_disconnect",
            Verdict::Done => "done",
            Verdict::Discard => "discard",
            Verdict::Quarantine => "quarantine",
            Verdict::Hold => "hold",
        }
    }

    /// Whether it is one of the four denials.
    pub const fn is_denial(self) -> bool {
        matches!(
            self,
            Verdict::Deny
                | Verdict::DenySoft
                | Verdict::DenyDisconnect
                | Verdict::DenySoftDisconnect
        )
    }

    /// Whether it diverts the message: the client is told that all is well, and the recipients do not get it.
    pub const fn diverts(self) -> bool {
        matches!(self, Verdict::Discard | Verdict::Quarantine | Verdict::Hold)
    }

    /// Whether it keeps mail from its recipients. That is what the operator's `reject` may tolerate or put off.
    pub const fn is_negative(self) -> bool {
        self.is_denial() || self.diverts()
    }

    /// Whether the connection is to be closed.
    pub const fn disconnects(self) -> bool {
        matches!(self, Verdict::DenyDisconnect | Verdict::DenySoftDisconnect)
    }

    /// Whether the refusal is for now only.
    pub const fn is_soft(self) -> bool {
        matches!(self, Verdict::DenySoft | Verdict::DenySoftDisconnect)
    }
}

/// What a plugin found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Disposition {
    /// The check was made and found nothing wrong.
    Pass,
    /// The check found something wrong.
    Fail,
    /// The check did not apply.
    Skip,
    /// The check could not be made.
    Error,
}

impl Disposition {
    /// The name on the wire and the first word of a log line.
    pub const fn name(self) -> &'static str {
        match self {
            Disposition::Pass => "pass",
            Disposition::Fail => "fail",
            Disposition::Skip => "skip",
            Disposition::Error => "error",
        }
    }
}

/// An enhanced status code (RFC 3463 §2), such as 5.7.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EnhancedCode(pub u8, pub u16, pub u16);

impl EnhancedCode {
    /// Reads `class.subject.detail`: class 2, 4 or 5, the others at most 999.
    pub fn parse(text: &str) -> Option<EnhancedCode> {
        let mut parts = text.split('.').map(|part| {
            let digits =
                !part.is_empty() && part.len() <= 3 && part.bytes().all(|b| b.is_ascii_digit());
            digits.then(|| part.parse::<u16>().ok()).flatten()
        });
        let (class, subject, detail) = (parts.next()??, parts.next()??, parts.next()??);
        if parts.next().is_some() || !matches!(class, 2 | 4 | 5) {
            return None;
        }
        Some(EnhancedCode(class as u8, subject, detail))
    }
}

impl std::fmt::Display for EnhancedCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

impl Serialize for EnhancedCode {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for EnhancedCode {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        EnhancedCode::parse(&text)
            .ok_or_else(|| serde::de::Error::custom(format!("`{text}` is no enhanced status code")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn enhanced_codes_are_three_numbers_of_a_known_class() {
        assert_eq!(EnhancedCode::parse("5.7.1"), Some(EnhancedCode(5, 7, 1)));
        for wrong in ["", "5.7", "5.7.1.1", "3.0.0", "5.1000.0", "5.+1.0", "5..1"] {
            assert_eq!(EnhancedCode::parse(wrong), None, "{wrong}");
        }
    }
}
