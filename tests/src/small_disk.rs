//! A file system of its own below a folder of the daemon's, small enough to be filled, and in a mount namespace that only the daemon is in.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::PathBuf;
use std::process::Command;

use crate::programs;
use crate::server::Server;

/// Bytes of it.
const BYTES: usize = 4 << 20;
/// Files and folders that fit on it.
const INODES: usize = 200;

/// What can be wrong with a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A few kilobytes are left.
    NearlyFull,
    /// Nothing is left.
    Full,
    /// No file can be made, whatever its size.
    NoInodes,
    /// Mounted anew, to be read only: what a kernel does with a disk that fails.
    ReadOnly,
}

impl Fault {
    /// What the system says to whoever writes.
    pub fn reason(self) -> &'static str {
        match self {
            Fault::ReadOnly => "Read-only file system",
            _ => "No space left on device",
        }
    }
}

/// A folder of a daemon's that is on such a disk.
pub struct SmallDisk {
    folder: PathBuf,
    pid: nix::unistd::Pid,
}

impl SmallDisk {
    /// A daemon with the head of a dialogue and this folder of its own on a small disk. `None`, loudly, where this machine gives us no such disk.
    pub fn below(folder: &str, head: &str) -> Option<(Server, SmallDisk)> {
        // A mount namespace of the daemon's own keeps the machine as it is, and works without being root where the system allows it.
        let possible = Command::new("unshare")
            .args([unshare(), "sh", "-c", "mount -t tmpfs small /mnt"])
            .output()
            .is_ok_and(|output| output.status.success());
        if !possible {
            programs::missing(
                "a full disk: this machine lets us mount nothing, not even in a namespace",
            );
            return None;
        }
        let options = format!("size={BYTES},nr_inodes={INODES}");
        let script = format!(
            "mkdir -p \"$0/{folder}\" && mount -t tmpfs -o {options} small \"$0/{folder}\" && exec \"$@\""
        );
        let server = Server::start_inside(head, |dir| {
            let words = ["unshare", unshare(), "sh", "-c", &script];
            let words = words.into_iter().map(OsString::from);
            words.chain([dir.into()]).collect()
        });
        let disk = SmallDisk {
            folder: server.dir().join(folder),
            pid: server.pid(),
        };
        Some((server, disk))
    }

    /// A path on it, as it is reached from here.
    pub fn path(&self, name: &str) -> PathBuf {
        let inside = self.folder.strip_prefix("/").expect("an absolute path");
        PathBuf::from(format!("/proc/{}/root", self.pid))
            .join(inside)
            .join(name)
    }

    /// Something goes wrong with it.
    pub fn fail(&self, fault: Fault) {
        match fault {
            Fault::NearlyFull => self.fill(BYTES - (16 << 10)),
            Fault::Full => self.fill(BYTES),
            Fault::NoInodes => {
                for number in 0.. {
                    if File::create(self.path(&format!("filler-{number}"))).is_err() {
                        break;
                    }
                }
            }
            Fault::ReadOnly => self.mount_anew("remount,ro"),
        }
    }

    /// All is well again.
    pub fn recover(&self, fault: Fault) {
        if fault == Fault::ReadOnly {
            return self.mount_anew("remount,rw");
        }
        for entry in fs::read_dir(self.path("")).expect("the disk can be read") {
            let entry = entry.expect("the disk can be read");
            if entry.file_name().to_string_lossy().starts_with("filler") {
                fs::remove_file(entry.path()).expect("a filler can be removed");
            }
        }
    }

    fn fill(&self, bytes: usize) {
        let mut file = File::create(self.path("filler")).expect("a file on the small disk");
        for _ in 0..bytes.div_ceil(4096) {
            match file.write_all(&[b'x'; 4096]) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::StorageFull => return,
                Err(error) => panic!("the small disk cannot be filled: {error}"),
            }
        }
    }

    fn mount_anew(&self, options: &str) {
        let mut enter = Command::new("nsenter");
        enter.args(["--target", &self.pid.to_string(), "--mount"]);
        if unshare() != "-m" {
            enter.args(["--user", "--preserve-credentials"]);
        }
        let output = enter.args(["mount", "-o", options]).arg(&self.folder);
        let output = output.output().expect("nsenter can be started");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "mount -o {options}: {said}");
    }
}

/// What unshare(1) has to be asked for.
fn unshare() -> &'static str {
    match nix::unistd::geteuid().is_root() {
        true => "-m",
        false => "-rm",
    }
}
