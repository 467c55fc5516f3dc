//! SMTP over an in-process stream, with small plugins in a real chain.

mod commands;
mod departure;
mod limits;
mod lines;
mod messages;
mod timing;
mod verdicts;

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use gatepost_protocol::plugin::Subscription;
use gatepost_protocol::testing::FakeServices;
use gatepost_protocol::{Answer, Call, Field, Hook, Outcome, Plugin, Policy, Verdict};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::task::JoinHandle;

use crate::chain::{Chain, Entry, Rules};
use crate::config::{Config, Listen};
use crate::dialog::{Client, Dialect, SMTP, Shared, Stop, Stream, serve};
use crate::message::Spool;
use crate::outbox::Outbox;

type Respond = dyn for<'a> Fn(&'a Call<'a>) -> Answer<'a> + Send + Sync;

/// A plugin made of a closure.
struct Small {
    hooks: Vec<Hook>,
    fields: Vec<Field>,
    respond: Box<Respond>,
}

impl Plugin for Small {
    fn subscriptions(&self) -> Vec<Subscription> {
        let subscribe = |hook: &Hook| Subscription::to(*hook, &self.fields);
        self.hooks.iter().map(subscribe).collect()
    }

    fn call<'a>(&'a self, call: &'a Call<'a>) -> Answer<'a> {
        (self.respond)(call)
    }
}

/// Where conversations are held.
struct Bed {
    dialect: &'static Dialect,
    listen: Listen,
    config: Config,
    plugins: Vec<Small>,
    stop: Stop,
    /// Messages that were queued: header block and, behind it, the rest as received.
    queued: Arc<Mutex<Vec<Vec<u8>>>>,
    spool: Arc<TempDir>,
}

/// A conversation, seen from the client.
struct Dialog {
    stream: DuplexStream,
    server: JoinHandle<()>,
    spool: Arc<TempDir>,
}

impl Bed {
    /// With the usual limits, and no plugin.
    fn bare() -> Bed {
        let spool = tempfile::tempdir().unwrap();
        let config = crate::message::spool::tests::config(spool.path(), 64 << 10, 1 << 20);
        Bed {
            dialect: &SMTP,
            listen: Listen::at("127.0.0.1:0".parse().unwrap()),
            config,
            plugins: Vec::new(),
            stop: Stop::default(),
            queued: Arc::default(),
            spool: Arc::new(spool),
        }
    }

    /// And a plugin that takes every recipient, and one that keeps every message.
    fn new() -> Bed {
        Bed::bare().accepting().keeping()
    }

    fn plugin(
        mut self,
        hooks: &[Hook],
        respond: impl for<'a> Fn(&'a Call<'a>) -> Answer<'a> + Send + Sync + 'static,
    ) -> Bed {
        self.plugins.push(Small {
            hooks: hooks.to_vec(),
            fields: Vec::new(),
            respond: Box::new(respond),
        });
        self
    }

    /// A plugin that answers at once, always the same.
    fn saying(self, hook: Hook, outcome: impl Fn() -> Outcome + Send + Sync + 'static) -> Bed {
        self.plugin(&[hook], move |_| outcome().into())
    }

    fn accepting(self) -> Bed {
        self.saying(Hook::Rcpt, || Outcome::ok(""))
    }

    fn keeping(self) -> Bed {
        let queued = Arc::clone(&self.queued);
        self.plugin(&[Hook::Queue], move |call| {
            let queued = Arc::clone(&queued);
            Answer::later(async move {
                let transaction = &call.session.transaction;
                let mut bytes = transaction.header.as_ref().unwrap().to_bytes().to_vec();
                let message = call.message.unwrap();
                assert_eq!(message.size(), transaction.size);
                let rest = message
                    .read(transaction.header_end, usize::MAX)
                    .await
                    .unwrap();
                bytes.extend_from_slice(&rest);
                queued.lock().unwrap().push(bytes);
                Outcome::default().with_verdict(Verdict::Ok)
            })
        })
    }

    /// Holds a conversation; the greeting is still to be read.
    fn connect(&mut self) -> Dialog {
        self.connect_through(|stream| stream)
    }

    /// The same, over what is made of the server's end.
    fn connect_through<S: Stream + 'static>(
        &mut self,
        through: impl FnOnce(DuplexStream) -> S,
    ) -> Dialog {
        let entries = self
            .plugins
            .drain(..)
            .enumerate()
            .map(|(at, plugin)| Entry {
                name: format!("plugin{at}").into(),
                plugin: Arc::new(plugin),
                rules: Rules::new(Policy::default(), Policy::default(), None, None),
                origins: Default::default(),
                when: None,
            });
        let outbox = Outbox::open(&self.config).unwrap();
        let shared = Arc::new(Shared {
            config: Arc::new(self.config.clone()),
            chain: Arc::new(Chain::new(entries.collect())),
            services: Arc::new(FakeServices::default()),
            spool: Arc::new(Spool::open(&self.config).unwrap()),
            store: Some(outbox.store().clone()),
            outbox: Some(outbox),
            journal: None,
            apart: Arc::default(),
        });
        let client = Client {
            session: "3f9a1c".into(),
            remote: Some("192.0.2.1:1234".parse().unwrap()),
            local: None,
            connections: 1,
            listen: Arc::new(self.listen.clone()),
            user: None,
            secured: None,
            may_xclient: false,
            may_xforward: false,
        };
        let (stream, theirs) = tokio::io::duplex(16 << 10);
        Dialog {
            stream,
            server: tokio::spawn(serve(
                self.dialect,
                through(theirs),
                client,
                shared,
                self.stop.clone(),
            )),
            spool: Arc::clone(&self.spool),
        }
    }

    /// Holds a conversation up to here.
    async fn after(&mut self, commands: &[&str]) -> Dialog {
        let mut dialog = self.connect();
        dialog.reply().await;
        for command in commands {
            dialog.ask(command).await;
        }
        dialog
    }

    fn queued(&self) -> Vec<String> {
        let queued = self.queued.lock().unwrap();
        queued
            .iter()
            .map(|message| String::from_utf8(message.clone()).unwrap())
            .collect()
    }
}

/// Up to the question for the message.
const TO_DATA: &[&str] = &[
    "EHLO client.example",
    "MAIL FROM:<a@b>",
    "RCPT TO:<c@d>",
    "DATA",
];
const MESSAGE: &str = "Subject: x\r\n\r\nbody\r\n.";

impl Dialog {
    /// Sends a line.
    async fn send(&mut self, line: &str) {
        self.raw(format!("{line}\r\n").as_bytes()).await;
    }

    async fn raw(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    /// Reads a reply of one or more lines; empty at the end of the conversation.
    async fn reply(&mut self) -> String {
        let mut reply = Vec::new();
        loop {
            let last = reply.strip_suffix(b"\r\n").map(|text: &[u8]| {
                let start = text
                    .iter()
                    .rposition(|byte| *byte == b'\n')
                    .map_or(0, |at| at + 1);
                text.get(start + 3) == Some(&b' ')
            });
            if last == Some(true) {
                return String::from_utf8(reply).unwrap();
            }
            let mut byte = [0];
            let read =
                tokio::time::timeout(Duration::from_secs(3600 * 24), self.stream.read(&mut byte));
            match read.await.unwrap() {
                Ok(1) => reply.push(byte[0]),
                _ => {
                    assert_eq!(reply, b"");
                    return String::new();
                }
            }
        }
    }

    /// Sends a line and reads the reply.
    async fn ask(&mut self, line: &str) -> String {
        self.send(line).await;
        self.reply().await
    }

    /// Asks, and compares the start of the reply.
    async fn expect(&mut self, line: &str, start: &str) {
        let reply = self.ask(line).await;
        assert!(
            reply.starts_with(start),
            "{line}: expected {start}, got {reply}"
        );
    }

    /// The conversation was closed, and nothing is left of it.
    async fn closed(mut self) {
        assert_eq!(self.reply().await, "");
        drop(self.stream);
        self.server.await.unwrap();
        assert_eq!(files(self.spool.path()), 0);
    }

    /// The client is gone; nothing is left of the conversation.
    async fn hang_up(self) {
        drop(self.stream);
        self.server.await.unwrap();
        assert_eq!(files(self.spool.path()), 0);
    }
}

fn files(dir: &Path) -> usize {
    std::fs::read_dir(dir).unwrap().count()
}
