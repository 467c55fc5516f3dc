//! SMTP (RFC 5321).

use super::mail::{Dialect, Hello, Verb};

/// SMTP.
pub static SMTP: Dialect = Dialect {
    name: "ESMTP",
    hellos: &[
        ("EHLO", Verb::Hello(Hello::Ehlo)),
        ("HELO", Verb::Hello(Hello::Helo)),
    ],
    hello: "EHLO or HELO",
    replies_per_recipient: false,
};
