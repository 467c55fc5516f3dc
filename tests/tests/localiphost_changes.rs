//! The flat file `localiphost` is read again when it has changed, within a session.

use gatepost_tests::server::Server;
use gatepost_tests::smtp::Client;

#[test]
fn localiphost_changes() {
    let server = Server::start("");
    let file = server.dir().join("config/localiphost");
    let mut client = Client::greet(server.address());
    client.ask("MAIL FROM:<alice@client.example>", "250");
    for (domain, reply) in [
        (None, "550"),
        (Some("example.org"), "250"),
        (Some("example.net"), "550"),
        (Some("example.org"), "250"),
    ] {
        if let Some(domain) = domain {
            std::fs::write(&file, domain).expect("it can be written");
        }
        client.ask("RCPT TO:<bob@[127.0.0.1]>", reply);
    }
    std::fs::remove_file(&file).expect("it is there");
    client.ask("RCPT TO:<bob@[127.0.0.1]>", "550");
}
