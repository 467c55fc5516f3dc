//! SMTP (RFC 5321).

use super::mail::{Dialect, Hello, Verb};

/// SMTP.
pub static SMTP: Dialect = Dialect {
    name: "ESMTP",
    verbs: &[
        ("MAIL", Verb::Mail),
        ("RCPT", Verb::Rcpt),
        ("DATA", Verb::Data),
        ("BDAT", Verb::Bdat),
        ("QUIT", Verb::Quit),
        ("EHLO", Verb::Hello(Hello::Ehlo)),
        ("HELO", Verb::Hello(Hello::Helo)),
        ("RSET", Verb::Rset),
        ("NOOP", Verb::Noop),
        ("VRFY", Verb::Vrfy),
        ("STARTTLS", Verb::StartTls),
        ("HELP", Verb::Help),
        ("AUTH", Verb::Auth),
        ("XCLIENT", Verb::Xclient),
        ("XFORWARD", Verb::Xforward),
    ],
    hello: "EHLO or HELO",
    replies_per_recipient: false,
};
