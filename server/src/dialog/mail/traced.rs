//! What the dialog writes down of a session for whoever asks why: its commands and replies, and what became of each recipient.

use std::sync::Arc;

use super::replies::Each;
use super::shares::{Delivery, Fate};
use super::{Mail, Verb};
use crate::chain::Profile;
use crate::config::Mixed;
use crate::dialog::{Stream, Wire};
use crate::report::{self, Limit};

/// A command whose reply is not there yet.
pub(super) struct Asked {
    command: String,
    /// Where its reply begins in what is sent.
    from: u64,
    in_transaction: bool,
}

impl Mail {
    /// Notes a command, where notes are taken. What may be a secret is left out.
    pub(super) fn note_command<S: Stream>(
        &self,
        wire: &mut Wire<S>,
        verb: Option<Verb>,
        name: &[u8],
        argument: &[u8],
    ) -> Option<Asked> {
        self.visit.trace.as_ref()?;
        // A client that lost its way may say a password where a command is due.
        let (name, argument) = match verb {
            None => (&b"(no command)"[..], &b""[..]),
            Some(Verb::Auth) => {
                let mechanism = argument.split(|byte| *byte == b' ').next();
                (name, mechanism.unwrap_or_default())
            }
            Some(_) => (name, argument),
        };
        let mut command = String::from_utf8_lossy(name).into_owned();
        if !argument.is_empty() {
            command.push(' ');
            command.push_str(&String::from_utf8_lossy(argument));
        }
        Some(Asked {
            command,
            from: wire.written(),
            in_transaction: self.visit.session.transaction.number > 0,
        })
    }

    /// Notes the reply to a command; the record of a transaction that ended with it goes to the journal.
    pub(super) fn note_reply<S: Stream>(
        &mut self,
        wire: &mut Wire<S>,
        verb: Option<Verb>,
        asked: Option<Asked>,
    ) {
        let (Some(asked), Some(trace)) = (asked, &mut self.visit.trace) else {
            return;
        };
        let reply = wire.written_since(asked.from);
        let is_taken = reply.first() == Some(&b'2');
        let refused = match reply.first() {
            Some(b'4') => "put off",
            _ => "refused",
        };
        let shown = match verb {
            // The list of what is offered would be in every record.
            Some(Verb::Hello(_)) if is_taken => first_line(reply),
            _ => reply,
        };
        let in_transaction = asked.in_transaction || self.visit.session.transaction.number > 0;
        trace.reply(in_transaction, &asked.command, shown);
        if verb == Some(Verb::Rcpt) && !is_taken {
            trace.told(
                path_of(&asked.command),
                String::from_utf8_lossy(first_line(reply)).trim_end(),
                refused.to_owned(),
            );
        }
        let of_message = matches!(verb, Some(Verb::Data | Verb::Bdat));
        self.end_record(of_message.then(|| reply.to_vec()).as_deref());
    }

    /// A limit is exceeded: it is counted, and its setting noted as what decides about the reply that comes next.
    pub(super) fn exceeded(&mut self, limit: Limit) {
        report::count(limit);
        self.because(limit.name());
    }

    /// The same for the biggest message of recipients with these settings.
    pub(super) fn exceeded_size(&mut self, profile: Option<&Arc<Profile>>) {
        report::count(Limit::Size);
        match profile.and_then(|profile| profile.max_size.as_ref()) {
            Some(own) => self.because_of(&own.origin),
            None => self.because(Limit::Size.name()),
        }
    }

    /// Notes a setting of the core as what decides about the reply that comes next.
    pub(super) fn because(&mut self, key: &str) {
        let shared = Arc::clone(&self.shared);
        if let Some(origin) = shared.config.origins.get(key) {
            self.because_of(origin);
        }
    }

    pub(super) fn because_of(&mut self, origin: &str) {
        if let Some(trace) = &mut self.visit.trace {
            trace.because(origin.to_owned());
        }
    }

    /// Notes the greeting, or a reply to what was no line.
    pub(super) fn note_said(&mut self, what: &str, said: &[u8]) {
        if let Some(trace) = &mut self.visit.trace {
            let in_transaction = self.visit.session.transaction.number > 0;
            trace.reply(in_transaction, what, said);
        }
    }

    /// The record of the transaction that is over goes to the journal, if one is. `reply`: what was said about its message.
    pub(super) fn end_record(&mut self, reply: Option<&[u8]>) {
        if let Some(trace) = &mut self.visit.trace
            && let Some(record) = trace.end(reply)
            && let Some(journal) = &self.shared.journal
        {
            journal.add(record);
        }
    }

    /// The end of the session: what was in no record yet goes to the journal.
    pub(super) fn end_records(&mut self) {
        self.end_record(None);
        if let Some(trace) = &mut self.visit.trace
            && let Some(record) = trace.rest(&self.visit.session)
            && let Some(journal) = &self.shared.journal
        {
            journal.add(record);
        }
    }

    /// The transaction at hand is over.
    pub(super) fn close_record(&mut self) {
        if let Some(trace) = &mut self.visit.trace {
            let accepted = self.accepted.iter().map(|accepted| &accepted.address);
            trace.close(&self.visit.session, accepted);
        }
    }

    /// Notes whom the hooks are about that come next: a share of the recipients, or all of them.
    pub(super) fn note_share(&mut self, is_part: bool) {
        if let Some(trace) = &mut self.visit.trace {
            let recipients = &self.visit.session.transaction.recipients;
            trace.concern(is_part.then_some(recipients));
        }
    }

    /// Notes what became of a message for each of its recipients, and what the client is told.
    pub(super) fn note_fates(&mut self, delivery: &Delivery, each: Each) {
        if self.visit.trace.is_none() {
            return;
        }
        let overall = self.overall(delivery);
        let is_taken = delivery.is_taken();
        let members = self.accepted.iter().zip(delivery.fates.iter().flatten());
        let members = members.map(|(accepted, fate)| (&accepted.address, fate, each == Each::No));
        let strays = delivery.strays.iter().map(|(to, fate)| (to, fate, true));
        let told: Vec<(String, String, String)> = members
            .chain(strays)
            .map(|(address, fate, is_untold)| {
                let told = if is_untold { &overall } else { fate };
                let became = self.became(fate, is_taken && is_untold);
                (address.as_str().to_owned(), self.told(told).line(), became)
            })
            .collect();
        if let Some(trace) = &mut self.visit.trace {
            for (address, reply, became) in told {
                trace.told(&address, &reply, became);
            }
        }
    }

    /// `is_settled`: the client was told yes for others, and does not hear of this one.
    fn became(&self, fate: &Fate, is_settled: bool) -> String {
        let why = fate.why();
        let would = match self.visit.rehearsal {
            true => "would be ",
            false => "",
        };
        if fate.is_taken() {
            return format!("{would}{} by {why}", fate.what());
        }
        let refused = format!("refused: {why}");
        if !is_settled {
            return refused;
        }
        let then = if self.told(fate).is_soft() {
            "kept, to be tried again"
        } else if self.shared.config.mixed == Mixed::Discard {
            "discarded"
        } else {
            "its sender is told by a notification"
        };
        format!("{refused}; {then}")
    }
}

fn first_line(reply: &[u8]) -> &[u8] {
    memchr::memchr(b'\n', reply).map_or(reply, |end| &reply[..=end])
}

/// The address in `RCPT TO:<bob@example.org>`, or all of it where it has none.
fn path_of(command: &str) -> &str {
    let path = command.split_once('<').map(|(_, rest)| rest);
    path.and_then(|rest| rest.split_once('>'))
        .map_or(command, |(path, _)| path)
}
