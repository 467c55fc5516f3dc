//! LMTP (RFC 2033): SMTP for final delivery, where a message gets a reply for each recipient.

use super::mail::{Dialect, Hello, Verb};

/// LMTP. HELO and EHLO are not in it (RFC 2033 §4.1).
pub static LMTP: Dialect = Dialect {
    name: "LMTP",
    hellos: &[("LHLO", Verb::Hello(Hello::Lhlo))],
    hello: "LHLO",
    replies_per_recipient: true,
};
