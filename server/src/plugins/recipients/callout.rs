//! Asks the next server: MAIL and RCPT as for a message, and then no message.

use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use gatepost_protocol::Address;
use gatepost_protocol::address::{is_domain, is_literal};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::Said;
use crate::plugins::conversation::{Conversation, Trouble, within};

/// Connections at a time; further questions wait.
const CONNECTIONS: usize = 4;
/// Until a connection stands.
const CONNECT: Duration = Duration::from_secs(10);
/// For each reply: less than our client's patience, which is to hear of it.
const REPLY: Duration = Duration::from_secs(15);
/// How long a connection that nobody needs is used again; servers close them after minutes.
const IDLE: Duration = Duration::from_secs(60);

/// The next server, and the connections to it.
pub struct CallOut {
    name: String,
    server: Server,
    hello: &'static str,
    hostname: String,
    places: Semaphore,
    idle: Mutex<Vec<Open>>,
}

#[derive(Debug, PartialEq, Eq)]
enum Server {
    Tcp(String, u16),
    Unix(PathBuf),
}

/// A connection on which the greetings were said; where it is kept for later, RSET was said last.
struct Open {
    conversation: Conversation<Box<dyn Stream>>,
    smtputf8: bool,
    since: Instant,
}

trait Stream: AsyncRead + AsyncWrite + Send + Sync + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Sync + Unpin> Stream for S {}

impl CallOut {
    /// `smtp://HOST:PORT`, `lmtp://HOST:PORT` or `lmtp:unix:PATH`. `hostname` is our name.
    pub fn new(url: &str, hostname: &str) -> Result<CallOut, String> {
        let (server, hello) = parse(url).ok_or(
            "expected smtp://HOST:PORT, lmtp://HOST:PORT or lmtp:unix:PATH, such as \"lmtp://127.0.0.1:24\"",
        )?;
        Ok(CallOut {
            name: url.to_owned(),
            server,
            hello,
            hostname: hostname.to_owned(),
            places: Semaphore::new(CONNECTIONS),
            idle: Mutex::default(),
        })
    }

    /// What the server says of an address. An error is why it cannot be known now.
    pub async fn ask(&self, address: &Address) -> Result<Said, String> {
        let asked = async {
            let _place = self.places.acquire().await;
            if let Some(open) = self.kept()
                // It may have closed it meanwhile, or have enough of us.
                && let Ok(said) = self.ask_again(open, address).await
            {
                return Ok(said);
            }
            let open = self.connect().await?;
            self.ask_on(open, address).await
        };
        let answer: Result<Said, Trouble> = asked.await;
        answer.map_err(|trouble| format!("{}: {trouble}", self.name))
    }

    async fn connect(&self) -> Result<Open, Trouble> {
        let stream: Box<dyn Stream> = match &self.server {
            Server::Tcp(host, port) => {
                let connecting = TcpStream::connect((&**host, *port));
                let stream = within(CONNECT, "to connect", connecting).await?;
                // Commands and their answers are small and waited for.
                stream
                    .set_nodelay(true)
                    .map_err(|error| Trouble(error.to_string()))?;
                Box::new(stream)
            }
            Server::Unix(path) => {
                Box::new(within(CONNECT, "to connect", UnixStream::connect(path)).await?)
            }
        };
        let mut conversation = Conversation::new(stream);
        let offers = conversation
            .greet(self.hello, &self.hostname, REPLY)
            .await?;
        let keyword = |line: &String| {
            let word = line.split(' ').next();
            word.is_some_and(|word| word.eq_ignore_ascii_case("SMTPUTF8"))
        };
        Ok(Open {
            conversation,
            smtputf8: offers.iter().any(keyword),
            since: Instant::now(),
        })
    }

    async fn ask_again(&self, mut open: Open, address: &Address) -> Result<Said, Trouble> {
        let reply = open.conversation.reply("an answer to RSET", REPLY).await?;
        reply.friendly("to RSET it says")?;
        self.ask_on(open, address).await
    }

    async fn ask_on(&self, mut open: Open, address: &Address) -> Result<Said, Trouble> {
        let utf8 = address.needs_smtputf8();
        if utf8 && !open.smtputf8 {
            // RFC 6531 §3.2: nothing that could be said to it would mean this address.
            return Ok(Said::No(format!("{} offers no SMTPUTF8", self.name)));
        }
        // The null sender: an answer to it goes nowhere, and no server may refuse it (RFC 5321 §4.5.5).
        let mail = match utf8 {
            true => "MAIL FROM:<> SMTPUTF8",
            false => "MAIL FROM:<>",
        };
        let reply = open.conversation.ask(mail, REPLY).await?;
        reply.friendly("to MAIL FROM:<> it says")?;
        let rcpt = format!("RCPT TO:<{}>", address.as_str());
        let reply = open.conversation.ask(&rcpt, REPLY).await?;
        let said = format!("{} says {} {}", self.name, reply.code, reply.text);
        let said = match reply.code / 100 {
            2 => Said::Yes(said),
            5 => Said::No(said),
            _ => return Err(Trouble(format!("it says {} {}", reply.code, reply.text))),
        };
        // The answer to this is read when the connection is used again.
        if open.conversation.write(b"RSET\r\n", REPLY).await.is_ok() {
            open.since = Instant::now();
            self.idle().push(open);
        }
        Ok(said)
    }

    /// A connection that was used a short while ago.
    fn kept(&self) -> Option<Open> {
        let mut idle = self.idle();
        idle.retain(|open| open.since.elapsed() < IDLE);
        idle.pop()
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Open>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn parse(url: &str) -> Option<(Server, &'static str)> {
    if let Some(path) = url.strip_prefix("lmtp:unix:") {
        return path
            .starts_with('/')
            .then(|| (Server::Unix(path.into()), "LHLO"));
    }
    let (scheme, place) = url.split_once("://")?;
    let (hello, usual) = match scheme {
        "smtp" => ("EHLO", 25),
        "lmtp" => ("LHLO", 24),
        _ => return None,
    };
    let (host, port) = match place.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port.parse().ok()?),
        _ => (place, usual),
    };
    let bare = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    let is_host = match bare {
        Some(address) => is_literal(&format!("[IPv6:{address}]")),
        None => is_domain(host),
    };
    let host = bare.unwrap_or(host).to_owned();
    (is_host && port > 0).then_some((Server::Tcp(host, port), hello))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers() {
        let tcp = |host: &str, port| Server::Tcp(host.to_owned(), port);
        for (url, server, hello) in [
            (
                "smtp://mx.example.org:2525",
                tcp("mx.example.org", 2525),
                "EHLO",
            ),
            ("smtp://192.0.2.1", tcp("192.0.2.1", 25), "EHLO"),
            ("lmtp://[2001:db8::1]", tcp("2001:db8::1", 24), "LHLO"),
            ("lmtp://[::1]:2424", tcp("::1", 2424), "LHLO"),
            (
                "lmtp:unix:/run/lmtp",
                Server::Unix("/run/lmtp".into()),
                "LHLO",
            ),
        ] {
            assert_eq!(parse(url), Some((server, hello)), "{url}");
        }
        for wrong in [
            "mx.example.org",
            "smtp:mx.example.org",
            "smtps://mx.example.org",
            "smtp://",
            "smtp://a b",
            "smtp://mx:",
            "smtp://mx:0",
            "smtp://mx:70000",
            "smtp://::1",
            "smtp://mx/",
            "smtp://bob@mx",
            "lmtp:unix:",
            "lmtp:unix:relative",
            "smtp:unix:/run/smtp",
        ] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }
}
