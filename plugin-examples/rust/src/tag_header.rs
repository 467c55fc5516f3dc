//! Tags every message with a header.

use std::sync::Arc;

use gatepost_protocol::{
    Answer, Call, Change, Definition, Edge, Hook, Outcome, Plugin, Setting, Subscription,
};

/// The plugin and its settings.
pub const DEFINITION: Definition = Definition {
    name: "tag_header",
    about: "tags every message with a header",
    settings: || {
        vec![
            Setting::text("header", "the header's name").default("X-Gatepost-Tag"),
            Setting::text("value", "its value").default("seen"),
        ]
    },
    build: |init| {
        let text = |key| init.settings.text(key).unwrap_or_default().to_owned();
        Ok(Arc::new(TagHeader {
            header: text("header"),
            value: text("value"),
        }))
    },
};

struct TagHeader {
    header: String,
    value: String,
}

impl Plugin for TagHeader {
    fn subscriptions(&self) -> Vec<Subscription> {
        vec![Subscription::to(Hook::DataPost, &[])]
    }

    fn call<'a>(&'a self, _call: &'a Call<'a>) -> Answer<'a> {
        let tag = Change::AddHeader {
            name: self.header.clone(),
            value: self.value.as_str().into(),
            at: Edge::Top,
        };
        Outcome::pass(format!("tagged with {}", self.header))
            .with_change(tag)
            .into()
    }
}

#[cfg(test)]
mod tests {
    use gatepost_protocol::testing::PluginTest;

    use super::*;

    #[tokio::test]
    async fn the_tag_stands_at_the_top_and_nothing_else_is_touched() {
        let mut test = PluginTest::new(&DEFINITION, &[("value", "yes".into())]).unwrap();
        let outcome = test.data_post(b"Subject : odd\r\n\r\nbody\r\n").await;
        assert_eq!(outcome.message, "tagged with X-Gatepost-Tag");
        let header = test.session.transaction.header.unwrap().to_bytes();
        assert_eq!(header, &b"X-Gatepost-Tag: yes\r\nSubject : odd\r\n"[..]);
    }
}
