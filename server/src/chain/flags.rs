//! The core's flags (relay client, whitelisted, immune), and which plugins honour them: who is not asked, and whose failures cost nothing.

use std::borrow::Cow;

use gatepost_protocol::{Hook, Immune, Outcome};

use super::policy::{Finding, Judgement, Mark};
use super::visit::Visit;
use super::{Chain, Rules};

impl Chain {
    /// Whether a plugin is not to be asked about this client, for a flag that the client has. What waits for the recipients to judge it is asked for where
    /// any of them wants to know.
    pub(super) fn spares(&self, visit: &Visit, hook: Hook, at: usize) -> bool {
        visit.session.is_privileged()
            && is_about_client(hook)
            && self.rules(visit, at).immune == Immune::Skip
            && !(self.is_before_recipients(visit, hook) && self.profiles.differ_in_immunity(at))
    }

    /// Notes that a plugin is not asked about a client that it lets be.
    pub(super) fn spare(&self, visit: &mut Visit, hook: Hook, at: usize) {
        let why = visit.session.privilege().unwrap_or_default();
        let finding = Finding::from(Outcome::skip(why));
        let mut judgement = self.rules(visit, at).judge(&finding);
        judgement.mark = Mark::Spared;
        self.log(visit, hook, at, &judgement, &finding);
        self.trace(visit, hook, at, &judgement, &finding);
        self.announce(visit, hook, &self.members[at], &judgement, &finding.message);
    }

    /// The uniform settings in force for the recipients at hand, as they are towards the client at a hook.
    pub(super) fn rules_at(&self, visit: &Visit, hook: Hook, at: usize) -> Rules {
        let is_privileged = is_about_client(hook) && visit.session.is_privileged();
        self.rules(visit, at).towards(is_privileged)
    }
}

/// Whether what is found at a hook is held against the client, or its message.
pub(super) const fn is_about_client(hook: Hook) -> bool {
    matches!(
        hook,
        Hook::PreConnection
            | Hook::Connect
            | Hook::Helo
            | Hook::Ehlo
            | Hook::Mail
            | Hook::Rcpt
            | Hook::Data
            | Hook::DataHeadersEnd
            | Hook::DataLines
            | Hook::DataPostHeaders
            | Hook::DataPost
            | Hook::QueuePre
            | Hook::Rset
            | Hook::Noop
            | Hook::Quit
            | Hook::Vrfy
            | Hook::Help
            | Hook::UnrecognizedCommand
    )
}

/// How a failure was dealt with, as its log line says.
pub(super) fn mark(visit: &Visit, judgement: &Judgement) -> Option<Cow<'static, str>> {
    let why = match judgement.mark {
        Mark::Forgiven => visit.session.privilege(),
        _ => None,
    };
    judgement.mark.text(why.as_deref())
}
