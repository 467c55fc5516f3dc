//! `[auth]`: what AUTH offers.

use super::reader::{Item, Reader, or_list};

/// The mechanisms that there are.
pub const MECHANISMS: [&str; 7] = [
    "SCRAM-SHA-256-PLUS",
    "SCRAM-SHA-256",
    "OAUTHBEARER",
    "XOAUTH2",
    "CRAM-MD5",
    "PLAIN",
    "LOGIN",
];

/// Those that every plugin which knows how to check a password can serve.
pub(super) fn usual() -> Vec<String> {
    ["PLAIN", "LOGIN"].map(str::to_owned).to_vec()
}

/// Reads the table.
pub(super) fn mechanisms(reader: &mut Reader, item: &Item<'_>) -> Option<Vec<String>> {
    let mut keys = reader.table(item)?;
    let named = keys.get("mechanisms").and_then(|item| reader.list(item));
    keys.finish(reader);
    let mut mechanisms = Vec::new();
    for (name, span) in named? {
        let known = MECHANISMS
            .iter()
            .find(|known| known.eq_ignore_ascii_case(name));
        match known {
            Some(known) => mechanisms.push((*known).to_owned()),
            None => {
                let words = MECHANISMS.map(|known| format!("\"{known}\""));
                reader.mistake(span, format!("expected {}", or_list(&words)));
            }
        }
    }
    Some(mechanisms)
}
