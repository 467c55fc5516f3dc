//! `pip install ./sdk-python` makes a package that a plugin runs on.

use std::process::Command;

use gatepost_tests::programs::root;
use gatepost_tests::server::Server;
use gatepost_tests::smtp::Client;

#[test]
fn sdk_python_installs() {
    let python = root().join(".venv/bin/python3");
    if !python.is_file() {
        // `make setup` makes it; without it there is nothing to build a package with that is sure not to ask the internet.
        assert!(std::env::var_os("CI").is_none(), "make setup makes .venv");
        eprintln!("\n*** NOT TESTED: there is no .venv; run make setup ***\n");
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    // Building leaves files beside the sources.
    let sources = folder.path().join("sdk-python");
    let copied = Command::new("cp")
        .arg("-r")
        .arg(root().join("sdk-python"))
        .arg(&sources)
        .status();
    assert!(copied.expect("cp runs").success());
    let installed = folder.path().join("installed");
    let output = Command::new(&python)
        .args([
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
        ])
        .args([
            "--no-index",
            "--no-deps",
            "--no-build-isolation",
            "--target",
        ])
        .arg(&installed)
        .arg(&sources)
        .output()
        .expect("pip runs");
    assert!(output.status.success(), "{output:?}");

    let server = Server::start(&format!(
        r#"
[[plugin]]
name = "tag"
run = ["python3", "$ROOT/plugin-examples/python/tag_header.py"]
env = {{ PYTHONPATH = "{}" }}

[[plugin]]
name = "rcpt_ok"

[[plugin]]
name = "queue/maildir"
"#,
        installed.display()
    ));
    let mut client = Client::greet(server.address());
    let reply = client.deliver(b"Subject: x\r\n\r\n");
    assert!(reply.starts_with("250"), "{reply}");
    let message = String::from_utf8_lossy(&server.message()).into_owned();
    assert!(message.contains("X-Gatepost-Tag: "), "{message}");
}
