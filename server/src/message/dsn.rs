//! Delivery status notifications: what became of a message, for its sender (RFC 3464 in RFC 6522's multipart/report; RFC 6533 beyond ASCII).
//!
//! One notification is about one recipient. Nothing is read or written here: what goes in is the message's header block and what is known of the rest, what comes out
//! is the notification up to the place where the original message's text belongs, and what follows it.

mod fields;
#[cfg(test)]
mod tests;

use std::time::SystemTime;

use gatepost_protocol::{Address, EnhancedCode};

use super::date;
use fields::{ascii_if, fold, is_message_id, printable, typed_address, xtext_decoded};

/// What became of a message for a recipient (RFC 3464 §2.3.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// It is given up.
    Failed,
    /// It has not arrived yet, and is tried until then.
    Delayed(SystemTime),
    /// The recipient has it.
    Delivered,
    /// It is with a system that will not say when the recipient has it.
    Relayed,
}

impl Action {
    /// The word in the field.
    const fn word(self) -> &'static str {
        match self {
            Action::Failed => "failed",
            Action::Delayed(_) => "delayed",
            Action::Delivered => "delivered",
            Action::Relayed => "relayed",
        }
    }

    /// Whether it is no trouble: then there is nothing to explain.
    const fn is_success(self) -> bool {
        matches!(self, Action::Delivered | Action::Relayed)
    }
}

/// What a notification is about.
pub struct Report<'a> {
    /// Our name.
    pub hostname: &'a str,
    /// Names the notification; of characters that a Message-ID can have.
    pub id: &'a str,
    /// Parts the notification: 1 to 70 characters, of letters, digits and `-`, that no line of the original message begins with behind `--`.
    pub boundary: &'a str,
    /// Now.
    pub time: SystemTime,
    /// Who is told: the sender of the message.
    pub sender: &'a Address,
    /// ENVID of MAIL, as it was given.
    pub envelope_id: Option<&'a str>,
    /// Names the message in our log.
    pub log_id: Option<&'a str>,
    /// When the message came to us.
    pub arrived: SystemTime,
    /// Who brought it: the name in its greeting.
    pub received_from: Option<&'a str>,
    /// Whether the sender takes addresses and headers outside ASCII: the message came with SMTPUTF8.
    pub utf8: bool,
    /// Whom it is about.
    pub recipient: &'a Address,
    /// ORCPT of RCPT, as it was given.
    pub original_recipient: Option<&'a str>,
    /// What became of it.
    pub action: Action,
    /// The reply code that says why.
    pub code: u16,
    /// Its enhanced code.
    pub enhanced: Option<EnhancedCode>,
    /// Its text. It may come from anywhere.
    pub text: &'a str,
    /// What of the message goes back.
    pub original: Original<'a>,
}

/// The message that a notification is about.
#[derive(Clone, Copy)]
pub struct Original<'a> {
    /// Its header block, without the empty line behind it.
    pub header: &'a [u8],
    /// The value of its Message-ID field.
    pub message_id: Option<&'a [u8]>,
    /// Whether all of it goes back, and not only the header block.
    pub whole: bool,
    /// Whether its body has bytes beyond ASCII.
    pub eight_bit_body: bool,
}

/// A notification.
#[derive(Debug, PartialEq, Eq)]
pub struct Notification {
    /// Its own header block.
    pub header: String,
    /// What follows, from the empty line on, up to the original message or header block.
    pub before: String,
    /// What follows that.
    pub after: String,
    /// Whether it has bytes beyond ASCII (RFC 6152).
    pub eight_bit: bool,
    /// Whether it can only go where SMTPUTF8 is spoken (RFC 6531).
    pub smtputf8: bool,
}

impl Report<'_> {
    /// Writes the notification.
    pub fn write(&self) -> Notification {
        let status = self.status_part();
        let text = self.text_part();
        let original = &self.original;
        // Header fields in UTF-8 that were sent as such; what else is beyond ASCII has no meaning that we know.
        let global_original =
            self.utf8 && !original.header.is_ascii() && str::from_utf8(original.header).is_ok();
        let eight_bit_original =
            !original.header.is_ascii() || original.whole && original.eight_bit_body;
        let own = [self.sender.as_str(), &status, &text];
        let eight_bit = eight_bit_original || own.iter().any(|text| !text.is_ascii());
        let mut before = String::from("\r\n");
        let charset = if text.is_ascii() { "us-ascii" } else { "utf-8" };
        self.begin_part(
            &mut before,
            &format!("text/plain; charset={charset}"),
            "Notification",
            !text.is_ascii(),
        );
        before.push_str(&text);
        let status_type = match status.is_ascii() {
            true => "message/delivery-status",
            false => "message/global-delivery-status",
        };
        before.push_str("\r\n");
        self.begin_part(
            &mut before,
            status_type,
            "Delivery status",
            !status.is_ascii(),
        );
        before.push_str(&status);
        let original_type = match (original.whole, global_original) {
            (true, false) => "message/rfc822",
            (true, true) => "message/global",
            (false, false) => "text/rfc822-headers",
            (false, true) => "message/global-headers",
        };
        before.push_str("\r\n");
        let name = match original.whole {
            true => "Your message",
            false => "The header of your message",
        };
        self.begin_part(&mut before, original_type, name, eight_bit_original);
        Notification {
            header: self.header(eight_bit),
            before,
            after: format!("\r\n--{}--\r\n", self.boundary),
            eight_bit,
            smtputf8: !self.sender.as_str().is_ascii() || !status.is_ascii() || global_original,
        }
    }

    /// Three parts, and the header block above them. RFC 3464 §2 wants an address of somebody who can help behind From, and RFC 3834 §5 what tells automatic
    /// replies from others.
    fn header(&self, eight_bit: bool) -> String {
        let (hostname, id, sender) = (self.hostname, self.id, self.sender);
        let subject = match self.action {
            Action::Failed => "Undelivered mail",
            Action::Delayed(_) => "Delayed mail",
            Action::Delivered => "Delivered mail",
            Action::Relayed => "Relayed mail",
        };
        let mut header = format!(
            "Date: {}\r\nFrom: Mail Delivery System <postmaster@{hostname}>\r\nTo: {sender}\r\nMessage-ID: <{id}@{hostname}>\r\n",
            date::rfc5322(self.time)
        );
        let answered = self.original.message_id.filter(|id| is_message_id(id));
        if let Some(answered) = answered.and_then(|id| str::from_utf8(id).ok()) {
            header.push_str(&format!(
                "In-Reply-To: {answered}\r\nReferences: {answered}\r\n"
            ));
        }
        header.push_str(&format!(
            "Subject: {subject}\r\nAuto-Submitted: auto-replied\r\nMIME-Version: 1.0\r\n\
             Content-Type: multipart/report; report-type=delivery-status;\r\n\tboundary=\"{}\"\r\n",
            self.boundary
        ));
        header.push_str(encoding(eight_bit));
        header
    }

    fn begin_part(&self, to: &mut String, content_type: &str, name: &str, eight_bit: bool) {
        to.push_str(&format!(
            "--{}\r\nContent-Type: {content_type}\r\nContent-Description: {name}\r\n{}\r\n",
            self.boundary,
            encoding(eight_bit)
        ));
    }

    /// What people read.
    fn text_part(&self) -> String {
        let recipient = ascii_if(!self.utf8, self.recipient.as_str());
        let became = match self.action {
            Action::Failed => "could not be delivered to",
            Action::Delayed(_) => "has not been delivered yet to",
            Action::Delivered => "was delivered to",
            Action::Relayed => "was passed on to the next mail server for",
        };
        let hostname = self.hostname;
        let mut text = format!(
            "This is the mail server at {hostname}.\r\n\r\nYour message {became}\r\n\r\n    {recipient}\r\n\r\n"
        );
        if !self.action.is_success() {
            let reason = fold(&self.reason(), "    ");
            text.push_str(&format!("The reason:\r\n\r\n    {reason}\r\n\r\n"));
        }
        text.push_str(&match self.action {
            Action::Failed => {
                "It will not be tried again. The parts below tell programs the same, and show\r\nwhich message it was.\r\n".to_owned()
            }
            Action::Delayed(until) => format!(
                "You need not send it again: it is tried until\r\n{}.\r\n",
                date::rfc5322(until)
            ),
            Action::Delivered => "You get this because your message asked for it.\r\n".to_owned(),
            Action::Relayed => {
                "Your message asked to be told when it arrives. From here on nobody may tell you.\r\n"
                    .to_owned()
            }
        });
        text
    }

    /// What programs read: the fields of the message, then those of the recipient (RFC 3464 §2.2, §2.3).
    fn status_part(&self) -> String {
        let mut part = String::new();
        let mut field = |name: &str, value: &str| {
            part.push_str(&format!("{name}: {}\r\n", fold(value, " ")));
        };
        if let Some(id) = self.envelope_id {
            let id = ascii_if(!self.utf8, &printable(&xtext_decoded(id)));
            field("Original-Envelope-Id", &id);
        }
        field("Reporting-MTA", &format!("dns; {}", self.hostname));
        if let Some(from) = self.received_from {
            let from = ascii_if(!self.utf8, &printable(from));
            field("Received-From-MTA", &format!("dns; {from}"));
        }
        field("Arrival-Date", &date::rfc5322(self.arrived));
        part.push_str("\r\n");
        let mut field = |name: &str, value: &str| {
            part.push_str(&format!("{name}: {}\r\n", fold(value, " ")));
        };
        if let Some(given) = self.original_recipient {
            field(
                "Original-Recipient",
                &fields::original_recipient(given, self.utf8),
            );
        }
        field(
            "Final-Recipient",
            &typed_address(self.recipient.as_str(), self.utf8),
        );
        field("Action", self.action.word());
        field("Status", &self.status().to_string());
        // RFC 3464 §2.3.6: a diagnosis is of what went wrong.
        if !self.action.is_success() {
            field("Diagnostic-Code", &format!("smtp; {}", self.reason()));
        }
        if let Some(id) = self.log_id {
            field("Final-Log-ID", &ascii_if(true, &printable(id)));
        }
        if let Action::Delayed(until) = self.action {
            field("Will-Retry-Until", &date::rfc5322(until));
        }
        part
    }

    /// The reply that said why.
    fn reason(&self) -> String {
        let text = ascii_if(!self.utf8, &printable(self.text));
        let reason = match self.enhanced {
            Some(enhanced) => format!("{} {enhanced} {text}", self.code),
            None => format!("{} {text}", self.code),
        };
        reason.trim_end().to_owned()
    }

    /// RFC 3463 §3.1: `.0.0` where no more is known.
    fn status(&self) -> EnhancedCode {
        let class = match self.code / 100 {
            2 => 2,
            4 => 4,
            _ => 5,
        };
        self.enhanced.unwrap_or(EnhancedCode(class, 0, 0))
    }
}

/// RFC 2045 §6.4: a part that is made of parts, or of a message, has the encoding of what is in it.
fn encoding(eight_bit: bool) -> &'static str {
    match eight_bit {
        true => "Content-Transfer-Encoding: 8bit\r\n",
        false => "Content-Transfer-Encoding: 7bit\r\n",
    }
}
