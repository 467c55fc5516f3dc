//! The settings of the daemon itself: everything but the chain.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use gatepost_protocol::settings::Kind;
use gatepost_protocol::{Level, Value, address};

use super::reader::{Item, Keys, Reader};
use super::types::{BareNewlines, Config, Limits, LogFormat, Mixed};
use super::{auth, listen, outbox, quarantine, tls, user_folder};

const KB: usize = 1 << 10;
const MB: usize = 1 << 20;

/// The biggest `max_size` that can be set, in bytes.
pub(super) const MAX_SIZE: u64 = 1 << 40;

/// The smallest journal: the longest record fits many times.
const MIN_JOURNAL: u64 = 8 * MB as u64;

/// RFC 1035 §4.2.
const DNS_PORT: u16 = 53;

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            max_size: 50 * MB as u64,
            max_command_line: 2048,
            max_data_line: 64 * KB,
            max_header: 256 * KB,
            max_recipients: 1000,
            max_transactions: 1000,
            max_errors: 20,
            max_auth_failures: 3,
            max_unknown_commands: 10,
            max_idle_commands: 100,
            max_header_fields: 1000,
            // RFC 5321 §4.5.3.2.7 wants five minutes for any command.
            hello_timeout: Duration::from_secs(5 * 60),
            min_data_rate: 10,
            command_timeout: Duration::from_secs(5 * 60),
            data_timeout: Duration::from_secs(3 * 60),
            stress_timeout: Duration::from_secs(10),
            session_timeout: Duration::from_secs(60 * 60),
            max_connections: 2000,
            max_connections_per_ip: 20,
            max_connections_per_network: None,
            memory_per_message: 2 * MB,
            memory_for_messages: 64 * MB,
        }
    }
}

/// Reads all but `[[plugin]]` and `sdk_perl`; what is wrong or missing has its default.
pub(super) fn read(reader: &mut Reader, keys: &mut Keys<'_>) -> Config {
    let hostname = keys.get("hostname").and_then(|item| hostname(reader, item));
    let localiphost = keys
        .get("localiphost")
        .and_then(|item| localiphost(reader, item));
    let spool_dir = keys
        .get("spool_dir")
        .and_then(|item| reader.some_text(item))
        .map_or_else(|| PathBuf::from("./spool"), PathBuf::from);
    let state = keys.get("state").and_then(|item| state(reader, item));
    Config {
        hostname: hostname.unwrap_or_else(system_hostname),
        localiphost,
        state: state.unwrap_or_else(|| spool_dir.join("state")),
        spool_dir,
        run_as: keys
            .get("run_as")
            .and_then(|item| reader.some_text(item))
            .map(str::to_owned),
        journal: keys
            .get("journal")
            .and_then(|item| journal(reader, item))
            .unwrap_or_default(),
        dns_server: keys
            .get("dns_server")
            .and_then(|item| dns_server(reader, item)),
        flat_files: keys.get("flat_files").and_then(|item| folder(reader, item)),
        user_config: keys
            .get("user_config")
            .and_then(|item| user_folder::read(reader, item)),
        loglevel: keys
            .get("loglevel")
            .and_then(|item| reader.level(item))
            .unwrap_or(Level::Info),
        log_format: keys
            .get("log_format")
            .and_then(|item| reader.word(item, &["text", "json"], log_format))
            .unwrap_or_default(),
        tls: tls::read(reader, keys.get("tls")),
        listen: listen::read(reader, keys.get("listen"), keys.key_span("tls").is_some()),
        limits: keys
            .get("limits")
            .map(|item| limits(reader, item))
            .unwrap_or_default(),
        auth_mechanisms: keys
            .get("auth")
            .and_then(|item| auth::mechanisms(reader, item))
            .unwrap_or_else(auth::usual),
        bare_newlines: keys
            .get("bare_newlines")
            .and_then(|item| reader.word(item, &["reject", "normalize", "keep"], bare_newlines))
            .unwrap_or_default(),
        mixed: keys
            .get("mixed")
            .and_then(|item| reader.word(item, Mixed::WORDS, Mixed::from_value))
            .unwrap_or_default(),
        outbox: keys
            .get("outbox")
            .map(|item| outbox::read(reader, item))
            .unwrap_or_default(),
        origins: Default::default(),
        quarantine: keys
            .get("quarantine")
            .map(|item| quarantine::read(reader, item))
            .unwrap_or_default(),
        plugins: Vec::new(),
        scopes: Default::default(),
        warnings: Default::default(),
    }
}

fn dns_server(reader: &mut Reader, item: &Item<'_>) -> Option<SocketAddr> {
    let text = reader.text(item)?;
    let with_port = || text.parse().ok();
    let server = text
        .parse::<IpAddr>()
        .ok()
        .map(|ip| SocketAddr::new(ip, DNS_PORT))
        .or_else(with_port);
    if server.is_none() {
        reader.mistake(
            item.span(),
            "expected an IP address, with a port or without, such as \"192.0.2.53\" or \"127.0.0.1:5353\"",
        );
    }
    server
}

fn journal(reader: &mut Reader, item: &Item<'_>) -> Option<u64> {
    let size = reader.number(item, Kind::Size, 0, MAX_SIZE, " bytes")?;
    if (1..MIN_JOURNAL).contains(&size) {
        let message = format!("must be 0, for no journal, or at least {MIN_JOURNAL} bytes");
        reader.mistake(item.span(), message);
        return None;
    }
    Some(size)
}

fn hostname(reader: &mut Reader, item: &Item<'_>) -> Option<String> {
    let name = reader.text(item)?;
    if address::is_domain(name) || address::is_literal(name) {
        return Some(name.to_owned());
    }
    let message = format!(
        "\"{name}\" is no host name; write one like \"mx.example.org\", or an address like \"[192.0.2.1]\""
    );
    reader.mistake(item.span(), message);
    None
}

fn localiphost(reader: &mut Reader, item: &Item<'_>) -> Option<String> {
    let name = reader.text(item)?;
    if address::is_domain_utf8(name) {
        return Some(name.to_owned());
    }
    let message = format!("\"{name}\" is no domain; write one like \"example.org\"");
    reader.mistake(item.span(), message);
    None
}

/// The kernel's name for this machine, or `localhost` where it has none that SMTP can say.
pub fn system_hostname() -> String {
    ["/proc/sys/kernel/hostname", "/etc/hostname"]
        .iter()
        .filter_map(|file| std::fs::read_to_string(file).ok())
        .map(|name| name.trim().to_owned())
        .find(|name| address::is_domain(name))
        .unwrap_or_else(|| "localhost".to_owned())
}

fn state(reader: &mut Reader, item: &Item<'_>) -> Option<PathBuf> {
    let text = reader.text(item)?;
    match text.split_once(':') {
        Some(("file", path)) if !path.is_empty() => return Some(path.into()),
        Some(("redis" | "rediss", _)) => reader.mistake(
            item.span(),
            "the state store in Redis is not there yet; write \"file:PATH\"",
        ),
        _ => reader.mistake(
            item.span(),
            "expected \"file:PATH\", such as \"file:/var/lib/gatepost/state\"",
        ),
    }
    None
}

/// A folder that must be there.
fn folder(reader: &mut Reader, item: &Item<'_>) -> Option<PathBuf> {
    let path = PathBuf::from(reader.some_text(item)?);
    is_folder(reader, item, &path).then_some(path)
}

/// Whether a folder is there; that it is not has then been said.
pub(super) fn is_folder(reader: &mut Reader, item: &Item<'_>, path: &Path) -> bool {
    if path.is_dir() {
        return true;
    }
    let what = if path.exists() {
        "is no folder"
    } else {
        "does not exist"
    };
    reader.mistake(item.span(), format!("`{}` {what}", path.display()));
    false
}

fn log_format(value: &Value) -> Option<LogFormat> {
    match value.as_text()? {
        "text" => Some(LogFormat::Text),
        "json" => Some(LogFormat::Json),
        _ => None,
    }
}

fn bare_newlines(value: &Value) -> Option<BareNewlines> {
    match value.as_text()? {
        "reject" => Some(BareNewlines::Reject),
        "normalize" => Some(BareNewlines::Normalize),
        "keep" => Some(BareNewlines::Keep),
        _ => None,
    }
}

fn limits(reader: &mut Reader, item: &Item<'_>) -> Limits {
    let mut limits = Limits::default();
    let Some(mut keys) = reader.table(item) else {
        return limits;
    };
    const COUNTED: u64 = 1_000_000;
    const IN_MEMORY: u64 = 16 << 20;
    let mut number = |key, kind, least, most, suffix: &str| {
        let item = keys.get(key)?;
        reader.number(item, kind, least, most, suffix)
    };
    let mut size = |key, least, most, suffix: &str, to: &mut usize| {
        if let Some(value) = number(key, Kind::Size, least, most, suffix) {
            *to = usize::try_from(value).unwrap_or(usize::MAX);
        }
    };
    size(
        "max_command_line",
        512,
        1 << 16,
        " bytes (RFC 5321 \u{a7}4.5.3.1.4)",
        &mut limits.max_command_line,
    );
    size(
        "max_data_line",
        1000,
        IN_MEMORY,
        " bytes (RFC 5321 \u{a7}4.5.3.1.6)",
        &mut limits.max_data_line,
    );
    size(
        "max_header",
        1000,
        IN_MEMORY,
        " bytes",
        &mut limits.max_header,
    );
    size(
        "memory_per_message",
        0,
        1 << 30,
        " bytes",
        &mut limits.memory_per_message,
    );
    size(
        "memory_for_messages",
        0,
        1 << 40,
        " bytes",
        &mut limits.memory_for_messages,
    );
    if let Some(value) = number("max_size", Kind::Size, 1, MAX_SIZE, " bytes") {
        limits.max_size = value;
    }
    if let Some(value) = number("min_data_rate", Kind::Size, 0, 1 << 30, " bytes") {
        limits.min_data_rate = value;
    }
    let per_network = number("max_connections_per_network", Kind::Integer, 1, COUNTED, "");
    limits.max_connections_per_network =
        per_network.map(|value| usize::try_from(value).unwrap_or(usize::MAX));
    let mut count = |key, to: &mut usize| {
        if let Some(value) = number(key, Kind::Integer, 1, COUNTED, "") {
            *to = usize::try_from(value).unwrap_or(usize::MAX);
        }
    };
    count("max_recipients", &mut limits.max_recipients);
    count("max_connections", &mut limits.max_connections);
    count("max_connections_per_ip", &mut limits.max_connections_per_ip);
    count("max_header_fields", &mut limits.max_header_fields);
    let mut count = |key, to: &mut u32| {
        if let Some(value) = number(key, Kind::Integer, 1, COUNTED, "") {
            *to = u32::try_from(value).unwrap_or(u32::MAX);
        }
    };
    count("max_transactions", &mut limits.max_transactions);
    count("max_errors", &mut limits.max_errors);
    count("max_auth_failures", &mut limits.max_auth_failures);
    count("max_unknown_commands", &mut limits.max_unknown_commands);
    count("max_idle_commands", &mut limits.max_idle_commands);
    let mut time = |key, to: &mut Duration| {
        if let Some(value) = keys.get(key).and_then(|item| reader.duration(item)) {
            *to = value;
        }
    };
    time("command_timeout", &mut limits.command_timeout);
    time("data_timeout", &mut limits.data_timeout);
    time("hello_timeout", &mut limits.hello_timeout);
    time("stress_timeout", &mut limits.stress_timeout);
    time("session_timeout", &mut limits.session_timeout);
    warn(reader, &keys, &limits);
    keys.finish(reader);
    limits
}

fn warn(reader: &mut Reader, keys: &Keys<'_>, limits: &Limits) {
    if let Some(span) = keys.key_span("max_recipients")
        && limits.max_recipients < 100
    {
        reader.warning(
            span,
            "RFC 5321 \u{a7}4.5.3.1.8 wants at least 100 recipients to be taken; other servers may not split a message",
        );
    }
    if let Some(span) = keys.key_span("memory_per_message")
        && limits.memory_per_message > limits.memory_for_messages
    {
        reader.warning(
            span,
            "one message may take more memory than `memory_for_messages` grants all of them",
        );
    }
}
