//! `hello`, `init`, `ready` (docs/protocol.md §3).

use std::time::Duration;

use gatepost_protocol::channel::{FrameWriter, Payload};
use gatepost_protocol::frame::{self, Kind};
use gatepost_protocol::wire::{
    CallMessage, Failed, Hello, Init, InitError, InitErrorItem, Log, Ready,
};
use gatepost_protocol::{PROTOCOL, VERSION};
use tokio::time::Instant;

use super::Patience;
use super::calls::{Calls, WITHOUT_HOOK};
use super::capture::{Lines, printable};
use super::link::Reader;
use super::span::span;

/// What both sides can do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Features {
    pub(super) cancel: bool,
    pub(super) defer: bool,
    pub(super) segments: bool,
    pub(super) settings: bool,
    pub(super) fork: bool,
    pub(super) then: bool,
    pub(super) unfinished: bool,
}

const FEATURES: [&str; 7] = [
    "cancel",
    "defer",
    "segments",
    "settings",
    "fork",
    "then",
    "unfinished",
];
/// The most that `concurrency` may say.
const MAX_CONCURRENCY: u32 = 1000;

/// Why a process is not ready.
#[derive(Debug)]
pub(super) enum Refusal {
    /// It refused its settings.
    Settings(Vec<InitErrorItem>),
    /// It does not speak the protocol, or gave up.
    Broken(String),
    /// The channel came to its end.
    Closed(&'static str),
}

/// The parties of a handshake.
pub(super) struct Handshake<'a> {
    pub(super) reader: &'a mut Reader,
    pub(super) writer: &'a FrameWriter,
    pub(super) calls: &'a Calls,
    pub(super) lines: &'a Lines,
}

impl Handshake<'_> {
    /// Greets a process, tells it its plugins, and takes what they declare.
    pub(super) async fn run(
        mut self,
        init: &Init,
        patience: Patience,
    ) -> Result<(Features, Ready), Refusal> {
        let writer = self.writer;
        tokio::select! {
            result = self.talk(init, patience) => result,
            // Where it does not take what it is sent it is gone; the reading end knows more about that.
            refusal = async { drop(writer.flush().await); std::future::pending().await } => refusal,
        }
    }

    async fn talk(
        &mut self,
        init: &Init,
        patience: Patience,
    ) -> Result<(Features, Ready), Refusal> {
        self.send(&Hello {
            protocol: PROTOCOL.to_owned(),
            version: VERSION.to_vec(),
            server: Some(concat!("gatepost ", env!("CARGO_PKG_VERSION")).to_owned()),
            sdk: None,
            features: FEATURES.map(str::to_owned).to_vec(),
            max_frame: u32::try_from(frame::MAX_FRAME).ok(),
        })?;
        let hello = self.wait("hello", patience.hello).await?;
        let features = check_hello(&decode(&hello, "hello")?)?;
        self.send(init)?;
        let ready = self.wait("ready", patience.ready).await?;
        let ready: Ready = decode(&ready, "ready")?;
        if !(1..=MAX_CONCURRENCY).contains(&ready.concurrency) {
            return Err(Refusal::Broken(format!(
                "its `ready` says concurrency {}; 1 to {MAX_CONCURRENCY} are possible",
                ready.concurrency
            )));
        }
        Ok((features, ready))
    }

    fn send<T: Kind>(&self, message: &T) -> Result<(), Refusal> {
        let frame = frame::encode(message).map_err(|error| {
            Refusal::Broken(format!("its settings do not fit a frame: {error}"))
        })?;
        self.writer
            .send(&frame)
            .map_err(|_| Refusal::Closed("when it was greeted"))
    }

    /// Waits for a message of a kind, and deals with what may come before it.
    async fn wait(&mut self, kind: &'static str, most: Duration) -> Result<Payload, Refusal> {
        let deadline = Instant::now() + most;
        loop {
            let next = tokio::time::timeout_at(deadline, self.reader.next());
            let payload = match next.await {
                Ok(Ok(Some(payload))) => payload,
                Ok(Ok(None)) => {
                    return Err(Refusal::Closed(if kind == "hello" {
                        "before it said `hello`"
                    } else {
                        "before it was ready"
                    }));
                }
                Ok(Err(error)) => {
                    return Err(Refusal::Broken(format!(
                        "it broke the plugin protocol: {error}; is it a plugin at all?"
                    )));
                }
                Err(_) => {
                    return Err(Refusal::Broken(format!(
                        "it sent no `{kind}` within {}",
                        span(most)
                    )));
                }
            };
            match payload.kind() {
                found if found == kind => return Ok(payload),
                "init_error" => {
                    let refusal: InitError = decode(&payload, "init_error")?;
                    return Err(Refusal::Settings(refusal.errors));
                }
                "error" => {
                    let failed: Failed = decode(&payload, "error")?;
                    let said = printable(&failed.message);
                    return Err(Refusal::Broken(format!("it gave up: {said}")));
                }
                "call" => {
                    let call: CallMessage = decode(&payload, "call")?;
                    self.calls.serve(&call, Instant::now() + WITHOUT_HOOK);
                }
                "log" => {
                    let log: Log = decode(&payload, "log")?;
                    self.lines.say(None, &log);
                }
                _ => {}
            }
        }
    }
}

fn decode<T: Kind>(payload: &Payload, kind: &str) -> Result<T, Refusal> {
    payload
        .decode()
        .map_err(|error| Refusal::Broken(format!("its `{kind}` cannot be read: {error}")))
}

fn check_hello(hello: &Hello) -> Result<Features, Refusal> {
    if hello.protocol != PROTOCOL {
        let theirs = printable(&hello.protocol);
        return Err(Refusal::Broken(format!(
            "it speaks `{theirs}` and not `{PROTOCOL}`"
        )));
    }
    let theirs = *hello.version.first().unwrap_or(&0);
    if theirs != VERSION[0] {
        let sdk = hello.sdk.as_deref().unwrap_or("the plugin's SDK");
        let upgrade = if theirs > VERSION[0] {
            "gatepost".to_owned()
        } else {
            printable(sdk)
        };
        let version: Vec<String> = hello.version.iter().map(u16::to_string).collect();
        return Err(Refusal::Broken(format!(
            "it speaks version {} of the plugin protocol, and gatepost {} speaks {}.{}: upgrade {upgrade}",
            version.join("."),
            env!("CARGO_PKG_VERSION"),
            VERSION[0],
            VERSION[1],
        )));
    }
    let both = |name: &str| hello.features.iter().any(|feature| feature == name);
    Ok(Features {
        cancel: both(FEATURES[0]),
        defer: both(FEATURES[1]),
        segments: both(FEATURES[2]),
        settings: both(FEATURES[3]),
        fork: both(FEATURES[4]),
        then: both(FEATURES[5]),
        unfinished: both(FEATURES[6]),
    })
}
