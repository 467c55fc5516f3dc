//! The ear of a running daemon for its own command line: a Unix socket in `spool_dir`. A request is a line, its answer an exit code on a line of its own, and text.
//!
//! Whoever may write to the folder may ask; the socket itself is the daemon's user's alone.

use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use gatepost_protocol::Level;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot};
use tokio_util::task::AbortOnDropHandle;

use super::{FAILED, MISTAKE};
use crate::config::{self, Address};
use crate::listen::{Accepted, Bound, Listeners, Passed};
use crate::{plugins, report};

/// Whose lines these are in the log.
const LOGGED_AS: &str = "control";
/// The longest request, in bytes.
const LONGEST: u64 = 16 * 1024;
/// How long a client may take to say what it wants, or to read what it is told.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long to wait where no connection can be accepted for lack of descriptors or memory.
const RETRY: Duration = Duration::from_millis(100);
/// Requests that wait for their turn; further ones wait in the socket.
const WAITING: usize = 8;

/// What a daemon can be asked for.
#[derive(Debug, PartialEq)]
pub enum Wanted {
    /// That it reads its configuration anew, and starts these plugins anew; none: all.
    Reload(Vec<String>),
    /// That a new process takes its place, which is to be ready in that time.
    Upgrade(Duration),
}

/// That somebody wants something.
pub struct Request {
    /// What.
    pub wanted: Wanted,
    /// Takes the answer.
    pub answer: oneshot::Sender<Answer>,
}

/// What became of it: what is to be known, or why everything is as it was.
pub type Answer = Result<String, String>;

/// The request for a reload; names of plugins may follow, each behind a tab.
const RELOAD: &str = "reload";
/// The request for an upgrade; behind a tab the seconds that it may take.
const UPGRADE: &str = "upgrade";

impl Wanted {
    fn line(&self) -> String {
        match self {
            Wanted::Reload(plugins) => {
                let words = [RELOAD]
                    .into_iter()
                    .chain(plugins.iter().map(String::as_str));
                words.collect::<Vec<_>>().join("\t")
            }
            Wanted::Upgrade(within) => format!("{UPGRADE}\t{}", within.as_secs()),
        }
    }

    fn parse(line: &str) -> Option<Wanted> {
        let mut words = line.split('\t');
        match words.next()? {
            RELOAD => Some(Wanted::Reload(words.map(str::to_owned).collect())),
            UPGRADE => {
                let seconds = words.next()?.parse().ok()?;
                Some(Wanted::Upgrade(Duration::from_secs(seconds)))
            }
            _ => None,
        }
    }
}

/// The ear of a daemon.
pub struct Control {
    /// What was asked.
    pub requests: mpsc::Receiver<Request>,
    /// `None`: it cannot be asked.
    listener: Option<(Address, Arc<Bound>)>,
    hearing: Option<AbortOnDropHandle<()>>,
}

impl Control {
    /// Hears nothing any more: another daemon does. What was asked and not begun is answered as by a daemon that stops.
    pub fn close(&mut self) {
        self.hearing = None;
        self.listener = None;
        self.requests.close();
        while self.requests.try_recv().is_ok() {}
    }

    /// Its socket, for the daemon that is to take our place.
    pub fn socket(&self) -> io::Result<Option<Passed>> {
        let Some((addr, listener)) = &self.listener else {
            return Ok(None);
        };
        Ok(Some(Passed {
            addr: addr.clone(),
            socket: listener.as_fd().try_clone_to_owned()?,
            is_lent: false,
        }))
    }
}

fn socket(spool_dir: &Path) -> PathBuf {
    spool_dir.join("control")
}

/// Listens. Where that cannot be, the log says so, and the daemon can be asked by signals alone.
pub fn listen(spool_dir: &Path, listeners: &Listeners) -> Control {
    let (sender, requests) = mpsc::channel(WAITING);
    let path = socket(spool_dir);
    let addr = Address::Unix(path.clone());
    let (listener, hearing) = match listeners.open(&addr, Some(0o600)) {
        Ok((listener, _)) => {
            let listener = Arc::new(listener);
            let hearing = tokio::spawn(hear(listener.clone(), sender));
            (
                Some((addr, listener)),
                Some(AbortOnDropHandle::new(hearing)),
            )
        }
        Err(error) => {
            log(&format!(
                "{}: {error}; `gatepost reload` does not reach this daemon, SIGHUP does",
                path.display()
            ));
            (None, None)
        }
    };
    Control {
        requests,
        listener,
        hearing,
    }
}

async fn hear(listener: Arc<Bound>, requests: mpsc::Sender<Request>) {
    let mut failing = false;
    loop {
        match listener.accept().await {
            Ok(Accepted::Unix(stream)) => {
                failing = false;
                tokio::spawn(answer(stream, requests.clone()));
            }
            Ok(Accepted::Tcp(..)) => {}
            Err(error) => {
                // Once for a row of failures.
                if !failing {
                    log(&format!("cannot accept connections: {error}; trying on"));
                }
                failing = true;
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

async fn answer(mut stream: UnixStream, requests: mpsc::Sender<Request>) {
    let mut line = String::new();
    let read = (&mut stream).take(LONGEST);
    let mut read = tokio::io::BufReader::new(read);
    let read = tokio::io::AsyncBufReadExt::read_line(&mut read, &mut line);
    if !matches!(tokio::time::timeout(PATIENCE, read).await, Ok(Ok(_))) {
        return;
    }
    let line = line.trim_end();
    let (code, text) = match Wanted::parse(line) {
        Some(wanted) => {
            let (answer, answered) = oneshot::channel();
            // Both ends go when the daemon stops.
            let _ = requests.send(Request { wanted, answer }).await;
            match answered.await {
                Ok(Ok(text)) => (0, text),
                Ok(Err(text)) => (MISTAKE, text),
                Err(_) => (FAILED, "the daemon stops".to_owned()),
            }
        }
        None => (MISTAKE, format!("there is no request `{line}`")),
    };
    let text = format!("{code}\n{text}\n");
    let told = stream.write_all(text.as_bytes());
    // Whoever asked may have left; the log has it as well.
    let _ = tokio::time::timeout(PATIENCE, told).await;
}

fn log(text: &str) {
    report::line(Level::Warn, "", None, LOGGED_AS, format_args!("{text}"));
}

/// `gatepost reload` and `gatepost upgrade`: asks the daemon of a configuration for it, and prints what became of it.
pub fn ask(path: Option<&Path>, wanted: Wanted) -> ExitCode {
    // Even a configuration with mistakes says where the daemon's folder is; the daemon itself names them.
    let config = match config::load(path, &plugins::all()) {
        Ok(config) => config,
        Err(mistakes) => {
            eprintln!("{mistakes}");
            return ExitCode::from(MISTAKE);
        }
    };
    let socket = socket(&config.spool_dir);
    match exchange(&socket, &wanted) {
        Ok((0, text)) => {
            print!("{}", text.trim_start());
            ExitCode::SUCCESS
        }
        Ok((code, text)) => {
            eprint!("{text}");
            ExitCode::from(code)
        }
        Err(error) => {
            eprintln!(
                "{}: {error}; is the daemon of this configuration running? ask as its user; what SIGHUP does needs no socket",
                socket.display()
            );
            ExitCode::from(FAILED)
        }
    }
}

fn exchange(socket: &Path, wanted: &Wanted) -> io::Result<(u8, String)> {
    let mut stream = StdUnixStream::connect(socket)?;
    stream.write_all(format!("{}\n", wanted.line()).as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (code, text) = answer.split_once('\n').unwrap_or_default();
    let code = code.parse().map_err(|_| io::ErrorKind::UnexpectedEof)?;
    Ok((code, text.to_owned()))
}
