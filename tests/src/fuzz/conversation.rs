//! Whole conversations, in SMTP and LMTP: nothing but words depends on how the client's bytes are cut up, every command gets its replies (what is a command is told
//! by [`super::replies`]), and a message is said to be taken exactly when a plugin took it.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, LazyLock, Mutex};
use std::task::{Context, Poll};

use gatepost::chain::{Chain, Entry, Rules};
use gatepost::config::{AuthOffer, BareNewlines, Config, Listen};
use gatepost::dialog::{Client, LMTP, SMTP, Shared, Stop, Stream, serve};
use gatepost::message::Spool;
use gatepost::outbox::Outbox;
use gatepost_protocol::plugin::Subscription;
use gatepost_protocol::testing::FakeServices;
use gatepost_protocol::{Answer, Args, Call, Hook, Outcome, Plugin, Policy};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::replies::{self, Told};
use super::{Blocks, in_runtime};

/// Takes an input as: a byte of settings, the blocks the client's bytes come in, and these.
pub fn check(input: &[u8]) {
    let Some((settings, input)) = input.split_first() else {
        return;
    };
    let Some((blocks, stream)) = Blocks::take(input) else {
        return;
    };
    let settings = Settings(*settings);
    let (whole, kept) = converse(settings, [stream.to_vec()].into());
    let (cut, kept_cut) = converse(settings, blocks.cut(stream));
    assert_eq!(shown(&whole), shown(&cut));
    assert_eq!(
        (kept.passwords, &kept.messages),
        (kept_cut.passwords, &kept_cut.messages)
    );
    let told = replies::told(&whole, stream, settings.is_lmtp(), LIMITS.max_command_line);
    check_kept(settings, &told, &kept);
}

/// A conversation to compare. Of several limits that a message exceeds, the one that is named is the first that was noticed, and that depends on how
/// much came at once.
fn shown(told: &[u8]) -> String {
    let lines = told.split_inclusive(|byte| *byte == b'\n');
    let lines = lines.map(|line| match line.starts_with(b"552 5.3.4 ") {
        true => "552 5.3.4 *".to_owned(),
        false => line.escape_ascii().to_string(),
    });
    lines.collect()
}

/// What the client was told against what the plugins did.
fn check_kept(settings: Settings, told: &Told, kept: &Kept) {
    assert_eq!(told.queued, kept.messages.len());
    // A good password does not let its owner act as somebody else.
    assert!(told.authenticated <= kept.passwords);
    assert!(settings.has_queue() || told.queued == 0);
    for message in &kept.messages {
        let text = message.escape_ascii();
        assert!(message.len() as u64 <= LIMITS.max_size, "{text}");
        if settings.newlines() != BareNewlines::Keep && !kept.is_binary {
            let pairs = message.windows(2).filter(|pair| pair == b"\r\n").count();
            let alone = |byte| message.iter().filter(|b| **b == byte).count() != pairs;
            assert!(!alone(b'\r') && !alone(b'\n'), "{text}");
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Settings(u8);

impl Settings {
    fn newlines(self) -> BareNewlines {
        match self.0 & 3 {
            0 | 3 => BareNewlines::Reject,
            1 => BareNewlines::Normalize,
            _ => BareNewlines::Keep,
        }
    }

    fn is_lmtp(self) -> bool {
        self.0 & 4 != 0
    }

    fn has_queue(self) -> bool {
        self.0 & 8 == 0
    }

    fn is_trusted(self) -> bool {
        self.0 & 16 != 0
    }
}

/// Low enough for short inputs to reach.
struct Limits {
    max_command_line: usize,
    max_size: u64,
}

const LIMITS: Limits = Limits {
    max_command_line: 200,
    max_size: 1000,
};

static CONFIG: LazyLock<Config> = LazyLock::new(|| {
    let mut config = super::config();
    let limits = &mut config.limits;
    limits.max_command_line = LIMITS.max_command_line;
    limits.max_size = LIMITS.max_size;
    limits.max_data_line = 100;
    limits.max_header = 200;
    limits.max_header_fields = 5;
    limits.max_recipients = 3;
    limits.max_transactions = 4;
    // Without SCRAM, which computes for long, and CRAM-MD5, whose challenge is never the same.
    config.auth_mechanisms = ["PLAIN", "LOGIN", "XOAUTH2", "OAUTHBEARER"]
        .map(str::to_owned)
        .into();
    config
});
static SPOOL: LazyLock<Arc<Spool>> = LazyLock::new(|| Arc::new(Spool::open(&CONFIG).unwrap()));
static OUTBOX: LazyLock<Arc<Outbox>> = LazyLock::new(|| Outbox::open(&CONFIG).unwrap());

/// What the plugins saw and agreed to.
#[derive(Debug, Default)]
struct Kept {
    messages: Vec<Vec<u8>>,
    passwords: usize,
    is_binary: bool,
}

/// Takes every recipient, the password `secret`, and, at the hook `queue`, every message.
struct Taker {
    hooks: Vec<Hook>,
    kept: Arc<Mutex<Kept>>,
}

impl Plugin for Taker {
    fn subscriptions(&self) -> Vec<Subscription> {
        let subscribe = |hook: &Hook| Subscription::to(*hook, &[]);
        self.hooks.iter().map(subscribe).collect()
    }

    fn call<'a>(&'a self, call: &'a Call<'a>) -> Answer<'a> {
        match (call.hook, call.args) {
            (Hook::Auth, Args::Auth(shown)) => {
                let secret = Some("secret".to_owned());
                if shown.password != secret && shown.token != secret {
                    return Outcome::declined().into();
                }
                self.kept.lock().unwrap().passwords += 1;
                Outcome::ok("").into()
            }
            (Hook::Queue, _) => Answer::later(async move {
                let message = call.message.unwrap().read(0, usize::MAX).await.unwrap();
                let mut kept = self.kept.lock().unwrap();
                let parameters = &call.session.transaction.sender_parameters;
                let body = parameters.get("BODY").and_then(Option::as_deref);
                kept.is_binary |= body.is_some_and(|body| body.eq_ignore_ascii_case("BINARYMIME"));
                kept.messages.push(message.to_vec());
                Outcome::ok("")
            }),
            _ => Outcome::ok("").into(),
        }
    }
}

/// Holds a conversation with a client that says this, block by block, and hangs up. Returns what it was told.
fn converse(settings: Settings, blocks: VecDeque<Vec<u8>>) -> (Vec<u8>, Kept) {
    let kept = Arc::new(Mutex::new(Kept::default()));
    let mut hooks = vec![Hook::Rcpt, Hook::Auth];
    if settings.has_queue() {
        hooks.push(Hook::Queue);
    }
    let taker = Entry {
        name: "taker".into(),
        plugin: Arc::new(Taker {
            hooks,
            kept: Arc::clone(&kept),
        }),
        rules: Rules::new(Policy::default(), Policy::default(), None, None),
        when: None,
        origins: Default::default(),
    };
    let mut config = CONFIG.clone();
    config.bare_newlines = settings.newlines();
    let shared = Shared {
        config: Arc::new(config),
        chain: Arc::new(Chain::new(vec![taker])),
        spool: Arc::clone(&SPOOL),
        outbox: Some(Arc::clone(&OUTBOX)),
        store: Some(Arc::clone(OUTBOX.store())),
        journal: None,
        apart: Arc::default(),
        services: Arc::new(FakeServices::default()),
    };
    let address = "192.0.2.1:1234".parse().unwrap();
    let listen = Listen {
        auth: AuthOffer::Always,
        ..Listen::at(address)
    };
    let client = Client {
        session: "5e55".into(),
        remote: Some(address),
        local: None,
        connections: 1,
        listen: Arc::new(listen),
        secured: None,
        may_xclient: settings.is_trusted(),
        may_xforward: settings.is_trusted(),
        user: None,
    };
    let dialect = if settings.is_lmtp() { &LMTP } else { &SMTP };
    let told = Arc::new(Mutex::new(Vec::new()));
    let script = Script {
        blocks,
        waited: false,
        told: Arc::clone(&told),
    };
    in_runtime(serve(
        dialect,
        script,
        client,
        Arc::new(shared),
        Stop::default(),
    ));
    let told = std::mem::take(&mut *told.lock().unwrap());
    let kept = std::mem::take(&mut *kept.lock().unwrap());
    (told, kept)
}

/// The server's end of the client's connection: all that the client will say is there. It hangs up behind that, and not before somebody who only
/// looked has found it waiting: a client that is gone is told nothing, and what was told then depends on when somebody looked.
struct Script {
    blocks: VecDeque<Vec<u8>>,
    waited: bool,
    told: Arc<Mutex<Vec<u8>>>,
}

impl Stream for Script {}

impl AsyncRead for Script {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        room: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some(block) = self.blocks.front_mut() {
            let length = block.len().min(room.remaining());
            room.put_slice(&block[..length]);
            block.drain(..length);
            if block.is_empty() {
                self.blocks.pop_front();
            }
        } else if !self.waited {
            self.waited = true;
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Script {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.told.lock().unwrap().extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
