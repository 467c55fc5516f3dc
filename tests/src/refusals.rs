//! A chain in which one of several recipients refuses a message that the others get.

/// A queue plugin for our own mail, to a server that nobody ever reaches.
pub const NOWHERE: &str = r#"
[[plugin]]
name = "queue/smtp-forward"
server = "127.0.0.1"
port = 1
when = 'direction == "local"'
"#;

/// The head of a dialogue: Bob refuses what has no author, Carol and all others do not mind, and the sender is sent a notification. `settings` stand before the
/// plugins, `queue` has what stands behind `rcpt_ok`, and what a head ends with.
pub fn bob_refuses(settings: &str, queue: &str) -> String {
    format!(
        r#"
mixed = "bounce"
{settings}
[[plugin]]
name = "headers"
require = ["From"]
reject = false
[[plugin]]
name = "rcpt_ok"
{queue}
[user."bob@example.org".plugin.headers]
reject = true
"#
    )
}
