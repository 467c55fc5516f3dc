//! haproxy passes a client on with both versions of the PROXY protocol, and the client's address is known.

use std::process::{Child, Command, Stdio};

use gatepost_tests::programs;
use gatepost_tests::server::Server;
use gatepost_tests::smtp::Client;
use gatepost_tests::wait::until;

/// A program that ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_client_behind_haproxy_is_known() {
    let Some(haproxy) = programs::needed("haproxy") else {
        return;
    };
    for how in ["send-proxy", "send-proxy-v2"] {
        let server = Server::start(
            "loglevel = 'debug'\n[[listen]]\nproxy_from = ['127.0.0.2']\n[[plugin]]\nname = 'rcpt_ok'\n[[plugin]]\nname = 'queue/maildir'",
        );
        let front = programs::free_address();
        let config = server.dir().join("haproxy.cfg");
        // It connects from an address that is not the client's.
        let text = format!(
            "defaults\n mode tcp\n timeout connect 10s\n timeout client 1m\n timeout server 1m\nlisten mail\n bind {front}\n server gatepost {} {how} source 127.0.0.2\n",
            server.address()
        );
        std::fs::write(&config, text).expect("the folder can be written to");
        let child = Command::new(&haproxy)
            .arg("-db")
            .arg("-f")
            .arg(&config)
            .stdout(Stdio::null())
            .spawn()
            .expect("haproxy runs");
        let _running = Running(child);
        until("haproxy to listen", || {
            std::net::TcpStream::connect(front).ok()
        });
        let mut client = Client::greet(front);
        let reply = client.deliver(b"Subject: through a proxy\r\n\r\nhello\r\n");
        assert!(reply.starts_with("250 "), "{reply}");
        let message = String::from_utf8(server.message()).expect("it is text");
        assert!(
            message.contains("from client.example ([127.0.0.1])"),
            "{how}: {message}"
        );
    }
}
