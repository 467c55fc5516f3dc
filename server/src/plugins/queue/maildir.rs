//! `queue/maildir`: delivers into Maildirs, durably.
//!
//! `ok` means that every copy is whole and on disk, under a name that readers see. The order of system calls that makes it so, and what is shared
//! between deliveries that wait at the same time, stands at the head of `maildir/committer.rs`. A delivery that fails leaves nothing behind, and the client is
//! told to try again; a message for several mailboxes is delivered to all of them or to none.
//!
//! qpsmtpd's wrote without syncing, and put one copy for all recipients into a fixed folder; here the path decides who shares a copy.

mod committer;
mod copy;
mod folder;
mod line_ends;
mod path;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use gatepost_protocol::delivered::{BLOCK, Delivered, is_binary};
use gatepost_protocol::{
    Address, Answer, Built, Call, Definition, Departure, EnhancedCode, Field, Hook, Init, Message,
    OnError, Outcome, Plugin, Policy, Setting, SettingError, Subscription, Success, Transaction,
    Verdict,
};
use tokio::sync::mpsc;

use super::given_up;
use committer::{Committer, Source};
use line_ends::LineEnds;
use path::PathPattern;

pub const DEFINITION: Definition = Definition {
    name: "queue/maildir",
    about: "Delivers messages into Maildirs and answers when they are on disk.",
    settings: || {
        vec![
            Setting::text("path", "The Maildir of a recipient; {domain}, {local} and {address} stand for parts of the address, in lower case.").required(),
            Setting::boolean("create", "Whether to make Maildirs that are missing.").default(true),
            Setting::text("line_endings", "as_received, or lf to turn CRLF into LF.").default("as_received"),
            Setting::text("quarantine", "The folder below the Maildir for messages that are set apart.").default(".Quarantine"),
        ]
    },
    build,
};

/// A disk that is busy for longer than this has a client that gives up soon (RFC 5321 §4.5.3.2.6: ten minutes).
const TIMEOUT: Duration = Duration::from_secs(300);

/// Blocks that are read ahead of a slow disk.
const READ_AHEAD: usize = 2;

struct Maildir {
    path: PathPattern,
    quarantine: String,
    hostname: String,
    lf: bool,
    committer: Committer,
}

fn build(init: Init) -> Built {
    let settings = &init.settings;
    let mut errors = Vec::new();
    let path = PathPattern::parse(settings.text("path").unwrap_or_default());
    let path = path.map_err(|message| errors.push(SettingError::at("path", message)));
    let quarantine = settings.text("quarantine").unwrap_or_default();
    if !path::is_below(quarantine) {
        let message = "expected a folder below the Maildir, such as .Quarantine, without `..`";
        errors.push(SettingError::at("quarantine", message));
    }
    let lf = match settings.text("line_endings").unwrap_or_default() {
        "as_received" => false,
        "lf" => true,
        other => {
            let message = format!("`{other}` is no kind of line end; expected as_received or lf");
            errors.push(SettingError::at("line_endings", message));
            false
        }
    };
    match path {
        Ok(path) if errors.is_empty() => Ok(Arc::new(Maildir {
            path,
            quarantine: quarantine.to_owned(),
            committer: Committer::new(&init.hostname, settings.boolean("create")),
            hostname: init.hostname,
            lf,
        })),
        _ => Err(errors),
    }
}

impl Plugin for Maildir {
    fn subscriptions(&self) -> Vec<Subscription> {
        let fields = [
            Field::Sender,
            Field::SenderParameters,
            Field::Recipients,
            Field::Size,
            Field::Header,
            Field::HeaderEnd,
            Field::Quarantine,
        ];
        let mut queue = Subscription::to(Hook::Queue, &fields);
        queue.timeout = Some(TIMEOUT);
        vec![queue]
    }

    fn policy(&self) -> Policy {
        Policy {
            on_error: Some(OnError::TempFail),
            ..Policy::default()
        }
    }

    fn call<'a>(&'a self, call: &'a Call<'a>) -> Answer<'a> {
        Answer::later(self.deliver(call))
    }
}

/// The recipients of one Maildir.
struct Mailbox<'a> {
    folder: String,
    recipients: Vec<&'a Address>,
}

impl Maildir {
    async fn deliver(&self, call: &Call<'_>) -> Outcome {
        let transaction = &call.session.transaction;
        let Some(message) = call.message else {
            return failed("there is no message to deliver");
        };
        let mailboxes = match self.mailboxes(transaction) {
            Ok(mailboxes) => mailboxes,
            Err(refused) => {
                return Outcome::fail(refused)
                    .with_verdict(Verdict::Deny)
                    .with_code(550, EnhancedCode(5, 1, 3));
            }
        };
        if mailboxes.is_empty() {
            return failed("the message has no recipients");
        }
        let written = self.write(transaction, message, &mailboxes, call.departure);
        match written.await {
            Ok(Some(name)) => {
                let copies = match mailboxes.len() {
                    1 => mailboxes[0].folder.clone(),
                    more => format!("{more} Maildirs"),
                };
                Outcome::ok(format!("in {copies} as {name}"))
                    .with_reply(&format!("Queued! {name}"))
                    .with_success(Success::Delivered)
            }
            Ok(None) => given_up(),
            Err(reason) => failed(&reason),
        }
    }

    /// One mailbox for each distinct path, in the order of the recipients; or which recipient can have none.
    fn mailboxes<'a>(&self, transaction: &'a Transaction) -> Result<Vec<Mailbox<'a>>, String> {
        let mut mailboxes: Vec<Mailbox<'a>> = Vec::with_capacity(transaction.recipients.len());
        let mut seen = std::collections::HashMap::new();
        for recipient in &transaction.recipients {
            let Some(mut folder) = self.path.expand(recipient, &self.hostname) else {
                return Err(format!(
                    "{} cannot be the name of a mailbox",
                    recipient.as_str()
                ));
            };
            if transaction.quarantine.is_some() {
                folder = format!("{}/{}", folder.trim_end_matches('/'), self.quarantine);
            }
            let at = *seen.entry(folder.clone()).or_insert(mailboxes.len());
            if at == mailboxes.len() {
                mailboxes.push(Mailbox {
                    folder,
                    recipients: Vec::new(),
                });
            }
            mailboxes[at].recipients.push(recipient);
        }
        Ok(mailboxes)
    }

    /// Hands the copies to the committer and waits until all are on disk. Returns the name of the first; `None` where the client hung up before
    /// readers could see any.
    async fn write(
        &self,
        transaction: &Transaction,
        message: &dyn Message,
        mailboxes: &[Mailbox<'_>],
        departure: &Departure,
    ) -> Result<Option<String>, String> {
        let (delivery, mut done) = self.committer.begin(mailboxes.len());
        let given = self.give(&delivery, transaction, message, mailboxes);
        let result = tokio::select! {
            biased;
            () = departure.happened() => {
                if delivery.give_up() {
                    return Ok(None);
                }
                done.await
            }
            result = async {
                match given.await {
                    Ok(()) => (&mut done).await,
                    Err(error) => Ok(Err(format!("cannot read the message: {error}"))),
                }
            } => result,
        };
        result
            .unwrap_or_else(|_| Err("the delivery was given up".to_owned()))
            .map(Some)
    }

    /// Hands the copies to the committer.
    async fn give(
        &self,
        delivery: &Arc<committer::Delivery>,
        transaction: &Transaction,
        message: &dyn Message,
        mailboxes: &[Mailbox<'_>],
    ) -> std::io::Result<()> {
        let mut content = Delivered::new(transaction, message);
        // What looks like a line end in binary data is none.
        let lf = self.lf && !is_binary(transaction);
        if content.remaining() <= BLOCK as u64 {
            let mut line_ends = LineEnds::new(lf);
            let mut parts: Vec<Bytes> = Vec::with_capacity(3);
            while let Some(block) = content.next().await? {
                parts.push(line_ends.convert(block));
            }
            parts.extend(line_ends.finish());
            for mailbox in mailboxes {
                let head = trace(transaction, mailbox, lf);
                let parts = [head].into_iter().chain(parts.iter().cloned()).collect();
                self.committer
                    .write(delivery, &mailbox.folder, Source::Whole(parts));
            }
        } else {
            for mailbox in mailboxes {
                let content = Delivered::new(transaction, message);
                let head = trace(transaction, mailbox, lf);
                let line_ends = LineEnds::new(lf);
                self.stream(delivery, &mailbox.folder, head, content, line_ends)
                    .await?;
            }
        }
        Ok(())
    }

    /// Passes a large message on as it is read. Stops early where the committer does: the failure is known there.
    async fn stream(
        &self,
        delivery: &Arc<committer::Delivery>,
        folder: &str,
        head: Bytes,
        mut content: Delivered<'_>,
        mut line_ends: LineEnds,
    ) -> std::io::Result<()> {
        let (blocks, source) = mpsc::channel(READ_AHEAD);
        self.committer
            .write(delivery, folder, Source::Stream(source));
        let mut open = blocks.send(Some(head)).await.is_ok();
        while open {
            let Some(block) = content.next().await? else {
                if let Some(rest) = line_ends.finish() {
                    let _ = blocks.send(Some(rest)).await;
                }
                let _ = blocks.send(None).await;
                break;
            };
            open = blocks.send(Some(line_ends.convert(block))).await.is_ok();
        }
        Ok(())
    }
}

/// The trace headers of a final delivery (RFC 5321 §4.4), in the line ends of the rest.
fn trace(transaction: &Transaction, mailbox: &Mailbox<'_>, lf: bool) -> Bytes {
    let end = if lf { "\n" } else { "\r\n" };
    let sender = transaction.sender.as_ref().map_or("", Address::as_str);
    let mut head = format!("Return-Path: <{sender}>{end}");
    for recipient in &mailbox.recipients {
        head.extend(["Delivered-To: ", recipient.as_str(), end]);
    }
    head.into()
}

/// The operator reads the reason in the log; the client learns that it may try again, and no path.
fn failed(reason: &str) -> Outcome {
    Outcome::error(reason)
        .with_code(451, EnhancedCode(4, 3, 0))
        .with_reply("The message could not be stored; try again later")
}

#[cfg(test)]
mod tests;
