//! A plugin's own settings: plain data with places, and secrets that stand elsewhere.

use std::collections::BTreeMap;
use std::ops::Range;

use gatepost_protocol::Value;
use toml::de::DeValue;

use super::mistakes::Span;
use super::reader::{Item, Reader, integer};

/// Tables and lists within each other; the wire has room for 16 with its own (docs/protocol.md §2).
const MAX_DEPTH: usize = 8;
/// Integers on the wire (docs/protocol.md §2).
const MAX_INTEGER: i64 = 1 << 53;

impl Reader {
    /// Reads a setting and notes where its parts stand. What is wrong becomes nil, so that its key is still there.
    pub fn setting(&mut self, key: Range<usize>, item: &Item<'_>) -> (Value, Span) {
        let mut span = Span {
            key,
            value: item.span(),
            parts: BTreeMap::new(),
        };
        let value = self.setting_value(item, &mut span, MAX_DEPTH);
        (value.unwrap_or_default(), span)
    }

    fn setting_value(&mut self, item: &Item<'_>, span: &mut Span, depth: usize) -> Option<Value> {
        let refuse = |reader: &mut Reader, message: &str| {
            reader.mistake(item.span(), message);
            None
        };
        if depth == 0 {
            return refuse(
                self,
                "this lies too deep in tables and lists; 8 are the most",
            );
        }
        match item.get_ref() {
            DeValue::String(text) => Some(Value::Text(text.to_string())),
            DeValue::Boolean(truth) => Some(Value::Boolean(*truth)),
            DeValue::Integer(_) => {
                match integer(item).filter(|n| (-MAX_INTEGER..=MAX_INTEGER).contains(n)) {
                    Some(number) => Some(Value::Integer(number)),
                    None => refuse(
                        self,
                        "this number is too large; whole numbers go to 9007199254740992 either way",
                    ),
                }
            }
            DeValue::Float(_) => refuse(
                self,
                "plugins take no decimal fractions; write it as text in quotes, or as a whole number",
            ),
            DeValue::Datetime(_) => refuse(
                self,
                "plugins take no dates and times; write it as text in quotes",
            ),
            DeValue::Array(items) => {
                let mut list = Vec::with_capacity(items.len());
                for (index, item) in items.iter().enumerate() {
                    let value = self.part(index.to_string(), item.span(), item, span, depth);
                    list.push(value);
                }
                Some(Value::List(list))
            }
            DeValue::Table(_) if is_secret(item) => self.secret(item).map(Value::Text),
            DeValue::Table(table) => {
                let mut map = BTreeMap::new();
                for (key, item) in table.iter() {
                    let name = key.get_ref().to_string();
                    let value = self.part(name.clone(), key.span(), item, span, depth);
                    map.insert(name, value);
                }
                Some(Value::Map(map))
            }
        }
    }

    fn part(
        &mut self,
        name: String,
        key: Range<usize>,
        item: &Item<'_>,
        whole: &mut Span,
        depth: usize,
    ) -> Value {
        let mut span = Span {
            key,
            value: item.span(),
            parts: BTreeMap::new(),
        };
        let value = self.setting_value(item, &mut span, depth - 1);
        whole.parts.insert(name, span);
        value.unwrap_or_default()
    }

    /// Text, or the secret that `{ file = "…" }` or `{ env = "…" }` names.
    pub fn text_or_secret(&mut self, item: &Item<'_>) -> Option<String> {
        if is_secret(item) {
            self.secret(item)
        } else {
            self.text(item).map(str::to_owned)
        }
    }

    fn secret(&mut self, item: &Item<'_>) -> Option<String> {
        let table = item.get_ref().as_table()?;
        let (key, item) = table.iter().next()?;
        let name = self.some_text(item)?;
        let read = if key.get_ref() == "file" {
            std::fs::read_to_string(name).map_err(|error| format!("cannot read `{name}`: {error}"))
        } else {
            std::env::var(name).map_err(|error| match error {
                std::env::VarError::NotPresent => {
                    format!("the environment variable `{name}` is not set")
                }
                std::env::VarError::NotUnicode(_) => {
                    format!("the environment variable `{name}` holds no UTF-8")
                }
            })
        };
        match read {
            Ok(mut secret) => {
                // An editor ends the last line; the secret does not hold it.
                if secret.ends_with('\n') {
                    secret.pop();
                    if secret.ends_with('\r') {
                        secret.pop();
                    }
                }
                Some(secret)
            }
            Err(message) => {
                self.mistake(item.span(), message);
                None
            }
        }
    }
}

/// A table with the one key `file` or `env`.
fn is_secret(item: &Item<'_>) -> bool {
    item.get_ref().as_table().is_some_and(|table| {
        table.len() == 1 && (table.contains_key("file") || table.contains_key("env"))
    })
}
