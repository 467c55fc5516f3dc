//! `headers`: whether a message has the header it must have (RFC 5322 §3.6).
//!
//! qpsmtpd kept a rejection for later even where `reject` said to refuse or to tolerate, and told the client a number; here the client is told what is
//! wrong, once, when `reject` says so.

use std::sync::Arc;
use std::time::SystemTime;

use gatepost_protocol::{
    Answer, Built, Call, Change, Definition, EnhancedCode, Field, HeaderBlock, Hook, Init, Outcome,
    Plugin, Policy, Setting, SettingError, Subscription,
};

use super::date;

pub const DEFINITION: Definition = Definition {
    name: "headers",
    about: "Refuses messages without the headers they must have, or with two where one may be.",
    settings: || {
        vec![
            Setting::list("require", "Headers that must be there.").default(["From"]),
            Setting::integer("past", "How many days old the Date header may be."),
            Setting::integer(
                "future",
                "How many days ahead of us the Date header may be.",
            ),
        ]
    },
    build,
};

/// RFC 5322 §3.6: fields with a maximum number of 1.
const SINGULAR: [&str; 11] = [
    "Date",
    "From",
    "Sender",
    "Reply-To",
    "To",
    "Cc",
    "Bcc",
    "Message-ID",
    "In-Reply-To",
    "References",
    "Subject",
];

const DAY: i64 = 86_400;

struct Headers {
    require: Vec<String>,
    past: Option<i64>,
    future: Option<i64>,
}

fn build(init: Init) -> Built {
    let settings = &init.settings;
    let mut errors = Vec::new();
    let require = settings.list("require");
    for (index, name) in require.iter().enumerate() {
        if !gatepost_protocol::header::is_name(name) {
            errors.push(SettingError {
                path: vec!["require".to_owned(), index.to_string()],
                message: format!("`{name}` is no header name; write it without its colon"),
            });
        }
    }
    let mut days = |key: &str| {
        let days = settings.get(key).map(|_| settings.integer(key))?;
        if days < 0 {
            errors.push(SettingError::at(
                key,
                "expected a number of days, 0 or more",
            ));
        }
        days.checked_mul(DAY)
    };
    let headers = Headers {
        require: require.into_iter().map(str::to_owned).collect(),
        past: days("past"),
        future: days("future"),
    };
    if errors.is_empty() {
        Ok(Arc::new(headers))
    } else {
        Err(errors)
    }
}

impl Plugin for Headers {
    fn subscriptions(&self) -> Vec<Subscription> {
        let fields = [Field::Size, Field::Header];
        vec![Subscription::to(Hook::DataPost, &fields)]
    }

    fn policy(&self) -> Policy {
        super::of_strangers()
    }

    fn call<'a>(&'a self, call: &'a Call<'a>) -> Answer<'a> {
        let transaction = &call.session.transaction;
        let refuse = |text: &str| Outcome::fail(text).with_enhanced(EnhancedCode(5, 6, 0));
        if transaction.size == 0 {
            return refuse("You must send some data first").into();
        }
        match &transaction.header {
            Some(header) if !header.is_empty() => {
                let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
                let now = now.unwrap_or_default().as_secs();
                self.judge(header, i64::try_from(now).unwrap_or(i64::MAX))
                    .into()
            }
            _ => refuse("Headers are missing").into(),
        }
    }
}

impl Headers {
    fn judge(&self, header: &HeaderBlock, now: i64) -> Outcome {
        let mut wrong = Vec::new();
        for name in &self.require {
            if header.first(name).is_none() {
                wrong.push(format!("the {name} header is missing"));
            }
        }
        // One walk, since every message passes here.
        let mut count = [0usize; SINGULAR.len()];
        for (field, _) in header.iter() {
            let singular = |name: &&str| field.eq_ignore_ascii_case(name.as_bytes());
            if let Some(index) = SINGULAR.iter().position(singular) {
                count[index] += 1;
            }
        }
        for (name, count) in SINGULAR.iter().zip(count) {
            if count > 1 {
                wrong.push(format!(
                    "there are {count} {name} headers, and only one may be"
                ));
            }
        }
        wrong.extend(self.judge_date(header, now).map(str::to_owned));
        if wrong.is_empty() {
            return Outcome::pass("");
        }
        let cost = i64::try_from(wrong.len()).unwrap_or(i64::MAX);
        Outcome::fail(wrong.join("; "))
            .with_reply(&format!("RFC 5322 section 3.6: {}", wrong.join("\n")))
            .with_enhanced(EnhancedCode(5, 6, 0))
            .with_change(Change::Karma { add: -cost })
    }

    /// A date that cannot be read is too odd to be judged by: many are, in honest mail.
    fn judge_date(&self, header: &HeaderBlock, now: i64) -> Option<&'static str> {
        if self.past.is_none() && self.future.is_none() {
            return None;
        }
        let date = date::parse(header.first("Date")?)?;
        if self
            .past
            .is_some_and(|past| date < now.saturating_sub(past))
        {
            return Some("The Date header is too far in the past");
        }
        if self
            .future
            .is_some_and(|future| date > now.saturating_add(future))
        {
            return Some("The Date header is too far in the future");
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugins::testing::{
        FakeServices, ask_with, built, karma, line, plugin, session, with_message,
    };
    use gatepost_protocol::Args;

    async fn judge(headers: &Arc<dyn Plugin>, message: &str) -> Outcome {
        let (session, message) = with_message(session("192.0.2.1"), message.as_bytes());
        ask_with(
            headers,
            Hook::DataPost,
            &session,
            Args::None,
            Some(&message),
        )
        .await
    }

    #[tokio::test]
    async fn required_and_singular() {
        let require = [("require", ["From", "Date"].into())];
        let headers = plugin(&DEFINITION, &FakeServices::new(), require);
        let good = judge(
            &headers,
            "From: a@b\r\nDATE: today\r\nReceived: x\r\nReceived: y\r\n\r\n",
        )
        .await;
        assert_eq!((line(&good).as_str(), karma(&good)), ("pass", 0));
        let bad = judge(
            &headers,
            "From: a@b\r\nfrom: c@d\r\nsubject: x\r\nSubject: y\r\n\r\n",
        )
        .await;
        assert_eq!(
            line(&bad),
            "fail, the Date header is missing; there are 2 From headers, and only one may be; there are 2 Subject headers, and only one may be"
        );
        assert_eq!((bad.reply.len(), karma(&bad)), (3, -3));
        assert_eq!(
            bad.reply[0],
            "RFC 5322 section 3.6: the Date header is missing"
        );
        assert_eq!(bad.verdict, None, "the operator decides");
        assert_eq!(
            line(&judge(&headers, "\r\nFrom: a@b\r\n").await),
            "fail, Headers are missing"
        );
        assert_eq!(
            line(&judge(&headers, "").await),
            "fail, You must send some data first"
        );
    }

    #[test]
    fn the_date_may_be_so_old_and_so_new() {
        let headers = Headers {
            require: Vec::new(),
            past: Some(5 * DAY),
            future: Some(2 * DAY),
        };
        let at = |date: &str, now: i64| {
            let block = HeaderBlock::parse(format!("Date: {date}\r\n").into_bytes().into());
            line(&headers.judge(&block, now))
        };
        let date = "Thu, 01 Jan 1970 00:00:00 +0000";
        assert_eq!(at(date, 5 * DAY), "pass");
        assert_eq!(
            at(date, 5 * DAY + 1),
            "fail, The Date header is too far in the past"
        );
        assert_eq!(at(date, -2 * DAY), "pass");
        assert_eq!(
            at(date, -2 * DAY - 1),
            "fail, The Date header is too far in the future"
        );
        assert_eq!(at("soon", 0), "pass");
    }

    #[tokio::test]
    async fn the_clock_is_ours() {
        let headers = plugin(&DEFINITION, &FakeServices::new(), [("past", 5.into())]);
        let old = judge(
            &headers,
            "From: a@b\r\nDate: 1 Jan 2001 00:00:00 +0000\r\n\r\n",
        )
        .await;
        assert_eq!(line(&old), "fail, The Date header is too far in the past");
    }

    #[test]
    fn wrong_settings_are_named() {
        let wrong = [("require", ["From:"].into()), ("past", (-1).into())];
        let errors = built(&DEFINITION, &FakeServices::new(), wrong)
            .err()
            .unwrap();
        let paths: Vec<_> = errors.iter().map(|error| error.path.join(".")).collect();
        assert_eq!(paths, ["require.0", "past"]);
    }
}
