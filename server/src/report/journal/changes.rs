//! A plugin's changes in words.

use gatepost_protocol::{Address, Change, Points, Scope};

/// `add_header X-Spam: yes`; without what may be a secret where `with_values` is false.
pub fn describe(change: &Change, with_values: bool) -> String {
    let numbered = |nth: &Option<usize>| nth.map_or(String::new(), |nth| format!(" ({nth})"));
    let flag = |op: &str, reason: &Option<String>, scope: &Scope| match (reason, scope) {
        (None, Scope::Connection) => format!("{op}: no longer"),
        (None, Scope::Transaction) => format!("{op}: no longer (transaction)"),
        (Some(reason), Scope::Connection) => format!("{op}: {reason}"),
        (Some(reason), Scope::Transaction) => format!("{op}: {reason} (transaction)"),
    };
    let reason = |op: &str, reason: &Option<String>| match reason {
        Some(reason) => format!("{op}: {reason}"),
        None => format!("{op}: no longer"),
    };
    match change {
        Change::Note { name, .. } if !with_values => format!("note {name}"),
        Change::Note { name, value, .. } => {
            let value = serde_json::to_string(value).unwrap_or_default();
            format!("note {name} = {value}")
        }
        Change::AddHeader { name, value, .. } => {
            format!("add_header {name}: {}", String::from_utf8_lossy(&value.0))
        }
        Change::ReplaceHeader { name, value, nth } => {
            let value = String::from_utf8_lossy(&value.0);
            format!("replace_header{} {name}: {value}", numbered(nth))
        }
        Change::RemoveHeader { name, nth } => format!("remove_header{} {name}", numbered(nth)),
        Change::AddRecipient { address } => format!("add_recipient {address}"),
        Change::RemoveRecipient { address } => format!("remove_recipient {address}"),
        Change::SetSender { address } => format!("set_sender {address}"),
        Change::Karma { add } => format!("karma {add:+}"),
        Change::Score { points, reason } => format!("score {:+}: {reason}", Points(*points)),
        Change::RelayClient { value, reason } => match reason {
            Some(reason) => format!("relay_client {value}: {reason}"),
            None => format!("relay_client {value}"),
        },
        Change::Immune { reason, scope } => flag("immune", reason, scope),
        Change::Whitelisted { reason, scope } => flag("whitelisted", reason, scope),
        Change::Naughty { message } => reason("naughty", message),
        Change::AuthResult { text } => format!("auth_result {text}"),
        Change::Quarantine { reason: why } => reason("quarantine", why),
        Change::Route { address, route } => {
            let whose = address.as_ref().map_or("everybody", Address::as_str);
            let route = route.as_deref().unwrap_or("none");
            format!("route {whose}: {route}")
        }
        Change::RemoteHost { name } => format!("remote_host {name}"),
        Change::Remote { ip, port } => format!("remote {}", socket(ip.as_deref(), *port)),
        Change::Local { ip, port } => format!("local {}", socket(ip.as_deref(), *port)),
        Change::RemoteInfo { info } => match info {
            Some(info) => format!("remote_info {info}"),
            None => "remote_info: no longer".to_owned(),
        },
    }
}

/// An address or a port, or both.
fn socket(ip: Option<&str>, port: Option<u16>) -> String {
    let port = port.map(|port| format!("port {port}"));
    let parts = [ip, port.as_deref()];
    parts.into_iter().flatten().collect::<Vec<_>>().join(" ")
}
