//! Python's smtplib sends through a chain of built-in, Python and Perl plugins.

use std::process::Command;

use gatepost_tests::mixed;

const CLIENT: &str = "
import smtplib, sys
port, file = sys.argv[1:]
with smtplib.SMTP('127.0.0.1', int(port), local_hostname='client.example') as smtp:
    message = open(file, 'rb').read()
    refused = smtp.sendmail('alice@client.example', ['bob@example.org', 'nobody@example.org'], message, ['BODY=8BITMIME'])
    code, text = refused.pop('nobody@example.org')
    assert code == 550 and b'no such user here' in text, (code, text)
    assert not refused, refused
";

#[test]
fn smtplib_delivers() {
    let mut server = mixed::server();
    let (_folder, file) = mixed::message_file();
    let status = Command::new("python3")
        .args(["-c", CLIENT, &server.address().port().to_string()])
        .arg(file)
        .status();
    assert!(status.expect("Python 3 is there").success());
    mixed::assert_delivered(&mut server);
}
