//! One channel's work: the handshake, hooks to plugins, results back.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use serde::de::DeserializeOwned;
use tokio::sync::Notify;

use super::remote::{Calls, HOOK, Remote, RemoteMessage};
use super::view;
use crate::channel::{FrameWriter, Payload};
use crate::frame::{self, Kind};
use crate::outcome::{Answer, Deferred, Outcome};
use crate::plugin::{Call, Definition, Init, Plugin};
use crate::settings::Settings;
use crate::value::Value;
use crate::wire;
use crate::{Address, Departure, Disposition, Hook, PROTOCOL, VERSION, Verdict};

/// How many requests may be unanswered; a waiting one costs a task.
const CONCURRENCY: u32 = 256;

/// One channel to the core.
pub(super) struct Worker {
    definitions: &'static [Definition],
    writer: Arc<FrameWriter>,
    calls: Arc<Calls>,
    plugins: OnceLock<HashMap<String, Arc<dyn Plugin>>>,
    running: Mutex<HashMap<u64, Arc<Running>>>,
}

/// A request without a result.
struct Running {
    hook: Option<Hook>,
    cancelled: Notify,
    departure: Departure,
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
            features: ["cancel", "defer", "segments"].map(str::to_owned).to_vec(),
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
        let mut plugins = HashMap::new();
        let mut ready = Vec::new();
        let mut errors = Vec::new();
        for item in &init.plugins {
            match self.build(&init, item) {
                Ok((definition, plugin)) => {
                    ready.push(announce(definition, &item.name, &*plugin));
                    plugins.insert(item.name.clone(), plugin);
                }
                Err(mistakes) => errors.extend(mistakes),
            }
        }
        if !errors.is_empty() {
            self.send(&wire::InitError { errors });
            return Ok(());
        }
        if self.plugins.set(plugins).is_err() {
            return Err("the server sent `init` twice".to_owned());
        }
        self.send(&wire::Ready {
            concurrency: CONCURRENCY,
            plugins: ready,
        });
        Ok(())
    }

    fn build(
        &self,
        init: &wire::Init,
        item: &wire::InitPlugin,
    ) -> Result<(&'static Definition, Arc<dyn Plugin>), Vec<wire::InitErrorItem>> {
        let mistake = |path, message| wire::InitErrorItem {
            plugin: item.name.clone(),
            path,
            message,
        };
        let Some(definition) = self.definition(item) else {
            let known: Vec<&str> = self
                .definitions
                .iter()
                .map(|definition| definition.name)
                .collect();
            let message = format!(
                "this program has no plugin of that name; it has {}",
                known.join(", ")
            );
            return Err(vec![mistake(Vec::new(), message)]);
        };
        let built =
            Settings::check(&(definition.settings)(), &item.settings).and_then(|settings| {
                (definition.build)(Init {
                    name: item.name.clone(),
                    source: item.source.clone(),
                    settings,
                    hostname: init.hostname.clone(),
                    services: Arc::new(Remote::new(self.calls.clone())),
                    scratch_dir: init.scratch_dir.clone(),
                })
            });
        built.map(|plugin| (definition, plugin)).map_err(|errors| {
            let path =
                |path: Vec<String>| path.iter().map(|step| Value::from(step.as_str())).collect();
            errors
                .into_iter()
                .map(|error| mistake(path(error.path), error.message))
                .collect()
        })
    }

    fn definition(&self, item: &wire::InitPlugin) -> Option<&'static Definition> {
        let named = |name: &str| {
            self.definitions
                .iter()
                .find(|definition| definition.name == name)
        };
        let plain = item.name.split(':').next().unwrap_or(&item.name);
        item.source
            .as_deref()
            .and_then(named)
            .or_else(|| named(plain))
            .or(match self.definitions {
                [only] => Some(only),
                _ => None,
            })
    }

    fn hook(self: &Arc<Self>, message: wire::HookMessage<'static>) -> Result<(), String> {
        let id = message.id.ok_or("a hook without an id")?;
        let running = Arc::new(Running {
            hook: Hook::from_name(&message.hook),
            cancelled: Notify::new(),
            departure: Departure::new(),
        });
        self.running().insert(id, running.clone());
        let worker = self.clone();
        tokio::spawn(async move {
            let mut results = Vec::new();
            tokio::select! {
                biased;
                () = HOOK.scope(id, worker.segment(id, &message, &running, &mut results)) => {}
                () = running.cancelled.notified() => {}
            }
            worker.running().remove(&id);
            worker.send(&wire::ResultMessage { id, results });
        });
        Ok(())
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
            let Some(plugin) = self.plugins.get().and_then(|plugins| plugins.get(&**name)) else {
                results.push(wire::Entry {
                    disposition: Some(Disposition::Error),
                    message: Some("this process has no plugin of that name".to_owned()),
                    ..entry(name)
                });
                return;
            };
            let outcome = {
                let deadline = Duration::from_millis(message.deadline_ms.unwrap_or(30_000));
                let call = Call {
                    hook,
                    session: &session,
                    args: &args,
                    message: at_hand,
                    deadline,
                    settings: None,
                    departure: &running.departure,
                };
                match plugin.call(&call) {
                    Answer::Now(outcome) => outcome,
                    Answer::Later(answer) => answer.await,
                }
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
            for name in &message.plugins {
                let call = Call {
                    hook,
                    session: &session,
                    args: &args,
                    message: None,
                    deadline: Duration::MAX,
                    settings: None,
                    departure: &departure,
                };
                let plugin = worker
                    .plugins
                    .get()
                    .and_then(|plugins| plugins.get(&**name));
                if let Some(Answer::Later(answer)) = plugin.map(|plugin| plugin.call(&call)) {
                    answer.await;
                }
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

fn announce(definition: &Definition, name: &str, plugin: &dyn Plugin) -> wire::ReadyPlugin {
    let hooks = plugin
        .subscriptions()
        .into_iter()
        .map(|subscription| wire::ReadyHook {
            hook: subscription.hook.name().to_owned(),
            mode: subscription.observe.then(|| "observe".to_owned()),
            fields: subscription
                .wants
                .fields
                .iter()
                .map(|field| field.name().to_owned())
                .collect(),
            reads: subscription.wants.notes,
            timeout_ms: subscription
                .timeout
                .map(|timeout| u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX)),
        });
    let policy = plugin.policy();
    wire::ReadyPlugin {
        name: name.to_owned(),
        hooks: hooks.collect(),
        settings: Some((definition.settings)()),
        policy: Some(wire::ReadyPolicy {
            reject: policy.reject,
            reject_type: policy.reject_type,
            on_error: policy.on_error,
            loglevel: None,
        }),
    }
}

fn entry(name: &str) -> wire::Entry {
    wire::Entry {
        plugin: name.to_owned(),
        ..wire::Entry::default()
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
        recipients: if outcome.recipients.is_empty() {
            None
        } else {
            Some(outcome.recipients.into_iter().map(recipient).collect())
        },
        defer: None,
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
