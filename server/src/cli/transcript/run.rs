//! Plays a dialogue against a running server.

use std::collections::HashMap;
use std::fmt::{self, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::client::Client;
use super::log::{Log, text_of};
use super::mail::{self, Mailbox};
use super::parse::{Action, Dialogue, FIRST};
use super::pattern::{block_fits, fits};

/// How many lines of the dialogue, and of the log, a failure shows.
const SHOWN: usize = 15;

/// A running server, and what can be seen of it.
pub struct Stage {
    /// Where it listens.
    pub address: SocketAddr,
    /// The Unix socket that it listens on instead, if the first listener is one.
    pub socket: Option<PathBuf>,
    /// Its log.
    pub log: Arc<Log>,
    /// Where it delivers to.
    pub mail: PathBuf,
    /// Its spool.
    pub spool: PathBuf,
    /// How long anything may take. Much more than it ever does: it only ends what would never end.
    pub patience: Duration,
}

/// A dialogue that did not go as it is written: the place, what was expected, what came.
#[derive(Debug)]
pub struct Failure {
    /// For a person to read, in several lines.
    pub text: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Failure {}

/// What was expected at a step, and what came instead.
struct Difference {
    expected: String,
    came: String,
}

/// Plays a dialogue from its first step to its last. At the end the client says that it has no more to send, on each connection that is still open, and the server must hang up without another word.
///
/// Lines that must never be logged are looked for at the end; whoever stops the server does well to look again, with [`never_logged`].
pub async fn play(dialogue: &Dialogue, stage: &Stage) -> Result<(), Failure> {
    let mut play = Play {
        dialogue,
        stage,
        clients: HashMap::new(),
        current: FIRST.to_owned(),
        connected: false,
        said: HashMap::new(),
        mailbox: Mailbox::new(&stage.mail),
        log_from: 0,
    };
    for step in &dialogue.steps {
        if let Err(difference) = play.step(&step.action, step.line).await {
            return Err(play.failure(step.line, difference));
        }
    }
    let clients = std::mem::take(&mut play.clients);
    for (name, mut client) in clients {
        if let Err(came) = client.finish().await {
            let expected = format!("no more, and the end of connection {name}");
            return Err(play.failure(dialogue.lines.len(), Difference { expected, came }));
        }
    }
    never_logged(dialogue, &stage.log)
}

/// Looks through a whole log for the lines that a dialogue says must never be there.
pub fn never_logged(dialogue: &Dialogue, log: &Log) -> Result<(), Failure> {
    let logged = log.since(0);
    for step in &dialogue.steps {
        let Action::NeverLogged(pattern) = &step.action else {
            continue;
        };
        if let Some(line) = logged.iter().find(|line| fits(pattern, text_of(line))) {
            let (file, at) = (dialogue.file.display(), step.line);
            let text = format!("{file}:{at}: logged in spite of `never log: {pattern}`\n{line}\n");
            return Err(Failure { text });
        }
    }
    Ok(())
}

/// A dialogue while it is played.
struct Play<'a> {
    dialogue: &'a Dialogue,
    stage: &'a Stage,
    clients: HashMap<String, Client>,
    current: String,
    /// Whether any connection was ever opened.
    connected: bool,
    /// What the server said, by line of the dialogue.
    said: HashMap<usize, Vec<String>>,
    mailbox: Mailbox,
    /// The log line behind the last that was found.
    log_from: usize,
}

impl Play<'_> {
    async fn step(&mut self, action: &Action, line: usize) -> Result<(), Difference> {
        match action {
            Action::Expect(pattern) => {
                let said = self.hear(line, pattern).await?;
                if !fits(pattern, &said) {
                    return Err(Difference {
                        expected: pattern.clone(),
                        came: said,
                    });
                }
            }
            Action::ExpectCode(code) => self.hear_reply(line, code).await?,
            Action::Send(bytes) => {
                let sent = self.client("to send").await?.send(bytes).await;
                sent.map_err(|came| difference("the server to read", came))?;
            }
            Action::Connect { name, from, tls } => {
                let mut client = self.connect(*from).await?;
                if *tls {
                    secure(&mut client).await?;
                }
                if self.clients.insert(name.clone(), client).is_some() {
                    let came = "it is open already; `close` it first";
                    return Err(difference("a new connection", came.to_owned()));
                }
                self.current = name.clone();
            }
            Action::StartTls => secure(self.client("to encrypt").await?).await?,
            Action::On(name) => {
                if !self.clients.contains_key(name) {
                    let came = "there is none of that name";
                    return Err(difference("an open connection", came.to_owned()));
                }
                self.current = name.clone();
            }
            Action::Close => {
                self.client("to hang up").await?;
                self.clients.remove(&self.current);
            }
            Action::Closed => {
                let ended = self.client("the server to hang up").await?.ended().await;
                ended.map_err(|came| difference("the end of the connection", came))?;
                self.clients.remove(&self.current);
            }
            Action::Logged(pattern) => self.logged(pattern).await?,
            Action::NeverLogged(_) => {}
            Action::Mail { folder, lines } => self.delivered(folder.as_deref(), lines).await?,
            Action::NothingDelivered => {
                if let Some(message) = self.mailbox.unseen(None).first() {
                    let message = std::fs::read(message).unwrap_or_default();
                    let came = mail::lines(&message).join("\n");
                    return Err(difference("nothing delivered", came));
                }
            }
            Action::SpoolEmpty => self.spool_empty().await?,
        }
        Ok(())
    }

    /// The connection in use. The first is opened when it is first needed.
    async fn client(&mut self, why: &str) -> Result<&mut Client, Difference> {
        if !self.connected {
            let client = self.connect(None).await?;
            self.clients.insert(FIRST.to_owned(), client);
        }
        match self.clients.get_mut(&self.current) {
            Some(client) => Ok(client),
            None => Err(difference(
                &format!("a connection {why}"),
                format!("connection {} is not open", self.current),
            )),
        }
    }

    async fn connect(&mut self, from: Option<IpAddr>) -> Result<Client, Difference> {
        let Stage {
            address,
            socket,
            patience,
            ..
        } = self.stage;
        self.connected = true;
        let client = match socket {
            Some(socket) => Client::connect_unix(socket, *patience).await,
            None => Client::connect(*address, from, *patience).await,
        };
        client.map_err(|error| difference("a connection", error.to_string()))
    }

    async fn hear(&mut self, line: usize, expected: &str) -> Result<String, Difference> {
        let said = self.client("to hear from").await?.line().await;
        let said = said.map_err(|came| difference(expected, came))?;
        self.said.entry(line).or_default().push(said.clone());
        Ok(said)
    }

    /// A reply of any number of lines (RFC 5321 §4.2.1): all with the code, all but the last with a hyphen.
    async fn hear_reply(&mut self, line: usize, code: &str) -> Result<(), Difference> {
        let expected = format!("a reply with code {code}");
        loop {
            let said = self.hear(line, &expected).await?;
            match said.strip_prefix(code).map(|rest| rest.as_bytes().first()) {
                Some(Some(b'-')) => {}
                Some(Some(b' ')) => return Ok(()),
                _ => return Err(difference(&expected, said)),
            }
        }
    }

    async fn logged(&mut self, pattern: &str) -> Result<(), Difference> {
        let wanted = |line: &str| fits(pattern, text_of(line));
        match self
            .stage
            .log
            .wait(self.log_from, self.stage.patience, wanted)
            .await
        {
            Some(at) => {
                self.log_from = at + 1;
                Ok(())
            }
            None => {
                let expected = format!("in the log, since the last line found there: {pattern}");
                Err(difference(&expected, "none of the lines below".to_owned()))
            }
        }
    }

    async fn delivered(
        &mut self,
        folder: Option<&str>,
        pattern: &[String],
    ) -> Result<(), Difference> {
        let expected = pattern.join("\n");
        let mut came = "nothing was delivered".to_owned();
        for file in self.mailbox.unseen(folder) {
            let message = std::fs::read(&file)
                .map_err(|error| difference("a message that can be read", error.to_string()))?;
            let lines = mail::lines(&message);
            if block_fits(pattern, &lines) {
                self.mailbox.see(file);
                return Ok(());
            }
            came = lines.join("\n");
        }
        Err(difference(&expected, came))
    }

    /// Polls: a client that hung up does not hear when the server is done with it.
    async fn spool_empty(&self) -> Result<(), Difference> {
        let deadline = tokio::time::Instant::now() + self.stage.patience;
        loop {
            let files = mail::spooled(&self.stage.spool);
            if files.is_empty() {
                return Ok(());
            }
            if tokio::time::Instant::now() > deadline {
                return Err(difference("an empty spool", format!("{files:?}")));
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Shows the dialogue up to the place, what was expected and what came, and the log behind the last line that was found.
    fn failure(&self, line: usize, difference: Difference) -> Failure {
        let Dialogue { file, lines, .. } = self.dialogue;
        let mut text = format!("{}:{line}: not as written\n", file.display());
        for (index, written) in lines.iter().enumerate().take(line) {
            let number = index + 1;
            if number + SHOWN <= line {
                continue;
            }
            let mark = if number == line { '>' } else { ' ' };
            let _ = match self.said.get(&number) {
                Some(said) if number != line => said
                    .iter()
                    .try_for_each(|said| writeln!(text, "{mark} {number:4} | S: {said}")),
                _ => writeln!(text, "{mark} {number:4} | {written}"),
            };
        }
        let _ = writeln!(text, "expected: {}", indented(&difference.expected));
        let _ = writeln!(text, "came:     {}", indented(&difference.came));
        let log = self.stage.log.since(self.log_from);
        let hidden = log.len().saturating_sub(SHOWN);
        let _ = match hidden {
            0 => writeln!(text, "log:"),
            _ => writeln!(text, "log, without the first {hidden} lines:"),
        };
        for line in &log[hidden..] {
            let _ = writeln!(text, "    {line}");
        }
        Failure { text }
    }
}

async fn secure(client: &mut Client) -> Result<(), Difference> {
    let secured = client.secure().await;
    secured.map_err(|came| difference("a handshake of TLS", came))
}

fn difference(expected: &str, came: String) -> Difference {
    Difference {
        expected: expected.to_owned(),
        came,
    }
}

/// Further lines stand below the first.
fn indented(text: &str) -> String {
    text.replace('\n', "\n          ")
}
