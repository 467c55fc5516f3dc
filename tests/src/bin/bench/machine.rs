//! What the figures were taken on.

use std::process::Command;

use crate::Effort;

/// One paragraph: processor, cores, kernel, file system, date. No names of hosts or folders.
pub fn describe(effort: &Effort) -> String {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let cpu = cpu
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map_or("unknown processor", |(_, model)| model);
    let kernel = said("uname", &["-sr"]);
    let temporary = std::env::temp_dir();
    let disk = said("stat", &["-f", "-c", "%T", &temporary.to_string_lossy()]);
    let date = said("date", &["-u", "+%Y-%m-%d"]);
    let postfix = said("postconf", &["-h", "mail_version"]);
    let rounds = effort.rounds;
    format!(
        "{date}, {cpu}, {cores} cores for server and load together, {kernel}, {disk}; peers from Postfix {postfix}. \
         Medians of {rounds} rounds, in brackets the least and the most.\n"
    )
}

/// The first line a program prints; empty if it does not run.
fn said(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    let output = output.map(|output| output.stdout).unwrap_or_default();
    let text = String::from_utf8_lossy(&output);
    text.lines().next().unwrap_or_default().to_owned()
}
