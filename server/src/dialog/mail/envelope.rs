//! The envelope: MAIL, RCPT, RSET (RFC 5321 §3.3, §4.1.4).

use std::borrow::Cow;
use std::fmt::Display;
use std::sync::Arc;

use gatepost_protocol::{Address, Args, Hook, Level, Parameters, Verdict, address};

use super::bdat::{self, Chunks};
use super::shares::Accepted;
use super::{Mail, parse, verdict};
use crate::chain::{Profile, Upcoming, agree};
use crate::dialog::Next;
use crate::report::Limit;

/// The arguments of `mail` and `rcpt`.
fn about_address<'a>(address: &'a Address, parameters: &'a Parameters) -> Args<'a> {
    Args::Address {
        address: Cow::Borrowed(address),
        parameters: Cow::Borrowed(parameters),
    }
}

impl Mail {
    pub(super) async fn mail(&mut self, output: &mut Vec<u8>, argument: &[u8]) -> Next {
        const PATH: parse::Path = parse::Path::Reverse;
        if self.visit.session.connection.hello.is_none() {
            let text = format!("503 5.5.1 Say {} first", self.dialect.hello);
            return self.say(output, &text);
        }
        let connection = &self.visit.session.connection;
        if self.listen.auth_required
            && connection.authenticated.is_none()
            && !connection.relay_client
        {
            // RFC 4954 §6, RFC 6409 §4.3.
            return self.say(output, "530 5.7.0 Authentication required");
        }
        if self.visit.session.transaction.number > 0 {
            return self.say(
                output,
                "503 5.5.1 A transaction is open; end it with DATA or RSET",
            );
        }
        let argument = match self
            .repair(output, Hook::MailParse, Hook::Mail, argument, None)
            .await
        {
            Ok(argument) => argument,
            Err(next) => return next,
        };
        let max_size = self.max_size();
        let parsed = parse::split(&argument, PATH).and_then(|(path, rest)| {
            let parameters = parse::parameters(rest)?;
            parse::mail(&parameters, self.extensions, max_size)?;
            Ok((path, parameters))
        });
        let (path, parameters) = match parsed {
            Ok(parsed) => parsed,
            Err(reply) => {
                if reply == parse::TOO_BIG {
                    self.exceeded_max_size();
                }
                return self.say(output, reply);
            }
        };
        let expected = self.expected_sender(path, &parameters);
        let args = expected
            .as_ref()
            .map(|sender| about_address(sender, &parameters));
        let next = args.as_ref().map(|args| Upcoming {
            hook: Hook::Mail,
            args,
            transaction: self.transactions + 1,
        });
        let path = match self
            .repair(output, Hook::MailPre, Hook::Mail, path, next)
            .await
        {
            Ok(path) => path,
            Err(next) => return next,
        };
        let sender = match parse::path(&path, PATH, parameters.contains_key("SMTPUTF8")) {
            Ok(sender) => sender,
            Err(reply) => return self.say(output, reply),
        };
        let limits = &self.shared.config.limits;
        if self.transactions >= limits.max_transactions {
            // 421 and not 452: a client that connects anew can go on at once (RFC 5321 §3.8).
            return self.cut_off(
                output,
                Limit::Transactions,
                "421 4.7.0 Too many transactions in a session; connect again",
            );
        }
        self.transactions += 1;
        self.chunks = Chunks::None;
        self.visit.session.transaction.number = self.transactions;
        self.results_of_client = self.visit.session.connection.auth_results.len();
        self.note_forwarded();
        self.visit.utf8 = parameters.contains_key("SMTPUTF8");
        let args = about_address(&sender, &parameters);
        let decision = self.ask(Hook::Mail, &args, None).await;
        if let Some(next) = self.settle(output, Hook::Mail, &decision) {
            self.reset().await;
            return next;
        }
        let transaction = &mut self.visit.session.transaction;
        transaction.sender = Some(sender);
        transaction.sender_parameters = parameters;
        self.say_decided(output, "250 2.1.0 Sender OK", &decision, false)
    }

    pub(super) async fn rcpt(&mut self, output: &mut Vec<u8>, argument: &[u8]) -> Next {
        const PATH: parse::Path = parse::Path::Forward;
        if self.visit.session.transaction.sender.is_none() {
            return self.say(output, "503 5.5.1 Say MAIL first");
        }
        if matches!(self.chunks, Chunks::Coming(_)) {
            return self.say(output, bdat::BEGUN);
        }
        let argument = match self
            .repair(output, Hook::RcptParse, Hook::Rcpt, argument, None)
            .await
        {
            Ok(argument) => argument,
            Err(next) => return next,
        };
        let utf8 = self.visit.session.transaction.is_smtputf8();
        let parsed = parse::split(&argument, PATH).and_then(|(path, rest)| {
            let parameters = parse::parameters(rest)?;
            parse::rcpt(&parameters, self.extensions, utf8)?;
            Ok((path, parameters))
        });
        let (path, parameters) = match parsed {
            Ok(parsed) => parsed,
            Err(reply) => return self.say(output, reply),
        };
        let expected = self.expected_recipient(path, utf8);
        let args = expected
            .as_ref()
            .map(|recipient| about_address(recipient, &parameters));
        let next = args.as_ref().map(|args| Upcoming {
            hook: Hook::Rcpt,
            args,
            transaction: self.transactions,
        });
        let path = match self
            .repair(output, Hook::RcptPre, Hook::Rcpt, path, next)
            .await
        {
            Ok(path) => path,
            Err(next) => return next,
        };
        let recipient = match parse::path(&path, PATH, utf8) {
            Ok(recipient) => self.at_home(recipient).await,
            Err(reply) => return self.say(output, reply),
        };
        if self.visit.session.transaction.recipients.len()
            >= self.shared.config.limits.max_recipients
        {
            // RFC 5321 §4.5.3.1.10.
            self.exceeded(Limit::Recipients);
            return self.say(
                output,
                "452 4.5.3 Too many recipients; send the others a message of their own",
            );
        }
        let profile = match self.shared.chain.profile(&recipient).await {
            Ok(profile) => profile,
            Err(decision) => {
                let next = self.settle(output, Hook::Rcpt, &decision);
                return next.unwrap_or_else(|| self.say(output, verdict::NOBODY_RELAYS));
            }
        };
        if let Some(reply) = self.must_wait(&recipient, profile.as_ref()) {
            return self.say(output, &reply);
        }
        let args = about_address(&recipient, &parameters);
        self.visit.profile.clone_from(&profile);
        let decision = self.ask(Hook::Rcpt, &args, None).await;
        self.visit.profile = None;
        let diverted = self.visit.diverted.take();
        if let Some(next) = self.settle(output, Hook::Rcpt, &decision) {
            return next;
        }
        if decision.verdict != Verdict::Ok {
            return self.say(output, verdict::NOBODY_RELAYS);
        }
        self.accepted.push(Accepted {
            address: recipient.clone(),
            parameters: parameters.clone(),
            profile,
            diverted,
        });
        self.visit
            .session
            .transaction
            .add_recipient(recipient, parameters);
        self.say_decided(output, "250 2.1.5 Recipient OK", &decision, false)
    }

    /// Whom `mail` is going to be about, where nothing but the plugins of `mail_pre` may come before it.
    fn expected_sender(&self, path: &[u8], parameters: &Parameters) -> Option<Address> {
        let is_certain = self.shared.chain.asks(Hook::MailPre)
            && self.transactions < self.shared.config.limits.max_transactions
            && self.forwarded.is_empty();
        let utf8 = parameters.contains_key("SMTPUTF8");
        is_certain
            .then(|| parse::path(path, parse::Path::Reverse, utf8).ok())
            .flatten()
    }

    /// Whom `rcpt` is going to be about, where nothing but the plugins of `rcpt_pre` may come before it, and everybody has the site's settings.
    fn expected_recipient(&self, path: &[u8], utf8: bool) -> Option<Address> {
        let transaction = &self.visit.session.transaction;
        let chain = &self.shared.chain;
        if !chain.asks(Hook::RcptPre)
            || !chain.has_one_profile()
            || transaction.recipients.len() >= self.shared.config.limits.max_recipients
        {
            return None;
        }
        let recipient = parse::path(path, parse::Path::Forward, utf8).ok()?;
        let is_literal = recipient.domain().and_then(parse::literal).is_some();
        let sender = transaction.sender.as_ref()?;
        let is_apart = self.shared.apart.knows(sender, &recipient);
        (!is_literal && !is_apart).then_some(recipient)
    }

    /// The reply to a recipient who cannot be of this transaction: the message is too big for it (RFC 1870 §6.2), or it does not go with the others.
    fn must_wait(&mut self, recipient: &Address, profile: Option<&Arc<Profile>>) -> Option<String> {
        let transaction = &self.visit.session.transaction;
        let declared = transaction.sender_parameters.get("SIZE");
        let declared = declared.and_then(|size| size.as_deref()?.parse::<u64>().ok());
        let most = self.max_size_of(profile);
        if declared.is_some_and(|size| size > most) {
            self.exceeded_size(profile);
            return Some(format!(
                "552 5.3.4 Message is bigger than {most} bytes, the most for this recipient"
            ));
        }
        let first = self.accepted.first()?.profile.as_ref();
        let is_apart = || {
            let sender = transaction.sender.as_ref();
            sender.is_some_and(|sender| self.shared.apart.knows(sender, recipient))
        };
        let differs = !agree(first, profile)
            || declared.is_none() && self.max_size_of(first) != most
            || is_apart();
        (self.splits() && differs).then(|| {
            self.because("mixed");
            // RFC 5321 §4.5.3.1.10: the client sends the message once more, to those who got 452.
            "452 4.5.3 This recipient has settings of its own; send it a message of its own"
                .to_owned()
        })
    }

    /// A recipient at our own address, `user@[192.0.2.1]`, under the domain that the operator names for it.
    async fn at_home(&self, recipient: Address) -> Address {
        let local = self.visit.session.connection.local;
        if let Some(local) = local
            && recipient.domain().and_then(parse::literal) == Some(local.ip().to_canonical())
            && let Some(domain) = self.localiphost().await
            && let Ok(mapped) = Address::parse_utf8(&format!("{}@{domain}", recipient.local()))
        {
            return mapped;
        }
        recipient
    }

    /// The domain of our addresses: the setting, else the first line of the flat file.
    async fn localiphost(&self) -> Option<String> {
        const FILE: &str = "localiphost";
        if let Some(domain) = &self.shared.config.localiphost {
            return Some(domain.clone());
        }
        let warn = |trouble: &dyn Display| {
            self.log(
                Level::Warn,
                Some(Hook::Rcpt),
                format_args!("{FILE}: {trouble}"),
            );
        };
        let lines = self.shared.services.config(FILE).await;
        let lines = lines.inspect_err(|error| warn(error)).ok()?;
        let line = lines.into_iter().next()?;
        if !address::is_domain_utf8(&line) {
            warn(&format_args!(
                "`{line}` is ignored: expected a domain, such as example.org"
            ));
            return None;
        }
        Some(line)
    }

    pub(super) async fn rset(&mut self, output: &mut Vec<u8>) -> Next {
        let decision = self.ask(Hook::Rset, &Args::None, None).await;
        self.reset().await;
        self.settle(output, Hook::Rset, &decision)
            .unwrap_or_else(|| self.say(output, "250 2.0.0 Reset"))
    }
}
