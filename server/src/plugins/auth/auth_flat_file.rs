//! `auth/auth_flat_file`: users and passwords in the flat file `flat_auth_pw`, one `user@domain:password` a line.
//!
//! Its lines are read for each attempt and never logged, not even wrong ones.

use std::sync::Arc;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use gatepost_protocol::{
    Answer, Args, Built, Call, Credentials, Definition, Hook, Init, Outcome, Plugin, Services,
    Subscription, Verdict,
};

use crate::plugins::now_or_later;

pub const DEFINITION: Definition = Definition {
    name: "auth/auth_flat_file",
    about: "Checks user names and passwords against the flat file flat_auth_pw.",
    settings: Vec::new,
    build,
};

struct FlatFile(Arc<dyn Services>);

fn build(init: Init) -> Built {
    Ok(Arc::new(FlatFile(init.services)))
}

impl Plugin for FlatFile {
    fn subscriptions(&self) -> Vec<Subscription> {
        vec![Subscription::to(Hook::Auth, &[])]
    }

    fn call<'a>(&'a self, call: &'a Call<'a>) -> Answer<'a> {
        match call.args {
            Args::Auth(credentials) => now_or_later(self.judge(credentials)),
            _ => Outcome::declined().into(),
        }
    }
}

impl FlatFile {
    async fn judge(&self, credentials: &Credentials) -> Outcome {
        let lines = match self.0.config("flat_auth_pw").await {
            Ok(lines) => lines,
            Err(error) => return Outcome::error(error.to_string()),
        };
        let password = lines
            .iter()
            .filter_map(|line| line.split_once(':'))
            .find(|(user, _)| *user == credentials.user)
            .map(|(_, password)| password)
            .filter(|password| !password.is_empty());
        match (password, &credentials.password, &credentials.token) {
            (None, ..) => Outcome::skip("no such user in flat_auth_pw"),
            (_, None, Some(_)) => Outcome::skip("flat_auth_pw has no tokens"),
            (Some(right), Some(given), _) => {
                match verify_slices_are_equal(right.as_bytes(), given.as_bytes()) {
                    Ok(()) => Outcome::ok(""),
                    Err(_) => Outcome::fail("wrong password"),
                }
            }
            (Some(right), None, None) => Outcome {
                values: vec![format!("{{PLAIN}}{right}")],
                ..Outcome::default().with_verdict(Verdict::Ok)
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugins::testing::{FakeServices, ask, line, plugin, session};

    fn shown(user: &str, password: Option<&str>) -> Args<'static> {
        Args::Auth(std::borrow::Cow::Owned(Credentials {
            mechanism: "PLAIN".to_owned(),
            user: user.to_owned(),
            password: password.map(str::to_owned),
            ..Credentials::default()
        }))
    }

    #[tokio::test]
    async fn users() {
        let services = FakeServices::new();
        services.file(
            "flat_auth_pw",
            &["bob@example.org:se:cret", "empty@example.org:", "nonsense"],
        );
        let flat = plugin(&DEFINITION, &services, []);
        let client = session("192.0.2.1");
        for (user, password, said, verdict) in [
            ("bob@example.org", "se:cret", "pass", Some(Verdict::Ok)),
            ("bob@example.org", "se:cres", "fail, wrong password", None),
            ("bob@example.org", "", "fail, wrong password", None),
            (
                "empty@example.org",
                "",
                "skip, no such user in flat_auth_pw",
                None,
            ),
            (
                "eve@example.org",
                "x",
                "skip, no such user in flat_auth_pw",
                None,
            ),
        ] {
            let outcome = ask(&flat, Hook::Auth, &client, shown(user, Some(password))).await;
            assert_eq!(line(&outcome), said, "{user}");
            assert_eq!(outcome.verdict, verdict, "{user}");
        }
        let secret = ask(&flat, Hook::Auth, &client, shown("bob@example.org", None)).await;
        assert_eq!(secret.values, ["{PLAIN}se:cret"]);
        assert_eq!(secret.message, "");
        assert_eq!(services.logged(), [""; 0], "a line may hold a password");
    }
}
