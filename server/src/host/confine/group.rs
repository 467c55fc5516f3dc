//! Control groups: what a process, all of its workers and all that these start may have together (docs/confinement.md).
//!
//! There are two kinds of hierarchy, and a system may have both: version 2 has one for all controllers, version 1 one for each of them. A group is a folder in
//! each hierarchy that has a controller which is needed: below the daemon's own group in version 1, and beside it in version 2, where a group with
//! processes in it has no groups with limits below it (cgroups(7)).

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::config::Confinement;

/// What the names of these groups begin with; the daemon's process id, and a number follow.
const PREFIX: &str = "gatepost-plugin.";

/// How often, and after which time, a group is removed that has processes in it which were killed.
const REMOVALS: (u32, Duration) = (20, Duration::from_millis(5));

/// The number of the next group.
static NEXT: AtomicU64 = AtomicU64::new(1);

/// What is bounded, and by which file of which version.
struct Controller {
    setting: &'static str,
    name: &'static str,
    limit: [&'static str; 2],
}

const MEMORY: Controller = Controller {
    setting: "total_memory",
    name: "memory",
    limit: ["memory.limit_in_bytes", "memory.max"],
};
const PROCESSES: Controller = Controller {
    setting: "total_processes",
    name: "pids",
    limit: ["pids.max", "pids.max"],
};

/// A place in a hierarchy where groups can be made.
#[derive(Debug, PartialEq)]
struct Parent {
    folder: PathBuf,
    version: usize,
}

/// The group of one process. When it is dropped, whatever is still in it is killed.
pub struct Group {
    folders: Vec<PathBuf>,
    /// Where the system counts the processes that it killed for their memory.
    killed: Option<PathBuf>,
}

impl Group {
    /// Makes it. The error says what to do.
    pub fn make(confine: &Confinement) -> Result<Group, String> {
        let (mounts, own) = whereabouts();
        Group::make_in(confine, &mounts, &own)
    }

    /// `mounts`: `/proc/self/mountinfo`. `own`: `/proc/self/cgroup`.
    fn make_in(confine: &Confinement, mounts: &str, own: &str) -> Result<Group, String> {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("{PREFIX}{}.{number}", std::process::id());
        let mut group = Group {
            folders: Vec::new(),
            killed: None,
        };
        for (controller, value) in [
            (MEMORY, confine.total_memory),
            (PROCESSES, confine.total_processes),
        ] {
            let Some(value) = value else { continue };
            let setting = controller.setting;
            let Some(parent) = parent(&controller, mounts, own) else {
                return Err(format!(
                    "`{setting}`: this system has no control groups with the controller `{}`: remove it, or run the plugin as a service of the system, and `attach` it",
                    controller.name
                ));
            };
            let folder = parent.folder.join(&name);
            group
                .bound(&controller, &parent, &folder, value)
                .map_err(|error| {
                    let folder = folder.display();
                    format!(
                        "`{setting}`: the control group {folder} cannot be made: {error}; see docs/confinement.md on what the daemon's service has to say, or remove `{setting}`"
                    )
                })?;
        }
        Ok(group)
    }

    fn bound(
        &mut self,
        controller: &Controller,
        parent: &Parent,
        folder: &Path,
        value: u64,
    ) -> io::Result<()> {
        if parent.version == 1 {
            let enabled = parent.folder.join("cgroup.subtree_control");
            let names = fs::read_to_string(&enabled)?;
            if !names.split_whitespace().any(|name| name == controller.name) {
                fs::write(&enabled, format!("+{}", controller.name))?;
            }
        }
        if !self.folders.iter().any(|known| known == folder) {
            fs::create_dir(folder)?;
            self.folders.push(folder.to_owned());
        }
        let limit = folder.join(controller.limit[parent.version]);
        fs::write(limit, value.to_string())?;
        if controller.name == MEMORY.name {
            let count = ["memory.oom_control", "memory.events"][parent.version];
            self.killed = Some(folder.join(count));
        }
        Ok(())
    }

    /// The folders of the group, for whoever is to go into it.
    pub fn folders(&self) -> &[PathBuf] {
        &self.folders
    }

    /// How many of its processes the system has killed, because there was no more memory for them.
    pub fn killed_for_memory(&self) -> u64 {
        let text = self
            .killed
            .as_ref()
            .and_then(|path| fs::read_to_string(path).ok());
        let count = text.as_deref().and_then(|text| {
            let mut lines = text.lines();
            lines.find_map(|line| line.strip_prefix("oom_kill ")?.parse().ok())
        });
        count.unwrap_or(0)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.folders.iter().for_each(|folder| remove(folder));
    }
}

/// Has this process, which has one thread, go into a group.
///
/// # Errors
/// Why it cannot.
pub(super) fn enter(folders: &[PathBuf]) -> Result<(), String> {
    for folder in folders {
        // 0 is whoever writes it.
        fs::write(folder.join("cgroup.procs"), "0").map_err(|error| {
            let folder = folder.display();
            format!("it cannot go into the control group {folder}: {error}")
        })?;
    }
    Ok(())
}

/// Where groups with a controller can be made.
fn parent(controller: &Controller, mounts: &str, own: &str) -> Option<Parent> {
    let mut second = None;
    for line in mounts.lines() {
        // proc_pid_mountinfo(5): root and mount point are the fourth and the fifth; type and super options come behind a dash.
        let (head, tail) = line.split_once(" - ")?;
        let mut head = head.split(' ').skip(3);
        let (root, point) = (head.next()?, head.next()?);
        let mut tail = tail.split(' ');
        let (kind, options) = (tail.next()?, tail.nth(1).unwrap_or_default());
        let version = match kind {
            "cgroup" if options.split(',').any(|option| option == controller.name) => 0,
            "cgroup2" => 1,
            _ => continue,
        };
        let Some(own) = own_path(controller.name, version, own) else {
            continue;
        };
        let below = Path::new(own).strip_prefix(root).unwrap_or(Path::new(""));
        let folder = Path::new(point).join(below);
        if version == 0 {
            return Some(Parent { folder, version });
        }
        // The root of all groups may have processes and limits below it.
        let folder = match below.parent() {
            Some(parent) => Path::new(point).join(parent),
            None => folder,
        };
        let controllers = fs::read_to_string(folder.join("cgroup.controllers")).unwrap_or_default();
        if controllers
            .split_whitespace()
            .any(|name| name == controller.name)
        {
            second = Some(Parent { folder, version });
        }
    }
    second
}

/// Which group this process is in: `HIERARCHY:CONTROLLERS:PATH` (cgroups(7)).
fn own_path<'a>(controller: &str, version: usize, own: &'a str) -> Option<&'a str> {
    own.lines().find_map(|line| {
        let (_, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        let is_this = match version {
            0 => controllers.split(',').any(|name| name == controller),
            _ => line.starts_with("0::"),
        };
        is_this.then_some(path)
    })
}

/// Ends the groups of daemons that are no more, of which `is_gone` says who is, and all that is in them. To be called before there are new ones.
pub fn clear_groups(is_gone: impl Fn(i32) -> bool) {
    let (mounts, own) = whereabouts();
    for controller in [MEMORY, PROCESSES] {
        let Some(parent) = parent(&controller, &mounts, &own) else {
            continue;
        };
        for entry in fs::read_dir(parent.folder).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let pid = name
                .to_str()
                .and_then(|name| name.strip_prefix(PREFIX)?.split('.').next()?.parse().ok());
            if pid.is_some_and(&is_gone) {
                remove(&entry.path());
            }
        }
    }
}

/// What is mounted where, and in which groups we are.
fn whereabouts() -> (String, String) {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    (read("/proc/self/mountinfo"), read("/proc/self/cgroup"))
}

/// Ends what is in a group, and the group. What cannot be removed stays until the next start.
fn remove(folder: &Path) {
    for _ in 0..REMOVALS.0 {
        let there = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
        for pid in there.lines().filter_map(|pid| pid.parse().ok()) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        if fs::remove_dir(folder).is_ok() || !folder.exists() {
            return;
        }
        std::thread::sleep(REMOVALS.1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn confine() -> Confinement {
        Confinement {
            total_memory: Some(100 << 20),
            total_processes: Some(20),
            ..Confinement::default()
        }
    }

    /// A folder in the place of a hierarchy of version 2, whose groups have these controllers.
    fn hierarchy(controllers: &str) -> (tempfile::TempDir, String) {
        let root = tempfile::tempdir().unwrap();
        let slice = root.path().join("system.slice");
        fs::create_dir_all(slice.join("gatepost.service/daemon")).unwrap();
        for folder in [&slice, &slice.join("gatepost.service")] {
            fs::write(folder.join("cgroup.controllers"), controllers).unwrap();
            fs::write(folder.join("cgroup.subtree_control"), "cpu").unwrap();
        }
        let mounts = format!(
            "25 1 8:1 / / rw - ext4 /dev/sda rw\n30 25 0:26 / {} rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n",
            root.path().display()
        );
        (root, mounts)
    }

    #[test]
    fn in_version_2_it_is_beside_the_daemon() {
        let (root, mounts) = hierarchy("cpuset cpu memory pids\n");
        let own = "0::/system.slice/gatepost.service/daemon\n";
        let group = Group::make_in(&confine(), &mounts, own).unwrap();
        let [folder] = group.folders() else {
            panic!("one for both: {:?}", group.folders());
        };
        let service = root.path().join("system.slice/gatepost.service");
        assert_eq!(folder.parent().unwrap(), service);
        let read = |file: &Path| fs::read_to_string(file).unwrap();
        assert_eq!(read(&folder.join("memory.max")), "104857600");
        assert_eq!(read(&folder.join("pids.max")), "20");
        // The kernel takes one after the other; a file has the last.
        assert_eq!(read(&service.join("cgroup.subtree_control")), "+pids");
        fs::write(folder.join("memory.events"), "max 7\noom 2\noom_kill 3\n").unwrap();
        assert_eq!(group.killed_for_memory(), 3);
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn version_1_comes_first_where_it_has_the_controller() {
        let (_root, second) = hierarchy("cpu\n");
        let mounts = format!(
            "{second}31 25 0:27 /docker/7 /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n32 25 0:28 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n"
        );
        let own = "8:pids:/\n4:memory:/docker/7/x\n0::/system.slice/gatepost.service/daemon\n";
        let at = |folder: &str| {
            let folder = PathBuf::from(folder);
            Some(Parent { folder, version: 0 })
        };
        assert_eq!(parent(&MEMORY, &mounts, own), at("/sys/fs/cgroup/memory/x"));
        assert_eq!(parent(&PROCESSES, &mounts, own), at("/sys/fs/cgroup/pids/"));
    }

    #[test]
    fn where_there_are_none_it_says_so() {
        let (_root, mounts) = hierarchy("cpu\n");
        let own = "0::/system.slice/gatepost.service/daemon\n";
        for mounts in ["", &mounts] {
            let error = Group::make_in(&confine(), mounts, own).err().unwrap();
            let expected =
                "`total_memory`: this system has no control groups with the controller `memory`: ";
            assert!(error.starts_with(expected), "{error}");
        }
    }
}
