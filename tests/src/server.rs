//! The daemon as a process: started with a configuration, watched by its log, stopped.

use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::thread::JoinHandle;

use gatepost::cli::transcript::{Dialogue, Head, Log, Mailbox, Places, Stage, text_of};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::programs;
use crate::wait::{PATIENCE, until};

/// A running daemon in a folder of its own. It is killed when dropped.
pub struct Server {
    child: Child,
    stage: Stage,
    reader: Option<JoinHandle<()>>,
    dir: TempDir,
}

impl Server {
    /// Starts the daemon with the head of a dialogue: a configuration of which only what matters is said (docs/testing.md).
    /// Panics with the log if it does not come up.
    pub fn start(head: &str) -> Server {
        Server::for_dialogue(&as_dialogue(head)).unwrap_or_else(|why| panic!("{why}"))
    }

    /// The same below another program, such as strace: `wrap` gets the server's folder and returns the words before the daemon's command.
    pub fn start_inside(head: &str, wrap: impl Fn(&Path) -> Vec<String>) -> Server {
        Server::prepare(&as_dialogue(head), wrap).unwrap_or_else(|why| panic!("{why}"))
    }

    /// Starts the daemon that a dialogue asks for; an error says why it did not come up.
    pub fn for_dialogue(dialogue: &Dialogue) -> Result<Server, String> {
        Server::prepare(dialogue, |_| Vec::new())
    }

    fn prepare(dialogue: &Dialogue, wrap: impl Fn(&Path) -> Vec<String>) -> Result<Server, String> {
        let dir = TempDir::with_prefix("gatepost-").map_err(|error| error.to_string())?;
        let places = Places {
            dir: dir.path().to_owned(),
            root: programs::root(),
            bin: programs::bin(),
        };
        let head = Head::of(dialogue, &places).map_err(|mistake| mistake.to_string())?;
        head.prepare(dir.path())
            .map_err(|error| error.to_string())?;
        let config = dir.path().join("gatepost.toml");
        std::fs::write(&config, &head.config).map_err(|error| error.to_string())?;
        let mut words = wrap(dir.path())
            .into_iter()
            .map(OsString::from)
            .collect::<Vec<_>>();
        words.push(programs::bin().join("gatepost").into());
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).arg("run").arg("-c").arg(&config);
        Server::spawn(command, dir).map_err(|log| format!("{}: {log}", dialogue.file.display()))
    }

    /// Starts a command that becomes the daemon, and waits until it listens.
    fn spawn(mut command: Command, dir: TempDir) -> Result<Server, String> {
        let mut child = command
            .current_dir(dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| format!("{:?}: {error}", command.get_program()))?;
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
        let mut server = Server {
            child,
            stage: Stage {
                address: SocketAddr::from(([0, 0, 0, 0], 0)),
                log,
                mail: dir.path().join("mail"),
                spool: dir.path().join("spool"),
                patience: PATIENCE,
            },
            reader: Some(reader),
            dir,
        };
        let listening = until("the daemon to listen", || {
            if let Some(address) = server.listening() {
                return Some(Ok(address));
            }
            match server.child.try_wait() {
                Ok(None) => None,
                ended => Some(Err(ended)),
            }
        });
        match listening {
            Ok(address) => {
                server.stage.address = address;
                Ok(server)
            }
            Err(ended) => {
                server.read_to_end();
                let log = server.log().join("\n");
                Err(format!("the daemon did not start ({ended:?}):\n{log}"))
            }
        }
    }

    /// The address of the first listener, as the log has it.
    fn listening(&self) -> Option<SocketAddr> {
        self.log().iter().find_map(|line| {
            let text = text_of(line).strip_prefix("listen: listening on ")?;
            text.split(' ').next()?.parse().ok()
        })
    }

    /// Where it listens and what it writes to.
    pub fn stage(&self) -> &Stage {
        &self.stage
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.stage.address
    }

    /// The folder of this server: `mail`, `spool`, `config`, `gatepost.toml`.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Its process.
    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }

    /// The log so far.
    pub fn log(&self) -> Vec<String> {
        self.stage.log.since(0)
    }

    /// Waits for a log line whose text, without time and session, satisfies `wanted`.
    pub fn wait_for_log(&self, what: &str, wanted: impl Fn(&str) -> bool) -> String {
        until(what, || {
            self.log().into_iter().find(|line| wanted(text_of(line)))
        })
    }

    /// The files of all delivered messages.
    pub fn delivered(&self) -> Vec<PathBuf> {
        Mailbox::new(&self.stage.mail).unseen(None)
    }

    /// The one message that was delivered; waits for it, and panics if there are more.
    pub fn message(&self) -> Vec<u8> {
        let files = until("a delivered message", || {
            Some(self.delivered()).filter(|files| !files.is_empty())
        });
        assert_eq!(files.len(), 1, "{files:?}");
        std::fs::read(&files[0]).expect("a delivered message can be read")
    }

    /// The files in the spool.
    pub fn spooled(&self) -> Vec<PathBuf> {
        gatepost::cli::transcript::files(&self.stage.spool)
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).expect("the daemon runs");
    }

    /// Waits for its end, and for the last of its log.
    pub fn wait(&mut self) -> ExitStatus {
        let child = &mut self.child;
        let status = until("the daemon to end", || {
            child.try_wait().expect("it is our child")
        });
        self.read_to_end();
        status
    }

    /// Stops it as an operator would, and waits for its end.
    pub fn stop(&mut self) -> ExitStatus {
        self.signal(Signal::SIGTERM);
        self.wait()
    }

    fn read_to_end(&mut self) {
        if let Some(reader) = self.reader.take() {
            reader.join().expect("reading the log does not panic");
        }
    }
}

/// A head as the head of a dialogue in which nothing happens.
fn as_dialogue(head: &str) -> Dialogue {
    let text = format!("# a test\n{head}\n---\nclose\n");
    Dialogue::parse(Path::new("a test"), &text).unwrap_or_else(|mistake| panic!("{mistake}"))
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
