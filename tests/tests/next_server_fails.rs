//! The next server is away, hangs up in the middle, says nonsense, or nothing: the client is to come again, the log says what happened, the next server has no message that was not
//! acknowledged (but where only its answer is missing: RFC 1047), and when it is well again so is everything, without a restart.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use gatepost_tests::server::Server;
use gatepost_tests::smtp::Client;

/// Where in the conversation something happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    Greeting,
    Ehlo,
    Mail,
    Rcpt,
    Data,
    /// Within the message.
    Message,
    /// Behind its end.
    End,
}

/// What happens there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    HangsUp,
    SaysNothing,
    SaysNonsense,
    /// 421, and it hangs up (RFC 5321 §3.8).
    Closes,
    /// It takes its time, and all is well.
    IsSlow,
}

const ALL: [At; 7] = [
    At::Greeting,
    At::Ehlo,
    At::Mail,
    At::Rcpt,
    At::Data,
    At::Message,
    At::End,
];

/// Less than the plugin's `timeout`, and more than anything else takes here.
const SLOW: Duration = Duration::from_secs(2);

type Plan = Arc<Mutex<Option<(At, Fault)>>>;
type Taken = Arc<Mutex<Vec<String>>>;

/// A server that takes every message, but for what is planned.
struct Next {
    address: SocketAddr,
    plan: Plan,
    taken: Taken,
}

impl Next {
    fn start() -> Next {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let next = Next {
            address: listener.local_addr().expect("it has an address"),
            plan: Plan::default(),
            taken: Taken::default(),
        };
        let (plan, taken) = (next.plan.clone(), next.taken.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let plan = *plan.lock().expect("nobody panics with it");
                let taken = taken.clone();
                std::thread::spawn(move || converse(stream, plan, &taken));
            }
        });
        next
    }
}

/// Holds a conversation up to its end, or to what is planned. `None`: it is over.
fn converse(stream: TcpStream, plan: Option<(At, Fault)>, taken: &Taken) -> Option<()> {
    let mut writer = stream.try_clone().ok()?;
    let mut reader = BufReader::new(stream);
    let mut say = |at: At, text: &str| -> Option<()> {
        let said = match plan {
            Some((there, fault)) if there == at => match fault {
                Fault::HangsUp => return None,
                Fault::Closes => {
                    writer.write_all(b"421 4.3.2 going down\r\n").ok()?;
                    return None;
                }
                // Until the other side has had enough.
                Fault::SaysNothing => "",
                Fault::SaysNonsense => "\u{1}hello\r\n",
                Fault::IsSlow => {
                    std::thread::sleep(SLOW);
                    text
                }
            },
            _ => text,
        };
        writer.write_all(said.as_bytes()).ok()
    };
    say(At::Greeting, "220 next.example ESMTP\r\n")?;
    let mut line = String::new();
    loop {
        line.clear();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        match line.get(..4)? {
            "EHLO" => say(At::Ehlo, "250-next.example\r\n250 PIPELINING\r\n")?,
            "MAIL" => say(At::Mail, "250 2.1.0 ok\r\n")?,
            "RCPT" => say(At::Rcpt, "250 2.1.5 ok\r\n")?,
            "DATA" => {
                say(At::Data, "354 go on\r\n")?;
                let mut message = String::new();
                loop {
                    line.clear();
                    if reader.read_line(&mut line).ok()? == 0 {
                        return None;
                    }
                    if line == ".\r\n" {
                        break;
                    }
                    if line.starts_with("this line") {
                        say(At::Message, "")?;
                    }
                    message.push_str(&line);
                }
                taken.lock().expect("nobody panics with it").push(message);
                say(At::End, "250 2.0.0 taken\r\n")?;
            }
            "QUIT" => return None,
            _ => {}
        }
    }
}

fn forwarding_to(address: SocketAddr) -> Server {
    let port = address.port();
    Server::start(&format!(
        "
        [[plugin]]
        name = \"rcpt_ok\"
        [[plugin]]
        name = \"queue/smtp-forward\"
        server = \"127.0.0.1\"
        port = {port}
        timeout = \"5s\"
        "
    ))
}

fn message(subject: &str) -> Vec<u8> {
    let line = b"this line is thirty-two bytes.\r\n";
    let head = format!("Subject: {subject}\r\n\r\n");
    [head.as_bytes(), &line.repeat(8 << 10)].concat()
}

fn count(next: &Next, subject: &str) -> usize {
    let taken = next.taken.lock().expect("nobody panics with it");
    let subject = format!("Subject: {subject}\r\n");
    taken.iter().filter(|text| text.contains(&subject)).count()
}

fn fails(at: At, fault: Fault) {
    let case = format!("{fault:?} at {at:?}");
    let next = Next::start();
    let server = forwarding_to(next.address);
    let mut client = Client::greet(server.address());
    *next.plan.lock().unwrap() = Some((at, fault));
    let reply = client.deliver(&message("first"));
    assert!(reply.starts_with("45"), "{case}: {reply:?}");
    assert_eq!(count(&next, "first"), usize::from(at == At::End), "{case}");
    server.wait_for_log("why it was not passed on", |text| {
        text.starts_with("(queue) queue/smtp-forward: error, ")
            || text.starts_with("(queue) queue/smtp-forward: fail, ")
    });
    *next.plan.lock().unwrap() = None;
    let reply = client.deliver(&message("second"));
    assert!(reply.starts_with("250 2."), "{case}: {reply:?}");
    assert_eq!(count(&next, "second"), 1, "{case}");
}

fn each(fault: Fault, places: &[At]) {
    std::thread::scope(|scope| {
        for at in places {
            scope.spawn(move || fails(*at, fault));
        }
    });
}

#[test]
fn it_hangs_up() {
    each(Fault::HangsUp, &ALL);
}

#[test]
fn it_closes_with_421() {
    each(Fault::Closes, &ALL);
}

#[test]
fn it_says_nothing() {
    // Within the message nothing is to be said.
    let places: Vec<At> = ALL.into_iter().filter(|at| *at != At::Message).collect();
    each(Fault::SaysNothing, &places);
}

#[test]
fn it_says_nonsense() {
    let places: Vec<At> = ALL.into_iter().filter(|at| *at != At::Message).collect();
    each(Fault::SaysNonsense, &places);
}

#[test]
fn it_is_slow() {
    std::thread::scope(|scope| {
        for at in ALL {
            scope.spawn(move || {
                let next = Next::start();
                *next.plan.lock().unwrap() = Some((at, Fault::IsSlow));
                let server = forwarding_to(next.address);
                let mut client = Client::greet(server.address());
                let began = Instant::now();
                let reply = client.deliver(b"Subject: first\r\n\r\nthis line waits\r\n");
                assert!(reply.starts_with("250 2."), "at {at:?}: {reply:?}");
                assert!(began.elapsed() >= SLOW, "at {at:?}");
                assert_eq!(count(&next, "first"), 1, "at {at:?}");
            });
        }
    });
}

#[test]
fn it_is_away_and_comes_back() {
    let address = {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.local_addr().expect("it has an address")
    };
    let server = forwarding_to(address);
    let mut client = Client::greet(server.address());
    let reply = client.deliver(b"Subject: x\r\n\r\n");
    assert!(reply.starts_with("451 4.4.1 "), "{reply:?}");
    server.wait_for_log("who is away", |text| {
        text.contains(&format!("{address}")) && text.contains("Connection refused")
    });
    let listener = TcpListener::bind(address).expect("the port is free again");
    std::thread::spawn(move || {
        let (stream, _) = listener.accept().ok()?;
        converse(stream, None, &Taken::default())
    });
    let reply = client.deliver(b"Subject: x\r\n\r\n");
    assert!(reply.starts_with("250 2."), "{reply:?}");
}
