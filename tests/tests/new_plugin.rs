//! A newcomer's first plugin: `gatepost plugin new`, and then every command that it says comes next, in each language.

use std::path::Path;
use std::process::Command;

use gatepost_tests::programs;
use gatepost_tests::server::gatepost;

/// Makes a plugin and does what is said to come next, but that the daemon is only checked, not run.
fn begin(language: &str, prepare: impl Fn(&Path)) {
    let dir = tempfile::tempdir().unwrap();
    let made = Command::new(gatepost())
        .args(["plugin", "new", "--lang", language, "novip"])
        .current_dir(dir.path())
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    prepare(&dir.path().join("novip"));
    let said = String::from_utf8(made.stdout).unwrap();
    let commands: Vec<String> = said
        .lines()
        .filter_map(|line| line.strip_prefix("    "))
        .map(|command| command.replace("gatepost run", "gatepost check"))
        .collect();
    assert!(commands.len() >= 4, "{said}");
    assert!(
        commands
            .iter()
            .any(|command| command.starts_with("gatepost plugin test"))
    );
    assert!(
        commands
            .iter()
            .any(|command| command.starts_with("gatepost check"))
    );
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = std::env::join_paths(
        [programs::bin()]
            .into_iter()
            .chain(std::env::split_paths(&path)),
    );
    let output = Command::new("sh")
        .args(["-ec", &commands.join("\n")])
        .current_dir(dir.path())
        .env("PATH", path.unwrap())
        .env("CARGO_NET_OFFLINE", "true")
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{said}\n{}\n{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn in_python() {
    begin("python", |_| {});
}

#[test]
fn in_perl() {
    begin("perl", |_| {});
}

#[test]
fn in_rust() {
    begin("rust", |folder| {
        let root = programs::root();
        // The crates that the project was built with are there; no others are fetched.
        std::fs::copy(root.join("Cargo.lock"), folder.join("Cargo.lock")).unwrap();
        // Crates that were compiled for an earlier run stay compiled.
        let target = root.join("target/new-plugin");
        std::fs::create_dir_all(&target).unwrap();
        std::os::unix::fs::symlink(target, folder.join("target")).unwrap();
    });
}
