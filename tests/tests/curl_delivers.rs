//! curl sends through a chain of built-in, Python and Perl plugins.

use std::process::Command;

use gatepost_tests::{mixed, programs};

#[test]
fn curl_delivers() {
    let Some(curl) = programs::needed("curl") else {
        return;
    };
    let mut server = mixed::server();
    let (_folder, file) = mixed::message_file();
    let output = Command::new(curl)
        .args(["--silent", "--show-error", "--noproxy", "*"])
        .args(["--mail-from", "alice@client.example"])
        .args(["--mail-rcpt", "bob@example.org", "--upload-file"])
        .arg(file)
        .arg(format!("smtp://{}/client.example", server.address()))
        .output()
        .expect("curl runs");
    assert!(output.status.success(), "{output:?}");
    mixed::assert_delivered(&mut server);
}
