//! `gatepost compare`: qpsmtpd's helo, as Debian has it, beside the built-in one.

use std::path::PathBuf;
use std::process::{Command, Output};

use gatepost_tests::programs;
use gatepost_tests::server::{gatepost, new_folder};
use tempfile::TempDir;

const PERL: &str = r#"qpsmtpd = "helo policy lenient"
plugin_dirs = ["$ROOT/.qpsmtpd/usr/share/qpsmtpd/plugins"]"#;
const BUILT_IN: &str = "name = \"helo\"\npolicy = \"lenient\"";

/// Messages as a server delivered them, with the client's greeting in the trace.
const GREETINGS: [&str; 4] = ["mx.b.example", "bad.example", "127.0.0.1", "mx.c.example"];

/// Two configurations, `old.toml` and `new.toml`, over a Maildir with messages and a transcript.
struct Bed {
    dir: TempDir,
}

impl Bed {
    fn new(old: &str, new: &str) -> Bed {
        let (dir, _) = new_folder();
        let bed = Bed { dir };
        let mail = bed.path("mail/new");
        std::fs::create_dir_all(&mail).unwrap();
        for (number, greeting) in GREETINGS.iter().enumerate() {
            let message = format!(
                "Return-Path: <a@b.example>\nDelivered-To: bob@example.org\nReceived: from {greeting} (x [192.0.2.7])\n\tby mx.example.org\nFrom: a@b.example\nSubject: x\n\nhello\n"
            );
            std::fs::write(mail.join(number.to_string()), message).unwrap();
        }
        let transcript = "C: EHLO bad.example\nS: 250\nC: MAIL FROM:<a@b.example>\nC: RCPT TO:<bob@example.org>\nC: DATA\nC: Subject: x\nC:\nC: .\nC: QUIT\n";
        std::fs::write(bed.path("refused.smtp"), transcript).unwrap();
        for (name, helo) in [("old", old), ("new", new)] {
            bed.configure(name, helo, "bad.example\n");
        }
        bed
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes a configuration whose chain has this for `helo`, and its list of bad names.
    fn configure(&self, name: &str, helo: &str, bad: &str) {
        let files = self.path(&format!("{name}.files"));
        std::fs::create_dir_all(&files).unwrap();
        std::fs::write(files.join("badhelo"), bad).unwrap();
        let text = format!(
            r#"hostname = "mx.example.org"
spool_dir = "$DIR/spool"
state = "file:$DIR/state"
flat_files = "{}"
journal = "8MB"
[[plugin]]
{helo}
[[plugin]]
name = "rcpt_ok"
hosts = ["example.org"]
[[plugin]]
name = "queue/maildir"
path = "$DIR/delivered"
"#,
            files.display()
        );
        let text = text
            .replace("$DIR", &self.dir.path().to_string_lossy())
            .replace("$ROOT", &programs::root().to_string_lossy());
        std::fs::write(self.path(&format!("{name}.toml")), text).unwrap();
    }

    fn compare(&self, more: &[&str]) -> Output {
        let mut command = Command::new(gatepost());
        command.arg("compare");
        command.args(["old.toml", "new.toml"]).args(more);
        command.current_dir(self.dir.path()).output().unwrap()
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Says so loudly where Debian's package is not there; that fails in CI.
fn has_package() -> bool {
    let plugins = programs::root().join(".qpsmtpd/usr/share/qpsmtpd/plugins");
    if !plugins.exists() {
        programs::missing("Debian's package qpsmtpd, which `make setup` unpacks");
    }
    plugins.exists()
}

#[test]
fn the_built_in_helo_does_what_qpsmtpds_does() {
    if !has_package() {
        return;
    }
    let bed = Bed::new(PERL, BUILT_IN);
    let output = bed.compare(&["mail", "refused.smtp"]);
    assert_eq!(
        text(&output.stdout),
        "5 sessions: 5 equal, 0 different\n",
        "{}",
        text(&output.stderr)
    );
    assert_eq!(output.status.code(), Some(0));
    for untouched in ["delivered", "spool", "state"] {
        assert!(!bed.path(untouched).exists(), "{untouched}");
    }
}

#[test]
fn a_difference_is_found_at_its_step() {
    if !has_package() {
        return;
    }
    let bed = Bed::new(PERL, BUILT_IN);
    bed.configure("new", BUILT_IN, "mx.c.example\n");
    let output = bed.compare(&["mail", "refused.smtp"]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    let said = text(&output.stdout);
    let expected =
        "mail/new/3: client 192.0.2.7, EHLO mx.c.example, from <a@b.example> to <bob@example.org>
  EHLO mx.c.example
    helo at ehlo
      old: nothing
      new: fail, ";
    assert!(said.contains(expected), "{said}");
    assert!(
        said.contains("mail/new/1: ") && said.contains("refused.smtp: "),
        "{said}"
    );
    assert!(
        !said.contains("mail/new/0: ") && !said.contains("mail/new/2: "),
        "{said}"
    );
    let last = "5 sessions: 2 equal, 3 different (helo 3, the reply 3)\n";
    assert!(said.ends_with(last), "{said}");
}

#[test]
fn sessions_of_the_journal_are_played_up_to_their_recipients() {
    let bed = Bed::new(BUILT_IN, BUILT_IN);
    let journal = bed.path("spool/journal");
    std::fs::create_dir_all(&journal).unwrap();
    let record = |greeting: &str| {
        format!(
            r#"{{"id":"abc123.1","began":"2026-11-22T10:00:00.000Z","took":9,"client":"192.0.2.7:1025","hello":"EHLO {greeting}","sender":"a@b.example","recipients":[{{"address":"bob@example.org","reply":"250 2.0.0 x","became":""}}],"steps":[]}}"#
        ) + "\n"
    };
    let lines = record("mx.c.example") + &record("mx.b.example");
    std::fs::write(journal.join("0000000001.jsonl"), lines).unwrap();
    bed.configure("new", BUILT_IN, "mx.c.example\n");
    let output = bed.compare(&["--journal"]);
    let said = text(&output.stdout);
    assert!(said.starts_with("abc123.1 in the journal: client 192.0.2.7, EHLO mx.c.example, from <a@b.example> to <bob@example.org>\n"), "{said}{}", text(&output.stderr));
    assert!(
        said.ends_with("2 sessions: 1 equal, 1 different (helo 1, the reply 1)\n"),
        "{said}"
    );
}

#[test]
fn what_cannot_be_compared_is_named() {
    let bed = Bed::new(BUILT_IN, BUILT_IN);
    let nobody = bed.path("nobody.eml");
    std::fs::write(&nobody, "Subject: x\n\n").unwrap();
    for (more, says) in [
        (&["nobody.eml"][..], "nobody.eml: no field Delivered-To"),
        (&["absent"], "absent: "),
    ] {
        let output = bed.compare(more);
        assert_eq!(output.status.code(), Some(2));
        assert!(
            text(&output.stderr).starts_with(says),
            "{}",
            text(&output.stderr)
        );
    }
    let rest = [
        "nobody.eml",
        "--rcpt",
        "bob@example.org",
        "--helo",
        "mx.b.example",
    ];
    assert_eq!(bed.compare(&rest).status.code(), Some(0));
    std::fs::write(bed.path("new.toml"), "hostnmae = \"x\"\n").unwrap();
    let output = bed.compare(&["mail"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        text(&output.stderr).contains("new.toml:1"),
        "{}",
        text(&output.stderr)
    );
}

#[test]
fn messages_from_behind_other_queues_are_played_as_from_their_clients() {
    let bed = Bed::new(BUILT_IN, BUILT_IN);
    bed.configure("new", BUILT_IN, "mx.c.example\n");
    let to = "Return-Path: <a@b.example>\nDelivered-To: bob@example.org\n";
    let came = "Received: from h (HELO mx.c.example) (192.0.2.7)\n    by mx.example.org (qpsmtpd/0.94) with ESMTP; x\nSubject: x\n\nhello\n";
    let folder = bed.path("behind/cur");
    std::fs::create_dir_all(&folder).unwrap();
    for (name, above) in [
        (
            "forwarded",
            "Received: from mx.example.org (y [192.0.2.250])\n\tby store.example.org; x\n",
        ),
        ("qmail", "Received: (qmail 7 invoked by uid 89); x\n"),
        ("spamassassin", "X-Spam-Status: No, hits=0.1\n"),
    ] {
        std::fs::write(folder.join(name), format!("{to}{above}{came}")).unwrap();
    }
    // A Maildir has files that are no messages.
    std::fs::write(bed.path("behind/dovecot-uidlist"), "3 V1 N2\n").unwrap();
    let mbox = format!("From a@b Mon\n{to}{came}\nFrom a@b Tue\n{to}Subject: y\n\n");
    std::fs::write(bed.path("mbox"), mbox).unwrap();
    let output = bed.compare(&["behind", "mbox"]);
    let said = text(&output.stdout);
    let about = "client 192.0.2.7, EHLO mx.c.example, from <a@b.example> to <bob@example.org>\n";
    for name in [
        "behind/cur/forwarded",
        "behind/cur/qmail",
        "behind/cur/spamassassin",
        "mbox (1)",
    ] {
        assert!(said.contains(&format!("{name}: {about}")), "{name}: {said}");
    }
    assert!(
        said.ends_with("5 sessions: 1 equal, 4 different (helo 4, the reply 4)\n"),
        "{said}"
    );
    assert_eq!(
        text(&output.stderr),
        "passed over: 1, such as behind/dovecot-uidlist: it is no message: it does not begin with a header field\n1 messages have no Received field that names their client, and are played as from 192.0.2.1; say --ip\n"
    );
}

#[test]
fn a_transcript_that_breaks_off_ends() {
    let bed = Bed::new(BUILT_IN, BUILT_IN);
    let lines = "C: EHLO mx.b.example\nC: MAIL FROM:<a@b.example>\nC: RCPT TO:<bob@example.org>\n";
    let broken_off = format!("{lines}C: DATA\nC: Subject: x\n");
    std::fs::write(bed.path("broken-off.smtp"), broken_off).unwrap();
    let output = bed.compare(&["broken-off.smtp"]);
    assert_eq!(text(&output.stdout), "1 sessions: 1 equal, 0 different\n");
    let block = format!("{lines}C: BDAT 86 LAST\nC: Subject: x\n");
    std::fs::write(bed.path("block.smtp"), block).unwrap();
    let output = bed.compare(&["block.smtp"]);
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(
        text(&output.stderr),
        "block.smtp: BDAT cannot be played; say DATA\n"
    );
}
