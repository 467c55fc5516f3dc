//! A plugin's settings: declared once with name, type, default and a sentence; checked by the core and read back typed.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::value::Value;

/// A setting's type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Text.
    Text,
    /// A whole number.
    Integer,
    /// True or false.
    Boolean,
    /// A time with its unit: `"500ms"`, `"10s"`, `"5m"`, `"2h"`, `"1d"`.
    Duration,
    /// Bytes with their unit: `"100B"`, `"64KB"`, `"50MB"`, `"2GB"`; powers of 1024.
    Size,
    /// A list of texts.
    List,
    /// Names to values.
    Map,
    /// Whatever the plugin makes of it.
    #[serde(other)]
    Any,
}

/// A setting that a plugin knows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Setting {
    /// The key.
    pub name: Cow<'static, str>,
    /// Its type.
    #[serde(rename = "type")]
    pub kind: Kind,
    /// What holds where it is not set.
    #[serde(default, skip_serializing_if = "is_nil")]
    pub default: Value,
    /// Whether it must be set.
    #[serde(default, skip_serializing_if = "is_false")]
    pub required: bool,
    /// One sentence.
    #[serde(default)]
    pub help: Cow<'static, str>,
}

fn is_nil(value: &Value) -> bool {
    *value == Value::Nil
}

fn is_false(truth: &bool) -> bool {
    !truth
}

macro_rules! kinds {
    ($($method:ident $kind:ident $what:literal,)*) => {
        $(#[doc = concat!("A setting that is ", $what, ".")]
        pub fn $method(name: &'static str, help: &'static str) -> Setting {
            Setting { name: name.into(), kind: Kind::$kind, default: Value::Nil, required: false, help: help.into() }
        })*
    };
}

impl Setting {
    kinds! {
        text Text "text",
        integer Integer "a whole number",
        boolean Boolean "true or false",
        duration Duration "a time with its unit",
        size Size "a number of bytes with its unit",
        list List "a list of texts",
        map Map "a table",
        any Any "anything",
    }

    /// What holds where it is not set. Durations and sizes are given as they are written, `"5s"`.
    #[must_use]
    pub fn default(mut self, value: impl Into<Value>) -> Setting {
        self.default = value.into();
        self
    }

    /// It must be set.
    #[must_use]
    pub fn required(mut self) -> Setting {
        self.required = true;
        self
    }
}

/// A setting that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct SettingError {
    /// Keys and indices that lead to it, such as `["zones", "2"]`; empty for none.
    pub path: Vec<String>,
    /// What is wrong, and what to write instead.
    pub message: String,
}

impl SettingError {
    /// An error about one key.
    pub fn at(key: &str, message: impl Into<String>) -> SettingError {
        SettingError {
            path: vec![key.to_owned()],
            message: message.into(),
        }
    }
}

/// Checked settings. Asking for a key as another type than was declared gives that type's empty value.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Settings(BTreeMap<String, Value>);

impl Settings {
    /// Checks what was given against what was declared, all of it, and fills in defaults.
    pub fn check(
        declared: &[Setting],
        given: &BTreeMap<String, Value>,
    ) -> Result<Settings, Vec<SettingError>> {
        let mut errors = Vec::new();
        for (key, value) in given {
            let Some(setting) = declared.iter().find(|setting| setting.name == key.as_str()) else {
                errors.push(SettingError::at(
                    key,
                    unknown_key(key, declared.iter().map(|setting| &*setting.name)),
                ));
                continue;
            };
            if let Err(message) = check_kind(setting.kind, value) {
                errors.push(SettingError::at(key, message));
            }
        }
        let mut values = given.clone();
        for setting in declared {
            if given.contains_key(&*setting.name) {
                continue;
            }
            if setting.required {
                errors.push(SettingError {
                    path: Vec::new(),
                    message: format!("`{}` is missing: {}", setting.name, setting.help),
                });
            }
            if setting.default != Value::Nil {
                values.insert(setting.name.clone().into_owned(), setting.default.clone());
            }
        }
        if errors.is_empty() {
            Ok(Settings(values))
        } else {
            Err(errors)
        }
    }

    /// Settings that nobody declared, as they are.
    pub fn unchecked(values: BTreeMap<String, Value>) -> Settings {
        Settings(values)
    }

    /// The value, if there is one.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.0.get(key)
    }

    /// All of them.
    pub fn values(&self) -> &BTreeMap<String, Value> {
        &self.0
    }

    /// Text, if it is set.
    pub fn text(&self, key: &str) -> Option<&str> {
        self.get(key)?.as_text()
    }

    /// A whole number; 0 if it is not set.
    pub fn integer(&self, key: &str) -> i64 {
        self.get(key)
            .and_then(Value::as_integer)
            .unwrap_or_default()
    }

    /// Whether it is set to true.
    pub fn boolean(&self, key: &str) -> bool {
        self.get(key)
            .and_then(Value::as_boolean)
            .unwrap_or_default()
    }

    /// A time, if it is set.
    pub fn duration(&self, key: &str) -> Option<Duration> {
        parse_duration(self.text(key)?)
    }

    /// Bytes, if it is set.
    pub fn size(&self, key: &str) -> Option<u64> {
        parse_size(self.get(key)?)
    }

    /// Texts; none if it is not set.
    pub fn list(&self, key: &str) -> Vec<&str> {
        match self.get(key) {
            Some(Value::List(list)) => list.iter().filter_map(Value::as_text).collect(),
            _ => Vec::new(),
        }
    }
}

fn check_kind(kind: Kind, value: &Value) -> Result<(), String> {
    let fits = match kind {
        Kind::Any => true,
        Kind::Text => value.as_text().is_some(),
        Kind::Integer => value.as_integer().is_some(),
        Kind::Boolean => value.as_boolean().is_some(),
        Kind::Duration => value.as_text().and_then(parse_duration).is_some(),
        Kind::Size => parse_size(value).is_some(),
        Kind::List => {
            matches!(value, Value::List(list) if list.iter().all(|item| item.as_text().is_some()))
        }
        Kind::Map => matches!(value, Value::Map(_)),
    };
    if fits {
        Ok(())
    } else {
        Err(format!("expected {}", expected(kind)))
    }
}

/// How a value of a type is written, for messages.
pub const fn expected(kind: Kind) -> &'static str {
    match kind {
        Kind::Text => "text in quotes",
        Kind::Integer => "a whole number",
        Kind::Boolean => "true or false",
        Kind::Duration => "a time with its unit, such as \"500ms\", \"10s\", \"5m\" or \"2h\"",
        Kind::Size => "a size with its unit, such as \"64KB\" or \"50MB\"",
        Kind::List => "a list of texts, such as [\"a\", \"b\"]",
        Kind::Map => "a table",
        Kind::Any => "a value",
    }
}

/// Reads `500ms`, `10s`, `5m`, `2h`, `1d`.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let (number, unit) = split_unit(text)?;
    let milliseconds: u64 = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    number.checked_mul(milliseconds).map(Duration::from_millis)
}

/// Reads `100B`, `64KB`, `50MB`, `2GB` (powers of 1024), or a bare number of bytes.
pub fn parse_size(value: &Value) -> Option<u64> {
    if let Some(number) = value.as_integer() {
        return u64::try_from(number).ok();
    }
    let (number, unit) = split_unit(value.as_text()?)?;
    let bytes: u64 = match unit {
        "B" => 1,
        "KB" => 1 << 10,
        "MB" => 1 << 20,
        "GB" => 1 << 30,
        _ => return None,
    };
    number.checked_mul(bytes)
}

fn split_unit(text: &str) -> Option<(u64, &str)> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    Some((text[..digits].parse().ok()?, text[digits..].trim_start()))
}

/// The sentence about a key that nobody knows, with the nearest name that is known.
pub fn unknown_key<'a>(key: &str, known: impl Iterator<Item = &'a str> + Clone) -> String {
    match nearest(key, known.clone()) {
        Some(name) => format!("unknown setting `{key}`; did you mean `{name}`?"),
        None => {
            let known: Vec<&str> = known.collect();
            match known.as_slice() {
                [] => format!("unknown setting `{key}`; it takes no settings of its own"),
                names => format!("unknown setting `{key}`; known here: {}", names.join(", ")),
            }
        }
    }
}

/// The name nearest to a misspelt one, if any is near: at most a third of its letters differ.
pub fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let allowed = (name.len() / 3).max(1);
    known
        .map(|candidate| (distance(name, candidate), candidate))
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Edit distance in which a swap of neighbours counts once.
fn distance(left: &str, right: &str) -> usize {
    let (left, right): (Vec<char>, Vec<char>) = (left.chars().collect(), right.chars().collect());
    let mut rows = vec![(0..=right.len()).collect::<Vec<usize>>()];
    for i in 1..=left.len() {
        let mut row = vec![i];
        for j in 1..=right.len() {
            let same = usize::from(left[i - 1] != right[j - 1]);
            let mut best = (rows[i - 1][j] + 1)
                .min(row[j - 1] + 1)
                .min(rows[i - 1][j - 1] + same);
            if i > 1 && j > 1 && left[i - 1] == right[j - 2] && left[i - 2] == right[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[left.len()][right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn declared() -> Vec<Setting> {
        vec![
            Setting::list("zones", "DNS lists to ask").required(),
            Setting::duration("wait", "how long").default("5s"),
            Setting::size("most", "how much").default("64KB"),
            Setting::boolean("loud", "or not"),
        ]
    }

    #[test]
    fn defaults_are_filled_in_and_read_back_typed() {
        let given = BTreeMap::from([("zones".to_owned(), Value::from(["a.example"]))]);
        let settings = Settings::check(&declared(), &given).unwrap();
        assert_eq!(settings.list("zones"), ["a.example"]);
        assert_eq!(settings.duration("wait"), Some(Duration::from_secs(5)));
        assert_eq!(settings.size("most"), Some(65_536));
        assert!(!settings.boolean("loud"));
    }

    #[test]
    fn every_mistake_is_named_at_once() {
        let given = BTreeMap::from([
            ("zone".to_owned(), Value::from(["a"])),
            ("wait".to_owned(), Value::from("5 parsecs")),
            ("loud".to_owned(), Value::from(1)),
        ]);
        let errors = Settings::check(&declared(), &given).unwrap_err();
        let messages: Vec<String> = errors
            .iter()
            .map(|error| format!("{:?} {}", error.path, error.message))
            .collect();
        assert_eq!(
            messages,
            [
                "[\"loud\"] expected true or false",
                "[\"wait\"] expected a time with its unit, such as \"500ms\", \"10s\", \"5m\" or \"2h\"",
                "[\"zone\"] unknown setting `zone`; did you mean `zones`?",
                "[] `zones` is missing: DNS lists to ask",
            ]
        );
    }

    #[test]
    fn units() {
        assert_eq!(parse_duration("250ms"), Some(Duration::from_millis(250)));
        assert_eq!(parse_duration("1d"), Some(Duration::from_secs(86_400)));
        assert_eq!(parse_size(&Value::from("2 GB")), Some(2 << 30));
        for wrong in [
            "",
            "5",
            "s",
            "-5s",
            "5S",
            "99999999999999999999s",
            "18446744073709551615d",
        ] {
            assert_eq!(parse_duration(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn nearest_is_near() {
        assert_eq!(
            nearest("relpy", ["reply", "relay"].into_iter()),
            Some("reply")
        );
        assert_eq!(nearest("xyz", ["reply", "relay"].into_iter()), None);
    }
}
