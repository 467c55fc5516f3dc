//! Sets messages apart that carry an attachment of a forbidden name.

use std::sync::Arc;

use gatepost_protocol::{
    Answer, Call, Change, Definition, Hook, Message, Outcome, Plugin, Setting, Subscription,
    Verdict,
};

use crate::mime;

/// The plugin and its settings.
pub const DEFINITION: Definition = Definition {
    name: "quarantine_attachment",
    about: "sets messages apart that carry an attachment of a forbidden name",
    settings: || {
        let names = ["*.exe", "*.js", "*.scr", "*.vbs"];
        vec![Setting::list("names", "forbidden names, with * and ?, in any case").default(names)]
    },
    build: |init| {
        let names = init
            .settings
            .list("names")
            .iter()
            .map(|name| name.to_lowercase())
            .collect();
        Ok(Arc::new(QuarantineAttachment { names }))
    },
};

/// How much of a message is looked at in one piece.
const BLOCK: usize = 256 * 1024;

struct QuarantineAttachment {
    names: Vec<String>,
}

impl Plugin for QuarantineAttachment {
    fn subscriptions(&self) -> Vec<Subscription> {
        vec![Subscription::to(Hook::DataPost, &[])]
    }

    fn call<'a>(&'a self, call: &'a Call<'a>) -> Answer<'a> {
        match call.message {
            Some(message) => Answer::later(self.look_through(message)),
            None => Outcome::skip("no message").into(),
        }
    }
}

impl QuarantineAttachment {
    async fn look_through(&self, message: &dyn Message) -> Outcome {
        let mut parts = mime::PartHeaders::default();
        let mut offset = 0;
        loop {
            let block = match message.read(offset, BLOCK).await {
                Ok(block) => block,
                Err(error) => {
                    return Outcome::error(format!("the message cannot be read: {error}"));
                }
            };
            let names = if block.is_empty() {
                parts.finish()
            } else {
                parts.feed(&block)
            };
            if let Some(name) = names.into_iter().find(|name| self.forbids(name)) {
                let reason = format!("attachment {name}");
                return Outcome::fail(format!("{reason} quarantined"))
                    .with_verdict(Verdict::Declined)
                    .with_change(Change::Quarantine {
                        reason: Some(reason),
                    });
            }
            if block.is_empty() {
                return Outcome::pass("no forbidden attachment");
            }
            offset += block.len() as u64;
        }
    }

    fn forbids(&self, name: &str) -> bool {
        let name: Vec<char> = name.to_lowercase().chars().collect();
        self.names
            .iter()
            .any(|pattern| matches(&pattern.chars().collect::<Vec<_>>(), &name))
    }
}

/// `*` stands for any characters, `?` for one.
fn matches(pattern: &[char], name: &[char]) -> bool {
    match pattern {
        [] => name.is_empty(),
        ['*', rest @ ..] => (0..=name.len()).any(|skip| matches(rest, &name[skip..])),
        ['?', rest @ ..] => !name.is_empty() && matches(rest, &name[1..]),
        [letter, rest @ ..] => name.first() == Some(letter) && matches(rest, &name[1..]),
    }
}

#[cfg(test)]
mod tests {
    use gatepost_protocol::testing::PluginTest;

    use super::*;

    async fn quarantined(message: &str) -> Option<String> {
        let mut test = PluginTest::new(&DEFINITION, &[]).unwrap();
        test.data_post(message.replace('\n', "\r\n").as_bytes())
            .await;
        test.session.transaction.quarantine
    }

    #[tokio::test]
    async fn attachments_are_found_by_every_way_to_name_them() {
        for header in [
            "Content-Disposition: attachment; filename=evil.exe",
            "Content-Disposition: attachment;\n\tfilename=\"evil.EXE\"",
            "Content-Type: application/octet-stream; name=\"evil.exe\"",
            "content-disposition: attachment; filename*=utf-8''%65vil.exe",
        ] {
            let message = format!(
                "Subject: x\nContent-Type: multipart/mixed; boundary=b\n\n--b\n\ntext\n--b\n{header}\n\nMZ\n--b--\n"
            );
            let found = quarantined(&message)
                .await
                .map(|reason| reason.to_lowercase());
            assert_eq!(found.as_deref(), Some("attachment evil.exe"), "{header}");
            let whole = format!("{header}\n\nMZ\n");
            assert!(
                quarantined(&whole).await.is_some(),
                "as the whole message: {header}"
            );
        }
    }

    #[tokio::test]
    async fn text_that_only_speaks_of_it_passes() {
        let message = "Subject: x\n\nContent-Disposition: attachment; filename=evil.exe\n\n-- \nfilename=evil.exe\n";
        assert_eq!(quarantined(message).await, None);
        let other = "Content-Disposition: attachment; filename=report.pdf\n\n%PDF\n";
        assert_eq!(quarantined(other).await, None);
    }

    #[test]
    fn globs() {
        let is = |pattern: &str, name: &str| {
            matches(
                &pattern.chars().collect::<Vec<_>>(),
                &name.chars().collect::<Vec<_>>(),
            )
        };
        assert!(is("*.exe", "a.exe") && is("a?c", "abc") && is("*", "") && is("*a*b", "xaxb"));
        assert!(!is("*.exe", "a.exe.txt") && !is("a?c", "ac") && !is("", "a"));
    }
}
