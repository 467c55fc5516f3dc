//! Looks at a client that has to be silent: whether it speaks out of turn.

use std::pin::pin;
use std::sync::Arc;

use gatepost_protocol::{Args, Field, Hook, Speech};

use super::Mail;
use crate::chain::{Decision, Upcoming};
use crate::dialog::{End, Stream, Wire};

impl Mail {
    /// Puts a hook to the plugins ([`Mail::ask`]) at a time when the client has to be silent: they may listen whether it is.
    pub(super) async fn ask_and_listen<S: Stream>(
        &mut self,
        wire: &mut Wire<S>,
        hook: Hook,
        args: &Args<'_>,
        next: Option<Upcoming<'_>>,
    ) -> Decision {
        if !self.shared.chain.asks(hook) {
            return self.ask_then(hook, args, None, next).await;
        }
        // Boxed: a session keeps room for the most that it ever awaits, and most sessions never listen.
        Box::pin(self.ask_listening(wire, hook, args, next)).await
    }

    async fn ask_listening<S: Stream>(
        &mut self,
        wire: &mut Wire<S>,
        hook: Hook,
        args: &Args<'_>,
        next: Option<Upcoming<'_>>,
    ) -> Decision {
        let speech = Arc::new(Speech::new());
        self.visit.speech = Some(Arc::clone(&speech));
        let decision = {
            let mut asking = pin!(self.ask_then(hook, args, None, next));
            tokio::select! {
                // A plugin that answers at once costs no look at the client.
                biased;
                decision = &mut asking => decision,
                () = listen(wire, &speech) => asking.await,
            }
        };
        self.visit.speech = None;
        self.visit.session.connection.early_talker |= speech.was_heard();
        decision
    }

    /// Looks whether the client speaks out of turn, where a plugin wants to know.
    pub(super) async fn look_for_early_input<S: Stream>(
        &mut self,
        wire: &mut Wire<S>,
    ) -> Result<(), End> {
        let connection = &mut self.visit.session.connection;
        if !connection.early_talker && self.shared.chain.wants(Field::EarlyTalker) {
            connection.early_talker = wire.has_input().await?;
        }
        Ok(())
    }
}

/// Looks at a client, once somebody wants to know, until it speaks.
async fn listen<S: Stream>(wire: &mut Wire<S>, speech: &Speech) {
    speech.wanted().await;
    if let Ok(false) = wire.has_input().await {
        speech.note_silence();
    }
    speech.note_end(wire.speaks().await);
}
