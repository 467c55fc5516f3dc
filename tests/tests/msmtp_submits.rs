//! msmtp submits a message as a mail user's program does: STARTTLS, AUTH by several mechanisms, and what Received says of it.

use std::io::Write;
use std::process::{Command, Stdio};

use gatepost_tests::accounts::{self, PASSWORD, USER};
use gatepost_tests::programs::needed;

#[test]
fn msmtp_submits() {
    let Some(msmtp) = needed("msmtp") else { return };
    let server = accounts::server("direction = \"submission\"\ntls = \"starttls\"");
    let submit = |mechanism: &str, password: &str, tls: &str| {
        let mut child = Command::new(&msmtp)
            .args(["-C", "/dev/null", "--host=127.0.0.1"])
            .args([format!("--port={}", server.address().port())])
            .args([format!("--tls={tls}"), format!("--auth={mechanism}")])
            .args(["--tls-certcheck=off", "--domain=client.example"])
            .args([format!("--user={USER}"), format!("--from={USER}")])
            .arg(format!("--passwordeval=echo '{password}'"))
            .arg("stranger@example.net")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("msmtp starts");
        let mut stdin = child.stdin.take().expect("it was asked for");
        // One that was refused may be gone before it has read all.
        let _ = stdin.write_all(b"Subject: x\n\nhello\n");
        drop(stdin);
        child.wait_with_output().expect("msmtp ends")
    };
    for mechanism in ["scram-sha-256", "cram-md5", "plain", "login"] {
        let output = submit(mechanism, PASSWORD, "on");
        assert!(output.status.success(), "{mechanism}: {output:?}");
        let output = submit(mechanism, "guess", "on");
        assert!(!output.status.success(), "{mechanism}: {output:?}");
    }
    let clear = submit("plain", PASSWORD, "off");
    assert!(!clear.status.success(), "{clear:?}");
    let delivered = server.delivered();
    assert_eq!(delivered.len(), 4);
    for file in delivered {
        let message = std::fs::read_to_string(file).expect("it can be read");
        assert!(message.contains("with ESMTPSA id "), "{message}");
        assert!(
            message.contains(&format!(") smtp.auth=\"{USER}\"")),
            "{message}"
        );
    }
}
