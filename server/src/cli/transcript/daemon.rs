//! The daemon as a process of its own, for the time of a dialogue: started, watched by its log, stopped.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::beside::Beside;
use super::head::Head;
use super::log::{Log, text_of};
use super::parse::Dialogue;
use super::run::{Stage, never_logged, play};

/// How long anything may take. Much more than it ever does: it only ends what would never end.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// How often a process is looked at that is to do something.
const LOOK: Duration = Duration::from_millis(5);

/// What the daemon logs for each socket, before the address.
const LISTENING: &str = "listen: listening on ";

/// A running daemon. It is killed when dropped, and then what runs beside it.
pub struct Daemon {
    child: Child,
    stage: Stage,
    reader: Option<JoinHandle<()>>,
    _beside: Beside,
}

impl Daemon {
    /// Writes a head's files and configuration into `dir`, starts what runs beside the daemon, then `command` with `run -c FILE` behind it, and
    /// waits until it listens. Blocks.
    /// An error says why it did not come up, with its log.
    pub fn start(mut command: Command, head: &Head, dir: &Path) -> Result<Daemon, String> {
        let config = dir.join("gatepost.toml");
        let unfilled = |error| format!("{} cannot be filled: {error}", dir.display());
        head.prepare(dir).map_err(unfilled)?;
        let beside = Beside::start(head, dir)?;
        std::fs::write(&config, beside.fill_in(&head.config)).map_err(unfilled)?;
        let program = command.get_program().to_owned();
        let mut child = command
            .args(["run", "-c"])
            .arg(&config)
            .current_dir(dir)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| format!("{} cannot be started: {error}", program.display()))?;
        let log = Arc::<Log>::default();
        let stderr = child.stderr.take().expect("standard error is a pipe");
        let reader = {
            let log = log.clone();
            std::thread::spawn(move || {
                for line in BufReader::new(stderr).split(b'\n').map_while(Result::ok) {
                    log.push(String::from_utf8_lossy(&line).into_owned());
                }
            })
        };
        let mut daemon = Daemon {
            child,
            stage: Stage {
                address: SocketAddr::from(([127, 0, 0, 1], 0)),
                socket: None,
                log,
                mail: dir.join("mail"),
                spool: dir.join("spool"),
                patience: PATIENCE,
            },
            reader: Some(reader),
            _beside: beside,
        };
        daemon.listening()?;
        Ok(daemon)
    }

    /// Waits for the line in the log that names the first socket's address.
    fn listening(&mut self) -> Result<(), String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let ended = self.child.try_wait().map_err(|error| error.to_string())?;
            if ended.is_some() {
                self.read_to_end();
            }
            let log = self.stage.log.since(0);
            let address = log.iter().find_map(|line| {
                let rest = text_of(line).strip_prefix(LISTENING)?;
                rest.split(' ').next()
            });
            match (address, ended) {
                (Some(address), None) => {
                    match address.strip_prefix("unix:") {
                        Some(path) => self.stage.socket = Some(path.into()),
                        None => {
                            self.stage.address = address
                                .parse()
                                .map_err(|_| format!("the daemon listens on {address}"))?;
                        }
                    }
                    return Ok(());
                }
                (_, Some(status)) => {
                    let log = log.join("\n");
                    return Err(format!("the daemon ended with {status}:\n{log}"));
                }
                (None, None) if Instant::now() > deadline => {
                    let log = log.join("\n");
                    return Err(format!("the daemon did not listen in time:\n{log}"));
                }
                (None, None) => std::thread::sleep(LOOK),
            }
        }
    }

    /// Where it listens and what it writes to.
    pub fn stage(&self) -> &Stage {
        &self.stage
    }

    /// Its process.
    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) -> Result<(), String> {
        kill(self.pid(), signal).map_err(|error| format!("the daemon is not there: {error}"))
    }

    /// Kills it, unless it has ended.
    pub fn kill(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Waits for its end, and for the last of its log. Blocks.
    pub fn wait(&mut self) -> Result<ExitStatus, String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let ended = self.child.try_wait().map_err(|error| error.to_string())?;
            if let Some(status) = ended {
                self.read_to_end();
                return Ok(status);
            }
            if Instant::now() > deadline {
                return Err("the daemon did not end in time".to_owned());
            }
            std::thread::sleep(LOOK);
        }
    }

    fn read_to_end(&mut self) {
        if let Some(reader) = self.reader.take() {
            // It ends with the pipe, and panics at nothing.
            let _ = reader.join();
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Plays a dialogue against a daemon of its own: `program` is started in `dir` with the head as its configuration, and must end well when it is told to
/// stop. Blocks; an error is for a person to read.
pub fn perform(dialogue: &Dialogue, head: &Head, program: &Path, dir: &Path) -> Result<(), String> {
    let named = |text: String| format!("{}: {text}", dialogue.file.display());
    let mut daemon = Daemon::start(Command::new(program), head, dir).map_err(named)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| named(error.to_string()))?;
    runtime
        .block_on(play(dialogue, daemon.stage()))
        .map_err(|failure| failure.to_string())?;
    daemon.signal(Signal::SIGTERM).map_err(named)?;
    let status = daemon.wait().map_err(named)?;
    if !status.success() {
        let log = daemon.stage.log.since(0).join("\n");
        return Err(named(format!("the daemon ended with {status}:\n{log}")));
    }
    never_logged(dialogue, &daemon.stage.log).map_err(|failure| failure.to_string())
}
