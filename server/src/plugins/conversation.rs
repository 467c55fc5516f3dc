//! The client's side of a conversation in SMTP (RFC 5321) or LMTP (RFC 2033): commands out, replies in, each within its time.

use std::io;
use std::time::Duration;

use gatepost_protocol::EnhancedCode;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};

/// A server's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// 200 to 599.
    pub code: u16,
    /// The status code in front of the text (RFC 2034).
    pub enhanced: Option<EnhancedCode>,
    /// The text, its lines joined, without codes.
    pub text: String,
}

/// The connection or the conversation failed: nobody said no.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Trouble(pub String);

/// The longest line of a reply: four times what RFC 5321 §4.5.3.1.5 allows, for servers that explain themselves.
const MAX_LINE: u64 = 2048;
/// Lines of a reply.
const MAX_LINES: usize = 100;

/// A conversation over a stream.
pub struct Conversation<S>(BufReader<S>);

impl<S: AsyncRead + AsyncWrite + Unpin> Conversation<S> {
    /// Over a stream on which nothing was said yet.
    pub fn new(stream: S) -> Conversation<S> {
        Conversation(BufReader::new(stream))
    }

    /// The stream, to write to it.
    pub fn stream(&mut self) -> &mut S {
        self.0.get_mut()
    }

    /// Waits for the greeting and greets by `hello`, which is EHLO or LHLO; by HELO where a server does not know EHLO (RFC 5321 §3.2). Returns the lines of
    /// what it offers. `wait` is for each reply.
    pub async fn greet(
        &mut self,
        hello: &str,
        hostname: &str,
        wait: Duration,
    ) -> Result<Vec<String>, Trouble> {
        let greeting = self.reply("its greeting", wait).await?;
        // A server that does not want us at all says nothing about what we ask.
        greeting.friendly("it greets with")?;
        self.write(format!("{hello} {hostname}\r\n").as_bytes(), wait)
            .await?;
        let what = format!("an answer to {hello}");
        let (code, mut offers) = self.lines(&what, wait).await?;
        if code / 100 == 2 {
            offers.remove(0);
            return Ok(offers);
        }
        if hello == "LHLO" {
            return Err(Trouble(format!(
                "to LHLO it says {code} {}",
                offers.join(" ")
            )));
        }
        let reply = self.ask(&format!("HELO {hostname}"), wait).await?;
        reply.friendly("to HELO it says")?;
        Ok(Vec::new())
    }

    /// Says a command and returns the answer.
    pub async fn ask(&mut self, command: &str, wait: Duration) -> Result<Reply, Trouble> {
        self.write(format!("{command}\r\n").as_bytes(), wait)
            .await?;
        self.reply(command, wait).await
    }

    /// Sends bytes as they are.
    pub async fn write(&mut self, bytes: &[u8], wait: Duration) -> Result<(), Trouble> {
        within(wait, "to send", self.stream().write_all(bytes)).await
    }

    /// Reads a reply, to what is said in `what`.
    pub async fn reply(&mut self, what: &str, wait: Duration) -> Result<Reply, Trouble> {
        let (code, lines) = self.lines(what, wait).await?;
        let enhanced = |line: &str| EnhancedCode::parse(line.split(' ').next()?);
        let texts = lines.iter().map(|line| match enhanced(line) {
            Some(_) => line.split_once(' ').map_or("", |(_, text)| text).trim(),
            None => line.trim(),
        });
        Ok(Reply {
            code,
            enhanced: lines.first().and_then(|line| enhanced(line)),
            text: texts.collect::<Vec<_>>().join(" "),
        })
    }

    /// A reply's code and the text of its lines, one at least (RFC 5321 §4.2).
    async fn lines(&mut self, what: &str, wait: Duration) -> Result<(u16, Vec<String>), Trouble> {
        let reading = async {
            let mut lines = Vec::new();
            loop {
                let mut line = Vec::new();
                (&mut self.0)
                    .take(MAX_LINE)
                    .read_until(b'\n', &mut line)
                    .await?;
                if !line.ends_with(b"\n") {
                    let reason = if line.is_empty() {
                        "it closed the connection"
                    } else {
                        "its reply has no end"
                    };
                    return Err(io::Error::new(io::ErrorKind::UnexpectedEof, reason));
                }
                let line = String::from_utf8_lossy(&line);
                let line = line.trim_end();
                let code = line.get(..3).and_then(|code| code.parse::<u16>().ok());
                let (Some(code @ 200..=599), true) = (code, lines.len() < MAX_LINES) else {
                    let reason = format!("its reply is none: `{}`", line.escape_debug());
                    return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
                };
                lines.push(line.get(4..).unwrap_or_default().to_owned());
                if line.as_bytes().get(3) != Some(&b'-') {
                    return Ok((code, lines));
                }
            }
        };
        within(wait, &format!("for {what}"), reading).await
    }
}

impl Reply {
    /// A refusal that is not about what we want is trouble: the operator mends it, and whoever asked may ask again.
    pub fn friendly(&self, what: &str) -> Result<(), Trouble> {
        if self.code / 100 == 2 {
            return Ok(());
        }
        Err(Trouble(format!("{what} {} {}", self.code, self.text)))
    }
}

/// Does something within a time; `what` is what is waited for.
pub async fn within<T>(
    wait: Duration,
    what: &str,
    work: impl Future<Output = io::Result<T>>,
) -> Result<T, Trouble> {
    match tokio::time::timeout(wait, work).await {
        Ok(done) => done.map_err(|error| Trouble(error.to_string())),
        Err(_) => Err(Trouble(format!("waited {wait:?} {what}"))),
    }
}
