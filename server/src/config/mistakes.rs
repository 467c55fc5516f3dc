//! What is wrong with a configuration, in words for the person who has to mend it.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use gatepost_protocol::SettingError;
use gatepost_protocol::settings::nearest;

use super::plugin::CORE_KEYS;
use super::source_text::SourceText;
use super::{Location, Override, PluginConfig, TlsConfig};

/// One mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// The file, as it was named.
    pub file: Arc<Path>,
    /// Where in it; `None` where the file as a whole is meant.
    pub place: Option<Place>,
    /// What is wrong, and what to write instead.
    pub message: String,
}

/// The part of a file that a mistake is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// From 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
    /// Characters on this line that are meant; at least 1.
    pub width: usize,
    /// The whole line.
    pub text: String,
}

/// All that is wrong, in the order of the file. Printed as it is to be shown, without a newline at the end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mistakes(Vec<Mistake>);

/// Where a plugin's settings stand in the file.
#[derive(Clone, Debug, Default)]
pub struct Spans {
    pub(super) source: Option<Arc<SourceText>>,
    pub(super) header: Range<usize>,
    pub(super) settings: BTreeMap<String, Span>,
    /// The keys of the uniform settings.
    pub(super) uniform: BTreeMap<&'static str, Range<usize>>,
}

/// Where one setting stands, and what it is made of.
#[derive(Clone, Debug, Default)]
pub(super) struct Span {
    /// Equal to `value` for an item of a list.
    pub key: Range<usize>,
    pub value: Range<usize>,
    /// By key, or by index from 0.
    pub parts: BTreeMap<String, Span>,
}

impl Mistake {
    /// A mistake about a file as a whole.
    pub fn in_file(file: &Path, message: impl Into<String>) -> Mistake {
        Mistake {
            file: file.into(),
            place: None,
            message: message.into(),
        }
    }

    pub(super) fn at(
        source: &SourceText,
        span: &Range<usize>,
        message: impl Into<String>,
    ) -> Mistake {
        let Location { file, line, column } = source.location(span.start);
        let text = source.line_at(span.start).to_owned();
        // What is meant can be the line's end, which has two characters where it is CRLF.
        let end = text.chars().count() + 1;
        let column = column.min(end);
        let width = source.slice(span.clone()).chars().count();
        let width = width.clamp(1, (end - column).max(1));
        let place = Place {
            line,
            column,
            width,
            text,
        };
        Mistake {
            file,
            place: Some(place),
            message: message.into(),
        }
    }
}

impl Mistakes {
    /// Sorts them by their place.
    pub fn new(mut mistakes: Vec<Mistake>) -> Mistakes {
        mistakes.sort_by_key(|mistake| {
            mistake
                .place
                .as_ref()
                .map(|place| (place.line, place.column))
        });
        Mistakes(mistakes)
    }

    /// Wrong settings of a plugin, each with its place: the key for a setting that nobody knows, the value for one that
    /// is wrong, the `[[plugin]]` line for what has no place of its own.
    pub fn from_settings(plugin: &PluginConfig, errors: Vec<SettingError>) -> Mistakes {
        Mistakes::at_spans(&plugin.spans, &plugin.location, errors)
    }

    /// The same for settings that a domain or a user has of its own.
    pub fn from_override(own: &Override, errors: Vec<SettingError>) -> Mistakes {
        Mistakes::at_spans(&own.spans, &own.location, errors)
    }

    /// What is wrong with the files that `[tls]` names, each at the key that names it.
    pub fn in_tls(tls: &TlsConfig, errors: Vec<SettingError>) -> Mistakes {
        Mistakes::at_spans(&tls.spans, &tls.location, errors)
    }

    fn at_spans(spans: &Spans, location: &Location, errors: Vec<SettingError>) -> Mistakes {
        let mistakes = errors
            .into_iter()
            .map(|error| spans.mistake(location, error));
        Mistakes::new(mistakes.collect())
    }

    /// A mistake about a plugin as a whole, shown at its `[[plugin]]` line.
    pub fn at_plugin(plugin: &PluginConfig, message: impl Into<String>) -> Mistakes {
        let error = SettingError {
            path: Vec::new(),
            message: message.into(),
        };
        Mistakes::from_settings(plugin, vec![error])
    }

    /// Adds others behind these.
    pub fn extend(&mut self, others: Mistakes) {
        self.0.extend(others.0);
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Each of them.
    pub fn iter(&self) -> std::slice::Iter<'_, Mistake> {
        self.0.iter()
    }
}

impl Spans {
    /// Where a uniform setting, such as `reject`, was set; `None`: it was not.
    pub fn location_of(&self, key: &str) -> Option<Location> {
        let span = self.uniform.get(key)?;
        Some(self.source.as_ref()?.location(span.start))
    }

    fn mistake(&self, header: &Location, error: SettingError) -> Mistake {
        let Some(source) = &self.source else {
            return Mistake {
                file: header.file.clone(),
                place: None,
                message: error.message,
            };
        };
        let (span, message) = self.place(error);
        Mistake::at(source, &span, message)
    }

    /// The deepest part of the file that the error's path leads to, and the message.
    pub(super) fn place(&self, error: SettingError) -> (Range<usize>, String) {
        let mut parts = &self.settings;
        let mut found = None;
        let mut whole_path = true;
        for step in &error.path {
            let Some(span) = parts.get(step) else {
                whole_path = false;
                break;
            };
            found = Some(span);
            parts = &span.parts;
        }
        let Some(span) = found else {
            return (self.header.clone(), error.message);
        };
        // The error carries no kind; its sentence is made by `settings::unknown_key`.
        if !whole_path || !error.message.starts_with("unknown setting `") {
            return (span.value.clone(), error.message);
        }
        let message = match error.path.as_slice() {
            [key] => with_core_keys(key, error.message),
            _ => error.message,
        };
        (span.key.clone(), message)
    }
}

/// A plugin knows its own settings; a slip in `reject` or `timeout` is one in the core's.
fn with_core_keys(key: &str, message: String) -> String {
    match nearest(key, CORE_KEYS.iter().copied()) {
        Some(name) if !message.contains("did you mean") => {
            format!("unknown setting `{key}`; did you mean `{name}`?")
        }
        _ => message,
    }
}

/// A line of a file, or what is said of a part of it, for a terminal. A tab would move the caret away from its column, other control characters worse.
fn printable(text: &str) -> String {
    let printable = |character: char| match character {
        '\t' => ' ',
        character if character.is_control() => '?',
        character => character,
    };
    text.chars().map(printable).collect()
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (file, message) = (self.file.display(), printable(&self.message));
        let Some(place) = &self.place else {
            return write!(f, "{file}: {message}");
        };
        let Place {
            line,
            column,
            width,
            text,
        } = place;
        let text = printable(text);
        writeln!(f, "{file}:{line}:{column}: {message}")?;
        writeln!(f, "{line:>5} | {text}")?;
        write!(
            f,
            "{:>5} | {:2$}{3}",
            "",
            "",
            column - 1,
            "^".repeat(*width)
        )
    }
}

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, mistake) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            mistake.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for Mistakes {}

impl From<Mistake> for Mistakes {
    fn from(mistake: Mistake) -> Mistakes {
        Mistakes(vec![mistake])
    }
}
