//! A client's stream with its limits: lines and data in, replies out, and a deadline on every wait.

use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use gatepost_protocol::session::Tls;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};
use tokio_util::sync::CancellationToken;

use super::input::{Input, LineFault};
use super::seat::{Seat, Standing};

/// Anything to hold a conversation over.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send {
    /// Whether it is encrypted.
    fn is_secure(&self) -> bool {
        false
    }

    /// Whether it is not encrypted yet, and can be.
    fn can_secure(&self) -> bool {
        false
    }

    /// Encrypts it from here on: makes the server's side of the handshake. It has no deadline of its own.
    ///
    /// # Errors
    /// Why the handshake failed, in words for the log. Nothing can be written to the stream afterwards.
    fn secure(&mut self) -> impl Future<Output = io::Result<Secured>> + Send {
        std::future::ready(Err(io::ErrorKind::Unsupported.into()))
    }
}

impl Stream for tokio::io::DuplexStream {}

/// What a handshake settled.
#[derive(Clone, Debug)]
pub struct Secured {
    /// For plugins, Received and the log.
    pub tls: Tls,
    /// What ties an authentication to this connection (RFC 9266, `tls-exporter`). Not with TLS 1.2, which does not rule out that another
    /// connection has the same.
    pub channel_binding: Option<[u8; 32]>,
}

/// What a buffer may keep while its connection waits.
const IDLE_BUFFER: usize = 512;
/// Replies that wait for the client to read them.
const MAX_OUTPUT: usize = 64 * 1024;

/// What a client may use up of the wire.
#[derive(Clone, Debug)]
pub struct Pace {
    /// Bytes of a command line, its CRLF included.
    pub max_line: usize,
    /// Waiting for a command, and for the client to read a reply.
    pub command: Duration,
    /// Waiting for the next block of data.
    pub data: Duration,
    /// The whole conversation.
    pub session: Duration,
}

/// How conversations are told to stop.
#[derive(Clone, Debug, Default)]
pub struct Stop {
    /// At the next moment that suits the client: between transactions.
    pub soon: CancellationToken,
    /// At once.
    pub now: CancellationToken,
    /// This one alone, to make room for others.
    pub seat: Arc<Seat>,
}

/// Why a conversation ends.
#[derive(Debug)]
pub enum End {
    /// We said goodbye.
    Closed,
    /// The client hung up, or its connection broke.
    Gone(Option<io::Error>),
    /// The client sent nothing for too long.
    Idle,
    /// The same, in the midst of its data.
    Stalled,
    /// The whole conversation took too long.
    TooLong,
    /// The client did not get as far as it should have by now.
    Late,
    /// The client's message comes too slowly.
    Slow,
    /// The client does not read our replies.
    Deaf,
    /// The handshake of TLS failed.
    Insecure(io::Error),
    /// We are to stop.
    Stopped,
    /// Others are to have its place.
    Crowded,
}

/// A client's stream.
pub struct Wire<S> {
    stream: S,
    pace: Pace,
    stop: Stop,
    clock: Clock,
    input: Input,
    output: Vec<u8>,
    /// Bytes of replies that were sent.
    sent: u64,
}

impl<S: Stream> Wire<S> {
    /// A wire over a stream; the whole conversation's time begins.
    pub fn new(stream: S, pace: Pace, stop: Stop) -> Wire<S> {
        let now = Instant::now();
        Wire {
            stream,
            clock: Clock {
                ends: now + pace.session,
                milestone: None,
                alarm: Box::pin(tokio::time::sleep_until(now + pace.command)),
            },
            pace,
            stop,
            input: Input::default(),
            output: Vec::new(),
            sent: 0,
        }
    }

    /// Ends the conversation unless the client has got somewhere in time. `None`: it has.
    pub fn expect_within(&mut self, time: Option<Duration>) {
        self.clock.milestone = time.map(|time| Instant::now() + time);
    }

    /// Reads a line into `line`, without its CRLF. Replies are sent first, where no whole line is waiting. Who is in the middle of something is let finish by a stop.
    pub async fn line(
        &mut self,
        line: &mut Vec<u8>,
        standing: Standing,
    ) -> Result<Result<(), LineFault>, End> {
        self.stop.seat.stand(standing);
        let stop = if standing == Standing::Busy {
            &self.stop.now
        } else {
            &self.stop.soon
        }
        .clone();
        self.line_until(line, self.pace.max_line, &stop).await
    }

    /// Reads a line that is no command but part of one, of at most `max` bytes with its CRLF.
    pub async fn long_line(
        &mut self,
        line: &mut Vec<u8>,
        max: usize,
    ) -> Result<Result<(), LineFault>, End> {
        let stop = self.stop.now.clone();
        self.line_until(line, max, &stop).await
    }

    async fn line_until(
        &mut self,
        line: &mut Vec<u8>,
        max: usize,
        stop: &CancellationToken,
    ) -> Result<Result<(), LineFault>, End> {
        loop {
            if stop.is_cancelled() {
                return Err(End::Stopped);
            }
            if let Some(found) = self.input.line(line, max) {
                return Ok(found);
            }
            self.flush().await?;
            self.fill(stop).await?;
        }
    }

    /// Reads a block of data into `room`: what is waiting first. Never returns 0.
    pub async fn data(&mut self, room: &mut [u8]) -> Result<usize, End> {
        let waiting = self.input.take(room);
        if waiting > 0 {
            return Ok(waiting);
        }
        self.flush().await?;
        let mut buffer = ReadBuf::new(room);
        let stream = &mut self.stream;
        let read = |cx: &mut Context<'_>| Pin::new(&mut *stream).poll_read(cx, &mut buffer);
        if !self.input.finished {
            let read = self
                .clock
                .wait(self.pace.data, &self.stop.now, Some(&self.stop.seat), read);
            read.await.map_err(|end| match end {
                End::Idle => End::Stalled,
                end => end,
            })?;
        }
        match buffer.filled().len() {
            0 => Err(End::Gone(None)),
            length => Ok(length),
        }
    }

    /// Gives back what was read as data, and belongs to the next lines.
    pub fn unread(&mut self, bytes: &[u8]) {
        self.input.put_back(bytes);
    }

    /// Whether the client hung up and waits for nothing. One that closed its side behind a whole line has said all it had to say, and still
    /// listens.
    pub async fn is_gone(&mut self) -> bool {
        if self.look().await.is_err() {
            return true;
        }
        self.input.finished && !self.input.has_line()
    }

    /// Waits until that is so. For ever where the client says more, since it still listens then. Cancel-safe.
    pub async fn gone(&mut self) {
        while !self.input.finished {
            if self.input.has_line() || self.input.len() > self.pace.max_line {
                return std::future::pending().await;
            }
            let (input, stream) = (&mut self.input, &mut self.stream);
            if std::future::poll_fn(|cx| input.poll_fill(stream, cx))
                .await
                .is_err()
            {
                return;
            }
        }
        if self.input.has_line() {
            std::future::pending().await
        }
    }

    /// Lets the client wait for its replies from there on; those before are sent. No limit on the client but that on the whole conversation runs meanwhile.
    /// Over early where we are to stop; an error where the client hangs up.
    pub async fn pause(&mut self, from: u64, time: Duration) -> Result<(), End> {
        let before = usize::try_from(from.saturating_sub(self.sent)).unwrap_or(usize::MAX);
        let held = self.output.split_off(before.min(self.output.len()));
        let flushed = self.flush().await;
        self.output.extend_from_slice(&held);
        flushed?;
        let began = Instant::now();
        let until = (began + time).min(self.clock.ends);
        let stop = self.stop.soon.clone();
        tokio::select! {
            () = tokio::time::sleep_until(until) => {}
            () = stop.cancelled() => {}
            () = self.gone() => return Err(End::Gone(None)),
        }
        if let Some(milestone) = &mut self.clock.milestone {
            *milestone += began.elapsed();
        }
        Ok(())
    }

    /// Whether [`Wire::secure`] makes sense.
    pub fn can_secure(&self) -> bool {
        self.stream.can_secure()
    }

    /// Sends the replies that wait, and encrypts the stream. What came before the handshake and was not taken is thrown away: anybody on the
    /// way could have put it there (RFC 3207 §4.2).
    pub async fn secure(&mut self) -> Result<Secured, End> {
        self.flush().await?;
        self.input = Input::default();
        let mut handshake = pin!(self.stream.secure());
        let shaken = self
            .clock
            .wait(
                self.pace.command,
                &self.stop.now,
                Some(&self.stop.seat),
                |cx| handshake.as_mut().poll(cx),
            )
            .await;
        shaken.map_err(|end| match end {
            End::Gone(Some(error)) => End::Insecure(error),
            End::Idle => End::Insecure(io::ErrorKind::TimedOut.into()),
            end => end,
        })
    }

    /// Whether the client sent something that nobody took yet.
    pub async fn has_input(&mut self) -> Result<bool, End> {
        self.look().await.map_err(|error| End::Gone(Some(error)))?;
        Ok(!self.input.is_empty())
    }

    /// The same, but waits so long for it.
    pub async fn has_input_within(&mut self, time: Duration) -> Result<bool, End> {
        let (input, stream) = (&mut self.input, &mut self.stream);
        if input.is_empty() && !input.finished {
            let filled = self.clock.wait(time, &self.stop.soon, None, |cx| {
                input.poll_fill(stream, cx)
            });
            match filled.await {
                Ok(()) | Err(End::Idle) => {}
                Err(end) => return Err(end),
            }
        }
        Ok(!self.input.is_empty())
    }

    /// Waits until the client sends something: true; or hangs up without a word: false. Cancel-safe.
    pub async fn speaks(&mut self) -> bool {
        while self.input.is_empty() && !self.input.finished {
            let (input, stream) = (&mut self.input, &mut self.stream);
            if std::future::poll_fn(|cx| input.poll_fill(stream, cx))
                .await
                .is_err()
            {
                return false;
            }
        }
        !self.input.is_empty()
    }

    /// Takes in what is there, if nothing was taken in yet; waits for nothing.
    async fn look(&mut self) -> io::Result<()> {
        if self.input.finished || !self.input.is_empty() {
            return Ok(());
        }
        // Lets the runtime look at its sockets, so that what it knows of this one is fresh.
        tokio::task::yield_now().await;
        let (input, stream) = (&mut self.input, &mut self.stream);
        let polled = std::future::poll_fn(|cx| Poll::Ready(input.poll_fill(stream, cx))).await;
        match polled {
            Poll::Ready(looked) => looked,
            Poll::Pending => Ok(()),
        }
    }

    /// Where replies are written; sent by [`Wire::flush`], at the latest when there is nothing to do but wait for the client.
    pub fn output(&mut self) -> &mut Vec<u8> {
        &mut self.output
    }

    /// Whether so many replies wait that they should be sent now.
    pub fn is_full(&self) -> bool {
        self.output.len() > MAX_OUTPUT
    }

    /// Sends the replies that wait.
    pub async fn flush(&mut self) -> Result<(), End> {
        let mut sent = 0;
        while sent < self.output.len() {
            let (stream, rest) = (&mut self.stream, &self.output[sent..]);
            let write = |cx: &mut Context<'_>| Pin::new(&mut *stream).poll_write(cx, rest);
            let written = self
                .clock
                .wait(
                    self.pace.command,
                    &self.stop.now,
                    Some(&self.stop.seat),
                    write,
                )
                .await;
            let end = match written {
                Ok(0) => End::Gone(None),
                Ok(written) => {
                    sent += written;
                    continue;
                }
                Err(End::Idle) => End::Deaf,
                Err(end) => end,
            };
            // The last reply follows, and what was sent must not go out with it once more.
            self.output.drain(..sent);
            return Err(end);
        }
        self.sent += sent as u64;
        self.output.clear();
        self.output.shrink_to(IDLE_BUFFER);
        if sent > 0 && self.stream.is_secure() {
            // TLS may have taken what the socket did not take yet.
            let stream = &mut self.stream;
            let flush = |cx: &mut Context<'_>| Pin::new(&mut *stream).poll_flush(cx);
            let flushed = self
                .clock
                .wait(
                    self.pace.command,
                    &self.stop.now,
                    Some(&self.stop.seat),
                    flush,
                )
                .await;
            flushed.map_err(|end| match end {
                End::Idle => End::Deaf,
                end => end,
            })?;
        }
        Ok(())
    }

    /// Bytes of replies so far, sent or not.
    pub fn written(&self) -> u64 {
        self.sent + self.output.len() as u64
    }

    /// The replies from there on, where they are not sent yet.
    pub fn written_since(&self, from: u64) -> &[u8] {
        let from = usize::try_from(from.saturating_sub(self.sent)).unwrap_or(usize::MAX);
        self.output.get(from..).unwrap_or_default()
    }

    /// Sends what waits and closes our side. With `linger`, reads on for a moment: closing on unread input would reset the connection, and
    /// the client might never see the last reply.
    pub async fn close(&mut self, linger: Option<Duration>) {
        // A stop in force must not keep the last reply from being sent.
        self.stop = Stop::default();
        (self.pace.command, self.clock.ends) = (FAREWELL, Instant::now() + FAREWELL);
        self.clock.milestone = None;
        if self.flush().await.is_err() {
            return;
        }
        // With TLS, the client must be told that nothing was cut off (RFC 8446 §6.1); else closing says as much as shutting down.
        if linger.is_none() && !self.stream.is_secure() {
            return;
        }
        let shutdown = std::future::poll_fn(|cx| Pin::new(&mut self.stream).poll_shutdown(cx));
        if !matches!(tokio::time::timeout(FAREWELL, shutdown).await, Ok(Ok(()))) {
            return;
        }
        if let Some(linger) = linger {
            let drain = async {
                let never = CancellationToken::new();
                while self.fill(&never).await.is_ok() {
                    self.input = Input::default();
                }
            };
            // Either way it is over.
            let _ = tokio::time::timeout(linger, drain).await;
        }
    }

    /// Adds to the input.
    async fn fill(&mut self, stop: &CancellationToken) -> Result<(), End> {
        let (input, stream) = (&mut self.input, &mut self.stream);
        if !input.finished {
            self.clock
                .wait(self.pace.command, stop, Some(&self.stop.seat), |cx| {
                    input.poll_fill(stream, cx)
                })
                .await?;
        }
        if self.input.finished {
            return Err(End::Gone(None));
        }
        Ok(())
    }
}

/// How long a client gets to take our last words.
const FAREWELL: Duration = Duration::from_secs(5);

/// The deadlines of a conversation, on one timer: it is only set anew when it rings too early, or would ring too late, so that a command
/// costs no work on timers.
struct Clock {
    ends: Instant,
    /// When the client must have got somewhere.
    milestone: Option<Instant>,
    alarm: Pin<Box<Sleep>>,
}

impl Clock {
    /// Waits for the work, at most so long. `seat`: where it is the client that is waited for.
    async fn wait<T>(
        &mut self,
        at_most: Duration,
        stop: &CancellationToken,
        seat: Option<&Seat>,
        mut work: impl FnMut(&mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Result<T, End> {
        let mut stopped = pin!(stop.cancelled());
        let now = Instant::now();
        if now >= self.ends {
            return Err(End::TooLong);
        }
        if self.milestone.is_some_and(|milestone| now >= milestone) {
            return Err(End::Late);
        }
        let mut deadline = (now + at_most).min(self.ends);
        if let Some(milestone) = self.milestone {
            deadline = deadline.min(milestone);
        }
        let mut waiting = None;
        std::future::poll_fn(|cx| {
            if let Poll::Ready(done) = work(cx) {
                return Poll::Ready(done.map_err(|error| End::Gone(Some(error))));
            }
            if stopped.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Err(End::Stopped));
            }
            if let Some(seat) = seat {
                waiting.get_or_insert_with(|| seat.wait(now));
                if seat.poll_leave(cx).is_ready() {
                    return Poll::Ready(Err(End::Crowded));
                }
            }
            ready!(self.poll_alarm(deadline, cx));
            let end = if deadline == self.ends {
                End::TooLong
            } else if Some(deadline) == self.milestone {
                End::Late
            } else {
                End::Idle
            };
            Poll::Ready(Err(end))
        })
        .await
    }

    fn poll_alarm(&mut self, deadline: Instant, cx: &mut Context<'_>) -> Poll<()> {
        if deadline < self.alarm.deadline() {
            self.alarm.as_mut().reset(deadline);
        }
        loop {
            ready!(self.alarm.as_mut().poll(cx));
            if Instant::now() >= deadline {
                return Poll::Ready(());
            }
            self.alarm.as_mut().reset(deadline);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Stream for tokio::io::Join<tokio::io::Repeat, tokio::io::Sink> {}

    #[tokio::test]
    async fn a_session_ends_in_time_though_the_client_never_pauses() {
        let pace = Pace {
            max_line: 100,
            command: Duration::from_secs(300),
            data: Duration::from_secs(300),
            session: Duration::from_millis(50),
        };
        let stream = tokio::io::join(tokio::io::repeat(b'x'), tokio::io::sink());
        let mut wire = Wire::new(stream, pace, Stop::default());
        let reading = async {
            let mut room = [0; 1000];
            loop {
                if let Err(end) = wire.data(&mut room).await {
                    break end;
                }
            }
        };
        let end = tokio::time::timeout(Duration::from_secs(20), reading).await;
        assert!(matches!(end, Ok(End::TooLong)), "{end:?}");
    }
}
