//! Postfix's smtp-source sends many messages at once, one per connection and over reused connections, through a chain of built-in, Python and Perl plugins.

use std::process::Command;

use gatepost_tests::{mixed, programs};

const MESSAGES: usize = 100;

#[test]
fn smtp_source_delivers() {
    let Some(smtp_source) = programs::needed("smtp-source") else {
        return;
    };
    let mut server = mixed::server();
    let (_folder, file) = mixed::message_file_with_lf();
    for reuse in [&[][..], &["-d"]] {
        let output = Command::new(&smtp_source)
            .args([
                "-s",
                "10",
                "-m",
                &MESSAGES.to_string(),
                "-M",
                "client.example",
            ])
            .args(["-f", "alice@client.example", "-t", "bob@example.org"])
            .args(reuse)
            .arg("-F")
            .arg(&file)
            .arg(server.address().to_string())
            .output()
            .expect("smtp-source runs");
        assert!(output.status.success(), "{output:?}");
    }
    let delivered = server.delivered();
    assert_eq!(delivered.len(), 2 * MESSAGES);
    let sent = mixed::message();
    for file in delivered {
        let message = std::fs::read(file).expect("a delivered message can be read");
        mixed::trace_above(&message, &sent);
    }
    assert!(server.spooled().is_empty());
    assert!(server.stop().success());
}
