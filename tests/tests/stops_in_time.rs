//! SIGTERM: no new connections, idle sessions are told, the message that is on its way arrives, and the daemon is gone in time.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use gatepost_tests::server::Server;
use gatepost_tests::smtp::Client;
use gatepost_tests::wait::until;
use nix::sys::signal::Signal;

/// What an operator's `systemctl stop` is willing to wait is 90 seconds; with nothing going on it should be next to nothing.
const AT_ONCE: Duration = Duration::from_secs(5);

/// What plugin processes get, and some more for a machine that is busy.
const WITH_A_PLUGIN: Duration = Duration::from_secs(15);

/// What a transaction that is under way gets, and the last words, and some more.
const WITH_A_TRANSACTION: Duration = Duration::from_secs(45);

/// Between two bytes.
const A_WHILE: Duration = Duration::from_millis(500);

#[test]
fn with_nothing_going_on_it_stops_at_once() {
    let mut server = Server::start("");
    let mut idle = Client::greet(server.address());
    let started = Instant::now();
    server.signal(Signal::SIGTERM);
    idle.expect("421");
    assert_eq!(idle.reply(), "");
    assert!(server.wait().success());
    assert!(started.elapsed() < AT_ONCE, "{:?}", started.elapsed());
}

#[test]
fn who_has_not_said_who_it_is_holds_nothing_up() {
    for (listener, complaint) in [
        (
            "proxy_from = [\"127.0.0.1\"]",
            "turned away: no PROXY header",
        ),
        ("tls = \"implicit\"", "closed, TLS failed: "),
    ] {
        let mut server = Server::start(&format!("[[listen]]\n{listener}\n"));
        let connect = || TcpStream::connect(server.address()).expect("a connection");
        let (mut silent, mut other) = (connect(), connect());
        // Connections are taken in their order: where the second was heard, the first is in.
        other
            .write_all(b"EHLO client.example\r\n")
            .expect("the daemon reads");
        server.wait_for_log("what becomes of the other", |text| text.contains(complaint));
        let started = Instant::now();
        server.signal(Signal::SIGTERM);
        assert!(matches!(silent.read(&mut [0]), Ok(0)), "{listener}");
        assert!(server.wait().success());
        assert!(started.elapsed() < AT_ONCE, "{:?}", started.elapsed());
    }
}

#[test]
fn a_message_on_its_way_arrives() {
    let mut server = Server::start("");
    let mut client = Client::greet(server.address());
    client.open_message();
    client.send(b"Subject: on its way\r\n\r\nhalf of it\r\n");
    server.signal(Signal::SIGTERM);
    until("the daemon to take no more connections", || {
        TcpStream::connect(server.address()).err()
    });
    client.send(b"the other half\r\n.\r\n");
    client.expect("250");
    assert!(server.wait().success());
    let message = server.message();
    assert!(message.ends_with(b"\r\n\r\nhalf of it\r\nthe other half\r\n"));
    assert!(server.spooled().is_empty());
}

#[test]
fn who_sends_a_byte_now_and_then_is_cut_off() {
    let mut server = Server::start("");
    let mut stream = TcpStream::connect(server.address()).expect("a connection");
    let mut trickle = stream.try_clone().expect("one more descriptor");
    stream
        .set_read_timeout(Some(WITH_A_TRANSACTION))
        .expect("a time limit can be set");
    let start = "EHLO client.example\r\nMAIL FROM:<alice@client.example>\r\nRCPT TO:<bob@example.org>\r\nDATA\r\n";
    stream.write_all(start.as_bytes()).expect("it is read");
    let mut replies = BufReader::new(stream).lines();
    let is_data =
        |line: &std::io::Result<String>| line.as_ref().is_ok_and(|line| line.starts_with("354"));
    assert!(replies.any(|line| is_data(&line)), "it takes a message");
    server.signal(Signal::SIGTERM);
    let started = Instant::now();
    std::thread::spawn(move || {
        while trickle.write_all(b"x").is_ok() {
            std::thread::sleep(A_WHILE);
        }
    });
    let last = replies.next().expect("a reply").expect("in time");
    assert!(last.starts_with("421 4.3.2 "), "{last}");
    assert!(
        started.elapsed() < WITH_A_TRANSACTION,
        "{:?}",
        started.elapsed()
    );
    assert!(server.wait().success());
    assert!(server.delivered().is_empty());
    assert!(server.spooled().is_empty());
}

#[test]
fn an_interrupt_from_the_keyboard_is_the_same() {
    let mut server = Server::start("");
    server.signal(Signal::SIGINT);
    assert!(server.wait().success());
}

#[test]
fn a_plugin_that_will_not_end_is_ended() {
    let mut server = Server::start(
        r#"
[files]
"stays.py" = '''
import gatepost, signal, threading

signal.signal(signal.SIGTERM, signal.SIG_IGN)
# Nothing that ends elsewhere ends this, not even the end of standard input.
threading.Thread(target=threading.Event().wait).start()

@gatepost.hook("noop")
def noop(session):
    return gatepost.ok(reply="here")

gatepost.run()
'''
[[plugin]]
name = "stays"
run = ["python3", "$DIR/stays.py"]
env = { PYTHONPATH = "$ROOT/sdk-python/src" }
"#,
    );
    Client::greet(server.address()).ask("NOOP", "250");
    let started = Instant::now();
    server.signal(Signal::SIGTERM);
    assert!(server.wait().success());
    assert!(started.elapsed() < WITH_A_PLUGIN, "{:?}", started.elapsed());
    let script = server.dir().join("stays.py").display().to_string();
    let processes = std::fs::read_dir("/proc")
        .expect("there is /proc")
        .flatten();
    let mut commands = processes.filter_map(|it| std::fs::read(it.path().join("cmdline")).ok());
    let stays = commands.any(|command| String::from_utf8_lossy(&command).contains(&script));
    assert!(!stays, "it is gone before the daemon is");
}
