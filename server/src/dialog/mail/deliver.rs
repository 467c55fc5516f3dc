//! A message is complete: the plugins judge it, and one of them takes it.

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use gatepost_protocol::{
    Address, Args, EnhancedCode, Field, Hook, Level, Message, Parameters, Verdict,
};

use super::incoming::Incoming;
use super::replies::Each;
use super::shares::{Delivery, Fate, Share, by_route};
use super::{Mail, divert, verdict};
use crate::chain::{Decision, Upcoming};
use crate::config::Mixed;
use crate::dialog::{End, Next, Stream, Wire};
use crate::message::{Spooled, trace};
use crate::outbox::{Action, News};
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
        match self.keep(incoming).await {
            Ok(message) => self.deliver(wire, message).await,
            Err(refusal) => {
                let next = self.turn_down(wire.output(), &refusal);
                self.spread_reply(wire.output(), from, self.accepted.len());
                Ok(next)
            }
        }
    }

    /// From the end of data to its reply (RFC 5321 §6.1): 250 only when a queue plugin keeps the message.
    pub(super) async fn deliver<S: Stream>(
        &mut self,
        wire: &mut Wire<S>,
        mut message: Spooled,
    ) -> Result<Next, End> {
        let from = wire.output().len();
        if let Some(reply) = self.prepare(&mut message).await {
            self.log_refused(&reply);
            let next = self.say(wire.output(), &reply);
            self.spread_reply(wire.output(), from, self.accepted.len());
            return Ok(next);
        }
        let each = self.replies_to_each();
        let mut delivery = self.share_out().await;
        for hook in [Hook::DataPostHeaders, Hook::DataPost, Hook::QueuePre] {
            for at in 0..delivery.shares.len() {
                self.judge(wire, &mut delivery, at, hook, &message).await;
                if self.visit.departure.has_happened() {
                    return Err(self.drop_message(&mut delivery));
                }
            }
        }
        if delivery.is_mixed() && each == Each::No {
            self.refuse_unless_mixed(&mut delivery);
        }
        if delivery.is_open() || !delivery.diverted.is_empty() {
            // Not behind `queue`: a client that loses its patience before it has its 250 would send again what is kept already (RFC 1047).
            let from = wire.written();
            if self.let_wait(wire, from).await.is_err() || wire.is_gone().await {
                return Err(self.drop_message(&mut delivery));
            }
            self.keep_diverted(&mut delivery, each, &message).await;
            for at in 0..delivery.shares.len() {
                self.queue(wire, &mut delivery, at, &message).await;
            }
        }
        if delivery.is_taken() {
            self.visit.delay = Duration::ZERO;
        }
        let departed = self.visit.departure.has_happened();
        if departed && !delivery.is_taken() {
            return Err(self.drop_message(&mut delivery));
        }
        self.take_back(&mut delivery);
        // A client that left will bring the message again, for all of them.
        if !departed {
            self.tell_later(&mut delivery, each, &message).await;
        }
        self.note_fates(&delivery, each);
        Ok(self.reply_to_each(wire.output(), each, &delivery))
    }

    /// Gives up a message whose client hung up: nobody would see our 250, and the client, which will send the message again, must not find it
    /// delivered twice (RFC 1047).
    fn drop_message(&mut self, delivery: &mut Delivery) -> End {
        self.take_back(delivery);
        self.log_refused("the client left before the reply");
        End::Gone(None)
    }

    /// Puts a hook about the message to the plugins, for the recipients of one share.
    async fn judge<S: Stream>(
        &mut self,
        wire: &mut Wire<S>,
        delivery: &mut Delivery,
        at: usize,
        hook: Hook,
        message: &dyn Message,
    ) {
        if !delivery.is_share_open(at) {
            return;
        }
        let is_part = delivery.shares.len() > 1;
        self.enter(&mut delivery.shares[at]);
        self.note_share(is_part);
        if hook == Hook::DataPost {
            delivery.shares[at].has_trace = true;
            self.add_trace(message).await;
        }
        let before = match hook {
            Hook::DataPost => Some(self.visit.session.connection.auth_results.clone()),
            _ => None,
        };
        // Several shares are judged at one hook before any of them is at the next.
        let next = (hook == Hook::DataPost && !is_part).then_some(Upcoming {
            hook: Hook::QueuePre,
            args: &Args::None,
            transaction: self.transactions,
        });
        let decision = self.put_while_there(wire, hook, message, next).await;
        if let Some(before) = before {
            self.add_results(&before);
        }
        self.note_decided(delivery, at);
        if decision.ends_message() {
            let fate = Fate::new(hook, decision);
            if fate.is_diverted() {
                delivery.divert(at, &self.visit.session.transaction.recipients, &fate);
            }
            delivery.close_share(at, &fate);
        }
        self.leave(&mut delivery.shares[at]);
    }

    /// Puts a hook about the message to the plugins of the recipients at hand, and tells them when the client hangs up meanwhile. They are not
    /// stopped: how far the one at work has come, it alone knows.
    async fn put_while_there<S: Stream>(
        &mut self,
        wire: &mut Wire<S>,
        hook: Hook,
        message: &dyn Message,
        next: Option<Upcoming<'_>>,
    ) -> Decision {
        let departure = Arc::clone(&self.visit.departure);
        let mut asking = pin!(self.ask_then(hook, &Args::None, Some(message), next));
        tokio::select! {
            // A plugin that answers at once costs no look at the client.
            biased;
            decision = &mut asking => return decision,
            () = wire.gone() => departure.announce(),
        }
        asking.await
    }

    /// Has the message kept for the recipients of one share, by each route that they go.
    async fn queue<S: Stream>(
        &mut self,
        wire: &mut Wire<S>,
        delivery: &mut Delivery,
        at: usize,
        message: &dyn Message,
    ) {
        if !delivery.is_share_open(at) {
            return;
        }
        let share = &mut delivery.shares[at];
        let parts = by_route(std::mem::take(&mut share.transaction));
        let is_part = delivery.shares.len() > 1 || parts.len() > 1;
        let mut last = None;
        for part in parts {
            let share = &mut delivery.shares[at];
            share.transaction = part;
            self.enter(share);
            self.note_share(is_part);
            let decision = self.put_while_there(wire, Hook::Queue, message, None).await;
            if decision.verdict == Verdict::Ok {
                self.ask(Hook::QueuePost, &Args::None, Some(message)).await;
            }
            self.note_decided(delivery, at);
            let fate = Fate::new(Hook::Queue, decision);
            let recipients = &self.visit.session.transaction.recipients;
            if fate.is_diverted() {
                delivery.divert(at, recipients, &fate);
            }
            for recipient in recipients {
                self.note_fate(delivery, at, recipient, &fate);
            }
            let lost = self.keep_share(delivery, at, message).await;
            // Others may have it by now: for those whom no reply speaks of it is tried again.
            for recipient in &lost {
                self.note_fate(delivery, at, recipient, &divert::not_kept());
            }
            let fate = match fate.is_diverted() && !lost.is_empty() {
                true => divert::not_kept(),
                false => fate,
            };
            if last.as_ref().is_none_or(Fate::is_taken) {
                last = Some(fate);
            }
            self.leave(&mut delivery.shares[at]);
        }
        if let Some(fate) = last {
            // Whom a plugin replaced by others shares their fate, the worst of them.
            delivery.close_share(at, &fate);
        }
    }

    /// The recipients of a share are those at hand now.
    pub(super) fn enter(&mut self, share: &mut Share) {
        self.visit.profile.clone_from(&share.profile);
        self.visit.divided = false;
        std::mem::swap(&mut self.visit.session.transaction, &mut share.transaction);
    }

    pub(super) fn leave(&mut self, share: &mut Share) {
        std::mem::swap(&mut self.visit.session.transaction, &mut share.transaction);
    }

    /// Takes in for whom plugins decided by itself.
    fn note_decided(&mut self, delivery: &mut Delivery, at: usize) {
        let mut last = None;
        for (address, hook, decision) in std::mem::take(&mut self.visit.decided) {
            let fate = Fate::new(hook, decision);
            if fate.is_diverted() {
                delivery.divert(at, std::slice::from_ref(&address), &fate);
            }
            self.note_fate(delivery, at, &address, &fate);
            last = Some(fate);
        }
        // Whom a plugin replaced by others shares their fate.
        if self.visit.session.transaction.recipients.is_empty()
            && let Some(fate) = last
        {
            delivery.close_share(at, &fate);
        }
    }

    fn note_fate(&self, delivery: &mut Delivery, at: usize, address: &Address, fate: &Fate) {
        let Delivery {
            shares,
            fates,
            strays,
            ..
        } = delivery;
        let mut is_known = false;
        for member in &shares[at].members {
            if self.accepted[*member].address == *address {
                is_known = true;
                fates[*member].get_or_insert_with(|| fate.clone());
            }
        }
        if !is_known && !fate.is_taken() {
            strays.push((address.clone(), fate.clone()));
        }
    }

    /// Some recipients refuse a message that others may take, and the client cannot be told of each: decides whether it goes on.
    fn refuse_unless_mixed(&mut self, delivery: &mut Delivery) {
        let refusal = self.refusal_of(delivery);
        self.because("mixed");
        match self.shared.config.mixed {
            // Nobody has it yet, so that the client can as well come again for all.
            Mixed::Bounce | Mixed::Discard if !self.told(&refusal).is_soft() => {}
            Mixed::Bounce | Mixed::Discard | Mixed::Reject => delivery.close(&refusal),
            Mixed::Split => {
                if let Some(sender) = &delivery.sender {
                    let recipients = self.accepted.iter().map(|accepted| &accepted.address);
                    self.shared.apart.remember(sender, recipients);
                }
                let text =
                    "Some recipients do not take this message; send it to each of them by itself";
                delivery.close(&Fate::refusal(
                    Verdict::DenySoft,
                    451,
                    EnhancedCode(4, 5, 3),
                    text.to_owned(),
                ));
            }
        }
    }

    /// Where the message is safe for some, and refused by others of whom the client will not hear, sees to it that they are not forgotten.
    async fn tell_later(&mut self, delivery: &mut Delivery, each: Each, message: &dyn Message) {
        if !delivery.is_taken() {
            return;
        }
        let mut untold = delivery
            .strays
            .iter()
            .map(|(recipient, fate)| (recipient.clone(), Parameters::new(), fate.clone()))
            .collect::<Vec<_>>();
        if each == Each::No {
            let members = self.accepted.iter().zip(delivery.fates.iter().flatten());
            untold.extend(
                members
                    .filter(|(_, fate)| !fate.is_taken())
                    .map(|(accepted, fate)| {
                        (
                            accepted.address.clone(),
                            accepted.parameters.clone(),
                            fate.clone(),
                        )
                    }),
            );
        }
        if let Err(error) = self.see_to(untold, message).await {
            self.log(
                Level::Error,
                None,
                format_args!("cannot keep what some recipients are owed: {error}; the client is told to send the message again, and others may get it twice"),
            );
            let text = "The message could not be kept for all of its recipients; try again later";
            let fate = Fate::refusal(
                Verdict::DenySoft,
                451,
                EnhancedCode(4, 3, 0),
                text.to_owned(),
            );
            delivery.fates.fill(Some(fate));
            return;
        }
        self.tell_success(delivery, message).await;
    }

    /// Has the sender told of each recipient that has the message, where it asked for that (RFC 3461 §5.2.3). Where it cannot be told the message stays where it is: refused now, it
    /// would come again, and to all of them.
    async fn tell_success(&mut self, delivery: &Delivery, message: &dyn Message) {
        let Some(outbox) = &self.shared.outbox else {
            return;
        };
        let members = self.accepted.iter().zip(&delivery.fates);
        let news: Vec<News> = members
            .filter_map(|(accepted, fate)| {
                let fate = fate.as_ref().filter(|fate| fate.is_queued())?;
                let Decision {
                    enhanced, values, ..
                } = &fate.decision;
                News::of_success(&accepted.address, &accepted.parameters, *enhanced, values)
            })
            .collect();
        if news.is_empty() {
            return;
        }
        let session = &self.visit.session;
        if let Err(error) = outbox.notify(session, message, &news).await {
            self.log(
                Level::Error,
                Some(Hook::Queue),
                format_args!("the sender is not told of the delivery: {error}"),
            );
        }
    }

    /// Has senders told of recipients who refused a message for good, and the message tried again for those who did for now. Of those whom a plugin
    /// dealt with itself (`done`) there is nothing to tell.
    async fn see_to(
        &mut self,
        untold: Vec<(Address, Parameters, Fate)>,
        message: &dyn Message,
    ) -> std::io::Result<()> {
        let discards = self.shared.config.mixed == Mixed::Discard;
        let Some(outbox) = self.shared.outbox.clone() else {
            return Ok(());
        };
        let mut failures = Vec::new();
        let mut again = Vec::new();
        for (recipient, parameters, fate) in untold {
            let told = self.told(&fate);
            if fate.decision.verdict == Verdict::Done && told.code < 400 {
                self.log_untold("dealt with", &recipient, &told);
            } else if told.is_soft() {
                again.push((recipient, parameters));
            } else if discards {
                self.log_untold("discarded", &recipient, &told);
            } else {
                self.log_untold("refused, its sender will be told", &recipient, &told);
                failures.push(News {
                    recipient,
                    parameters,
                    action: Action::Failed,
                    code: told.code,
                    enhanced: told.enhanced,
                    text: told.text,
                });
            }
        }
        let session = &mut self.visit.session;
        if !failures.is_empty() {
            outbox.notify(session, message, &failures).await?;
        }
        if again.is_empty() {
            return Ok(());
        }
        let transaction = session.transaction.clone();
        session.transaction.retain_recipients(|_| false);
        for (recipient, parameters) in again {
            session.transaction.add_recipient(recipient, parameters);
        }
        let kept = outbox
            .keep(session, message, "some recipients could not take it yet")
            .await;
        session.transaction = transaction;
        kept
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
    pub(super) async fn add_trace(&mut self, message: &dyn Message) {
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

    /// Adds to our trace headers what plugins found out when they were there: the plugins that look at signatures do so at `data_post`.
    fn add_results(&mut self, before: &[String]) {
        let session = &mut self.visit.session;
        if let Some(header) = &mut session.transaction.header {
            let now = &session.connection.auth_results;
            trace::add_results(header, &self.shared.config.hostname, before, now);
        }
    }
}
