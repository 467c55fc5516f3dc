//! The host against a plugin process that the test plays: what is sent, and what becomes of each answer. What only a real process can do wrong
//! is in `tests/tests/plugin_faults.rs`.

mod calls;
mod fake;
mod forked;
mod hooks;
mod sessions;
mod start;
mod together;
