//! A DNS server that does not answer, answers late, or answers nonsense: who asked it finds nothing out, within bounds, and the log says so. Where the operator wants an answer the client is
//! to come again; nobody is ever refused for nonsense; and a server that is well again is believed again, without a restart.

use std::net::{SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use gatepost_tests::server::Server;
use gatepost_tests::smtp::Client;
use gatepost_tests::wait::PATIENCE;

/// How a server answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    /// The client is listed.
    Well,
    /// The same, but it takes time.
    Late,
    Silent,
    /// Bytes that are no message.
    Noise,
    /// As to somebody else's question.
    WrongId,
    /// As to another question.
    WrongName,
    /// It ends within its record.
    Cut,
    /// A record with a name that points to itself.
    Loop,
    /// The header promises thousands of records.
    Empty,
    ServFail,
    Refused,
}

const FAULTS: [Manner; 9] = [
    Manner::Silent,
    Manner::Noise,
    Manner::WrongId,
    Manner::WrongName,
    Manner::Cut,
    Manner::Loop,
    Manner::Empty,
    Manner::ServFail,
    Manner::Refused,
];

/// Longer than a question takes (5 seconds), with the tries that a lost datagram gets.
const BOUND: Duration = Duration::from_secs(10);
const LATE: Duration = Duration::from_secs(1);

/// The answer 127.0.0.2 to a question (RFC 1035 §4), in a manner; the question is all behind the header.
fn answer(question: &[u8], manner: Manner) -> Option<Vec<u8>> {
    let mut reply = question.to_vec();
    // A response, and no further records such as EDNS has.
    reply[2] |= 0x80;
    reply[6..12].copy_from_slice(&[0, 1, 0, 0, 0, 0]);
    let end = 12 + question[12..].iter().position(|byte| *byte == 0)? + 5;
    reply.truncate(end);
    // The name is the question's; type A, class IN, a minute, four bytes.
    let record = [0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 127, 0, 0, 2];
    reply.extend(record);
    match manner {
        Manner::Well | Manner::Late => {}
        Manner::Silent => return None,
        Manner::Noise => reply = vec![0xff; 600],
        Manner::WrongId => reply[0] ^= 0xff,
        Manner::WrongName => reply[13] ^= 0x01,
        Manner::Cut => reply.truncate(end + 13),
        Manner::Loop => {
            reply.truncate(end);
            let at = u8::try_from(end).ok()?;
            reply.extend([&[0xc0, at][..], &record[2..]].concat());
        }
        Manner::Empty => {
            reply.truncate(end);
            reply[6..12].copy_from_slice(&[0xff; 6]);
        }
        Manner::ServFail => reply[3] |= 2,
        Manner::Refused => reply[3] |= 5,
    }
    if matches!(manner, Manner::ServFail | Manner::Refused) {
        reply.truncate(end);
        reply[6..12].copy_from_slice(&[0; 6]);
    }
    Some(reply)
}

/// A server that knows one answer, until the test ends.
fn start(manner: Arc<Mutex<Manner>>) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let address = socket.local_addr().expect("it has an address");
    std::thread::spawn(move || {
        let mut packet = [0; 512];
        while let Ok((length, from)) = socket.recv_from(&mut packet) {
            let manner = *manner.lock().expect("nobody panics with it");
            let Some(reply) = answer(&packet[..length], manner) else {
                continue;
            };
            let socket = socket.try_clone().expect("a descriptor");
            std::thread::spawn(move || {
                if manner == Manner::Late {
                    std::thread::sleep(LATE);
                }
                // Whoever asked may be gone.
                let _ = socket.send_to(&reply, from);
            });
        }
    });
    address
}

fn daemon(address: SocketAddr, on_error: &str) -> Server {
    Server::start(&format!(
        "
        dns_server = \"{address}\"
        [[plugin]]
        name = \"dnsbl\"
        zones = [\"zen.example\"]
        on_error = \"{on_error}\"
        [[plugin]]
        name = \"rcpt_ok\"
        [[plugin]]
        name = \"queue/maildir\"
        "
    ))
}

/// The reply to RCPT, and how long it took.
fn rcpt(server: &Server) -> (String, Duration) {
    let began = Instant::now();
    let mut client = Client::greet(server.address());
    client.ask("MAIL FROM:<alice@client.example>", "250");
    client.send(b"RCPT TO:<bob@example.org>\r\n");
    (client.reply(), began.elapsed())
}

#[test]
fn nobody_is_refused_for_it_and_the_log_says_why() {
    std::thread::scope(|scope| {
        for fault in FAULTS {
            for (on_error, code) in [("skip", "250 "), ("tempfail", "450 ")] {
                scope.spawn(move || {
                    let manner = Arc::new(Mutex::new(fault));
                    let server = daemon(start(manner.clone()), on_error);
                    let (reply, took) = rcpt(&server);
                    assert!(reply.starts_with(code), "{fault:?}: {reply:?}");
                    assert!(took < BOUND, "{fault:?}: {took:?}");
                    server.wait_for_log("what failed", |text| {
                        text.starts_with("(rcpt) dnsbl: error, ") && text.contains("zen.example")
                    });
                    *manner.lock().unwrap() = Manner::Well;
                    let (reply, _) = rcpt(&server);
                    assert!(reply.starts_with("550 "), "{fault:?}: {reply:?}");
                });
            }
        }
    });
}

#[test]
fn an_answer_that_comes_late_is_waited_for_and_costs_others_nothing() {
    let server = daemon(start(Arc::new(Mutex::new(Manner::Late))), "skip");
    let slow = std::thread::scope(|scope| {
        let slow = scope.spawn(|| rcpt(&server));
        // Whoever needs no answer is served meanwhile.
        let began = Instant::now();
        let mut client = Client::greet(server.address());
        client.ask("MAIL FROM:<alice@client.example>", "250");
        assert!(began.elapsed() < LATE, "{:?}", began.elapsed());
        slow.join().expect("it is answered")
    });
    let (reply, took) = slow;
    assert!(reply.starts_with("550 "), "{reply:?}");
    assert!(took >= LATE && took < PATIENCE, "{took:?}");
}
