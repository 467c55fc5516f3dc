//! `queue/smtp-forward`: hands messages to another SMTP server, and answers what it answers.
//!
//! The core answers once for all recipients, so a message is handed over for all of them or for none: if the other server refuses one, the client
//! is told so, with that recipient's name, and the other server keeps nothing. qpsmtpd forwarded to the rest and said 250.

use std::sync::Arc;
use std::time::Duration;

use gatepost_protocol::delivered::Delivered;
use gatepost_protocol::{
    Answer, Built, Call, Definition, EnhancedCode, Field, Hook, Init, OnError, Outcome, Plugin,
    Policy, Setting, SettingError, Subscription, Success, Verdict,
};

use super::given_up;
use super::smtp_client::{self, Failure, Sent, Timeouts};

pub const DEFINITION: Definition = Definition {
    name: "queue/smtp-forward",
    about: "Hands messages to another SMTP server.",
    settings: || {
        vec![
            Setting::text("server", "The host name or address of the server.").required(),
            Setting::integer("port", "Its port.").default(25),
        ]
    },
    build,
};

/// Our client waits ten minutes for its answer (RFC 5321 §4.5.3.2.6); it is to hear one.
const TIMEOUT: Duration = Duration::from_secs(9 * 60);

struct SmtpForward {
    server: String,
    port: u16,
    hostname: String,
}

fn build(init: Init) -> Built {
    let settings = &init.settings;
    let mut errors = Vec::new();
    let server = settings.text("server").unwrap_or_default();
    if server.is_empty() || server.contains(char::is_whitespace) {
        errors.push(SettingError::at(
            "server",
            "expected a host name or an address",
        ));
    }
    let port = u16::try_from(settings.integer("port")).unwrap_or_default();
    if port == 0 {
        errors.push(SettingError::at("port", "expected a port from 1 to 65535"));
    }
    if !errors.is_empty() {
        return Err(errors);
    }
    Ok(Arc::new(SmtpForward {
        server: server.to_owned(),
        port,
        hostname: init.hostname,
    }))
}

impl Plugin for SmtpForward {
    fn subscriptions(&self) -> Vec<Subscription> {
        let fields = [
            Field::Sender,
            Field::SenderParameters,
            Field::Recipients,
            Field::RecipientParameters,
            Field::Size,
            Field::Header,
            Field::HeaderEnd,
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
        Answer::later(self.forward(call))
    }
}

impl SmtpForward {
    async fn forward(&self, call: &Call<'_>) -> Outcome {
        let transaction = &call.session.transaction;
        let Some(message) = call.message else {
            return self.trouble("there is no message to forward");
        };
        if transaction.recipients.is_empty() {
            return self.trouble("the message has no recipients");
        }
        let content = Delivered::new(transaction, message);
        let timeouts = Timeouts::default();
        let sent = smtp_client::send(
            &self.server,
            self.port,
            &self.hostname,
            transaction,
            content,
            &timeouts,
            call.departure,
        );
        match sent.await {
            Ok(Sent { reply, dsn }) => {
                let text = if reply.text.is_empty() {
                    "Ok"
                } else {
                    &reply.text
                };
                Outcome::ok(format!("{}:{}: {text}", self.server, self.port))
                    .with_reply(&format!("Queued! {text}"))
                    // RFC 3461 §5.2.1, §5.2.2: who got NOTIFY tells the sender.
                    .with_success(match dsn {
                        true => Success::None,
                        false => Success::Relayed,
                    })
            }
            Err(failure) => self.not_sent(failure),
        }
    }

    fn not_sent(&self, failure: Failure) -> Outcome {
        let said = format!("{}:{}: {failure}", self.server, self.port);
        match failure {
            Failure::Trouble(reason) => self.trouble(&reason),
            Failure::Departed => given_up(),
            Failure::BareNewline => Outcome::fail(said)
                .with_verdict(Verdict::Deny)
                .with_code(554, EnhancedCode(5, 6, 0))
                .with_reply(
                    "The message has a CR or LF that stands alone (RFC 5321 section 2.3.8)",
                ),
            Failure::Nul => Outcome::fail(said)
                .with_verdict(Verdict::Deny)
                .with_code(554, EnhancedCode(5, 6, 0))
                .with_reply("A line of the message begins with a NUL (RFC 5322 section 3.5)"),
            Failure::Binary => Outcome::fail(said)
                .with_verdict(Verdict::Deny)
                .with_code(554, EnhancedCode(5, 6, 1))
                .with_reply("The next server does not take binary messages (BODY=BINARYMIME)"),
            Failure::TooLarge { limit, .. } => Outcome::fail(said)
                .with_verdict(Verdict::Deny)
                .with_code(552, EnhancedCode(5, 3, 4))
                .with_reply(&format!("The message is larger than {limit} bytes")),
            // RFC 8689 §4.2.1.
            Failure::NeedsTls => Outcome::fail(said)
                .with_verdict(Verdict::Deny)
                .with_code(550, EnhancedCode(5, 7, 30))
                .with_reply(
                    "The next server cannot be reached under TLS, which REQUIRETLS asks for",
                ),
            Failure::NeedsUtf8(Some(address)) => Outcome::fail(said)
                .with_verdict(Verdict::Deny)
                .with_code(553, EnhancedCode(5, 6, 7))
                .with_reply(&format!(
                    "{address}: the next server takes no addresses outside ASCII"
                )),
            Failure::NeedsUtf8(None) => Outcome::fail(said)
                .with_verdict(Verdict::Deny)
                .with_code(554, EnhancedCode(5, 6, 9))
                .with_reply("The next server takes no header fields outside ASCII"),
            Failure::Refused { command, reply } => {
                let class = reply.code / 100;
                let soft = class == 4;
                // 421 closes the other server's connection, not ours (RFC 5321 §3.8).
                let code = if reply.code == 421 { 451 } else { reply.code };
                let fits = |enhanced: &EnhancedCode| u16::from(enhanced.0) == class;
                let usual = EnhancedCode(if soft { 4 } else { 5 }, 0, 0);
                let enhanced = reply.enhanced.filter(fits).unwrap_or(usual);
                let text = match command.strip_prefix("RCPT TO:") {
                    Some(recipient) => format!("{recipient}: {}", reply.text),
                    None => reply.text,
                };
                Outcome::fail(said)
                    .with_verdict(if soft {
                        Verdict::DenySoft
                    } else {
                        Verdict::Deny
                    })
                    .with_code(code, enhanced)
                    .with_reply(&text)
            }
        }
    }

    fn trouble(&self, reason: &str) -> Outcome {
        Outcome::error(format!("{}:{}: {reason}", self.server, self.port))
            .with_code(451, EnhancedCode(4, 4, 1))
            .with_reply("The next server cannot be reached; try again later")
    }
}

#[cfg(test)]
mod tests;
