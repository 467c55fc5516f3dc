//! `[[listen]]`: where mail comes in.

use gatepost_protocol::{Direction, Value};

use super::reader::{Item, Reader};
use super::types::{Address, AuthOffer, Listen, ListenTls, MailProtocol};

/// Where mail comes in if the file names no listener.
const DEFAULT_LISTEN: ([u8; 4], u16) = ([127, 0, 0, 1], 2525);
const SMTP_PORT: u16 = 25;

/// Reads all listeners; without any there is one on loopback. `has_tls` says that there is a table `[tls]`.
pub(super) fn read(reader: &mut Reader, item: Option<&Item<'_>>, has_tls: bool) -> Vec<Listen> {
    let Some(item) = item else {
        return vec![Listen::at(DEFAULT_LISTEN.into())];
    };
    let mut listeners: Vec<Listen> = Vec::new();
    for table in reader.tables("listen", item) {
        let Some(mut keys) = reader.table(table) else {
            continue;
        };
        let addr = keys.get("addr");
        let mode = keys.get("mode").and_then(|item| mode(reader, item));
        let protocol = keys
            .get("protocol")
            .and_then(|item| reader.word(item, &["smtp", "lmtp"], protocol))
            .unwrap_or_default();
        let tls_item = keys.get("tls");
        let tls = tls_item
            .and_then(|item| reader.word(item, &["off", "starttls", "implicit"], tls))
            .unwrap_or_default();
        if let Some(item) = tls_item
            && tls != ListenTls::Off
            && !has_tls
        {
            reader.mistake(
                item.span(),
                "this needs a certificate: add a table [tls] with `cert` and `key`; `gatepost tls self-signed` makes them for a start",
            );
        }
        let mut networks = |key| {
            keys.get(key)
                .and_then(|item| reader.networks(item))
                .unwrap_or_default()
        };
        let proxy_from = networks("proxy_from");
        let xclient_from = networks("xclient_from");
        let xforward_from = networks("xforward_from");
        let greet_delay = keys
            .get("greet_delay")
            .and_then(|item| reader.duration(item))
            .unwrap_or_default();
        let words = ["inbound", "submission", "relay"];
        let direction = keys
            .get("direction")
            .and_then(|item| reader.word(item, &words, direction))
            .unwrap_or_default();
        let auth = keys
            .get("auth")
            .and_then(|item| reader.word(item, &["off", "tls", "always"], auth))
            .unwrap_or_default();
        // RFC 6409 §4.3.
        let auth_required = keys
            .get("auth_required")
            .and_then(|item| reader.boolean(item))
            .unwrap_or(direction == Direction::Submission);
        let protocol_span = keys.key_span("protocol");
        let mode_span = keys.key_span("mode");
        let by_address = ["proxy_from", "xclient_from", "xforward_from"];
        let by_address = by_address.map(|key| keys.key_span(key));
        keys.finish(reader);
        let Some(item) = addr else {
            reader.mistake(
                table.span(),
                "`addr` is missing: the address and port to listen on, such as \"0.0.0.0:25\"",
            );
            continue;
        };
        let Some(addr) = reader.address(item) else {
            continue;
        };
        match &addr {
            Address::Unix(_) => {
                for span in by_address.into_iter().flatten() {
                    reader.mistake(
                        span,
                        "clients of a Unix socket have no address; remove this line",
                    );
                }
                if let Some(item) = tls_item.filter(|_| tls != ListenTls::Off) {
                    reader.mistake(
                        item.span(),
                        "nobody is on the way to a Unix socket; remove this line",
                    );
                }
            }
            Address::Tcp(_) => {
                if let Some(span) = mode_span {
                    reader.mistake(span, "only a Unix socket has a mode; remove this line");
                }
            }
        }
        if let Some(other) = listeners.iter().find(|other| clash(&other.addr, &addr)) {
            let message = if other.addr == addr {
                format!("{addr} is already listened on above")
            } else {
                format!("{addr} and {} above cannot both be listened on", other.addr)
            };
            reader.mistake(item.span(), message);
            continue;
        }
        if let Some(span) = protocol_span
            && protocol == MailProtocol::Lmtp
            && matches!(addr, Address::Tcp(addr) if addr.port() == SMTP_PORT)
        {
            reader.warning(
                span,
                "LMTP must not be on port 25 (RFC 2033 \u{a7}5): clients there expect SMTP",
            );
        }
        listeners.push(Listen {
            addr,
            mode,
            protocol,
            direction,
            auth,
            auth_required,
            tls,
            greet_delay,
            proxy_from,
            xclient_from,
            xforward_from,
        });
    }
    listeners
}

/// Whether the second of two sockets would find its address in use. Port 0 is a free one each time.
fn clash(one: &Address, other: &Address) -> bool {
    let (Address::Tcp(one), Address::Tcp(other)) = (one, other) else {
        return one == other;
    };
    let covers = one.ip() == other.ip()
        || one.is_ipv4() == other.is_ipv4()
            && (one.ip().is_unspecified() || other.ip().is_unspecified());
    one.port() != 0 && one.port() == other.port() && covers
}

/// The permissions of a file as chmod(1) has them.
fn mode(reader: &mut Reader, item: &Item<'_>) -> Option<u32> {
    let text = item.get_ref().as_str().unwrap_or_default();
    let digits = (3..=4).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    let mode = u32::from_str_radix(text, 8).ok();
    let mode = mode.filter(|mode| digits && *mode <= 0o777);
    if mode.is_none() {
        reader.mistake(
            item.span(),
            "expected permissions in octal digits, in quotes, such as \"0660\"",
        );
    }
    mode
}

fn direction(value: &Value) -> Option<Direction> {
    [Direction::Inbound, Direction::Submission, Direction::Relay]
        .into_iter()
        .find(|direction| value.as_text() == Some(direction.name()))
}

fn auth(value: &Value) -> Option<AuthOffer> {
    match value.as_text()? {
        "off" => Some(AuthOffer::Off),
        "tls" => Some(AuthOffer::Tls),
        "always" => Some(AuthOffer::Always),
        _ => None,
    }
}

fn protocol(value: &Value) -> Option<MailProtocol> {
    match value.as_text()? {
        "smtp" => Some(MailProtocol::Smtp),
        "lmtp" => Some(MailProtocol::Lmtp),
        _ => None,
    }
}

fn tls(value: &Value) -> Option<ListenTls> {
    [ListenTls::Off, ListenTls::StartTls, ListenTls::Implicit]
        .into_iter()
        .find(|tls| value.as_text() == Some(tls.name()))
}
