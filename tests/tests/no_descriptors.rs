//! A daemon that has no descriptors left: connections wait without costing processor time, sessions that are there go on and are told 451 with the reason in the log, a plugin's worker
//! cannot be replaced, and all works again when there are descriptors, without a restart.

use std::time::{Duration, Instant};

use gatepost_tests::limits::{limit, no_more_descriptors, processor_time};
use gatepost_tests::server::Server;
use gatepost_tests::smtp::Client;
use gatepost_tests::wait::until;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const REASON: &str = "Too many open files";
const PLENTY: u64 = 1000;

const HEAD: &str = r#"
[limits]
memory_per_message = "64KB"
[[plugin]]
name = "rcpt_ok"
hosts = ["example.org"]
[[plugin]]
name = "queue/maildir"
[files]
"config/rcpthosts" = "ours.example"
"#;

fn small() -> Vec<u8> {
    b"Subject: small\r\n\r\nhello\r\n".to_vec()
}

fn large() -> Vec<u8> {
    let line = b"this line is thirty-two bytes.\r\n";
    [&b"Subject: large\r\n\r\n"[..], &line.repeat(8 << 10)].concat()
}

#[test]
fn who_is_there_goes_on_and_who_comes_waits() {
    let mut server = Server::start(HEAD);
    let mut client = Client::greet(server.address());
    no_more_descriptors(server.pid());
    let waiting = std::thread::spawn({
        let address = server.address();
        move || Client::greet(address)
    });
    server.wait_for_log("a line about connections", |text| {
        text.contains("cannot accept connections") && text.contains(REASON)
    });

    // What is ours stands in a file: not to be able to read it is no reason to refuse anybody for good.
    let ask_for_ours = |client: &mut Client, code| {
        client.ask("MAIL FROM:<alice@client.example>", "250");
        client.ask("RCPT TO:<bob@ours.example>", code);
        client.ask("RSET", "250");
    };
    ask_for_ours(&mut client, "450");
    server.wait_for_log("why it is not known", |text| {
        text.contains("rcpt_ok: error") && text.contains(REASON)
    });

    // Neither the Maildir's file nor the spool's can be opened.
    for (message, who) in [(small(), "queue/maildir: error"), (large(), "spool")] {
        let reply = client.deliver(&message);
        assert!(reply.starts_with("451 4.3."), "{reply:?}");
        server.wait_for_log("why it could not be kept", |text| {
            text.contains(who) && text.contains(REASON)
        });
    }

    let (before, since) = (processor_time(server.pid()), Instant::now());
    while since.elapsed() < Duration::from_secs(1) {
        client.ask("RSET", "250");
        std::thread::sleep(Duration::from_millis(50));
    }
    let used = processor_time(server.pid()) - before;
    assert!(used < 30, "{used} hundredths of a second to wait for one");

    limit(server.pid(), "nofile", PLENTY);
    let mut waited = waiting.join().expect("it was greeted");
    for client in [&mut waited, &mut client] {
        ask_for_ours(client, "250");
        for message in [small(), large()] {
            let reply = client.deliver(&message);
            assert!(reply.starts_with("250 2."), "{reply:?}");
        }
    }
    assert_eq!(server.delivered().len(), 4);
    assert!(server.spooled().is_empty());
    let refusals = server.log().into_iter();
    let refusals = refusals.filter(|line| line.contains("cannot accept connections"));
    assert_eq!(refusals.count(), 1, "said once for a row of failures");
    drop((client, waited));
    assert!(server.stop().success());
}

/// Its pipes take descriptors.
#[test]
fn a_worker_that_died_is_replaced_when_there_are_some() {
    let mut server = Server::start(
        r#"
        [[plugin]]
        name = "p"
        run = ["python3", "$DIR/p.py"]
        env = { PYTHONPATH = "$ROOT/sdk-python/src" }
        on_error = "tempfail"
        [[plugin]]
        name = "rcpt_ok"
        [[plugin]]
        name = "queue/maildir"
        [files]
        "p.py" = """
import os
import gatepost

@gatepost.hook("helo")
def helo(host):
    return gatepost.deny(str(os.getpid()))

@gatepost.hook("mail")
def mail():
    return gatepost.declined()

gatepost.run()
"""
        "#,
    );
    let mut client = Client::connect(server.address());
    let said = client.ask("HELO x", "550");
    let worker = said.trim_end().rsplit(' ').next().expect("a last word");
    let worker = Pid::from_raw(worker.parse().expect("a process"));
    client.ask("EHLO x", "250");
    no_more_descriptors(server.pid());
    kill(worker, Signal::SIGKILL).expect("the worker runs");
    server.wait_for_log("a worker that cannot be started", |text| {
        text.starts_with("p: worker 1 failed") && text.contains(REASON)
    });
    client.ask("MAIL FROM:<alice@client.example>", "45");
    limit(server.pid(), "nofile", PLENTY);
    until("a worker that is ready again", || {
        let line = |line: &String| line.contains("worker 1 is ready again");
        server.log().iter().any(line).then_some(())
    });
    let reply = client.deliver(&small());
    assert!(reply.starts_with("250 2."), "{reply:?}");
    drop(client);
    assert!(server.stop().success());
}

/// Who comes when all that can be had are taken is told so, rather than left to wait; files, plugins and the command line have descriptors all the same.
#[test]
fn connections_leave_some_for_other_things() {
    let mut server = Server::start_inside("[limits]\nmax_connections_per_ip = 1000", |_| {
        let words = ["prlimit", "--nofile=120:120"];
        words.into_iter().map(Into::into).collect()
    });
    server.wait_for_log("that there are too few descriptors", |text| {
        text.contains("`max_connections` is 2000") && text.contains(": 90 connections")
    });
    let mut clients: Vec<Client> = (0..90).map(|_| Client::greet(server.address())).collect();
    assert!(Client::try_connect_or_421(server.address()).is_none());
    let reply = clients[0].deliver(&large());
    assert!(reply.starts_with("250 2."), "{reply:?}");
    let (code, _, said) = server.command(&["reload"]);
    assert_eq!(code, Some(0), "{said}");
    let log = server.log();
    assert!(!log.iter().any(|line| line.contains(REASON)), "{log:?}");
    drop(clients);
    assert!(server.stop().success());
}
