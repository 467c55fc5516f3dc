//! Where settings of the core come from, in words: for whoever asks why it refused something.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::reader::{Item, Keys, Reader};
use super::types::{BareNewlines, Config, Limits, Mixed};

/// The settings behind the core's own refusals, each as it is written with its place, `[limits] max_size = "10MB" (gatepost.toml:12)`, or as a default.
#[derive(Clone, Debug, Default)]
pub struct CoreOrigins(BTreeMap<&'static str, String>);

/// The biggest message of some recipients, with where that is set.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct MaxSize {
    /// In bytes.
    pub bytes: u64,
    /// In words.
    pub origin: Arc<str>,
}

impl CoreOrigins {
    /// Of a key: of `[limits]`, `mixed` or `bare_newlines`. `None`: it is no setting.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }

    /// Of what was read.
    pub(super) fn read(reader: &mut Reader, keys: &Keys<'_>, config: &Config) -> CoreOrigins {
        let mut origins = BTreeMap::new();
        let limits = keys.peek("limits").and_then(|item| reader.table(item));
        for (key, value) in of_limits(&config.limits) {
            let set = limits.as_ref().and_then(|table| table.peek(key));
            let origin = origin(reader, "[limits] ", key, set, &value);
            origins.insert(key, origin);
        }
        let bare_newlines = match config.bare_newlines {
            BareNewlines::Reject => "reject",
            BareNewlines::Normalize => "normalize",
            BareNewlines::Keep => "keep",
        };
        let mixed = match config.mixed {
            Mixed::Split => "split",
            Mixed::Bounce => "bounce",
            Mixed::Discard => "discard",
            Mixed::Reject => "reject",
        };
        for (key, value) in [("bare_newlines", bare_newlines), ("mixed", mixed)] {
            let value = format!("\"{value}\"");
            origins.insert(key, origin(reader, "", key, keys.peek(key), &value));
        }
        CoreOrigins(origins)
    }
}

/// A setting as it is written, with its place; or with the value that it has without being set.
pub(super) fn origin(
    reader: &Reader,
    owner: &str,
    key: &str,
    set: Option<&Item<'_>>,
    usual: &str,
) -> String {
    let Some(item) = set else {
        return format!("{owner}{key} = {usual} (default)");
    };
    let place = reader.source.location(item.span().start);
    let value = reader.source.slice(item.span());
    format!(
        "{owner}{key} = {value} ({}:{})",
        place.file.display(),
        place.line
    )
}

/// Those that a session can run into, with their values.
fn of_limits(limits: &Limits) -> [(&'static str, String); 16] {
    let number = |number: usize| number.to_string();
    let count = |number: u32| number.to_string();
    let time = |time: std::time::Duration| format!("\"{}s\"", time.as_secs());
    [
        ("max_size", limits.max_size.to_string()),
        ("max_command_line", number(limits.max_command_line)),
        ("max_data_line", number(limits.max_data_line)),
        ("max_header", number(limits.max_header)),
        ("max_header_fields", number(limits.max_header_fields)),
        ("max_recipients", number(limits.max_recipients)),
        ("max_transactions", count(limits.max_transactions)),
        ("max_errors", count(limits.max_errors)),
        ("max_auth_failures", count(limits.max_auth_failures)),
        ("max_unknown_commands", count(limits.max_unknown_commands)),
        ("max_idle_commands", count(limits.max_idle_commands)),
        ("min_data_rate", limits.min_data_rate.to_string()),
        ("hello_timeout", time(limits.hello_timeout)),
        ("command_timeout", time(limits.command_timeout)),
        ("data_timeout", time(limits.data_timeout)),
        ("session_timeout", time(limits.session_timeout)),
    ]
}
