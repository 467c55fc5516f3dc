//! AUTH's mechanisms, the server's side (SASL, RFC 4422), as state machines: messages in, messages and questions out. No I/O, no base64 of
//! the protocol around it, and no knowledge who answers a question.
//!
//! A state is used up by its step, so that nothing can be asked twice or answered late; whoever drops one has cancelled the exchange.

mod cram;
mod gs2;
mod oauth;
mod plain;
mod prep;
mod question;
mod scram;
mod strangers;
#[cfg(test)]
mod tests;

use thiserror::Error;

pub use question::{Identity, Question, Reply, ScramKeys, Secret};
use strangers::Strangers;

/// The longest response, in bytes without their base64. With it that is a line of 12288 bytes, which RFC 4954 §4 finds long enough for
/// every mechanism in use.
pub const MAX_RESPONSE: usize = 12288 / 4 * 3;

/// The longest name of a user, in bytes of UTF-8.
pub const MAX_NAME: usize = 255;

/// A way to authenticate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mechanism {
    /// SCRAM-SHA-256 bound to the TLS channel (RFC 7677, RFC 9266).
    ScramSha256Plus,
    /// RFC 5802 with the hash of RFC 7677.
    ScramSha256,
    /// RFC 7628.
    Oauthbearer,
    /// What Google had before RFC 7628, and Microsoft has still.
    Xoauth2,
    /// RFC 2195.
    CramMd5,
    /// RFC 4616.
    Plain,
    /// draft-murchison-sasl-login.
    Login,
}

impl Mechanism {
    /// Every mechanism, the strongest first.
    pub const ALL: [Mechanism; 7] = [
        Mechanism::ScramSha256Plus,
        Mechanism::ScramSha256,
        Mechanism::Oauthbearer,
        Mechanism::Xoauth2,
        Mechanism::CramMd5,
        Mechanism::Plain,
        Mechanism::Login,
    ];

    /// Its registered name.
    pub fn name(self) -> &'static str {
        match self {
            Mechanism::ScramSha256Plus => "SCRAM-SHA-256-PLUS",
            Mechanism::ScramSha256 => "SCRAM-SHA-256",
            Mechanism::Oauthbearer => "OAUTHBEARER",
            Mechanism::Xoauth2 => "XOAUTH2",
            Mechanism::CramMd5 => "CRAM-MD5",
            Mechanism::Plain => "PLAIN",
            Mechanism::Login => "LOGIN",
        }
    }

    /// The mechanism of a name, in any case (RFC 4954 §8).
    pub fn from_name(name: &str) -> Option<Mechanism> {
        Mechanism::ALL
            .into_iter()
            .find(|mechanism| mechanism.name().eq_ignore_ascii_case(name))
    }
}

/// What an exchange must know of the session.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// Our own name, for CRAM-MD5's challenge.
    pub hostname: &'a str,
    /// The TLS connection's `tls-exporter` (RFC 9266 §2): 32 bytes that no other connection has. Under TLS 1.2 only with an extended master
    /// secret (§4.2).
    pub channel_binding: Option<&'a [u8]>,
    /// SCRAM-SHA-256-PLUS was offered in this session. A client that could have used it and did not see it is under attack.
    pub plus_offered: bool,
}

/// What comes next.
#[derive(Debug)]
#[must_use]
pub enum Step {
    /// This is to be sent, even when it is empty; the client's response goes to the exchange.
    Challenge(Vec<u8>, Exchange),
    /// Somebody is to be asked; the answer goes to what waits for it.
    Ask(Question, Pending),
    /// The client is who it says, and has seen that we are too, where the mechanism can show it.
    Done(Identity),
    /// It is not.
    Failed(Failure),
}

/// Why an exchange failed. The text is for the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Failure {
    /// An initial response for a mechanism in which the server begins (RFC 4954 §4: 501, 5.7.0).
    #[error("an initial response, where the server begins")]
    InitialResponse,
    /// A response above [`MAX_RESPONSE`] (RFC 4954 §4: 500, 5.5.6).
    #[error("a response longer than {MAX_RESPONSE} bytes")]
    TooLong,
    /// A response against the mechanism's grammar (501, 5.5.2).
    #[error("malformed response: {0}")]
    Malformed(&'static str),
    /// The client talks over another TLS connection than we do, or was made to believe that we offer less than we do (535, 5.7.8).
    #[error("channel binding: {0}")]
    ChannelBinding(&'static str),
    /// No such user, or not its password or token (535, 5.7.8).
    #[error("wrong user, password or token")]
    Credentials,
    /// Whoever was asked could not tell, or told something of no use (454, 4.7.0).
    #[error("cannot tell: {0}")]
    Unavailable(&'static str),
}

/// An exchange that waits for the client.
pub struct Exchange(State);

enum State {
    Plain,
    LoginName,
    LoginPassword(String),
    Cram(cram::Challenge),
    ScramFirst(scram::Opening),
    ScramLast(Box<scram::Salted>),
    ScramOver(Identity),
    Bearer(oauth::Dialect),
    BearerRefused,
}

/// An exchange that waits for the answer to a question.
pub struct Pending(Awaited);

enum Awaited {
    Verdict(Identity),
    Cram(cram::Digest),
    Scram(Box<scram::First>),
    Token(oauth::Claim),
}

type Outcome = Result<Step, Failure>;

/// Begins an exchange. `initial` is the response that came along with the command, decoded, if one did.
pub fn start(mechanism: Mechanism, context: &Context<'_>, initial: Option<&[u8]>) -> Step {
    let opening = |plus| scram::Opening::new(plus, context, Strangers::of_process());
    let state = match mechanism {
        Mechanism::Plain => State::Plain,
        Mechanism::Login => State::LoginName,
        Mechanism::CramMd5 => State::Cram(cram::Challenge::new(context.hostname)),
        Mechanism::ScramSha256 => State::ScramFirst(opening(false)),
        Mechanism::ScramSha256Plus => State::ScramFirst(opening(true)),
        Mechanism::Xoauth2 => State::Bearer(oauth::Dialect::Xoauth2),
        Mechanism::Oauthbearer => State::Bearer(oauth::Dialect::Oauthbearer),
    };
    let greeting = match &state {
        State::Cram(_) if initial.is_some() => return Step::Failed(Failure::InitialResponse),
        State::Cram(challenge) => challenge.text().into(),
        State::LoginName => plain::NAME_PROMPT.into(),
        // Where the client begins, it is asked to (RFC 4422 §5.1).
        _ => Vec::new(),
    };
    match initial {
        // LOGIN's draft has no initial response, but clients send the name as one.
        Some(response) => Exchange(state).step(response),
        None => Step::Challenge(greeting, Exchange(state)),
    }
}

impl Exchange {
    /// The answer was no, and the client need only make room for it (RFC 7628 §3.2.3): whatever comes now, and if nothing does, it has tried.
    pub fn is_refused(&self) -> bool {
        matches!(self.0, State::BearerRefused)
    }

    /// Takes the client's response, decoded.
    pub fn step(self, response: &[u8]) -> Step {
        if response.len() > MAX_RESPONSE {
            return Step::Failed(Failure::TooLong);
        }
        match self.0 {
            State::Plain => plain::plain(response),
            State::LoginName => plain::login_name(response),
            State::LoginPassword(user) => plain::login_password(user, response),
            State::Cram(challenge) => challenge.answered(response),
            State::ScramFirst(opening) => opening.first(response),
            State::ScramLast(salted) => salted.last(response),
            State::ScramOver(identity) if response.is_empty() => Ok(Step::Done(identity)),
            State::ScramOver(_) => Err(Failure::Malformed("more, where all is said")),
            State::Bearer(dialect) => oauth::bearer(dialect, response),
            // Whatever it is: the client only made room for our last word (RFC 7628 §3.2.3).
            State::BearerRefused => Err(Failure::Credentials),
        }
        .unwrap_or_else(Step::Failed)
    }
}

impl Pending {
    /// Takes the answer.
    ///
    /// Works for milliseconds where SCRAM gets a password, or no such user, rather than keys: on a thread that may block, if others wait for
    /// this one (`tokio::task::spawn_blocking`).
    pub fn answered(self, reply: Reply) -> Step {
        if let Reply::Unavailable = reply {
            return Step::Failed(Failure::Unavailable("nobody could be asked"));
        }
        match self.0 {
            Awaited::Verdict(identity) => plain::answered(identity, reply),
            Awaited::Cram(digest) => digest.answered(reply),
            Awaited::Scram(first) => first.answered(reply),
            Awaited::Token(claim) => claim.answered(reply),
        }
        .unwrap_or_else(Step::Failed)
    }
}

// What they hold is nobody's business.
impl std::fmt::Debug for Exchange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Exchange").finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Pending {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pending").finish_non_exhaustive()
    }
}

fn challenge(text: impl Into<Vec<u8>>, next: State) -> Outcome {
    Ok(Step::Challenge(text.into(), Exchange(next)))
}

/// A reply to another question than was asked.
fn misfit() -> Outcome {
    Err(Failure::Unavailable(
        "the answer does not fit what this mechanism asked",
    ))
}

fn text(response: &[u8]) -> Result<&str, Failure> {
    std::str::from_utf8(response).map_err(|_| Failure::Malformed("not UTF-8"))
}

/// A user's name as it is compared.
fn name(raw: &str) -> Result<String, Failure> {
    let name = prep::prepare(raw).ok_or(Failure::Malformed("a name that SASLprep forbids"))?;
    if name.len() > MAX_NAME {
        return Err(Failure::Malformed("a name longer than 255 bytes"));
    }
    Ok(name)
}

/// Bytes that nobody can guess.
fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes)
        .expect("the library stops the process rather than run out of randomness");
    bytes
}
