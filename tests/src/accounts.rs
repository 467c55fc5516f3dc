//! A daemon at which clients authenticate, as one user.

use crate::server::Server;

/// Who may.
pub const USER: &str = "bob@example.org";

/// Bob's password, with characters that clients have to quote on their command lines.
pub const PASSWORD: &str = "s e:cret";

/// Bob's bearer token.
pub const TOKEN: &str = "ya29.a~good-token+/==";

/// Behind the listener: passwords are looked up by a built-in, tokens by a child.
const HEAD: &str = r#"
[auth]
mechanisms = $MECHANISMS

[limits]
max_auth_failures = 100

[files]
"config/flat_auth_pw" = "$USER:$PASSWORD\n"
"tokens.py" = """
import gatepost

@gatepost.hook("auth")
def auth(token):
    if token is None:
        return gatepost.skip("no token")
    return gatepost.ok(values=["$USER"]) if token == "$TOKEN" else gatepost.deny("bad token")

gatepost.run()
"""

[[plugin]]
name = "auth/auth_flat_file"

[[plugin]]
name = "tokens"
run = ["python3", "$DIR/tokens.py"]
env = { PYTHONPATH = "$ROOT/sdk-python/src" }

[[plugin]]
name = "rcpt_ok"

[[plugin]]
name = "queue/maildir"
"#;

/// What the daemon offers where nothing else is said.
pub const MECHANISMS: &[&str] = &[
    "SCRAM-SHA-256",
    "CRAM-MD5",
    "PLAIN",
    "LOGIN",
    "OAUTHBEARER",
    "XOAUTH2",
];

/// A daemon with one listener, of which `listen` are the lines. Clients may fail as often as they like.
pub fn server(listen: &str) -> Server {
    server_with(listen, MECHANISMS)
}

/// The same with these mechanisms, for a client that takes the first it knows.
pub fn server_with(listen: &str, mechanisms: &[&str]) -> Server {
    let head = HEAD
        .replace("$MECHANISMS", &format!("{mechanisms:?}"))
        .replace("$USER", USER)
        .replace("$PASSWORD", PASSWORD)
        .replace("$TOKEN", TOKEN);
    Server::start(&format!("[[listen]]\n{listen}\n{head}"))
}

/// Waits for the log to say that Bob was let in by a mechanism.
pub fn assert_authenticated(server: &Server, mechanism: &str) {
    let line = format!("authenticated from 127.0.0.1: {mechanism}, user \"{USER}\"");
    server.wait_for_log(&line, |found| found.contains(&line));
}

/// Waits for the log to say that Bob was not let in by a mechanism.
pub fn assert_refused(server: &Server, mechanism: &str) {
    let line = format!("authentication failed from 127.0.0.1: {mechanism}, user \"{USER}\"");
    server.wait_for_log(&line, |found| found.contains(&line));
}
