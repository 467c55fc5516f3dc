//! What a plugin asks of the core, from another process: calls and their replies (docs/protocol.md §8).

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::oneshot;

use crate::address::Address;
use crate::channel::FrameWriter;
use crate::frame;
use crate::outcome::BoxFuture;
use crate::policy::Level;
use crate::services::{
    Bounce, DnsAnswer, DnsStatus, Message, RecordType, ServiceError, ServiceErrorCode, Services,
    Submission, Validity,
};
use crate::value::Value;
use crate::wire;

/// The most that one `message/read` brings.
const MAX_READ: usize = 512 * 1024;

tokio::task_local! {
    /// The hook that the task works at.
    pub(super) static HOOK: u64;
}

/// Calls that wait for their reply.
pub(super) struct Calls {
    writer: Arc<FrameWriter>,
    next: AtomicU64,
    waiting: Mutex<HashMap<u64, oneshot::Sender<wire::ReplyMessage>>>,
}

type Parameters = Vec<(&'static str, Value)>;

impl Calls {
    pub fn new(writer: Arc<FrameWriter>) -> Calls {
        Calls {
            writer,
            next: AtomicU64::new(1),
            waiting: Mutex::default(),
        }
    }

    /// Hands a reply to whoever waits for it.
    pub fn answered(&self, reply: wire::ReplyMessage) {
        if let Some(waiting) = self.lock().remove(&reply.id) {
            // Whoever asked may have given up.
            let _ = waiting.send(reply);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<u64, oneshot::Sender<wire::ReplyMessage>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn send<T: frame::Kind>(&self, message: &T) -> Result<(), ServiceError> {
        let bytes = frame::encode(message)
            .map_err(|error| ServiceError::new(ServiceErrorCode::BadParams, error.to_string()))?;
        self.writer
            .send(&bytes)
            .map_err(|error| gone(&error.to_string()))
    }

    /// Whether the client speaks within that time, at a hook at which it has to be silent.
    pub async fn spoke(self: &Arc<Self>, hook: u64, time: Duration) -> Result<bool, ServiceError> {
        let ms = i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
        let params = vec![("ms", Value::Integer(ms))];
        let answer = self
            .clone()
            .call(Some(hook), "client/spoke", params)
            .await?;
        match answer.get("spoke") {
            Some(Value::Boolean(spoke)) => Ok(*spoke),
            _ => Err(odd("spoke")),
        }
    }

    async fn call(
        self: Arc<Self>,
        hook: Option<u64>,
        method: &'static str,
        params: Parameters,
    ) -> Result<Value, ServiceError> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (answer, waiting) = oneshot::channel();
        self.lock().insert(id, answer);
        let params = params
            .into_iter()
            .map(|(key, value)| (key.to_owned(), value))
            .collect();
        let message = wire::CallMessage {
            id,
            hook,
            method: method.to_owned(),
            params: Value::Map(params),
        };
        if let Err(error) = self.send(&message) {
            self.lock().remove(&id);
            return Err(error);
        }
        // Whoever asked may stop waiting.
        let _forgets = Forgets { calls: &self, id };
        let reply = waiting.await.map_err(|_| gone("the channel is closed"))?;
        match reply.error {
            Some(error) => Err(ServiceError {
                code: error.code,
                message: error.message,
            }),
            None => Ok(reply.ok.unwrap_or(Value::Map(BTreeMap::new()))),
        }
    }
}

/// A call whose reply nobody waits for any more.
struct Forgets<'a> {
    calls: &'a Calls,
    id: u64,
}

impl Drop for Forgets<'_> {
    fn drop(&mut self) {
        self.calls.lock().remove(&self.id);
    }
}

fn gone(why: &str) -> ServiceError {
    ServiceError::temporary(format!("the server is gone: {why}"))
}

fn odd(what: &str) -> ServiceError {
    ServiceError::new(
        ServiceErrorCode::Failed,
        format!("the server's answer has no {what}"),
    )
}

/// The core's services, over the wire.
pub(super) struct Remote {
    calls: Arc<Calls>,
}

impl Remote {
    pub fn new(calls: Arc<Calls>) -> Remote {
        Remote { calls }
    }

    fn ask<T: 'static>(
        &self,
        method: &'static str,
        params: Parameters,
        read: impl FnOnce(Value) -> Result<T, ServiceError> + Send + 'static,
    ) -> BoxFuture<'static, Result<T, ServiceError>> {
        let calls = self.calls.clone();
        // What works on behind a deferred answer, or without a hook, belongs to none.
        let hook = HOOK.try_with(|id| *id).ok();
        Box::pin(async move { read(calls.call(hook, method, params).await?) })
    }
}

fn texts(value: Option<&Value>) -> Vec<String> {
    match value {
        Some(Value::List(list)) => list
            .iter()
            .filter_map(Value::as_text)
            .map(str::to_owned)
            .collect(),
        _ => Vec::new(),
    }
}

fn milliseconds(ttl: Option<Duration>) -> Value {
    ttl.map_or(Value::Nil, |ttl| {
        Value::Integer(i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX))
    })
}

fn bytes(value: Option<&Value>) -> Option<Vec<u8>> {
    match value? {
        Value::Bytes(bytes) => Some(bytes.clone()),
        Value::Text(text) => Some(text.clone().into_bytes()),
        _ => None,
    }
}

impl Services for Remote {
    fn log(&self, plugin: &str, level: Level, message: &str) {
        // A line that cannot be sent has nowhere else to go.
        let _ = self.calls.send(&wire::Log {
            level: level.name().to_owned(),
            message: message.to_owned(),
            plugin: Some(plugin.to_owned()),
            hook: None,
            then: false,
            told: false,
        });
    }

    fn dns(
        &self,
        name: &str,
        kind: RecordType,
    ) -> BoxFuture<'static, Result<DnsAnswer, ServiceError>> {
        let kind = match kind {
            RecordType::A => "A",
            RecordType::Aaaa => "AAAA",
            RecordType::Mx => "MX",
            RecordType::Txt => "TXT",
            RecordType::Ptr => "PTR",
            RecordType::Ns => "NS",
            RecordType::Cname => "CNAME",
        };
        self.ask(
            "dns",
            vec![("name", name.into()), ("type", kind.into())],
            |ok| {
                let status = match ok.get("status").and_then(Value::as_text) {
                    Some("found") => DnsStatus::Found,
                    Some("no_records") => DnsStatus::NoRecords,
                    Some("no_such_name") => DnsStatus::NoSuchName,
                    _ => return Err(odd("known status")),
                };
                Ok(DnsAnswer {
                    status,
                    records: texts(ok.get("records")),
                })
            },
        )
    }

    fn config(&self, name: &str) -> BoxFuture<'static, Result<Vec<String>, ServiceError>> {
        self.ask("config", vec![("name", name.into())], |ok| {
            Ok(texts(ok.get("values")))
        })
    }

    fn config_for(
        &self,
        name: &str,
        recipient: &Address,
    ) -> BoxFuture<'static, Result<Vec<String>, ServiceError>> {
        let params = vec![
            ("name", name.into()),
            ("recipient", recipient.as_str().into()),
        ];
        self.ask("config", params, |ok| Ok(texts(ok.get("values"))))
    }

    fn recipient_valid(
        &self,
        address: &Address,
    ) -> BoxFuture<'static, Result<Validity, ServiceError>> {
        let params = vec![("address", address.as_str().into())];
        self.ask("recipient/valid", params, |ok| {
            let validity = ok.get("validity").and_then(Value::as_text);
            validity
                .and_then(Validity::from_name)
                .ok_or_else(|| odd("known validity"))
        })
    }

    fn state_get(&self, key: &str) -> BoxFuture<'static, Result<Option<Vec<u8>>, ServiceError>> {
        self.ask("state/get", vec![("key", key.into())], |ok| {
            Ok(bytes(ok.get("value")))
        })
    }

    fn state_set(
        &self,
        key: &str,
        value: Vec<u8>,
        ttl: Option<Duration>,
    ) -> BoxFuture<'static, Result<(), ServiceError>> {
        let params = vec![
            ("key", key.into()),
            ("value", Value::Bytes(value)),
            ("ttl_ms", milliseconds(ttl)),
        ];
        self.ask("state/set", params, |_| Ok(()))
    }

    fn state_add(
        &self,
        key: &str,
        add: i64,
        ttl: Option<Duration>,
    ) -> BoxFuture<'static, Result<i64, ServiceError>> {
        let params = vec![
            ("key", key.into()),
            ("add", add.into()),
            ("ttl_ms", milliseconds(ttl)),
        ];
        self.ask("state/add", params, |ok| {
            ok.get("value")
                .and_then(Value::as_integer)
                .ok_or_else(|| odd("value"))
        })
    }

    fn state_delete(&self, key: &str) -> BoxFuture<'static, Result<(), ServiceError>> {
        self.ask("state/delete", vec![("key", key.into())], |_| Ok(()))
    }

    fn submit(&self, submission: Submission) -> BoxFuture<'static, Result<String, ServiceError>> {
        let recipients = submission.recipients.iter();
        let recipients = recipients.map(|to| to.as_str().into()).collect();
        let params = vec![
            ("sender", submission.sender.as_str().into()),
            ("recipients", Value::List(recipients)),
            ("message", Value::Bytes(submission.message)),
        ];
        self.ask("message/submit", params, |ok| {
            let id = ok.get("id").and_then(Value::as_text);
            id.map(str::to_owned).ok_or_else(|| odd("id"))
        })
    }

    fn bounce(&self, bounce: Bounce) -> BoxFuture<'static, Result<Option<String>, ServiceError>> {
        let enhanced = bounce.enhanced.map(|code| code.to_string());
        let params = vec![
            ("sender", bounce.sender.as_str().into()),
            ("recipient", bounce.recipient.as_str().into()),
            ("code", i64::from(bounce.code).into()),
            ("enhanced", enhanced.map_or(Value::Nil, Value::Text)),
            ("text", Value::Text(bounce.text)),
            ("message", Value::Bytes(bounce.message)),
        ];
        self.ask("message/bounce", params, |ok| {
            let id = ok.get("id").and_then(Value::as_text);
            Ok(id.map(str::to_owned))
        })
    }
}

/// The message at hand, read over the wire.
pub(super) struct RemoteMessage {
    calls: Arc<Calls>,
    hook: u64,
    size: u64,
}

impl RemoteMessage {
    /// The message of the hook with that id; `size` is only known where the field was subscribed.
    pub fn new(calls: Arc<Calls>, hook: u64, size: u64) -> RemoteMessage {
        RemoteMessage { calls, hook, size }
    }
}

impl Message for RemoteMessage {
    fn size(&self) -> u64 {
        self.size
    }

    fn read(&self, offset: u64, length: usize) -> BoxFuture<'_, io::Result<Bytes>> {
        let offset = i64::try_from(offset).unwrap_or(i64::MAX);
        let length = i64::try_from(length.min(MAX_READ)).unwrap_or(i64::MAX);
        let params = vec![("offset", offset.into()), ("length", length.into())];
        let calls = self.calls.clone();
        Box::pin(async move {
            let ok = calls
                .call(Some(self.hook), "message/read", params)
                .await
                .map_err(io::Error::other)?;
            bytes(ok.get("data"))
                .map(Bytes::from)
                .ok_or_else(|| io::Error::other(odd("data")))
        })
    }
}
