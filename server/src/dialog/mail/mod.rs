//! The conversation about mail that SMTP (RFC 5321) and its relatives share: the commands' handlers, and what these share. What tells one
//! protocol of the family from another is its [`Dialect`], a file of its own beside this folder.

mod auth;
mod bdat;
mod data;
mod deliver;
mod divert;
mod envelope;
mod greeting;
mod incoming;
mod lines;
mod listening;
mod other;
pub mod parse;
mod repair;
mod replies;
mod shares;
mod tls;
mod traced;
mod verdict;
mod xclient;

#[cfg(test)]
mod tests;

use std::fmt::Arguments;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use gatepost_protocol::{Args, Connection, Hook, Level, Message, Session, Transaction, Verdict};

use super::reply::{self, Usual};
use super::{Client, End, LineFault, Next, Pace, Protocol, Shared, Standing, Stop, Stream, Wire};
use crate::chain::{Decision, Upcoming, Visit};
use crate::config::Listen;
use crate::report::{self, Limit};
use bdat::Chunks;
use shares::Accepted;

/// Whose lines these are in the log.
const LOGGED_AS: &str = "smtp";

/// A protocol of the family: what it calls itself and its commands, and how it replies to a message.
#[derive(Debug)]
pub struct Dialect {
    /// In the greeting.
    pub name: &'static str,
    /// The commands that begin a session, in upper case. All others are the same in the whole family.
    pub hellos: &'static [(&'static str, Verb)],
    /// The same, for people.
    pub hello: &'static str,
    /// Whether a message gets a reply for each of its recipients rather than one for all.
    pub replies_per_recipient: bool,
}

/// What a command means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// RFC 5321 §4.1.1.1; `LHLO` in RFC 2033 §4.1.
    Hello(Hello),
    /// RFC 5321 §4.1.1.2.
    Mail,
    /// RFC 5321 §4.1.1.3.
    Rcpt,
    /// RFC 5321 §4.1.1.4.
    Data,
    /// RFC 4954.
    Auth,
    /// RFC 3030 §2.
    Bdat,
    /// RFC 5321 §4.1.1.5.
    Rset,
    /// RFC 5321 §4.1.1.6.
    Vrfy,
    /// RFC 5321 §4.1.1.8.
    Help,
    /// RFC 5321 §4.1.1.9.
    Noop,
    /// RFC 5321 §4.1.1.10.
    Quit,
    /// RFC 3207. Only where the connection can be encrypted, or is.
    StartTls,
    /// Of Postfix.
    Xclient,
    /// Of Postfix.
    Xforward,
}

/// The commands that all protocols of the family have, the most frequent first.
const VERBS: &[(&str, Verb)] = &[
    ("MAIL", Verb::Mail),
    ("RCPT", Verb::Rcpt),
    ("DATA", Verb::Data),
    ("BDAT", Verb::Bdat),
    ("QUIT", Verb::Quit),
    ("RSET", Verb::Rset),
    ("NOOP", Verb::Noop),
    ("VRFY", Verb::Vrfy),
    ("STARTTLS", Verb::StartTls),
    ("HELP", Verb::Help),
    ("AUTH", Verb::Auth),
    ("XCLIENT", Verb::Xclient),
    ("XFORWARD", Verb::Xforward),
];

/// How a client greets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hello {
    /// Without extensions.
    Helo,
    /// With extensions.
    Ehlo,
    /// The same in LMTP.
    Lhlo,
}

/// A session.
pub struct Mail {
    dialect: &'static Dialect,
    listen: Arc<Listen>,
    /// What tells this TLS connection from all others (RFC 9266).
    channel_binding: Option<[u8; 32]>,
    shared: Arc<Shared>,
    visit: Visit,
    /// What the client was offered when it greeted.
    extensions: parse::Extensions,
    /// RCPT commands of the transaction that were accepted.
    accepted: Vec<Accepted>,
    /// What BDAT brought of the transaction's message.
    chunks: Chunks,
    /// Transactions that were begun.
    transactions: u32,
    /// How many results for the Authentication-Results header there were before the transaction: those are about the client, later ones
    /// about this one message.
    results_of_client: usize,
    /// Commands that were refused for good.
    errors: u32,
    /// Attempts to authenticate that failed.
    auth_failures: u32,
    /// The client may still ask for TLS.
    can_secure: bool,
    /// Commands that do not exist.
    unknown: u32,
    /// Commands since a message last got on its way.
    idle: u32,
    /// No command came yet.
    is_first: bool,
    /// Who connected, before XCLIENT said otherwise.
    remote: Option<SocketAddr>,
    /// What it connected to.
    local: Option<SocketAddr>,
    /// How many connections of its address there were then, this one included.
    connections: usize,
    may_xclient: bool,
    may_xforward: bool,
    /// What XCLIENT said.
    claims: Box<xclient::Claims>,
    /// What XFORWARD said of the next message.
    forwarded: xclient::Forwarded,
}

/// Holds a session over a stream, to its end.
pub async fn serve<S: Stream>(
    dialect: &'static Dialect,
    stream: S,
    client: Client,
    shared: Arc<Shared>,
    stop: Stop,
) {
    let limits = &shared.config.limits;
    let pace = Pace {
        max_line: limits.max_command_line,
        command: limits.command_timeout,
        data: limits.data_timeout,
        session: limits.session_timeout,
    };
    let mut wire = Wire::new(stream, pace, stop);
    let mut mail = Mail::new(dialect, client, shared);
    super::converse(&mut wire, &mut mail).await;
}

impl Mail {
    fn new(dialect: &'static Dialect, client: Client, shared: Arc<Shared>) -> Mail {
        let (tls, channel_binding) = match client.secured {
            Some(secured) => (Some(secured.tls), secured.channel_binding),
            None => (None, None),
        };
        let connection = Connection {
            remote: client.remote,
            local: client.local,
            direction: client.listen.direction,
            // As after AUTH.
            relay_client: client.user.is_some(),
            authenticated: client.user,
            tls: tls.map(Box::new),
            ..Connection::default()
        };
        let mut visit = Visit::new(Session {
            id: client.session,
            connection,
            ..Session::default()
        });
        visit.rehearsal = shared.outbox.is_none();
        visit.trace = shared.journal.as_ref().map(|_| Box::default());
        Mail {
            dialect,
            listen: client.listen,
            channel_binding,
            shared,
            visit,
            extensions: parse::Extensions::default(),
            accepted: Vec::new(),
            chunks: Chunks::None,
            transactions: 0,
            results_of_client: 0,
            errors: 0,
            auth_failures: 0,
            can_secure: false,
            unknown: 0,
            idle: 0,
            is_first: true,
            remote: client.remote,
            local: client.local,
            connections: client.connections,
            may_xclient: client.may_xclient,
            may_xforward: client.may_xforward,
            claims: Box::default(),
            forwarded: xclient::Forwarded::new(),
        }
    }

    /// Puts a hook to the chain.
    async fn ask(
        &mut self,
        hook: Hook,
        args: &Args<'_>,
        message: Option<&dyn Message>,
    ) -> Decision {
        self.ask_then(hook, args, message, None).await
    }

    /// The same, where another hook may be put next (see [`Chain::run_then`](crate::chain::Chain::run_then)).
    async fn ask_then(
        &mut self,
        hook: Hook,
        args: &Args<'_>,
        message: Option<&dyn Message>,
        next: Option<Upcoming<'_>>,
    ) -> Decision {
        let Mail { shared, visit, .. } = self;
        shared
            .chain
            .run_then(visit, hook, args, message, next)
            .await
    }

    /// Lets the client wait for its replies from there on, where plugins asked for that.
    async fn let_wait<S: Stream>(&mut self, wire: &mut Wire<S>, from: u64) -> Result<(), End> {
        let delay = std::mem::take(&mut self.visit.delay);
        if delay.is_zero() || self.visit.rehearsal {
            return Ok(());
        }
        self.log(
            Level::Info,
            None,
            format_args!("the client waits {delay:?} for its reply, as plugins asked for"),
        );
        wire.pause(from, delay).await
    }

    /// Whether nobody on the way can read along.
    fn is_secure(&self) -> bool {
        self.visit.session.connection.tls.is_some()
    }

    /// Ends the transaction at hand, if there is one.
    async fn reset(&mut self) {
        self.chunks = Chunks::None;
        self.forwarded.clear();
        if self.visit.session.transaction.number > 0 {
            self.ask(Hook::ResetTransaction, &Args::None, None).await;
            self.close_record();
            self.visit.session.transaction = Transaction::default();
            let results = &mut self.visit.session.connection.auth_results;
            results.truncate(self.results_of_client);
            self.visit.utf8 = false;
            self.visit.profile = None;
            self.visit.divided = false;
            self.accepted.clear();
        }
    }

    /// Gives a reply of our own.
    fn say(&mut self, output: &mut Vec<u8>, text: &str) -> Next {
        reply::write(output, text);
        if reply::is_refusal(text) {
            let said = Usual::of(text);
            self.count(said.code, said.text);
        }
        Next::Go
    }

    /// Gives the reply to a verdict that decides a command: a denial, or `done`. `None`: the command goes on.
    fn settle(&mut self, output: &mut Vec<u8>, hook: Hook, decision: &Decision) -> Option<Next> {
        if decision.verdict == Verdict::Done {
            if !decision.lines.is_empty() {
                self.say_decided(output, verdict::done(hook), decision, true);
            }
            return Some(Next::Go);
        }
        let (usual, next) = verdict::denial(hook, decision.verdict)?;
        self.say_decided(output, usual, decision, false);
        Some(next)
    }

    /// Gives a reply in the plugin's words, or else the usual one.
    fn say_decided(
        &mut self,
        output: &mut Vec<u8>,
        usual: &str,
        decision: &Decision,
        any_class: bool,
    ) -> Next {
        if decision.is_wordless() {
            return self.say(output, usual);
        }
        let code = reply::write_decided(output, Usual::of(usual), decision, any_class);
        let text = decision
            .lines
            .first()
            .map_or(Usual::of(usual).text, String::as_str);
        self.count(code, text);
        Next::Go
    }

    fn count(&mut self, code: u16, text: &str) {
        if code >= 400 {
            self.log(
                Level::Debug,
                None,
                format_args!("refused with {code}: {text}"),
            );
        }
        // What is refused for now only is no mistake of the client's: a long list of recipients may get 452 a hundred times.
        if code >= 500 {
            self.errors += 1;
        }
    }

    fn log(&self, level: Level, hook: Option<Hook>, text: Arguments<'_>) {
        report::line(level, &self.visit.session.id, hook, LOGGED_AS, text);
    }
}

impl Protocol for Mail {
    type Verb = Verb;

    fn verbs(&self) -> impl Iterator<Item = &'static (&'static str, Verb)> {
        self.dialect.hellos.iter().chain(VERBS)
    }

    async fn start<S: Stream>(&mut self, wire: &mut Wire<S>) -> Result<Next, End> {
        self.can_secure = wire.can_secure();
        let next = self.connect(wire, true).await?;
        let said = wire.written_since(0);
        self.note_said("", said);
        self.let_wait(wire, 0).await?;
        wire.expect_within(Some(self.shared.config.limits.hello_timeout));
        Ok(next)
    }

    async fn command<S: Stream>(
        &mut self,
        wire: &mut Wire<S>,
        verb: Option<Verb>,
        name: &[u8],
        argument: &[u8],
    ) -> Result<Next, End> {
        let is_first = std::mem::take(&mut self.is_first);
        let errors = self.errors;
        let asked = self.note_command(wire, verb, name, argument);
        let from = wire.written();
        let output = wire.output();
        let next = match verb {
            Some(Verb::Mail) => self.mail(output, argument).await,
            Some(Verb::Rcpt) => self.rcpt(output, argument).await,
            // Boxed: its state is big, and most connections are not in it.
            Some(Verb::Data) => Box::pin(self.data(wire, argument)).await?,
            Some(Verb::Auth) => Box::pin(self.auth(wire, argument)).await?,
            Some(Verb::Bdat) => Box::pin(self.bdat(wire, argument)).await?,
            Some(Verb::Quit) => self.quit(output).await,
            Some(Verb::Hello(hello)) => self.hello(wire, hello, argument).await?,
            Some(Verb::Rset) => self.rset(output).await,
            Some(Verb::Noop) => self.noop(output).await,
            Some(Verb::Vrfy) => self.vrfy(output, argument).await,
            Some(Verb::Help) => self.help(output, argument).await,
            Some(Verb::Xclient) => self.xclient(wire, argument).await?,
            Some(Verb::Xforward) => self.xforward(output, argument),
            Some(Verb::StartTls) if self.knows_tls() => {
                // Boxed as well: the handshake needs more than all that comes after it.
                Box::pin(self.start_tls(wire, argument)).await?
            }
            Some(Verb::StartTls) | None => {
                self.unrecognized(output, is_first, name, argument).await
            }
        };
        if let Some(Verb::Hello(_) | Verb::Xclient) = verb {
            let is_greeted = self.visit.session.connection.hello.is_some();
            let limit = self.shared.config.limits.hello_timeout;
            wire.expect_within((!is_greeted).then_some(limit));
        }
        self.idle = match verb {
            Some(Verb::Rcpt | Verb::Data | Verb::Bdat) => 0,
            _ => self.idle + 1,
        };
        let next = self.limit(wire.output(), errors, next);
        self.note_reply(wire, verb, asked);
        self.let_wait(wire, from).await?;
        Ok(next)
    }

    fn fault(&mut self, output: &mut Vec<u8>, fault: LineFault) -> Next {
        self.is_first = false;
        let errors = self.errors;
        if let LineFault::TooLong | LineFault::Endless = fault {
            self.exceeded(Limit::CommandLine);
        }
        let from = output.len();
        let (text, next) = match fault {
            LineFault::TooLong => ("500 5.5.2 Line too long", Next::Go),
            LineFault::Endless => ("500 5.5.2 Line too long, and no end of it", Next::Close),
            LineFault::BareCr => ("500 5.5.2 A CR stands alone in the line", Next::Go),
            // To go on would mean to guess where the client's commands begin, and that is what smuggling lives on.
            LineFault::BareLf => (
                "500 5.5.2 Lines end in CRLF, not in LF alone (RFC 5321 section 2.3.8)",
                Next::Close,
            ),
            LineFault::Nul => ("501 5.5.2 A NUL stands in the line", Next::Go),
        };
        self.say(output, text);
        let next = self.limit(output, errors, next);
        self.note_said("(no line)", &output[from..]);
        next
    }

    fn standing(&self) -> Standing {
        let session = &self.visit.session;
        if session.transaction.number > 0 {
            Standing::Busy
        } else if self.transactions > 0 || session.connection.authenticated.is_some() {
            Standing::Served
        } else {
            Standing::New
        }
    }

    async fn finish(&mut self, output: &mut Vec<u8>, end: &End) {
        let (reply, why) = match end {
            End::Closed => (None, "closed"),
            End::Gone(None) => (None, "the client hung up"),
            End::Gone(Some(_)) => (None, "the connection broke"),
            End::Idle | End::Stalled => (
                Some("421 4.4.2 You were silent for too long"),
                "the client was silent for too long",
            ),
            End::TooLong => (
                Some("421 4.4.2 The session took too long"),
                "the session took too long",
            ),
            End::Late => (
                Some("421 4.4.2 You did not greet in time"),
                "the client did not greet in time",
            ),
            End::Slow => (
                Some("421 4.4.2 Your message comes too slowly; try again later"),
                "the message comes too slowly",
            ),
            End::Deaf => (None, "the client does not read our replies"),
            // What the client would read it as, nobody knows.
            End::Insecure(_) => (None, "TLS failed"),
            End::Stopped => (
                Some("421 4.3.2 The server is stopping; come again"),
                "the server is stopping",
            ),
            End::Crowded => (
                Some("421 4.3.2 Too many connections for one that is silent; try again later"),
                "silent while there were too many connections",
            ),
        };
        let exceeded = match end {
            End::Idle => Some(Limit::CommandTimeout),
            End::Stalled => Some(Limit::DataTimeout),
            End::TooLong => Some(Limit::SessionTimeout),
            End::Late => Some(Limit::HelloTimeout),
            End::Slow => Some(Limit::DataRate),
            End::Crowded => Some(Limit::StressTimeout),
            End::Deaf => Some(Limit::UnreadReplies),
            End::Insecure(error) if error.kind() == io::ErrorKind::TimedOut => {
                Some(Limit::TlsHandshake)
            }
            End::Closed | End::Gone(_) | End::Insecure(_) | End::Stopped => None,
        };
        if let Some(limit) = exceeded {
            self.exceeded(limit);
        }
        if let Some(reply) = reply {
            let from = output.len();
            super::reply::write(output, reply);
            self.note_said("(the end)", &output[from..]);
        }
        self.reset().await;
        self.ask(Hook::Disconnect, &Args::None, None).await;
        self.end_records();
        match end {
            End::Late | End::Slow | End::Crowded => self.log_cut_off(why),
            End::Gone(Some(error)) => self.log(
                Level::Debug,
                Some(Hook::Disconnect),
                format_args!("{why}: {error}"),
            ),
            End::Insecure(error) => self.log(
                Level::Info,
                Some(Hook::Disconnect),
                format_args!("{why}: {error}"),
            ),
            _ => self.log(Level::Debug, Some(Hook::Disconnect), format_args!("{why}")),
        }
    }
}

impl Mail {
    /// Ends the session of a client that only keeps us busy.
    fn limit(&mut self, output: &mut Vec<u8>, errors_before: u32, next: Next) -> Next {
        let limits = &self.shared.config.limits;
        let (limit, reply) = if next != Next::Go {
            return next;
        } else if self.unknown >= limits.max_unknown_commands {
            (
                Limit::UnknownCommands,
                "421 4.7.0 Too many unknown commands",
            )
        } else if self.errors > errors_before && self.errors >= limits.max_errors {
            (Limit::Errors, "421 4.7.0 Too many errors")
        } else if self.idle >= limits.max_idle_commands {
            (
                Limit::IdleCommands,
                "421 4.7.0 Too many commands without a message",
            )
        } else {
            return next;
        };
        self.cut_off(output, limit, reply)
    }

    /// Ends the session of a client that went beyond a limit, and says so in the log.
    fn cut_off(&mut self, output: &mut Vec<u8>, limit: Limit, reply: &str) -> Next {
        self.exceeded(limit);
        self.log_cut_off(Usual::of(reply).text);
        reply::write(output, reply);
        Next::Close
    }

    fn log_cut_off(&self, why: &str) {
        match self.visit.session.connection.remote {
            Some(remote) => self.log(Level::Info, None, format_args!("{remote} cut off: {why}")),
            None => self.log(Level::Info, None, format_args!("client cut off: {why}")),
        }
    }
}
