//! Full load for a while, with plugin processes that crash all the time: memory, descriptors and processes of the daemon are in the end what they were
//! after the first part, and the spool is empty (docs/durability.md).
//!
//! `SECONDS=1800` goes on for half an hour, whose first minute is the first part; with `--nocapture` it says what it saw.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use gatepost_tests::processes::{Dice, descendants, number_from, plugin_processes};
use gatepost_tests::server::Server;
use gatepost_tests::smtp::Client;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const CLIENTS: usize = 6;
/// Between two plugin processes that are killed.
const PAUSE: Duration = Duration::from_millis(400);
/// A process that died again and again is started again after half a minute.
const RECOVERY: Duration = Duration::from_secs(60);
/// What may be more in the end: kilobytes, beside a quarter of what there was, since an allocator keeps what it had at the worst moment; descriptors.
const MORE_MEMORY: u64 = 8 * 1024;
const MORE_DESCRIPTORS: usize = 4;

/// Plugins in three languages, one of which ends itself now and then; without them mail goes on. The test keeps what is logged, which would be gigabytes.
const HEAD: &str = r#"
loglevel = "notice"
[limits]
memory_per_message = "1KB"
max_transactions = 1000000
[files]
"look.py" = '''
import gatepost, os, random

@gatepost.hook("mail")
@gatepost.hook("rcpt")
def look(session):
    return gatepost.passed("seen")

@gatepost.hook("data_post", fields=["size"])
def data_post(session):
    if random.randrange(200) == 0:
        os._exit(3)
    session.note("size", session.size)
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
workers = { min = 2, max = 2 }
on_error = "skip"
[[plugin]]
qpsmtpd = "stamp"
plugin_dirs = ["$DIR"]
workers = { min = 2, max = 2 }
[[plugin]]
name = "helo"
run = ["$BIN/gatepost", "plugin", "serve"]
reject = false
on_error = "skip"
[[plugin]]
name = "rcpt_ok"
[[plugin]]
name = "queue/discard"
"#;

/// What a daemon without clients holds.
#[derive(Debug)]
struct Held {
    /// Kilobytes.
    memory: u64,
    descriptors: usize,
    processes: usize,
}

fn held(pid: Pid) -> Held {
    let proc = Path::new("/proc").join(pid.to_string());
    let status = std::fs::read_to_string(proc.join("status")).expect("the daemon is there");
    let memory = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|rest| rest.split_whitespace().next()?.parse().ok());
    let descriptors = std::fs::read_dir(proc.join("fd")).expect("the daemon is ours");
    Held {
        memory: memory.expect("the system says how much"),
        descriptors: descriptors.count(),
        processes: plugin_processes(pid),
    }
}

/// Sends messages in sessions of twenty. Every reply is the usual one: the death of a plugin costs no client anything.
fn client(server: &Server, is_over: &AtomicBool, messages: &AtomicU64) {
    let message = format!(
        "From: alice@client.example\r\n\r\n{}",
        "a line of text\r\n".repeat(200)
    );
    while !is_over.load(Ordering::Relaxed) {
        let mut connection = Client::connect(server.address());
        connection.ask("HELO client.example", "250");
        for _ in 0..20 {
            let reply = connection.deliver(message.as_bytes());
            assert!(reply.starts_with("250 "), "{reply}");
            messages.fetch_add(1, Ordering::Relaxed);
        }
        connection.ask("QUIT", "221");
    }
}

/// Puts the daemon under load for a time, and kills its plugin processes meanwhile. How many.
fn load(server: &Server, time: Duration, dice: &mut Dice, messages: &AtomicU64) -> u64 {
    let until = Instant::now() + time;
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| client(server, &is_over, messages));
        }
        let mut killed = 0;
        while Instant::now() < until {
            std::thread::sleep(PAUSE);
            let mut victims = descendants(server.pid());
            // A process that others are forked from is started again only when another is needed.
            victims.retain(|(pid, _)| descendants(*pid).is_empty());
            if !victims.is_empty() {
                let victim = dice.below(victims.len() as u64) as usize;
                // It may have ended for another reason.
                killed += u64::from(kill(victims[victim].0, Signal::SIGKILL).is_ok());
            }
        }
        is_over.store(true, Ordering::Relaxed);
        killed
    })
}

/// What it holds once there are as many plugin processes again as there were.
fn calm(server: &Server, whole: usize) -> Held {
    let until = Instant::now() + RECOVERY;
    loop {
        let now = held(server.pid());
        // While one starts there may be more of them.
        if now.processes == whole {
            return now;
        }
        assert!(
            Instant::now() < until,
            "of {whole} processes there are {now:?}"
        );
        std::thread::sleep(PAUSE);
    }
}

#[test]
fn what_a_daemon_holds_does_not_grow() {
    let seconds = number_from("SECONDS", 12);
    let first = (seconds / 4).clamp(1, 60);
    let mut dice = Dice(u64::from(std::process::id()) | 1 << 40);
    let mut server = Server::start(HEAD);
    let messages = AtomicU64::new(0);
    let whole = held(server.pid()).processes;
    let killed = load(&server, Duration::from_secs(first), &mut dice, &messages);
    let before = calm(&server, whole);
    let rest = Duration::from_secs(seconds - first);
    let killed = killed + load(&server, rest, &mut dice, &messages);
    let after = calm(&server, whole);
    let sent = messages.into_inner();
    println!(
        "{seconds} s, {sent} messages, {killed} plugin processes killed; after the first {first} s {before:?}, in the end {after:?}"
    );
    assert!(
        after.memory <= before.memory * 5 / 4 + MORE_MEMORY,
        "{before:?}, {after:?}"
    );
    assert!(
        after.descriptors <= before.descriptors + MORE_DESCRIPTORS,
        "{before:?}, {after:?}"
    );
    assert!(server.spooled().is_empty(), "{:?}", server.spooled());
    assert!(sent > seconds, "there was hardly any load: {sent} messages");
    assert!(server.stop().success());
}
