//! LMTP (RFC 2033): SMTP for final delivery, where a message gets a reply for each recipient.

use super::mail::{Dialect, Hello, Verb};

/// LMTP. HELO and EHLO are not in it (RFC 2033 §4.1).
pub static LMTP: Dialect = Dialect {
    name: "LMTP",
    verbs: &[
        ("MAIL", Verb::Mail),
        ("RCPT", Verb::Rcpt),
        ("DATA", Verb::Data),
        ("BDAT", Verb::Bdat),
        ("QUIT", Verb::Quit),
        ("LHLO", Verb::Hello(Hello::Lhlo)),
        ("RSET", Verb::Rset),
        ("NOOP", Verb::Noop),
        ("VRFY", Verb::Vrfy),
        ("STARTTLS", Verb::StartTls),
        ("HELP", Verb::Help),
        ("AUTH", Verb::Auth),
        ("XCLIENT", Verb::Xclient),
        ("XFORWARD", Verb::Xforward),
    ],
    hello: "LHLO",
    replies_per_recipient: true,
};
