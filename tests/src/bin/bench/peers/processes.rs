//! What a server's processes take, from proc(5).

use std::fs;

use nix::unistd::{Pid, SysconfVar, sysconf};

/// Seconds of processor time that processes and all their descendants took so far, those that ended and were waited for included.
pub fn cpu(roots: &[Pid]) -> f64 {
    let ticks: u64 = tree(roots).iter().filter_map(|stat| stat.ticks()).sum();
    ticks as f64 / ticks_per_second()
}

/// Their proportional share of memory, in KB: what several processes share counts once.
pub fn memory(roots: &[Pid]) -> u64 {
    let share = |process: &Stat| {
        let rollup = fs::read_to_string(format!("/proc/{}/smaps_rollup", process.pid)).ok()?;
        let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"))?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    };
    // One that ended in between has none.
    tree(roots).iter().filter_map(share).sum()
}

/// Their ids.
pub fn ids(roots: &[Pid]) -> Vec<i32> {
    tree(roots).iter().map(|process| process.pid).collect()
}

/// A line of /proc/PID/stat.
struct Stat {
    pid: i32,
    /// What stands behind the name, from the state on.
    fields: Vec<String>,
}

impl Stat {
    fn read(pid: i32) -> Option<Stat> {
        let line = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // A name may hold spaces and parentheses.
        let (_, fields) = line.rsplit_once(") ")?;
        let fields = fields.split_whitespace().map(str::to_owned).collect();
        Some(Stat { pid, fields })
    }

    fn parent(&self) -> Option<i32> {
        self.fields.get(1)?.parse().ok()
    }

    /// utime, stime, cutime and cstime.
    fn ticks(&self) -> Option<u64> {
        let times = self.fields.get(11..15)?;
        times.iter().map(|field| field.parse::<u64>().ok()).sum()
    }
}

/// Processes and their descendants.
fn tree(roots: &[Pid]) -> Vec<Stat> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let ids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let mut others: Vec<Stat> = ids.filter_map(Stat::read).collect();
    let mut tree: Vec<Stat> = Vec::new();
    let mut parents: Vec<i32> = roots.iter().map(|root| root.as_raw()).collect();
    tree.extend(take(&mut others, |process| parents.contains(&process.pid)));
    while !parents.is_empty() {
        let children = take(&mut others, |process| {
            process
                .parent()
                .is_some_and(|parent| parents.contains(&parent))
        });
        parents = children.iter().map(|child| child.pid).collect();
        tree.extend(children);
    }
    tree
}

fn take(from: &mut Vec<Stat>, which: impl Fn(&Stat) -> bool) -> Vec<Stat> {
    from.extract_if(.., |process| which(process)).collect()
}

fn ticks_per_second() -> f64 {
    let ticks = sysconf(SysconfVar::CLK_TCK).ok().flatten();
    ticks.expect("the system says how it counts processor time") as f64
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn counts_children_that_run_and_that_ended() {
        let own = &[Pid::this()];
        let before = (cpu(own), memory(own));
        assert!(before.1 > 0);
        let mut shell = Command::new("sh")
            .args([
                "-c",
                "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done; echo; read end",
            ])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = [0];
        std::io::Read::read_exact(shell.stdout.as_mut().unwrap(), &mut line).unwrap();
        let running = cpu(own);
        assert!(running > before.0, "{running} {}", before.0);
        assert!(memory(own) > before.1);
        drop(shell.stdin.take());
        shell.wait().unwrap();
        let ended = cpu(own);
        assert!(ended >= running, "{ended} {running}");
    }

    #[test]
    fn leaves_out_who_does_not_descend() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let child_id = Pid::from_raw(child.id().try_into().unwrap());
        let spinning = Instant::now();
        while spinning.elapsed() < Duration::from_millis(100) {}
        let of_child = cpu(&[child_id]);
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(of_child < 0.05, "{of_child}");
    }
}
