//! Real clients authenticate, each by the mechanism it chooses or is told to use.

use std::process::Command;

use gatepost_tests::accounts::{self, PASSWORD, USER, assert_authenticated};
use gatepost_tests::programs::needed;

/// For clients that do not encrypt.
const IN_THE_CLEAR: &str = "auth = \"always\"";

#[test]
fn smtplib_by_each_of_its_mechanisms() {
    let server = accounts::server(IN_THE_CLEAR);
    for mechanism in ["CRAM-MD5", "PLAIN", "LOGIN"] {
        let script = format!(
            r#"
import smtplib, sys
client = smtplib.SMTP("127.0.0.1", {port}, local_hostname="client.example")
client.ehlo()
client.esmtp_features["auth"] = "{mechanism}"
for password, good in (("guess", False), ("{PASSWORD}", True)):
    try:
        client.login("{USER}", password)
        assert good, password
    except smtplib.SMTPAuthenticationError as error:
        assert not good and error.smtp_code == 535, error
client.sendmail("{USER}", ["stranger@example.net"], "Subject: {mechanism}\r\n\r\n")
client.quit()
"#,
            port = server.address().port()
        );
        let status = Command::new("python3").args(["-c", &script]).status();
        assert!(status.expect("python3 starts").success(), "{mechanism}");
        assert_authenticated(&server, mechanism);
    }
    assert_eq!(server.delivered().len(), 3);
}

#[test]
fn swaks_by_each_of_its_mechanisms() {
    let Some(swaks) = needed("swaks") else { return };
    let server = accounts::server(IN_THE_CLEAR);
    for mechanism in ["CRAM-MD5", "PLAIN", "LOGIN"] {
        for (password, good) in [("guess", false), (PASSWORD, true)] {
            let output = Command::new(&swaks)
                .args(["--helo", "client.example"])
                .args(["--server", &server.address().to_string()])
                .args(["--auth", mechanism, "--auth-user", USER])
                .args(["--auth-password", password])
                .args(["--from", USER, "--to", "stranger@example.net"])
                .output()
                .expect("swaks starts");
            let said = String::from_utf8_lossy(&output.stdout);
            assert_eq!(output.status.success(), good, "{mechanism}: {said}");
        }
        assert_authenticated(&server, mechanism);
    }
}

#[test]
fn curl_by_each_of_its_mechanisms() {
    let Some(curl) = needed("curl") else { return };
    let server = accounts::server(IN_THE_CLEAR);
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
            .args(["--user", &format!("{USER}:{PASSWORD}")])
            .args(["--login-options", &format!("AUTH={mechanism}")])
            .args(["--mail-from", USER])
            .args(["--mail-rcpt", "stranger@example.net"])
            .arg("--upload-file")
            .arg(message.path())
            .output()
            .expect("curl starts");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{mechanism}: {said}");
        assert_authenticated(&server, mechanism);
    }
}
