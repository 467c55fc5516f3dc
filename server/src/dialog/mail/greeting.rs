//! The start of a session: connect, HELO, EHLO (RFC 5321 §3.1, §3.2).

use std::borrow::Cow;

use gatepost_protocol::{Args, EnhancedCode, Hook, Level, Value, Verdict};

use super::{Hello, Mail, parse, xclient};
use crate::chain::{Decision, Upcoming};
use crate::dialog::reply::Usual;
use crate::dialog::sasl::Mechanism;
use crate::dialog::{End, Next, Stream, Wire, reply};

/// The note with lines for the reply to EHLO.
const CAPABILITIES: &str = "capabilities";

/// What is the core's to offer or not: it needs the connection, or the grammar of commands, which no plugin has.
const OURS: [&str; 10] = [
    "8BITMIME",
    "AUTH",
    "BINARYMIME",
    "CHUNKING",
    "DSN",
    "PIPELINING",
    "PRDR",
    "REQUIRETLS",
    "SMTPUTF8",
    "STARTTLS",
];

impl Mail {
    /// Asks plugins about the client and greets it; `looks` whether it speaks before that.
    pub(super) async fn connect<S: Stream>(
        &mut self,
        wire: &mut Wire<S>,
        looks: bool,
    ) -> Result<Next, End> {
        let remote = self.visit.session.connection.remote;
        match remote {
            Some(remote) => self.log(
                Level::Debug,
                Some(Hook::Connect),
                format_args!("connection from {remote}"),
            ),
            None => self.log(
                Level::Debug,
                Some(Hook::Connect),
                format_args!("connection"),
            ),
        }
        self.log_tls(Some(Hook::Connect));
        if let Some(next) = self.let_in(wire, looks).await {
            return Ok(next);
        }
        let decision = match looks {
            true => {
                self.ask_and_listen(wire, Hook::Connect, &Args::None, None)
                    .await
            }
            false => self.ask(Hook::Connect, &Args::None, None).await,
        };
        if let Some(next) = self.settle(wire.output(), Hook::Connect, &decision) {
            return Ok(next);
        }
        let from = wire.written();
        self.let_wait(wire, from).await?;
        if looks {
            self.look_before_greeting(wire).await?;
        }
        let greeting = format!(
            "220 {} {} Gatepost",
            self.shared.config.hostname, self.dialect.name
        );
        if decision.lines.is_empty() {
            return Ok(self.say(wire.output(), &greeting));
        }
        // Our name comes first, whatever a plugin adds (RFC 5321 §4.2 `Greeting`).
        let lines = std::iter::once(Usual::of(&greeting).text)
            .chain(decision.lines.iter().map(String::as_str))
            .collect::<Vec<_>>();
        reply::write_lines(wire.output(), 220, None, &lines);
        Ok(Next::Go)
    }

    /// Asks whether the client may connect at all. `Some`: it may not, for now; that is all that plugins can say here, as in qpsmtpd.
    async fn let_in<S: Stream>(&mut self, wire: &mut Wire<S>, looks: bool) -> Option<Next> {
        let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
        let args = Args::Arrival {
            connections: count(self.connections),
            max_connections: count(self.shared.config.limits.max_connections_per_ip),
        };
        let hook = Hook::PreConnection;
        let next = Some(Upcoming {
            hook: Hook::Connect,
            args: &Args::None,
            transaction: 0,
        });
        let mut decision = match looks {
            true => self.ask_and_listen(wire, hook, &args, next).await,
            false => self.ask_then(hook, &args, None, next).await,
        };
        if decision.verdict == Verdict::Done {
            decision.verdict = Verdict::Ok;
        }
        self.settle(wire.output(), hook, &decision)
    }

    async fn look_before_greeting<S: Stream>(&mut self, wire: &mut Wire<S>) -> Result<(), End> {
        let session = &mut self.visit.session;
        if !self.listen.greet_delay.is_zero() && !session.is_privileged() {
            session.connection.early_talker =
                wire.has_input_within(self.listen.greet_delay).await?;
        }
        self.look_for_early_input(wire).await
    }

    pub(super) async fn hello<S: Stream>(
        &mut self,
        wire: &mut Wire<S>,
        hello: Hello,
        argument: &[u8],
    ) -> Result<Next, End> {
        let (hook, name) = match hello {
            Hello::Helo => (Hook::Helo, "HELO"),
            Hello::Ehlo => (Hook::Ehlo, "EHLO"),
            Hello::Lhlo => (Hook::Ehlo, "LHLO"),
        };
        let parse = match hello {
            Hello::Helo => Hook::HeloParse,
            Hello::Ehlo | Hello::Lhlo => Hook::EhloParse,
        };
        let argument = match self
            .repair(wire.output(), parse, hook, argument, None)
            .await
        {
            Ok(argument) => argument,
            Err(next) => return Ok(next),
        };
        let Some(host) = parse::host(&argument) else {
            let text = format!("501 5.5.4 Syntax: {name} your.host.name or {name} [your address]");
            return Ok(self.say(wire.output(), &text));
        };
        // Before the reply a client does not know whether it may pipeline (RFC 2920 §3.1).
        self.look_for_early_input(wire).await?;
        let args = Args::Host(Cow::Borrowed(host));
        let decision = self.ask_and_listen(wire, hook, &args, None).await;
        if let Some(next) = self.settle(wire.output(), hook, &decision) {
            return Ok(next);
        }
        let mut extensions = parse::Extensions::default();
        let mut lines = Vec::new();
        if hello != Hello::Helo {
            extensions = self.extensions();
            self.offer(extensions, &mut lines);
            self.add_noted(&mut lines);
            if self.shared.chain.asks(Hook::Capabilities) {
                let args = Args::Capabilities(lines.clone());
                let decision = self.ask(Hook::Capabilities, &args, None).await;
                if let Some(next) = self.settle(wire.output(), hook, &decision) {
                    return Ok(next);
                }
                if decision.verdict == Verdict::Ok {
                    self.replace_offer(decision, &mut lines);
                }
                extensions.keep(&lines);
            }
        }
        // A second greeting is a RSET as well (RFC 5321 §4.1.4).
        self.reset().await;
        let connection = &mut self.visit.session.connection;
        connection.hello = Some(Cow::Borrowed(name));
        connection.hello_host = Some(host.to_owned());
        self.extensions = extensions;
        let welcome = format!("{} greets {host}", self.shared.config.hostname);
        if hello == Hello::Helo {
            let usual = format!("250 {welcome}");
            return Ok(self.say_decided(wire.output(), &usual, &decision, false));
        }
        lines.insert(0, Cow::Owned(welcome));
        reply::write_lines(wire.output(), 250, None::<EnhancedCode>, &lines);
        Ok(Next::Go)
    }

    /// Which extensions with parameters this connection can have now.
    fn extensions(&self) -> parse::Extensions {
        parse::Extensions {
            smtputf8: true,
            dsn: true,
            // RFC 8689 §2: it is offered under TLS alone.
            requiretls: self.is_secure(),
            chunking: true,
            // LMTP's replies are each recipient's as they are.
            prdr: !self.dialect.replies_per_recipient,
        }
    }

    /// Adds what plugins at `ehlo` left in the transaction's note `capabilities`, as those of qpsmtpd do.
    fn add_noted(&self, lines: &mut Vec<Cow<'static, str>>) {
        let notes = &self.visit.session.transaction.notes;
        let Some(Value::List(noted)) = notes.get(CAPABILITIES) else {
            return;
        };
        let keyword = |line: &str| line.split(' ').next().unwrap_or_default().to_uppercase();
        for line in noted {
            match line.as_text() {
                Some(line) if !parse::is_ehlo_line(line) => self.log(
                    Level::Warn,
                    Some(Hook::Ehlo),
                    format_args!(
                        "`{}`, in the note {CAPABILITIES}, is no line of a reply to EHLO",
                        line.escape_debug()
                    ),
                ),
                Some(line) => {
                    let new = keyword(line);
                    let is_there = lines.iter().any(|old| keyword(old) == new);
                    if !is_there && !OURS.contains(&&*new) {
                        lines.push(line.to_owned().into());
                    }
                }
                None => {}
            }
        }
    }

    /// Takes a plugin's list in place of ours, if every line of it is one (RFC 5321 §4.1.1.1 `ehlo-line`).
    fn replace_offer(&self, decision: Decision, lines: &mut Vec<Cow<'static, str>>) {
        match decision
            .values
            .iter()
            .find(|line| !parse::is_ehlo_line(line))
        {
            Some(wrong) => self.log(
                Level::Warn,
                Some(Hook::Capabilities),
                format_args!(
                    "the list of {} is not used: `{}` is no line of a reply to EHLO",
                    decision.plugin.as_deref().unwrap_or_default(),
                    wrong.escape_debug()
                ),
            ),
            None => *lines = decision.values.into_iter().map(Cow::Owned).collect(),
        }
    }

    /// What this connection can have now.
    fn offer(&self, extensions: parse::Extensions, lines: &mut Vec<Cow<'static, str>>) {
        let limits = &self.shared.config.limits;
        lines.push("PIPELINING".into());
        lines.push(match self.max_size() {
            // RFC 1870 §4: a message may be as big as its recipients have it, and they are not known yet.
            u64::MAX => "SIZE".into(),
            most => format!("SIZE {most}").into(),
        });
        lines.push("8BITMIME".into());
        lines.push("ENHANCEDSTATUSCODES".into());
        for (keyword, offered) in [
            ("SMTPUTF8", extensions.smtputf8),
            ("DSN", extensions.dsn),
            ("REQUIRETLS", extensions.requiretls),
            ("CHUNKING", extensions.chunking),
            ("BINARYMIME", extensions.chunking),
            ("PRDR", extensions.prdr),
            ("STARTTLS", self.may_start_tls()),
        ] {
            if offered {
                lines.push(keyword.into());
            }
        }
        let mechanisms: Vec<&str> = self.mechanisms().map(Mechanism::name).collect();
        if !mechanisms.is_empty() {
            lines.push(format!("AUTH {}", mechanisms.join(" ")).into());
        }
        let (mails, recipients) = (limits.max_transactions, limits.max_recipients);
        lines.push(format!("LIMITS MAILMAX={mails} RCPTMAX={recipients}").into());
        lines.push("HELP".into());
        if self.may_xclient {
            lines.push(xclient::OFFER.into());
        }
        if self.may_xforward {
            lines.push(xclient::OFFER_FORWARD.into());
        }
    }
}
