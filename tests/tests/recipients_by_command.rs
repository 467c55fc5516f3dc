//! Programs that the plugin recipients asks: what they answer, and that one that hangs is ended with all it started.

use gatepost_tests::server::Server;
use gatepost_tests::smtp::Client;
use gatepost_tests::wait::until;
use nix::sys::signal::kill;
use nix::unistd::Pid;

#[test]
fn a_program_that_hangs_is_ended_with_its_children() {
    let server = Server::start(
        "
        [[plugin]]
        name = \"recipients\"
        command = [\"sh\", \"-c\", \"sleep 1000 & echo $! $$ >> $DIR/running; wait\", \"sh\"]
        timeout = \"500ms\"
        [[plugin]]
        name = \"rcpt_ok\"
        ",
    );
    let mut client = Client::greet(server.address());
    client.ask("MAIL FROM:<alice@client.example>", "250");
    client.ask("RCPT TO:<bob@example.org>", "450 4.4.3");
    server.wait_for_log("why", |text| {
        text == "(recipient_valid) recipients: error, no answer within 500ms"
    });
    let running = std::fs::read_to_string(server.dir().join("running")).unwrap();
    let pids: Vec<i32> = running
        .split_whitespace()
        .map(|pid| pid.parse().unwrap())
        .collect();
    assert_eq!(pids.len(), 2, "{running}");
    for pid in pids {
        until("the program to be gone", || is_gone(pid).then_some(()));
    }
    client.ask("RCPT TO:<postmaster@example.org>", "250");
}

/// Gone, or dead and not yet buried by whoever inherited it.
fn is_gone(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    kill(Pid::from_raw(pid), None).is_err() || stat.contains(") Z ")
}
