//! AUTH (RFC 4954): the exchange with the client, and the question to the plugins. The mechanisms themselves are in `dialog/sasl`.

use std::borrow::Cow;

use data_encoding::{BASE64, HEXLOWER};
use gatepost_protocol::{Args, Credentials, Hook, Level, Verdict};

use super::{Mail, parse};
use crate::chain::Decision;
use crate::config::AuthOffer;
use crate::dialog::reply::{self, Usual};
use crate::dialog::sasl::{
    self, Context, Failure, Identity, Mechanism, Question, Reply, ScramKeys, Secret, Step,
};
use crate::dialog::{End, LineFault, Next, Stream, Wire};
use crate::report::{self, Limit};

/// The longest line of an exchange, its CRLF included (RFC 4954 §4).
const MAX_LINE: usize = 12288 + 2;

const REFUSED: &str = "535 5.7.8 Authentication failed";
const UNAVAILABLE: &str = "454 4.7.0 Authentication cannot be decided now; try again later";

/// How an exchange ended without success.
struct Refusal {
    reply: String,
    /// For the log.
    reason: String,
    /// Whether it was an attempt to get in, which counts against the limit.
    attempt: bool,
    next: Next,
}

impl Refusal {
    fn of(reply: &str, reason: impl ToString) -> Refusal {
        Refusal {
            reply: reply.to_owned(),
            reason: reason.to_string(),
            attempt: true,
            next: Next::Go,
        }
    }
}

impl Mail {
    /// The mechanisms that this session can use now, in the order of the configuration.
    pub(super) fn mechanisms(&self) -> impl Iterator<Item = Mechanism> {
        let connection = &self.visit.session.connection;
        let offered = connection.authenticated.is_none()
            && self.asks_who_it_is()
            && match self.listen.auth {
                AuthOffer::Off => false,
                AuthOffer::Tls => self.is_secure(),
                AuthOffer::Always => true,
            };
        let names = self.shared.config.auth_mechanisms.iter();
        names
            .filter(move |_| offered)
            .filter_map(|name| Mechanism::from_name(name))
            .filter(|mechanism| {
                *mechanism != Mechanism::ScramSha256Plus || self.channel_binding.is_some()
            })
    }

    pub(super) async fn auth<S: Stream>(
        &mut self,
        wire: &mut Wire<S>,
        argument: &[u8],
    ) -> Result<Next, End> {
        let (name, initial) = match memchr::memchr(b' ', argument) {
            Some(space) => (&argument[..space], Some(argument[space + 1..].trim_ascii())),
            None => (argument, None),
        };
        let mechanism = match self.permitted(name) {
            Ok(mechanism) => mechanism,
            Err(reply) => return Ok(self.say(wire.output(), &reply)),
        };
        let mut user = String::new();
        let ended = match initial.map(decode).transpose() {
            Ok(initial) => self.exchange(wire, mechanism, initial, &mut user).await?,
            Err(refusal) => Err(refusal),
        };
        match ended {
            Ok((identity, decision)) => {
                Ok(self.admit(wire.output(), mechanism, identity, &decision))
            }
            Err(refusal) => Ok(self.turn_away(wire.output(), mechanism, &user, refusal)),
        }
    }

    /// Whether AUTH may come now, and by this mechanism. An error is the reply.
    fn permitted(&self, name: &[u8]) -> Result<Mechanism, String> {
        let session = &self.visit.session;
        let connection = &session.connection;
        let reply = if self.listen.auth == AuthOffer::Off || !self.asks_who_it_is() {
            "502 5.5.1 Command not implemented".to_owned()
        } else if connection
            .hello
            .as_deref()
            .is_none_or(|hello| hello == "HELO")
        {
            // RFC 4954 §3: what EHLO did not offer cannot be used.
            "503 5.5.1 Say EHLO first".to_owned()
        } else if connection.authenticated.is_some() {
            "503 5.5.1 You are authenticated already".to_owned()
        } else if session.transaction.number > 0 {
            "503 5.5.1 Not within a transaction".to_owned()
        } else if self.listen.auth == AuthOffer::Tls && !self.is_secure() {
            "538 5.7.11 Say STARTTLS first; a password is not for everybody on the way".to_owned()
        } else if name.is_empty() {
            "501 5.5.4 Syntax: AUTH mechanism".to_owned()
        } else {
            let named = std::str::from_utf8(name)
                .ok()
                .and_then(Mechanism::from_name);
            match self.mechanisms().find(|offered| Some(*offered) == named) {
                Some(mechanism) => return Ok(mechanism),
                None => "504 5.5.4 That mechanism is not offered".to_owned(),
            }
        };
        Err(reply)
    }

    /// Talks with the client until it is known who it is, or that it will not be. `user` is who it says it is, once it has said so.
    async fn exchange<S: Stream>(
        &mut self,
        wire: &mut Wire<S>,
        mechanism: Mechanism,
        initial: Option<Vec<u8>>,
        user: &mut String,
    ) -> Result<Result<(Identity, Decision), Refusal>, End> {
        let hostname = self.shared.config.hostname.clone();
        let plus_offered = self
            .mechanisms()
            .any(|offered| offered == Mechanism::ScramSha256Plus);
        let mut step = {
            let context = Context {
                hostname: &hostname,
                channel_binding: self.channel_binding.as_ref().map(<[u8; 32]>::as_slice),
                plus_offered,
            };
            sasl::start(mechanism, &context, initial.as_deref())
        };
        let mut line = Vec::new();
        let mut decided = Decision::declined();
        loop {
            step = match step {
                Step::Challenge(text, exchange) => {
                    reply::write(wire.output(), &format!("334 {}", BASE64.encode(&text)));
                    // Or tokens could be tried for nothing, by giving up each time before the 535.
                    let refused = exchange.is_refused().then(|| self.denied(&decided).reason);
                    let response = match (wire.long_line(&mut line, MAX_LINE).await, &refused) {
                        (Ok(Ok(())), _) => decode(&line),
                        (Ok(Err(fault)), _) => Err(broken(fault)),
                        (Err(end), None) => return Err(end),
                        (Err(end), Some(reason)) => {
                            self.log_failure(mechanism, user, reason);
                            return Err(end);
                        }
                    };
                    match (response, refused) {
                        (Ok(response), _) => exchange.step(&response),
                        (Err(refusal), None) => return Ok(Err(refusal)),
                        (Err(refusal), Some(reason)) => {
                            return Ok(Err(Refusal {
                                reason,
                                attempt: true,
                                ..refusal
                            }));
                        }
                    }
                }
                Step::Ask(question, pending) => {
                    *user = asker(&question);
                    decided = self.put(mechanism, &question).await;
                    if decided.verdict.disconnects() {
                        return Ok(Err(Refusal {
                            next: Next::Close,
                            ..self.denied(&decided)
                        }));
                    }
                    let reply = self.understood(&question, &decided);
                    // SCRAM computes for milliseconds, which other sessions of this thread should not wait for.
                    let answered = tokio::task::spawn_blocking(move || pending.answered(reply));
                    match answered.await {
                        Ok(step) => step,
                        Err(_) => {
                            return Ok(Err(Refusal::of(UNAVAILABLE, "its computation failed")));
                        }
                    }
                }
                Step::Done(identity) if identity.authzid.is_some() => {
                    // Nobody is asked whether one user may act for another; so nobody may.
                    let refusal = Refusal::of(REFUSED, "acting as somebody else is not allowed");
                    return Ok(Err(refusal));
                }
                Step::Done(identity) => return Ok(Ok((identity, decided))),
                Step::Failed(Failure::Credentials) => return Ok(Err(self.denied(&decided))),
                Step::Failed(Failure::Unavailable(_)) if is_put_off(&decided) => {
                    return Ok(Err(self.denied(&decided)));
                }
                Step::Failed(failure) => {
                    return Ok(Err(Refusal::of(usual(failure), failure)));
                }
            }
        }
    }

    /// Puts a mechanism's question to the plugins.
    async fn put(&mut self, mechanism: Mechanism, question: &Question) -> Decision {
        let mut credentials = Credentials {
            mechanism: mechanism.name().to_owned(),
            user: asker(question),
            ..Credentials::default()
        };
        match question {
            Question::Password { password, .. } => {
                credentials.password = Some(password.reveal().to_owned());
            }
            Question::Secret { .. } => {}
            Question::Digest {
                challenge, digest, ..
            } => {
                credentials.challenge = Some(challenge.clone());
                credentials.response = Some(HEXLOWER.encode(digest));
            }
            Question::Token { token, .. } => credentials.token = Some(token.reveal().to_owned()),
        }
        let args = Args::Auth(Cow::Owned(credentials));
        let decision = self.ask(Hook::AuthMechanism, &args, None).await;
        match decision.verdict {
            Verdict::Declined => self.ask(Hook::Auth, &args, None).await,
            _ => decision,
        }
    }

    /// Whether a plugin knows users.
    fn asks_who_it_is(&self) -> bool {
        let chain = &self.shared.chain;
        chain.asks(Hook::Auth) || chain.asks(Hook::AuthMechanism)
    }

    /// What a verdict says to a mechanism.
    fn understood(&self, question: &Question, decision: &Decision) -> Reply {
        if is_put_off(decision) {
            return Reply::Unavailable;
        }
        if decision.verdict != Verdict::Ok {
            return Reply::Refused;
        }
        let value = decision.values.first();
        let reply = match question {
            Question::Password { .. } => return Reply::Accepted(None),
            Question::Token { .. } => return Reply::Accepted(value.cloned()),
            Question::Digest { .. } if value.is_none() => return Reply::Accepted(None),
            Question::Secret { .. } | Question::Digest { .. } => {
                value.and_then(|value| secret(value))
            }
        };
        reply.unwrap_or_else(|| {
            let plugin = decision.plugin.as_deref().unwrap_or_default();
            self.log(
                Level::Error,
                Some(Hook::Auth),
                format_args!(
                    "{plugin} said ok without a secret that this mechanism can use; see `auth` in docs/protocol.md"
                ),
            );
            Reply::Unavailable
        })
    }

    fn denied(&self, decision: &Decision) -> Refusal {
        let soft = is_put_off(decision);
        let mut output = Vec::new();
        let usual = if soft { UNAVAILABLE } else { REFUSED };
        reply::write_decided(&mut output, Usual::of(usual), decision, false);
        let text = String::from_utf8_lossy(&output);
        Refusal::of(
            text.trim_end(),
            if soft {
                "a plugin could not tell"
            } else {
                "wrong user, password or token"
            },
        )
    }

    /// The client is who it says.
    fn admit(
        &mut self,
        output: &mut Vec<u8>,
        mechanism: Mechanism,
        identity: Identity,
        decision: &Decision,
    ) -> Next {
        let user = identity.user;
        self.log(
            Level::Info,
            Some(Hook::Auth),
            format_args!(
                "authenticated from {}: {}, user {:?}",
                self.remote(),
                mechanism.name(),
                parse::printable(user.as_bytes())
            ),
        );
        // As in qpsmtpd: who we know may relay, and what strangers are suspected of does not hold for them.
        self.visit.acquit();
        let connection = &mut self.visit.session.connection;
        connection.relay_client = true;
        // RFC 8601 §2.7.4; the name as a quoted string, since it may hold anything.
        connection.auth_results.push(format!(
            "auth=pass ({}) smtp.auth=\"{}\"",
            mechanism.name().to_ascii_lowercase(),
            parse::printable(user.as_bytes())
                .replace('\\', "\\\\")
                .replace('"', "\\\"")
        ));
        connection.authenticated = Some(user);
        self.say_decided(
            output,
            "235 2.7.0 Authentication succeeded",
            decision,
            false,
        )
    }

    /// One line, always of this form, for programs that shut addresses out.
    fn log_failure(&self, mechanism: Mechanism, user: &str, reason: &str) {
        self.log(
            Level::Notice,
            Some(Hook::Auth),
            format_args!(
                "authentication failed from {}: {}, user {:?}: {reason}",
                self.remote(),
                mechanism.name(),
                parse::printable(user.as_bytes()),
            ),
        );
    }

    /// The client is not.
    fn turn_away(
        &mut self,
        output: &mut Vec<u8>,
        mechanism: Mechanism,
        user: &str,
        refusal: Refusal,
    ) -> Next {
        self.log_failure(mechanism, user, &refusal.reason);
        for line in refusal.reply.split("\r\n") {
            reply::write(output, line);
        }
        let said = Usual::of(&refusal.reply);
        self.count(said.code, said.text);
        if refusal.attempt {
            self.auth_failures += 1;
        }
        if refusal.next == Next::Go
            && self.auth_failures >= self.shared.config.limits.max_auth_failures
        {
            return self.cut_off(
                output,
                Limit::AuthFailures,
                "421 4.7.0 Too many failed attempts",
            );
        }
        refusal.next
    }

    fn remote(&self) -> String {
        let remote = self.visit.session.connection.remote;
        remote.map_or_else(
            || "a local socket".to_owned(),
            |remote| remote.ip().to_string(),
        )
    }
}

/// A plugin says that it cannot tell for now.
fn is_put_off(decision: &Decision) -> bool {
    decision.verdict.is_denial() && decision.verdict.is_soft()
}

fn asker(question: &Question) -> String {
    match question {
        Question::Password { identity, .. }
        | Question::Secret { identity }
        | Question::Digest { identity, .. } => identity.user.clone(),
        Question::Token { user, .. } => user.clone().unwrap_or_default(),
    }
}

/// A response, without its base64 (RFC 4954 §4): `*` cancels, `=` stands for an empty initial one.
fn decode(response: &[u8]) -> Result<Vec<u8>, Refusal> {
    match response {
        b"*" => Err(Refusal {
            attempt: false,
            ..Refusal::of("501 5.7.0 Authentication cancelled", "the client gave up")
        }),
        b"=" => Ok(Vec::new()),
        _ => BASE64
            .decode(response)
            .map_err(|_| Refusal::of("501 5.5.2 That is no base64", "no base64")),
    }
}

fn broken(fault: LineFault) -> Refusal {
    if let LineFault::TooLong | LineFault::Endless = fault {
        report::count(Limit::AuthLine);
    }
    match fault {
        // RFC 4954 §4.
        LineFault::TooLong => Refusal::of("500 5.5.6 Line too long", "a line too long"),
        _ => Refusal {
            next: Next::Close,
            ..Refusal::of("500 5.5.2 That is no line", "a line that is none")
        },
    }
}

/// The reply to a failure that no plugin had a hand in (RFC 4954 §4, §6).
fn usual(failure: Failure) -> &'static str {
    match failure {
        Failure::InitialResponse => "501 5.7.0 This mechanism begins with the server",
        Failure::TooLong => "500 5.5.6 Response too long",
        Failure::Malformed(_) => "501 5.5.2 That is not how this mechanism goes",
        Failure::ChannelBinding(_) | Failure::Credentials => REFUSED,
        Failure::Unavailable(_) => UNAVAILABLE,
    }
}

/// A secret in the notation of Dovecot's password schemes: `{PLAIN}password` or `{SCRAM-SHA-256}iterations,salt,stored key,server key`, the
/// last three in base64.
fn secret(value: &str) -> Option<Reply> {
    if let Some(password) = value.strip_prefix("{PLAIN}") {
        return Some(Reply::Password(Secret::new(password)));
    }
    let keys = value.strip_prefix("{SCRAM-SHA-256}")?;
    let mut parts = keys.split(',');
    let iterations = parts.next()?.parse().ok()?;
    let mut key = || BASE64.decode(parts.next()?.as_bytes()).ok();
    let keys = ScramKeys {
        iterations,
        salt: key()?,
        stored_key: key()?.try_into().ok()?,
        server_key: key()?.try_into().ok()?,
    };
    parts.next().is_none().then_some(Reply::ScramKeys(keys))
}
