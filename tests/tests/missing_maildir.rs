//! A Maildir that is not there, and one that cannot be made: 451 with the reason in the log, nothing acknowledged, and the next message arrives when it is there again, without a restart.

use std::path::Path;

use gatepost_tests::server::Server;
use gatepost_tests::smtp::Client;

const MESSAGE: &[u8] = b"Subject: x\r\n\r\nhello\r\n";

/// Delivers once while the Maildir is gone, and once when it is there again.
fn gone(chain: &str, take: impl Fn(&Path), give_back: impl Fn(&Path)) {
    let mut server = Server::start(chain);
    let mail = server.stage().mail.clone();
    take(&mail);
    let mut client = Client::greet(server.address());
    let reply = client.deliver(MESSAGE);
    assert!(reply.starts_with("451 4."), "{reply:?}");
    let line = server.wait_for_log("a line about the Maildir", |text| {
        text.starts_with("(queue) queue/maildir: error")
    });
    assert!(line.contains(&*mail.to_string_lossy()), "{line}");
    assert!(server.spooled().is_empty());
    give_back(&mail);
    let reply = client.deliver(MESSAGE);
    assert!(reply.starts_with("250 2."), "{reply:?}");
    assert!(server.message().ends_with(MESSAGE));
    client.ask("QUIT", "221");
    assert!(server.stop().success());
}

#[test]
fn a_maildir_that_is_not_to_be_made() {
    let chain = "
        [[plugin]]
        name = \"rcpt_ok\"
        [[plugin]]
        name = \"queue/maildir\"
        create = false
    ";
    gone(
        chain,
        |mail| std::fs::remove_dir_all(mail).unwrap(),
        |mail| {
            for folder in ["tmp", "new", "cur"] {
                std::fs::create_dir_all(mail.join(folder)).unwrap();
            }
        },
    );
}

/// With a file in its place nobody, not even root, can make folders below it.
#[test]
fn a_maildir_that_cannot_be_made() {
    gone(
        "",
        |mail| {
            std::fs::remove_dir_all(mail).unwrap();
            std::fs::write(mail, "").unwrap();
        },
        |mail| {
            std::fs::remove_file(mail).unwrap();
            std::fs::create_dir(mail).unwrap();
        },
    );
}
