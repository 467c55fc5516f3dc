//! `earlytalker`: clients that speak before it is their turn.
//!
//! qpsmtpd's plugin watches the socket itself, and so waits with every client in turn; here the core sees who speaks early, and `greet_delay` of the
//! listener is the wait.

use std::sync::Arc;

use gatepost_protocol::{
    Answer, Built, Call, Change, Definition, EnhancedCode, Field, Hook, Init, Outcome, Plugin,
    Policy, Setting, SettingError, Subscription,
};

pub const DEFINITION: Definition = Definition {
    name: "earlytalker",
    about: "Refuses clients that speak before it is their turn.",
    settings: || {
        vec![
            Setting::list(
                "check_at",
                "Where to refuse: helo (who spoke before the greeting, or behind HELO or EHLO), mail (the same, so that it is logged with a sender), data (who sent the message before it was asked for, too).",
            )
            .default(["mail"]),
        ]
    },
    build,
};

struct EarlyTalker {
    hooks: Vec<Hook>,
}

fn build(init: Init) -> Built {
    let mut hooks = Vec::new();
    let mut errors = Vec::new();
    for (index, place) in init.settings.list("check_at").iter().enumerate() {
        match *place {
            "helo" => hooks.extend([Hook::Helo, Hook::Ehlo]),
            "mail" => hooks.push(Hook::Mail),
            "data" => hooks.push(Hook::DataHeadersEnd),
            _ => errors.push(SettingError {
                path: vec!["check_at".to_owned(), index.to_string()],
                message: "expected \"helo\", \"mail\" or \"data\"".to_owned(),
            }),
        }
    }
    match errors.is_empty() {
        true => Ok(Arc::new(EarlyTalker { hooks })),
        false => Err(errors),
    }
}

impl Plugin for EarlyTalker {
    fn subscriptions(&self) -> Vec<Subscription> {
        let subscribe = |hook: &Hook| Subscription::to(*hook, &[Field::EarlyTalker]);
        self.hooks.iter().map(subscribe).collect()
    }

    fn policy(&self) -> Policy {
        super::of_strangers()
    }

    fn call<'a>(&'a self, call: &'a Call<'a>) -> Answer<'a> {
        if !call.session.connection.early_talker {
            return Outcome::pass("").into();
        }
        Outcome::fail("remote started speaking before the server")
            .with_enhanced(EnhancedCode(5, 5, 1))
            .with_change(Change::Karma { add: -1 })
            .into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugins::testing::{FakeServices, ask, built, karma, line, plugin, session};
    use gatepost_protocol::Args;

    #[tokio::test]
    async fn who_speaks_early_fails() {
        let plugin = plugin(&DEFINITION, &FakeServices::new(), []);
        let mut client = session("192.0.2.1");
        let outcome = ask(&plugin, Hook::Mail, &client, Args::None).await;
        assert_eq!((line(&outcome).as_str(), karma(&outcome)), ("pass", 0));
        client.connection.early_talker = true;
        let outcome = ask(&plugin, Hook::Mail, &client, Args::None).await;
        assert_eq!(
            line(&outcome),
            "fail, remote started speaking before the server"
        );
        assert_eq!(karma(&outcome), -1);
    }

    #[test]
    fn it_is_asked_where_it_is_told_to_check() {
        let places = [("check_at", ["helo", "data"].into())];
        let plugin = plugin(&DEFINITION, &FakeServices::new(), places);
        let hooks: Vec<Hook> = plugin.subscriptions().iter().map(|it| it.hook).collect();
        assert_eq!(hooks, [Hook::Helo, Hook::Ehlo, Hook::DataHeadersEnd]);
        let wrong = [("check_at", ["mail", "connect"].into())];
        let errors = built(&DEFINITION, &FakeServices::new(), wrong)
            .err()
            .unwrap();
        assert_eq!(errors[0].path, ["check_at", "1"]);
    }
}
