//! Who is not told: answers to automatic mail make loops, and to forged senders they are spam.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use gatepost_protocol::{HeaderBlock, Parameters, Session};

use super::Action;
use crate::config::OutboxConfig;

const HOUR: Duration = Duration::from_secs(60 * 60);

/// Why there is no notification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Suppressed {
    /// RFC 5321 §4.5.5, §6.1.
    NullSender,
    /// RFC 3834 §2.
    Automatic(&'static str),
    /// RFC 3461 §4.1.
    NotAskedFor,
    /// RFC 3834 §4.
    TooManyToSender,
    TooMany,
}

impl fmt::Display for Suppressed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Suppressed::NullSender => f.write_str("the sender is null"),
            Suppressed::Automatic(field) => {
                write!(f, "the message is automatic, by its {field} field")
            }
            Suppressed::NotAskedFor => f.write_str("its NOTIFY does not ask for one"),
            Suppressed::TooManyToSender => f.write_str(
                "the sender got `max_notifications_per_sender` of them within an hour already",
            ),
            Suppressed::TooMany => {
                f.write_str("there were `max_notifications` of them within an hour already")
            }
        }
    }
}

/// A kind of notification, as NOTIFY names it (RFC 3461 §4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    Failure,
    Delay,
    Success,
}

impl From<Action> for Event {
    fn from(action: Action) -> Event {
        match action {
            Action::Failed => Event::Failure,
            Action::Delayed(_) => Event::Delay,
            Action::Delivered | Action::Relayed => Event::Success,
        }
    }
}

impl Event {
    /// Whether NOTIFY asks for it by name.
    pub fn is_named(self, parameters: &Parameters) -> bool {
        let word = match self {
            Event::Failure => "FAILURE",
            Event::Delay => "DELAY",
            Event::Success => "SUCCESS",
        };
        let notify = parameters.get("NOTIFY").and_then(Option::as_deref);
        notify.is_some_and(|notify| {
            notify
                .split(',')
                .any(|asked| asked.eq_ignore_ascii_case(word))
        })
    }

    /// Whether the sender is to be told of it. Without NOTIFY it learns of failures, and of delays as we see fit (RFC 3461 §4.1): those who may relay are told of these, since they
    /// wait for an answer from somewhere else; a stranger's address may be forged, and most of what is late gets through.
    fn is_wanted(self, parameters: &Parameters, relay_client: bool) -> bool {
        match parameters.contains_key("NOTIFY") {
            true => self.is_named(parameters),
            false => self == Event::Failure || self == Event::Delay && relay_client,
        }
    }
}

/// Whether nobody is to be told of what became of a session's message for a recipient with these parameters of RCPT.
pub fn suppressed(session: &Session, recipient: &Parameters, event: Event) -> Option<Suppressed> {
    let transaction = &session.transaction;
    if transaction
        .sender
        .as_ref()
        .is_none_or(|sender| sender.is_null())
    {
        return Some(Suppressed::NullSender);
    }
    let automatic = transaction.header.as_ref().and_then(automatic);
    if let Some(field) = automatic {
        return Some(Suppressed::Automatic(field));
    }
    let is_wanted = event.is_wanted(recipient, session.connection.relay_client);
    (!is_wanted).then_some(Suppressed::NotAskedFor)
}

/// The field by which a message is automatic: a program's answer (RFC 3834 §5), or for many.
fn automatic(header: &HeaderBlock) -> Option<&'static str> {
    let first_word = |value: &[u8]| {
        let text = String::from_utf8_lossy(value);
        let word = text.split(|c: char| c == ';' || c == '(' || c.is_whitespace());
        word.map(str::to_ascii_lowercase)
            .find(|word| !word.is_empty())
            .unwrap_or_default()
    };
    if header
        .all("Auto-Submitted")
        .any(|value| first_word(value) != "no")
    {
        return Some("Auto-Submitted");
    }
    let many = ["bulk", "junk", "list"];
    if header
        .all("Precedence")
        .any(|value| many.contains(&first_word(value).as_str()))
    {
        return Some("Precedence");
    }
    header.first("List-Id").map(|_| "List-Id")
}

/// How many notifications go out, in all and to one address. It counts anew every hour, and so remembers no more addresses than there may be notifications in one.
pub struct Rate {
    max: usize,
    max_per_sender: usize,
    counts: Mutex<Counts>,
}

struct Counts {
    since: Instant,
    all: usize,
    senders: HashMap<String, usize>,
}

impl Rate {
    pub fn new(config: &OutboxConfig) -> Rate {
        Rate {
            max: config.max_notifications,
            max_per_sender: config.max_notifications_per_sender,
            counts: Mutex::new(Counts {
                since: Instant::now(),
                all: 0,
                senders: HashMap::new(),
            }),
        }
    }

    /// Counts a notification to an address, in lower case; or says why it must not be.
    pub fn count(&self, sender: String, now: Instant) -> Result<(), Suppressed> {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if now.saturating_duration_since(counts.since) >= HOUR {
            *counts = Counts {
                since: now,
                all: 0,
                senders: HashMap::new(),
            };
        }
        if counts.all >= self.max {
            return Err(Suppressed::TooMany);
        }
        let max = self.max_per_sender;
        let Counts { all, senders, .. } = &mut *counts;
        let of_sender = senders.entry(sender).or_default();
        if *of_sender >= max {
            return Err(Suppressed::TooManyToSender);
        }
        *of_sender += 1;
        *all += 1;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use gatepost_protocol::{Address, Transaction};

    fn session(header: &str) -> Session {
        let transaction = Transaction {
            sender: Some(Address::parse("alice@client.example").unwrap()),
            header: Some(HeaderBlock::parse(Bytes::from(header.to_owned()))),
            ..Transaction::default()
        };
        Session {
            transaction,
            ..Session::default()
        }
    }

    fn notify(value: &str) -> Parameters {
        Parameters::from([("NOTIFY".to_owned(), Some(value.to_owned()))])
    }

    #[test]
    fn nobody_answers_a_null_sender_or_an_automatic_message() {
        let none = Parameters::new();
        let mut bounce = session("Subject: x\r\n");
        bounce.transaction.sender = Some(Address::null());
        assert_eq!(
            suppressed(&bounce, &none, Event::Failure),
            Some(Suppressed::NullSender)
        );
        for (header, field) in [
            ("Auto-Submitted: auto-replied\r\n", Some("Auto-Submitted")),
            (
                "auto-submitted: (a robot) Auto-Generated; x=y\r\n",
                Some("Auto-Submitted"),
            ),
            ("Auto-Submitted:\r\n", Some("Auto-Submitted")),
            ("Auto-Submitted: NO\r\n", None),
            ("Auto-Submitted: no; owner=x\r\n", None),
            ("Precedence: Bulk\r\n", Some("Precedence")),
            ("Precedence: list\r\n", Some("Precedence")),
            ("Precedence: junk\r\n", Some("Precedence")),
            ("Precedence: first-class\r\n", None),
            ("List-Id: <x.example.org>\r\n", Some("List-Id")),
            ("Subject: Precedence: bulk\r\n", None),
        ] {
            assert_eq!(
                suppressed(&session(header), &none, Event::Failure),
                field.map(Suppressed::Automatic),
                "{header}"
            );
        }
    }

    #[test]
    fn notify_decides() {
        let mut session = session("Subject: x\r\n");
        const NONE: &[Event] = &[];
        use Event::{Delay, Failure, Success};
        for (parameters, stranger, relay_client) in [
            (Parameters::new(), &[Failure][..], &[Failure, Delay][..]),
            (notify("NEVER"), NONE, NONE),
            (notify("SUCCESS"), &[Success], &[Success]),
            (
                notify("success,failure"),
                &[Failure, Success],
                &[Failure, Success],
            ),
            (notify("DELAY"), &[Delay], &[Delay]),
            (
                notify("DELAY,FAILURE"),
                &[Failure, Delay],
                &[Failure, Delay],
            ),
        ] {
            for (may_relay, expected) in [(false, stranger), (true, relay_client)] {
                session.connection.relay_client = may_relay;
                let is_told = |event: &Event| suppressed(&session, &parameters, *event).is_none();
                let told: Vec<Event> = [Failure, Delay, Success]
                    .into_iter()
                    .filter(is_told)
                    .collect();
                assert_eq!(told, expected, "{parameters:?} {may_relay}");
            }
        }
    }

    #[test]
    fn the_rate_is_limited_and_the_memory_with_it() {
        let rate = Rate::new(&OutboxConfig {
            max_notifications: 4,
            max_notifications_per_sender: 2,
            ..OutboxConfig::default()
        });
        let start = Instant::now();
        let count = |sender: &str, later| rate.count(sender.to_owned(), start + later);
        let soon = Duration::ZERO;
        assert_eq!(count("a@x", soon), Ok(()));
        assert_eq!(count("a@x", soon), Ok(()));
        assert_eq!(count("a@x", soon), Err(Suppressed::TooManyToSender));
        assert_eq!(count("b@x", soon), Ok(()));
        assert_eq!(count("c@x", soon), Ok(()));
        for sender in ["d@x", "e@x", "f@x"] {
            assert_eq!(count(sender, soon), Err(Suppressed::TooMany));
        }
        assert_eq!(count("a@x", HOUR + Duration::from_secs(1)), Ok(()));
        assert_eq!(rate.counts.lock().unwrap().senders.len(), 1);
    }
}
