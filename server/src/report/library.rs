//! What libraries say through `tracing`: their warnings and errors become lines of the log.

use std::fmt::{self, Write};

use gatepost_protocol::Level;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

/// Listens from now on. Where something else in the process does already, it goes on doing so.
pub(super) fn listen() {
    let _ = tracing::subscriber::set_global_default(Library {
        enabled: super::enabled,
        say: |level, library, text| {
            super::line(level, "", None, library, format_args!("{text}"));
        },
    });
}

struct Library {
    enabled: fn(Level) -> bool,
    say: fn(Level, &str, &str),
}

impl Subscriber for Library {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= tracing::Level::WARN && (self.enabled)(level(metadata))
    }

    fn max_level_hint(&self) -> Option<tracing::level_filters::LevelFilter> {
        Some(tracing::level_filters::LevelFilter::WARN)
    }

    fn event(&self, event: &Event<'_>) {
        let metadata = event.metadata();
        let library = metadata.target().split("::").next().unwrap_or_default();
        let mut text = Text(String::new());
        event.record(&mut text);
        (self.say)(level(metadata), library, &text.0);
    }

    // Spans carry nothing that a line of the log shows.
    fn new_span(&self, _span: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _span: &Id, _values: &Record<'_>) {}

    fn record_follows_from(&self, _span: &Id, _follows: &Id) {}

    fn enter(&self, _span: &Id) {}

    fn exit(&self, _span: &Id) {}
}

fn level(metadata: &Metadata<'_>) -> Level {
    if *metadata.level() == tracing::Level::ERROR {
        Level::Error
    } else {
        Level::Warn
    }
}

/// `message, name=value, …`
struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if !self.0.is_empty() {
            self.0.push_str(", ");
        }
        // Writing to a string fails only where the value's own `Debug` does.
        let _ = match field.name() {
            "message" => write!(self.0, "{value:?}"),
            name => write!(self.0, "{name}={value:?}"),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;

    thread_local! {
        static SAID: RefCell<Vec<String>> = RefCell::default();
    }

    #[test]
    fn warnings_and_errors_are_heard_and_nothing_else() {
        let library = Library {
            enabled: |level| level != Level::Error,
            say: |level, library, text| {
                SAID.with_borrow_mut(|said| {
                    said.push(format!("{} {library}: {text}", level.name()))
                });
            },
        };
        tracing::subscriber::with_default(library, || {
            tracing::warn!(target: "hickory_resolver::lookup", tries = 3, "no answer from {}", "192.0.2.1");
            tracing::error!("off");
            tracing::info!("too talkative");
            tracing::info_span!("span").in_scope(|| tracing::warn!(only = true));
        });
        assert_eq!(
            SAID.take(),
            [
                "warn hickory_resolver: no answer from 192.0.2.1, tries=3",
                "warn gatepost: only=true",
            ]
        );
    }
}
