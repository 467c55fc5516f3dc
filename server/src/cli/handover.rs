//! A daemon's place is taken by another process, of a new program as a rule, while clients come and go (docs/running.md#upgrade).
//!
//! The daemon starts the program with a socket as its standard input. Over it go, in this order: from the daemon the sockets that it listens on, from its successor `ready`, once it
//! has all it needs; from the daemon `go`; and from the successor `serving`, once it accepts connections. Until then the daemon serves as if nothing was, and the successor touches
//! nothing that both have. A successor that cannot go on sends `failed` and why. The end of the socket is the end of the one at its other side.

use std::ffi::OsString;
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::process::{Child, Command};

use super::{TAKE_OVER, service_manager};
use crate::config::Address;
use crate::listen::{Inherited, Passed};
use crate::outbox::folder::blocking;

const READY: &str = "ready";
const GO: &str = "go";
const SERVING: &str = "serving";
const FAILED: &str = "failed";

/// How long each side waits for what the other does at once.
const PROMPT: Duration = Duration::from_secs(10);
/// The most of a successor's last words, in bytes.
const MAX_WORDS: u64 = 64 * 1024;
/// What tells the addresses of Unix sockets apart from others.
const UNIX: &str = "unix:";

/// The process that is to take our place. Killed when dropped before it has.
pub struct Successor {
    child: Option<Child>,
    channel: BufReader<UnixStream>,
}

impl Successor {
    /// Starts a program with a configuration's file, and gives it our sockets.
    ///
    /// # Errors
    /// It cannot be started, or takes no sockets.
    pub async fn start(
        program: &Path,
        config: Option<&Path>,
        sockets: Vec<Passed>,
    ) -> Result<Successor, String> {
        let failed = |error: io::Error| format!("{} cannot be started: {error}", program.display());
        let (ours, theirs) = StdUnixStream::pair().map_err(failed)?;
        let mut command = Command::new(program);
        command.args(["run", TAKE_OVER]);
        if let Some(config) = config {
            command.arg("-c").arg(config);
        }
        let stdin = Stdio::from(OwnedFd::from(theirs));
        let child = command.stdin(stdin).spawn().map_err(failed)?;
        // It has its end alone: else we would never see it close.
        drop(command);
        let sender = ours.try_clone().map_err(failed)?;
        let pass_all = move || {
            sender.set_write_timeout(Some(PROMPT))?;
            sockets
                .iter()
                .try_for_each(|passed| pass(&sender, passed))?;
            (&sender).write_all(b"\n")
        };
        let passed = blocking(pass_all).await;
        let channel = ours
            .set_nonblocking(true)
            .and_then(|()| UnixStream::from_std(ours))
            .map_err(failed)?;
        let mut successor = Successor {
            child: Some(child),
            channel: BufReader::new(channel),
        };
        match passed {
            Ok(()) => Ok(successor),
            // It took no sockets: how it ended says more than that.
            Err(_) => Err(successor.end().await),
        }
    }

    /// Waits until it has all it needs.
    ///
    /// # Errors
    /// It failed, or took too long; and why.
    pub async fn ready(&mut self, within: Duration) -> Result<(), String> {
        match tokio::time::timeout(within, self.hears(READY)).await {
            Ok(heard) => heard,
            Err(_) => Err(format!(
                "the new process was not ready within {} s, and was ended; see the log, or give it more time with `--within`",
                within.as_secs()
            )),
        }
    }

    /// Has it accept connections; its number. From then on it does without us, and knows by the end of this value that we are gone.
    ///
    /// # Errors
    /// It did not begin.
    pub async fn go(&mut self) -> Result<u32, String> {
        let told = self.channel.write_all(format!("{GO}\n").as_bytes()).await;
        told.map_err(|error| error.to_string())?;
        match tokio::time::timeout(PROMPT, self.hears(SERVING)).await {
            Ok(heard) => heard?,
            Err(_) => return Err("the new process did not begin to serve".to_owned()),
        }
        let child = self.child.take();
        let pid = child.as_ref().and_then(Child::id).unwrap_or_default();
        service_manager::tell(service_manager::State::MainProcess(pid));
        Ok(pid)
    }

    async fn hears(&mut self, word: &str) -> Result<(), String> {
        let mut line = String::new();
        let mut limited = (&mut self.channel).take(MAX_WORDS);
        let read = limited.read_line(&mut line).await;
        match (read, line.trim_end()) {
            (Ok(_), heard) if heard == word => Ok(()),
            (Ok(_), FAILED) => {
                let mut words = Vec::new();
                let read = limited.read_to_end(&mut words);
                let _ = tokio::time::timeout(PROMPT, read).await;
                Err(String::from_utf8_lossy(&words).trim_end().to_owned())
            }
            (Ok(0), _) | (Err(_), _) => Err(self.end().await),
            (Ok(_), other) => Err(format!(
                "the new process said {other:?}: it is no Gatepost, or one that does not know this way to take over"
            )),
        }
    }

    /// How it ended.
    async fn end(&mut self) -> String {
        let Some(child) = &mut self.child else {
            return "the new process is not there".to_owned();
        };
        match tokio::time::timeout(PROMPT, child.wait()).await {
            Ok(Ok(status)) => format!(
                "the new process ended before it was ready ({status}); the log may have its last words"
            ),
            _ => "the new process closed its standard input, and was ended".to_owned(),
        }
    }
}

impl Drop for Successor {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // It may be gone already. The runtime waits for what becomes of it.
            let _ = child.start_kill();
        }
    }
}

/// The daemon whose place this process takes.
pub struct Predecessor {
    channel: StdUnixStream,
}

impl Predecessor {
    /// The daemon at the other side of standard input, and its sockets. Blocks.
    ///
    /// # Errors
    /// There is none.
    pub fn meet() -> io::Result<(Predecessor, Inherited)> {
        let stdin = io::stdin().as_fd().try_clone_to_owned()?;
        let channel = StdUnixStream::from(stdin);
        channel.set_nonblocking(false)?;
        channel.set_read_timeout(Some(PROMPT))?;
        let mut sockets = Inherited::default();
        while let Some(passed) = receive(&channel)? {
            sockets.add(passed);
        }
        channel.set_read_timeout(None)?;
        Ok((Predecessor { channel }, sockets))
    }

    /// Tells it why its place cannot be taken. Blocks.
    pub fn failed(mut self, why: &str) {
        // It may be gone; standard error has it as well.
        let _ = write!(self.channel, "{FAILED}\n{why}\n");
    }

    /// Tells it that this process has all it needs, and waits until it is to begin.
    ///
    /// # Errors
    /// It is gone.
    pub async fn take_over(self) -> io::Result<Leaving> {
        self.channel.set_nonblocking(true)?;
        let mut channel = BufReader::new(UnixStream::from_std(self.channel)?);
        channel.write_all(format!("{READY}\n").as_bytes()).await?;
        let mut line = String::new();
        let mut limited = (&mut channel).take(MAX_WORDS);
        let read = tokio::time::timeout(PROMPT, limited.read_line(&mut line)).await;
        match read.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))? {
            _ if line.trim_end() == GO => Ok(Leaving { channel }),
            _ => Err(io::Error::other(
                "the daemon whose place was to be taken did not let go of it",
            )),
        }
    }
}

/// A daemon that is about to leave.
pub struct Leaving {
    channel: BufReader<UnixStream>,
}

impl Leaving {
    /// Tells it that connections are accepted here.
    ///
    /// # Errors
    /// It is gone.
    pub async fn serving(&mut self) -> io::Result<()> {
        let told = format!("{SERVING}\n");
        self.channel.write_all(told.as_bytes()).await
    }

    /// Waits for its end.
    pub async fn gone(mut self) {
        let mut byte = [0];
        while matches!(self.channel.read(&mut byte).await, Ok(1)) {}
    }
}

/// Sends a socket, on a line of its own with the address.
fn pass(channel: &StdUnixStream, passed: &Passed) -> io::Result<()> {
    let owner = if passed.is_lent { "lent" } else { "own" };
    let line = match &passed.addr {
        Address::Tcp(addr) => format!("{owner} {addr}\n").into_bytes(),
        Address::Unix(path) => {
            let path = path.as_os_str().as_encoded_bytes();
            let path = data_encoding::HEXLOWER.encode(path);
            format!("{owner} {UNIX}{path}\n").into_bytes()
        }
    };
    let sockets = [passed.socket.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    control.push(SendAncillaryMessage::ScmRights(&sockets));
    let (first, rest) = line.split_at(1);
    // The descriptor comes with the line's first byte.
    let flags = SendFlags::NOSIGNAL;
    sendmsg(channel, &[IoSlice::new(first)], &mut control, flags)?;
    (&*channel).write_all(rest)
}

/// Takes a socket; `None` at the end of all.
fn receive(mut channel: &StdUnixStream) -> io::Result<Option<Passed>> {
    let nonsense = || {
        io::Error::new(
            io::ErrorKind::InvalidData,
            "no socket with its address came",
        )
    };
    let mut first = [0];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC;
    let read = recvmsg(
        channel,
        &mut [IoSliceMut::new(&mut first)],
        &mut control,
        flags,
    )?;
    if read.bytes == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let mut sockets = control.drain().flat_map(|message| match message {
        RecvAncillaryMessage::ScmRights(sockets) => sockets.collect::<Vec<_>>(),
        _ => Vec::new(),
    });
    let Some(socket) = sockets.next() else {
        return match first {
            [b'\n'] => Ok(None),
            _ => Err(nonsense()),
        };
    };
    let mut line = first.to_vec();
    // Byte by byte: the next one may bring a descriptor.
    while line.last() != Some(&b'\n') {
        let mut byte = [0];
        channel.read_exact(&mut byte)?;
        line.push(byte[0]);
    }
    let line = String::from_utf8(line).map_err(|_| nonsense())?;
    let (owner, addr) = line.trim_end().split_once(' ').ok_or_else(nonsense)?;
    let addr = match addr.strip_prefix(UNIX) {
        Some(path) => {
            let path = data_encoding::HEXLOWER.decode(path.as_bytes());
            let path = path.map_err(|_| nonsense())?;
            Address::Unix(OsString::from_vec(path).into())
        }
        None => Address::Tcp(addr.parse().map_err(|_| nonsense())?),
    };
    Ok(Some(Passed {
        addr,
        socket,
        is_lent: owner == "lent",
    }))
}
