//! The outbox with small plugins in a real chain.

mod news;
mod store;
mod submit;

use std::sync::Mutex;

use bytes::Bytes;
use gatepost_protocol::plugin::Subscription;
use gatepost_protocol::services::MemoryMessage;
use gatepost_protocol::{
    Answer, Call, Direction, HeaderBlock, Hook, Outcome, Plugin, Policy, Verdict,
};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::folder::Claimed;
use super::*;
use crate::chain::{Chain, Entry, Rules};

type Respond = dyn Fn(&Transaction, usize) -> Outcome + Send + Sync;

/// A message as `queue` saw it.
#[derive(Clone, Debug)]
struct Seen {
    session: Session,
    text: String,
}

/// A plugin at `queue` that writes down what it sees, and answers by the transaction and how many came before it.
struct Queue {
    seen: Arc<Mutex<Vec<Seen>>>,
    told: tokio::sync::mpsc::UnboundedSender<()>,
    respond: Box<Respond>,
}

impl Plugin for Queue {
    fn subscriptions(&self) -> Vec<Subscription> {
        vec![Subscription::to(Hook::Queue, &[])]
    }

    fn call<'a>(&'a self, call: &'a Call<'a>) -> Answer<'a> {
        Answer::later(async move {
            let transaction = &call.session.transaction;
            let mut content = Delivered::new(transaction, call.message.unwrap());
            let mut text = Vec::new();
            while let Some(block) = content.next().await.unwrap() {
                text.extend_from_slice(&block);
            }
            let mut seen = self.seen.lock().unwrap();
            let before = seen.len();
            seen.push(Seen {
                session: call.session.clone(),
                text: String::from_utf8(text).unwrap(),
            });
            self.told.send(()).unwrap();
            (self.respond)(transaction, before)
        })
    }
}

const HEADER: &str = "From: alice@client.example\r\nMessage-ID: <1@client.example>\r\n";

/// A message as it is in a session, for these recipients.
fn incoming(body: &str, recipients: &[&str]) -> (Session, MemoryMessage) {
    let mut session = Session {
        id: "3f9a1c".into(),
        ..Session::default()
    };
    session.connection.hello = Some("EHLO".into());
    session.connection.hello_host = Some("client.example".into());
    session.connection.remote = Some("192.0.2.1:1234".parse().unwrap());
    let transaction = &mut session.transaction;
    transaction.number = 2;
    transaction.sender = Some(Address::parse("alice@client.example").unwrap());
    for recipient in recipients {
        let address = Address::parse(recipient).unwrap();
        transaction.add_recipient(address, Parameters::new());
    }
    transaction.header = Some(HeaderBlock::parse(Bytes::from_static(HEADER.as_bytes())));
    transaction.header_end = HEADER.len() as u64;
    transaction.body_start = transaction.header_end + 2;
    let text = format!("{HEADER}\r\n{body}");
    transaction.size = text.len() as u64;
    (session, MemoryMessage(text.into()))
}

fn failure(recipient: &str) -> News {
    News {
        recipient: Address::parse(recipient).unwrap(),
        parameters: Parameters::new(),
        action: Action::Failed,
        code: 550,
        enhanced: Some(EnhancedCode(5, 1, 1)),
        text: "no such user here".to_owned(),
    }
}

fn soft() -> Outcome {
    Outcome::fail("come again")
        .with_verdict(Verdict::DenySoft)
        .with_code(450, EnhancedCode(4, 2, 1))
}

/// An outbox that retries at once, and its folder.
struct Bed {
    config: Config,
    _spool: TempDir,
}

/// An outbox that delivers.
struct Running {
    outbox: Arc<Outbox>,
    seen: Arc<Mutex<Vec<Seen>>>,
    came: tokio::sync::mpsc::UnboundedReceiver<()>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Bed {
    fn new() -> Bed {
        let spool = tempfile::tempdir().unwrap();
        let mut config = crate::message::spool::tests::config(spool.path(), 0, 0);
        config.outbox.retry = Duration::from_millis(1);
        Bed {
            config,
            _spool: spool,
        }
    }

    fn open(&self) -> Arc<Outbox> {
        Outbox::open(&self.config).unwrap()
    }

    fn run(
        &self,
        respond: impl Fn(&Transaction, usize) -> Outcome + Send + Sync + 'static,
    ) -> Running {
        let seen = Arc::<Mutex<Vec<Seen>>>::default();
        let (told, came) = tokio::sync::mpsc::unbounded_channel();
        let queue = Queue {
            seen: Arc::clone(&seen),
            told,
            respond: Box::new(respond),
        };
        let chain = Arc::new(Chain::new(vec![Entry {
            name: "queue".into(),
            plugin: Arc::new(queue),
            rules: Rules::new(Policy::default(), Policy::default(), None, None),
            when: None,
            origins: Default::default(),
        }]));
        let outbox = self.open();
        let stop = CancellationToken::new();
        Running {
            task: tokio::spawn(
                Arc::clone(&outbox).run(tokio::sync::watch::channel(chain).1, stop.clone()),
            ),
            outbox,
            seen,
            came,
            stop,
        }
    }

    /// The files of messages, by extension.
    fn files(&self) -> Vec<String> {
        let dir = self.config.spool_dir.join("outbox");
        let entries = std::fs::read_dir(dir).into_iter().flatten();
        let mut names: Vec<String> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .map(|name| name.rsplit('.').next().unwrap().to_owned())
            .collect();
        names.sort();
        names
    }
}

impl Running {
    /// Waits until `queue` was asked so many times, and what is under way is over; what it saw.
    async fn seen(mut self, times: usize) -> Vec<Seen> {
        for _ in 0..times {
            let came = tokio::time::timeout(PATIENCE, self.came.recv()).await;
            came.expect("an attempt in time").unwrap();
        }
        self.stop.cancel();
        self.task.await.unwrap();
        let seen = self.seen.lock().unwrap();
        assert_eq!(seen.len(), times, "{seen:?}");
        seen.clone()
    }

    /// The same, once nothing waits any more.
    async fn emptied(self, bed: &Bed, times: usize) -> Vec<Seen> {
        let began = std::time::Instant::now();
        while !bed.files().is_empty() {
            assert!(began.elapsed() < PATIENCE, "{:?}", bed.files());
            tokio::task::yield_now().await;
        }
        self.seen(times).await
    }
}

/// Much longer than anything takes.
const PATIENCE: Duration = Duration::from_secs(30);

fn to(seen: &Seen) -> Vec<&str> {
    let recipients = &seen.session.transaction.recipients;
    recipients.iter().map(Address::as_str).collect()
}

#[tokio::test]
async fn a_notification_goes_out_through_the_queue() {
    let bed = Bed::new();
    let running = bed.run(|_, _| Outcome::ok(""));
    let (session, message) = incoming("hello\r\n", &["bob@example.org"]);
    let failures = [failure("bob@example.org")];
    running
        .outbox
        .notify(&session, &message, &failures)
        .await
        .unwrap();
    let seen = running.emptied(&bed, 1).await;
    let (connection, transaction) = (&seen[0].session.connection, &seen[0].session.transaction);
    assert_eq!(connection.direction, Direction::Local);
    assert!(connection.relay_client);
    assert_eq!(transaction.sender, Some(Address::null()));
    assert_eq!(to(&seen[0]), ["alice@client.example"]);
    assert_eq!(transaction.size, seen[0].text.len() as u64);
    let body = &seen[0].text[transaction.body_start as usize..];
    assert!(body.starts_with("--"), "{body}");
    for part in [
        "Final-Recipient: rfc822; bob@example.org\r\n",
        "Received-From-MTA: dns; client.example\r\n",
        "Final-Log-ID: 3f9a1c.2\r\n",
        "Content-Type: message/rfc822\r\n",
        "\r\n\r\nFrom: alice@client.example\r\nMessage-ID: <1@client.example>\r\n\r\nhello\r\n",
    ] {
        assert!(seen[0].text.contains(part), "{part} in {}", seen[0].text);
    }
}

#[tokio::test]
async fn each_refused_recipient_has_its_own() {
    let bed = Bed::new();
    let running = bed.run(|_, _| Outcome::ok(""));
    let big = "a line of the message\r\n".repeat(10_000);
    let (mut session, message) = incoming(&big, &[]);
    let ret = Some("FULL".to_owned());
    session
        .transaction
        .sender_parameters
        .insert("RET".to_owned(), ret);
    let mut never = failure("never@example.org");
    never
        .parameters
        .insert("NOTIFY".to_owned(), Some("NEVER".to_owned()));
    let failures = [
        failure("bob@example.org"),
        never,
        failure("eve@example.org"),
    ];
    running
        .outbox
        .notify(&session, &message, &failures)
        .await
        .unwrap();
    let seen = running.emptied(&bed, 2).await;
    let about = |name: &str| {
        let about = format!("Final-Recipient: rfc822; {name}\r\n");
        let mut found = seen.iter().filter(|seen| seen.text.contains(&about));
        let found = found.next().map(|seen| seen.text.contains(&big));
        found.unwrap_or_else(|| panic!("{name} in {seen:?}"))
    };
    // All of a big message comes back once.
    assert!(about("bob@example.org"));
    assert!(!about("eve@example.org"));
}

#[tokio::test]
async fn what_is_binary_comes_back_as_its_header_alone() {
    for body in [
        "a\nb\r\n".to_owned(),
        "a\0b\r\n".to_owned(),
        "x".repeat(999) + "\r\n",
    ] {
        let bed = Bed::new();
        let running = bed.run(|_, _| Outcome::ok(""));
        let (session, message) = incoming(&body, &[]);
        let failures = [failure("bob@example.org")];
        running
            .outbox
            .notify(&session, &message, &failures)
            .await
            .unwrap();
        let seen = running.emptied(&bed, 1).await;
        assert!(seen[0].text.contains("text/rfc822-headers"), "{seen:?}");
        assert!(!seen[0].text.contains(&body), "{seen:?}");
    }
}

#[tokio::test]
async fn nobody_is_told_twice_over() {
    let mut bed = Bed::new();
    bed.config.outbox.max_notifications_per_sender = 1;
    let outbox = bed.open();
    let (mut session, message) = incoming("hello\r\n", &[]);
    let failures = [failure("bob@example.org"), failure("eve@example.org")];
    outbox.notify(&session, &message, &failures).await.unwrap();
    assert_eq!(bed.files(), ["json", "msg"]);
    session.transaction.sender = Some(Address::null());
    outbox.notify(&session, &message, &failures).await.unwrap();
    assert_eq!(bed.files(), ["json", "msg"]);
}

#[tokio::test]
async fn a_kept_message_is_tried_until_it_is_taken_and_only_for_who_is_left() {
    let bed = Bed::new();
    let running = bed.run(|transaction, before| match before {
        0 => soft(),
        1 => {
            let mut outcome = Outcome::ok("");
            let second = transaction.recipients[1].clone();
            outcome.recipients.push((second, soft()));
            outcome
        }
        _ => Outcome::ok(""),
    });
    let (mut session, message) = incoming("hello\r\n", &["bob@example.org", "eve@example.org"]);
    session.connection.relay_client = true;
    let transaction = &mut session.transaction;
    transaction.whitelisted = Some("a good sender".to_owned());
    let notify = Parameters::from([("NOTIFY".to_owned(), Some("NEVER".to_owned()))]);
    transaction.recipient_parameters = vec![Parameters::new(), notify.clone()];
    transaction
        .header
        .as_mut()
        .unwrap()
        .add("X-Added", b"1", true)
        .unwrap();
    transaction.quarantine = Some("odd".to_owned());
    running
        .outbox
        .keep(&session, &message, "some could not take it")
        .await
        .unwrap();
    let seen = running.emptied(&bed, 3).await;
    assert_eq!(to(&seen[0]), ["bob@example.org", "eve@example.org"]);
    assert_eq!(to(&seen[1]), ["bob@example.org", "eve@example.org"]);
    assert_eq!(to(&seen[2]), ["eve@example.org"]);
    for seen in &seen {
        assert_eq!(seen.text, format!("X-Added: 1\r\n{HEADER}\r\nhello\r\n"));
        let connection = &seen.session.connection;
        assert_eq!(connection.direction, Direction::Inbound);
        assert_eq!(connection.remote, session.connection.remote);
        assert!(connection.relay_client);
        assert_eq!(seen.session.whitelisted(), Some("a good sender"));
        let kept = &seen.session.transaction;
        assert_eq!(kept.quarantine.as_deref(), Some("odd"));
        assert_eq!(kept.header_end + 2, kept.body_start);
    }
    assert_eq!(seen[2].session.transaction.parameters_of(0), &notify);
}

#[tokio::test]
async fn recipients_go_by_their_routes() {
    let bed = Bed::new();
    let running = bed.run(|_, _| Outcome::ok(""));
    let (mut session, message) = incoming(
        "x\r\n",
        &["a@example.org", "b@example.org", "c@example.org"],
    );
    for at in [0, 2] {
        let recipient = session.transaction.recipients[at].clone();
        session
            .transaction
            .routes
            .insert(recipient, "west".to_owned());
    }
    running.outbox.keep(&session, &message, "").await.unwrap();
    let seen = running.emptied(&bed, 2).await;
    assert_eq!(to(&seen[0]), ["a@example.org", "c@example.org"]);
    assert_eq!(seen[0].session.transaction.route.as_deref(), Some("west"));
    assert_eq!(to(&seen[1]), ["b@example.org"]);
    assert_eq!(seen[1].session.transaction.route, None);
}

#[tokio::test]
async fn what_is_refused_for_good_is_told_to_the_sender_and_not_about_notifications() {
    let bed = Bed::new();
    let refuse = |_: &Transaction, _| {
        Outcome::fail("no mailbox")
            .with_verdict(Verdict::Deny)
            .with_code(550, EnhancedCode(5, 2, 1))
    };
    let running = bed.run(refuse);
    let (session, message) = incoming("hello\r\n", &["bob@example.org"]);
    running.outbox.keep(&session, &message, "").await.unwrap();
    let seen = running.emptied(&bed, 2).await;
    let notification = &seen[1];
    assert_eq!(to(notification), ["alice@client.example"]);
    for part in [
        "Status: 5.2.1\r\n",
        "Diagnostic-Code: smtp; 550 5.2.1 no mailbox\r\n",
    ] {
        assert!(notification.text.contains(part), "{notification:?}");
    }
}

#[tokio::test]
async fn what_is_too_old_is_given_up() {
    let mut bed = Bed::new();
    bed.config.outbox.max_age = Duration::ZERO;
    let running = bed.run(|_, _| soft());
    let (session, message) = incoming("hello\r\n", &["bob@example.org"]);
    running.outbox.keep(&session, &message, "").await.unwrap();
    let seen = running.emptied(&bed, 2).await;
    let notification = &seen[1].text;
    assert!(
        notification.contains("Action: failed\r\nStatus: 4.2.1\r\n"),
        "{notification}"
    );
}

#[tokio::test]
async fn without_a_queue_plugin_it_waits() {
    let bed = Bed::new();
    let running = bed.run(|_, before| match before {
        0 | 1 => Outcome::declined(),
        _ => Outcome::ok(""),
    });
    let (session, message) = incoming("hello\r\n", &["bob@example.org"]);
    running.outbox.keep(&session, &message, "").await.unwrap();
    running.emptied(&bed, 3).await;
}

#[tokio::test]
async fn a_new_daemon_delivers_what_the_old_one_kept() {
    let bed = Bed::new();
    let (session, message) = incoming("hello\r\n", &["bob@example.org"]);
    let old = bed.open();
    old.keep(&session, &message, "later").await.unwrap();
    let failures = [failure("eve@example.org")];
    old.notify(&session, &message, &failures).await.unwrap();
    drop(old);
    let seen = bed.run(|_, _| Outcome::ok("")).emptied(&bed, 2).await;
    assert_eq!(
        seen.iter()
            .filter(|seen| to(seen) == ["bob@example.org"])
            .count(),
        1
    );
}

#[tokio::test]
async fn leftovers_go_unless_somebody_is_at_them() {
    let bed = Bed::new();
    let folder = Folder::below(&bed.config.spool_dir);
    let under_way = folder.draft().unwrap();
    let dir = folder.path();
    for name in [
        "0123456789abcdef.msg",
        "0123456789abcdef.tmp",
        "1123456789abcdef.json",
        "notes.msg",
    ] {
        std::fs::write(dir.join(name), "x").unwrap();
    }
    bed.open();
    assert_eq!(bed.files(), ["msg", "msg"]);
    assert!(dir.join("notes.msg").exists());
    drop(under_way);
    assert_eq!(bed.files(), ["msg"]);
}

#[tokio::test]
async fn a_full_outbox_says_so_and_keeps_nothing_half() {
    for (messages, size) in [(3, 1 << 20), (100, 4000)] {
        let mut bed = Bed::new();
        bed.config.outbox.max_messages = messages;
        bed.config.outbox.max_size = size;
        let outbox = bed.open();
        let (session, message) = incoming(&"x\r\n".repeat(1000), &["bob@example.org"]);
        outbox.keep(&session, &message, "").await.unwrap();
        let failures: Vec<News> = (0..3).map(|_| failure("bob@example.org")).collect();
        let error = outbox
            .notify(&session, &message, &failures)
            .await
            .unwrap_err();
        assert!(error.to_string().contains("max_messages"), "{error}");
        assert_eq!(bed.files(), ["json", "msg"]);
        // What was promised to them is free again.
        let (session, message) = incoming("x\r\n", &["bob@example.org"]);
        outbox.keep(&session, &message, "").await.unwrap();
    }
}

#[tokio::test]
async fn who_got_it_does_not_get_it_again_while_the_outbox_is_full() {
    let mut bed = Bed::new();
    bed.config.outbox.max_messages = 1;
    let running = bed.run(|transaction, before| {
        let mut outcome = Outcome::ok("");
        if before < 3 {
            let last = transaction.recipients.last().unwrap().clone();
            outcome
                .recipients
                .push((last, Outcome::fail("no").with_verdict(Verdict::Deny)));
        }
        outcome
    });
    let (session, message) = incoming("x\r\n", &["bob@example.org", "eve@example.org"]);
    running.outbox.keep(&session, &message, "").await.unwrap();
    let seen = running.emptied(&bed, 4).await;
    assert_eq!(to(&seen[0]), ["bob@example.org", "eve@example.org"]);
    for seen in &seen[1..] {
        assert_eq!(to(seen), ["eve@example.org"]);
    }
}

#[tokio::test]
async fn somebody_else_may_take_a_message_away() {
    let mut bed = Bed::new();
    bed.config.outbox.retry = Duration::from_secs(3600);
    let outbox = bed.open();
    let (session, message) = incoming("x\r\n", &["bob@example.org"]);
    outbox.keep(&session, &message, "").await.unwrap();
    outbox.keep(&session, &message, "").await.unwrap();
    let ids: Vec<Id> = outbox
        .folder
        .list()
        .unwrap()
        .into_iter()
        .map(|found| found.id)
        .collect();
    let Claimed::Ours(claim) = outbox.folder.claim(&ids[0]).unwrap() else {
        panic!("nobody has it")
    };
    assert!(matches!(
        outbox.folder.claim(&ids[0]).unwrap(),
        Claimed::Busy
    ));
    outbox.folder.remove(&claim).unwrap();
    assert!(matches!(
        outbox.folder.claim(&ids[0]).unwrap(),
        Claimed::Gone
    ));
    assert!(!outbox.folder.take_changed());
    outbox.folder.say_changed().unwrap();
    assert!(outbox.folder.take_changed());
    outbox.reread().unwrap();
    let next = outbox.schedule.take_due(Millis::MAX);
    assert_eq!(next.as_ref(), Some(&ids[1]));
    assert_eq!(outbox.schedule.take_due(Millis::MAX), None);
}

#[test]
fn waits_grow_up_to_the_longest() {
    let mut bed = Bed::new();
    bed.config.outbox.retry = Duration::from_secs(300);
    let outbox = bed.open();
    for (attempts, seconds) in [
        (1, 300),
        (2, 600),
        (6, 9600),
        (7, 4 * 3600),
        (u32::MAX, 4 * 3600),
    ] {
        let wait = outbox.backoff(attempts).as_secs();
        let range = seconds * 8 / 10..=seconds * 12 / 10;
        assert!(range.contains(&wait), "{attempts}: {wait}");
    }
}
