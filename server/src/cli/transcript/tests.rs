//! The runner against a server that says what it is told to say.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::{Dialogue, Log, Stage, play};

const PATIENCE: Duration = Duration::from_secs(10);

/// A server that greets, answers every line by itself, logs it, and hangs up after `QUIT`.
async fn echo(listener: TcpListener, log: Arc<Log>) {
    while let Ok((mut stream, _)) = listener.accept().await {
        let log = log.clone();
        tokio::spawn(async move {
            stream.write_all(b"220 ready\r\n").await.unwrap();
            let mut came = Vec::new();
            while stream.read_buf(&mut came).await.is_ok_and(|read| read > 0) {
                while let Some(end) = came.iter().position(|byte| *byte == b'\n') {
                    let line: Vec<u8> = came.drain(..=end).collect();
                    let text = String::from_utf8_lossy(&line).trim_end().to_owned();
                    log.push(format!("time session (echo) {text}"));
                    if stream.write_all(&line).await.is_err() || text == "QUIT" {
                        return;
                    }
                }
            }
        });
    }
}

/// Plays a dialogue against the echo; `Err` is what the failure says.
async fn against_echo(dialogue: &str, patience: Duration) -> Result<(), String> {
    let dir = tempfile::tempdir().unwrap();
    let maildir = dir.path().join("mail/new");
    std::fs::create_dir_all(&maildir).unwrap();
    std::fs::write(maildir.join("1"), "To: bob\r\n\r\nhi\r\n").unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let stage = Stage {
        address: listener.local_addr().unwrap(),
        socket: None,
        log: Arc::default(),
        mail: dir.path().join("mail"),
        spool: dir.path().join("spool"),
        patience,
    };
    let server = tokio::spawn(echo(listener, stage.log.clone()));
    let text = format!("# x\n---\n{dialogue}");
    let dialogue = Dialogue::parse(Path::new("x.smtp"), &text).unwrap();
    let played = play(&dialogue, &stage).await;
    server.abort();
    played.map_err(|failure| failure.text)
}

#[tokio::test]
async fn a_dialogue_that_goes_as_written() {
    let dialogue = concat!(
        "S: 220 *\nC: 250 hi\nS: 250 hi\nC! 250-a\\r\\n250 b\\r\\n\nS: 250...\nC* 3 250 x\\r\\n\nS: 250 x\nS: 250 x\nS: 250 x\n",
        "log: (echo) 250 hi\nlog: (echo) 250 x\nconnect B from 127.0.0.2\nS: 220...\nC: QUIT\nS: QUIT\nclosed\non first\n",
        "mail:\n| To: *\n| ...\n| hi\nnothing delivered\nspool empty\nnever log: (echo) y\nC: QUIT\nS: QUIT\nclosed\n"
    );
    against_echo(dialogue, PATIENCE).await.unwrap();
}

#[tokio::test]
async fn every_step_can_fail() {
    for (dialogue, line, came) in [
        ("S: 221 *\n", 3, "came:     220 ready"),
        ("S: 220 *\nC: a\nS: b\n", 5, "expected: b\ncame:     a\n"),
        ("S: 221...\n", 3, "expected: a reply with code 221"),
        (
            "S: 220 *\nC! a\\n\nS: a\n",
            5,
            "`a\\n`, which does not end in one CRLF",
        ),
        (
            "S: 220 *\nC* 600 x\nC:\nS: *\n",
            6,
            "a reply line of 602 bytes",
        ),
        (
            "S: 220 *\nC: QUIT\nS: QUIT\nS: x\n",
            6,
            "the server hung up",
        ),
        ("closed\n", 3, "came:     220 ready\\r\\n"),
        ("on B\n", 3, "there is none of that name"),
        ("close\nC: x\n", 4, "connection first is not open"),
        ("connect\nconnect\n", 4, "`close` it first"),
        (
            "nothing delivered\n",
            3,
            "came:     To: bob\n          \n          hi\n",
        ),
        ("mail:\n| no\n", 3, "came:     To: bob"),
        ("mail in bob:\n| no\n", 3, "came:     nothing was delivered"),
        (
            "S: 220 *\nC: a\n",
            4,
            "expected: no more, and the end of connection first\ncame:     a\\r\\n",
        ),
        (
            "S: 220 *\nC: a\nS: a\nnever log: (*) a\n",
            6,
            "in spite of `never log: (*) a`\ntime session (echo) a",
        ),
    ] {
        let failure = against_echo(dialogue, PATIENCE).await.expect_err(dialogue);
        assert!(
            failure.starts_with(&format!("x.smtp:{line}: ")),
            "{failure}"
        );
        assert!(failure.contains(came), "{dialogue}\n{failure}");
    }
}

#[tokio::test]
async fn what_never_comes_is_not_waited_for_forever() {
    for (dialogue, came) in [
        ("S: 220 *\nS: 220 *\n", "nothing for 300ms"),
        (
            "S: 220 *\nC: a\nS: a\nlog: (*) b\n",
            "none of the lines below",
        ),
    ] {
        let short = Duration::from_millis(300);
        let failure = against_echo(dialogue, short).await.expect_err(dialogue);
        assert!(failure.contains(came), "{failure}");
    }
}
