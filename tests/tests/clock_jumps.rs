//! The wall clock is set ahead by years, and back: sessions notice nothing, what waits in the outbox is neither given up for its age nor held until the clock has come again to where it was.

use std::fs;
use std::path::{Path, PathBuf};

use gatepost_tests::programs;
use gatepost_tests::server::Server;
use gatepost_tests::smtp::Client;
use gatepost_tests::wait::until;

const MESSAGE: &[u8] = b"Subject: x\r\n\r\nhello\r\n";

/// Later's message has to wait while the file `away` is there; Ann's does not.
const HEAD: &str = r#"
mixed = "bounce"
[limits]
command_timeout = "20s"
session_timeout = "60s"
[outbox]
retry = "1s"
retry_max = "1s"
[[plugin]]
name = "rcpt_ok"
[[plugin]]
name = "away"
run = ["python3", "$DIR/away.py"]
env = { PYTHONPATH = "$ROOT/sdk-python/src" }
[[plugin]]
name = "queue/maildir"
[files]
"away" = ""
"away.py" = """
import os
import gatepost

@gatepost.hook("queue", fields=["recipients"])
def queue(session):
    outcome = gatepost.declined()
    for recipient in session.recipients:
        if recipient.local == "later" and os.path.exists("$DIR/away"):
            outcome = outcome.for_recipient(recipient, gatepost.denysoft("away"))
    return outcome

gatepost.run()
"""
"#;

/// A daemon whose wall clock says what its file says.
struct Clocked(Server);

impl Clocked {
    /// `None`, loudly, where the program is not there that makes clocks lie.
    fn start() -> Option<Clocked> {
        programs::needed("faketime")?;
        let library = library();
        Some(Clocked(Server::start_inside(HEAD, |dir| {
            set(dir, "+0");
            let preload = format!("LD_PRELOAD={}", library.display());
            let file = format!("FAKETIME_TIMESTAMP_FILE={}", clock(dir).display());
            let words = ["env", &preload, &file, "FAKETIME_NO_CACHE=1"];
            // Only the clock that somebody can set.
            let words = words
                .into_iter()
                .chain(["FAKETIME_DONT_FAKE_MONOTONIC=1", "DONT_FAKE_MONOTONIC=1"]);
            words.map(Into::into).collect()
        })))
    }

    /// So far from the right time.
    fn set(&self, offset: &str) {
        set(self.0.dir(), offset);
    }

    fn deliver_to_both(&self) {
        let mut client = Client::greet(self.0.address());
        client.ask("MAIL FROM:<alice@client.example>", "250");
        client.ask("RCPT TO:<ann@example.org>", "250");
        client.ask("RCPT TO:<later@example.org>", "250");
        client.ask("DATA", "354");
        client.send(MESSAGE);
        client.ask(".", "250");
    }

    fn count(&self, text: &str) -> usize {
        let log = self.0.log().into_iter();
        log.filter(|line| line.contains(text)).count()
    }

    /// Waits until the waiting message was tried so often again.
    fn tried_again(&self, times: usize) {
        let before = self.count("recipients wait after attempt");
        until("further attempts", || {
            (self.count("recipients wait after attempt") >= before + times).then_some(())
        });
    }

    fn arrives(&mut self, messages: usize) {
        fs::remove_file(self.0.dir().join("away")).expect("it is there");
        until("the message that waited", || {
            (self.0.delivered().len() == messages).then_some(())
        });
        assert_eq!(self.count("given up"), 0);
        assert!(self.0.stop().success());
    }
}

/// What the program has others load (Debian's package libfaketime).
fn library() -> PathBuf {
    let folders = fs::read_dir("/usr/lib").expect("it can be read");
    let names = folders.filter_map(|folder| Some(folder.ok()?.path()));
    let mut files = names.map(|folder| folder.join("faketime/libfaketimeMT.so.1"));
    files
        .find(|file| file.is_file())
        .expect("it comes with faketime")
}

fn clock(dir: &Path) -> PathBuf {
    dir.join("clock")
}

fn set(dir: &Path, offset: &str) {
    // In one step, since it is read at any time.
    let next = dir.join("clock.next");
    fs::write(&next, format!("{offset}\n")).expect("the test may write there");
    fs::rename(next, clock(dir)).expect("the test may write there");
}

fn this_year() -> i64 {
    let output = std::process::Command::new("date").arg("+%Y").output();
    let text = String::from_utf8(output.expect("date runs").stdout);
    text.expect("digits").trim().parse().expect("a year")
}

#[test]
fn sessions_notice_nothing() {
    let Some(clocked) = Clocked::start() else {
        return;
    };
    let mut client = Client::greet(clocked.0.address());
    for (offset, years) in [("+3650d", 9..=10), ("-3650d", -10..=-9), ("+0", 0..=0)] {
        clocked.set(offset);
        client.ask("NOOP", "250");
        let reply = client.deliver(MESSAGE);
        assert!(reply.starts_with("250 2."), "{offset}: {reply:?}");
        let said = clocked.0.log().pop().expect("a line");
        let year: i64 = said[..4].parse().expect("a year");
        assert!(years.contains(&(year - this_year())), "{offset}: {said}");
    }
    assert_eq!(clocked.0.delivered().len(), 3);
}

#[test]
fn what_waits_is_not_given_up_by_a_clock_that_jumps_ahead() {
    let Some(mut clocked) = Clocked::start() else {
        return;
    };
    clocked.deliver_to_both();
    clocked.tried_again(1);
    clocked.set("+3650d");
    clocked.tried_again(3);
    clocked.set("+0");
    clocked.tried_again(2);
    clocked.arrives(2);
}

#[test]
fn what_waits_is_not_held_by_a_clock_that_is_set_back() {
    let Some(mut clocked) = Clocked::start() else {
        return;
    };
    clocked.set("+3650d");
    clocked.deliver_to_both();
    clocked.tried_again(1);
    clocked.set("+0");
    clocked.tried_again(2);
    clocked.arrives(2);
}
