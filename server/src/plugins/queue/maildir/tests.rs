//! Deliveries into a temporary folder.

use super::*;
use crate::plugins::testing::{
    FakeServices, Given, TestMessage, ask_with, built, line, plugin, queue, session, with_message,
};
use gatepost_protocol::{Args, BoxFuture, Session};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

const MESSAGE: &[u8] = b"Subject: x\r\nX-Space : y\r\n\r\nbody \xff\0\r\nlast\nline";

fn mail(recipients: &[&str], message: &[u8]) -> (Session, TestMessage) {
    let (mut session, message) = with_message(session("192.0.2.1"), message);
    session.transaction.sender = Some(Address::parse("a@example.net").unwrap());
    session.transaction.recipients = recipients
        .iter()
        .map(|to| Address::parse(to).unwrap())
        .collect();
    (session, message)
}

struct Spot {
    dir: tempfile::TempDir,
    maildir: Arc<dyn Plugin>,
}

impl Spot {
    fn new<'a>(path: &'a str, settings: impl Given<'a>) -> Spot {
        let dir = tempfile::tempdir().unwrap();
        let path = format!("{}/{path}", dir.path().display());
        let settings = settings.into_iter().chain([("path", path.as_str().into())]);
        let maildir = plugin(&DEFINITION, &FakeServices::new(), settings);
        Spot { dir, maildir }
    }

    async fn deliver(&self, session: &Session, message: &dyn Message) -> Outcome {
        ask_with(
            &self.maildir,
            Hook::Queue,
            session,
            Args::None,
            Some(message),
        )
        .await
    }

    /// The messages that readers see below a folder, and nothing may be left in `tmp`.
    fn new_in(&self, maildir: &str) -> Vec<Vec<u8>> {
        let maildir = self.dir.path().join(maildir);
        assert!(
            files(&maildir.join("tmp")).is_empty(),
            "nothing is left in tmp"
        );
        files(&maildir.join("new"))
            .iter()
            .map(|file| fs::read(file).unwrap())
            .collect()
    }
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Vec::new();
    };
    entries.map(|entry| entry.unwrap().path()).collect()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[tokio::test]
async fn a_message_is_kept_byte_for_byte_below_the_trace_headers() {
    let spot = Spot::new("{domain}/{local}", []);
    let (mut session, message) = mail(&["Bob@Example.org"], MESSAGE);
    session
        .transaction
        .header
        .as_mut()
        .unwrap()
        .add("Received", b"by us", true)
        .unwrap();
    let outcome = spot.deliver(&session, &message).await;
    assert_eq!(outcome.verdict, Some(Verdict::Ok), "{outcome:?}");
    let kept = spot.new_in("example.org/bob");
    let trace =
        b"Return-Path: <a@example.net>\r\nDelivered-To: Bob@Example.org\r\nReceived: by us\r\n";
    assert_eq!(text(&kept[0]), text(&[&trace[..], MESSAGE].concat()));
    assert_eq!(kept.len(), 1);
    let folder = spot.dir.path().join("example.org/bob");
    assert!(folder.join("cur").is_dir());
    assert_eq!(
        fs::metadata(&folder).unwrap().permissions().mode() & 0o777,
        0o700
    );
    let file = &files(&folder.join("new"))[0];
    assert_eq!(
        fs::metadata(file).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let name = file.file_name().unwrap().to_str().unwrap();
    assert_eq!(outcome.reply, [format!("Queued! {name}")]);
    let form =
        regex::Regex::new(r"^\d{10,}\.M\d{1,6}P\d+Q\d+R[0-9a-f]+\.mx\.example\.org$").unwrap();
    assert!(form.is_match(name), "{name}");
}

#[tokio::test]
async fn line_ends_can_be_lf() {
    let spot = Spot::new("box", [("line_endings", "lf".into())]);
    let (session, message) = mail(&["b@example.org"], b"A: b\r\n\tc\r\n\r\nx\ry\r\n\r\nz\r\n");
    assert_eq!(
        spot.deliver(&session, &message).await.verdict,
        Some(Verdict::Ok)
    );
    let kept = text(&spot.new_in("box")[0]);
    assert_eq!(
        kept,
        "Return-Path: <a@example.net>\nDelivered-To: b@example.org\nA: b\n\tc\n\nx\ry\n\nz\n"
    );
}

#[tokio::test]
async fn each_distinct_path_gets_one_copy() {
    let spot = Spot::new("{domain}/{local}", []);
    let (mut session, message) = mail(
        &["b@example.org", "c@example.org", "B@Example.org"],
        MESSAGE,
    );
    session.transaction.sender = Some(Address::null());
    let outcome = spot.deliver(&session, &message).await;
    assert!(
        line(&outcome).starts_with("pass, in 2 Maildirs as "),
        "{outcome:?}"
    );
    let shared = spot.new_in("example.org/b");
    assert_eq!(shared.len(), 1);
    let head =
        "Return-Path: <>\r\nDelivered-To: b@example.org\r\nDelivered-To: B@Example.org\r\nSubject";
    assert!(text(&shared[0]).starts_with(head), "{}", text(&shared[0]));
    assert_eq!(spot.new_in("example.org/c").len(), 1);
}

#[tokio::test]
async fn a_large_message_is_streamed_whole() {
    for line_endings in ["as_received", "lf"] {
        let spot = Spot::new("{local}", [("line_endings", line_endings.into())]);
        let body = "0123456789abcdef-\r\n".repeat(100_000);
        let whole = format!("Subject: x\r\n\r\n{body}");
        let (session, message) = mail(&["b@example.org", "c@example.org"], whole.as_bytes());
        assert!(message.size() > 3 * BLOCK as u64);
        let outcome = spot.deliver(&session, &message).await;
        assert_eq!(outcome.verdict, Some(Verdict::Ok), "{outcome:?}");
        let whole = if line_endings == "lf" {
            whole.replace("\r\n", "\n")
        } else {
            whole
        };
        for local in ["b", "c"] {
            let kept = text(&spot.new_in(local)[0]);
            assert!(
                kept.ends_with(&whole) && kept.len() < whole.len() + 100,
                "{local}"
            );
        }
    }
}

#[tokio::test]
async fn what_is_set_apart_goes_to_a_subfolder() {
    let spot = Spot::new("{local}", []);
    let (mut session, message) = mail(&["b@example.org"], MESSAGE);
    session.transaction.quarantine = Some("a virus".to_owned());
    assert_eq!(
        spot.deliver(&session, &message).await.verdict,
        Some(Verdict::Ok)
    );
    assert_eq!(spot.new_in("b/.Quarantine").len(), 1);
    assert!(spot.new_in("b").is_empty());
    assert!(
        spot.dir
            .path()
            .join("b/.Quarantine/maildirfolder")
            .is_file()
    );
}

#[tokio::test]
async fn a_name_that_leads_elsewhere_is_refused_for_good() {
    let spot = Spot::new("boxes/{local}", []);
    for local in ["\"../evil\"", "\".hidden\"", "a/b"] {
        let (session, message) = mail(
            &["good@example.org", &format!("{local}@example.org")],
            MESSAGE,
        );
        let outcome = spot.deliver(&session, &message).await;
        assert_eq!(
            (outcome.verdict, outcome.code),
            (Some(Verdict::Deny), Some(550)),
            "{local}"
        );
    }
    assert!(files(spot.dir.path()).is_empty(), "nothing at all was made");
}

fn assert_kept_nothing(outcome: &Outcome, reason: &str) {
    assert!(line(outcome).starts_with("error, "), "{outcome:?}");
    assert!(outcome.message.contains(reason), "{outcome:?}");
    assert_eq!((outcome.verdict, outcome.code), (None, Some(451)));
    assert_eq!(outcome.enhanced, Some(EnhancedCode(4, 3, 0)));
    assert!(!outcome.reply[0].contains('/'), "the client learns no path");
}

#[tokio::test]
async fn a_missing_maildir_is_the_operators_to_make() {
    let spot = Spot::new("{local}", [("create", false.into())]);
    let (session, message) = mail(&["b@example.org"], MESSAGE);
    let outcome = spot.deliver(&session, &message).await;
    assert_kept_nothing(
        &outcome,
        "/b is missing or no Maildir (tmp, new, cur): make it, or set create = true",
    );
    for folder in ["tmp", "new", "cur"] {
        fs::create_dir_all(spot.dir.path().join("b").join(folder)).unwrap();
    }
    let outcome = spot.deliver(&session, &message).await;
    assert_eq!(outcome.verdict, Some(Verdict::Ok), "no restart is needed");
}

/// A few copies and many are kept from readers in different ways.
#[tokio::test]
async fn one_mailbox_that_fails_keeps_the_message_from_all() {
    for mailboxes in [&["b", "c"][..], &["b", "c", "d", "e", "f", "g"]] {
        let spot = Spot::new("{local}", []);
        let recipients: Vec<String> = mailboxes
            .iter()
            .map(|local| format!("{local}@example.org"))
            .collect();
        let recipients: Vec<&str> = recipients.iter().map(String::as_str).collect();
        let (session, message) = mail(&recipients, MESSAGE);
        fs::write(spot.dir.path().join("c"), "a file where a folder should be").unwrap();
        let outcome = spot.deliver(&session, &message).await;
        assert_kept_nothing(&outcome, "/c/");
        assert!(spot.new_in("b").is_empty());
        // The same where the failure comes after the first copy was made visible.
        fs::remove_file(spot.dir.path().join("c")).unwrap();
        fs::create_dir_all(spot.dir.path().join("c/tmp")).unwrap();
        fs::write(spot.dir.path().join("c/new"), "no folder either").unwrap();
        let outcome = spot.deliver(&session, &message).await;
        assert_kept_nothing(&outcome, "/c/new");
        assert!(spot.new_in("b").is_empty());
        assert!(files(&spot.dir.path().join("c/tmp")).is_empty());
        fs::remove_file(spot.dir.path().join("c/new")).unwrap();
        let outcome = spot.deliver(&session, &message).await;
        assert_eq!(outcome.verdict, Some(Verdict::Ok), "no restart is needed");
        for mailbox in mailboxes {
            assert_eq!(spot.new_in(mailbox).len(), 1, "{mailbox}");
        }
    }
}

/// A message whose end cannot be read.
struct Torn(u64);

impl Message for Torn {
    fn size(&self) -> u64 {
        self.0
    }

    fn read(&self, offset: u64, length: usize) -> BoxFuture<'_, std::io::Result<Bytes>> {
        let there = length.min((self.0 - 10).saturating_sub(offset) as usize);
        Box::pin(async move { Ok(vec![b'x'; there].into()) })
    }
}

#[tokio::test]
async fn half_a_message_is_none() {
    for size in [100, 3 * BLOCK as u64] {
        let spot = Spot::new("{local}", []);
        let (mut session, _) = mail(&["b@example.org"], b"A: b\r\n\r\n");
        session.transaction.size = size;
        let outcome = spot.deliver(&session, &Torn(size)).await;
        assert_kept_nothing(&outcome, "10 bytes early");
        // The writer notices a moment after us.
        let deadline = std::time::Instant::now() + Duration::from_secs(10);
        while !files(&spot.dir.path().join("b/tmp")).is_empty() {
            assert!(std::time::Instant::now() < deadline, "tmp is never cleared");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert!(spot.new_in("b").is_empty());
    }
}

/// A message that takes for ever to read.
struct Endless;

impl Message for Endless {
    fn size(&self) -> u64 {
        1 << 40
    }

    fn read(&self, _: u64, length: usize) -> BoxFuture<'_, std::io::Result<Bytes>> {
        Box::pin(async move {
            tokio::time::sleep(Duration::from_millis(5)).await;
            Ok(vec![b'x'; length].into())
        })
    }
}

#[tokio::test]
async fn a_session_that_is_given_up_leaves_nothing() {
    let spot = Spot::new("{local}", []);
    let (session, message) = mail(&["b@example.org"], MESSAGE);
    // Polled for a while, so that the copy is on its way, then dropped. A short message would be on disk by then.
    let delivering = spot.deliver(&session, &Endless);
    let given_up = tokio::time::timeout(Duration::from_millis(20), delivering).await;
    assert!(given_up.is_err(), "there is no end to it");
    let whole = spot.deliver(&session, &message).await;
    assert_eq!(whole.verdict, Some(Verdict::Ok));
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    while !files(&spot.dir.path().join("b/tmp")).is_empty() {
        assert!(std::time::Instant::now() < deadline, "tmp is never cleared");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(spot.new_in("b").len(), 1, "the one that was waited for");
}

/// A message whose client hangs up when its first block is read.
struct Leaving<'a>(TestMessage, &'a Departure);

impl Message for Leaving<'_> {
    fn size(&self) -> u64 {
        self.0.size()
    }

    fn read(&self, offset: u64, length: usize) -> BoxFuture<'_, std::io::Result<Bytes>> {
        self.1.announce();
        self.0.read(offset, length)
    }
}

#[tokio::test]
async fn a_client_that_is_gone_has_nothing_delivered() {
    let spot = Spot::new("{local}", []);
    for size in [0, 2 * BLOCK] {
        let large = [MESSAGE, vec![b'x'; size].as_slice()].concat();
        let (session, message) = mail(&["a@example.org", "b@example.org"], &large);
        let departure = Departure::new();
        let leaving = Leaving(message, &departure);
        let outcome = queue(&spot.maildir, &session, &leaving, &departure).await;
        assert_eq!(
            line(&outcome),
            "skip, given up: the client is gone, and will send the message again"
        );
        assert_eq!(outcome.verdict, Some(Verdict::DenySoft));
    }
    // What writers still have in hands goes as well.
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    let left = |folder: &str| !files(&spot.dir.path().join(folder)).is_empty();
    while left("a/tmp") || left("b/tmp") {
        assert!(std::time::Instant::now() < deadline, "tmp is never cleared");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(spot.new_in("a").is_empty() && spot.new_in("b").is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_sessions_at_once_get_a_file_each() {
    let spot = Arc::new(Spot::new("{local}", []));
    let sessions: Vec<_> = (0..200)
        .map(|index| {
            let spot = Arc::clone(&spot);
            tokio::spawn(async move {
                let to = format!("box{}@example.org", index % 3);
                let (session, message) = mail(&[&to], format!("N: {index}\r\n\r\n").as_bytes());
                spot.deliver(&session, &message).await.verdict
            })
        })
        .collect();
    for session in sessions {
        assert_eq!(session.await.unwrap(), Some(Verdict::Ok));
    }
    let all = ["box0", "box1", "box2"]
        .map(|maildir| spot.new_in(maildir))
        .concat();
    let mut numbers: Vec<String> = all
        .iter()
        .map(|message| text(message).split("N: ").nth(1).unwrap().trim().to_owned())
        .collect();
    numbers.sort_by_key(|number| number.parse::<u32>().unwrap());
    let expected: Vec<String> = (0..200).map(|index| index.to_string()).collect();
    assert_eq!(numbers, expected);
}

/// A disk that is full looks like a file that may not grow. The limit holds for a whole process, so this runs itself once more, limited.
#[tokio::test]
async fn a_full_disk_keeps_nothing_and_acknowledges_nothing() {
    const INSIDE: &str = "GATEPOST_TEST_FILE_LIMIT";
    if std::env::var_os(INSIDE).is_none() {
        let test = std::thread::current().name().unwrap().to_owned();
        // Without the signal the write fails as on a full disk; the limit is in blocks of 512 or 1024 bytes.
        let limited = std::process::Command::new("sh")
            .args([
                "-c",
                "trap '' XFSZ; ulimit -f 32; exec \"$0\" --exact \"$1\" --nocapture",
            ])
            .arg(std::env::current_exe().unwrap())
            .arg(test)
            .env(INSIDE, "1")
            .output()
            .unwrap();
        let said = text(&[limited.stdout, limited.stderr].concat());
        assert!(
            limited.status.success() && said.contains("1 passed"),
            "{said}"
        );
        return;
    }
    let spot = Spot::new("{local}", []);
    for size in [100_000, 2 * BLOCK] {
        let (session, message) = mail(
            &["b@example.org"],
            &[b"A: b\r\n\r\n", vec![b'x'; size].as_slice()].concat(),
        );
        let outcome = spot.deliver(&session, &message).await;
        assert_kept_nothing(&outcome, "cannot write ");
        assert!(spot.new_in("b").is_empty());
    }
    let (session, message) = mail(&["b@example.org"], MESSAGE);
    let outcome = spot.deliver(&session, &message).await;
    assert_eq!(outcome.verdict, Some(Verdict::Ok), "no restart is needed");
}

#[test]
fn wrong_settings_are_named() {
    let services = FakeServices::new();
    let missing = built(&DEFINITION, &services, []).err().unwrap();
    assert!(
        missing[0].message.contains("`path` is missing"),
        "{missing:?}"
    );
    let wrong = [
        ("path", "/m/{user}".into()),
        ("quarantine", "../elsewhere".into()),
        ("line_endings", "crlf".into()),
    ];
    let errors = built(&DEFINITION, &services, wrong).err().unwrap();
    let paths: Vec<_> = errors.iter().map(|error| error.path.join(".")).collect();
    assert_eq!(paths, ["path", "quarantine", "line_endings"]);
}
