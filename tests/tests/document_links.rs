//! The documents refer to files and headings that are there.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use gatepost_tests::programs::root;

/// The documents in a folder, and in those below it if `deep`.
fn documents(folder: &Path, deep: bool, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy();
        if path.is_dir() && deep && name != "node_modules" && !name.starts_with('.') {
            documents(&path, deep, found);
        } else if name.ends_with(".md") {
            found.push(path);
        }
    }
}

/// The lines that are no code.
fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut is_code = false;
    text.lines().filter(move |line| {
        let is_fence = line.trim_start().starts_with("```");
        is_code ^= is_fence;
        !is_code && !is_fence
    })
}

/// By what name a heading is referred to.
fn anchor(heading: &str) -> String {
    heading
        .trim_start_matches('#')
        .trim()
        .to_lowercase()
        .chars()
        .filter(|char| char.is_alphanumeric() || matches!(char, ' ' | '-' | '_'))
        .map(|char| if char == ' ' { '-' } else { char })
        .collect()
}

fn anchors(path: &Path) -> HashSet<String> {
    let text = std::fs::read_to_string(path).unwrap();
    let headings = prose(&text).filter(|line| line.starts_with('#'));
    headings.map(anchor).collect()
}

#[test]
fn every_link_leads_somewhere() {
    let mut found = Vec::new();
    documents(&root(), false, &mut found);
    for folder in ["docs", "sdk-python", "sdk-perl", "plugin-examples"] {
        documents(&root().join(folder), true, &mut found);
    }
    assert!(found.len() > 10, "{found:?}");
    let mut broken = Vec::new();
    for path in &found {
        let text = std::fs::read_to_string(path).unwrap();
        for line in prose(&text) {
            let links = line.split("](").skip(1);
            for link in links.filter_map(|rest| rest.split_once(')')) {
                let link = link.0;
                if link.contains("://") || link.contains(' ') {
                    continue;
                }
                let (file, heading) = link.split_once('#').unwrap_or((link, ""));
                let target = match file {
                    "" => path.clone(),
                    _ => path.with_file_name(file),
                };
                let is_there =
                    target.exists() && (heading.is_empty() || anchors(&target).contains(heading));
                if !is_there {
                    broken.push(format!("{}: {link}", path.display()));
                }
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}
