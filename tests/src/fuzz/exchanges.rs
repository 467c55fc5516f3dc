//! AUTH's mechanisms, with clients that say anything: who is let in has shown the password, and who shows it is let in.

use std::num::NonZeroU32;
use std::sync::{LazyLock, Once};

use aws_lc_rs::{digest, hmac, pbkdf2};
use data_encoding::{BASE64, HEXLOWER};
use gatepost::dialog::sasl::{
    Context, Failure, MAX_NAME, Mechanism, Question, Reply, ScramKeys, Secret, Step, start,
};

use super::SEPARATOR;

const USER: &str = "tim";
const PASSWORD: &str = "sesame";
const OTHER: &str = "simsim";
const BINDING: [u8; 32] = [7; 32];
const SALT: &[u8] = b"NaCl";

/// In a message of an input: all that an honest client would say now.
const HONEST: u8 = 0x1a;
/// The same of a client with another password.
const WRONG: u8 = 0x19;

/// A mechanism asks for no more messages than these.
const MOST: usize = 4;

/// Takes an input as: a byte for the mechanism, one of settings, and the client's messages, with a separator between each two.
pub fn check(input: &[u8]) {
    // Strangers get keys as the first user has, which cost nothing here.
    static FIRST: Once = Once::new();
    FIRST.call_once(|| exchange(&[1, 4, HONEST, SEPARATOR, HONEST, SEPARATOR, HONEST]));
    exchange(input);
}

fn exchange(input: &[u8]) {
    let [mechanism, settings, messages @ ..] = input else {
        return;
    };
    let mechanism = Mechanism::ALL[usize::from(*mechanism) % Mechanism::ALL.len()];
    let plus = mechanism == Mechanism::ScramSha256Plus;
    let context = Context {
        hostname: "mx.example.org",
        channel_binding: (settings & 1 != 0).then_some(&BINDING),
        plus_offered: settings & 2 != 0,
    };
    let can = !plus || context.channel_binding.is_some();
    let mut client = Client::new(mechanism);
    let mut messages = messages.split(|byte| *byte == SEPARATOR);
    let initial = (settings & 4 != 0)
        .then(|| messages.next())
        .flatten()
        .map(|message| client.say(message));
    let mut step = start(mechanism, &context, initial.as_deref());
    for round in 0.. {
        step = match step {
            Step::Challenge(text, exchange) => {
                assert!(round < MOST, "{mechanism:?} never comes to an end");
                client.heard(&text);
                let Some(message) = messages.next() else {
                    return;
                };
                let refused = exchange.is_refused();
                let next = exchange.step(&client.say(message));
                let gives_up = matches!(next, Step::Failed(Failure::Credentials));
                assert!(!refused || gives_up, "{next:?}");
                next
            }
            Step::Ask(question, pending) => {
                let reply = answer(&question);
                client.was_refused |= matches!(reply, Reply::Refused);
                pending.answered(reply)
            }
            Step::Done(identity) => {
                assert_eq!(identity.user, USER);
                let authzid = identity.authzid.as_deref();
                assert!(authzid.is_none_or(|authzid| authzid != USER && is_name(authzid)));
                assert!(client.proved && !client.was_refused && can, "{mechanism:?}");
                return;
            }
            Step::Failed(failure) => {
                let early = mechanism == Mechanism::CramMd5 && initial.is_some();
                assert_eq!(early, failure == Failure::InitialResponse);
                assert!(!client.honest || early || !can, "{mechanism:?}: {failure}");
                return;
            }
        };
    }
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= MAX_NAME && !name.contains(char::is_control)
}

/// What a plugin says that knows one user.
fn answer(question: &Question) -> Reply {
    let shown = match question {
        Question::Password {
            password: shown, ..
        }
        | Question::Token { token: shown, .. } => format!("{shown:?}"),
        Question::Secret { .. } | Question::Digest { .. } => String::new(),
    };
    assert!(!shown.contains(PASSWORD), "a log would have it: {shown}");
    let (user, known) = match question {
        Question::Password { identity, password } => {
            let known = password.reveal() == PASSWORD;
            (&identity.user, known.then_some(Reply::Accepted(None)))
        }
        Question::Secret { identity } => (&identity.user, Some(Reply::ScramKeys(KEYS.clone()))),
        Question::Digest { identity, .. } => {
            let password = Reply::Password(Secret::new(PASSWORD));
            (&identity.user, Some(password))
        }
        Question::Token { user, token } => {
            let known =
                (token.reveal() == PASSWORD).then(|| Reply::Accepted(Some(USER.to_owned())));
            let Some(user) = user else {
                return known.unwrap_or(Reply::Refused);
            };
            (user, known)
        }
    };
    assert!(is_name(user), "{user:?}");
    known.filter(|_| user == USER).unwrap_or(Reply::Refused)
}

/// The client: what was said so far, and what it comes to.
struct Client {
    mechanism: Mechanism,
    /// So far it has said what an honest one says.
    honest: bool,
    /// The last message was one that only who knows the password can say.
    proved: bool,
    was_refused: bool,
    said: Vec<Vec<u8>>,
    challenge: Vec<u8>,
}

impl Client {
    fn new(mechanism: Mechanism) -> Client {
        Client {
            mechanism,
            honest: true,
            proved: false,
            was_refused: false,
            said: Vec::new(),
            challenge: Vec::new(),
        }
    }

    fn heard(&mut self, challenge: &[u8]) {
        self.challenge = challenge.to_vec();
    }

    /// A message of the input with what an honest client would say in its place.
    fn say(&mut self, message: &[u8]) -> Vec<u8> {
        let honest = self.expected(PASSWORD);
        let mut said = Vec::new();
        for byte in message {
            match *byte {
                HONEST => said.extend_from_slice(&honest),
                WRONG => said.extend_from_slice(&self.expected(OTHER)),
                byte => said.push(byte),
            }
        }
        self.honest &= said == honest;
        let contains = |what: &[u8]| said.windows(what.len()).any(|part| part == what);
        self.proved = match self.mechanism {
            Mechanism::CramMd5 => {
                let digest = &honest[honest.len().saturating_sub(33)..];
                said.ends_with(digest)
            }
            // The message behind the one with the proof is empty.
            Mechanism::ScramSha256 | Mechanism::ScramSha256Plus => match self.said.len() {
                1 => said == honest,
                2 => self.proved,
                _ => false,
            },
            Mechanism::Plain | Mechanism::Login => {
                // Other writings of it are SASLprep's.
                contains(PASSWORD.as_bytes()) || !said.is_ascii()
            }
            Mechanism::Oauthbearer | Mechanism::Xoauth2 => contains(PASSWORD.as_bytes()),
        };
        self.said.push(said.clone());
        said
    }

    /// What a client with this password says now.
    fn expected(&self, password: &str) -> Vec<u8> {
        match (self.mechanism, self.said.len()) {
            (Mechanism::Plain, _) => format!("\0{USER}\0{password}").into(),
            (Mechanism::Login, 0) => USER.into(),
            (Mechanism::Login, _) => password.into(),
            (Mechanism::CramMd5, _) => {
                let digest = hmac_md5(password.as_bytes(), &self.challenge);
                format!("{USER} {}", HEXLOWER.encode(&digest)).into()
            }
            (Mechanism::Xoauth2, _) => {
                format!("user={USER}\x01auth=Bearer {password}\x01\x01").into()
            }
            (Mechanism::Oauthbearer, _) => {
                format!("n,a={USER},\x01auth=Bearer {password}\x01\x01").into()
            }
            (Mechanism::ScramSha256, 0) => format!("n,,n={USER},r=abc").into(),
            (Mechanism::ScramSha256Plus, 0) => format!("p=tls-exporter,,n={USER},r=abc").into(),
            (_, 1) => self.last_of_scram(password).unwrap_or_default(),
            _ => Vec::new(),
        }
    }

    /// RFC 5802 §3, for whatever the first message was.
    fn last_of_scram(&self, password: &str) -> Option<Vec<u8>> {
        let first = &self.said[0];
        let mut commas = (0..first.len()).filter(|at| first[*at] == b',');
        let header = ..=commas.nth(1)?;
        let binding: &[u8] = match self.mechanism {
            Mechanism::ScramSha256Plus => &BINDING,
            _ => &[],
        };
        let bare = &first[header.end + 1..];
        let binding = BASE64.encode(&[&first[header], binding].concat());
        let challenge = std::str::from_utf8(&self.challenge).ok()?;
        let nonce = challenge.split(',').next()?;
        let last = format!("c={binding},{nonce}");
        let said = [bare, b",", challenge.as_bytes(), b",", last.as_bytes()].concat();
        let mut proof = sign(&KEYS.stored_key, &said);
        proof[0] ^= u8::from(password != PASSWORD);
        for (proof, key) in proof.iter_mut().zip(*CLIENT_KEY) {
            *proof ^= key;
        }
        Some(format!("{last},p={}", BASE64.encode(&proof)).into())
    }
}

static SALTED: LazyLock<[u8; 32]> = LazyLock::new(|| {
    let mut salted = [0; 32];
    let rounds = NonZeroU32::new(4096).unwrap();
    pbkdf2::derive(
        pbkdf2::PBKDF2_HMAC_SHA256,
        rounds,
        SALT,
        PASSWORD.as_bytes(),
        &mut salted,
    );
    salted
});
static CLIENT_KEY: LazyLock<[u8; 32]> = LazyLock::new(|| sign(&SALTED, b"Client Key"));
static KEYS: LazyLock<ScramKeys> = LazyLock::new(|| ScramKeys {
    salt: SALT.to_vec(),
    iterations: 4096,
    stored_key: digest::digest(&digest::SHA256, &*CLIENT_KEY)
        .as_ref()
        .try_into()
        .unwrap(),
    server_key: sign(&SALTED, b"Server Key"),
});

fn sign(key: &[u8; 32], message: &[u8]) -> [u8; 32] {
    let key = hmac::Key::new(hmac::HMAC_SHA256, key);
    hmac::sign(&key, message).as_ref().try_into().unwrap()
}

/// RFC 2104 §2, for keys that are shorter than a block.
fn hmac_md5(key: &[u8], message: &[u8]) -> [u8; 16] {
    let hash = |pad: u8, message: &[u8]| {
        let mut block = [pad; 64];
        block
            .iter_mut()
            .zip(key)
            .for_each(|(byte, key)| *byte ^= key);
        md5::compute([&block, message].concat()).0
    };
    hash(0x5c, &hash(0x36, message))
}
