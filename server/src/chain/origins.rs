//! Where the settings come from that are in force for a plugin: for whoever asks why.

use gatepost_protocol::{Disposition, Verdict};

use super::policy::{Finding, Judgement, Mark};

/// Where the settings of a plugin come from, each in words with its place: `reject = false (gatepost.toml:12)`. Empty where it is not known.
#[derive(Debug, Default)]
pub struct Origins {
    /// Where the plugin stands, and where recipients have other settings of its own for it.
    pub places: Vec<String>,
    /// `reject`.
    pub reject: String,
    /// `reject_type`.
    pub reject_type: String,
    /// `reject_type` was set by the operator, over the plugin's verdict.
    pub forces_type: bool,
    /// `on_error`.
    pub on_error: String,
    /// `immune`.
    pub immune: String,
    /// `shadow` or `canary`, where it is set.
    pub shadow: String,
}

impl Origins {
    /// What decided about a finding; of a client with a flag that plugins honour, also whether this one does.
    pub(super) fn behind<'a>(
        &'a self,
        finding: &Finding,
        judgement: &Judgement,
        is_privileged: bool,
    ) -> impl Iterator<Item = &'a str> {
        let found = judgement.disposition;
        let counts = judgement.verdict != Verdict::Declined
            || matches!(found, Disposition::Fail | Disposition::Error);
        let failed = finding.verdict.is_none() && found == Disposition::Error;
        let denied = judgement.wanted.is_negative() && !failed && judgement.mark != Mark::Kept;
        let spared = matches!(judgement.mark, Mark::Forgiven | Mark::Spared);
        let typed = denied
            && judgement.mark != Mark::Tolerated
            && !spared
            && (finding.verdict.is_none() || self.forces_type);
        let uniform = [
            (
                spared || denied && is_privileged && judgement.mark != Mark::Tolerated,
                &self.immune,
            ),
            (denied && !spared, &self.reject),
            (typed, &self.reject_type),
            (failed && judgement.mark != Mark::Kept, &self.on_error),
            (judgement.mark == Mark::Shadow, &self.shadow),
        ];
        let uniform = uniform
            .into_iter()
            .filter(|(decided, _)| *decided)
            .map(|(_, text)| text);
        let places = self.places.iter().filter(move |_| counts);
        places
            .chain(uniform)
            .map(String::as_str)
            .filter(|text| !text.is_empty())
    }
}
