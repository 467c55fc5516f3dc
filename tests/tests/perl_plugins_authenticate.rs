//! Plugins of Debian's package qpsmtpd let in by each of their mechanisms a real client that has the password; CRAM-MD5 among them, which no dialogue can
//! say: its challenge is another one each time (RFC 2195 §2).

use std::process::Command;

use gatepost_tests::programs::{missing, root};
use gatepost_tests::server::Server;

const HEAD: &str = r#"
[[listen]]
auth = "always"

[auth]
mechanisms = ["CRAM-MD5", "PLAIN", "LOGIN"]

[limits]
max_auth_failures = 100

[[plugin]]
qpsmtpd = "$PLUGIN"
plugin_dirs = ["$ROOT/.qpsmtpd/usr/share/qpsmtpd/plugins"]

[[plugin]]
name = "queue/discard"
"#;

/// Tries a wrong password and the right one by each mechanism.
fn try_all(plugin: &str, head: &str) {
    if !root()
        .join(".qpsmtpd/usr/share/qpsmtpd/plugins")
        .join(plugin)
        .is_file()
    {
        missing("Debian's package qpsmtpd is not unpacked: run `make setup`");
        return;
    }
    let server = Server::start(&format!("{}{head}", HEAD.replace("$PLUGIN", plugin)));
    for mechanism in ["CRAM-MD5", "PLAIN", "LOGIN"] {
        let script = format!(
            r#"
import smtplib
client = smtplib.SMTP("127.0.0.1", {port}, local_hostname="client.example")
client.ehlo()
assert "{mechanism}" in client.esmtp_features["auth"].split(), client.esmtp_features
client.esmtp_features["auth"] = "{mechanism}"
for password, good in (("guess", False), ("secret", True)):
    try:
        client.login("bob@example.org", password)
        assert good, password
    except smtplib.SMTPAuthenticationError as error:
        assert not good and error.smtp_code == 535, error
client.quit()
"#,
            port = server.address().port()
        );
        let status = Command::new("python3").args(["-c", &script]).status();
        assert!(status.expect("python3 starts").success(), "{mechanism}");
    }
}

#[test]
fn by_a_file() {
    try_all(
        "auth/auth_flat_file",
        "[files]\n\"config/flat_auth_pw\" = \"bob@example.org:secret\"",
    );
}

#[test]
fn by_a_table() {
    let head = r#"
[servers]
DB = ["perl", "$DIR/table", "dbi:SQLite:dbname=$DIR/vpopmail.db"]

[files]
"config/vpopmail_mysql_dsn" = "$DB"
"table" = '''
use DBI;
my $db = DBI->connect($ARGV[0], "", "", {RaiseError => 1});
$db->do("create table vpopmail (pw_name text, pw_domain text, pw_passwd text, pw_clear_passwd text)");
$db->do("insert into vpopmail values ('bob', 'example.org', '', 'secret')");
print "$ARGV[0]\n";
'''
"#;
    try_all("auth/auth_vpopmail_sql", head);
}
