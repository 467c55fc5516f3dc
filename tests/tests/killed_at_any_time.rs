//! The daemon, its plugin processes and the process that Perl workers are forked from are killed at any moment under load: what was acknowledged is
//! delivered once, in the Maildir and at the next server; the death of a plugin costs no client anything; nothing stale is left (docs/durability.md).
//!
//! `ROUNDS=300` plays more rounds, `SEED=…` those of a run that failed; with `--nocapture` it says what it did.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use gatepost::cli::transcript::files;
use gatepost_tests::processes::{Dice, descendants, number_from};
use gatepost_tests::server::Server;
use gatepost_tests::smtp::Client;
use gatepost_tests::wait::until;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const CLIENTS: usize = 6;

/// What stands behind every message's ID.
fn body(id: &str) -> String {
    let is_big = id.ends_with(['1', '3', '5', '7', '9']);
    let line = format!("{}\r\n", "x".repeat(70));
    line.repeat(if is_big { 40 } else { 5 })
}

/// Bob's mail goes into a Maildir, Carol's to the next server. Plugins look at every step, in Python and, in workers that are forked, in Perl; without
/// them mail goes on. Every other message is too big for memory.
const HEAD: &str = r#"
mixed = "bounce"
[limits]
memory_per_message = "1KB"
[files]
"look.py" = '''
import gatepost

@gatepost.hook("mail")
@gatepost.hook("rcpt")
def look(session):
    return gatepost.passed("seen")

@gatepost.hook("data_post", fields=["size"])
def data_post(session):
    session.add_header("X-Size", str(session.size))
    return gatepost.passed("measured")

gatepost.run()
'''
"stamp" = '''
sub hook_connect { return DECLINED }
sub hook_mail { return DECLINED }
sub hook_data_post {
    my ($self, $transaction) = @_;
    $transaction->header->add('X-Stamp', $self->qp->connection->remote_ip);
    return DECLINED;
}
'''
[[plugin]]
name = "look"
run = ["python3", "$DIR/look.py"]
env = { PYTHONPATH = "$ROOT/sdk-python/src" }
on_error = "skip"
[[plugin]]
qpsmtpd = "stamp"
plugin_dirs = ["$DIR"]
workers = { min = 1, max = 4 }
[[plugin]]
name = "rcpt_ok"
[[plugin]]
name = "queue/maildir"
path = "$DIR/mail/{local}"
[[user."carol@example.org".plugin]]
name = "queue/smtp-forward"
server = "127.0.0.1"
port = PORT
"#;

/// What a client did until the daemon was gone.
struct Sent {
    acknowledged: Vec<String>,
    /// Replies that a client should never have seen.
    unwelcome: Vec<String>,
}

/// Sends messages, one after the other, each to Bob and Carol, until the daemon is gone.
fn client(server: std::net::SocketAddr, name: &str, is_over: &AtomicBool) -> Sent {
    let mut sent = Sent {
        acknowledged: Vec::new(),
        unwelcome: Vec::new(),
    };
    let mut number = 0;
    while !is_over.load(Ordering::Relaxed) {
        let Some(mut connection) = Client::try_connect(server) else {
            break;
        };
        let mut ask = |line: &str, code: &str| {
            let reply = connection
                .try_send(format!("{line}\r\n").as_bytes())
                .then(|| connection.try_reply())
                .flatten()?;
            if reply.starts_with(code) {
                return Some(());
            }
            sent.unwelcome.push(format!("{line}: {reply}"));
            None
        };
        if ask("HELO client.example", "250").is_none() {
            continue;
        }
        // Some sessions are short, so that there are always new ones.
        for _ in 0..5 {
            let id = format!("{name}.{number}");
            number += 1;
            let commands = [
                ("MAIL FROM:<alice@client.example>", "250"),
                ("RCPT TO:<bob@example.org>", "250"),
                ("RCPT TO:<carol@example.org>", "250"),
                ("DATA", "354"),
            ];
            let is_open = commands
                .iter()
                .all(|(line, code)| ask(line, code).is_some());
            let message = format!(
                "From: alice@client.example\r\nX-Id: {id};\r\n\r\n{}.",
                body(&id)
            );
            if !is_open || ask(&message, "250").is_none() {
                break;
            }
            sent.acknowledged.push(id);
        }
    }
    sent
}

/// How often each message is in a mailbox; empties it.
fn taken(mailbox: &Path) -> BTreeMap<String, usize> {
    let mut times = BTreeMap::new();
    for file in files(&mailbox.join("new")) {
        let text = std::fs::read_to_string(&file).expect("a delivered message can be read");
        let id = text
            .split("X-Id: ")
            .nth(1)
            .and_then(|rest| rest.split_once(';'));
        let (id, rest) = id.unwrap_or_else(|| panic!("cut off: {}", file.display()));
        let is_whole = rest.ends_with(&format!("\r\n\r\n{}", body(id)));
        assert!(is_whole, "cut off: {id}");
        *times.entry(id.to_owned()).or_default() += 1;
        std::fs::remove_file(&file).expect("it can be removed");
    }
    times
}

#[test]
fn what_was_acknowledged_is_there_once_and_a_plugins_death_costs_nobody_anything() {
    let rounds = number_from("ROUNDS", 12);
    let seed = number_from("SEED", u64::from(std::process::id()) | 1 << 40);
    println!("SEED={seed} ROUNDS={rounds}");
    let mut dice = Dice(seed);
    let next =
        Server::start("[[plugin]]\nname = \"rcpt_ok\"\n[[plugin]]\nname = \"queue/maildir\"\n");
    let head = HEAD.replace("PORT", &next.address().port().to_string());
    let mut server = Server::start(&head);
    let mailboxes = [server.stage().mail.join("bob"), next.stage().mail.clone()];
    let (mut messages, mut unanswered, mut plugins) = (0, 0, 0);
    for round in 0..rounds {
        let (address, pid) = (server.address(), server.pid());
        let is_over = AtomicBool::new(false);
        let (sent, orphans) = std::thread::scope(|scope| {
            let clients: Vec<_> = (0..CLIENTS)
                .map(|number| {
                    let (name, is_over) = (format!("{round}.{number}"), &is_over);
                    scope.spawn(move || client(address, &name, is_over))
                })
                .collect();
            let moment =
                |dice: &mut Dice| std::thread::sleep(Duration::from_millis(dice.below(300)));
            moment(&mut dice);
            for _ in 0..dice.below(3) {
                let victims = descendants(pid);
                assert!(!victims.is_empty(), "there are plugin processes");
                let victim = dice.below(victims.len() as u64) as usize;
                // It may have ended for another reason.
                plugins += u64::from(kill(victims[victim].0, Signal::SIGKILL).is_ok());
                moment(&mut dice);
            }
            let orphans = descendants(pid);
            is_over.store(true, Ordering::Relaxed);
            kill(pid, Signal::SIGKILL).expect("the daemon is there");
            let sent = clients
                .into_iter()
                .map(|client| client.join().expect("it does not panic"));
            (sent.collect::<Vec<_>>(), orphans)
        });
        server.start_again(&head);
        let unwelcome: Vec<&String> = sent.iter().flat_map(|sent| &sent.unwelcome).collect();
        assert!(
            unwelcome.is_empty(),
            "round {round}, seed {seed}: {unwelcome:#?}"
        );
        for mailbox in &mailboxes {
            let mut times = taken(mailbox);
            for id in sent.iter().flat_map(|sent| &sent.acknowledged) {
                let there = times.remove(id).unwrap_or_default();
                assert_eq!(there, 1, "{id} in {}, seed {seed}", mailbox.display());
            }
            // What nobody was told of may be there as well, not twice.
            assert!(
                times.values().all(|there| *there == 1),
                "seed {seed}: {times:?}"
            );
            unanswered += times.len();
            let halves: Vec<PathBuf> = files(&mailbox.join("tmp"));
            assert!(halves.is_empty(), "seed {seed}: {halves:?}");
        }
        messages += sent
            .iter()
            .map(|sent| sent.acknowledged.len())
            .sum::<usize>();
        assert!(
            server.spooled().is_empty(),
            "seed {seed}: {:?}",
            server.spooled()
        );
        until("the end of a dead daemon's plugins", || {
            let is_alive = |(pid, command): &(Pid, String)| {
                std::fs::read(format!("/proc/{pid}/cmdline"))
                    .is_ok_and(|now| String::from_utf8_lossy(&now).replace('\0', " ") == *command)
            };
            (!orphans.iter().any(is_alive)).then_some(())
        });
    }
    println!(
        "{rounds} daemons and {plugins} plugin processes killed, {messages} messages acknowledged, 0 lost, 0 twice; {unanswered} copies of messages that were not acknowledged"
    );
    assert!(
        messages as u64 > rounds,
        "there was hardly any load: {messages} messages"
    );
}

/// A plugin process that is busy does not see that its daemon is gone: the next start ends it, and removes what it kept.
#[test]
fn what_a_killed_daemon_left_ends_with_the_next_start() {
    let head = r#"
[files]
"busy.py" = '''
import gatepost, os, pathlib, time

@gatepost.hook("rcpt")
def rcpt(session):
    pathlib.Path("$DIR/new").write_text(str(os.getpid()))
    os.rename("$DIR/new", "$DIR/busy")
    until = time.monotonic() + 60
    while time.monotonic() < until:
        pass

gatepost.run()
'''
[[plugin]]
name = "busy"
run = ["python3", "$DIR/busy.py"]
env = { PYTHONPATH = "$ROOT/sdk-python/src" }
timeout = "1h"
"#;
    let mut server = Server::start(head);
    let mut client = Client::greet(server.address());
    client.ask("MAIL FROM:<alice@client.example>", "250");
    client.send(b"RCPT TO:<bob@example.org>\r\n");
    let pid = until("a busy plugin", || {
        std::fs::read_to_string(server.dir().join("busy")).ok()
    });
    kill(server.pid(), Signal::SIGKILL).expect("the daemon is there");
    let scratch = server.stage().spool.join("plugins");
    let folders = || -> Vec<_> {
        let folders = std::fs::read_dir(&scratch).expect("there is the folder");
        folders
            .map(|folder| folder.expect("it can be read").file_name())
            .collect()
    };
    let left = folders();
    assert_eq!(left.len(), 1, "{left:?}");
    server.start_again(head);
    until("the end of the busy plugin", || {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"));
        // Whoever inherits it may not have looked at it yet.
        stat.map_or(Some(()), |stat| stat.contains(") Z ").then_some(()))
    });
    let now = folders();
    assert!(
        left.iter().all(|folder| !now.contains(folder)),
        "{left:?}, {now:?}"
    );
    server.wait_for_log("what was ended", |line| {
        line.contains(&format!("ended process {pid} (")) && line.contains("busy.py), which")
    });
}
