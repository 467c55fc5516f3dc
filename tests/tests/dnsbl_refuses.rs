//! `dnsbl` against a real DNS: asked at connect, answered at RCPT, and a DNS that does not answer is nobody's failure.

use std::net::UdpSocket;

use gatepost_tests::server::Server;
use gatepost_tests::smtp::Client;

/// 127.0.0.1 in a list (RFC 5782 §2.1).
const LISTED: &str = r#"
"1.0.0.127.zen.example.net A" = "127.0.0.2"
"1.0.0.127.zen.example.net TXT" = "see https://zen.example.net"
"#;

fn chain(head: &str, settings: &str) -> Server {
    Server::start(&format!(
        "{head}\n[[plugin]]\nname = \"dnsbl\"\nzones = [\"zen.example.net\", \"other.example.net\"]\n{settings}\n[[plugin]]\nname = \"naughty\"\n[[plugin]]\nname = \"rcpt_ok\"\n[[plugin]]\nname = \"queue/discard\"\n"
    ))
}

#[test]
fn a_listed_client_at_rcpt_with_the_lists_own_words() {
    let server = chain(&format!("[dns]\n{LISTED}"), "");
    let mut client = Client::greet(server.address());
    client.ask("MAIL FROM:<alice@client.example>", "250");
    for _ in 0..2 {
        let reply = client.ask("RCPT TO:<bob@example.org>", "550 5.7.1");
        assert!(reply.contains("see https://zen.example.net"), "{reply}");
    }
    client.ask("RCPT TO:<postmaster@example.org>", "250");
    server.wait_for_log("the listing", |text| {
        text.starts_with("(rcpt) dnsbl: fail, listed in zen.example.net")
    });
}

#[test]
fn nobody_when_the_list_has_nothing() {
    let server = chain("[dns]", "");
    let mut client = Client::greet(server.address());
    client.ask("MAIL FROM:<alice@client.example>", "250");
    client.ask("RCPT TO:<bob@example.org>", "250");
    server.wait_for_log("the check", |text| text.starts_with("(rcpt) dnsbl: pass"));
}

#[test]
fn nobody_when_the_dns_is_silent_unless_the_operator_says_so() {
    // Bound, and never read.
    let silent = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    let address = silent.local_addr().expect("it is bound");
    let head = format!("dns_server = \"{address}\"");
    for (settings, code) in [("", "250"), ("on_error = \"tempfail\"", "450")] {
        let server = chain(&head, settings);
        let mut client = Client::greet(server.address());
        client.ask("MAIL FROM:<alice@client.example>", "250");
        client.ask("RCPT TO:<bob@example.org>", code);
        server.wait_for_log("the failed check", |text| text.contains("dnsbl: error, "));
    }
}
