use std::sync::{Arc, Mutex, Weak};

use tokio::sync::Notify;

use super::super::answers::{DEEPEST, kept_for};
use super::*;

/// Plugins that answer by the local part, when `go` says so where they are slow, and note what they are asked.
#[derive(Default)]
struct Desk {
    recipients: Recipients,
    asked: Mutex<Vec<String>>,
    go: Notify,
}

impl Desk {
    fn new() -> Arc<Desk> {
        let desk = Arc::new(Desk::default());
        let weak = Arc::downgrade(&desk);
        desk.recipients.ask(Some(Box::new(move |address| {
            Box::pin(Desk::answer(weak.clone(), address.clone()))
        })));
        desk
    }

    async fn answer(desk: Weak<Desk>, address: Address) -> Result<Told, ServiceError> {
        let desk = desk.upgrade().unwrap();
        desk.asked.lock().unwrap().push(address.local().to_owned());
        let told = |validity, said: Option<&str>| {
            let said: Vec<String> = said.into_iter().map(str::to_owned).collect();
            let keep = kept_for(&said, validity == Validity::Valid);
            Ok(Told { validity, keep })
        };
        match address.local() {
            "bob" => told(Validity::Valid, None),
            "fresh" => told(Validity::Valid, Some("0s")),
            "long" => told(Validity::Invalid, Some("10m")),
            "nobody" => told(Validity::Unknown, None),
            "away" => Err(ServiceError::temporary("the directory is away")),
            "never" => std::future::pending().await,
            "slow" => {
                desk.go.notified().await;
                told(Validity::Valid, None)
            }
            // As an alias: the answer is what is said of another.
            "alias" => told(desk.ask("bob").await.unwrap(), None),
            "self" => told(desk.ask("self").await.unwrap(), None),
            "hen" => told(desk.ask("egg").await.unwrap(), None),
            "egg" => told(desk.ask("hen").await.unwrap(), None),
            other => match other.strip_prefix('n').map(str::parse::<u32>) {
                Some(Ok(number)) => {
                    told(desk.ask(&format!("n{}", number + 1)).await.unwrap(), None)
                }
                _ => told(Validity::Invalid, None),
            },
        }
    }

    fn ask(&self, local: &str) -> BoxFuture<'static, Answer> {
        let address = Address::parse(&format!("{local}@example.org")).unwrap();
        self.recipients.valid(&address)
    }

    fn take_asked(&self) -> Vec<String> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }

    fn on_their_way(&self) -> usize {
        self.recipients
            .asked()
            .map_or(0, |asked| asked.answers.on_their_way())
    }
}

#[tokio::test]
async fn nobody_knows_where_nobody_is_asked() {
    let address = Address::parse("bob@example.org").unwrap();
    let validity = Recipients::default().valid(&address).await;
    assert_eq!(validity, Ok(Validity::Unknown));
}

#[tokio::test(start_paused = true)]
async fn answers_are_kept_for_their_time() {
    for (local, validity, seconds) in [
        ("bob", Validity::Valid, 300),
        ("BOB", Validity::Valid, 300),
        ("eve", Validity::Invalid, 60),
        ("nobody", Validity::Unknown, 60),
        ("long", Validity::Invalid, 600),
        ("fresh", Validity::Valid, 0),
    ] {
        let desk = Desk::new();
        assert_eq!(
            desk.ask(&local.to_lowercase()).await,
            Ok(validity),
            "{local}"
        );
        assert_eq!(desk.take_asked().len(), 1);
        if seconds > 0 {
            tokio::time::advance(Duration::from_secs(seconds - 1)).await;
            assert_eq!(desk.ask(local).await, Ok(validity), "{local}");
            assert_eq!(desk.take_asked().len(), 0, "{local}");
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        assert_eq!(
            desk.ask(&local.to_lowercase()).await,
            Ok(validity),
            "{local}"
        );
        assert_eq!(desk.take_asked().len(), 1, "{local}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_told_is_asked_again() {
    let desk = Desk::new();
    for _ in 0..2 {
        let error = desk.ask("away").await.unwrap_err();
        assert_eq!(error.to_string(), "the directory is away");
        assert_eq!(desk.take_asked(), ["away"]);
    }
    let error = desk.ask("never").await.unwrap_err();
    assert_eq!(error, ServiceError::temporary("no answer within 45s"));
    assert_eq!(desk.on_their_way(), 0);
}

#[tokio::test]
async fn many_share_a_question_and_who_leaves_takes_nothing_away() {
    let desk = Desk::new();
    let mut first = desk.ask("slow");
    let mut second = desk.ask("Slow");
    assert!(futures_util::poll!(&mut first).is_pending());
    assert!(futures_util::poll!(&mut second).is_pending());
    assert_eq!(desk.take_asked(), ["slow"]);
    drop(first);
    desk.go.notify_one();
    assert_eq!(second.await, Ok(Validity::Valid));
    assert_eq!(desk.take_asked().len(), 0);
    assert_eq!(desk.on_their_way(), 0);
}

#[tokio::test]
async fn a_question_that_nobody_waits_for_is_given_up() {
    let desk = Desk::new();
    let mut only = desk.ask("slow");
    assert!(futures_util::poll!(&mut only).is_pending());
    assert_eq!(desk.on_their_way(), 1);
    drop(only);
    assert_eq!(desk.on_their_way(), 0);
    desk.go.notify_one();
    assert_eq!(desk.ask("slow").await, Ok(Validity::Valid));
    assert_eq!(desk.take_asked(), ["slow", "slow"]);
}

#[tokio::test]
async fn a_circle_ends() {
    let desk = Desk::new();
    assert_eq!(desk.ask("alias").await, Ok(Validity::Valid));
    assert_eq!(desk.take_asked(), ["alias", "bob"]);
    assert_eq!(desk.ask("self").await, Ok(Validity::Unknown));
    assert_eq!(desk.take_asked(), ["self"]);
    // Each waits for the other, from both ends.
    let (hen, egg) = tokio::join!(desk.ask("hen"), desk.ask("egg"));
    assert_eq!((hen, egg), (Ok(Validity::Unknown), Ok(Validity::Unknown)));
    desk.take_asked();
    // No circle, but no end either.
    assert_eq!(desk.ask("n1").await, Ok(Validity::Unknown));
    assert_eq!(desk.take_asked().len(), DEEPEST);
}
