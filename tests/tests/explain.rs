//! `gatepost explain`: how a message would be decided, line by line, with nothing delivered; and why one was, from a journal that stays small, survives a kill and holds no secret.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use gatepost::cli::transcript::files;
use gatepost_tests::programs;
use gatepost_tests::server::{Server, gatepost, new_folder};
use gatepost_tests::smtp::Client;
use gatepost_tests::wait::until;
use nix::sys::signal::Signal;
use tempfile::TempDir;

/// Built-in, Python and Perl plugins, with settings of their own for Bob. The places in what is expected are lines of this.
const CONFIG: &str = r#"hostname = "mx.example.org"
spool_dir = "$DIR/spool"

[[plugin]]
name = "badmailfrom"
addresses = ["@evil.example"]
reject = "naughty"

[[plugin]]
name = "refuse_recipient"
run = ["python3", "$ROOT/plugin-examples/python/refuse_recipient.py"]
env = { PYTHONPATH = "$ROOT/sdk-python/src" }
addresses = ["nobody@example.org"]

[[plugin]]
name = "rcpt_ok"
hosts = ["example.org"]

[[plugin]]
name = "headers"
require = ["From"]
reject = false

[[plugin]]
name = "tag_header"
run = ["perl", "$ROOT/sdk-perl/bin/gatepost-perl"]
source = "$ROOT/plugin-examples/perl/tag_header.pl"

[[plugin]]
name = "naughty"
phase = "data_post"

[[plugin]]
name = "queue/maildir"
path = "$DIR/mail"

[user."bob@example.org"]
plugin.badmailfrom.reject = true
plugin.headers.require = ["Date"]
"#;

/// A folder with a configuration and other files, and where the configuration is.
fn folder(config: &str, others: &[(&str, &str)]) -> (TempDir, PathBuf) {
    let (dir, _) = new_folder();
    let path = dir.path().join("gatepost.toml");
    let text = config
        .replace("$DIR", &dir.path().to_string_lossy())
        .replace("$ROOT", &programs::root().to_string_lossy());
    std::fs::write(&path, text).unwrap();
    for (name, text) in others {
        std::fs::write(dir.path().join(name), text).unwrap();
    }
    (dir, path)
}

fn explain(config: &Path, arguments: &[&str], message: &str) -> Output {
    let mut child = Command::new(gatepost())
        .args(["explain", "-c"])
        .arg(config)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    // One who only looks something up does not read it.
    let _ = input.write_all(message.as_bytes());
    drop(input);
    child.wait_with_output().unwrap()
}

fn explained(config: &Path, arguments: &[&str], message: &str) -> String {
    let output = explain(config, arguments, message);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {errors}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

/// Without times: a turn begins with `t`, with a second one where it says how long its answer took.
fn masked(text: &str) -> String {
    let mut masked = String::new();
    for line in text.lines() {
        let column = |range| {
            let text = line.get(range).map(str::trim).unwrap_or_default();
            text.parse::<f64>().is_ok()
        };
        let line = match (column(0..10), column(10..20)) {
            (false, _) => line.to_owned(),
            (true, took) => format!("t{} {}", if took { "t" } else { " " }, &line[22..]),
        };
        let line = match line.split_once("session from ") {
            Some((before, after)) => {
                let (_, after) = after.split_once("Z, ").unwrap();
                format!("{before}session from TIME, {after}")
            }
            None => line,
        };
        masked.push_str(&line);
        masked.push('\n');
    }
    masked
}

#[test]
fn a_rehearsal_says_everything_and_delivers_nothing() {
    let (dir, config) = folder(CONFIG, &[]);
    let arguments: Vec<&str> =
        "--ip 192.0.2.1 --helo client.example --from a@evil.example --rcpt nobody@example.org --rcpt carol@example.org --rcpt bob@example.org"
            .split(' ')
            .collect();
    let text = explained(&config, &arguments, "Subject: x\n\n.hello\n");
    let expected = r#"explain.1, session from TIME, client 192.0.2.1:0, greeting EHLO client.example, sender <a@evil.example>, 22 bytes
        at      took  (milliseconds since the session began, and for the answer)
S: 220 mx.example.org ESMTP Gatepost
C: EHLO client.example
S: 250-mx.example.org greets client.example
C: MAIL FROM:<a@evil.example> SIZE=26
tt mail       badmailfrom       fail, kept for the recipients, Your envelope sender is in my badmailfrom list (wanted: deny)
                        change karma -1
                        by badmailfrom (gatepost.toml:4)
S: 250 2.1.0 Sender OK
C: RCPT TO:<nobody@example.org>
t  rcpt       badmailfrom       fail, NAUGHTY, Your envelope sender is in my badmailfrom list, found at mail (wanted: deny)
                        by badmailfrom (gatepost.toml:4)
                        by reject = "naughty" (gatepost.toml:7)
                        by reject_type = "perm" (default)
tt rcpt       refuse_recipient  fail, no such user here => deny
                        by refuse_recipient (gatepost.toml:9)
                        by reject = true (default)
                        by reject_type = "perm" (default)
S: 550 5.7.1 no such user here
C: RCPT TO:<carol@example.org>
t  rcpt       badmailfrom       fail, NAUGHTY, Your envelope sender is in my badmailfrom list, found at mail (wanted: deny)
                        by badmailfrom (gatepost.toml:4)
                        by reject = "naughty" (gatepost.toml:7)
                        by reject_type = "perm" (default)
tt rcpt       refuse_recipient  skip, not listed
tt rcpt       rcpt_ok           pass, example.org in rcpthosts => ok
                        by rcpt_ok (gatepost.toml:15)
S: 250 2.1.5 Recipient OK
C: RCPT TO:<bob@example.org>
S: 452 4.5.3 This recipient has settings of its own; send it a message of its own
                        by mixed = "split" (default)
C: DATA
tt data_post  headers           fail, tolerated, the From header is missing (wanted: deny)
                        change karma -1
                        by headers (gatepost.toml:19)
                        by reject = false (gatepost.toml:22)
tt data_post  tag_header        pass, tagged with X-Gatepost-Tag
                        change add_header X-Gatepost-Tag: seen
tt data_post  naughty           fail, badmailfrom: Your envelope sender is in my badmailfrom list => deny
                        by naughty (gatepost.toml:29)
                        by reject = true (default)
S: 552 5.7.1 (badmailfrom) Your envelope sender is in my badmailfrom list

<nobody@example.org>: refused
    told: 550 5.7.1 no such user here
<bob@example.org>: put off
    told: 452 4.5.3 This recipient has settings of its own; send it a message of its own
<carol@example.org>: refused: naughty
    told: 552 5.7.1 (badmailfrom) Your envelope sender is in my badmailfrom list

explain.2, session from TIME, client 192.0.2.1:0, greeting EHLO client.example, sender <a@evil.example>
        at      took  (milliseconds since the session began, and for the answer)
S: 220 mx.example.org ESMTP Gatepost
C: EHLO client.example
S: 250-mx.example.org greets client.example
C: MAIL FROM:<a@evil.example> SIZE=26
tt mail  badmailfrom  fail, kept for the recipients, Your envelope sender is in my badmailfrom list (wanted: deny)
                        change karma -1
                        by badmailfrom (gatepost.toml:4)
S: 250 2.1.0 Sender OK
C: RCPT TO:<bob@example.org>
t  rcpt  badmailfrom  fail, Your envelope sender is in my badmailfrom list, found at mail => deny
                        by badmailfrom (gatepost.toml:4)
                        by [user."bob@example.org"] reject = true (gatepost.toml:38)
                        by reject_type = "perm" (default)
S: 550 5.7.1 Your envelope sender is in my badmailfrom list
C: RSET
S: 250 2.0.0 Reset

<bob@example.org>: refused
    told: 550 5.7.1 Your envelope sender is in my badmailfrom list
"#;
    let text = text.replace(&*dir.path().join("").to_string_lossy(), "");
    let (text, expected) = (masked(&text), expected.lines());
    for (line, expected) in text.lines().zip(expected.clone()) {
        assert_eq!(line, expected, "in\n{text}");
    }
    assert_eq!(text.lines().count(), expected.count(), "{text}");
    assert!(!dir.path().join("mail").exists());
}

/// Lines of it are places in what is expected.
const LIMITED: &str = r#"hostname = "mx.example.org"
spool_dir = "$DIR/spool"

[limits]
max_size = "1KB"

[[plugin]]
name = "rcpt_ok"
hosts = ["example.org"]

[[plugin]]
name = "queue/discard"

[user."bob@example.org"]
max_size = 50
"#;

#[test]
fn what_the_core_itself_refuses_has_its_settings() {
    let (_dir, config) = folder(LIMITED, &[]);
    let place = |line: &str| format!("({}:{line})", config.display());
    let long = format!("Subject: x\n\n{}\n", "y".repeat(60));
    let big = format!("Subject: x\n\n{}\n", "y".repeat(1200));
    let bob = format!("[user.\"bob@example.org\"] max_size = 50 {}", place("15"));
    let limits = format!("[limits] max_size = \"1KB\" {}", place("5"));
    for (to, message, reply, by) in [
        (
            "bob@example.org",
            &*long,
            "552 5.3.4 Message is bigger than 50 bytes, the most for this recipient",
            &*bob,
        ),
        ("carol@example.org", &*big, "552 5.3.4 ", &*limits),
        (
            "carol@example.org",
            "Subject: x\n\na\rb\n",
            "554 5.6.0 A CR stands alone; lines end in CRLF (RFC 5321 section 2.3.8)",
            "bare_newlines = \"reject\" (default)",
        ),
    ] {
        let arguments = [
            "--ip",
            "192.0.2.1",
            "--helo",
            "x",
            "--from",
            "a@b.example",
            "--rcpt",
            to,
        ];
        let text = explained(&config, &arguments, message);
        let mut lines = text.lines();
        let said = lines.find(|line| line.starts_with(&format!("S: {reply}")));
        assert!(said.is_some(), "{reply} in\n{text}");
        assert_eq!(
            lines.next().map(str::trim),
            Some(&*format!("by {by}")),
            "{text}"
        );
    }
}

#[test]
fn a_rehearsal_does_not_wait_for_what_delays_a_client() {
    const CONFIG: &str = r#"hostname = "mx.example.org"
spool_dir = "$DIR/spool"

[[plugin]]
name = "tarpit"
run = ["python3", "$DIR/tarpit.py"]
env = { PYTHONPATH = "$ROOT/sdk-python/src" }

[[plugin]]
name = "rcpt_ok"
hosts = ["example.org"]

[[plugin]]
name = "queue/discard"
"#;
    const TARPIT: &str = r#"import gatepost

@gatepost.hook("mail")
@gatepost.hook("data_post")
def slow(session):
    return gatepost.passed("suspicious").delayed(200)

gatepost.run()
"#;
    let (_dir, config) = folder(CONFIG, &[("tarpit.py", TARPIT)]);
    let arguments: Vec<&str> =
        "--ip 192.0.2.1 --helo client.example --from a@b.example --rcpt bob@example.org"
            .split(' ')
            .collect();
    let begun = Instant::now();
    let text = explained(&config, &arguments, "Subject: x\n\n");
    assert_eq!(text.matches("change delay 200s").count(), 2, "{text}");
    assert!(begun.elapsed() < Duration::from_secs(200), "it has waited");
}

#[test]
fn it_says_why_a_client_is_let_be_and_why_not() {
    const CONFIG: &str = r#"hostname = "mx.example.org"
spool_dir = "$DIR/spool"

[[plugin]]
name = "lists"
run = ["python3", "$DIR/lists.py"]
env = { PYTHONPATH = "$ROOT/sdk-python/src" }

[[plugin]]
name = "badmailfrom"
addresses = ["@evil.example"]

[[plugin]]
name = "badmailfrom:2"
addresses = ["@evil.example"]
immune = "tolerate"

[[plugin]]
name = "badrcptto"
addresses = ["@example.org"]
immune = false
"#;
    const LISTS: &str = r#"import gatepost

@gatepost.hook("mail")
def mail(session):
    session.set_whitelisted("a good sender", scope="transaction")

gatepost.run()
"#;
    let (dir, config) = folder(CONFIG, &[("lists.py", LISTS)]);
    let arguments: Vec<&str> =
        "--ip 192.0.2.1 --helo client.example --from a@evil.example --rcpt bob@example.org"
            .split(' ')
            .collect();
    let text = explained(&config, &arguments, "Subject: x\n\n");
    let text = masked(&text.replace(&*dir.path().join("").to_string_lossy(), ""));
    let expected = r#"C: MAIL FROM:<a@evil.example> SIZE=17
tt mail  lists          nothing to say
                        change whitelisted: a good sender (transaction)
t  mail  badmailfrom    skip, a good sender
                        by immune = "skip" (the plugin's default)
tt mail  badmailfrom:2  fail, tolerated (a good sender), Your envelope sender is in my badmailfrom list (wanted: deny)
                        change karma -1
                        by badmailfrom:2 (gatepost.toml:13)
                        by immune = "tolerate" (gatepost.toml:16)
S: 250 2.1.0 Sender OK
C: RCPT TO:<bob@example.org>
tt rcpt  badrcptto      fail, mail to bob@example.org not accepted here => deny
                        change karma -2
                        by badrcptto (gatepost.toml:18)
                        by immune = false (gatepost.toml:21)
                        by reject = true (default)
                        by reject_type = "perm" (default)
S: 550 5.1.1 mail to bob@example.org not accepted here
"#;
    assert!(text.contains(expected), "{text}");
}

/// Nothing is read from standard input; `what` is a message or a session.
fn looked_up(server: &Server, what: &str) -> Output {
    explain(&server.dir().join("gatepost.toml"), &[what], "")
}

/// What is printed about something that is in the journal, or soon will be.
fn found(server: &Server, what: &str) -> String {
    until(what, || {
        let output = looked_up(server, what);
        let text = String::from_utf8(output.stdout).unwrap();
        Some(text).filter(|_| output.status.success())
    })
}

#[test]
fn a_message_is_found_by_what_its_client_was_told_even_after_a_kill() {
    let mut server = Server::start(
        "journal = '8MB'\n[[plugin]]\nname = 'rcpt_ok'\n[[plugin]]\nname = 'queue/discard'",
    );
    let mut client = Client::greet(server.address());
    let reply = client.deliver(b"Subject: x\r\n\r\nhello\r\n");
    let id = reply.trim_end().rsplit(' ').next().unwrap();
    client.open_message();
    found(&server, id);
    server.signal(Signal::SIGKILL);
    server.wait();
    let text = found(&server, id);
    assert!(text.starts_with(&format!("{id}, session from ")), "{text}");
    let place = server.dir().join("gatepost.toml");
    let place = format!("by queue/discard ({}:", place.display());
    for line in [
        "greeting EHLO client.example, sender <alice@client.example>, 21 bytes\n",
        "C: RCPT TO:<bob@example.org>\n",
        " rcpt_ok        pass, example.org in rcpthosts => ok\n",
        " queue/discard  pass, discarded => ok\n",
        &place,
        &format!("\nS: 250 2.0.0 Queued as {id}\n"),
        "\n<bob@example.org>: queued by queue/discard\n",
    ] {
        assert!(text.contains(line), "{line} not in\n{text}");
    }
    let session = id.split_once('.').unwrap().0;
    assert_eq!(found(&server, session), text);
    let missing = looked_up(&server, "ffffff.99");
    assert_eq!(missing.status.code(), Some(1));
    let why = String::from_utf8(missing.stderr).unwrap();
    assert!(why.starts_with("ffffff.99 is not in the journal "), "{why}");
    assert!(why.contains(", which reaches back to 2"), "{why}");
}

/// All that is in the journal, and how many bytes its files have.
fn journal(server: &Server) -> (String, usize) {
    let files = files(&server.dir().join("spool/journal"));
    let read = files.iter().map(std::fs::read_to_string);
    // The daemon may remove one meanwhile.
    let text: String = read.map(Result::unwrap_or_default).collect();
    let size = text.len();
    (text, size)
}

#[test]
fn many_sessions_keep_the_journal_under_its_size() {
    // No plugin takes recipients: each gets 450, and a place in the record.
    let server = Server::start("journal = '8MB'\n[[plugin]]\nname = 'queue/discard'");
    let (local, domain) = ("r".repeat(60), "d".repeat(60));
    let recipients: String = (0..1000)
        .map(|number| format!("RCPT TO:<{local}{number}@{domain}.example>\r\n"))
        .collect();
    for session in 0..50 {
        let mut client = Client::connect(server.address());
        client.ask(&format!("EHLO number{session}.example"), "250");
        client.ask("MAIL FROM:<a@b>", "250");
        client.send(recipients.as_bytes());
        for _ in 0..1000 {
            client.expect("450");
        }
        client.ask("QUIT", "221");
        let (_, size) = journal(&server);
        assert!(size <= 8 << 20, "{size} bytes after {session} sessions");
    }
    let text = until("the last record", || {
        let (text, _) = journal(&server);
        Some(text).filter(|text| text.contains("EHLO number49.example"))
    });
    assert!(text.len() > 6 << 20, "{} bytes are left", text.len());
    assert!(!text.contains("EHLO number0.example"));
}

#[test]
fn no_secret_is_in_the_journal() {
    let server = Server::start(
        r#"
journal = "8MB"

[[listen]]
auth = "always"

[auth]
mechanisms = ["CRAM-MD5", "PLAIN", "LOGIN"]

[files]
"config/flat_auth_pw" = "bob:sesame\n"

[[plugin]]
name = "auth/auth_flat_file"

[[plugin]]
name = "rcpt_ok"

[[plugin]]
name = "queue/discard"
"#,
    );
    let mut client = Client::greet(server.address());
    // \0bob\0guess, then bob and sesame in turn.
    client.ask("AUTH PLAIN AGJvYgBndWVzcw==", "535");
    client.ask("AUTH LOGIN", "334");
    client.ask("Ym9i", "334");
    client.ask("c2VzYW1l", "235");
    // From a client that lost its way.
    client.ask("c2VzYW1l", "500");
    let reply = client.deliver(b"Subject: x\r\n\r\nthe body\r\n");
    let id = reply.trim_end().rsplit(' ').next().unwrap();
    let text = found(&server, id);
    for line in [
        "user bob",
        "C: AUTH PLAIN\n",
        " auth/auth_flat_file  ",
        "C: (no command)\n",
    ] {
        assert!(text.contains(line), "{line} not in\n{text}");
    }
    client.ask("AUTH", "503");
    client.ask("QUIT", "221");
    let (text, _) = journal(&server);
    for secret in ["sesame", "guess", "c2VzYW1l", "AGJvYgBndWVzcw", "the body"] {
        assert!(!text.contains(secret), "{secret} in {text}");
    }
}

#[test]
fn without_the_setting_there_is_no_journal() {
    let server = Server::start("[[plugin]]\nname = 'rcpt_ok'\n[[plugin]]\nname = 'queue/discard'");
    Client::greet(server.address()).deliver(b"Subject: x\r\n\r\n");
    assert!(!server.dir().join("spool/journal").exists());
    let output = looked_up(&server, "ffffff.1");
    assert_eq!(output.status.code(), Some(1));
    let why = String::from_utf8(output.stderr).unwrap();
    assert!(why.contains("no journal is kept: set `journal = "), "{why}");
}

#[test]
fn addresses_that_a_plugin_sets_are_shown_and_hold() {
    let config = r#"hostname = "mx.example.org"
spool_dir = "$DIR/spool"

[[plugin]]
name = "knows"
run = ["perl", "$ROOT/sdk-perl/bin/gatepost-perl"]
source = "$DIR/knows"

[[plugin]]
name = "relay"
clients = ["198.51.100.0/24"]

[[plugin]]
name = "queue/discard"
"#;
    let knows = "sub hook_pre_connection {
        my $connection = $_[0]->connection;
        $connection->remote_ip('198.51.100.7');
        $connection->local_port(26);
        $connection->remote_info('alice');
        return DECLINED;
    }";
    let (_dir, config) = folder(config, &[("knows", knows)]);
    let from = "--ip 192.0.2.1 --helo client.example --from alice@client.example --rcpt bob@elsewhere.example";
    let arguments: Vec<&str> = from.split(' ').collect();
    let text = masked(&explained(&config, &arguments, "Subject: x\n\nhello\n"));
    let expected = "tt pre_connection  knows  nothing to say
                        change remote 198.51.100.7
                        change local port 26
                        change remote_info alice
tt connect         relay  pass, 198.51.100.0/24 may relay
";
    assert!(text.contains(expected), "{text}");
    assert!(text.contains("client 198.51.100.7:0, "), "{text}");
}
