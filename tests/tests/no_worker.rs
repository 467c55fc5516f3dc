//! The system gives no process for a plugin's worker, or the worker no memory: the plugin fails, the operator's `on_error` says what that costs, the log says why, all else goes on, and a worker
//! is there again when the system gives one, without a restart.

use std::ffi::OsString;
use std::os::unix::fs::chown;
use std::path::Path;

use gatepost_tests::limits::limit;
use gatepost_tests::server::Server;
use gatepost_tests::smtp::Client;
use gatepost_tests::wait::until;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const MESSAGE: &[u8] = b"Subject: x\r\n\r\nhello\r\n";

const HEAD: &str = r##"
[[plugin]]
name = "p"
run = ["$DIR/p"]
env = { PYTHONPATH = "$ROOT/sdk-python/src" }
on_error = "tempfail"
[[plugin]]
name = "rcpt_ok"
[[plugin]]
name = "queue/maildir"
[files]
"memory" = "unlimited"
"p" = """#!/bin/sh
ulimit -v $(cat $DIR/memory)
exec python3 $DIR/p.py
"""
"p.py" = """
import os
import gatepost

@gatepost.hook("helo")
def helo(host):
    return gatepost.deny(str(os.getpid()))

@gatepost.hook("vrfy")
def vrfy(argument):
    return gatepost.declined()

gatepost.run()
"""
"##;

/// Root may have as many processes as it likes: the daemon is to be somebody else, whom nobody else is.
fn as_somebody(dir: &Path) -> Vec<OsString> {
    if !nix::unistd::geteuid().is_root() {
        return Vec::new();
    }
    let id = 61_000 + std::process::id() % 4000;
    for name in ["", "spool", "mail"] {
        let folder = dir.join(name);
        std::fs::create_dir_all(&folder).expect("a folder can be made");
        chown(folder, Some(id), Some(id)).expect("root may give a folder away");
    }
    let id = id.to_string();
    let words = ["setpriv", "--reuid", &id, "--regid", &id, "--clear-groups"];
    words.into_iter().map(OsString::from).collect()
}

fn worker(client: &mut Client) -> Pid {
    let said = client.ask("HELO x", "550");
    let pid = said.trim_end().rsplit(' ').next().expect("a last word");
    Pid::from_raw(pid.parse().expect("a process"))
}

/// Takes the worker away while there is to be no other, then lets there be one.
fn gone(server: &mut Server, reason: &str, take: impl Fn(&Server), give: impl Fn(&Server)) {
    let mut client = Client::connect(server.address());
    let worker = worker(&mut client);
    take(server);
    kill(worker, Signal::SIGKILL).expect("the worker runs");
    let line = server.wait_for_log("a worker that cannot be started", |text| {
        text.starts_with("p: worker 1 failed: ") && text.contains(reason)
    });
    assert!(line.contains("the next start is in "), "{line}");
    client.ask("HELO x", "450");
    // Who does not need it does not notice, and there are more of them than threads.
    client.ask("EHLO x", "250");
    let others: Vec<Client> = (0..4).map(|_| Client::greet(server.address())).collect();
    std::thread::scope(|scope| {
        for mut other in others {
            scope.spawn(move || {
                for _ in 0..10 {
                    let reply = other.deliver(MESSAGE);
                    assert!(reply.starts_with("250 2."), "{reply:?}");
                }
            });
        }
    });
    give(server);
    until("a worker that is ready again", || {
        let line = |line: &String| line.contains("worker 1 is ready again");
        server.log().iter().any(line).then_some(())
    });
    client.ask("HELO x", "550");
    let reply = client.deliver(MESSAGE);
    assert!(reply.starts_with("250 2."), "{reply:?}");
    client.ask("QUIT", "221");
    assert!(server.stop().success());
    assert_eq!(server.delivered().len(), 41);
}

#[test]
fn no_process_can_be_made() {
    let mut server = Server::start_inside(HEAD, as_somebody);
    gone(
        &mut server,
        "Resource temporarily unavailable",
        |server| limit(server.pid(), "nproc", 1),
        |server| limit(server.pid(), "nproc", 1000),
    );
}

#[test]
fn a_worker_gets_no_memory() {
    let mut server = Server::start(HEAD);
    let memory = server.dir().join("memory");
    let write = |text| std::fs::write(&memory, text).expect("the test may write there");
    gone(
        &mut server,
        "before it said `hello`",
        |_| write("4000"),
        |_| write("unlimited"),
    );
}
