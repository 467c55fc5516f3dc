//! The engine of a conversation: reads lines, dispatches them, and sees that it ends well. It knows no protocol.

use std::future::Future;
use std::time::Duration;

use super::input::LineFault;
use super::seat::Standing;
use super::wire::{End, Stream, Wire};

/// How long a client that we turned away gets to read why.
const LINGER: Duration = Duration::from_secs(2);

/// What comes after a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// The next command.
    Go,
    /// The client asked for the end, and sends no more.
    Quit,
    /// We end it. The client may be sending still.
    Close,
}

/// A protocol that is spoken in lines.
pub trait Protocol: Send {
    /// Names a command.
    type Verb: Copy + Send + Sync + 'static;

    /// The commands, in upper case.
    fn verbs(&self) -> impl Iterator<Item = &'static (&'static str, Self::Verb)>;

    /// The client came: greets it.
    fn start<S: Stream>(
        &mut self,
        wire: &mut Wire<S>,
    ) -> impl Future<Output = Result<Next, End>> + Send;

    /// Answers a command. `verb` is `None` for one that is not in the table; `name` is its first word, `argument` the rest, without the
    /// space between and without white space at the end.
    fn command<S: Stream>(
        &mut self,
        wire: &mut Wire<S>,
        verb: Option<Self::Verb>,
        name: &[u8],
        argument: &[u8],
    ) -> impl Future<Output = Result<Next, End>> + Send;

    /// Answers a line that is none.
    fn fault(&mut self, output: &mut Vec<u8>, fault: LineFault) -> Next;

    /// What the client would lose if we ended it now. Where it is in the middle of something it is let finish when we stop.
    fn standing(&self) -> Standing;

    /// The conversation is over: says why, if the client is to know, and clears up.
    fn finish(&mut self, output: &mut Vec<u8>, end: &End) -> impl Future<Output = ()> + Send;
}

/// Holds a conversation to its end.
pub async fn converse<S: Stream, P: Protocol>(wire: &mut Wire<S>, protocol: &mut P) {
    let (end, next) = match talk(wire, protocol).await {
        Ok(next) => (End::Closed, next),
        Err(end) => (end, Next::Close),
    };
    protocol.finish(wire.output(), &end).await;
    match end {
        End::Gone(_) | End::Deaf => {}
        // Somebody waits for the place, and there is no input that nobody read.
        End::Crowded => wire.close(None).await,
        _ => wire.close((next == Next::Close).then_some(LINGER)).await,
    }
}

async fn talk<S: Stream, P: Protocol>(wire: &mut Wire<S>, protocol: &mut P) -> Result<Next, End> {
    let mut next = protocol.start(wire).await?;
    let mut line = Vec::new();
    while next == Next::Go {
        if wire.is_full() {
            wire.flush().await?;
        }
        next = match wire.line(&mut line, protocol.standing()).await? {
            Ok(()) => {
                let line = line.trim_ascii_end();
                let (name, argument) = match memchr::memchr(b' ', line) {
                    Some(space) => (&line[..space], &line[space + 1..]),
                    None => (line, &[][..]),
                };
                let verb = protocol
                    .verbs()
                    .find(|(verb, _)| verb.as_bytes().eq_ignore_ascii_case(name))
                    .map(|(_, verb)| *verb);
                protocol.command(wire, verb, name, argument).await?
            }
            Err(fault) => protocol.fault(wire.output(), fault),
        };
    }
    Ok(next)
}
