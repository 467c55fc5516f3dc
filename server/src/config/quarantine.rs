//! `[quarantine]`: how long what is quarantined stays, and how much there may be withheld.

use std::time::Duration;

use gatepost_protocol::settings::Kind;

use super::reader::{Item, Reader};
use super::types::QuarantineConfig;

const DAY: u64 = 24 * 60 * 60;

impl Default for QuarantineConfig {
    fn default() -> QuarantineConfig {
        QuarantineConfig {
            keep: Duration::from_secs(30 * DAY),
            max_messages: 10_000,
            max_size: 1 << 30,
        }
    }
}

/// Reads the table.
pub(super) fn read(reader: &mut Reader, item: &Item<'_>) -> QuarantineConfig {
    let mut quarantine = QuarantineConfig::default();
    let Some(mut keys) = reader.table(item) else {
        return quarantine;
    };
    let keep = keys.get("keep").and_then(|item| reader.duration(item));
    quarantine.keep = keep.unwrap_or(quarantine.keep);
    let messages = keys.get("max_messages");
    let messages = messages.and_then(|item| reader.number(item, Kind::Integer, 1, 1_000_000, ""));
    if let Some(messages) = messages {
        quarantine.max_messages = usize::try_from(messages).unwrap_or(usize::MAX);
    }
    let size = keys.get("max_size");
    let size = size.and_then(|item| reader.number(item, Kind::Size, 1, 1 << 50, " bytes"));
    quarantine.max_size = size.unwrap_or(quarantine.max_size);
    keys.finish(reader);
    quarantine
}
