//! `[outbox]`: how often and how long what waits there is tried, and how much there may be of it.

use std::time::Duration;

use gatepost_protocol::settings::Kind;

use super::reader::{Item, Reader};
use super::types::OutboxConfig;

const HOUR: u64 = 60 * 60;

impl Default for OutboxConfig {
    fn default() -> OutboxConfig {
        OutboxConfig {
            retry: Duration::from_secs(5 * 60),
            retry_max: Duration::from_secs(4 * HOUR),
            // RFC 5321 §4.5.4.1: four to five days at least.
            max_age: Duration::from_secs(5 * 24 * HOUR),
            // RFC 5321 §4.5.4.1 leaves it to us; before this most of what is late has got through.
            notify_delay: Duration::from_secs(4 * HOUR),
            max_messages: 10_000,
            max_size: 1 << 30,
            max_notifications: 1000,
            max_notifications_per_sender: 20,
        }
    }
}

/// Reads the table.
pub(super) fn read(reader: &mut Reader, item: &Item<'_>) -> OutboxConfig {
    let mut outbox = OutboxConfig::default();
    let Some(mut keys) = reader.table(item) else {
        return outbox;
    };
    let mut time = |key, to: &mut Duration| {
        if let Some(value) = keys.get(key).and_then(|item| reader.duration(item)) {
            *to = value;
        }
    };
    time("retry", &mut outbox.retry);
    time("retry_max", &mut outbox.retry_max);
    time("max_age", &mut outbox.max_age);
    time("notify_delay", &mut outbox.notify_delay);
    let mut count = |key, least, to: &mut usize| {
        let item = keys.get(key);
        let value = item.and_then(|item| reader.number(item, Kind::Integer, least, 1_000_000, ""));
        if let Some(value) = value {
            *to = usize::try_from(value).unwrap_or(usize::MAX);
        }
    };
    count("max_messages", 1, &mut outbox.max_messages);
    count("max_notifications", 0, &mut outbox.max_notifications);
    count(
        "max_notifications_per_sender",
        0,
        &mut outbox.max_notifications_per_sender,
    );
    let size = keys.get("max_size");
    let size = size.and_then(|item| reader.number(item, Kind::Size, 1, 1 << 50, " bytes"));
    outbox.max_size = size.unwrap_or(outbox.max_size);
    keys.finish(reader);
    outbox
}
