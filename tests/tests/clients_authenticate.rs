//! Real clients authenticate, each by the mechanism it chooses or is told to use.

use std::process::Command;

use gatepost_tests::programs::needed;
use gatepost_tests::server::Server;

fn server() -> Server {
    Server::start(
        r#"
[[listen]]
auth = "always"

[auth]
mechanisms = ["SCRAM-SHA-256", "CRAM-MD5", "PLAIN", "LOGIN"]

[limits]
max_auth_failures = 100

[files]
"config/flat_auth_pw" = "bob@example.org:s e:cret\n"

[[plugin]]
name = "auth/auth_flat_file"

[[plugin]]
name = "rcpt_ok"

[[plugin]]
name = "queue/maildir"
"#,
    )
}

/// Whether the log has the line that says so.
fn authenticated(server: &Server, mechanism: &str) {
    let line = format!("authenticated from 127.0.0.1: {mechanism}, user \"bob@example.org\"");
    server.wait_for_log(&line, |found| found.contains(&line));
}

#[test]
fn smtplib_by_each_of_its_mechanisms() {
    let server = server();
    for mechanism in ["CRAM-MD5", "PLAIN", "LOGIN"] {
        let script = format!(
            r#"
import smtplib, sys
client = smtplib.SMTP("127.0.0.1", {port})
client.ehlo()
client.esmtp_features["auth"] = "{mechanism}"
for password, good in (("guess", False), ("s e:cret", True)):
    try:
        client.login("bob@example.org", password)
        assert good, password
    except smtplib.SMTPAuthenticationError as error:
        assert not good and error.smtp_code == 535, error
client.sendmail("bob@example.org", ["stranger@example.net"], "Subject: {mechanism}\r\n\r\n")
client.quit()
"#,
            port = server.address().port()
        );
        let status = Command::new("python3").args(["-c", &script]).status();
        assert!(status.expect("python3 starts").success(), "{mechanism}");
        authenticated(&server, mechanism);
    }
    assert_eq!(server.delivered().len(), 3);
}

#[test]
fn swaks_by_each_of_its_mechanisms() {
    let Some(swaks) = needed("swaks") else { return };
    let server = server();
    for mechanism in ["CRAM-MD5", "PLAIN", "LOGIN"] {
        for (password, good) in [("guess", false), ("s e:cret", true)] {
            let output = Command::new(&swaks)
                .args(["--server", &server.address().to_string()])
                .args(["--auth", mechanism, "--auth-user", "bob@example.org"])
                .args(["--auth-password", password])
                .args(["--from", "bob@example.org", "--to", "stranger@example.net"])
                .output()
                .expect("swaks starts");
            let said = String::from_utf8_lossy(&output.stdout);
            assert_eq!(output.status.success(), good, "{mechanism}: {said}");
        }
        authenticated(&server, mechanism);
    }
}

#[test]
fn curl_by_each_of_its_mechanisms() {
    let Some(curl) = needed("curl") else { return };
    let server = server();
    let message = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(message.path(), "Subject: x\r\n\r\n").expect("it can be written");
    // Of these curl speaks SCRAM only where it was built with a library for it.
    for mechanism in ["CRAM-MD5", "PLAIN", "LOGIN"] {
        let output = Command::new(&curl)
            .args(["--silent", "--show-error"])
            .args([
                "--url",
                &format!("smtp://{}/client.example", server.address()),
            ])
            .args(["--user", "bob@example.org:s e:cret"])
            .args(["--login-options", &format!("AUTH={mechanism}")])
            .args(["--mail-from", "bob@example.org"])
            .args(["--mail-rcpt", "stranger@example.net"])
            .arg("--upload-file")
            .arg(message.path())
            .output()
            .expect("curl starts");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{mechanism}: {said}");
        authenticated(&server, mechanism);
    }
}
