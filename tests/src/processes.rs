//! Processes of a daemon under test, and random moments.

use nix::unistd::Pid;

/// The processes that a process started, and those that these did, with their command lines.
///
/// # Panics
/// There is no /proc.
pub fn descendants(pid: Pid) -> Vec<(Pid, String)> {
    let processes = std::fs::read_dir("/proc")
        .expect("there is /proc")
        .flatten();
    let parents: Vec<(i32, i32)> = processes
        .filter_map(|process| {
            let pid = process.file_name().to_string_lossy().parse().ok()?;
            let status = std::fs::read_to_string(process.path().join("status")).ok()?;
            let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"))?;
            Some((pid, parent.trim().parse().ok()?))
        })
        .collect();
    let mut found = vec![pid.as_raw()];
    let mut at = 0;
    while at < found.len() {
        let children = parents.iter().filter(|(_, parent)| *parent == found[at]);
        let children: Vec<i32> = children.map(|(pid, _)| *pid).collect();
        found.extend(children);
        at += 1;
    }
    let command = |pid: &i32| {
        let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        (Pid::from_raw(*pid), command)
    };
    found[1..].iter().map(command).collect()
}

/// How many plugin processes a daemon has, also those whose parent is gone: their environment says whose they are.
///
/// # Panics
/// There is no /proc.
pub fn plugin_processes(daemon: Pid) -> usize {
    let mark = format!("GATEPOST_DAEMON={daemon} ");
    let processes = std::fs::read_dir("/proc").expect("there is /proc");
    processes
        .flatten()
        .filter(|process| {
            let environment = std::fs::read(process.path().join("environ")).unwrap_or_default();
            environment
                .split(|byte| *byte == 0)
                .any(|entry| entry.starts_with(mark.as_bytes()))
        })
        .count()
}

/// Random numbers that a seed determines (xorshift).
pub struct Dice(pub u64);

impl Dice {
    /// One below `bound`, which is above 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// A number from the environment.
///
/// # Panics
/// It is there and no number.
pub fn number_from(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(number) => number
            .parse()
            .unwrap_or_else(|_| panic!("{name} is no number")),
        Err(_) => default,
    }
}
