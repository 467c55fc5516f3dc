//! A plugin that misbehaves on purpose, each time in the way its argument names. It speaks the protocol frame by frame, so that it can get
//! wrong what an SDK would not let it.
//!
//! It answers `rcpt`. What the argument names happens when a recipient's address begins with `bad`; everybody else is answered properly, so
//! that a test can see how the neighbours fare. Some arguments are for the start, and happen at once; and `one-at-a-time` is merely slow, and
//! tells which worker it is.
//!
//! With names of hooks behind the first argument it answers these instead, and goes wrong at the nth of them, counted from 0, for the client 127.0.1.n.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode, exit};
use std::thread::sleep;
use std::time::{Duration, Instant};

use gatepost_protocol::frame;
use gatepost_protocol::wire::{
    Cancel, Entry, Failed, Hello, HookMessage, Init, Log, Ready, ReadyHook, ReadyPlugin,
    ResultMessage,
};
use gatepost_protocol::{Disposition, PROTOCOL, VERSION, Verdict};

/// So long it hangs, far beyond any deadline, and no longer, so that it outlives no test.
const HANG: Duration = Duration::from_secs(6);

const MODES: &[&str] = &[
    // At the start.
    "dies-before-hello",
    "slow-hello",
    "wrong-version",
    "prints-to-stdout",
    // At a bad recipient.
    "dies-in-hook",
    "dies-at-the-sixth",
    "leaves-a-child",
    "gives-up",
    "garbage",
    "half-frame",
    "huge-length",
    "two-gigabytes",
    "zero-length",
    "answers-twice",
    "unknown-id",
    "never-answers",
    "answers-after-cancel",
    "floods",
    "floods-stderr",
    "spins",
    "leaks",
    "wrong-id",
    "out-of-order",
    "wrong-plugin-name",
    "unknown-verdict",
    "nonsense-code",
    "two-results-too-many",
    "bad-change",
    "ignores-sigterm",
    "closes-channel",
    "stops-reading",
    // Not at fault.
    "one-at-a-time",
    "behaves",
];

fn main() -> ExitCode {
    let mode = std::env::args().nth(1).unwrap_or_default();
    let hooks: Vec<String> = std::env::args().skip(2).collect();
    if !MODES.contains(&&*mode) {
        eprintln!("say how to misbehave: {}", MODES.join(", "));
        return ExitCode::from(2);
    }
    if mode == "ignores-sigterm" && std::env::var_os("DEAF").is_none() {
        // A signal that is ignored stays so in the program that takes the place of this one.
        let me = std::env::current_exe().unwrap_or_default();
        let error = Command::new("sh")
            .args(["-c", "trap '' TERM; DEAF=1 exec \"$0\" \"$@\""])
            .arg(me)
            .args(std::env::args().skip(1))
            .exec();
        eprintln!("{error}");
        return ExitCode::FAILURE;
    }
    match misbehave(&mode, &hooks) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn misbehave(mode: &str, hooks: &[String]) -> std::io::Result<()> {
    if mode == "dies-before-hello" {
        eprintln!("there is no such library");
        exit(7);
    }
    let mut channel = Channel {
        source: File::open("/proc/self/fd/3")?,
        sink: File::options().write(true).open("/proc/self/fd/4")?,
    };
    if mode == "slow-hello" {
        sleep(HANG);
    }
    channel.send(&Hello {
        protocol: PROTOCOL.to_owned(),
        version: match mode {
            "wrong-version" => vec![VERSION[0] + 1, 4],
            _ => VERSION.to_vec(),
        },
        server: None,
        sdk: Some("misbehave 0".to_owned()),
        features: ["cancel", "defer", "segments"].map(str::to_owned).to_vec(),
        max_frame: None,
    })?;
    let mut worker = 0;
    let mut cancelled = None;
    let mut held = Vec::new();
    while let Some((kind, payload)) = channel.receive()? {
        match &*kind {
            "init" => {
                let init: Init = decode(&payload)?;
                worker = init.worker;
                let concurrency = if mode == "one-at-a-time" { 1 } else { 16 };
                channel.send(&ready(&init, hooks, concurrency))?;
            }
            "hook" => {
                let hook: HookMessage = decode(&payload)?;
                if mode == "prints-to-stdout" {
                    println!("a stray print\nand \x1b[31mmore");
                }
                let bad = is_bad(&hook, hooks);
                if mode == "one-at-a-time" {
                    sleep(Duration::from_millis(if bad { 400 } else { 0 }));
                    let mut answer = result(&hook, Verdict::Declined);
                    answer.results[0].message = Some(format!("worker {worker}"));
                    channel.send(&answer)?;
                } else if bad && mode == "out-of-order" {
                    held.push(result(&hook, Verdict::DenySoft));
                } else if bad {
                    cancelled = channel.go_wrong(mode, &hook)?;
                } else {
                    channel.send(&result(&hook, Verdict::Declined))?;
                    for earlier in held.drain(..) {
                        channel.send(&earlier)?;
                    }
                }
            }
            "cancel" => {
                let cancel: Cancel = decode(&payload)?;
                if let Some(late) =
                    cancelled.take_if(|late: &mut ResultMessage| late.id == cancel.id)
                {
                    channel.send(&late)?;
                }
            }
            _ => {}
        }
    }
    Ok(())
}

fn decode<T: frame::Kind>(payload: &[u8]) -> std::io::Result<T> {
    frame::decode(payload).map_err(std::io::Error::other)
}

/// Whether this is a request to go wrong with.
fn is_bad(hook: &HookMessage<'_>, hooks: &[String]) -> bool {
    if let Some(at) = hooks.iter().position(|name| *name == hook.hook) {
        let connection = hook.connection.as_ref();
        let client = connection.and_then(|connection| connection.remote_ip.as_deref());
        return client.is_some_and(|client| client == format!("127.0.1.{at}"));
    }
    let address = hook.args.address.as_ref().map(|address| address.as_str());
    address.is_some_and(|address| address.starts_with("bad"))
}

fn ready(init: &Init, hooks: &[String], concurrency: u32) -> Ready {
    let rcpt = ["rcpt".to_owned()];
    let hooks = if hooks.is_empty() { &rcpt } else { hooks };
    let hooks = hooks.iter().map(|hook| ReadyHook {
        hook: hook.clone(),
        fields: vec!["remote_ip".to_owned()],
        ..ReadyHook::default()
    });
    let hooks: Vec<ReadyHook> = hooks.collect();
    let plugins = init.plugins.iter().map(|plugin| ReadyPlugin {
        name: plugin.name.clone(),
        hooks: hooks.clone(),
        ..ReadyPlugin::default()
    });
    Ready {
        concurrency,
        plugins: plugins.collect(),
    }
}

/// The answer of the segment's plugins: all decline but the last, which has this verdict.
fn result(hook: &HookMessage<'_>, verdict: Verdict) -> ResultMessage {
    let mut results: Vec<Entry> = hook
        .plugins
        .iter()
        .map(|plugin| Entry {
            plugin: plugin.to_string(),
            disposition: Some(Disposition::Pass),
            message: Some("all is well".to_owned()),
            ..Entry::default()
        })
        .collect();
    if let Some(last) = results.last_mut() {
        last.verdict = Some(verdict);
    }
    ResultMessage {
        id: hook.id.unwrap_or_default(),
        results,
        then: None,
    }
}

struct Channel {
    source: File,
    sink: File,
}

impl Channel {
    fn send<T: frame::Kind>(&mut self, message: &T) -> std::io::Result<()> {
        let bytes = frame::encode(message).map_err(std::io::Error::other)?;
        self.sink.write_all(&bytes)
    }

    /// A message's kind and payload; `None` at the end of the channel.
    fn receive(&mut self) -> std::io::Result<Option<(String, Vec<u8>)>> {
        let mut head = [0; 4];
        if self.source.read(&mut head[..1])? == 0 {
            return Ok(None);
        }
        self.source.read_exact(&mut head[1..])?;
        let mut payload = vec![0; frame::length(head).map_err(std::io::Error::other)?];
        self.source.read_exact(&mut payload)?;
        let kind = frame::check(&payload).map_err(std::io::Error::other)?;
        Ok(Some((kind.to_owned(), payload)))
    }

    /// Returns what to send when the request is cancelled.
    fn go_wrong(
        &mut self,
        mode: &str,
        hook: &HookMessage<'_>,
    ) -> std::io::Result<Option<ResultMessage>> {
        let mut good = result(hook, Verdict::Declined);
        match mode {
            "dies-in-hook" => exit(3),
            "dies-at-the-sixth" if hook.id == Some(6) => exit(3),
            "leaves-a-child" => {
                // It holds the channel's descriptors, and ignores what a parent's death would tell it.
                let child = ["-c", "trap '' TERM; sleep 600; :", "left-by-misbehave"];
                Command::new("sh").args(child).spawn()?;
                exit(3)
            }
            "gives-up" => self.send(&Failed {
                message: "the database is gone".to_owned(),
            })?,
            "garbage" => self.sink.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")?,
            "half-frame" => self.sink.write_all(&[0, 0, 1, 0, 0x82, 0xa4])?,
            "huge-length" => self.sink.write_all(&[0xff; 4])?,
            "two-gigabytes" => self.sink.write_all(&[0x80, 0, 0, 0])?,
            "zero-length" => self.sink.write_all(&[0; 4])?,
            "answers-twice" => {
                self.send(&good)?;
                self.send(&good)?;
            }
            "unknown-id" => {
                let id = good.id;
                good.id += 1_000_000;
                self.send(&good)?;
                good.id = id;
                self.send(&good)?;
            }
            "wrong-id" => {
                good.id += 1_000_000;
                self.send(&good)?;
            }
            "spins" => {
                // Many spin at a time, and are to leave others a machine.
                let me = std::process::id().to_string();
                Command::new("renice").args(["-n", "19", &me]).output()?;
                let began = Instant::now();
                while began.elapsed() < HANG / 3 {}
            }
            "leaks" => {
                let mut kept = Vec::new();
                for _ in 0..400 {
                    // 8 MB, since many may leak at a time.
                    kept.push(vec![b'x'; 20_000]);
                    sleep(HANG / 400);
                }
            }
            "floods-stderr" => {
                let line = "x".repeat(10_000);
                (0..100).for_each(|number| eprintln!("{number} {line}"));
                self.send(&good)?;
            }
            "answers-after-cancel" => return Ok(Some(good)),
            "floods" => self.flood(hook.id).and_then(|()| self.send(&good))?,
            "wrong-plugin-name" => {
                good.results[0].plugin = "somebody else".to_owned();
                self.send(&good)?;
            }
            "unknown-verdict" => self.send_edited(&good, b"declined", b"perhaps!")?,
            "nonsense-code" => {
                good.results[0].code = Some(999);
                self.send(&good)?;
            }
            "two-results-too-many" => {
                good.results.extend(vec![Entry::default(); 2]);
                self.send(&good)?;
            }
            "bad-change" => {
                // No SDK has a word for it, so it is put where another of the same length stands.
                good.results[0].changes = Some(vec![gatepost_protocol::Change::Karma { add: 1 }]);
                self.send_edited(&good, b"\xa5karma", b"\xa5chaos")?;
            }
            "closes-channel" => {
                // What takes the place of this program has neither descriptor.
                let mut shell = Command::new("sh");
                return Err(shell.args(["-c", "exec 3<&- 4>&-; exec sleep 600"]).exec());
            }
            "stops-reading" | "ignores-sigterm" => sleep(HANG),
            // "never-answers", and those that are wrong from the start.
            _ => {}
        }
        Ok(None)
    }

    fn flood(&mut self, hook: Option<u64>) -> std::io::Result<()> {
        let line = "x".repeat(10_000);
        for number in 0..2000 {
            println!("{number} {line}");
            eprintln!("{number} {line}");
            self.send(&Log {
                level: "info".to_owned(),
                message: format!("{number} {line}"),
                plugin: None,
                hook,
                then: false,
                told: false,
            })?;
        }
        Ok(())
    }

    /// Sends a message in which some bytes were replaced by as many others.
    fn send_edited(
        &mut self,
        message: &ResultMessage,
        from: &[u8],
        to: &[u8],
    ) -> std::io::Result<()> {
        let mut bytes = frame::encode(message).map_err(std::io::Error::other)?;
        let found = bytes.windows(from.len()).position(|window| window == from);
        if let Some(at) = found {
            bytes[at..at + to.len()].copy_from_slice(to);
        }
        self.sink.write_all(&bytes)
    }
}
