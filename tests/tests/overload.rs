//! More clients than there are connections: the silent make room, so that others get in; who is in the middle of a message is let finish; what was acknowledged is delivered; the control
//! socket answers; and when it is over all is as before, at once.

use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use gatepost_tests::server::Server;
use gatepost_tests::smtp::Client;
use gatepost_tests::wait::until;

const MESSAGE: &[u8] = b"Subject: x\r\n\r\nhello\r\n";
const CONNECTIONS: usize = 20;
/// What the command line may take to be answered, with a configuration that is read and checked meanwhile.
const ANSWERED: Duration = Duration::from_secs(5);

const HEAD: &str = "
    [limits]
    max_connections = 20
    max_connections_per_ip = 1000
    stress_timeout = \"4s\"
";

/// A newcomer that is let in, however often it was told to come again.
fn let_in(server: &Server) -> Client {
    until("a connection", || {
        let mut client = Client::try_connect_or_421(server.address())?;
        client.ask("EHLO client.example", "250");
        Some(client)
    })
}

fn is_asked(server: &Server) {
    let began = Instant::now();
    let (code, _, said) = server.command(&["reload"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(began.elapsed() < ANSWERED, "{:?}", began.elapsed());
}

#[test]
fn the_silent_make_room_those_first_who_did_nothing() {
    let mut server = Server::start(HEAD);
    let mut busy = Client::greet(server.address());
    busy.open_message();
    let mut served = Client::greet(server.address());
    served.deliver(MESSAGE);
    let mut silent: Vec<Client> = (2..CONNECTIONS)
        .map(|_| Client::connect(server.address()))
        .collect();
    server.wait_for_log("that connections are scarce", |text| {
        text.starts_with("listen: stress: ")
    });
    for _ in 0..4 {
        let mut client = let_in(&server);
        let reply = client.deliver(MESSAGE);
        assert!(reply.starts_with("250 2."), "{reply:?}");
        silent.push(client);
    }
    is_asked(&server);
    // The oldest of those that did nothing.
    silent[0].expect("421 4.3.2");
    assert_eq!(silent[0].reply(), "");
    served.ask("NOOP", "250");
    busy.send(MESSAGE);
    busy.send(b".\r\n");
    busy.expect("250");
    assert_eq!(server.delivered().len(), 6);

    // With nobody to need it nobody is let go: `served` is silent for longer now than the others were.
    silent.clear();
    server.wait_for_log("that it is over", |text| {
        text.starts_with("listen: stress is over after ")
    });
    let log = server.log();
    let count = |begin: &str| log.iter().filter(|line| line.contains(begin)).count();
    assert_eq!(count("listen: stress: "), 1, "said once");
    assert_eq!(count("listen: stress is over"), 1, "said once");
    served.ask("NOOP", "250");
    drop((served, busy));
    assert!(server.stop().success());
}

#[test]
fn deadlines_are_shorter_while_connections_are_scarce() {
    let server = Server::start(HEAD);
    let mut stalled: Vec<Client> = (0..CONNECTIONS)
        .map(|_| Client::greet(server.address()))
        .collect();
    for client in &mut stalled {
        client.open_message();
    }
    let began = Instant::now();
    // The one that has been silent for longest: where enough have gone, the others have their time again.
    stalled[0].expect("421 4.3.2");
    let took = began.elapsed();
    assert!(took < Duration::from_secs(20), "{took:?}");
    server.wait_for_log("that it is over", |text| {
        text.starts_with("listen: stress is over after ")
    });
    let mut client = let_in(&server);
    let reply = client.deliver(MESSAGE);
    assert!(reply.starts_with("250 2."), "{reply:?}");
}

/// `SECONDS=60` in the environment: it lasts longer.
#[test]
fn for_a_time_and_then_all_is_normal_at_once() {
    let seconds = std::env::var("SECONDS").ok();
    let seconds = seconds.map_or(4, |text| text.parse().expect("SECONDS is a number"));
    let server = Server::start(HEAD);
    let (over, taken, refused) = (
        AtomicBool::new(false),
        AtomicUsize::new(0),
        AtomicUsize::new(0),
    );
    std::thread::scope(|scope| {
        // Those that want nothing but a connection.
        for _ in 0..CONNECTIONS {
            scope.spawn(|| {
                let mut held: Option<TcpStream> = None;
                while !over.load(Ordering::Relaxed) {
                    let is_held = held.as_ref().is_some_and(is_open);
                    if !is_held {
                        held = TcpStream::connect(server.address()).ok();
                    }
                    std::thread::sleep(Duration::from_millis(20));
                }
            });
        }
        for _ in 0..CONNECTIONS {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    match Client::try_connect_or_421(server.address()) {
                        Some(mut client) => {
                            client.ask("EHLO client.example", "250");
                            let reply = client.deliver(MESSAGE);
                            assert!(reply.starts_with("250 2."), "{reply:?}");
                            taken.fetch_add(1, Ordering::Relaxed);
                        }
                        None => {
                            refused.fetch_add(1, Ordering::Relaxed);
                            std::thread::sleep(Duration::from_millis(20));
                        }
                    }
                }
            });
        }
        let end = Instant::now() + Duration::from_secs(seconds);
        while Instant::now() < end {
            is_asked(&server);
            std::thread::sleep(Duration::from_millis(200));
        }
        over.store(true, Ordering::Relaxed);
    });
    let (taken, refused) = (taken.into_inner(), refused.into_inner());
    println!("{seconds} s: {taken} messages taken, {refused} connections told to come again");
    assert!(taken > 0 && refused > 0, "{taken} taken, {refused} refused");
    server.wait_for_log("that it is over", |text| {
        text.starts_with("listen: stress is over after ")
    });
    for _ in 0..CONNECTIONS {
        Client::greet(server.address()).ask("QUIT", "221");
    }
    assert_eq!(server.delivered().len(), taken);
}

/// Whether the daemon has not hung up yet.
fn is_open(mut stream: &TcpStream) -> bool {
    use std::io::Read;
    if stream.set_nonblocking(true).is_err() {
        return false;
    }
    loop {
        match stream.read(&mut [0; 512]) {
            Ok(0) => return false,
            Ok(_) => {}
            Err(error) => return error.kind() == std::io::ErrorKind::WouldBlock,
        }
    }
}

/// Connections that have not come as far as a conversation.
#[test]
fn who_has_not_said_who_it_is_makes_room_too() {
    for listener in ["proxy_from = [\"127.0.0.1\"]", "tls = \"implicit\""] {
        let server = Server::start(&format!("[[listen]]\n{listener}\n{HEAD}"));
        let connect = || TcpStream::connect(server.address()).expect("a connection");
        let silent: Vec<TcpStream> = (0..CONNECTIONS).map(|_| connect()).collect();
        until("one that is gone", || {
            silent.iter().any(|one| !is_open(one)).then_some(())
        });
        let gone = silent.iter().filter(|one| !is_open(one)).count();
        assert!(gone < CONNECTIONS / 2, "{listener}: {gone}");
        server.wait_for_log("why", |text| {
            text.contains("cut off: silent while there were too many connections")
        });
    }
}
