//! `queue/discard`: takes every message and keeps none, for tests and measurements.

use std::sync::Arc;

use gatepost_protocol::{Answer, Call, Definition, Hook, Outcome, Plugin, Subscription, Success};

pub const DEFINITION: Definition = Definition {
    name: "queue/discard",
    about: "Accepts every message and throws it away.",
    settings: Vec::new,
    build: |_| Ok(Arc::new(Discard)),
};

struct Discard;

impl Plugin for Discard {
    fn subscriptions(&self) -> Vec<Subscription> {
        vec![Subscription::to(Hook::Queue, &[])]
    }

    fn call<'a>(&'a self, _call: &'a Call<'a>) -> Answer<'a> {
        // Nobody has it, and to say so of every message would be no use to its sender.
        Outcome::ok("discarded").with_success(Success::None).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugins::testing::{FakeServices, ask, plugin, session};
    use gatepost_protocol::{Args, Verdict};

    #[tokio::test]
    async fn everything_is_taken() {
        let discard = plugin(&DEFINITION, &FakeServices::new(), []);
        let outcome = ask(&discard, Hook::Queue, &session("192.0.2.1"), Args::None).await;
        assert_eq!(
            (outcome.verdict, outcome.message.as_str()),
            (Some(Verdict::Ok), "discarded")
        );
    }
}
