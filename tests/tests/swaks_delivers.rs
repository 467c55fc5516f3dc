//! swaks sends through a chain of built-in, Python and Perl plugins.

use std::process::Command;

use gatepost_tests::{mixed, programs};

#[test]
fn swaks_delivers() {
    let Some(swaks) = programs::needed("swaks") else {
        return;
    };
    let mut server = mixed::server();
    let (_folder, file) = mixed::message_file_with_lf();
    let output = Command::new(swaks)
        .args(["--server", "127.0.0.1", "--helo", "client.example"])
        .args(["--port", &server.address().port().to_string()])
        .args(["--from", "alice@client.example", "--to", "bob@example.org"])
        .arg("--data")
        .arg(format!("@{}", file.display()))
        .output()
        .expect("swaks runs");
    assert!(output.status.success(), "{output:?}");
    mixed::assert_delivered(&mut server);
}
