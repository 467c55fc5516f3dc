//! A Maildir that cannot be written to: 451 with the reason in the log, nothing acknowledged, and the next message arrives when it is there again, without a restart.

use gatepost_tests::server::Server;
use gatepost_tests::smtp::Client;

const MESSAGE: &[u8] = b"Subject: x\r\n\r\nhello\r\n";

#[test]
fn missing_maildir() {
    let mut server = Server::start("");
    let mail = server.stage().mail.clone();
    // A file in its place: nobody, not even root, can make folders below it.
    std::fs::remove_dir_all(&mail).expect("the folder can be removed");
    std::fs::write(&mail, "").expect("a file can be written");
    let mut client = Client::greet(server.address());
    let reply = client.deliver(MESSAGE);
    assert!(reply.starts_with("451 4."), "{reply:?}");
    let line = server.wait_for_log("a line about the Maildir", |text| {
        text.starts_with("(queue) queue/maildir: error")
    });
    assert!(line.contains(&*mail.to_string_lossy()), "{line}");
    assert!(server.spooled().is_empty());

    std::fs::remove_file(&mail).expect("the file can be removed");
    std::fs::create_dir(&mail).expect("the folder can be made");
    let reply = client.deliver(MESSAGE);
    assert!(reply.starts_with("250 2."), "{reply:?}");
    assert!(server.message().ends_with(MESSAGE));
    assert!(server.stop().success());
}
