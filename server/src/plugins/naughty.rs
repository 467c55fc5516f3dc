//! `naughty`: refuses what plugins with `reject = "naughty"` kept for later.
//!
//! Whatever the phase, it also stands in `data_post`: what is kept too late for the phase must not get through. qpsmtpd always closed the connection;
//! here the verdict is the one the failing plugin was configured with, or that of this plugin's own `reject_type`.

use std::sync::Arc;

use gatepost_protocol::{
    Answer, Built, Call, Definition, Field, Hook, Immune, Init, Outcome, Plugin, Policy, Setting,
    SettingError, Subscription,
};

pub const DEFINITION: Definition = Definition {
    name: "naughty",
    about: "Refuses clients whose rejection was kept for later.",
    settings: || {
        vec![
            Setting::text(
                "phase",
                "When to refuse: connect, mail, rcpt, data or data_post.",
            )
            .default("rcpt"),
        ]
    },
    build,
};

const PHASES: [Hook; 5] = [
    Hook::Connect,
    Hook::Mail,
    Hook::Rcpt,
    Hook::Data,
    Hook::DataPost,
];

struct Naughty(Hook);

fn build(init: Init) -> Built {
    let phase = init.settings.text("phase").unwrap_or_default();
    match PHASES.into_iter().find(|hook| hook.name() == phase) {
        Some(hook) => Ok(Arc::new(Naughty(hook))),
        None => {
            let known = PHASES.map(Hook::name).join(", ");
            let message = format!("`{phase}` is no phase to refuse in; expected one of {known}");
            Err(vec![SettingError::at("phase", message)])
        }
    }
}

impl Plugin for Naughty {
    fn subscriptions(&self) -> Vec<Subscription> {
        let fields = [Field::Naughty];
        let mut hooks = vec![Subscription::to(self.0, &fields)];
        if self.0 != Hook::DataPost {
            hooks.push(Subscription::to(Hook::DataPost, &fields));
        }
        hooks
    }

    /// Asked of everybody, it has a line in the log only where something was kept. Who became a relay client since, by AUTH, is no longer judged by what
    /// was found before.
    fn policy(&self) -> Policy {
        Policy {
            immune: Some(Immune::Tolerate),
            ..Policy::default()
        }
    }

    fn call<'a>(&'a self, call: &'a Call<'a>) -> Answer<'a> {
        let Some(kept) = &call.session.connection.naughty else {
            return Outcome::declined().into();
        };
        Outcome::fail(format!("{}: {}", kept.plugin, kept.message))
            .with_reply(&format!("({}) {}", kept.plugin, kept.message))
            .with_verdict(kept.verdict)
            .into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugins::testing::{FakeServices, ask, ask_address, built, line, plugin, session};
    use gatepost_protocol::{Args, Verdict};

    fn kept() -> Option<gatepost_protocol::session::Naughty> {
        Some(gatepost_protocol::session::Naughty {
            plugin: "dnsbl".to_owned(),
            message: "listed".to_owned(),
            verdict: Verdict::DenyDisconnect,
        })
    }

    #[tokio::test]
    async fn the_kept_rejection_is_told() {
        let naughty = plugin(&DEFINITION, &FakeServices::new(), []);
        let mut client = session("192.0.2.1");
        let good = ask_address(&naughty, Hook::Rcpt, &client, "bob@example.org").await;
        assert_eq!(line(&good), "-");
        client.connection.naughty = kept();
        let bad = ask_address(&naughty, Hook::Rcpt, &client, "bob@example.org").await;
        assert_eq!(line(&bad), "fail, dnsbl: listed");
        assert_eq!(bad.reply, ["(dnsbl) listed"]);
        assert_eq!(bad.verdict, Some(Verdict::DenyDisconnect));
        let late = ask(&naughty, Hook::DataPost, &client, Args::None).await;
        assert_eq!(line(&late), "fail, dnsbl: listed");
    }

    #[test]
    fn phases() {
        let services = FakeServices::new();
        let hooks = |phase: &str| -> Vec<Hook> {
            let naughty = plugin(&DEFINITION, &services, [("phase", phase.into())]);
            naughty.subscriptions().iter().map(|to| to.hook).collect()
        };
        assert_eq!(hooks("mail"), [Hook::Mail, Hook::DataPost]);
        assert_eq!(hooks("data_post"), [Hook::DataPost]);
        let errors = built(&DEFINITION, &services, [("phase", "quit".into())])
            .err()
            .unwrap();
        assert!(
            errors[0].message.contains("expected one of connect"),
            "{errors:?}"
        );
    }
}
