//! Real clients authenticate, each by the mechanism it chooses or is told to use.

use std::path::Path;
use std::process::Command;

use gatepost_tests::accounts::{self, PASSWORD, TOKEN, USER, assert_authenticated, assert_refused};
use gatepost_tests::nodemailer::{Nodemailer, assert_sent};
use gatepost_tests::programs::needed;
use gatepost_tests::server::Server;
use serde_json::json;

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

/// Submits a message with curl. Returns its exit status, and what was said over the wire: `> ` is curl, `< ` the server.
fn curl(program: &Path, server: &Server, arguments: &[&str]) -> (Option<i32>, String) {
    let message = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(message.path(), "Subject: x\r\n\r\n").expect("it can be written");
    let output = Command::new(program)
        .args(["--silent", "--show-error", "--verbose", "--noproxy", "*"])
        .args(arguments)
        .args(["--mail-from", USER, "--mail-rcpt", "stranger@example.net"])
        .arg("--upload-file")
        .arg(message.path())
        .arg(format!("smtp://{}/client.example", server.address()))
        .output()
        .expect("curl starts");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code(), said)
}

/// What curl ends with when it is not let in.
const LOGIN_DENIED: Option<i32> = Some(67);

#[test]
fn curl_by_each_of_its_mechanisms() {
    let Some(program) = needed("curl") else {
        return;
    };
    let server = accounts::server(IN_THE_CLEAR);
    // Of these curl speaks SCRAM only where it was built with a library for it.
    for mechanism in ["CRAM-MD5", "PLAIN", "LOGIN"] {
        for (password, status) in [("guess", LOGIN_DENIED), (PASSWORD, Some(0))] {
            let arguments = [
                "--user",
                &format!("{USER}:{password}"),
                "--login-options",
                &format!("AUTH={mechanism}"),
            ];
            let (ended, said) = curl(&program, &server, &arguments);
            assert_eq!(ended, status, "{mechanism}: {said}");
        }
        assert_authenticated(&server, mechanism);
    }
}

#[test]
fn curl_by_bearer_tokens() {
    let Some(program) = needed("curl") else {
        return;
    };
    let user = format!("{USER}:");
    for mechanism in ["OAUTHBEARER", "XOAUTH2"] {
        for initial in [&["--sasl-ir"][..], &[]] {
            // With a token curl takes OAUTHBEARER where it is offered, whatever `--login-options` says.
            let server = accounts::server_with(IN_THE_CLEAR, &["PLAIN", mechanism]);
            let submit = |token| {
                let arguments = ["--user", &user, "--oauth2-bearer", token];
                curl(&program, &server, &[&arguments, initial].concat())
            };
            let (ended, said) = submit(TOKEN);
            assert_eq!(ended, Some(0), "{mechanism}: {said}");
            assert_authenticated(&server, mechanism);

            let (ended, said) = submit("guess");
            assert_eq!(ended, LOGIN_DENIED, "{mechanism}: {said}");
            assert!(said.contains("< 334 ey"), "{mechanism}: {said}");
            // RFC 7628 §3.2.3: a ^A makes room for the server's last word. With XOAUTH2 curl hangs up instead.
            if mechanism == "OAUTHBEARER" {
                let end = said.split_once("> AQ==").map(|(_, end)| end);
                assert!(end.is_some_and(|end| end.contains("< 535 ")), "{said}");
            }
            assert_refused(&server, mechanism);
            assert_eq!(server.delivered().len(), 1);
        }
    }
}

#[test]
fn nodemailer_by_each_of_its_mechanisms() {
    let Some(nodemailer) = Nodemailer::needed() else {
        return;
    };
    let server = accounts::server(IN_THE_CLEAR);
    let message = json!({ "from": USER, "to": "stranger@example.net", "text": "hello" });
    for mechanism in ["CRAM-MD5", "PLAIN", "LOGIN", "XOAUTH2"] {
        let options = |secret| match mechanism {
            "XOAUTH2" => {
                json!({ "auth": { "type": "OAuth2", "user": USER, "accessToken": secret } })
            }
            _ => json!({ "authMethod": mechanism, "auth": { "user": USER, "pass": secret } }),
        };
        let right = if mechanism == "XOAUTH2" {
            TOKEN
        } else {
            PASSWORD
        };
        let result = nodemailer.send(server.address(), options(right), message.clone());
        assert_sent(&result, &["stranger@example.net"], &[]);
        assert_authenticated(&server, mechanism);

        let result = nodemailer.send(server.address(), options("guess"), message.clone());
        assert_eq!(result["code"], "EAUTH", "{result}");
        let response = result["response"].as_str().expect("the server's words");
        assert!(response.starts_with("535 5.7.8 "), "{result}");
        assert_refused(&server, mechanism);
    }
    assert_eq!(server.delivered().len(), 4);
}
