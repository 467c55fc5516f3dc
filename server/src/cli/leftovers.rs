//! What a daemon that was killed has left: plugin processes that are busy, and never see the end of their channel, and the scratch folders and control groups of them all.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::host;
use crate::message::spool::is_gone;

/// Ends the processes, and removes the folders, of daemons with this spool that are no more, and the control groups of all that are no more; returns what it ended. To be called before there are new
/// ones. What cannot be seen or removed stays.
pub fn clear(spool_dir: &Path) -> Vec<String> {
    let mut ended = Vec::new();
    for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let name = process.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let environment = fs::read(process.path().join("environ")).unwrap_or_default();
        if !is_left(&environment, spool_dir) {
            continue;
        }
        // Of a process that has ended there is none.
        let command = fs::read(process.path().join("cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        if kill(Pid::from_raw(pid), Signal::SIGKILL).is_err() {
            continue;
        }
        ended.push(format!("{pid} ({})", command.trim_end()));
    }
    host::clear_groups(is_gone);
    let folders = fs::read_dir(host::scratch_in(spool_dir));
    for folder in folders.into_iter().flatten().flatten() {
        if host::scratch_of(&folder.file_name()).is_some_and(is_gone) {
            let _ = fs::remove_dir_all(folder.path());
        }
    }
    ended
}

/// Whether an environment is that of a plugin process whose daemon is no more.
fn is_left(environment: &[u8], spool_dir: &Path) -> bool {
    let mut entries = environment.split(|byte| *byte == 0);
    let mark = entries.find_map(|entry| {
        let value = entry.strip_prefix(host::DAEMON.as_bytes())?;
        value.strip_prefix(b"=")
    });
    let Some((pid, spool)) = mark.and_then(|mark| {
        let space = mark.iter().position(|byte| *byte == b' ')?;
        Some((&mark[..space], &mark[space + 1..]))
    }) else {
        return false;
    };
    let pid = std::str::from_utf8(pid)
        .ok()
        .and_then(|pid| pid.parse().ok());
    Path::new(OsStr::from_bytes(spool)) == spool_dir && pid.is_some_and(is_gone)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_left_when_its_own_daemon_is_gone() {
        // Above the highest number that Linux gives (PID_MAX_LIMIT, 2^22).
        let dead = 4_194_305;
        let alive = std::os::unix::process::parent_id();
        for (pid, spool, expected) in [
            (dead, "/var/spool", true),
            (dead, "/var/spool/other", false),
            (alive, "/var/spool", false),
        ] {
            let environment = format!("A=b\0{}={pid} {spool}\0C=d\0", host::DAEMON);
            let found = is_left(environment.as_bytes(), Path::new("/var/spool"));
            assert_eq!(found, expected, "{environment:?}");
        }
        assert!(!is_left(b"PATH=/bin\0", Path::new("/var/spool")));
    }
}
