//! Passes silently on five hooks: what remains is the cost of asking.

use std::process::ExitCode;
use std::sync::Arc;

use gatepost_protocol::{Answer, Call, Definition, Hook, Outcome, Plugin, Subscription, serve};

static PLUGINS: [Definition; 1] = [Definition {
    name: "bench",
    about: "passes silently",
    settings: Vec::new,
    build: |_| Ok(Arc::new(Silent)),
}];

struct Silent;

impl Plugin for Silent {
    fn subscriptions(&self) -> Vec<Subscription> {
        use Hook::*;
        [Connect, Helo, Ehlo, Mail, Rcpt, DataPost]
            .map(|hook| Subscription::to(hook, &[]))
            .into()
    }

    fn call<'a>(&'a self, _call: &'a Call<'a>) -> Answer<'a> {
        Outcome::declined().into()
    }
}

fn main() -> ExitCode {
    serve(&PLUGINS)
}
