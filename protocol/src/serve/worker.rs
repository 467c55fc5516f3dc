//! One channel's work: the handshake, hooks to plugins, results back.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use serde::de::DeserializeOwned;
use tokio::sync::Notify;

use super::plugins::Plugins;
use super::remote::{Calls, HOOK, Remote, RemoteMessage};
use super::view;
use crate::channel::{FrameWriter, Payload};
use crate::frame::{self, Kind};
use crate::outcome::{Answer, Deferred, Outcome};
use crate::plugin::{Call, Definition};
use crate::wire;
use crate::{Address, Departure, Disposition, Hook, PROTOCOL, Speech, VERSION, Verdict};

/// How many requests may be unanswered; a waiting one costs a task.
const CONCURRENCY: u32 = 256;

const FEATURES: [&str; 4] = ["cancel", "defer", "segments", "settings"];

/// One channel to the core.
pub(super) struct Worker {
    definitions: &'static [Definition],
    writer: Arc<FrameWriter>,
    calls: Arc<Calls>,
    plugins: OnceLock<Plugins>,
    running: Mutex<HashMap<u64, Arc<Running>>>,
}

/// A request without a result.
struct Running {
    hook: Option<Hook>,
    cancelled: Notify,
    departure: Departure,
    speech: Option<Speech>,
}

impl Running {
    /// The core sent `cancel` (docs/protocol.md §7).
    fn cancel(&self, reason: &str) {
        if self.hook == Some(Hook::Queue) && reason == "disconnect" {
            self.departure.announce();
        } else {
            self.cancelled.notify_one();
        }
    }
}

impl Worker {
    pub fn new(definitions: &'static [Definition], writer: FrameWriter) -> Worker {
        let writer = Arc::new(writer);
        let calls = Arc::new(Calls::new(writer.clone()));
        Worker {
            definitions,
            writer,
            calls,
            plugins: OnceLock::new(),
            running: Mutex::default(),
        }
    }

    /// Says hello.
    pub fn greet(&self) {
        self.send(&wire::Hello {
            protocol: PROTOCOL.to_owned(),
            version: VERSION.to_vec(),
            server: None,
            sdk: Some(concat!("gatepost-rust ", env!("CARGO_PKG_VERSION")).to_owned()),
            features: FEATURES.map(str::to_owned).to_vec(),
            max_frame: None,
        });
    }

    /// Writes what had to wait; returns when the core is gone.
    pub async fn flush(&self) -> std::io::Error {
        self.writer.flush().await
    }

    /// Keeps results back for a moment: several in one write cost little more than one.
    pub fn hold(&self) {
        self.writer.hold();
    }

    /// Sends the results that were kept back. A failure to write shows at the reading end soon enough.
    pub fn release(&self) {
        let _ = self.writer.release();
    }

    /// Takes a payload. An error ends the process.
    pub fn receive(self: &Arc<Self>, payload: &Payload) -> Result<(), String> {
        match payload.kind() {
            "hello" => check_hello(&read(payload)?),
            "init" => self.init(read(payload)?),
            "hook" => self.hook(read(payload)?),
            "event" => self.event(read::<wire::EventMessage>(payload)?.0),
            "cancel" => {
                let cancel: wire::Cancel = read(payload)?;
                if let Some(running) = self.running().get(&cancel.id) {
                    running.cancel(&cancel.reason);
                }
                Ok(())
            }
            "reply" => {
                self.calls.answered(read(payload)?);
                Ok(())
            }
            // Unknown kinds are for later versions; `goodbye` needs nothing, since work ends with the channel.
            _ => Ok(()),
        }
    }

    /// A failure to write shows at the reading end soon enough.
    fn send<T: Kind>(&self, message: &T) {
        match frame::encode(message) {
            Ok(bytes) => drop(self.writer.send(&bytes)),
            Err(error) => eprintln!("a `{}` message could not be sent: {error}", T::KIND),
        }
    }

    fn running(&self) -> std::sync::MutexGuard<'_, HashMap<u64, Arc<Running>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn init(&self, init: wire::Init) -> Result<(), String> {
        let services = Arc::new(Remote::new(self.calls.clone()));
        let (plugins, ready) = match Plugins::make(self.definitions, init, services) {
            Ok(made) => made,
            Err(errors) => {
                self.send(&wire::InitError { errors });
                return Ok(());
            }
        };
        if self.plugins.set(plugins).is_err() {
            return Err("the server sent `init` twice".to_owned());
        }
        self.send(&wire::Ready {
            concurrency: CONCURRENCY,
            plugins: ready,
        });
        Ok(())
    }

    fn plugins(&self) -> Result<&Plugins, String> {
        let early = "the server sent a hook before `init`";
        self.plugins.get().ok_or_else(|| early.to_owned())
    }

    fn hook(self: &Arc<Self>, message: wire::HookMessage<'static>) -> Result<(), String> {
        let id = message.id.ok_or("a hook without an id")?;
        let hook = Hook::from_name(&message.hook);
        let running = Arc::new(Running {
            hook,
            cancelled: Notify::new(),
            departure: Departure::new(),
            speech: hook
                .filter(|hook| hook.silences_client())
                .map(|_| Speech::new()),
        });
        self.running().insert(id, running.clone());
        let worker = self.clone();
        tokio::spawn(async move {
            let mut results = Vec::new();
            tokio::select! {
                biased;
                () = HOOK.scope(id, worker.segment(id, &message, &running, &mut results)) => {}
                () = running.cancelled.notified() => {}
                () = worker.listen(id, running.speech.as_ref()) => {}
            }
            worker.running().remove(&id);
            worker.send(&wire::ResultMessage {
                id,
                results,
                then: None,
            });
        });
        Ok(())
    }

    /// Has the core look at the client as soon as a plugin wants to know. Ends with the hook.
    async fn listen(&self, id: u64, speech: Option<&Speech>) {
        if let Some(speech) = speech {
            speech.wanted().await;
            // Where the core does not look the client may speak.
            let mut heard = self.calls.spoke(id, Duration::ZERO).await;
            if let Ok(false) = heard {
                speech.note_silence();
                heard = self.calls.spoke(id, Duration::from_secs(86_400)).await;
            }
            speech.note_end(heard.unwrap_or_default());
        }
        std::future::pending().await
    }

    /// Runs the plugins of a request in order, up to the first that ends it (docs/protocol.md §4).
    async fn segment(
        self: &Arc<Self>,
        id: u64,
        message: &wire::HookMessage<'_>,
        running: &Running,
        results: &mut Vec<wire::Entry>,
    ) {
        let Some(hook) = running.hook else {
            return;
        };
        let mut session = view::session(message);
        let args = view::args(hook, &message.args);
        let remote_message = RemoteMessage::new(self.calls.clone(), id, session.transaction.size);
        let at_hand: Option<&dyn crate::Message> = if hook.has_message() {
            Some(&remote_message)
        } else {
            None
        };
        for name in &message.plugins {
            let known = self.plugins().and_then(|all| all.get(name, hook, message));
            let plugin = match known {
                Ok(plugin) => plugin,
                Err(reason) => {
                    results.push(to_entry(name, Outcome::error(reason)));
                    return;
                }
            };
            let call = Call {
                hook,
                session: &session,
                args: &args,
                message: at_hand,
                deadline: Duration::from_millis(message.deadline_ms.unwrap_or(30_000)),
                settings: None,
                departure: &running.departure,
                speech: running.speech.as_ref(),
            };
            let outcome = match plugin.as_ref().map(|plugin| plugin.call(&call)) {
                None => Outcome::declined(),
                Some(Answer::Now(outcome)) => outcome,
                Some(Answer::Later(answer)) => answer.await,
            };
            for change in &outcome.changes {
                // The core checks again, and says so if it is a bad one.
                let _ = change.apply(&mut session, name);
            }
            let entry = self.report(id, name, outcome);
            let ends = entry.recipients.is_some()
                || match entry.verdict {
                    Some(verdict) => verdict != Verdict::Declined,
                    None => matches!(
                        entry.disposition,
                        Some(Disposition::Fail | Disposition::Error)
                    ),
                };
            results.push(entry);
            if ends {
                return;
            }
        }
    }

    /// An outcome as it stands on the wire; a deferred one is sent when it is there.
    fn report(self: &Arc<Self>, id: u64, name: &str, mut outcome: Outcome) -> wire::Entry {
        let Some(Deferred {
            until,
            outcome: later,
        }) = outcome.defer.take()
        else {
            return to_entry(name, outcome);
        };
        let worker = self.clone();
        let plugin = name.to_owned();
        tokio::spawn(async move {
            let result = to_entry(&plugin, later.await);
            worker.send(&wire::Late { id, result });
        });
        wire::Entry {
            defer: Some(until),
            ..to_entry(name, outcome)
        }
    }

    fn event(self: &Arc<Self>, message: wire::HookMessage<'static>) -> Result<(), String> {
        let Some(hook) = Hook::from_name(&message.hook) else {
            return Ok(());
        };
        let worker = self.clone();
        tokio::spawn(async move {
            let session = view::session(&message);
            let args = view::args(hook, &message.args);
            let departure = Departure::new();
            let call = Call {
                hook,
                session: &session,
                args: &args,
                message: None,
                deadline: Duration::MAX,
                settings: None,
                departure: &departure,
                speech: None,
            };
            let Ok(plugins) = worker.plugins() else {
                return;
            };
            for name in &message.plugins {
                for plugin in plugins.observers(name, &message) {
                    if let Answer::Later(answer) = plugin.call(&call) {
                        answer.await;
                    }
                }
            }
            if hook == Hook::Disconnect {
                plugins.forget(&message.session);
            }
        });
        Ok(())
    }
}

fn read<T: DeserializeOwned>(payload: &Payload) -> Result<T, String> {
    payload.decode().map_err(|error| {
        format!("the server sent a message that is not what it should be: {error}")
    })
}

fn check_hello(hello: &wire::Hello) -> Result<(), String> {
    if hello.protocol != PROTOCOL {
        return Err(format!(
            "the other end speaks `{}`, not {PROTOCOL}",
            hello.protocol
        ));
    }
    let [major, minor] = VERSION;
    match hello.version.first() {
        Some(theirs) if *theirs == major => Ok(()),
        theirs => {
            let theirs = theirs.copied().unwrap_or_default();
            let mend = if theirs > major {
                "build this plugin with a newer gatepost-protocol"
            } else {
                "upgrade the server"
            };
            Err(format!(
                "the server speaks version {theirs} of the plugin protocol, this plugin {major}.{minor}: {mend}"
            ))
        }
    }
}

fn to_entry(name: &str, outcome: Outcome) -> wire::Entry {
    let some = |list: Vec<String>| if list.is_empty() { None } else { Some(list) };
    wire::Entry {
        plugin: name.to_owned(),
        disposition: outcome.disposition,
        message: if outcome.message.is_empty() {
            None
        } else {
            Some(outcome.message)
        },
        verdict: outcome.verdict,
        code: outcome.code,
        enhanced: outcome.enhanced,
        reply: some(outcome.reply),
        changes: if outcome.changes.is_empty() {
            None
        } else {
            Some(outcome.changes)
        },
        values: some(outcome.values),
        settings: (!outcome.settings.is_empty()).then_some(outcome.settings),
        recipients: if outcome.recipients.is_empty() {
            None
        } else {
            Some(outcome.recipients.into_iter().map(recipient).collect())
        },
        defer: None,
        delay_ms: match outcome.delay {
            Duration::ZERO => None,
            delay => Some(u64::try_from(delay.as_millis()).unwrap_or(u64::MAX)),
        },
    }
}

fn recipient((address, outcome): (Address, Outcome)) -> wire::RecipientEntry {
    let entry = to_entry("", outcome);
    wire::RecipientEntry {
        address,
        disposition: entry.disposition,
        message: entry.message,
        verdict: entry.verdict,
        code: entry.code,
        enhanced: entry.enhanced,
        reply: entry.reply,
    }
}
