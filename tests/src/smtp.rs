//! A plain SMTP client, for tests that do more than a dialogue file can say.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};

use crate::wait::PATIENCE;

/// A connection to the daemon. Everything that goes wrong panics: it is what a test is about.
pub struct Client {
    reader: BufReader<TcpStream>,
}

impl Client {
    /// Connects, and reads the greeting.
    pub fn connect(address: SocketAddr) -> Client {
        let mut client = Client::open(address);
        client.expect("220");
        client
    }

    /// Connects, and leaves the greeting to be read.
    pub fn open(address: SocketAddr) -> Client {
        let stream = TcpStream::connect(address).expect("the daemon takes a connection");
        stream
            .set_read_timeout(Some(PATIENCE))
            .expect("a time limit can be set");
        stream.set_nodelay(true).expect("an option can be set");
        Client {
            reader: BufReader::new(stream),
        }
    }

    /// Connects to a daemon that may be gone, or that goes before its greeting.
    pub fn try_connect(address: SocketAddr) -> Option<Client> {
        let stream = TcpStream::connect(address).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        stream.set_nodelay(true).ok()?;
        let mut client = Client {
            reader: BufReader::new(stream),
        };
        let greeting = client.try_reply()?;
        assert!(greeting.starts_with("220 "), "{greeting}");
        Some(client)
    }

    /// Connects to a daemon that may have no connection to spare; `None` where it says so, or hangs up at once.
    pub fn try_connect_or_421(address: SocketAddr) -> Option<Client> {
        let stream = TcpStream::connect(address).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        let mut client = Client {
            reader: BufReader::new(stream),
        };
        let greeting = client.try_reply()?;
        assert!(
            greeting.starts_with("220 ") || greeting.starts_with("421 "),
            "{greeting}"
        );
        greeting.starts_with("220 ").then_some(client)
    }

    /// Connects, and says EHLO.
    pub fn greet(address: SocketAddr) -> Client {
        let mut client = Client::connect(address);
        client.ask("EHLO client.example", "250");
        client
    }

    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: &[u8]) {
        self.reader
            .get_mut()
            .write_all(bytes)
            .expect("the daemon reads");
    }

    /// Reads a reply to its last line; empty when the daemon hung up.
    pub fn reply(&mut self) -> String {
        let mut reply = String::new();
        loop {
            let start = reply.len();
            let read = self.reader.read_line(&mut reply).expect("a reply");
            if read == 0 || reply.as_bytes().get(start + 3) == Some(&b' ') {
                return reply;
            }
        }
    }

    /// Sends bytes to a daemon that may be gone; whether they went.
    pub fn try_send(&mut self, bytes: &[u8]) -> bool {
        self.reader.get_mut().write_all(bytes).is_ok()
    }

    /// Reads a reply of one line from a daemon that may be gone.
    pub fn try_reply(&mut self) -> Option<String> {
        let mut reply = String::new();
        let read = self.reader.read_line(&mut reply);
        (read.is_ok() && reply.ends_with('\n')).then_some(reply)
    }

    /// Reads a reply that must begin with a code.
    pub fn expect(&mut self, code: &str) -> String {
        let reply = self.reply();
        assert!(reply.starts_with(code), "{code} expected, {reply:?} came");
        reply
    }

    /// Sends a command and reads its reply, which must begin with a code.
    pub fn ask(&mut self, command: &str, code: &str) -> String {
        self.send(format!("{command}\r\n").as_bytes());
        self.expect(code)
    }

    /// Opens a transaction, up to and with the 354.
    pub fn open_message(&mut self) {
        self.ask("MAIL FROM:<alice@client.example>", "250");
        self.ask("RCPT TO:<bob@example.org>", "250");
        self.ask("DATA", "354");
    }

    /// Sends a whole message, which must hold CRLF lines and no line with a dot at its beginning; returns the last reply.
    pub fn deliver(&mut self, message: &[u8]) -> String {
        self.open_message();
        self.send(message);
        self.send(b".\r\n");
        self.reply()
    }
}
