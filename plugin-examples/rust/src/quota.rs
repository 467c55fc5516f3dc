//! Refuses a message for those recipients whose mailbox has no room for it.

use std::collections::HashMap;
use std::sync::Arc;

use gatepost_protocol::{
    Answer, Call, Definition, Field, Hook, Immune, Outcome, Plugin, Policy, Services, Setting,
    Subscription, Transaction,
};

/// The plugin and its settings.
pub const DEFINITION: Definition = Definition {
    name: "quota",
    about: "refuses a message for those recipients whose mailbox has no room for it",
    settings: || {
        let limit = "what a mailbox may hold; users may have limits of their own";
        vec![Setting::size("limit", limit).default("100MB")]
    },
    build: |init| {
        Ok(Arc::new(Quota {
            limit: init.settings.size("limit").unwrap_or_default(),
            services: init.services,
        }))
    },
};

struct Quota {
    limit: u64,
    services: Arc<dyn Services>,
}

impl Plugin for Quota {
    fn subscriptions(&self) -> Vec<Subscription> {
        let fields = [Field::Recipients, Field::Size];
        vec![Subscription::to(Hook::DataPost, &fields)]
    }

    // A full mailbox has no room for the mail of friends either.
    fn policy(&self) -> Policy {
        Policy {
            immune: Some(Immune::Ignore),
            ..Policy::default()
        }
    }

    fn call<'a>(&'a self, call: &'a Call<'a>) -> Answer<'a> {
        Answer::later(self.look_for_room(&call.session.transaction))
    }
}

impl Quota {
    async fn look_for_room(&self, message: &Transaction) -> Outcome {
        // Lines of address and bytes, as whoever looks after the mailboxes writes them.
        let lines = match self.services.config("mailbox_sizes").await {
            Ok(lines) => lines,
            Err(error) => {
                return Outcome::error(format!("the mailboxes' sizes cannot be read: {error}"));
            }
        };
        let used: HashMap<String, u64> = lines.iter().filter_map(|line| size(line)).collect();
        let has_room = |address: &str| {
            let used = used.get(&address.to_lowercase()).copied();
            used.unwrap_or_default() + message.size <= self.limit
        };
        let (room, full): (Vec<_>, Vec<_>) = message
            .recipients
            .iter()
            .partition(|address| has_room(address.as_str()));
        let all = message.recipients.len();
        let outcome = Outcome::pass(format!("room in {} of {all} mailboxes", room.len()));
        full.into_iter().fold(outcome, |outcome, address| {
            outcome.for_recipient(address.clone(), Outcome::fail("mailbox full"))
        })
    }
}

fn size(line: &str) -> Option<(String, u64)> {
    let (address, bytes) = line.rsplit_once(char::is_whitespace)?;
    Some((address.trim_end().to_lowercase(), bytes.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use gatepost_protocol::Disposition;
    use gatepost_protocol::testing::PluginTest;

    use super::*;

    #[tokio::test]
    async fn only_full_mailboxes_are_refused() {
        let mut test = PluginTest::new(&DEFINITION, &[("limit", "1KB".into())]).unwrap();
        let sizes = ["Bob@Example.org 1004", "carol@example.org\t1005"];
        test.services.set_file("mailbox_sizes", &sizes);
        for recipient in ["BOB@example.org", "carol@example.org", "new@example.org"] {
            test.rcpt(recipient).await;
        }
        let message = b"Subject: x\r\n\r\nhell\r\n";
        let outcome = test.data_post(message).await;
        assert_eq!(outcome.disposition, Some(Disposition::Pass));
        assert_eq!(outcome.message, "room in 2 of 3 mailboxes");
        let [(carol, full)] = outcome.recipients.as_slice() else {
            panic!("{outcome:?}");
        };
        assert_eq!(carol.as_str(), "carol@example.org");
        assert_eq!(full.disposition, Some(Disposition::Fail));
        assert_eq!(full.message, "mailbox full");

        test.set_settings(&[("limit", "2KB".into())]).unwrap();
        let outcome = test.data_post(message).await;
        assert_eq!(outcome.message, "room in 3 of 3 mailboxes");
        assert!(outcome.recipients.is_empty());
    }

    #[test]
    fn a_limit_is_a_size() {
        let errors = PluginTest::new(&DEFINITION, &[("limit", "much".into())]).err();
        assert_eq!(errors.unwrap()[0].path, ["limit"]);
    }
}
