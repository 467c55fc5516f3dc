//! A daemon at which clients authenticate, as one user.

use crate::server::Server;

/// Who may.
pub const USER: &str = "bob@example.org";

/// Bob's password, with characters that clients have to quote on their command lines.
pub const PASSWORD: &str = "s e:cret";

/// With this in front of it: the lines of a `[[listen]]`.
const HEAD: &str = r#"
[auth]
mechanisms = ["SCRAM-SHA-256", "CRAM-MD5", "PLAIN", "LOGIN"]

[limits]
max_auth_failures = 100

[files]
"config/flat_auth_pw" = "bob@example.org:s e:cret\n"

[[plugin]]
name = "auth/auth_flat_file"

[[plugin]]
name = "rcpt_ok"

[[plugin]]
name = "queue/maildir"
"#;

/// A daemon with one listener, of which `listen` are the lines. Clients may fail as often as they like.
pub fn server(listen: &str) -> Server {
    Server::start(&format!("[[listen]]\n{listen}\n{HEAD}"))
}

/// Waits for the log to say that Bob was let in by a mechanism.
pub fn assert_authenticated(server: &Server, mechanism: &str) {
    let line = format!("authenticated from 127.0.0.1: {mechanism}, user \"{USER}\"");
    server.wait_for_log(&line, |found| found.contains(&line));
}
