//! A plugin that does not answer again and again: its circuit breaker opens, clients get what `on_error` says at once, and when it answers again the
//! breaker closes, all without a restart.

use std::time::{Duration, Instant};

use gatepost_tests::server::Server;
use gatepost_tests::smtp::Client;
use gatepost_tests::wait::until;

const DEADLINE: Duration = Duration::from_millis(600);

/// How many lines of the log say this.
fn said(server: &Server, what: &str) -> usize {
    let log = server.log();
    log.iter().filter(|line| line.contains(what)).count()
}

#[test]
fn it_opens_says_so_once_probes_and_closes() {
    let server = Server::start(
        "
        [[plugin]]
        name = \"bad\"
        run = [\"$BIN/misbehave\", \"answers-after-cancel\"]
        timeout = \"600ms\"
        on_error = \"tempfail\"
        [[plugin]]
        name = \"rcpt_ok\"
        ",
    );
    let mut client = Client::greet(server.address());
    client.ask("MAIL FROM:<alice@client.example>", "250");
    let mut ask = |address: &str| {
        let began = Instant::now();
        client.send(format!("RCPT TO:<{address}@example.org>\r\n").as_bytes());
        (client.reply(), began.elapsed())
    };
    let open = "bad: circuit breaker open at rcpt: 5 failures in a row, the last: ";
    until("the breaker to open", || {
        let (reply, _) = ask("bad");
        assert!(reply.starts_with("450"), "{reply}");
        (said(&server, open) == 1).then_some(())
    });

    // Also whom the plugin would let pass it is not asked about, and nobody waits for its deadline.
    for _ in 0..3 {
        let (reply, took) = ask("bob");
        assert!(
            reply.starts_with("450") && took < DEADLINE / 2,
            "{reply} {took:?}"
        );
    }

    // One request tries, and is answered.
    until("a request that tries", || {
        ask("bob").0.starts_with("250").then_some(())
    });
    let closed = "bad: circuit breaker closed at rcpt: it answers again, after ";
    until("the line about it", || {
        (said(&server, closed) == 1).then_some(())
    });
    assert_eq!(said(&server, open), 1);
}
