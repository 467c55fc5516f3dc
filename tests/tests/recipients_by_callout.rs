//! The plugin recipients asks another daemon who is there, by SMTP and by LMTP, and asks no more than it must.

use gatepost_tests::server::Server;
use gatepost_tests::smtp::Client;

/// Knows Bob and Carol, and bears few mistakes.
const NEXT: &str = "
    [limits]
    max_errors = 2
    [[plugin]]
    name = \"recipients\"
    addresses = [\"bob@example.org\", \"carol@example.org\"]
    [[plugin]]
    name = \"rcpt_ok\"
";

fn asking(callout: &str) -> Server {
    Server::start(&format!(
        "
        [[plugin]]
        name = \"recipients\"
        callout = \"{callout}\"
        [[plugin]]
        name = \"rcpt_ok\"
        "
    ))
}

/// How often the next server was asked.
fn times_asked(next: &Server) -> usize {
    let asked = |line: &&String| line.contains("(recipient_valid) recipients: ");
    next.log().iter().filter(asked).count()
}

fn in_transaction(server: &Server) -> Client {
    let mut client = Client::greet(server.address());
    client.ask("MAIL FROM:<alice@client.example>", "250");
    client
}

#[test]
fn by_smtp() {
    let mut next = Server::start(NEXT);
    let server = asking(&format!("smtp://127.0.0.1:{}", next.address().port()));
    let mut client = in_transaction(&server);
    client.ask("RCPT TO:<bob@example.org>", "250 2.1.5");
    // More than the next server bears in one session: it closes the connection, and another is made.
    for name in ["u", "v", "w", "x", "y", "z"] {
        client.ask(
            &format!("RCPT TO:<{name}@example.org>"),
            "550 5.1.1 no such user here",
        );
    }
    client.ask("RCPT TO:<Carol@example.org>", "250 2.1.5");
    server.wait_for_log("what the next server said", |text| {
        text.contains("recipients: fail, z@example.org: smtp://127.0.0.1:")
            && text.ends_with(" says 550 no such user here")
    });
    // No transaction is left open, for the end of which it would wait.
    assert!(next.stop().success());
    assert_eq!(times_asked(&next), 8);

    // What is known is not asked again, whoever asks; so it does not matter that the next server is away.
    let mut client = in_transaction(&server);
    client.ask("RCPT TO:<BOB@example.org>", "250 2.1.5");
    client.ask("RCPT TO:<u@example.org>", "550 5.1.1");
    client.ask("RCPT TO:<new@example.org>", "450 4.4.3");
    client.ask("RCPT TO:<postmaster@example.org>", "250 2.1.5");
    server.wait_for_log("what is wrong with the next server", |text| {
        text.contains("recipients: error, new@example.org: smtp://127.0.0.1:")
    });
}

#[test]
fn by_lmtp_over_a_unix_socket() {
    let mut next = Server::start(&format!(
        "
        [[listen]]
        [[listen]]
        addr = \"unix:$DIR/lmtp.sock\"
        mode = \"0600\"
        protocol = \"lmtp\"
        {NEXT}"
    ));
    let socket = next.dir().join("lmtp.sock");
    let server = asking(&format!("lmtp:unix:{}", socket.display()));
    let mut client = in_transaction(&server);
    client.ask("RCPT TO:<bob@example.org>", "250 2.1.5");
    client.ask("RCPT TO:<eve@example.org>", "550 5.1.1");
    client.ask("RCPT TO:<carol@example.org>", "250 2.1.5");
    assert!(next.stop().success());
    assert_eq!(times_asked(&next), 3);
    assert!(next.delivered().is_empty());
}

#[test]
fn many_who_ask_at_once_share_a_question() {
    let server = Server::start(
        "
        [[plugin]]
        name = \"recipients\"
        command = [\"sh\", \"-c\", \"echo $2 >> $DIR/asked; until [ -e $DIR/answer ]; do sleep 0.01; done\", \"sh\"]
        [[plugin]]
        name = \"rcpt_ok\"
        ",
    );
    let mut clients: Vec<Client> = (0..8).map(|_| in_transaction(&server)).collect();
    for client in &mut clients {
        client.send(b"RCPT TO:<bob@example.org>\r\n");
    }
    let asked = server.dir().join("asked");
    gatepost_tests::wait::until("the question", || asked.exists().then_some(()));
    std::fs::write(server.dir().join("answer"), "").unwrap();
    for client in &mut clients {
        client.expect("250 2.1.5");
    }
    assert_eq!(std::fs::read_to_string(asked).unwrap(), "bob@example.org\n");
}
