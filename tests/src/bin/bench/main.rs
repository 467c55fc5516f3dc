//! `make bench`: Gatepost beside its peers, in one run, on loopback.
//!
//! Absolute rates say little on a machine that other things share, so what counts are ratios: every subject of a comparison is measured in
//! each round, one after the other, and the ratio is taken within the round. The median of the rounds is shown.

mod bdat;
mod disk;
mod floor;
mod hooks;
mod load;
mod machine;
mod memory;
mod noop;
mod peers;
mod plain_sink;
mod plot;
mod qpsmtpd;
mod rounds;
mod sessions;
mod side_by_side;
mod slow;
mod table;
mod throughput;
mod tls;

use std::path::PathBuf;
use std::process::ExitCode;

use table::Table;

/// How much is measured.
pub struct Effort {
    /// Rounds of each comparison.
    pub rounds: usize,
    /// The messages of a run are divided by this.
    pub divisor: usize,
    /// Idle connections.
    pub connections: usize,
}

const FULL: Effort = Effort {
    rounds: 7,
    divisor: 1,
    connections: 10_000,
};

const QUICK: Effort = Effort {
    rounds: 3,
    divisor: 5,
    connections: 1000,
};

type Measure = fn(&Effort) -> Tables;

/// What is measured, by the name that `--only` takes.
const MEASURES: &[(&str, Measure)] = &[
    ("discard", throughput::discard),
    ("durable", throughput::durable),
    ("peers", side_by_side::dropped),
    ("peers-kept", side_by_side::kept),
    ("noop", noop::added),
    ("sessions", sessions::memory),
    ("hooks", hooks::round_trips),
    ("qpsmtpd", qpsmtpd::same_plugins),
    ("memory", memory::measure),
    ("slow", slow::clients),
    ("tls", tls::handshakes),
    ("bdat", bdat::large_message),
];

fn main() -> ExitCode {
    let mut effort = &FULL;
    let mut document = None;
    let mut only = None;
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--quick" => effort = &QUICK,
            "--only" => only = arguments.next(),
            "--write" => document = arguments.next().map(PathBuf::from),
            _ => {
                let names: Vec<&str> = MEASURES.iter().map(|(name, _)| *name).collect();
                let names = names.join("|");
                eprintln!("usage: bench [--quick] [--only {names}] [--write FILE]");
                return ExitCode::from(2);
            }
        }
    }
    let mut text = machine::describe(effort);
    let mut plots = Vec::new();
    println!("{text}");
    for (name, measure) in MEASURES {
        if only.as_deref().is_some_and(|only| only != *name) {
            continue;
        }
        for table in measure(effort) {
            let shown = table.to_string();
            println!("{shown}");
            text.push('\n');
            text.push_str(&shown);
            plots.extend(table.plot);
        }
    }
    match document.map(|file| table::insert(&file, &text, &plots)) {
        Some(Err(error)) => {
            eprintln!("the figures could not be written: {error}");
            ExitCode::FAILURE
        }
        _ => ExitCode::SUCCESS,
    }
}

/// What a run measures: some tables.
type Tables = Vec<Table>;
