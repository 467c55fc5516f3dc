//! How a plugin process is reached: a child on two pipes, or somebody else's socket (docs/protocol.md §1).

use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use command_fds::{CommandFdExt, FdMapping};
use gatepost_protocol::Level;
use gatepost_protocol::channel::{FrameReader, FrameWriter, Sink};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::PidfdFlags;
use tempfile::TempDir;
use tokio::io::AsyncRead;
use tokio::net::UnixStream;
use tokio::net::unix::pipe;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::capture::Lines;
use super::confine::{self, Folder, Group};
use super::mark::DAEMON;
use crate::config::Program;

/// How long to wait for the last lines of a process that is gone: a child of its own may hold the other end.
const LAST_LINES: Duration = Duration::from_millis(100);

/// How often to look whether a forked process that has no channel any more is gone.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// Frames from a plugin process.
pub(super) type Reader = FrameReader<Box<dyn AsyncRead + Send + Unpin>>;

/// A channel, and the child at its other end where it is ours.
pub(super) struct Link {
    pub(super) reader: Reader,
    pub(super) writer: Arc<FrameWriter>,
    pub(super) child: Option<Child>,
    /// A handle of it, for signals.
    pub(super) process: Option<OwnedFd>,
}

impl Link {
    fn new(source: impl AsyncRead + Send + Unpin + 'static, sink: Sink) -> Link {
        Link {
            reader: FrameReader::new(Box::new(source)),
            writer: Arc::new(FrameWriter::new(sink)),
            child: None,
            process: None,
        }
    }

    /// Connects to a plugin that somebody else runs. The error says what to do.
    pub(super) async fn attach(path: &Path) -> Result<Link, String> {
        let stream = UnixStream::connect(path).await.map_err(|error| {
            let shown = path.display();
            match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => format!(
                    "nobody listens at {shown}: start the plugin, or mend the path in `attach`"
                ),
                io::ErrorKind::PermissionDenied => {
                    format!("no permission to connect to {shown}: let this user read and write it")
                }
                _ => format!("cannot connect to {shown}: {error}"),
            }
        })?;
        let (source, sink) = stream.into_split();
        Ok(Link::new(source, Sink::Unix(sink)))
    }

    /// Takes the connection of a worker that was forked by another. It leads a process group of its own.
    pub(super) fn forked(stream: UnixStream, scratch: TempDir) -> Result<Link, String> {
        let failed = |what: &str| format!("the forked worker {what}");
        let peer = stream.peer_cred().ok().and_then(|peer| peer.pid());
        // The system's word, and not the worker's: it is going to be killed by this number.
        let pid = peer.ok_or_else(|| failed("has no process"))?;
        let handle = handle_of(pid).map_err(|error| failed(&format!("is gone: {error}")))?;
        let process = handle.try_clone();
        let (source, sink) = stream.into_split();
        let mut link = Link::new(source, Sink::Unix(sink));
        link.process = process.ok();
        link.child = Some(Child {
            pid: u32::try_from(pid).unwrap_or_default(),
            process: Life::Forked(handle),
            captures: JoinSet::new(),
            reaped: false,
            _scratch: scratch,
        });
        Ok(link)
    }

    /// Starts a program with a channel on its descriptors 3 and 4. The error says what to do.
    pub(super) fn spawn(
        program: &Program,
        mark: &OsStr,
        (folder, group): (Option<&Folder>, Option<&Group>),
        scratch: TempDir,
        lines: &Arc<Lines>,
    ) -> Result<Link, String> {
        let failed = |error: io::Error| format!("cannot make its channel: {error}");
        let (their_source, our_sink) = io::pipe().map_err(failed)?;
        let (our_source, their_sink) = io::pipe().map_err(failed)?;
        let mut command = confine::command(program, folder, group);
        command.env(DAEMON, mark);
        let mut child = with_channel(command, program, their_source.into(), their_sink.into())
            .spawn()
            .map_err(|error| not_started(&program.argv[0], &error))?;
        let source = pipe::Receiver::from_owned_fd(our_source.into()).map_err(failed)?;
        let sink = pipe::Sender::from_owned_fd(our_sink.into()).map_err(failed)?;
        let mut captures = JoinSet::new();
        if let Some(stdout) = child.stdout.take() {
            captures.spawn(lines.clone().copy(stdout, "stdout", Level::Info));
        }
        if let Some(stderr) = child.stderr.take() {
            captures.spawn(lines.clone().copy(stderr, "stderr", Level::Warn));
        }
        let mut link = Link::new(source, Sink::Pipe(sink));
        let pid = child.id().and_then(|pid| i32::try_from(pid).ok());
        link.process = pid.and_then(|pid| handle_of(pid).ok());
        link.child = Some(Child {
            pid: child.id().unwrap_or_default(),
            process: Life::Started(child),
            captures,
            reaped: false,
            _scratch: scratch,
        });
        Ok(link)
    }
}

/// A handle of a process that has not been waited for.
fn handle_of(pid: i32) -> io::Result<OwnedFd> {
    let pid = rustix::process::Pid::from_raw(pid).ok_or(io::ErrorKind::NotFound)?;
    Ok(rustix::process::pidfd_open(pid, PidfdFlags::empty())?)
}

fn with_channel(
    mut command: std::process::Command,
    program: &Program,
    source: OwnedFd,
    sink: OwnedFd,
) -> tokio::process::Command {
    command
        .envs(&program.env)
        .env("GATEPOST_FD", "3,4")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // A signal for the worker is for what it started, too; and an interrupt at the terminal is the core's to handle.
        .process_group(0)
        .fd_mappings(vec![
            FdMapping {
                parent_fd: source,
                child_fd: 3,
            },
            FdMapping {
                parent_fd: sink,
                child_fd: 4,
            },
        ])
        .expect("3 and 4 are two descriptors");
    let mut command = tokio::process::Command::from(command);
    command.kill_on_drop(true);
    command
}

fn not_started(program: &str, error: &io::Error) -> String {
    let hint = match error.kind() {
        _ if error.raw_os_error() == Some(nix::libc::ENOEXEC) => format!(
            "`{program}` is no program; a script begins with a line like `#!/usr/bin/env python3`"
        ),
        io::ErrorKind::NotFound if program.contains('/') => {
            "no such file, or its `#!` line names a program that is not there".to_owned()
        }
        io::ErrorKind::NotFound => {
            format!("`{program}` is not in PATH: install it, or give its whole path")
        }
        io::ErrorKind::PermissionDenied => {
            format!("`{program}` is not executable: run `chmod +x {program}`")
        }
        _ => error.to_string(),
    };
    format!("cannot be started: {hint}")
}

/// How the end of a process is noticed.
enum Life {
    /// It is our child.
    Started(tokio::process::Child),
    /// It is a child of our child: a handle that can be read once it has ended.
    Forked(OwnedFd),
}

/// A process of ours with what belongs to it.
pub(super) struct Child {
    pid: u32,
    process: Life,
    captures: JoinSet<()>,
    reaped: bool,
    /// Removed when this is dropped.
    _scratch: TempDir,
}

impl Child {
    /// Whether we started it ourselves: its end is noticed at once. Of others the end of their channel is.
    pub(super) fn is_own(&self) -> bool {
        matches!(self.process, Life::Started(_))
    }

    /// Waits until it has ended, and says how. Cancel-safe.
    pub(super) async fn ended(&mut self) -> String {
        let how = match &mut self.process {
            Life::Started(child) => child.wait().await.map(how_it_ended),
            Life::Forked(handle) => loop {
                let mut ended = [PollFd::new(handle, PollFlags::IN)];
                match rustix::event::poll(&mut ended, Some(&Timespec::default())) {
                    Ok(0) => tokio::time::sleep(LOOK_AGAIN).await,
                    Ok(_) => break Ok("it ended".to_owned()),
                    Err(error) => break Err(error.into()),
                }
            },
        };
        self.reaped |= how.is_ok();
        how.unwrap_or_else(|error| format!("it cannot be waited for: {error}"))
    }

    /// Waits for its end until `deadline`, then ends it: SIGTERM for its group, and SIGKILL after `term`.
    pub(super) async fn end(mut self, deadline: Instant, term: Duration) {
        if tokio::time::timeout_at(deadline, self.ended())
            .await
            .is_err()
        {
            self.signal(Signal::SIGTERM);
            drop(timeout(term, self.ended()).await);
        }
        // For it, or for what it started and left behind: the group keeps its number as long as anybody is in it.
        self.signal(Signal::SIGKILL);
        self.ended().await;
        drop(
            timeout(LAST_LINES, async {
                while self.captures.join_next().await.is_some() {}
            })
            .await,
        );
    }

    fn signal(&self, signal: Signal) {
        if let Ok(group) = i32::try_from(self.pid)
            && group > 0
        {
            // An error says that nobody is left.
            let _ = killpg(Pid::from_raw(group), signal);
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if !self.reaped {
            self.signal(Signal::SIGKILL);
        }
    }
}

fn how_it_ended(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("it exited with status {code}"),
        (None, Some(number)) => {
            let name = Signal::try_from(number).map_or("unknown", Signal::as_str);
            let why = match name {
                "SIGXCPU" => ": its CPU time is used up",
                _ => "",
            };
            format!("it died of signal {number} ({name}){why}")
        }
        (None, None) => "it ended".to_owned(),
    }
}
