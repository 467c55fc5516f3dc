//! What each verdict means at each hook: the reply, and whether the connection is closed. The codes are qpsmtpd's, the enhanced codes
//! those of RFC 3463. docs/smtp.md has the same table for people.

use gatepost_protocol::{Hook, Verdict};

use crate::dialog::Next;

/// The usual reply to a denial at a hook, and what follows it. `None`: the denial changes nothing there.
pub fn denial(hook: Hook, verdict: Verdict) -> Option<(&'static str, Next)> {
    if !verdict.is_denial() {
        return None;
    }
    let reply = match (hook, verdict.is_soft(), verdict.disconnects()) {
        (Hook::PreConnection, false, _) => "451 4.7.1 Sorry, service not available to you",
        (Hook::PreConnection, true, _) => "451 4.7.1 Sorry, try again later",
        (Hook::Connect, false, _) => "550 5.7.1 Connection from you denied",
        (Hook::Connect, true, _) => "450 4.7.1 Connection from you temporarily denied",
        (Hook::Helo | Hook::Ehlo, false, _) => "550 5.7.1 Your greeting is not accepted",
        (Hook::Helo | Hook::Ehlo, true, _) => "450 4.7.1 Your greeting is not accepted for now",
        (Hook::Mail, false, _) => "550 5.7.1 Sender denied",
        (Hook::Mail, true, false) => "450 4.7.1 Sender temporarily denied",
        (Hook::Mail, true, true) => "421 4.7.1 Sender temporarily denied",
        (Hook::Rcpt, false, false) => "550 5.7.1 Relaying denied",
        (Hook::Rcpt, false, true) => "550 5.7.1 Delivery denied",
        (Hook::Rcpt, true, false) => "450 4.7.1 Relaying denied for now",
        (Hook::Rcpt, true, true) => "421 4.7.1 Delivery denied for now",
        (Hook::Data, false, _) => "554 5.7.1 Message denied",
        (Hook::Data, true, _) => "451 4.7.1 Message denied temporarily",
        (Hook::DataHeadersEnd | Hook::DataLines, false, true) => "554 5.7.1 Message denied",
        (Hook::DataHeadersEnd | Hook::DataLines, true, true) => {
            "421 4.7.1 Message denied temporarily"
        }
        (
            Hook::DataHeadersEnd
            | Hook::DataLines
            | Hook::DataPostHeaders
            | Hook::DataPost
            | Hook::QueuePre,
            false,
            _,
        ) => "552 5.7.1 Message denied",
        (
            Hook::DataHeadersEnd
            | Hook::DataLines
            | Hook::DataPostHeaders
            | Hook::DataPost
            | Hook::QueuePre,
            true,
            _,
        ) => "452 4.7.1 Message denied temporarily",
        (Hook::Queue, false, false) => "552 5.3.0 Queuing denied",
        (Hook::Queue, true, false) => "452 4.3.0 Queuing denied for now",
        (Hook::Queue, _, true) => NOT_QUEUED,
        (Hook::UnrecognizedCommand, false, false) => "500 5.5.1 Unrecognized command",
        (Hook::UnrecognizedCommand, false, true) => "521 5.5.1 Unrecognized command",
        (Hook::Noop, false, _) => "500 5.7.1 Stop wasting my time",
        (Hook::Vrfy, false, _) if verdict == Verdict::Deny => "554 5.7.1 Access denied",
        (Hook::Help, false, false) => "500 5.7.1 Help denied",
        _ => return None,
    };
    let closes = match hook {
        Hook::PreConnection | Hook::Connect => true,
        // The message is not lost: the client keeps it, and may go on.
        Hook::Queue => false,
        _ => verdict.disconnects(),
    };
    Some((reply, if closes { Next::Close } else { Next::Go }))
}

/// The reply where no queue plugin took the message.
pub const NOT_QUEUED: &str = "451 4.3.0 Queuing declined or disabled; try again later";

/// The reply where no plugin took the recipient.
pub const NOBODY_RELAYS: &str = "450 4.7.1 No plugin decided if relaying is allowed";

/// The code of a reply that a plugin gave with `done`, where it named none.
pub fn done(hook: Hook) -> &'static str {
    match hook {
        Hook::Connect => "220 ",
        Hook::Quit => "221 2.0.0 ",
        Hook::Help => "214 2.0.0 ",
        Hook::Vrfy => "252 2.0.0 ",
        Hook::Helo | Hook::Ehlo => "250 ",
        _ => "250 2.0.0 ",
    }
}
