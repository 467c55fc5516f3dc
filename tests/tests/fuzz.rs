//! The fuzz targets without the fuzzer: on the kept corpora, and on bytes put together from the dictionaries.

use std::fs;
use std::path::{Path, PathBuf};

use gatepost_tests::fuzz::{TARGETS, Target};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz")
        .join(name)
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| {
            entry
                .unwrap()
                .path()
                .file_stem()
                .unwrap()
                .to_str()
                .unwrap()
                .to_owned()
        })
        .collect();
    names.sort();
    names
}

#[test]
fn every_target_has_its_binary_corpus_and_dictionary() {
    let targets: Vec<&str> = TARGETS.iter().map(|(name, _)| *name).collect();
    for kind in ["fuzz_targets", "corpus", "dictionaries"] {
        assert_eq!(names(&folder(kind)), targets, "{kind}");
    }
    for (name, target) in TARGETS {
        let own = fs::read_to_string(folder("fuzz_targets").join(format!("{name}.rs"))).unwrap();
        assert!(own.contains(&format!("fuzz::{name}::check(")), "{name}");
        // Nothing at all is an input too.
        target(b"");
    }
}

#[test]
fn the_kept_corpora_hold() {
    for (name, target) in TARGETS {
        let folder = folder("corpus").join(name);
        let inputs = names(&folder);
        assert!(!inputs.is_empty(), "{name} has lost its corpus");
        for input in inputs {
            let bytes = fs::read(folder.join(&input)).unwrap();
            let held = std::panic::catch_unwind(|| target(&bytes));
            assert!(
                held.is_ok(),
                "{name}, corpus/{name}/{input}: {}",
                bytes.escape_ascii()
            );
        }
    }
}

/// The words of a dictionary, in AFL's notation.
fn words(name: &str) -> Vec<Vec<u8>> {
    let text = fs::read_to_string(folder("dictionaries").join(format!("{name}.dict"))).unwrap();
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let quoted = lines.map(|line| line.strip_prefix('"').unwrap().strip_suffix('"').unwrap());
    quoted.map(word).collect()
}

fn word(mut text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    while let Some(first) = text.chars().next() {
        let (byte, length) = match text.strip_prefix('\\') {
            None => (first as u8, 1),
            Some(hex) if hex.starts_with('x') => (u8::from_str_radix(&hex[1..3], 16).unwrap(), 4),
            Some(quoted) => (quoted.as_bytes()[0], 2),
        };
        bytes.push(byte);
        text = &text[length..];
    }
    bytes
}

fn on_made_up_bytes(name: &str, target: Target) {
    // Settings and blocks, for those that have them; to the others it is text.
    let start = (
        any::<u8>(),
        prop::collection::vec(0u8..40, 0..4),
        any::<bool>(),
    );
    let start = start.prop_map(|(settings, blocks, has)| match has {
        true => [&[settings, blocks.len() as u8], blocks.as_slice()].concat(),
        false => Vec::new(),
    });
    let part = prop_oneof![
        6 => prop::sample::select(words(name)),
        1 => prop::collection::vec(any::<u8>(), 0..4),
    ];
    let inputs = (start, prop::collection::vec(part, 0..30));
    let ran = TestRunner::default().run(&inputs, |(start, parts)| {
        target(&[start, parts.concat()].concat());
        Ok(())
    });
    if let Err(error) = ran {
        panic!("{name}: {error}");
    }
}

#[test]
fn words_in_any_order_hold() {
    for (name, target) in TARGETS {
        on_made_up_bytes(name, *target);
    }
}
