//! What a client or a plugin sends forges nothing: no reply, no header field, no line of the log, no record and no file.
//!
//! Every field that either can set gets the same hostile text; then all that the daemon wrote is looked through.

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use gatepost_tests::programs;
use gatepost_tests::server::{Server, gatepost};
use gatepost_tests::wait::{PATIENCE, until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Ends lines in every way, begins with what is a reply, a field, a line of the log and a path, and holds what a terminal obeys.
const EVIL: &[u8] =
    b"x\r\nX-Forged: 1\r\n250 forged\n2001-01-01T00:00:00.000Z - forged\r\x1b[31m\0\x07\x7f\xc2\x9b\xff\xe2\x80\xa8../../../forged/..";

/// What a plugin does to the transaction whose sender is its name. They go past the SDK, which refuses much of it.
const CHANGES: &[(&str, &str)] = &[
    (
        "header-value",
        "{'op': 'add_header', 'name': 'X-Plugin', 'value': EVIL, 'at': 'top'}",
    ),
    (
        "header-name",
        "{'op': 'add_header', 'name': EVIL, 'value': 'x', 'at': 'top'}",
    ),
    (
        "header-bottom",
        "{'op': 'add_header', 'name': 'X-Plugin: x\\r\\nX-Forged', 'value': 'x', 'at': 'bottom'}",
    ),
    (
        "header-replaced",
        "{'op': 'replace_header', 'name': 'Subject', 'value': EVIL, 'nth': 1}",
    ),
    (
        "header-end",
        "{'op': 'add_header', 'name': 'X-Plugin', 'value': 'x\\r\\n\\r\\nX-Forged: 1', 'at': 'top'}",
    ),
    (
        "recipient",
        "{'op': 'add_recipient', 'address': EVIL + '@example.org'}",
    ),
    (
        "recipient-path",
        "{'op': 'add_recipient', 'address': '../../forged@example.org'}",
    ),
    (
        "sender",
        "{'op': 'set_sender', 'address': EVIL + '@example.org'}",
    ),
    ("quarantine", "{'op': 'quarantine', 'reason': EVIL}"),
    ("route", "{'op': 'route', 'route': EVIL}"),
    (
        "note",
        "{'op': 'note', 'scope': 'transaction', 'name': EVIL, 'value': EVIL}",
    ),
    ("naughty", "{'op': 'naughty', 'message': EVIL}"),
    ("auth-result", "{'op': 'auth_result', 'text': EVIL}"),
    ("remote-host", "{'op': 'remote_host', 'name': EVIL}"),
    ("remote-info", "{'op': 'remote_info', 'info': EVIL}"),
    ("score", "{'op': 'score', 'points': 1000, 'reason': EVIL}"),
    ("immune", "{'op': 'immune', 'reason': EVIL}"),
    (
        "long",
        "{'op': 'add_header', 'name': 'X-Plugin', 'value': EVIL * 1000, 'at': 'top'}",
    ),
];

/// The sender of a message that one of its recipients refuses: he is told why.
const BOUNCE: &str = "bounce";

/// Who may say for whom he speaks, by a PROXY header.
const PROXY: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// What a plugin answers after the message whose sender is its name.
const ANSWERS: &[(&str, &str)] = &[
    ("deny", "gatepost.deny(reply=EVIL, message=EVIL)"),
    ("denysoft", "gatepost.denysoft(reply=EVIL, message=EVIL)"),
    ("fail", "gatepost.fail(EVIL, reply=EVIL)"),
    ("error", "gatepost.error(EVIL)"),
    ("passed", "gatepost.passed(EVIL)"),
    ("long-reply", "gatepost.deny(reply=EVIL * 1000)"),
    ("withheld", "gatepost.quarantine(EVIL)"),
    ("held", "gatepost.hold(EVIL)"),
    (
        BOUNCE,
        "gatepost.passed('x').for_recipient('carol@example.org', gatepost.deny(reply=EVIL, message=EVIL))",
    ),
];

const HEAD: &str = r#"
journal = "8MB"
log_format = "text"
loglevel = "debug"
mixed = "bounce"
[auth]
mechanisms = ["PLAIN", "LOGIN"]
[[listen]]
proxy_from = ["127.0.0.2"]
xclient_from = ["127.0.0.1"]
xforward_from = ["127.0.0.1"]
auth = "always"
[files]
"evil.py" = '''
import gatepost, sys

EVIL = bytes.fromhex("EVIL_HEX").decode("utf-8", "replace")
CHANGES = {CHANGES}
ANSWERS = {ANSWERS}

def name(session):
    return str(session.sender or "").partition("@")[0].strip("<")

@gatepost.hook("vrfy")
def vrfy(session):
    return gatepost.ok(reply=EVIL)

@gatepost.hook("auth")
def auth(session):
    return gatepost.deny(reply=EVIL)

@gatepost.hook("data_post", fields=["sender"])
def data_post(session):
    session.log(EVIL)
    print(EVIL, file=sys.stderr)
    change = CHANGES.get(name(session))
    if change:
        session._turn.change(change)
    answer = ANSWERS.get(name(session))
    return answer() if answer else None

gatepost.run()
'''
[[plugin]]
name = "evil"
run = ["python3", "$DIR/evil.py"]
env = { PYTHONPATH = "$ROOT/sdk-python/src" }
[[plugin]]
name = "rcpt_ok"
[[plugin]]
name = "queue/maildir"
path = "$DIR/mail/{local}"
create = true
"#;

/// A client that says what it likes, and looks at every reply.
struct Stranger(BufReader<TcpStream>);

impl Stranger {
    fn connect(address: SocketAddr) -> Stranger {
        Stranger::with(TcpStream::connect(address).unwrap(), b"")
    }

    /// One behind a proxy that says this of it first.
    fn behind_a_proxy(address: SocketAddr, says: &[u8]) -> Stranger {
        use rustix::net::{AddressFamily, SocketType, bind, connect, socket};
        let socket = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
        bind(&socket, &SocketAddr::from((PROXY, 0))).unwrap();
        connect(&socket, &address).unwrap();
        Stranger::with(TcpStream::from(socket), says)
    }

    fn with(mut stream: TcpStream, says: &[u8]) -> Stranger {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(says).unwrap();
        let mut stranger = Stranger(BufReader::new(stream));
        stranger.replies(1);
        stranger
    }

    fn say(&mut self, line: &[u8]) {
        // The daemon may have had enough.
        let _ = self.0.get_mut().write_all(&[line, b"\r\n"].concat());
    }

    /// Reads so many replies, or all where the daemon hangs up; the last of them.
    fn replies(&mut self, count: usize) -> String {
        let mut last = String::new();
        for _ in 0..count {
            loop {
                let mut line = Vec::new();
                match self.0.read_until(b'\n', &mut line) {
                    Ok(0) | Err(_) => return last,
                    Ok(_) => {}
                }
                let text = String::from_utf8(line).expect("a reply is UTF-8");
                let is_reply = text.len() <= 512
                    && text[..3].bytes().all(|byte| byte.is_ascii_digit())
                    && matches!(text.as_bytes()[3], b' ' | b'-')
                    && !text.starts_with("250 forged");
                assert!(is_reply, "{text:?}");
                let inside = text.strip_suffix("\r\n").expect("a reply ends with CRLF");
                assert!(!inside.chars().any(char::is_control), "{text:?}");
                let is_last = text.as_bytes()[3] == b' ';
                last = text;
                if is_last {
                    break;
                }
            }
        }
        last
    }

    fn ask(&mut self, line: &[u8]) -> String {
        self.say(line);
        self.replies(1)
    }
}

/// The hostile text as one line of a client: what ends lines for it is out, since it would only be the next command.
fn line() -> Vec<u8> {
    let inside = |byte: &u8| *byte != b'\n' && *byte != b'\r';
    EVIL.iter().copied().filter(inside).collect()
}

fn clients(address: SocketAddr) {
    let evil = line();
    let with = |before: &str, after: &str| [before.as_bytes(), &evil, after.as_bytes()].concat();
    let base64 = |bytes: &[u8]| data_encoding::BASE64.encode(bytes);
    let commands = [
        with("EHLO ", ""),
        with("HELO ", ""),
        with("MAIL FROM:<", "@example.org>"),
        with("MAIL FROM:<\"", "\"@example.org>"),
        with("MAIL FROM:<a@b> BODY=", ""),
        with("MAIL FROM:<a@b> ENVID=", ""),
        with("MAIL FROM:<a@b> AUTH=", ""),
        with("RCPT TO:<", "@example.org>"),
        with("RCPT TO:<\"", "\"@example.org>"),
        with("RCPT TO:<bob@example.org> ORCPT=rfc822;", ""),
        with("VRFY ", ""),
        with("NOOP ", ""),
        with("HELP ", ""),
        with("XCLIENT NAME=", ""),
        with("XCLIENT ADDR=192.0.2.1 LOGIN=", ""),
        b"XCLIENT NAME=a+0D+0AX-Forged:+201+0D+0A250+20forged+1B HELO=x+0AX-Forged LOGIN=..+2F..+2Fforged".to_vec(),
        b"XFORWARD NAME=a+0D+0AX-Forged:+201 IDENT=x+0A2001-01-01 SOURCE=x+1B".to_vec(),
        with("AUTH PLAIN ", ""),
        format!("AUTH PLAIN {}", base64(&with("\0", "\0secret"))).into_bytes(),
        format!("AUTH PLAIN {}", base64(b"\0../../forged\r\nX-Forged: 1\0x")).into_bytes(),
        with("", ""),
        [&b"EHLO "[..], &b"x".repeat(1900)].concat(),
        [&b"MAIL FROM:<"[..], &b"x".repeat(1800), b"@example.org>"].concat(),
    ];
    for command in commands {
        let mut stranger = Stranger::connect(address);
        stranger.ask(b"EHLO client.example");
        let reply = stranger.ask(&command);
        assert!(!reply.is_empty(), "{}", command.escape_ascii());
        // Whatever was believed of it is to be in a trace field and in the log.
        stranger.ask(b"EHLO client.example");
        stranger.ask(b"MAIL FROM:<client@example.org>");
        if stranger
            .ask(b"RCPT TO:<bob@example.org>")
            .starts_with("250")
            && stranger.ask(b"DATA").starts_with("354")
        {
            stranger.ask(b"Subject: x\r\n\r\nhello\r\n.");
        }
    }
    for recipient in [
        "../../forged",
        "\"../../forged\"",
        "\"..\\/..\\/forged\"",
        "..",
        "\"..\"",
        ".",
        "\"a/../../forged\"",
    ] {
        let mut stranger = Stranger::connect(address);
        stranger.ask(b"EHLO client.example");
        stranger.ask(b"MAIL FROM:<client@example.org>");
        if stranger
            .ask(format!("RCPT TO:<{recipient}@example.org>").as_bytes())
            .starts_with("250")
            && stranger.ask(b"DATA").starts_with("354")
        {
            stranger.ask(b"Subject: x\r\n\r\nhello\r\n.");
        }
    }
}

fn plugins(address: SocketAddr) {
    for (name, _) in CHANGES.iter().chain(ANSWERS) {
        let mut stranger = Stranger::connect(address);
        stranger.ask(b"EHLO client.example");
        stranger.ask(b"VRFY bob");
        stranger.ask(format!("MAIL FROM:<{name}@client.example>").as_bytes());
        stranger.ask(b"RCPT TO:<bob@example.org>");
        if *name == BOUNCE {
            stranger.ask(b"RCPT TO:<carol@example.org>");
        }
        assert!(stranger.ask(b"DATA").starts_with("354"), "{name}");
        let reply = stranger.ask(b"Subject: mine\r\nX-Last: mine\r\n\r\nthe body\r\n.");
        assert!(!reply.is_empty(), "{name}");
    }
}

/// A proxy's word for a client, as text (version 1) and in binary (version 2, with a TLV that is a host name).
fn proxies(address: SocketAddr) {
    let evil = line();
    let text = |before: &str, after: &str| [before.as_bytes(), &evil, after.as_bytes()].concat();
    let tlv = [&[2, 0, u8::try_from(EVIL.len()).unwrap()], EVIL].concat();
    let length = u16::try_from(12 + tlv.len()).unwrap().to_be_bytes();
    let mut binary = b"\r\n\r\n\0\r\nQUIT\n\x21\x11".to_vec();
    binary.extend_from_slice(&length);
    binary.extend_from_slice(&[192, 0, 2, 1, 192, 0, 2, 2, 0, 25, 0, 25]);
    binary.extend_from_slice(&tlv);
    let mut believed = 0;
    for header in [
        text("PROXY TCP4 ", " 192.0.2.2 25 25\r\n"),
        text("PROXY TCP4 192.0.2.1 192.0.2.2 25 ", "\r\n"),
        b"PROXY TCP4 192.0.2.1\nX-Forged: 1 192.0.2.2 25 25\r\n".to_vec(),
        b"PROXY TCP4 192.0.2.1 192.0.2.2 25 25\r\n250 forged\r\n".to_vec(),
        binary,
    ] {
        let mut stranger = Stranger::behind_a_proxy(address, &header);
        stranger.ask(b"EHLO client.example");
        stranger.ask(b"MAIL FROM:<client@example.org>");
        stranger.ask(b"RCPT TO:<bob@example.org>");
        if stranger.ask(b"DATA").starts_with("354") {
            stranger.ask(b"Subject: x\r\n\r\nhello\r\n.");
            believed += 1;
        }
    }
    assert_eq!(
        believed, 1,
        "the one in binary, whose extensions say nothing to us"
    );
}

/// All files below a folder.
fn all_files(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap().flatten() {
        let path = entry.path();
        if entry.file_type().unwrap().is_dir() {
            all_files(&path, found);
        }
        found.push(path);
    }
}

fn assert_whole(text: &str, what: &str) {
    for line in text.split('\n') {
        let begins = ["X-Forged", "250 forged", "2001-01-01"];
        assert!(
            !begins.iter().any(|forged| line.starts_with(forged)),
            "{what}: {line:?}"
        );
        assert!(!line.chars().any(char::is_control), "{what}: {line:?}");
    }
}

fn head() -> String {
    let table = |rows: &[(&str, &str)], before: &str| {
        let rows = rows
            .iter()
            .map(|(name, value)| format!("\"{name}\": {before}{value}"));
        format!("{{{}}}", rows.collect::<Vec<_>>().join(", "))
    };
    let hex: String = EVIL.iter().map(|byte| format!("{byte:02x}")).collect();
    HEAD.replace("EVIL_HEX", &hex)
        .replace("{CHANGES}", &table(CHANGES, ""))
        .replace("{ANSWERS}", &table(ANSWERS, "lambda: "))
}

/// Plays it all against a daemon in the same folder that logs JSON; what it logged.
fn log_in_json(dir: &Path) -> String {
    let (config, log) = (dir.join("gatepost.toml"), dir.join("json.log"));
    let address = programs::free_address();
    let text = std::fs::read_to_string(&config).unwrap();
    let text = text.replace("log_format = \"text\"", "log_format = \"json\"");
    let text = text.replace("127.0.0.1:0", &address.to_string());
    std::fs::write(&config, text).unwrap();
    let stderr = Stdio::from(std::fs::File::create(&log).unwrap());
    let mut command = Command::new(gatepost());
    command.args(["run", "-c"]).arg(&config).current_dir(dir);
    let mut daemon = command.stdin(Stdio::null()).stderr(stderr).spawn().unwrap();
    let played = std::panic::catch_unwind(|| {
        until("the daemon to listen", || TcpStream::connect(address).ok());
        clients(address);
        plugins(address);
    });
    kill(Pid::from_raw(daemon.id().cast_signed()), Signal::SIGTERM).unwrap();
    daemon.wait().unwrap();
    played.unwrap();
    String::from_utf8(std::fs::read(&log).unwrap()).expect("the log is UTF-8")
}

/// The messages that were delivered, whose bodies are as they were sent and whose headers nobody added a line to; how many.
fn messages(dir: &Path) -> usize {
    let mut files = Vec::new();
    all_files(&dir.join("mail"), &mut files);
    // A Maildir's folder has a file beside its messages that says what it is.
    files.retain(|file| file.is_file() && !file.ends_with("maildirfolder"));
    for file in &files {
        let text = String::from_utf8(std::fs::read(file).unwrap()).expect("it is UTF-8");
        let (header, body) = text
            .split_once("\r\n\r\n")
            .unwrap_or_else(|| panic!("no header and body in {}: {text:?}", file.display()));
        let is_notification = header.contains("multipart/report");
        assert!(
            is_notification || matches!(body, "hello\r\n" | "the body\r\n"),
            "{text:?}"
        );
        // Every line of a notification is ours, but for the header that it gives back.
        let ours = if is_notification { &*text } else { header };
        for line in ours.split("\r\n") {
            assert!(
                !line.starts_with("X-Forged") && !line.starts_with("250 "),
                "{text:?}"
            );
            assert!(
                !line.chars().any(|it| it.is_control() && it != '\t'),
                "{text:?}"
            );
        }
    }
    files.len()
}

/// The records of the journal, each one line; how many.
fn records(server: &Server) -> usize {
    let mut files = Vec::new();
    all_files(&server.dir().join("spool/journal"), &mut files);
    let texts = files
        .iter()
        .map(|file| std::fs::read_to_string(file).expect("it is UTF-8"));
    let mut count = 0;
    for line in texts.collect::<String>().lines() {
        let record: serde_json::Value = serde_json::from_str(line).expect("a record is JSON");
        count += 1;
        let Some(id) = record["id"].as_str() else {
            continue;
        };
        let (_, text, _) = server.command(&["explain", id]);
        assert_whole(&text, "the explanation");
    }
    count
}

#[test]
fn whatever_a_client_or_a_plugin_sends() {
    let mut server = Server::start(&head());
    clients(server.address());
    plugins(server.address());
    proxies(server.address());
    let _file = until("the notification", || {
        let new = server.dir().join("mail").join(BOUNCE).join("new");
        std::fs::read_dir(new).ok()?.next()?.ok()
    });
    for command in [["quarantine", "list"], ["outbox", "list"]] {
        let (code, text, errors) = server.command(&command);
        assert_eq!(code, Some(0), "{errors}");
        assert_whole(&text, "a list");
    }
    server.stop();
    let log = server.log();
    assert!(
        log.iter().any(|line| line.contains("forged")),
        "it came that far"
    );
    for line in &log {
        assert_whole(line, "the log");
        assert!(
            line.starts_with("20") && line.as_bytes().get(23) == Some(&b'Z'),
            "{line}"
        );
    }
    assert!(records(&server) > 20);
    let json = log_in_json(server.dir());
    assert!(json.contains("forged"), "it came that far");
    for line in json.lines() {
        assert_whole(line, "the log");
        let parsed = serde_json::from_str::<serde_json::Value>(line);
        assert!(parsed.is_ok(), "{line}");
    }
    assert!(messages(server.dir()) > 20);
    let mut files = Vec::new();
    all_files(server.dir(), &mut files);
    for file in files {
        let name = file.strip_prefix(server.dir()).unwrap().to_string_lossy();
        assert!(!name.chars().any(char::is_control), "{name:?}");
    }
    for place in ["forged", "../forged", "../../forged", "forged/.."] {
        assert!(!server.dir().join(place).exists(), "{place}");
    }
}
