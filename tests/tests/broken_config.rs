//! Configurations that are wrong: each folder of `tests/broken-config` holds one, and exactly what `check` and `run` say about it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use gatepost_tests::programs;

/// The exit code for a mistake in the configuration (docs/configuration.md).
const MISTAKE: i32 = 2;

/// What a command says on standard error about the configuration of a folder, and its exit code.
fn said_about(folder: &Path, command: &str) -> (String, Option<i32>) {
    let output = Command::new(programs::bin().join("gatepost"))
        .args([command, "-c", "gatepost.toml"])
        .current_dir(folder)
        .stdin(Stdio::null())
        .output()
        .expect("the binary runs");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (said, output.status.code())
}

fn folders() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("broken-config");
    let mut folders: Vec<PathBuf> = std::fs::read_dir(root)
        .expect("the folders are there")
        .map(|entry| entry.expect("the folder can be read").path())
        .collect();
    folders.sort();
    folders
}

fn each_is_told_exactly_what_is_wrong(command: &str) {
    let mut wrong = Vec::new();
    let folders = folders();
    assert!(folders.len() > 30, "{}", folders.len());
    for folder in folders {
        let expected = std::fs::read_to_string(folder.join("expected")).unwrap_or_default();
        let (said, code) = said_about(&folder, command);
        if said != expected || code != Some(MISTAKE) {
            let name = folder.file_name().expect("it was listed").display();
            wrong.push(format!(
                "--- {name}: expected\n{expected}--- but was, with exit code {code:?}\n{said}"
            ));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn by_check() {
    each_is_told_exactly_what_is_wrong("check");
}

#[test]
fn by_run() {
    each_is_told_exactly_what_is_wrong("run");
}
