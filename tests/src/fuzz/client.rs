//! A conversation in memory: the server as it is, and a client whose every word is known before.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, LazyLock, Mutex};
use std::task::{Context, Poll};

use gatepost::chain::{Chain, Entry, Rules};
use gatepost::config::{AuthOffer, Config, Listen};
use gatepost::dialog::{Client, Dialect, Shared, Stop, Stream, serve};
use gatepost::message::Spool;
use gatepost::outbox::Outbox;
use gatepost_protocol::testing::FakeServices;
use gatepost_protocol::{Immune, Plugin, Policy};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::in_runtime;

static SPOOL: LazyLock<Arc<Spool>> =
    LazyLock::new(|| Arc::new(Spool::open(&super::config()).unwrap()));
static OUTBOX: LazyLock<Arc<Outbox>> = LazyLock::new(|| Outbox::open(&super::config()).unwrap());

/// Holds a conversation with a client that says this, block by block, and hangs up. Returns what it was told. The chain is one plugin; `trusted` clients may speak
/// for others.
pub fn converse(
    dialect: &'static Dialect,
    config: Config,
    plugin: Arc<dyn Plugin>,
    trusted: bool,
    blocks: VecDeque<Vec<u8>>,
) -> Vec<u8> {
    // What it finds costs who is let be as much as anybody.
    let policy = Policy {
        immune: Some(Immune::Ignore),
        ..Policy::default()
    };
    let entry = Entry {
        name: "taker".into(),
        plugin,
        rules: Rules::new(policy, Policy::default(), None, None),
        when: None,
        origins: Default::default(),
    };
    let shared = Shared {
        config: Arc::new(config),
        chain: Arc::new(Chain::new(vec![entry])),
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
        may_xclient: trusted,
        may_xforward: trusted,
        user: None,
    };
    let told = Arc::new(Mutex::new(Vec::new()));
    let script = Script {
        blocks,
        waited: false,
        told: Arc::clone(&told),
    };
    let shared = Arc::new(shared);
    in_runtime(serve(dialect, script, client, shared, Stop::default()));
    std::mem::take(&mut *told.lock().unwrap())
}

/// The server's end of the client's connection: all that the client will say is there. It hangs up behind that, and not before somebody who only
/// looked has found it waiting: a client that is gone is told nothing, and what was told then depends on when somebody looked.
pub struct Script {
    blocks: VecDeque<Vec<u8>>,
    waited: bool,
    told: Arc<Mutex<Vec<u8>>>,
}

impl Script {
    /// One whose client hears nothing.
    pub fn unheard(blocks: VecDeque<Vec<u8>>) -> Script {
        Script {
            blocks,
            waited: false,
            told: Arc::default(),
        }
    }
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
