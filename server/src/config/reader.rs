//! Walking a parsed file by hand, so that every mistake is found in one pass.

use std::net::IpAddr;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use gatepost_protocol::settings::{Kind, expected, nearest, parse_duration, parse_size};
use gatepost_protocol::{Level, Value};
use ipnet::IpNet;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::mistakes::Mistake;
use super::source_text::SourceText;
use super::types::{Address, Networks};

/// A value with its place.
pub(super) type Item<'a> = Spanned<DeValue<'a>>;

/// What the kernel has room for (unix(7)), less the NUL at its end.
const MAX_SOCKET_PATH: usize = 107;

/// Collects mistakes. What reads a value gives `None` for a wrong one, and has then said why.
pub(super) struct Reader {
    pub source: Arc<SourceText>,
    mistakes: Vec<(Range<usize>, Mistake)>,
    warnings: Vec<Mistake>,
}

impl Reader {
    pub fn new(source: Arc<SourceText>) -> Reader {
        Reader {
            source,
            mistakes: Vec::new(),
            warnings: Vec::new(),
        }
    }

    /// What was found: mistakes, and warnings.
    pub fn finish(self) -> (Vec<Mistake>, Vec<Mistake>) {
        let mistakes = self.mistakes.into_iter().map(|(_, mistake)| mistake);
        (mistakes.collect(), self.warnings)
    }

    /// Of several mistakes at one place only the first is kept: the others follow from it.
    pub fn mistake(&mut self, span: Range<usize>, message: impl Into<String>) {
        if self.mistakes.iter().all(|(other, _)| *other != span) {
            self.another(span, message);
        }
    }

    /// A mistake at a place that may have several of its own.
    pub fn another(&mut self, span: Range<usize>, message: impl Into<String>) {
        let mistake = Mistake::at(&self.source, &span, message);
        self.mistakes.push((span, mistake));
    }

    /// Something that works, but surely not as it was meant.
    pub fn warning(&mut self, span: Range<usize>, message: &str) {
        let message = format!("warning: {message}");
        self.warnings
            .push(Mistake::at(&self.source, &span, message));
    }

    fn expected<T>(&mut self, item: &Item<'_>, what: &str) -> Option<T> {
        self.mistake(item.span(), format!("expected {what}"));
        None
    }

    pub fn text<'a>(&mut self, item: &'a Item<'_>) -> Option<&'a str> {
        match item.get_ref().as_str() {
            Some(text) => Some(text),
            None => self.expected(item, expected(Kind::Text)),
        }
    }

    /// Text with something in it.
    pub fn some_text<'a>(&mut self, item: &'a Item<'_>) -> Option<&'a str> {
        let text = self.text(item)?;
        if text.trim().is_empty() {
            self.mistake(item.span(), "must not be empty");
            return None;
        }
        Some(text)
    }

    pub fn boolean(&mut self, item: &Item<'_>) -> Option<bool> {
        match item.get_ref().as_bool() {
            Some(value) => Some(value),
            None => self.expected(item, expected(Kind::Boolean)),
        }
    }

    pub fn integer(&mut self, item: &Item<'_>) -> Option<i64> {
        match integer(item) {
            Some(number) => Some(number),
            None => self.expected(item, expected(Kind::Integer)),
        }
    }

    /// A count or a number of bytes within bounds; `suffix` follows the bounds in the message.
    pub fn number(
        &mut self,
        item: &Item<'_>,
        kind: Kind,
        least: u64,
        most: u64,
        suffix: &str,
    ) -> Option<u64> {
        let number = match kind {
            Kind::Size => parse_size(&plain(item)),
            _ => integer(item).and_then(|number| u64::try_from(number).ok()),
        };
        let Some(number) = number else {
            return self.expected(item, expected(kind));
        };
        if number < least || number > most {
            let message = format!("must be from {least} to {most}{suffix}");
            self.mistake(item.span(), message);
            return None;
        }
        Some(number)
    }

    /// A time, more than none.
    pub fn duration(&mut self, item: &Item<'_>) -> Option<Duration> {
        let Some(duration) = item.get_ref().as_str().and_then(parse_duration) else {
            return self.expected(item, expected(Kind::Duration));
        };
        if duration.is_zero() {
            self.mistake(item.span(), "must be more than nothing");
            return None;
        }
        Some(duration)
    }

    pub fn list<'a>(&mut self, item: &'a Item<'_>) -> Option<Vec<(&'a str, Range<usize>)>> {
        let Some(items) = item.get_ref().as_array() else {
            return self.expected(item, expected(Kind::List));
        };
        let mut texts = Vec::with_capacity(items.len());
        for item in items.iter() {
            texts.push((self.text(item)?, item.span()));
        }
        Some(texts)
    }

    /// Folders, all of which are there.
    pub fn folders(&mut self, item: &Item<'_>) -> Option<Vec<PathBuf>> {
        let folders = self.list(item)?;
        let mut all_there = true;
        for (folder, span) in &folders {
            if !Path::new(folder).is_dir() {
                self.mistake(span.clone(), format!("there is no folder `{folder}`"));
                all_there = false;
            }
        }
        all_there.then(|| folders.into_iter().map(|(it, _)| it.into()).collect())
    }

    pub fn table<'a>(&mut self, item: &'a Item<'a>) -> Option<Keys<'a>> {
        match item.get_ref().as_table() {
            Some(table) => Some(Keys::new(table)),
            None => self.expected(item, expected(Kind::Map)),
        }
    }

    /// The tables of a `[[name]]` list.
    pub fn tables<'a>(&mut self, name: &str, item: &'a Item<'a>) -> Vec<&'a Item<'a>> {
        let hint = format!("`{name}` is a list of tables: write [[{name}]]");
        let Some(items) = item.get_ref().as_array() else {
            self.mistake(item.span(), hint);
            return Vec::new();
        };
        let (tables, others): (Vec<&Item<'_>>, Vec<&Item<'_>>) =
            items.iter().partition(|item| item.get_ref().is_table());
        for other in others {
            self.mistake(other.span(), hint.clone());
        }
        tables
    }

    pub fn address(&mut self, item: &Item<'_>) -> Option<Address> {
        let text = self.text(item)?;
        if let Some(path) = text.strip_prefix("unix:") {
            if (1..=MAX_SOCKET_PATH).contains(&path.len()) {
                return Some(Address::Unix(path.into()));
            }
            let message = format!("the path of a Unix socket has 1 to {MAX_SOCKET_PATH} bytes");
            self.mistake(item.span(), message);
            return None;
        }
        match text.parse() {
            Ok(address) => Some(Address::Tcp(address)),
            Err(_) => self.expected(
                item,
                "an IP address with a port, such as \"127.0.0.1:2525\" or \"[::1]:2525\", or a Unix socket, such as \"unix:/run/gatepost/lmtp.sock\"",
            ),
        }
    }

    /// A list of networks and single addresses.
    pub fn networks(&mut self, item: &Item<'_>) -> Option<Networks> {
        let texts = self.list(item)?;
        let mut networks = Vec::with_capacity(texts.len());
        for (text, span) in texts {
            let network = text
                .parse::<IpNet>()
                .or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
            match network {
                Ok(network) => networks.push(network),
                Err(_) => self.mistake(
                    span,
                    "expected a network or an address, such as \"10.0.0.0/8\" or \"2001:db8::1\"",
                ),
            }
        }
        Some(Networks(networks))
    }

    /// One of some words, or true or false among them.
    pub fn word<T>(
        &mut self,
        item: &Item<'_>,
        words: &[&str],
        read: impl Fn(&Value) -> Option<T>,
    ) -> Option<T> {
        let value = plain(item);
        // "true" in quotes is no truth.
        let quoted = matches!(value.as_text(), Some("true" | "false"));
        if let Some(found) = read(&value).filter(|_| !quoted) {
            return Some(found);
        }
        let shown = |word: &str| match word {
            "true" | "false" => word.to_owned(),
            word => format!("\"{word}\""),
        };
        let all: Vec<String> = words.iter().map(|word| shown(word)).collect();
        let meant = value
            .as_text()
            .and_then(|text| nearest(text, words.iter().copied()))
            .map(|word| format!("; did you mean {}?", shown(word)))
            .unwrap_or_default();
        self.expected(item, &format!("{}{meant}", or_list(&all)))
    }

    /// A log level by name or by number.
    pub fn level(&mut self, item: &Item<'_>) -> Option<Level> {
        let read = |value: &Value| match value {
            Value::Integer(number) => Level::parse(&number.to_string()),
            other => Level::parse(other.as_text()?),
        };
        self.word(item, &Level::NAMES, read)
    }
}

/// The value without its place, as far as settings of the core need it.
fn plain(item: &Item<'_>) -> Value {
    match item.get_ref() {
        DeValue::String(text) => Value::Text(text.to_string()),
        DeValue::Boolean(truth) => Value::Boolean(*truth),
        DeValue::Integer(_) => integer(item).map_or(Value::Nil, Value::Integer),
        _ => Value::Nil,
    }
}

pub(super) fn integer(item: &Item<'_>) -> Option<i64> {
    let number = item.get_ref().as_integer()?;
    i64::from_str_radix(number.as_str(), number.radix()).ok()
}

/// `a, b or c`.
pub(super) fn or_list(words: &[String]) -> String {
    match words {
        [] => String::new(),
        [word] => word.clone(),
        [first @ .., last] => format!("{} or {last}", first.join(", ")),
    }
}

/// A table, and which of its keys were asked for.
pub(super) struct Keys<'a> {
    table: &'a DeTable<'a>,
    known: Vec<&'static str>,
}

impl<'a> Keys<'a> {
    pub fn new(table: &'a DeTable<'a>) -> Keys<'a> {
        Keys {
            table,
            known: Vec::new(),
        }
    }

    /// The value of a key; asking makes the key known.
    pub fn get(&mut self, key: &'static str) -> Option<&'a Item<'a>> {
        self.known.push(key);
        self.table.get(key)
    }

    /// The same for a key that is read elsewhere.
    pub fn peek(&self, key: &str) -> Option<&'a Item<'a>> {
        self.table.get(key)
    }

    /// The place of a key that is set.
    pub fn key_span(&self, key: &str) -> Option<Range<usize>> {
        self.table
            .get_key_value(key)
            .map(|(spanned, _)| spanned.span())
    }

    /// What nobody asked for.
    pub fn rest(&self) -> impl Iterator<Item = (&'a str, Range<usize>, &'a Item<'a>)> {
        self.table
            .iter()
            .filter(|(key, _)| {
                let key = &**key.get_ref();
                !self.known.contains(&key)
            })
            .map(|(key, item)| (&**key.get_ref(), key.span(), item))
    }

    /// Says of every key that nobody asked for that it is unknown.
    pub fn finish(self, reader: &mut Reader) {
        for (key, span, _) in self.rest() {
            let message = gatepost_protocol::settings::unknown_key(key, self.known.iter().copied());
            reader.mistake(span, message);
        }
    }
}
