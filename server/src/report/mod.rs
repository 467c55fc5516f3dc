//! What happened: the log.

use gatepost_protocol::{Disposition, Hook, Level};

/// Whether lines of this level are written at all.
pub fn enabled(_level: Level) -> bool {
    true
}

/// Writes a line.
pub fn line(
    _level: Level,
    session: &str,
    hook: Option<Hook>,
    plugin: &str,
    text: std::fmt::Arguments<'_>,
) {
    eprintln!("{session} {hook:?} {plugin}: {text}");
}

/// Writes what a plugin found.
pub fn disposition(
    _level: Level,
    session: &str,
    hook: Hook,
    plugin: &str,
    disposition: Disposition,
    mark: Option<&str>,
    message: &str,
) {
    eprintln!(
        "{session} ({hook}) {plugin}: {}, {mark:?} {message}",
        disposition.name()
    );
}
