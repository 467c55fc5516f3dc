//! Configurations that are wrong: each folder of `tests/broken-config` holds one, and exactly what is to be said about it.

use std::path::{Path, PathBuf};

use gatepost::config;
use gatepost_protocol::settings::Setting;
use gatepost_protocol::{Definition, SettingError};

/// What is said on standard error about the configuration of a folder.
fn said_about(folder: &Path) -> String {
    std::env::set_current_dir(folder).expect("the folder is there");
    match config::load(Some(Path::new("gatepost.toml")), &definitions()) {
        Ok(config) => format!("no mistake was found in {config:?}\n"),
        Err(mistakes) => format!("{mistakes}\n"),
    }
}

/// Built-ins by name and settings; none of them is made.
fn definitions() -> Vec<Definition> {
    fn none() -> Vec<Setting> {
        Vec::new()
    }
    fn zones() -> Vec<Setting> {
        vec![Setting::list("zones", "the lists to ask").required()]
    }
    let define = |name, settings| Definition {
        name,
        about: "",
        settings,
        build: |_| Err(vec![SettingError::at("name", "not made here")]),
    };
    let mut definitions = vec![define("dnsbl", zones as fn() -> Vec<Setting>)];
    for name in ["badmailfrom", "badrcptto", "helo", "naughty", "rcpt_ok"] {
        definitions.push(define(name, none));
    }
    definitions
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

// One test: the folder of a process is one for all of its threads.
#[test]
fn each_is_told_exactly_what_is_wrong() {
    let mut wrong = Vec::new();
    let folders = folders();
    assert!(folders.len() > 30, "{}", folders.len());
    for folder in folders {
        let expected = std::fs::read_to_string(folder.join("expected")).unwrap_or_default();
        let said = said_about(&folder);
        if said != expected {
            let name = folder.file_name().unwrap().display();
            wrong.push(format!(
                "--- {name}: expected\n{expected}--- but was\n{said}"
            ));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}
