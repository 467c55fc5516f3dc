//! Plays every `*.smtp` file below `tests/dialogs`, each against a daemon of its own.
//!
//! `DIALOG=name` plays those whose path contains the name; so does a name behind `cargo test --test dialogs --`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::Instant;

use gatepost::cli::transcript::{Dialogue, Head, files, perform};
use gatepost_tests::programs;
use gatepost_tests::server::{gatepost, new_folder};

/// Daemons that run at once. A dialogue mostly waits.
const PARALLEL: usize = 4;

fn main() -> ExitCode {
    let wanted = std::env::args()
        .skip(1)
        .find(|argument| !argument.starts_with('-'))
        .or_else(|| std::env::var("DIALOG").ok())
        .unwrap_or_default();
    let folder = programs::root().join("tests/dialogs");
    let all = files(&folder);
    let total = all.len();
    let mut dialogs: Vec<PathBuf> = all
        .into_iter()
        .filter(|file| file.to_string_lossy().contains(&wanted))
        .collect();
    leave_out_without_package(&folder, &mut dialogs);
    println!("\nrunning {} dialogs", dialogs.len());
    if dialogs.is_empty() && std::env::var_os("DIALOG").is_some() {
        eprintln!(
            "no dialog below {} is called like `{wanted}`",
            folder.display()
        );
        return ExitCode::FAILURE;
    }
    programs::bin();
    let started = Instant::now();
    let failures = play_all(&folder, &dialogs);
    for failure in &failures {
        println!("\n{failure}");
    }
    let word = if failures.is_empty() { "ok" } else { "FAILED" };
    println!(
        "\ntest result: {word}. {} passed; {} failed; 0 ignored; 0 measured; {} filtered out; finished in {:.2}s\n",
        dialogs.len() - failures.len(),
        failures.len(),
        total - dialogs.len(),
        started.elapsed().as_secs_f64()
    );
    match failures.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

/// Dialogues in `qpsmtpd` are with the plugins of Debian's package, which `make setup` unpacks. Where it could not, that is said loudly.
fn leave_out_without_package(folder: &Path, dialogs: &mut Vec<PathBuf>) {
    let theirs = folder.join("qpsmtpd");
    let package = programs::root().join(".qpsmtpd/usr/share/qpsmtpd/plugins");
    let needed = dialogs.iter().any(|file| file.starts_with(&theirs));
    if needed && !package.is_dir() {
        programs::missing(&format!(
            "Debian's package qpsmtpd is not unpacked below {}: run `make setup`",
            package.display()
        ));
        dialogs.retain(|file| !file.starts_with(&theirs));
    }
}

/// Plays dialogues, a few at once, and returns what failed in the order of the files.
fn play_all(folder: &Path, dialogs: &[PathBuf]) -> Vec<String> {
    let next = AtomicUsize::new(0);
    let (report, reports) = mpsc::channel();
    std::thread::scope(|scope| {
        for _ in 0..PARALLEL {
            let (next, report) = (&next, report.clone());
            scope.spawn(move || {
                while let Some(file) = dialogs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let outcome = play_one(file);
                    let name = file.strip_prefix(folder).unwrap_or(file).display();
                    let word = if outcome.is_ok() { "ok" } else { "FAILED" };
                    println!("test {name} ... {word}");
                    // The receiver outlives the scope.
                    let _ = report.send((file, outcome));
                }
            });
        }
    });
    drop(report);
    let mut failures: Vec<_> = reports
        .into_iter()
        .filter_map(|(file, outcome)| Some((file, outcome.err()?)))
        .collect();
    failures.sort();
    failures.into_iter().map(|(_, failure)| failure).collect()
}

/// Plays one dialogue; an error is for a person to read.
fn play_one(file: &Path) -> Result<(), String> {
    let dialogue = Dialogue::read(file).map_err(|mistake| mistake.to_string())?;
    let (dir, places) = new_folder();
    let head = Head::of(&dialogue, &places).map_err(|mistake| mistake.to_string())?;
    perform(&dialogue, &head, &gatepost(), dir.path())
}
