//! `gatepost upgrade`: a new process takes the place of the daemon while clients come and go, and one that cannot changes nothing (docs/running.md).
//!
//! `ROUNDS=100` upgrades more often; with `--nocapture` it says what it did.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use gatepost::cli::transcript::files;
use gatepost_tests::server::{Server, gatepost};
use gatepost_tests::smtp::Client;
use gatepost_tests::wait::until;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const CLIENTS: usize = 4;

/// Says 4yz to every other recipient, or so.
const FICKLE: &str = r#"
[files]
"fickle.py" = '''
import gatepost, random

@gatepost.hook("rcpt")
def rcpt(session):
    return random.choice([gatepost.denysoft("not now"), gatepost.declined()])

gatepost.run()
'''
[[plugin]]
name = "fickle"
run = ["python3", "$DIR/fickle.py"]
env = { PYTHONPATH = "$ROOT/sdk-python/src" }
[[plugin]]
name = "rcpt_ok"
[[plugin]]
name = "queue/maildir"
"#;

/// Bob's mail goes into a Maildir, Carol's to a server that takes it at the second attempt or a later one, so that the outbox has always something.
const HEAD: &str = r#"
journal = "8MB"
mixed = "bounce"
[outbox]
retry = "1s"
retry_max = "1s"
[limits]
memory_per_message = "1KB"
[files]
"look.py" = '''
import gatepost

@gatepost.hook("data_post", fields=["size"])
def data_post(session):
    session.add_header("X-Size", str(session.size))
    return gatepost.passed("measured")

gatepost.run()
'''
[[plugin]]
name = "look"
run = ["python3", "$DIR/look.py"]
env = { PYTHONPATH = "$ROOT/sdk-python/src" }
[[plugin]]
name = "rcpt_ok"
[[plugin]]
name = "queue/maildir"
path = "$DIR/mail/{local}"
[[user."carol@example.org".plugin]]
name = "queue/smtp-forward"
server = "127.0.0.1"
port = PORT
"#;

const SMALL: &str = "[[plugin]]\nname = \"rcpt_ok\"\n[[plugin]]\nname = \"queue/maildir\"\n";

/// The daemons that took over; they are nobody's children. The last is killed when dropped.
struct Daemons<'a> {
    server: &'a Server,
    all: Mutex<Vec<Pid>>,
}

impl Daemons<'_> {
    fn of(server: &Server) -> Daemons<'_> {
        let all = Mutex::new(vec![server.pid()]);
        Daemons { server, all }
    }

    fn upgrade(&self) {
        let (code, text, errors) = self.server.command(&["upgrade"]);
        assert_eq!((code, &*errors), (Some(0), ""), "{:#?}", self.server.log());
        let pid = text
            .strip_prefix("process ")
            .and_then(|rest| rest.split(' ').next()?.parse().ok());
        let pid = pid.unwrap_or_else(|| panic!("who? {text}"));
        self.all.lock().unwrap().push(Pid::from_raw(pid));
    }

    fn last(&self) -> Pid {
        *self.all.lock().unwrap().last().expect("there is one")
    }

    /// Waits for the end of all but the last.
    fn settle(&self) {
        let all = self.all.lock().unwrap();
        let (_, gone) = all.split_last().expect("there is one");
        for pid in gone {
            until("the end of a daemon that was replaced", || {
                (!runs(*pid)).then_some(())
            });
        }
    }
}

impl Drop for Daemons<'_> {
    fn drop(&mut self) {
        for pid in self.all.lock().unwrap().iter().skip(1) {
            let _ = kill(*pid, Signal::SIGKILL);
        }
    }
}

/// Whether a process is there, and no zombie.
fn runs(pid: Pid) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"));
    status.is_ok_and(|status| !status.contains("State:\tZ"))
}

/// How often each message is below a folder.
fn delivered(mail: &Path) -> BTreeMap<String, usize> {
    let mut times = BTreeMap::new();
    for file in files(mail) {
        let text = std::fs::read_to_string(&file).expect("a delivered message can be read");
        let id = text
            .split("X-Id: ")
            .nth(1)
            .and_then(|rest| rest.split_once(';'));
        let (id, rest) = id.unwrap_or_else(|| panic!("cut off: {}", file.display()));
        assert!(rest.ends_with(&body(id)), "cut off: {id}");
        *times.entry(id.to_owned()).or_default() += 1;
    }
    times
}

fn body(id: &str) -> String {
    let line = format!("{}\r\n", "x".repeat(70));
    line.repeat(if id.ends_with(['1', '3', '5', '7', '9']) {
        40
    } else {
        5
    })
}

/// Sessions of one or of several messages until it is over; what was acknowledged.
fn client(server: std::net::SocketAddr, name: &str, is_over: &AtomicBool) -> Vec<String> {
    let mut acknowledged = Vec::new();
    while !is_over.load(Ordering::Relaxed) {
        let mut client = Client::greet(server);
        for _ in 0..1 + acknowledged.len() % 5 {
            let id = format!("{name}.{}", acknowledged.len());
            client.ask("MAIL FROM:<alice@client.example>", "250");
            client.ask("RCPT TO:<bob@example.org>", "250");
            client.ask("RCPT TO:<carol@example.org>", "250");
            client.ask("DATA", "354");
            let message = format!("X-Id: {id};\r\n\r\n{}.\r\n", body(&id));
            client.send(message.as_bytes());
            client.expect("250");
            acknowledged.push(id);
        }
        client.ask("QUIT", "221");
    }
    acknowledged
}

#[test]
fn under_load_no_session_fails_and_each_message_is_there_once() {
    let rounds = std::env::var("ROUNDS").map_or(10, |rounds| rounds.parse().expect("a number"));
    let next = Server::start(FICKLE);
    let server = Server::start(&HEAD.replace("PORT", &next.address().port().to_string()));
    let daemons = Daemons::of(&server);
    let (address, is_over) = (server.address(), AtomicBool::new(false));
    let sent: Vec<String> = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|number| {
                let is_over = &is_over;
                scope.spawn(move || client(address, &number.to_string(), is_over))
            })
            .collect();
        // However it goes, clients are to come to an end.
        let upgraded = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for _ in 0..rounds {
                std::thread::sleep(Duration::from_millis(200));
                daemons.upgrade();
            }
        }));
        is_over.store(true, Ordering::Relaxed);
        upgraded.expect("no upgrade fails");
        let sent = clients
            .into_iter()
            .flat_map(|it| it.join().expect("no session fails"));
        sent.collect()
    });
    daemons.settle();
    let bob = delivered(&server.stage().mail.join("bob/new"));
    let waiting = Instant::now() + Duration::from_secs(60);
    let carol = loop {
        let carol = delivered(&next.stage().mail.join("new"));
        if carol.len() >= sent.len() || Instant::now() > waiting {
            break carol;
        }
        std::thread::sleep(Duration::from_millis(100));
    };
    let (code, waits, _) = server.command(&["outbox", "list"]);
    assert_eq!(code, Some(0), "{waits}");
    for (name, mail) in [("bob", &bob), ("carol", &carol)] {
        for id in &sent {
            assert_eq!(
                mail.get(id),
                Some(&1),
                "{id} for {name}; in the outbox: {waits}"
            );
        }
        assert_eq!(mail.len(), sent.len(), "{name}");
    }
    assert!(server.spooled().is_empty(), "{:?}", server.spooled());
    println!(
        "{rounds} upgrades, {} messages, 0 lost, 0 twice, no session failed",
        sent.len()
    );
    assert!(sent.len() > rounds, "there was hardly any load");
}

#[test]
fn what_is_under_way_is_finished_by_the_old_and_the_idle_are_told() {
    let server = Server::start(SMALL);
    let daemons = Daemons::of(&server);
    let (mut idle, mut sending) = (
        Client::greet(server.address()),
        Client::greet(server.address()),
    );
    sending.open_message();
    sending.send(b"Subject: on its way\r\n\r\nhalf of it\r\n");
    daemons.upgrade();
    let mut new = Client::greet(server.address());
    assert!(new.deliver(b"Subject: new\r\n\r\n").starts_with("250 "));
    // It had some seconds to go on by itself.
    idle.expect("421");
    sending.send(b"the other half\r\n.\r\n");
    sending.expect("250");
    daemons.settle();
    new.ask("NOOP", "250");
    assert_eq!(server.delivered().len(), 2);
    let (code, _, errors) = server.command(&["reload"]);
    assert_eq!((code, &*errors), (Some(0), ""), "the new one is asked");
    assert!(runs(daemons.last()));
}

/// Puts a program in the place of the one that the daemon was started from.
fn replace(program: &Path, text: &str) {
    use std::os::unix::fs::PermissionsExt;
    let new = program.with_extension("new");
    std::fs::write(&new, text).unwrap();
    std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::rename(new, program).unwrap();
}

#[test]
fn a_new_program_that_fails_changes_nothing() {
    // By a link of its own, which an upgrade follows anew.
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("gatepost");
    std::os::unix::fs::symlink(gatepost(), &program).unwrap();
    let server = Server::start_inside(SMALL, |_| {
        // The daemon's own words follow: the link takes the place of its program.
        let swap = format!("shift; exec '{}' \"$@\"", program.display());
        vec!["sh".into(), "-c".into(), swap.into(), "sh".into()]
    });
    let daemons = Daemons::of(&server);
    let mut old = Client::greet(server.address());
    let attempt = |within: &str, complaint: &str| {
        let (code, _, errors) = server.command(&["upgrade", "--within", within]);
        assert_eq!(code, Some(2), "{errors}");
        assert!(errors.contains(complaint), "{complaint} expected: {errors}");
        let mut new = Client::greet(server.address());
        assert!(new.deliver(b"Subject: x\r\n\r\n").starts_with("250 "));
    };
    replace(&program, "#!/bin/sh\nexit 3\n");
    attempt("20", "exit status: 3");
    replace(
        &program,
        "#!/bin/sh\necho $$ > \"$0.pid\"\nexec sleep 300\n",
    );
    attempt("1", "not ready within 1 s");
    let pid = std::fs::read_to_string(program.with_extension("pid")).unwrap();
    let pid = Pid::from_raw(pid.trim().parse().unwrap());
    until("the end of the one that hung", || {
        (!runs(pid)).then_some(())
    });
    replace(&program, "#!/bin/sh\necho hello >&0\nexec sleep 300\n");
    attempt("20", "it is no Gatepost");
    std::fs::remove_file(&program).unwrap();
    attempt("20", "cannot be started");
    // One that works with a configuration that does not: a port that is taken.
    std::os::unix::fs::symlink(gatepost(), &program).unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let config = server.dir().join("gatepost.toml");
    let before = std::fs::read_to_string(&config).unwrap();
    let more = format!(
        "{before}\n[[listen]]\naddr = \"{}\"\n",
        taken.local_addr().unwrap()
    );
    std::fs::write(&config, more).unwrap();
    attempt("20", "cannot listen on 127.0.0.1:");
    std::fs::write(&config, before).unwrap();
    old.ask("NOOP", "250");
    assert_eq!(daemons.last(), server.pid());
    assert!(server.dir().join("spool/control").exists());
    daemons.upgrade();
    assert!(old.deliver(b"Subject: x\r\n\r\n").starts_with("250 "));
    assert_eq!(server.delivered().len(), 6);
}

#[test]
fn a_unix_socket_and_its_file_are_handed_over_as_well() {
    let listen = "[[listen]]\naddr = \"unix:$DIR/lmtp\"\nprotocol = \"lmtp\"\n[[listen]]\n";
    let server = Server::start(&format!("{listen}{SMALL}"));
    let daemons = Daemons::of(&server);
    daemons.upgrade();
    daemons.settle();
    let socket = server.dir().join("lmtp");
    std::os::unix::net::UnixStream::connect(&socket).expect("the new one listens");
    kill(daemons.last(), Signal::SIGTERM).unwrap();
    until("the end of the socket", || (!socket.exists()).then_some(()));
}
