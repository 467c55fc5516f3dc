//! The spool: where messages wait while they come in, in memory up to a limit and in a folder beyond it.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use nix::errno::Errno;
use nix::unistd::Pid;

use super::block::Memory;
use super::intake::Intake;
use crate::config::Config;

/// What the names of our files begin with; the number of the process follows.
const PREFIX: &str = "gatepost-";
const SUFFIX: &str = ".msg";

/// The spool folder and the memory that messages share.
#[derive(Debug)]
pub struct Spool {
    dir: PathBuf,
    memory_per_message: usize,
    pub(super) memory: Arc<Memory>,
    files: AtomicU64,
}

/// Why the spool folder cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("spool_dir {}: {action}: {source}; {hint}", dir.display())]
pub struct SpoolError {
    dir: PathBuf,
    action: &'static str,
    source: io::Error,
    hint: &'static str,
}

impl Spool {
    /// Opens the spool of a configuration: makes the folder where there is none, removes what an earlier run left in it, and tries
    /// whether a file can be written.
    pub fn open(config: &Config) -> Result<Spool, SpoolError> {
        let dir = &config.spool_dir;
        let fail = |action, hint| {
            move |source| SpoolError {
                dir: dir.clone(),
                action,
                source,
                hint,
            }
        };
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o750)
            .create(dir)
            .map_err(fail(
                "cannot make the folder",
                "make it and give it to the user that Gatepost runs as, or set another `spool_dir`",
            ))?;
        remove_stale(dir).map_err(fail(
            "cannot remove the files of an earlier run",
            "let the user that Gatepost runs as read and write it",
        ))?;
        let spool = Spool {
            dir: dir.clone(),
            memory_per_message: config.limits.memory_per_message,
            memory: Arc::new(Memory::new(config.limits.memory_for_messages)),
            files: AtomicU64::new(0),
        };
        spool.create().map_err(fail(
            "cannot write a file",
            "let the user that Gatepost runs as write there, and see that the disk is not full (`df -h`, `df -i`)",
        ))?;
        Ok(spool)
    }

    /// A message that begins to come in.
    pub fn begin(self: &Arc<Spool>) -> Intake {
        Intake::new(Arc::clone(self))
    }

    pub(super) fn memory_per_message(&self) -> u64 {
        self.memory_per_message as u64
    }

    /// A new file. Blocks.
    pub(super) fn create(&self) -> io::Result<SpoolFile> {
        let number = self.files.fetch_add(1, Ordering::Relaxed);
        let name = format!("{PREFIX}{}-{number}{SUFFIX}", std::process::id());
        let path = self.dir.join(name);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o640)
            .open(&path)?;
        Ok(SpoolFile { file, path })
    }
}

/// A file in the spool folder; gone when dropped.
#[derive(Debug)]
pub struct SpoolFile {
    pub(super) file: File,
    path: PathBuf,
}

impl SpoolFile {
    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for SpoolFile {
    fn drop(&mut self) {
        // Whoever cleaned up the folder by hand did our work; any other error leaves a file that the next start removes.
        let _ = fs::remove_file(&self.path);
    }
}

/// Removes files of our naming whose process is no more, and leaves all others alone.
fn remove_stale(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let Some(pid) = name.to_str().and_then(owner) else {
            continue;
        };
        if is_gone(pid) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Whether the process that left something is no more. Our own number on something old: the process before us had it, as in a container where all are
/// number 1.
pub fn is_gone(pid: i32) -> bool {
    pid == std::process::id() as i32
        || nix::sys::signal::kill(Pid::from_raw(pid), None) == Err(Errno::ESRCH)
}

/// The process that made a file of this name.
fn owner(name: &str) -> Option<i32> {
    let middle = name.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?;
    let (pid, number) = middle.split_once('-')?;
    number.parse::<u64>().ok()?;
    pid.parse().ok().filter(|pid| *pid > 0)
}

#[cfg(test)]
pub(crate) mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::{BareNewlines, Limits, LogFormat};

    /// A configuration with a spool of these limits, generous otherwise.
    pub fn config(dir: &Path, memory_per_message: usize, memory_for_messages: usize) -> Config {
        Config {
            hostname: "mx.example.org".to_owned(),
            localiphost: None,
            run_as: None,
            spool_dir: dir.to_owned(),
            journal: 0,
            state: dir.join("state"),
            dns_server: None,
            flat_files: None,
            user_config: None,
            loglevel: gatepost_protocol::Level::Info,
            log_format: LogFormat::Text,
            tls: None,
            listen: Vec::new(),
            limits: Limits {
                max_size: 10 << 20,
                max_command_line: 2048,
                max_data_line: 1000,
                max_header: 64 << 10,
                max_recipients: 100,
                max_transactions: 100,
                max_errors: 20,
                max_auth_failures: 3,
                command_timeout: Duration::from_secs(300),
                data_timeout: Duration::from_secs(180),
                session_timeout: Duration::from_secs(3600),
                max_connections: 100,
                max_connections_per_ip: 20,
                memory_per_message,
                memory_for_messages,
                ..Limits::default()
            },
            auth_mechanisms: vec!["PLAIN".to_owned(), "LOGIN".to_owned()],
            bare_newlines: BareNewlines::Reject,
            mixed: Default::default(),
            outbox: Default::default(),
            origins: Default::default(),
            quarantine: Default::default(),
            plugins: Vec::new(),
            scopes: Default::default(),
            warnings: Default::default(),
        }
    }

    #[test]
    fn only_files_of_a_dead_process_are_stale() {
        let dir = tempfile::tempdir().unwrap();
        // Above the highest number that Linux gives (PID_MAX_LIMIT, 2^22).
        let dead = "gatepost-4194305-7.msg".to_owned();
        let own = format!("gatepost-{}-7.msg", std::process::id());
        let alive = format!("gatepost-{}-7.msg", std::os::unix::process::parent_id());
        let foreign = [
            "notes.txt",
            "gatepost-x-7.msg",
            "gatepost-4194305-7.txt",
            "gatepost-0-7.msg",
        ];
        for name in [&dead, &own, &alive]
            .into_iter()
            .map(String::as_str)
            .chain(foreign)
        {
            fs::write(dir.path().join(name), "x").unwrap();
        }
        Spool::open(&config(dir.path(), 0, 0)).unwrap();
        let mut left: Vec<String> = fs::read_dir(dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        let mut expected: Vec<String> = foreign
            .map(str::to_owned)
            .into_iter()
            .chain([alive])
            .collect();
        left.sort();
        expected.sort();
        assert_eq!(left, expected);
    }

    #[test]
    fn a_folder_that_is_none_is_an_error_that_says_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "x").unwrap();
        let error = Spool::open(&config(&file.join("spool"), 0, 0))
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("spool_dir") && error.contains("or set another"),
            "{error}"
        );
    }

    #[test]
    fn a_file_is_ours_alone() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let spool = Spool::open(&config(dir.path(), 0, 0)).unwrap();
        let file = spool.create().unwrap();
        let mode = file.file.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o137, 0, "{mode:o}");
    }
}
