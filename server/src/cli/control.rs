//! The ear of a running daemon for its own command line: a Unix socket in `spool_dir`. A request is a line, its answer an exit code on a line of its own, and text.
//!
//! Whoever may write to the folder may ask; the socket itself is the daemon's user's alone.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use gatepost_protocol::Level;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot};

use super::{FAILED, MISTAKE};
use crate::config::{self, Address};
use crate::listen::{Accepted, Bound};
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

/// That somebody wants a reload.
pub struct Request {
    /// The plugins that are to be started anew; none: all.
    pub plugins: Vec<String>,
    /// Takes the answer.
    pub answer: oneshot::Sender<Answer>,
}

/// What became of a reload: what is to be known of it, or why everything is as it was.
pub type Answer = Result<String, String>;

/// The request for a reload; names of plugins may follow, each behind a tab.
const RELOAD: &str = "reload";

fn socket(spool_dir: &Path) -> PathBuf {
    spool_dir.join("control")
}

/// Listens. Where that cannot be, the log says so, and the daemon can be asked by signals alone.
pub fn listen(spool_dir: &Path) -> mpsc::Receiver<Request> {
    let (requests, queue) = mpsc::channel(WAITING);
    let path = socket(spool_dir);
    match Bound::new(&Address::Unix(path.clone()), Some(0o600)) {
        Ok(listener) => {
            tokio::spawn(hear(listener, requests));
        }
        Err(error) => log(&format!(
            "{}: {error}; `gatepost reload` does not reach this daemon, SIGHUP does",
            path.display()
        )),
    }
    queue
}

async fn hear(listener: Bound, requests: mpsc::Sender<Request>) {
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
    let mut words = line.trim_end().split('\t');
    let (code, text) = match words.next().unwrap_or_default() {
        RELOAD => {
            let (answer, answered) = oneshot::channel();
            let plugins = words.map(str::to_owned).collect();
            // Both ends go when the daemon stops.
            let _ = requests.send(Request { plugins, answer }).await;
            match answered.await {
                Ok(Ok(text)) => (0, text),
                Ok(Err(text)) => (MISTAKE, text),
                Err(_) => (FAILED, "the daemon stops".to_owned()),
            }
        }
        other => (MISTAKE, format!("there is no request `{other}`")),
    };
    let text = format!("{code}\n{text}\n");
    let told = stream.write_all(text.as_bytes());
    // Whoever asked may have left; the log has it as well.
    let _ = tokio::time::timeout(PATIENCE, told).await;
}

fn log(text: &str) {
    report::line(Level::Warn, "", None, LOGGED_AS, format_args!("{text}"));
}

/// `gatepost reload`: asks the daemon of a configuration for it, and prints what became of it.
pub fn reload(path: Option<&Path>, plugins: &[String]) -> ExitCode {
    // Even a configuration with mistakes says where the daemon's folder is; the daemon itself names them.
    let config = match config::load(path, &plugins::all()) {
        Ok(config) => config,
        Err(mistakes) => {
            eprintln!("{mistakes}");
            return ExitCode::from(MISTAKE);
        }
    };
    let socket = socket(&config.spool_dir);
    match ask(&socket, plugins) {
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
                "{}: {error}; is the daemon of this configuration running? ask as its user, or send it SIGHUP",
                socket.display()
            );
            ExitCode::from(FAILED)
        }
    }
}

fn ask(socket: &Path, plugins: &[String]) -> io::Result<(u8, String)> {
    let mut stream = StdUnixStream::connect(socket)?;
    let mut line = RELOAD.to_owned();
    for plugin in plugins {
        line.push('\t');
        line.push_str(plugin);
    }
    line.push('\n');
    stream.write_all(line.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (code, text) = answer.split_once('\n').unwrap_or_default();
    let code = code.parse().map_err(|_| io::ErrorKind::UnexpectedEof)?;
    Ok((code, text.to_owned()))
}
