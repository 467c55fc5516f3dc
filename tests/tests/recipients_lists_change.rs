//! The flat file of the plugin recipients is read again when it changes, and no answer that was given before stands in its way.

use gatepost_tests::server::Server;
use gatepost_tests::smtp::Client;

#[test]
fn a_change_of_the_file_counts() {
    let server = Server::start(
        "
        [[plugin]]
        name = \"recipients\"
        [[plugin]]
        name = \"rcpt_ok\"
        [files]
        \"config/recipients\" = \"bob@example.org\\n\"
        ",
    );
    let mut client = Client::greet(server.address());
    client.ask("MAIL FROM:<alice@client.example>", "250");
    client.ask("RCPT TO:<bob@example.org>", "250 2.1.5");
    client.ask("RCPT TO:<carol@example.org>", "550 5.1.1");
    let file = server.dir().join("config/recipients");
    std::fs::write(file, "carol@example.org, and more\ncarol@example.org\n").unwrap();
    client.ask("RCPT TO:<carol@example.org>", "250 2.1.5");
    client.ask("RCPT TO:<bob@example.org>", "550 5.1.1");
}
