//! Small Gatepost plugins in Rust; `../python` and `../perl` hold the same ones. `main.rs` makes a program of them.

mod mime;
pub mod quarantine_attachment;
pub mod quota;
pub mod refuse_recipient;
pub mod tag_header;
