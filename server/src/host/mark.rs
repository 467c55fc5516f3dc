//! By what plugin processes and their folders are known to be a daemon's, so that its successor finds what it left.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

/// Whose a process is, in its environment: the number of the daemon's process, a space, and its `spool_dir`.
pub const DAEMON: &str = "GATEPOST_DAEMON";

/// Its value for this daemon's processes.
pub(super) fn value(spool_dir: &Path) -> OsString {
    let mut value = OsString::from(format!("{} ", std::process::id()));
    value.push(spool_dir);
    value
}

/// Where the scratch folders of workers are.
pub fn scratch_in(spool_dir: &Path) -> PathBuf {
    spool_dir.join("plugins")
}

/// How the name of a scratch folder begins. What is random follows.
pub(super) fn scratch_name(process: &str, worker: u32) -> String {
    format!("{process}.{worker}.{}.", std::process::id())
}

/// The daemon that made a scratch folder of this name.
pub fn scratch_of(name: &OsStr) -> Option<i32> {
    let mut parts = name.to_str()?.rsplit('.');
    let (_random, daemon, worker) = (parts.next()?, parts.next()?, parts.next()?);
    worker.parse::<u32>().ok()?;
    daemon.parse().ok().filter(|pid| *pid > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_scratch_folder_says_whose_it_is() {
        let name = scratch_name("a.b", 2) + "x1y2z3";
        assert_eq!(
            scratch_of(OsStr::new(&name)),
            i32::try_from(std::process::id()).ok()
        );
        for other in ["notes", "a.2.x1y2z3", "a.b.c.d", "a.2.0.x"] {
            assert_eq!(scratch_of(OsStr::new(other)), None, "{other}");
        }
    }
}
