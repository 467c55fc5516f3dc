//! DATA: the message comes in, up to its dot (RFC 5321 §4.1.1.4).

use gatepost_protocol::{Args, Hook};

use super::Mail;
use super::bdat::Chunks;
use crate::dialog::{End, Next, Stream, Wire};
use crate::message::data::Framing;

impl Mail {
    pub(super) async fn data<S: Stream>(
        &mut self,
        wire: &mut Wire<S>,
        argument: &[u8],
    ) -> Result<Next, End> {
        let output = wire.output();
        if self.visit.session.transaction.sender.is_none() {
            return Ok(self.say(output, "503 5.5.1 Say MAIL first"));
        }
        if self.has_no_recipients() {
            // RFC 5321 §3.3 allows both; RFC 2033 §4.2 wants 503.
            let text = match self.dialect.replies_per_recipient {
                true => "503 5.5.1 No valid recipients",
                false => "554 5.5.1 No valid recipients",
            };
            return Ok(self.say(output, text));
        }
        if matches!(self.chunks, Chunks::Coming(_)) {
            return Ok(self.say(output, super::bdat::BEGUN));
        }
        if self.is_binary() {
            // RFC 3030 §3.
            let text = "503 5.5.1 BODY=BINARYMIME and DATA do not go together; use BDAT";
            return Ok(self.say(output, text));
        }
        if !argument.is_empty() {
            return Ok(self.say(output, "501 5.5.4 Syntax: DATA"));
        }
        self.face_recipients();
        let decision = self
            .ask_and_listen(wire, Hook::Data, &Args::None, None)
            .await;
        if let Some(next) = self.settle(wire.output(), Hook::Data, &decision) {
            self.reset().await;
            return Ok(next);
        }
        let from = wire.written();
        self.let_wait(wire, from).await?;
        // Nor may a message come before it is asked for (RFC 2920 §3.1).
        self.look_for_early_input(wire).await?;
        self.say(
            wire.output(),
            "354 Go ahead, and end with a dot on a line of its own",
        );
        let mut incoming = self.incoming(Framing::Dots);
        loop {
            let block = self.read_block(wire, &mut incoming, usize::MAX).await?;
            if block.ended || incoming.is_cut_off() {
                break;
            }
        }
        let next = self.end_of_message(wire, incoming).await?;
        self.reset().await;
        Ok(next)
    }
}
