//! The start of a session: connect, HELO, EHLO (RFC 5321 §3.1, §3.2).

use std::borrow::Cow;

use gatepost_protocol::{Args, EnhancedCode, Hook, Level};

use super::{Hello, Mail, parse, xclient};
use crate::dialog::{End, Next, Stream, Wire, reply};

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
        let decision = self.ask(Hook::Connect, &Args::None, None).await;
        if let Some(next) = self.settle(wire.output(), Hook::Connect, &decision) {
            return Ok(next);
        }
        if looks {
            self.look_before_greeting(wire).await?;
        }
        let greeting = format!(
            "220 {} {} Gatepost",
            self.shared.config.hostname, self.dialect.name
        );
        Ok(self.say(wire.output(), &greeting))
    }

    async fn look_before_greeting<S: Stream>(&mut self, wire: &mut Wire<S>) -> Result<(), End> {
        let connection = &mut self.visit.session.connection;
        if !self.greet_delay.is_zero() && !connection.relay_client && connection.immune.is_none() {
            connection.early_talker = wire.has_input_within(self.greet_delay).await?;
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
        let Some(host) = parse::host(argument) else {
            let text = format!("501 5.5.4 Syntax: {name} your.host.name or {name} [your address]");
            return Ok(self.say(wire.output(), &text));
        };
        // Before the reply a client does not know whether it may pipeline (RFC 2920 §3.1).
        self.look_for_early_input(wire).await?;
        let args = Args::Host(Cow::Borrowed(host));
        let decision = self.ask(hook, &args, None).await;
        if let Some(next) = self.settle(wire.output(), hook, &decision) {
            return Ok(next);
        }
        // A second greeting is a RSET as well (RFC 5321 §4.1.4).
        self.reset().await;
        let connection = &mut self.visit.session.connection;
        connection.hello = Some(Cow::Borrowed(name));
        connection.hello_host = Some(host.to_owned());
        let welcome = format!("{} greets {host}", self.shared.config.hostname);
        if hello == Hello::Helo {
            let usual = format!("250 {welcome}");
            return Ok(self.say_decided(wire.output(), &usual, &decision, false));
        }
        let mut lines = vec![Cow::Owned(welcome)];
        self.offer(&mut lines);
        reply::write_lines(wire.output(), 250, None::<EnhancedCode>, &lines);
        Ok(Next::Go)
    }

    /// What this connection can have now.
    fn offer(&self, lines: &mut Vec<Cow<'static, str>>) {
        let limits = &self.shared.config.limits;
        lines.push("PIPELINING".into());
        lines.push(format!("SIZE {}", limits.max_size).into());
        lines.push("8BITMIME".into());
        lines.push("ENHANCEDSTATUSCODES".into());
        lines.push("HELP".into());
        if self.may_xclient {
            lines.push(xclient::OFFER.into());
        }
        if self.may_xforward {
            lines.push(xclient::OFFER_FORWARD.into());
        }
    }
}
