//! Whole conversations, in SMTP and LMTP: nothing but words depends on how the client's bytes are cut up, every command gets its replies (what is a command is told
//! by [`super::replies`]), and a message is said to be taken exactly when a plugin took it.

use std::collections::VecDeque;
use std::sync::{Arc, LazyLock, Mutex};

use gatepost::config::{BareNewlines, Config};
use gatepost::dialog::{LMTP, SMTP};
use gatepost_protocol::plugin::Subscription;
use gatepost_protocol::{Answer, Args, Call, Hook, Outcome, Plugin};

use super::replies::{self, Told};
use super::{Blocks, client};

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
    let taker = Taker {
        hooks,
        kept: Arc::clone(&kept),
    };
    let mut config = CONFIG.clone();
    config.bare_newlines = settings.newlines();
    let dialect = if settings.is_lmtp() { &LMTP } else { &SMTP };
    let trusted = settings.is_trusted();
    let told = client::converse(dialect, config, Arc::new(taker), trusted, blocks);
    let kept = std::mem::take(&mut *kept.lock().unwrap());
    (told, kept)
}
