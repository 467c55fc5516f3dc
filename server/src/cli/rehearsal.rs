//! Sessions of clients made up for them: the chain as it runs, the real conversation, and nothing delivered.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use gatepost_protocol::session::Tls;
use gatepost_protocol::{Address, Direction, Level};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, DuplexStream};
use tokio::runtime::Runtime;

use super::assemble::{self, Assembled, Generation};
use super::{FAILED, MISTAKE};
use crate::config::{self, Config, Listen, MailProtocol};
use crate::dialog::{Client, SMTP, Secured, Shared, Stop, serve};
use crate::host::Processes;
use crate::message::Spool;
use crate::report;
use crate::report::journal::Journal;

/// Names the session, in plugins and in what is printed.
const SESSION: &str = "explain";
/// How long plugin processes get to finish.
const GRACE: Duration = Duration::from_secs(5);

/// Who brings the message, and for whom.
pub struct Envelope {
    pub ip: IpAddr,
    pub helo: String,
    pub from: Address,
    pub rcpt: Vec<Address>,
    pub tls: bool,
    pub user: Option<String>,
}

/// What a client does behind its greeting.
#[derive(Clone, Copy)]
pub enum Said<'a> {
    /// It brings a message, as a mail server does.
    Message(&'a [u8]),
    /// It names sender and recipients, and gives up.
    Envelope,
    /// It says these lines, its greeting among them, with their CRLF.
    Lines(&'a [Vec<u8>]),
}

/// A chain that runs, and delivers nothing.
pub struct Rehearsal {
    runtime: Runtime,
    config: Arc<Config>,
    processes: Processes,
    journal: Arc<Journal>,
    shared: Arc<Shared>,
    /// Its own folder, where it has one.
    _apart: Option<TempDir>,
}

impl Rehearsal {
    /// Starts every plugin of a configuration. What goes wrong is on standard error.
    pub fn start(path: Option<&Path>) -> Result<Rehearsal, ExitCode> {
        Rehearsal::over(assemble::start(path)?, None)
    }

    /// The same, with a spool and a state store of its own in a folder: what runs by that configuration notices nothing.
    pub fn start_apart(path: &Path, folder: TempDir) -> Result<Rehearsal, ExitCode> {
        let place = |config: &mut Config| {
            config.spool_dir = folder.path().join("spool");
            config.state = folder.path().join("state");
        };
        let assembled = assemble::start_with(Some(path), place)?;
        Rehearsal::over(assembled, Some(folder))
    }

    fn over(assembled: Assembled, apart: Option<TempDir>) -> Result<Rehearsal, ExitCode> {
        let Assembled {
            generation,
            services,
            runtime,
        } = assembled;
        let Generation {
            config,
            chain,
            processes,
            ..
        } = generation;
        // All the rest is printed anyway. Nothing can go wrong with a log that runs.
        let _ = report::start(config.loglevel.min(Level::Warn), config.log_format);
        let spool = match Spool::open(&config) {
            Ok(spool) => spool,
            Err(error) => {
                runtime.block_on(processes.shutdown(GRACE));
                eprintln!("{error}");
                return Err(ExitCode::from(MISTAKE));
            }
        };
        let journal = Arc::new(Journal::in_memory());
        let shared = Arc::new(Shared {
            config: config.clone(),
            chain,
            services,
            spool: Arc::new(spool),
            outbox: None,
            store: None,
            journal: Some(journal.clone()),
            apart: Arc::default(),
        });
        Ok(Rehearsal {
            runtime,
            config,
            processes,
            journal,
            shared,
            _apart: apart,
        })
    }

    /// Plays a session; its records.
    pub fn bring(&self, envelope: &Envelope, said: Said<'_>) -> io::Result<Vec<String>> {
        let shared = self.shared.clone();
        self.runtime
            .block_on(bring(&self.config, shared, envelope, said))?;
        let records = self.journal.take();
        let records = records
            .iter()
            .map(|it| String::from_utf8_lossy(it).into_owned());
        Ok(records.collect())
    }

    /// Ends its plugins.
    pub fn end(self) {
        self.runtime.block_on(self.processes.shutdown(GRACE));
        report::flush();
    }
}

/// Starts every plugin, has the message brought, and returns the records. What goes wrong is on standard error.
pub fn perform(
    path: Option<&Path>,
    envelope: &Envelope,
    message: &[u8],
) -> Result<Vec<String>, ExitCode> {
    let stage = Rehearsal::start(path)?;
    let brought = stage.bring(envelope, Said::Message(message));
    stage.end();
    brought.map_err(|error| {
        eprintln!("{error}");
        ExitCode::from(FAILED)
    })
}

/// Holds the conversation from both sides.
async fn bring(
    config: &Config,
    shared: Arc<Shared>,
    envelope: &Envelope,
    said: Said<'_>,
) -> io::Result<()> {
    let listen = listener(config, envelope.user.is_some());
    let local = match listen.addr {
        config::Address::Tcp(local) => Some(local),
        config::Address::Unix(_) => None,
    };
    let tls = envelope.tls.then(|| {
        Box::new(Secured {
            tls: Tls {
                version: "TLSv1.3".into(),
                cipher: "TLS13_AES_256_GCM_SHA384".into(),
                ..Tls::default()
            },
            channel_binding: None,
        })
    });
    let client = Client {
        session: SESSION.into(),
        remote: Some(SocketAddr::new(envelope.ip.to_canonical(), 0)),
        local,
        connections: 1,
        listen: Arc::new(listen),
        user: envelope.user.clone(),
        secured: tls,
        may_xclient: false,
        may_xforward: false,
    };
    let (ours, theirs) = tokio::io::duplex(64 << 10);
    let server = tokio::spawn(serve(&SMTP, theirs, client, shared, Stop::default()));
    let mut caller = Caller {
        stream: BufReader::new(ours),
    };
    let called = match said {
        Said::Message(message) => caller.call(envelope, Some(&on_the_wire(message))).await,
        Said::Envelope => caller.call(envelope, None).await,
        Said::Lines(lines) => caller.say(lines).await,
    };
    drop(caller);
    server.await.map_err(io::Error::other)?;
    match called {
        // That the server hung up is in the record.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        called => called,
    }
}

/// Where the client comes in: users at the first listener for submission, anybody at the first for SMTP.
fn listener(config: &Config, is_user: bool) -> Listen {
    let mut speaking = config
        .listen
        .iter()
        .filter(|listen| listen.protocol == MailProtocol::Smtp);
    let for_users = |listen: &&Listen| listen.direction == Direction::Submission;
    let chosen = match is_user {
        true => speaking.clone().find(for_users).or_else(|| speaking.next()),
        false => speaking.next(),
    };
    let listen = chosen.or(config.listen.first());
    let usual = || Listen::at(SocketAddr::new(IpAddr::from([127, 0, 0, 1]), 0));
    Listen {
        greet_delay: Duration::ZERO,
        ..listen.cloned().unwrap_or_else(usual)
    }
}

/// The client's side.
struct Caller {
    stream: BufReader<DuplexStream>,
}

impl Caller {
    /// Does what a mail server does: recipients that are put off with 452 come in a transaction of their own, and after 451 for a message that only some take,
    /// all come again. Without a message it gives up behind the last recipient.
    async fn call(&mut self, envelope: &Envelope, message: Option<&[u8]>) -> io::Result<()> {
        if !is_yes(&self.reply().await?) {
            return Ok(());
        }
        let greeted = self.ask(&format!("EHLO {}", envelope.helo)).await?;
        let mut left: Vec<&Address> = envelope.rcpt.iter().collect();
        let mut came_again = false;
        while is_yes(&greeted) && !left.is_empty() {
            let mail = mail_command(envelope, &left, message.unwrap_or_default());
            if !is_yes(&self.ask(&mail).await?) {
                break;
            }
            let mut later = Vec::new();
            let mut accepted = Vec::new();
            for recipient in left {
                let reply = self.ask(&format!("RCPT TO:{recipient}")).await?;
                if is_yes(&reply) {
                    accepted.push(recipient);
                } else if reply.starts_with("452 4.5.3") {
                    later.push(recipient);
                }
            }
            let Some(message) = message.filter(|_| !accepted.is_empty()) else {
                self.ask("RSET").await?;
                break;
            };
            if self.ask("DATA").await?.starts_with("354") {
                self.stream.get_mut().write_all(message).await?;
                let reply = self.reply().await?;
                if reply.starts_with("451 4.5.3") && !came_again {
                    came_again = true;
                    later.splice(0..0, accepted);
                }
            }
            left = later;
        }
        self.ask("QUIT").await?;
        Ok(())
    }

    /// Says lines as they are, each behind the reply to the one before. A message that is not wanted is left out; one that has no end is broken off.
    async fn say(&mut self, lines: &[Vec<u8>]) -> io::Result<()> {
        if !is_yes(&self.reply().await?) {
            return Ok(());
        }
        let mut lines = lines.iter();
        while let Some(line) = lines.next() {
            self.stream.get_mut().write_all(line).await?;
            let reply = self.reply().await?;
            if !line.eq_ignore_ascii_case(b"DATA\r\n") {
                continue;
            }
            let is_wanted = reply.starts_with("354");
            let mut is_whole = false;
            for line in lines.by_ref() {
                if is_wanted {
                    self.stream.get_mut().write_all(line).await?;
                }
                is_whole = line == b".\r\n";
                if is_whole {
                    break;
                }
            }
            if is_wanted && is_whole {
                self.reply().await?;
            }
        }
        Ok(())
    }

    async fn ask(&mut self, command: &str) -> io::Result<String> {
        let line = format!("{command}\r\n");
        self.stream.get_mut().write_all(line.as_bytes()).await?;
        self.reply().await
    }

    /// A reply up to its last line.
    async fn reply(&mut self) -> io::Result<String> {
        let mut reply = String::new();
        loop {
            let start = reply.len();
            if self.stream.read_line(&mut reply).await? == 0 {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            if reply.as_bytes().get(start + 3) != Some(&b'-') {
                return Ok(reply);
            }
        }
    }
}

fn is_yes(reply: &str) -> bool {
    reply.starts_with('2')
}

fn mail_command(envelope: &Envelope, to: &[&Address], message: &[u8]) -> String {
    let mut command = format!("MAIL FROM:{} SIZE={}", envelope.from, message.len());
    let (header, _) = message.split_at(header_end(message));
    let addresses = || to.iter().copied().chain([&envelope.from]);
    if !message.is_ascii() {
        command.push_str(" BODY=8BITMIME");
    }
    if !header.is_ascii() || !addresses().all(|address| address.as_str().is_ascii()) {
        command.push_str(" SMTPUTF8");
    }
    command
}

fn header_end(message: &[u8]) -> usize {
    let empty_line = b"\r\n\r\n";
    let found = memchr::memmem::find(message, empty_line);
    found.unwrap_or(message.len())
}

/// Lines that end in CRLF, dots doubled, and the end of data (RFC 5321 §4.5.2).
fn on_the_wire(message: &[u8]) -> Vec<u8> {
    let mut wire = Vec::with_capacity(message.len() + message.len() / 32 + 8);
    for line in message.split_inclusive(|byte| *byte == b'\n') {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.starts_with(b".") {
            wire.push(b'.');
        }
        wire.extend_from_slice(line);
        wire.extend_from_slice(b"\r\n");
    }
    wire.extend_from_slice(b".\r\n");
    wire
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_as_it_goes_over_the_wire() {
        for (file, wire) in [
            ("", ".\r\n"),
            ("a\n.\n..b", "a\r\n..\r\n...b\r\n.\r\n"),
            ("a\r\n\r\n.", "a\r\n\r\n..\r\n.\r\n"),
        ] {
            assert_eq!(on_the_wire(file.as_bytes()), wire.as_bytes(), "{file:?}");
        }
    }

    #[test]
    fn what_the_message_needs_is_declared() {
        let envelope = |from: &str| Envelope {
            ip: IpAddr::from([192, 0, 2, 1]),
            helo: "x".to_owned(),
            from: Address::parse_utf8(from).unwrap(),
            rcpt: Vec::new(),
            tls: false,
            user: None,
        };
        for (from, message, parameters) in [
            ("a@b", "A: b\r\n\r\nc\r\n.\r\n", ""),
            ("a@b", "A: b\r\n\r\n\u{e9}\r\n.\r\n", " BODY=8BITMIME"),
            (
                "a@b",
                "A: \u{e9}\r\n\r\nc\r\n.\r\n",
                " BODY=8BITMIME SMTPUTF8",
            ),
            ("\u{e9}@b", "A: b\r\n\r\nc\r\n.\r\n", " SMTPUTF8"),
        ] {
            let command = mail_command(&envelope(from), &[], message.as_bytes());
            let size = message.len();
            assert_eq!(
                command,
                format!("MAIL FROM:<{from}> SIZE={size}{parameters}")
            );
        }
    }
}
