//! `gatepost check`: reads everything, starts every plugin, and prints the chain.

use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use gatepost_protocol::Hook;

use super::assemble;
use crate::chain::Chain;
use crate::report;

/// Checks a configuration. What is wrong goes to standard error, the chain to standard output.
pub fn check(path: Option<&Path>) -> ExitCode {
    let assembled = match assemble::start(path) {
        Ok(assembled) => assembled,
        Err(code) => return code,
    };
    print!("{}", describe(&assembled.chain));
    assembled
        .runtime
        .block_on(assembled.processes.shutdown(Duration::ZERO));
    report::flush();
    ExitCode::SUCCESS
}

/// The chain in order, a line for each hook that anybody takes part in.
fn describe(chain: &Chain) -> String {
    let width = Hook::ALL
        .iter()
        .map(|hook| hook.name().len())
        .max()
        .unwrap_or_default();
    let mut text = String::new();
    for hook in Hook::ALL {
        let asked = chain
            .asked_at(hook)
            .map(|together| match together.as_slice() {
                [one] => (*one).to_owned(),
                several => format!("[{}]", several.join(", ")),
            });
        let mut said: Vec<String> = asked.collect();
        said.extend(chain.told_of(hook).map(|name| format!("({name})")));
        if !said.is_empty() {
            let _ = writeln!(text, "{:width$}  {}", hook.name(), said.join(", "));
        }
    }
    text
}
