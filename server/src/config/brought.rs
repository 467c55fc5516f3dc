//! Settings that a plugin brought, as the text that says the same: to be read like any other, and shown where they are wrong.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use gatepost_protocol::Value;

/// A line for each setting, `plugin.headers.reject = false`.
///
/// # Errors
/// What cannot be written down.
pub fn settings_text(settings: &BTreeMap<String, Value>) -> Result<String, String> {
    let mut text = String::new();
    lines(&mut text, "", settings)?;
    Ok(text)
}

fn lines(text: &mut String, path: &str, settings: &BTreeMap<String, Value>) -> Result<(), String> {
    for (name, value) in settings {
        let path = match path {
            "" => key(name),
            path => format!("{path}.{}", key(name)),
        };
        match value {
            // As good as absent (docs/protocol.md §2).
            Value::Nil => {}
            Value::Map(map) if !map.is_empty() => lines(text, &path, map)?,
            value => {
                let value = written(value).map_err(|what| format!("`{path}` {what}"))?;
                let _ = writeln!(text, "{path} = {value}");
            }
        }
    }
    Ok(())
}

fn key(name: &str) -> String {
    let is_bare = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if !name.is_empty() && name.chars().all(is_bare) {
        name.to_owned()
    } else {
        quoted(name)
    }
}

fn written(value: &Value) -> Result<String, &'static str> {
    Ok(match value {
        Value::Boolean(truth) => truth.to_string(),
        Value::Integer(number) => number.to_string(),
        Value::Text(text) => quoted(text),
        Value::Nil | Value::Bytes(_) => {
            return Err("holds what no setting can be: nil, or bytes");
        }
        Value::List(items) => {
            let items: Result<Vec<String>, _> = items.iter().map(written).collect();
            format!("[{}]", items?.join(", "))
        }
        Value::Map(map) => {
            let mut items = Vec::with_capacity(map.len());
            for (name, value) in map {
                items.push(format!("{} = {}", key(name), written(value)?));
            }
            format!("{{ {} }}", items.join(", "))
        }
    })
}

fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            character if character.is_control() => {
                let _ = write!(quoted, "\\u{:04x}", character as u32);
            }
            character => quoted.push(character),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;
    use toml::de::DeTable;

    fn map(entries: &[(&str, Value)]) -> Value {
        let entry = |(name, value): &(&str, Value)| ((*name).to_owned(), value.clone());
        Value::Map(entries.iter().map(entry).collect())
    }

    #[test]
    fn a_line_for_each_setting() {
        let list = Value::List(vec![map(&[("name", "a b".into()), ("no", 1.into())])]);
        let Value::Map(settings) = map(&[
            ("max_size", "10MB".into()),
            ("none", Value::Nil),
            (
                "plugin",
                map(&[
                    ("queue/x", map(&[("on", true.into()), ("empty", map(&[]))])),
                    ("y", list),
                ]),
            ),
        ]) else {
            unreachable!()
        };
        assert_eq!(
            settings_text(&settings).unwrap(),
            "max_size = \"10MB\"\n\
             plugin.\"queue/x\".empty = {  }\n\
             plugin.\"queue/x\".on = true\n\
             plugin.y = [{ name = \"a b\", no = 1 }]\n"
        );
        let bytes = BTreeMap::from([("a".to_owned(), Value::Bytes(vec![1]))]);
        let wrong = settings_text(&bytes).unwrap_err();
        assert_eq!(wrong, "`a` holds what no setting can be: nil, or bytes");
    }

    #[test]
    fn no_text_ends_its_quotes() {
        for text in ["\"", "\\", "a\nb = 1", "\u{7f}\u{85}\0", "\"]\n[x]\n#", "ü"] {
            let settings = BTreeMap::from([(text.to_owned(), Value::from(text))]);
            let written = settings_text(&settings).unwrap();
            let table = DeTable::parse(&written).unwrap();
            let table = table.get_ref();
            assert_eq!(table.len(), 1, "{written}");
            assert_eq!(table.get(text).unwrap().get_ref().as_str(), Some(text));
        }
    }
}
