//! Commands beside the way of a message: NOOP, VRFY, HELP, QUIT, and those we do not know.

use std::borrow::Cow;

use gatepost_protocol::{Address, Args, Hook, Validity, Verdict};

use super::{Mail, Verb, parse};
use crate::dialog::{Next, Protocol};

/// Commands of RFCs that we do not implement: 502 and not 500 (RFC 5321 §4.2.4).
const NOT_IMPLEMENTED: [&str; 7] = ["ETRN", "EXPN", "SAML", "SEND", "SOML", "STARTTLS", "TURN"];

/// How HTTP begins: a browser that a page sends to our port, to have its lines taken for commands.
const HTTP: [&str; 8] = [
    "GET", "POST", "PUT", "HEAD", "DELETE", "CONNECT", "OPTIONS", "PATCH",
];

impl Mail {
    pub(super) async fn noop(&mut self, output: &mut Vec<u8>) -> Next {
        let decision = self.ask(Hook::Noop, &Args::None, None).await;
        if let Some(next) = self.settle(output, Hook::Noop, &decision) {
            return next;
        }
        self.say_decided(output, "250 2.0.0 OK", &decision, false)
    }

    pub(super) async fn vrfy(&mut self, output: &mut Vec<u8>, argument: &[u8]) -> Next {
        let (address, utf8) = match self.extensions.smtputf8 {
            true => parse::without_smtputf8(argument),
            false => (argument, false),
        };
        if address.trim_ascii().is_empty() {
            return self.say(output, "501 5.5.4 Syntax: VRFY address");
        }
        if !utf8 && !address.is_ascii() {
            return self.say(
                output,
                "553 5.6.7 Addresses outside ASCII need the parameter SMTPUTF8",
            );
        }
        let args = Args::Argument(Cow::Owned(parse::printable(address)));
        let before = std::mem::replace(&mut self.visit.utf8, utf8);
        let decision = self.ask(Hook::Vrfy, &args, None).await;
        self.visit.utf8 = before;
        if let Some(next) = self.settle(output, Hook::Vrfy, &decision) {
            if decision.verdict == Verdict::Deny {
                self.reset().await;
            }
            return next;
        }
        if decision.verdict == Verdict::Ok {
            return self.say_decided(output, "250 2.1.5 User OK", &decision, false);
        }
        // To strangers it would list our users (RFC 5321 §7.3); 252 is what they may be told (§3.5.3).
        if self.visit.session.connection.relay_client
            && let Some(reply) = self.verified(address, utf8).await
        {
            return self.say(output, &reply);
        }
        self.say(output, "252 2.1.5 Cannot say; send a message and see")
    }

    /// What is known of an address, with or without angle brackets; `None` where that is nothing.
    async fn verified(&self, address: &[u8], utf8: bool) -> Option<String> {
        let text = std::str::from_utf8(address).ok()?.trim();
        let bare = text
            .strip_prefix('<')
            .and_then(|text| text.strip_suffix('>'));
        let text = bare.unwrap_or(text);
        let address = match utf8 {
            true => Address::parse_utf8(text),
            false => Address::parse(text),
        };
        let address = address.ok().filter(|address| !address.is_null())?;
        match self.shared.services.recipient_valid(&address).await {
            // RFC 5321 §3.5.1: with the mailbox.
            Ok(Validity::Valid) => Some(format!("250 2.1.5 <{}>", address.as_str())),
            Ok(Validity::Invalid) => Some("550 5.1.1 No such user here".to_owned()),
            Ok(Validity::Unknown) | Err(_) => None,
        }
    }

    pub(super) async fn help(&mut self, output: &mut Vec<u8>, argument: &[u8]) -> Next {
        let args = Args::Argument(Cow::Owned(parse::printable(argument)));
        let decision = self.ask(Hook::Help, &args, None).await;
        if let Some(next) = self.settle(output, Hook::Help, &decision) {
            return next;
        }
        let commands: Vec<&str> = self
            .verbs()
            .filter(|(_, verb)| match verb {
                Verb::StartTls => self.may_start_tls(),
                Verb::Auth => self.mechanisms().next().is_some(),
                Verb::Xclient => self.may_xclient,
                Verb::Xforward => self.may_xforward,
                _ => true,
            })
            .map(|(name, _)| *name)
            .collect();
        let usual = format!("214 2.0.0 Commands: {}", commands.join(" "));
        self.say_decided(output, &usual, &decision, false)
    }

    pub(super) async fn quit(&mut self, output: &mut Vec<u8>) -> Next {
        let decision = self.ask(Hook::Quit, &Args::None, None).await;
        let is_done = decision.verdict == Verdict::Done;
        if !is_done || !decision.lines.is_empty() {
            let usual = format!(
                "221 2.0.0 {} closes the connection",
                self.shared.config.hostname
            );
            self.say_decided(output, &usual, &decision, is_done);
        }
        Next::Quit
    }

    pub(super) async fn unrecognized(
        &mut self,
        output: &mut Vec<u8>,
        is_first: bool,
        name: &[u8],
        argument: &[u8],
    ) -> Next {
        let command = parse::printable(name).to_uppercase();
        if is_first && HTTP.contains(&command.as_str()) {
            self.say(output, "502 5.5.1 This is SMTP, not HTTP");
            return Next::Close;
        }
        let args = Args::Command {
            command: Cow::Borrowed(&command),
            argument: Cow::Owned(parse::printable(argument)),
        };
        let hook = Hook::UnrecognizedCommand;
        let decision = self.ask(hook, &args, None).await;
        if let Some(next) = self.settle(output, hook, &decision) {
            return next;
        }
        if NOT_IMPLEMENTED.contains(&command.as_str()) {
            return self.say(output, "502 5.5.1 Command not implemented");
        }
        self.unknown += 1;
        self.say(output, "500 5.5.1 Unrecognized command")
    }
}
