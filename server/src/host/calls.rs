//! What a plugin process asks of the core (docs/protocol.md §8), but for what belongs to a hook in flight.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use gatepost_protocol::channel::FrameWriter;
use gatepost_protocol::frame;
use gatepost_protocol::outcome::BoxFuture;
use gatepost_protocol::services::{DnsStatus, ServiceErrorCode};
use gatepost_protocol::wire::{CallMessage, ReplyMessage};
use gatepost_protocol::{
    Address, Bounce, EnhancedCode, RecordType, ServiceError, Services, Submission, Value,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

/// How many calls of a worker run at once.
const RUNNING: usize = 64;
/// How many more wait; what goes beyond is refused.
const WAITING: usize = 1024;
/// How long a call may take that names no hook in flight.
pub(super) const WITHOUT_HOOK: Duration = Duration::from_secs(30);

/// What a call came to.
pub(super) type Answer = Result<Value, ServiceError>;

/// The calls of one worker.
pub(super) struct Calls {
    services: Arc<dyn Services>,
    writer: Arc<FrameWriter>,
    places: Arc<Semaphore>,
    turns: Arc<Semaphore>,
}

impl Calls {
    /// Calls that `services` answer, over `writer`.
    pub(super) fn new(services: Arc<dyn Services>, writer: Arc<FrameWriter>) -> Calls {
        Calls {
            services,
            writer,
            places: Arc::new(Semaphore::new(RUNNING + WAITING)),
            turns: Arc::new(Semaphore::new(RUNNING)),
        }
    }

    /// Answers a call when its answer is there, or when `deadline` has passed.
    pub(super) fn serve(&self, call: &CallMessage, deadline: Instant) {
        let id = call.id;
        let (place, service) = match self
            .place()
            .and_then(|place| Ok((place, self.service(call)?)))
        {
            Ok(both) => both,
            Err(error) => return self.reply(id, Err(error)),
        };
        let (turns, writer) = (self.turns.clone(), self.writer.clone());
        tokio::spawn(async move {
            let _place = place;
            let answer = tokio::time::timeout_at(deadline, async {
                let _turn = turns.acquire().await;
                service.await
            });
            let late = |_| Err(ServiceError::temporary("no answer within the deadline"));
            send(&writer, id, answer.await.unwrap_or_else(late));
        });
    }

    /// A place among the calls that are not answered yet.
    pub(super) fn place(&self) -> Result<OwnedSemaphorePermit, ServiceError> {
        self.places.clone().try_acquire_owned().map_err(|_| {
            let most = RUNNING + WAITING;
            ServiceError::temporary(format!("{most} calls are waiting already"))
        })
    }

    /// Answers a call now.
    pub(super) fn reply(&self, id: u64, answer: Answer) {
        send(&self.writer, id, answer);
    }

    fn service(&self, call: &CallMessage) -> Result<BoxFuture<'static, Answer>, ServiceError> {
        let params = Params(&call.params);
        let services = &self.services;
        Ok(match &*call.method {
            "dns" => {
                let answer = services.dns(params.text("name")?, params.record_type()?);
                Box::pin(async move {
                    let answer = answer.await?;
                    let status = match answer.status {
                        DnsStatus::Found => "found",
                        DnsStatus::NoRecords => "no_records",
                        DnsStatus::NoSuchName => "no_such_name",
                    };
                    Ok(map([
                        ("status", Value::from(status)),
                        ("records", texts(answer.records)),
                    ]))
                })
            }
            "config" => {
                let name = params.text("name")?;
                let values = match params.has("recipient") {
                    true => services.config_for(name, &params.address("recipient")?),
                    false => services.config(name),
                };
                Box::pin(async move { Ok(map([("values", texts(values.await?))])) })
            }
            "recipient/valid" => {
                let validity = services.recipient_valid(&params.address("address")?);
                Box::pin(async move {
                    let validity = Value::from(validity.await?.name());
                    Ok(map([("validity", validity)]))
                })
            }
            "state/get" => {
                let value = services.state_get(params.text("key")?);
                Box::pin(async move {
                    let value = value.await?.map(|bytes| ("value", Value::Bytes(bytes)));
                    Ok(map(value))
                })
            }
            "state/set" => {
                let (key, ttl) = (params.text("key")?, params.ttl()?);
                let done = services.state_set(key, params.bytes("value")?, ttl);
                Box::pin(async move { done.await.map(|()| map([])) })
            }
            "state/add" => {
                let (key, ttl) = (params.text("key")?, params.ttl()?);
                let sum = services.state_add(key, params.integer("add")?, ttl);
                Box::pin(async move { Ok(map([("value", Value::Integer(sum.await?))])) })
            }
            "state/delete" => {
                let done = services.state_delete(params.text("key")?);
                Box::pin(async move { done.await.map(|()| map([])) })
            }
            "message/submit" => {
                let sent = services.submit(Submission {
                    sender: params.address("sender")?,
                    recipients: params.addresses("recipients")?,
                    message: params.bytes("message")?,
                });
                Box::pin(async move { Ok(map([("id", Value::Text(sent.await?))])) })
            }
            "message/bounce" => {
                let sent = services.bounce(Bounce {
                    sender: params.address("sender")?,
                    recipient: params.address("recipient")?,
                    code: params.code()?,
                    enhanced: params.enhanced()?,
                    text: params.text("text")?.to_owned(),
                    message: params.bytes("message")?,
                });
                Box::pin(async move { Ok(map(sent.await?.map(|id| ("id", Value::Text(id))))) })
            }
            method => {
                return Err(ServiceError::new(
                    ServiceErrorCode::UnknownMethod,
                    format!("no such method: `{method}`"),
                ));
            }
        })
    }
}

/// An answer as a map.
pub(super) fn map(entries: impl IntoIterator<Item = (&'static str, Value)>) -> Value {
    let entries = entries.into_iter();
    Value::Map(
        entries
            .map(|(key, value)| (key.to_owned(), value))
            .collect::<BTreeMap<_, _>>(),
    )
}

fn texts(texts: Vec<String>) -> Value {
    Value::List(texts.into_iter().map(Value::Text).collect())
}

fn send(writer: &FrameWriter, id: u64, answer: Answer) {
    let (ok, error) = match answer {
        Ok(value) => (Some(value), None),
        Err(error) => (None, Some(error.into())),
    };
    let frame = frame::encode(&ReplyMessage { id, ok, error }).or_else(|error| {
        let error = ServiceError::new(
            ServiceErrorCode::Failed,
            format!("the answer does not fit a frame: {error}"),
        );
        frame::encode(&ReplyMessage {
            id,
            ok: None,
            error: Some(error.into()),
        })
    });
    if let Ok(frame) = frame {
        // A channel that fails ends its worker, and whoever reads it says why.
        drop(writer.send(&frame));
    }
}

/// The parameters of a call.
pub(super) struct Params<'a>(pub(super) &'a Value);

impl Params<'_> {
    fn has(&self, name: &str) -> bool {
        !matches!(self.0.get(name), None | Some(Value::Nil))
    }

    fn text(&self, name: &str) -> Result<&str, ServiceError> {
        let text = self.0.get(name).and_then(Value::as_text);
        text.ok_or_else(|| bad(format!("`{name}` is to be a text")))
    }

    pub(super) fn integer(&self, name: &str) -> Result<i64, ServiceError> {
        let number = self.0.get(name).and_then(Value::as_integer);
        number.ok_or_else(|| bad(format!("`{name}` is to be an integer")))
    }

    /// An integer that is not negative.
    pub(super) fn amount(&self, name: &str) -> Result<u64, ServiceError> {
        u64::try_from(self.integer(name)?)
            .map_err(|_| bad(format!("`{name}` is not to be negative")))
    }

    fn bytes(&self, name: &str) -> Result<Vec<u8>, ServiceError> {
        match self.0.get(name) {
            Some(Value::Bytes(bytes)) => Ok(bytes.clone()),
            Some(Value::Text(text)) => Ok(text.clone().into_bytes()),
            _ => Err(bad(format!("`{name}` is to be bytes"))),
        }
    }

    fn address(&self, name: &str) -> Result<Address, ServiceError> {
        read_address(name, self.text(name)?)
    }

    fn addresses(&self, name: &str) -> Result<Vec<Address>, ServiceError> {
        let Some(Value::List(list)) = self.0.get(name) else {
            return Err(bad(format!("`{name}` is to be a list of texts")));
        };
        let texts = list.iter().map(|item| {
            let text = item.as_text();
            text.ok_or_else(|| bad(format!("`{name}` is to be a list of texts")))
        });
        texts.map(|text| read_address(name, text?)).collect()
    }

    /// A reply code of a failure; 550 where there is none.
    fn code(&self) -> Result<u16, ServiceError> {
        match self.0.get("code") {
            None | Some(Value::Nil) => Ok(550),
            Some(_) => u16::try_from(self.integer("code")?)
                .map_err(|_| bad("`code` is to be a reply code from 400 to 599".to_owned())),
        }
    }

    fn enhanced(&self) -> Result<Option<EnhancedCode>, ServiceError> {
        match self.0.get("enhanced") {
            None | Some(Value::Nil) => Ok(None),
            Some(_) => EnhancedCode::parse(self.text("enhanced")?)
                .map(Some)
                .ok_or_else(|| bad("`enhanced` is to be a code like 5.1.1".to_owned())),
        }
    }

    fn ttl(&self) -> Result<Option<Duration>, ServiceError> {
        match self.0.get("ttl_ms") {
            None | Some(Value::Nil) => Ok(None),
            Some(_) => Ok(Some(Duration::from_millis(self.amount("ttl_ms")?))),
        }
    }

    fn record_type(&self) -> Result<RecordType, ServiceError> {
        Ok(match self.text("type")? {
            "A" => RecordType::A,
            "AAAA" => RecordType::Aaaa,
            "MX" => RecordType::Mx,
            "TXT" => RecordType::Txt,
            "PTR" => RecordType::Ptr,
            "NS" => RecordType::Ns,
            "CNAME" => RecordType::Cname,
            other => {
                return Err(bad(format!(
                    "`{other}` is no record type; known are A, AAAA, MX, TXT, PTR, NS, CNAME"
                )));
            }
        })
    }
}

fn read_address(name: &str, text: &str) -> Result<Address, ServiceError> {
    Address::parse_utf8(text).map_err(|error| {
        bad(format!(
            "`{name}`: `{}` is no address: {error}",
            text.escape_debug()
        ))
    })
}

/// Parameters that do not fit.
pub(super) fn bad(message: String) -> ServiceError {
    ServiceError::new(ServiceErrorCode::BadParams, message)
}
