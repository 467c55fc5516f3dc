//! SCRAM-SHA-256 and SCRAM-SHA-256-PLUS (RFC 5802, RFC 7677): client and server show each other that they know the password, and neither
//! sends it. With -PLUS they also show that both are at an end of the same TLS connection (RFC 9266).

use std::num::NonZeroU32;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::{digest, hmac, pbkdf2};
use data_encoding::BASE64;

use super::gs2::{self, Binding};
use super::question::{Identity, Question, Reply, ScramKeys};
use super::strangers::{Kind, Strangers};
use super::{
    Awaited, Context, Failure, Outcome, Pending, State, Step, challenge, misfit, prep, random, text,
};

/// Rounds for a secret that comes as a password: the fewest that RFC 7677 §4 allows, since they keep nothing safe that is stored, and what
/// most tools make stored keys with.
const ITERATIONS: NonZeroU32 = NonZeroU32::new(4096).expect("more than none");
/// Rounds that we let a client's machine do.
const MAX_ITERATIONS: u32 = 1_000_000;
/// Bytes of salt for a secret that comes as a password.
pub const SALT: usize = 16;
/// Bytes of salt that we send.
const MAX_SALT: usize = 1024;
/// The one type of channel binding that we can do (RFC 9266 §2).
const BINDING_TYPE: &str = "tls-exporter";

/// What is known before the client says anything.
pub struct Opening {
    plus: bool,
    binding: Option<Vec<u8>>,
    plus_offered: bool,
    /// Our half of the nonce.
    nonce: String,
    strangers: &'static Strangers,
}

impl Opening {
    pub fn new(plus: bool, context: &Context<'_>, strangers: &'static Strangers) -> Opening {
        Opening {
            plus,
            binding: context.channel_binding.map(<[u8]>::to_vec),
            plus_offered: context.plus_offered,
            nonce: BASE64.encode(&random::<18>()),
            strangers,
        }
    }

    /// With our half of the nonce as an RFC's example has it.
    #[cfg(test)]
    pub fn with_nonce(nonce: &str) -> Opening {
        let context = Context {
            hostname: "",
            channel_binding: None,
            plus_offered: false,
        };
        Opening {
            nonce: nonce.to_owned(),
            ..Opening::new(false, &context, Strangers::of_process())
        }
    }

    /// Takes the client's first message: `gs2-header n=user,r=nonce`, and extensions.
    pub fn first(self, response: &[u8]) -> Outcome {
        let (header, bare) = gs2::split(text(response)?)?;
        let binding = self.binding(header.binding)?;
        let mut fields = bare.split(',');
        let mut field = |name| fields.next()?.strip_prefix(name);
        // `m=`, with which a message may begin, would be an extension that must be understood (RFC 5802 §5.1).
        let (Some(user), Some(nonce)) = (field("n="), field("r=")) else {
            return Err(Failure::Malformed("no `n=` and `r=`, in this order"));
        };
        if nonce.is_empty() || !nonce.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(Failure::Malformed("a nonce that is not printable"));
        }
        extensions(fields)?;
        let identity = Identity::new(gs2::saslname(user)?, header.authzid);
        let question = Question::Secret {
            identity: identity.clone(),
        };
        let first = First {
            identity,
            nonce: format!("{nonce}{}", self.nonce),
            message: bare.to_owned(),
            binding: [header.text.as_bytes(), binding].concat(),
            strangers: self.strangers,
        };
        Ok(Step::Ask(
            question,
            Pending(Awaited::Scram(Box::new(first))),
        ))
    }

    /// What the client's last message must show of the channel (RFC 5802 §6).
    fn binding(&self, claimed: Binding<'_>) -> Result<&[u8], Failure> {
        let why = match (claimed, self.plus) {
            (Binding::By(BINDING_TYPE), true) => match &self.binding {
                Some(binding) => return Ok(binding),
                None => "this session has no channel to bind to",
            },
            (Binding::By(_), true) => "a type other than tls-exporter",
            (_, true) => "-PLUS, and nothing bound",
            (Binding::By(_), false) => "something bound, without -PLUS",
            (Binding::NotOffered, false) if self.plus_offered => {
                "the client never saw that we offer it: somebody may sit in between"
            }
            (_, false) => return Ok(&[]),
        };
        Err(Failure::ChannelBinding(why))
    }
}

/// What the client began with.
pub struct First {
    identity: Identity,
    /// Both halves.
    nonce: String,
    /// Without its header.
    message: String,
    /// What the client's last message must repeat.
    binding: Vec<u8>,
    strangers: &'static Strangers,
}

impl First {
    /// Somebody unknown gets keys like anybody else, and learns no sooner than with a wrong password that they do not fit.
    pub fn answered(self, reply: Reply) -> Outcome {
        let user = &self.identity.user;
        let keys = match reply {
            Reply::Password(password) => {
                self.strangers.saw(Kind::Password);
                let salt = self.strangers.salt(user, SALT);
                // Clients differ in what they do with a password that cannot be prepared; most take it as it is.
                let raw = password.reveal();
                let prepared = prep::prepare(raw);
                let password = prepared.as_deref().unwrap_or(raw);
                derive(password.as_bytes(), salt)
            }
            Reply::ScramKeys(keys) => {
                check(&keys)?;
                self.strangers.saw(Kind::of(&keys));
                keys
            }
            Reply::Refused => self.strangers.keys(user),
            _ => return misfit(),
        };
        let (nonce, salt) = (&self.nonce, BASE64.encode(&keys.salt));
        let message = format!("r={nonce},s={salt},i={}", keys.iterations);
        let salted = Salted {
            identity: self.identity,
            messages: format!("{},{message}", self.message),
            nonce: self.nonce,
            binding: self.binding,
            keys,
        };
        challenge(message, State::ScramLast(Box::new(salted)))
    }
}

/// What was said so far, and how to tell whether the client knows the password.
pub struct Salted {
    identity: Identity,
    /// The client's first message without its header, and ours.
    messages: String,
    nonce: String,
    binding: Vec<u8>,
    keys: ScramKeys,
}

impl Salted {
    /// Takes the client's last message: `c=binding,r=nonce`, extensions, `p=proof`. We show ourselves in a challenge of its own, since a
    /// reply of success has no room for it (RFC 4954 §4); the client answers with nothing.
    pub fn last(self, response: &[u8]) -> Outcome {
        let message = text(response)?;
        let malformed = Failure::Malformed("no `c=`, `r=` and `p=`, in this order");
        let (signed, proof) = message.rsplit_once(",p=").ok_or(malformed)?;
        let mut fields = signed.split(',');
        let mut field = |name| fields.next()?.strip_prefix(name);
        let (Some(binding), Some(nonce)) = (field("c="), field("r=")) else {
            return Err(malformed);
        };
        extensions(fields)?;
        if nonce != self.nonce {
            return Err(Failure::Malformed("a nonce from another exchange"));
        }
        if BASE64.decode(binding.as_bytes()) != Ok(self.binding) {
            return Err(Failure::ChannelBinding(
                "not what the client began with, or not this channel",
            ));
        }
        let proof: [u8; 32] = BASE64
            .decode(proof.as_bytes())
            .ok()
            .and_then(|proof| proof.try_into().ok())
            .ok_or(Failure::Malformed("a proof that is not 32 bytes in base64"))?;

        let said = format!("{},{signed}", self.messages);
        let mut client_key = sign(&self.keys.stored_key, said.as_bytes());
        for (key, proof) in client_key.iter_mut().zip(proof) {
            *key ^= proof;
        }
        verify_slices_are_equal(&hash(&client_key), &self.keys.stored_key)
            .map_err(|_| Failure::Credentials)?;
        let signature = BASE64.encode(&sign(&self.keys.server_key, said.as_bytes()));
        challenge(format!("v={signature}"), State::ScramOver(self.identity))
    }
}

/// What may follow, and may be ignored: `x=value` (RFC 5802 §5.1).
fn extensions<'a>(mut fields: impl Iterator<Item = &'a str>) -> Result<(), Failure> {
    let is_extension = |field: &str| {
        let (name, value) = field.split_once('=').unwrap_or_default();
        name.len() == 1 && name.as_bytes()[0].is_ascii_alphabetic() && !value.is_empty()
    };
    if fields.all(is_extension) {
        Ok(())
    } else {
        Err(Failure::Malformed("a field that is not `x=value`"))
    }
}

fn check(keys: &ScramKeys) -> Result<(), Failure> {
    if !(ITERATIONS.get()..=MAX_ITERATIONS).contains(&keys.iterations) {
        return Err(Failure::Unavailable(
            "SCRAM's stored keys must be made with 4096 to 1000000 iterations",
        ));
    }
    if !(1..=MAX_SALT).contains(&keys.salt.len()) {
        return Err(Failure::Unavailable(
            "SCRAM's stored keys must have a salt of 1 to 1024 bytes",
        ));
    }
    Ok(())
}

/// What a server keeps of a password (RFC 5802 §3). Slow by design.
pub fn derive(password: &[u8], salt: Vec<u8>) -> ScramKeys {
    let mut salted = [0; 32];
    pbkdf2::derive(
        pbkdf2::PBKDF2_HMAC_SHA256,
        ITERATIONS,
        &salt,
        password,
        &mut salted,
    );
    ScramKeys {
        salt,
        iterations: ITERATIONS.get(),
        stored_key: hash(&sign(&salted, b"Client Key")),
        server_key: sign(&salted, b"Server Key"),
    }
}

pub fn sign(key: &[u8; 32], message: &[u8]) -> [u8; 32] {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), message);
    tag.as_ref()
        .try_into()
        .expect("HMAC-SHA-256 makes 32 bytes")
}

fn hash(bytes: &[u8]) -> [u8; 32] {
    let hash = digest::digest(&digest::SHA256, bytes);
    hash.as_ref().try_into().expect("SHA-256 makes 32 bytes")
}
