//! NAME: refuses recipients by a list. Change it into what you need.

use std::process::ExitCode;
use std::sync::Arc;

use gatepost_protocol::{Answer, Call, Definition, Hook, Outcome, Plugin, Setting, Subscription};

static DEFINITIONS: [Definition; 1] = [Definition {
    name: "NAME",
    about: "refuses recipients by a list",
    settings: || vec![Setting::list("addresses", "recipients to refuse")],
    build: |init| {
        let addresses = init.settings.list("addresses").iter().map(|address| address.to_lowercase()).collect();
        Ok(Arc::new(Refuse { addresses }))
    },
}];

struct Refuse {
    addresses: Vec<String>,
}

impl Plugin for Refuse {
    fn subscriptions(&self) -> Vec<Subscription> {
        vec![Subscription::to(Hook::Rcpt, &[])]
    }

    fn call<'a>(&'a self, call: &'a Call<'a>) -> Answer<'a> {
        match call.args.address() {
            Some(address) if self.addresses.contains(&address.to_lowercase()) => Outcome::fail("no such user here").into(),
            _ => Outcome::skip("not listed").into(),
        }
    }
}

fn main() -> ExitCode {
    gatepost_protocol::serve(&DEFINITIONS)
}

#[cfg(test)]
mod tests {
    use gatepost_protocol::Disposition;
    use gatepost_protocol::testing::PluginTest;

    #[tokio::test]
    async fn who_is_listed_is_refused() {
        let settings = [("addresses", ["nobody@example.org"].into())];
        let mut test = PluginTest::new(&super::DEFINITIONS[0], &settings).expect("the settings are good");
        assert_eq!(test.rcpt("nobody@example.org").await.disposition, Some(Disposition::Fail));
        assert_eq!(test.rcpt("bob@example.org").await.disposition, Some(Disposition::Skip));
    }
}
