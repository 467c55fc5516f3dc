//! The start of a session: connect, HELO, EHLO (RFC 5321 §3.1, §3.2).

use std::borrow::Cow;

use gatepost_protocol::{Args, EnhancedCode, Hook, Level};

use super::{Hello, Mail, parse};
use crate::dialog::{Next, reply};

impl Mail {
    pub(super) async fn connect(&mut self, output: &mut Vec<u8>) -> Next {
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
        if let Some(next) = self.settle(output, Hook::Connect, &decision) {
            return next;
        }
        let greeting = format!(
            "220 {} {} Gatepost",
            self.shared.config.hostname, self.dialect.name
        );
        self.say(output, &greeting)
    }

    pub(super) async fn hello(
        &mut self,
        output: &mut Vec<u8>,
        hello: Hello,
        argument: &[u8],
    ) -> Next {
        let (hook, name) = match hello {
            Hello::Helo => (Hook::Helo, "HELO"),
            Hello::Ehlo => (Hook::Ehlo, "EHLO"),
            Hello::Lhlo => (Hook::Ehlo, "LHLO"),
        };
        let Some(host) = parse::host(argument) else {
            let text = format!("501 5.5.4 Syntax: {name} your.host.name or {name} [your address]");
            return self.say(output, &text);
        };
        let args = Args::Host(Cow::Borrowed(host));
        let decision = self.ask(hook, &args, None).await;
        if let Some(next) = self.settle(output, hook, &decision) {
            return next;
        }
        // A second greeting is a RSET as well (RFC 5321 §4.1.4).
        self.reset().await;
        let connection = &mut self.visit.session.connection;
        connection.hello = Some(Cow::Borrowed(name));
        connection.hello_host = Some(host.to_owned());
        self.extensions = match hello {
            Hello::Helo => parse::Extensions::default(),
            Hello::Ehlo | Hello::Lhlo => self.extensions(),
        };
        let welcome = format!("{} greets {host}", self.shared.config.hostname);
        if hello == Hello::Helo {
            return self.say_decided(output, &format!("250 {welcome}"), &decision, false);
        }
        let mut lines = vec![Cow::Owned(welcome)];
        self.offer(&mut lines);
        reply::write_lines(output, 250, None::<EnhancedCode>, &lines);
        Next::Go
    }

    /// Which extensions with parameters this connection can have now.
    fn extensions(&self) -> parse::Extensions {
        parse::Extensions {
            smtputf8: true,
            dsn: true,
            // RFC 8689 §2: it is offered under TLS alone, which no listener has yet.
            requiretls: false,
            // RFC 3030: there is no BDAT yet.
            chunking: false,
        }
    }

    /// What this connection can have now.
    fn offer(&self, lines: &mut Vec<Cow<'static, str>>) {
        let limits = &self.shared.config.limits;
        lines.push("PIPELINING".into());
        lines.push(format!("SIZE {}", limits.max_size).into());
        lines.push("8BITMIME".into());
        lines.push("ENHANCEDSTATUSCODES".into());
        let extensions = self.extensions;
        for (keyword, offered) in [
            ("SMTPUTF8", extensions.smtputf8),
            ("DSN", extensions.dsn),
            ("REQUIRETLS", extensions.requiretls),
        ] {
            if offered {
                lines.push(keyword.into());
            }
        }
        lines.push("HELP".into());
    }
}
