//! A message is complete: the plugins judge it, and one of them takes it.

use std::pin::pin;
use std::sync::Arc;
use std::time::SystemTime;

use gatepost_protocol::{Address, Args, Field, Hook, Level, Message, Verdict};

use super::incoming::Incoming;
use super::{Mail, verdict};
use crate::chain::Decision;
use crate::dialog::{End, Next, Stream, Wire};
use crate::message::{Spooled, trace};
use crate::report::{self, Limit};

impl Mail {
    /// The last of a message came, or the client is sent away in the midst of it: what becomes of the message, and the replies to it.
    pub(super) async fn end_of_message<S: Stream>(
        &mut self,
        wire: &mut Wire<S>,
        incoming: Incoming,
    ) -> Result<Next, End> {
        let from = wire.output().len();
        if incoming.is_cut_off() {
            let mut incoming = incoming;
            let refusal = self.refusal(&mut incoming);
            return Ok(refusal.map_or(Next::Close, |refusal| {
                self.turn_down(wire.output(), &refusal)
            }));
        }
        let next = match self.keep(incoming).await {
            Ok(message) => self.deliver(wire, message).await?,
            Err(refusal) => self.turn_down(wire.output(), &refusal),
        };
        self.spread_reply(wire.output(), from, self.accepted);
        Ok(next)
    }

    /// Makes of the reply to a message, which begins at `from`, the replies to its recipients, in the order of the RCPT commands that were accepted:
    /// where the protocol has it so (RFC 2033 §4.2, §4.3), or the client asked for it (draft-hall-prdr-00 §4.5).
    pub(super) fn spread_reply(&self, output: &mut Vec<u8>, from: usize, recipients: usize) {
        let wants_prdr = || {
            let parameters = &self.visit.session.transaction.sender_parameters;
            parameters.contains_key("PRDR") && recipients > 1
        };
        let reply = output.split_off(from);
        let mut times = 1;
        if self.dialect.replies_per_recipient {
            times = recipients;
        } else if wants_prdr() {
            output.extend_from_slice(b"353 Content analysis has started; a reply for each recipient follows, then one for all\r\n");
            times = recipients + 1;
        }
        for _ in 0..times {
            output.extend_from_slice(&reply);
        }
    }

    /// From the end of data to its reply (RFC 5321 §6.1): 250 only when a queue plugin keeps the message.
    pub(super) async fn deliver<S: Stream>(
        &mut self,
        wire: &mut Wire<S>,
        mut message: Spooled,
    ) -> Result<Next, End> {
        if let Some(reply) = self.prepare(&mut message).await {
            self.log_refused(&reply);
            return Ok(self.say(wire.output(), &reply));
        }
        for hook in [Hook::DataPostHeaders, Hook::DataPost, Hook::QueuePre] {
            if hook == Hook::DataPost {
                self.add_trace(&message).await;
            }
            let decision = self.ask_while_there(wire, hook, &message).await;
            if decision.verdict.is_denial() || decision.verdict == Verdict::Done {
                return Ok(self.refuse(wire.output(), hook, &decision));
            }
            if self.visit.departure.has_happened() {
                return Err(self.drop_message());
            }
        }
        if wire.is_gone().await {
            return Err(self.drop_message());
        }
        let decision = self.ask_while_there(wire, Hook::Queue, &message).await;
        let departed = self.visit.departure.has_happened();
        if departed && !matches!(decision.verdict, Verdict::Ok | Verdict::Done) {
            return Err(self.drop_message());
        }
        if decision.verdict != Verdict::Ok {
            return Ok(self.refuse(wire.output(), Hook::Queue, &decision));
        }
        let (session, transaction) = (&self.visit.session, &self.visit.session.transaction);
        let usual = format!("250 2.0.0 Queued as {}.{}", session.id, transaction.number);
        let twice = departed.then_some("the client left before the reply, and will send it again");
        self.log_message(Some(Hook::Queue), "queued", twice);
        self.say_decided(wire.output(), &usual, &decision, false);
        self.ask(Hook::QueuePost, &Args::None, Some(&message)).await;
        Ok(Next::Go)
    }

    /// Puts a hook about the message to the plugins, and tells them when the client hangs up meanwhile. They are not stopped: how far the one at
    /// work has come, it alone knows.
    async fn ask_while_there<S: Stream>(
        &mut self,
        wire: &mut Wire<S>,
        hook: Hook,
        message: &Spooled,
    ) -> Decision {
        let departure = Arc::clone(&self.visit.departure);
        let mut asking = pin!(self.ask(hook, &Args::None, Some(message)));
        tokio::select! {
            // A plugin that answers at once costs no look at the client.
            biased;
            decision = &mut asking => return decision,
            () = wire.gone() => departure.announce(),
        }
        asking.await
    }

    /// Gives up a message whose client hung up: nobody would see our 250, and the client, which will send the message again, must not find it
    /// delivered twice (RFC 1047).
    fn drop_message(&self) -> End {
        self.log_refused("the client left before the reply");
        End::Gone(None)
    }

    /// Gives the reply to a verdict that ends a message's way.
    pub(super) fn refuse(&mut self, output: &mut Vec<u8>, hook: Hook, decision: &Decision) -> Next {
        let plugin = decision.plugin.as_deref().unwrap_or("nobody took it");
        match decision.verdict {
            Verdict::Done => self.log_refused(&format!("{plugin} dealt with it")),
            _ => self.log_refused(plugin),
        }
        match self.settle(output, hook, decision) {
            Some(next) => next,
            None => self.say(output, verdict::NOT_QUEUED),
        }
    }

    pub(super) fn log_refused(&self, why: &str) {
        self.log_message(None, "refused", Some(why));
    }

    /// The one line about what became of a message.
    fn log_message(&self, hook: Option<Hook>, what: &str, why: Option<&str>) {
        let transaction = &self.visit.session.transaction;
        let (recipients, size) = (transaction.recipients.len(), transaction.size);
        let sender = transaction.sender.as_ref().map_or("", Address::as_str);
        let (before, why) = why.map_or(("", ""), |why| (": ", why));
        self.log(
            Level::Info,
            hook,
            format_args!(
                "{what}, from <{sender}>, {recipients} recipients, {size} bytes{before}{why}"
            ),
        );
    }

    /// Makes the message ready for plugins. An error is the reply.
    async fn prepare(&mut self, message: &mut Spooled) -> Option<String> {
        if self
            .visit
            .session
            .transaction
            .header
            .as_ref()
            .is_some_and(trace::loops)
        {
            report::count(Limit::ReceivedFields);
            return Some("554 5.4.6 Too many hops: the message goes in circles".to_owned());
        }
        if self.shared.chain.wants(Field::Path) {
            match message.path().await {
                Ok(path) => self.visit.session.transaction.path = Some(path),
                Err(error) => return Some(self.no_storage(&error)),
            }
        }
        None
    }

    /// Puts our trace headers above the message.
    async fn add_trace(&mut self, message: &dyn Message) {
        let hostname = self.shared.config.hostname.clone();
        let default = trace::received(&self.visit.session, &hostname, SystemTime::now());
        let args = Args::Default(default.as_str().into());
        let decision = self.ask(Hook::ReceivedLine, &args, Some(message)).await;
        let instead = match decision.verdict {
            Verdict::Ok => &decision.values[..],
            _ => &[],
        };
        let session = &mut self.visit.session;
        if let Some(header) = &mut session.transaction.header {
            let results = &session.connection.auth_results;
            if let Err(error) = trace::add(header, &hostname, results, &default, instead) {
                let plugin = decision.plugin.as_deref().unwrap_or_default();
                self.log(
                    Level::Warn,
                    Some(Hook::ReceivedLine),
                    format_args!(
                        "the Received header of {plugin} is none, the usual one stands: {error}"
                    ),
                );
            }
        }
    }
}
