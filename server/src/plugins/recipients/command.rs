//! Asks a program: once for each address, without a shell.

use std::path::Path;
use std::process::Stdio;

use gatepost_protocol::Address;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::AsyncReadExt;
use tokio::process::{Child, ChildStderr};
use tokio::sync::Semaphore;

use super::Said;

/// Programs at a time; further questions wait.
const AT_ONCE: usize = 4;
/// How much of what it says on standard error is kept, in bytes.
const KEPT: usize = 400;

/// A program with its first arguments.
pub struct Command {
    program: String,
    arguments: Vec<String>,
    places: Semaphore,
}

impl Command {
    /// Refuses what cannot be a program.
    pub fn new(words: &[&str]) -> Result<Command, String> {
        let Some((program, arguments)) = words.split_first() else {
            return Err(
                "the command is empty; write the program and its first arguments".to_owned(),
            );
        };
        if program.is_empty() {
            return Err("the program's name is empty".to_owned());
        }
        if program.contains('/') && !Path::new(program).is_file() {
            return Err(format!("there is no file `{program}`"));
        }
        Ok(Command {
            program: (*program).to_owned(),
            arguments: arguments.iter().map(|&word| word.to_owned()).collect(),
            places: Semaphore::new(AT_ONCE),
        })
    }

    /// What the program says of an address. An error is why it cannot be known now. Who does not wait for the answer ends the program.
    pub async fn ask(&self, address: &Address) -> Result<Said, String> {
        let _place = self.places.acquire().await;
        let said = self.run(address).await;
        said.map_err(|why| format!("{}: {why}", self.program))
    }

    async fn run(&self, address: &Address) -> Result<Said, String> {
        let mut command = tokio::process::Command::new(&self.program);
        command
            .args(&self.arguments)
            // A local part may begin with a hyphen (RFC 5321 §4.1.2), and is not to be taken for an option.
            .arg("--")
            .arg(address.as_str())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            // What the program starts is ended with it.
            .process_group(0)
            .kill_on_drop(true);
        let mut running = Running(
            command
                .spawn()
                .map_err(|error| format!("it cannot be started: {error}"))?,
        );
        let stderr = running.0.stderr.take();
        let mut complaint = Vec::new();
        let status = {
            let mut ended = std::pin::pin!(running.0.wait());
            tokio::select! {
                biased;
                () = read(stderr, &mut complaint) => ended.await,
                status = &mut ended => status,
            }
        };
        let status = status.map_err(|error| format!("it cannot be waited for: {error}"))?;
        match status.code() {
            Some(0) => Ok(Said::Yes(format!("{} says yes", self.program))),
            Some(1) => Ok(Said::No(format!("{} says no", self.program))),
            _ => {
                let complaint = String::from_utf8_lossy(&complaint);
                let last = complaint.lines().last().unwrap_or_default();
                let colon = if last.is_empty() { "" } else { ": " };
                Err(format!("{status}{colon}{last}"))
            }
        }
    }
}

/// Reads all there is, so that the program need not wait, and keeps the last of it.
async fn read(stderr: Option<ChildStderr>, complaint: &mut Vec<u8>) {
    let Some(mut stderr) = stderr else { return };
    let mut block = [0; KEPT];
    while let Ok(length @ 1..) = stderr.read(&mut block).await {
        complaint.extend_from_slice(&block[..length]);
        let before = complaint.len().saturating_sub(KEPT);
        complaint.drain(..before);
    }
}

/// A program that runs, with all it starts.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // Where it has ended its number may be another's by now.
        if let Some(group) = self.0.id().and_then(|id| i32::try_from(id).ok()) {
            // An error says that nobody is left.
            let _ = killpg(Pid::from_raw(group), Signal::SIGKILL);
        }
    }
}
