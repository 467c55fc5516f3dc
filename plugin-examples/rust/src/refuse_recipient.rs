//! Refuses some recipients.

use std::sync::Arc;

use gatepost_protocol::{Answer, Call, Definition, Hook, Outcome, Plugin, Setting, Subscription};

/// The plugin and its settings.
pub const DEFINITION: Definition = Definition {
    name: "refuse_recipient",
    about: "refuses some recipients",
    settings: || {
        vec![
            Setting::list("addresses", "whom to refuse").required(),
            Setting::text("message", "what the client is told").default("no such user here"),
        ]
    },
    build: |init| {
        let addresses = init
            .settings
            .list("addresses")
            .iter()
            .map(|address| address.to_lowercase())
            .collect();
        let message = init.settings.text("message").unwrap_or_default().to_owned();
        Ok(Arc::new(RefuseRecipient { addresses, message }))
    },
};

struct RefuseRecipient {
    addresses: Vec<String>,
    message: String,
}

impl Plugin for RefuseRecipient {
    fn subscriptions(&self) -> Vec<Subscription> {
        vec![Subscription::to(Hook::Rcpt, &[])]
    }

    fn call<'a>(&'a self, call: &'a Call<'a>) -> Answer<'a> {
        match call.args.address() {
            Some(address) if self.addresses.contains(&address.to_lowercase()) => {
                Outcome::fail(&self.message).into()
            }
            _ => Outcome::skip("not listed").into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use gatepost_protocol::Disposition;
    use gatepost_protocol::testing::PluginTest;

    use super::*;

    #[tokio::test]
    async fn only_who_is_listed_is_refused() {
        let settings = [("addresses", ["Nobody@example.org"].into())];
        let mut test = PluginTest::new(&DEFINITION, &settings).unwrap();
        let refused = test.rcpt("nobody@EXAMPLE.org").await;
        assert_eq!(
            (refused.disposition, &*refused.message),
            (Some(Disposition::Fail), "no such user here")
        );
        assert_eq!(
            test.rcpt("bob@example.org").await.disposition,
            Some(Disposition::Skip)
        );
    }

    #[test]
    fn addresses_must_be_given() {
        let errors = PluginTest::new(&DEFINITION, &[]).err().unwrap();
        assert_eq!(errors[0].message, "`addresses` is missing: whom to refuse");
    }
}
