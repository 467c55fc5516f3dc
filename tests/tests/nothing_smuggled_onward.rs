//! What queue/smtp-forward hands on is one message to the next server, whatever that one takes for the end of data.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};

use gatepost_tests::server::Server;
use gatepost_tests::smtp::Client;
use gatepost_tests::wait::PATIENCE;

/// What was taken for the end of data since 2023, by somebody.
const ENDS: [&str; 15] = [
    "\n.\n",
    "\n.\r\n",
    "\r.\r",
    "\r.\r\n",
    "\r\n.\r",
    "\r\n.\n",
    "\r\n.\r\r\n",
    "\r\r\n.\r\r\n",
    "\n\r.\n\r",
    "\r\n\0.\r\n",
    "\r\n.\0\r\n",
    "\n\0.\0\n",
    "\r\0\n.\r\0\n",
    "\r\n\r.\r\n",
    "\r\n\n.\r\n",
];
const SMUGGLED: &str = "MAIL FROM:<eve@client.example>\r\nRCPT TO:<bob@example.org>\r\nDATA\r\nSubject: smuggled\r\n\r\nx\r\n";

/// Whether the data ends with this, to a server that is right, and to one that takes any newline for a line end, and sees no NUL.
fn has_ended(data: &[u8], lax: bool) -> bool {
    if !lax {
        return data.ends_with(b"\r\n.\r\n") || data == b".\r\n";
    }
    let seen = data.iter().filter(|byte| **byte != 0);
    let lines: Vec<u8> = seen
        .map(|byte| if *byte == b'\r' { b'\n' } else { *byte })
        .collect();
    lines.ends_with(b"\n.\n") || lines == b".\n"
}

/// What was said on a connection: the commands, and the data of each message.
type Heard = (Vec<String>, Vec<Vec<u8>>);

/// A server that serves one connection after the other.
struct Next {
    port: u16,
    heard: Receiver<Heard>,
}

impl Next {
    fn start(lax: bool) -> Next {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (hear, heard) = channel();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if hear.send(serve(stream.unwrap(), lax)).is_err() {
                    return;
                }
            }
        });
        Next { port, heard }
    }

    /// What was heard up to now.
    fn heard(&self) -> Heard {
        // A connection that says nothing stands behind all that were opened before it.
        drop(TcpStream::connect(("127.0.0.1", self.port)));
        let (mut commands, mut messages) = (Vec::new(), Vec::new());
        loop {
            let (said, sent) = self.heard.recv_timeout(PATIENCE).unwrap();
            if said.is_empty() {
                return (commands, messages);
            }
            commands.extend(said);
            messages.extend(sent);
        }
    }
}

fn serve(stream: TcpStream, lax: bool) -> Heard {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut stream = BufReader::new(stream);
    let (mut commands, mut messages) = (Vec::new(), Vec::new());
    let say = |stream: &mut BufReader<TcpStream>, text: &str| {
        // Whoever hung up says so at the next read.
        let _ = stream.get_mut().write_all(text.as_bytes());
    };
    say(&mut stream, "220 next\r\n");
    loop {
        let mut line = Vec::new();
        if stream.read_until(b'\n', &mut line).unwrap_or(0) == 0 {
            return (commands, messages);
        }
        let command = String::from_utf8_lossy(&line).trim().to_owned();
        let is_data = command == "DATA";
        commands.push(command);
        if is_data {
            say(&mut stream, "354 go on\r\n");
            let mut data = Vec::new();
            let mut byte = [0];
            while !has_ended(&data, lax) {
                if stream.read(&mut byte).unwrap_or(0) == 0 {
                    return (commands, messages);
                }
                data.push(byte[0]);
            }
            messages.push(data);
        }
        say(&mut stream, "250 ok\r\n");
    }
}

/// Gatepost, and the next server behind it.
fn forwarding(newlines: &str, lax: bool) -> (Server, Next) {
    let next = Next::start(lax);
    let port = next.port;
    let server = Server::start(&format!(
        "
        bare_newlines = \"{newlines}\"
        [[plugin]]
        name = \"rcpt_ok\"
        [[plugin]]
        name = \"queue/smtp-forward\"
        server = \"127.0.0.1\"
        port = {port}
        "
    ));
    (server, next)
}

/// Hands in a message by DATA or by BDAT. Returns the reply to it.
fn hand_in(server: &Server, by_data: bool, message: &str) -> String {
    let mut client = Client::greet(server.address());
    let reply = if by_data {
        client.open_message();
        client.send(message.as_bytes());
        client.send(b"\r\n.\r\n");
        client.reply()
    } else {
        client.ask("MAIL FROM:<alice@client.example>", "250");
        client.ask("RCPT TO:<bob@example.org>", "250");
        client.send(format!("BDAT {} LAST\r\n{message}", message.len()).as_bytes());
        client.reply()
    };
    client.ask("QUIT", "221");
    reply
}

fn message(end: &str) -> String {
    format!("Subject: one\r\n\r\nfirst{end}{SMUGGLED}")
}

/// Every end, to a server that is right and to one that is lax. `forwards` says which messages are to arrive.
fn check(newlines: &str, forwards: impl Fn(&str) -> bool) {
    for lax in [false, true] {
        let (server, next) = forwarding(newlines, lax);
        for end in ENDS {
            for by_data in [true, false] {
                let place = format!("{newlines}, lax {lax}, by DATA {by_data}, {end:?}");
                let reply = hand_in(&server, by_data, &message(end));
                let (commands, messages) = next.heard();
                let is_mail = |command: &&String| command.starts_with("MAIL");
                let mails = commands.iter().filter(is_mail).count();
                assert!(mails <= 1, "{place}: {commands:?}");
                if forwards(&kept(end, by_data)) {
                    assert!(reply.starts_with("250"), "{place}: {reply}");
                    assert_eq!(messages.len(), 1, "{place}: {commands:?}");
                    let text = String::from_utf8_lossy(&messages[0]);
                    assert!(text.contains("Subject: smuggled"), "{place}: {text}");
                    assert_eq!(commands.last().map(String::as_str), Some("QUIT"), "{place}");
                } else {
                    assert!(reply.starts_with("554 5.6.0"), "{place}: {reply}");
                    assert_eq!(messages.len(), 0, "{place}: {commands:?}");
                }
            }
        }
    }
}

/// What is left of an end when its message came in.
fn kept(end: &str, by_data: bool) -> String {
    match by_data {
        true => end.replace("\r\n.", "\r\n"),
        false => end.to_owned(),
    }
}

/// No CR or LF stands alone, and no NUL at the beginning of a line hides a dot.
fn is_in_order(text: &str) -> bool {
    !text.replace("\r\n", "").contains(['\r', '\n']) && !text.contains("\r\n\0")
}

fn normalized(text: &str) -> String {
    let text = text.replace("\r\n", "\n").replace('\r', "\n");
    text.replace('\n', "\r\n")
}

#[test]
fn what_is_normalized_is_one_message() {
    check("normalize", |text| is_in_order(&normalized(text)));
}

#[test]
fn what_is_kept_is_forwarded_only_where_it_is_in_order() {
    check("keep", is_in_order);
}

#[test]
fn what_is_rejected_is_not_forwarded() {
    check("reject", is_in_order);
}

#[test]
fn a_chunk_may_hold_what_ends_data() {
    for lax in [false, true] {
        let (server, next) = forwarding("reject", lax);
        let text = format!("Subject: one\r\n\r\nfirst\r\n.\r\n..\r\n{SMUGGLED}");
        let reply = hand_in(&server, false, &text);
        assert!(reply.starts_with("250"), "{reply}");
        let (commands, messages) = next.heard();
        assert_eq!(commands.iter().filter(|it| *it == "DATA").count(), 1);
        let [data] = &messages[..] else {
            panic!("{commands:?}");
        };
        let data = String::from_utf8_lossy(data);
        assert!(
            data.contains("first\r\n..\r\n...\r\nMAIL FROM:<eve@"),
            "{data}"
        );
    }
}
