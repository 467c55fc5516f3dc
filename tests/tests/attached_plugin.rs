//! A plugin that somebody started by hand: the daemon attaches to its socket, and again after the plugin was gone.

use std::path::Path;
use std::process::{Child, Command};

use gatepost_tests::programs;
use gatepost_tests::server::Server;
use gatepost_tests::smtp::Client;
use gatepost_tests::wait::until;

/// The Python example, waiting on a socket. It is killed when dropped.
struct ByHand(Child);

impl ByHand {
    fn start(socket: &Path) -> ByHand {
        let root = programs::root();
        let _ = std::fs::remove_file(socket);
        let child = Command::new("python3")
            .arg(root.join("plugin-examples/python/refuse_recipient.py"))
            .arg("--listen")
            .arg(format!("unix:{}", socket.display()))
            .env("PYTHONPATH", root.join("sdk-python/src"))
            .spawn()
            .unwrap();
        until("the plugin to listen", || socket.exists().then_some(()));
        ByHand(child)
    }
}

impl Drop for ByHand {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn attached_plugin() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("plugin.sock");
    let plugin = ByHand::start(&socket);
    let server = Server::start(&format!(
        "
        [[plugin]]
        name = \"refuse_recipient\"
        attach = \"unix:{}\"
        addresses = [\"nobody@example.org\"]
        [[plugin]]
        name = \"rcpt_ok\"
        [[plugin]]
        name = \"queue/maildir\"
        ",
        socket.display()
    ));
    let rcpt = |recipient: &str| {
        let mut client = Client::greet(server.address());
        client.ask("MAIL FROM:<alice@client.example>", "250");
        client.send(format!("RCPT TO:<{recipient}>\r\n").as_bytes());
        let reply = client.reply();
        client.ask("QUIT", "221");
        reply
    };
    assert!(rcpt("nobody@example.org").starts_with("550 "));
    assert!(rcpt("bob@example.org").starts_with("250 "));

    // Nobody answers for a plugin that is gone: its `on_error` does, and the client is to try again.
    drop(plugin);
    until("the daemon to miss the plugin", || {
        rcpt("bob@example.org").starts_with("450 ").then_some(())
    });
    let _plugin = ByHand::start(&socket);
    until("the daemon to find it again", || {
        rcpt("nobody@example.org").starts_with("550 ").then_some(())
    });
    assert!(rcpt("bob@example.org").starts_with("250 "));
}
