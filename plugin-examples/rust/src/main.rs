//! The example plugins as one program: `run = ["gatepost-plugin-examples"]`, and the plugin's name says which.

use std::process::ExitCode;

use gatepost_plugin_examples::{quarantine_attachment, quota, refuse_recipient, tag_header};
use gatepost_protocol::Definition;

static PLUGINS: [Definition; 4] = [
    refuse_recipient::DEFINITION,
    tag_header::DEFINITION,
    quarantine_attachment::DEFINITION,
    quota::DEFINITION,
];

fn main() -> ExitCode {
    gatepost_protocol::serve(&PLUGINS)
}
