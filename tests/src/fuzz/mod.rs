//! What the fuzz targets check. A target is a function of any bytes that panics where Gatepost breaks a promise. The coverage-guided fuzzer calls it
//! (`tests/fuzz`, `make fuzz`), and so do ordinary tests, on the kept corpus and on bytes made up (`tests/tests/fuzz.rs`).

pub mod claims;
pub mod client;
pub mod commands;
pub mod configuration;
pub mod conversation;
pub mod data;
pub mod envelopes;
pub mod exchanges;
pub mod frames;
mod grammar;
pub mod headers;
mod replies;

use std::collections::VecDeque;

use gatepost::config::{self, Config};
use tokio::runtime::{Builder, Runtime};

/// A target.
pub type Target = fn(&[u8]);

/// Every target, by its name: a binary in `tests/fuzz/fuzz_targets`, a folder in `tests/fuzz/corpus`.
pub const TARGETS: &[(&str, Target)] = &[
    ("claims", claims::check),
    ("commands", commands::check),
    ("configuration", configuration::check),
    ("conversation", conversation::check),
    ("data", data::check),
    ("envelopes", envelopes::check),
    ("exchanges", exchanges::check),
    ("frames", frames::check),
    ("headers", headers::check),
];

/// Between the parts of an input that has several.
const SEPARATOR: u8 = 0x1e;

/// How the bytes of an input come in: in blocks of these lengths, over and over.
struct Blocks<'a> {
    lengths: &'a [u8],
    next: usize,
}

impl<'a> Blocks<'a> {
    /// Takes the lengths off the beginning of an input: one byte says how many of them follow. Without any, all comes in one block.
    fn take(input: &'a [u8]) -> Option<(Blocks<'a>, &'a [u8])> {
        let (count, rest) = input.split_first()?;
        let (lengths, rest) = rest.split_at_checked(usize::from(count % 16))?;
        Some((Blocks { lengths, next: 0 }, rest))
    }

    /// The length of the next block, at least 1.
    fn next(&mut self) -> usize {
        let length = self.lengths.get(self.next % self.lengths.len().max(1));
        self.next += 1;
        length.map_or(usize::MAX, |length| usize::from(*length).max(1))
    }

    /// A stream in blocks.
    fn cut(mut self, mut stream: &[u8]) -> VecDeque<Vec<u8>> {
        let mut blocks = VecDeque::new();
        while !stream.is_empty() {
            let (block, rest) = stream.split_at(self.next().min(stream.len()));
            blocks.push_back(block.to_vec());
            stream = rest;
        }
        blocks
    }
}

/// Waits for what a target does, on the thread that does it.
fn in_runtime<T>(work: impl Future<Output = T>) -> T {
    thread_local! {
        static RUNTIME: Runtime = Builder::new_current_thread().enable_time().build().unwrap();
    }
    RUNTIME.with(|runtime| runtime.block_on(work))
}

/// A configuration.
fn config() -> Config {
    with_spool(config::parse("hostname = \"mx.example.org\"", "a fuzz target", &[]).unwrap())
}

/// The same configuration with the folder for messages on their way in that all runs have: what one left behind, the next clears away.
pub fn with_spool(mut config: Config) -> Config {
    config.spool_dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/fuzz-spool").into();
    config
}
