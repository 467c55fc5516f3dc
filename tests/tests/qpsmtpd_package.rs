//! The table of docs/porting.md names every plugin of Debian's package qpsmtpd. Each that it says to run has a session of its own: a
//! dialogue that is about it by its first line, or a test in this folder. For each of the others it says why there is none.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use gatepost::cli::transcript::{Dialogue, files};
use gatepost_tests::programs::{missing, root};

/// Files in the package's folder that are no plugins: a list, and two programs for the shell.
const NO_PLUGINS: [&str; 3] = ["registry.txt", "karma_tool", "tls_cert"];

/// What the table says of a plugin: its second and its third column.
type Row = (String, String);

#[test]
fn every_plugin_that_runs_has_a_session() {
    let Some(plugins) = plugins() else { return };
    let table = table(&plugins);
    let driven = driven();
    let mut faults = Vec::new();
    for plugin in &plugins {
        match table.get(plugin) {
            None => faults.push(format!("{plugin}: no row in docs/porting.md")),
            Some((says, _)) if says.starts_with("runs") => {
                if !driven.contains(plugin) {
                    faults.push(format!("{plugin}: {says}, and no session shows it"));
                }
            }
            Some((says, why)) if why.is_empty() => {
                faults.push(format!("{plugin}: {says}, and it is not said why"));
            }
            Some(_) => {}
        }
    }
    assert!(faults.is_empty(), "\n{}\n", faults.join("\n"));
}

/// The plugins of the package, by their names in config/plugins; none where it is not unpacked.
fn plugins() -> Option<BTreeSet<String>> {
    let folder = root().join(".qpsmtpd/usr/share/qpsmtpd/plugins");
    if !folder.is_dir() {
        missing("Debian's package qpsmtpd is not unpacked: run `make setup`");
        return None;
    }
    let name = |file: PathBuf| {
        let name = file.strip_prefix(&folder).expect("a file of the folder");
        name.to_string_lossy().into_owned()
    };
    let mut plugins: BTreeSet<String> = files(&folder).into_iter().map(name).collect();
    plugins.retain(|name| !NO_PLUGINS.contains(&name.as_str()));
    Some(plugins)
}

/// The rows of docs/porting.md, by plugin. A plugin in two rows, or one that the package has not, panics.
fn table(plugins: &BTreeSet<String>) -> BTreeMap<String, Row> {
    let text = std::fs::read_to_string(root().join("docs/porting.md")).unwrap();
    let (_, text) = text
        .split_once("## Each plugin of Debian's package")
        .expect("the section with the table");
    let (text, _) = text.split_once("\n## ").expect("a section behind it");
    let mut table = BTreeMap::new();
    for line in text.lines().filter(|line| line.starts_with("| `")) {
        let columns: Vec<&str> = line.split('|').map(str::trim).collect();
        let [_, names, says, why, _] = columns[..] else {
            panic!("a row has three columns: {line}");
        };
        for name in names.split('`').skip(1).step_by(2) {
            let named: Vec<&String> = match name.strip_suffix('*') {
                Some(folder) => plugins.iter().filter(|p| p.starts_with(folder)).collect(),
                None => plugins.get(name).into_iter().collect(),
            };
            assert!(!named.is_empty(), "the package has no plugin {name}");
            for plugin in named {
                let row = (says.to_owned(), why.to_owned());
                let before = table.insert(plugin.clone(), row);
                assert!(before.is_none(), "two rows are about {plugin}");
            }
        }
    }
    table
}

/// The plugins that a session is about.
fn driven() -> BTreeSet<String> {
    let dialogs = files(&root().join("tests/dialogs/qpsmtpd"));
    let tests = files(&root().join("tests/tests"));
    let told = tests.iter().flat_map(|file| {
        let text = std::fs::read_to_string(file).unwrap();
        loaded(&text.replace("\\\"", "\""))
    });
    dialogs
        .iter()
        .flat_map(|file| about(file))
        .chain(told)
        .collect()
}

/// The plugins of a dialogue's chain that its first line names.
fn about(file: &Path) -> Vec<String> {
    let dialogue = Dialogue::read(file).unwrap_or_else(|mistake| panic!("{mistake}"));
    let first = dialogue.head.lines().next().unwrap_or_default();
    let named = |name: &str| {
        first
            .split([' ', ',', ':', '.'])
            .any(|word| word.trim_start_matches('#') == name)
    };
    let mut plugins = loaded(&dialogue.head);
    plugins.retain(|name| named(name));
    plugins
}

/// The names in lines such as `qpsmtpd = "NAME:2 ARGUMENTS"`.
fn loaded(text: &str) -> Vec<String> {
    let line = |line: &str| {
        let rest = line.trim().strip_prefix("qpsmtpd = ")?;
        let words = rest.trim_matches(['"', '\'']);
        let name = words.split([' ', ':']).next()?;
        Some(name.to_owned())
    };
    text.lines().filter_map(line).collect()
}
