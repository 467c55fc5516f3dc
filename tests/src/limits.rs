//! What the system lets a running daemon have, changed while it runs, and what it takes.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::Command;

use nix::unistd::Pid;

/// Gives a running process another soft limit; `name` as prlimit(1) calls it.
pub fn limit(pid: Pid, name: &str, limit: u64) {
    // As whoever it runs as: root in a container may not touch the limits of others.
    let owner = fs::metadata(format!("/proc/{pid}")).expect("the process runs");
    let mut set = match owner.uid() == nix::unistd::geteuid().as_raw() {
        true => Command::new("prlimit"),
        false => {
            let (user, group) = (owner.uid().to_string(), owner.gid().to_string());
            let mut set = Command::new("setpriv");
            set.args(["--reuid", &user, "--regid", &group, "--clear-groups"]);
            set.arg("prlimit");
            set
        }
    };
    let set = set
        .args(["--pid", &pid.to_string(), &format!("--{name}={limit}:")])
        .output()
        .expect("prlimit can be started");
    let said = String::from_utf8_lossy(&set.stderr);
    assert!(set.status.success(), "prlimit --{name}={limit}: {said}");
}

/// Descriptors that a process has.
pub fn descriptors(pid: Pid) -> u64 {
    let dir = fs::read_dir(format!("/proc/{pid}/fd")).expect("the process runs");
    dir.count() as u64
}

/// Leaves a process no descriptor beyond those that it has.
pub fn no_more_descriptors(pid: Pid) {
    let highest = fs::read_dir(format!("/proc/{pid}/fd"))
        .expect("the process runs")
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u64>().ok())
        .max();
    // Numbers below the limit that are free can still be had: all of them up to the highest are to be in use, or are few.
    let used = descriptors(pid);
    limit(
        pid,
        "nofile",
        used.min(highest.map_or(0, |highest| highest + 1)),
    );
}

/// Hundredths of a second of processor time that a process used so far (proc(5), fields 14 and 15).
pub fn processor_time(pid: Pid) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("the process runs");
    let (_, fields) = stat.rsplit_once(") ").expect("a name in parentheses");
    let ticks = fields.split(' ').skip(11).take(2);
    ticks
        .map(|ticks| ticks.parse::<u64>().expect("a number"))
        .sum()
}
