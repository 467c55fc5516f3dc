//! Hooks that see a command's argument before it is read, and may give another in its place: for clients that write what the grammar does not know.

use std::borrow::Cow;

use gatepost_protocol::{Args, Hook, Verdict};

use super::{Mail, parse};
use crate::chain::Upcoming;
use crate::dialog::Next;

impl Mail {
    /// Puts an argument to the plugins as the client wrote it, and returns the one to go on with. A verdict that decides the command is
    /// settled as at `command`; then its reply is given, and the error says what follows it. `next` comes where the argument stays as it is.
    pub(super) async fn repair<'a>(
        &mut self,
        output: &mut Vec<u8>,
        hook: Hook,
        command: Hook,
        written: &'a [u8],
        next: Option<Upcoming<'_>>,
    ) -> Result<Cow<'a, [u8]>, Next> {
        if !self.shared.chain.asks(hook) {
            return Ok(Cow::Borrowed(written));
        }
        let line = std::str::from_utf8(written)
            .ok()
            .filter(|line| !line.contains(char::is_control))
            .map_or_else(|| Cow::Owned(parse::printable(written)), Cow::Borrowed);
        let mut decision = self.ask_then(hook, &Args::Line(line), None, next).await;
        if let Some(next) = self.settle(output, command, &decision) {
            return Err(next);
        }
        if decision.verdict == Verdict::Ok && !decision.values.is_empty() {
            return Ok(Cow::Owned(decision.values.swap_remove(0).into_bytes()));
        }
        Ok(Cow::Borrowed(written))
    }
}
