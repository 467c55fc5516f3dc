//! Handshakes of TLS per second, beside OpenSSL's own server with the same certificate, key and client.

use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};

use gatepost_tests::programs::free_address;
use gatepost_tests::server::{Server, gatepost};
use gatepost_tests::wait::until;
use tempfile::TempDir;

use crate::load::program;
use crate::rounds::{interleaved, median, ratios, spread};
use crate::table::{Table, Target};
use crate::{Effort, Tables};

/// Clients at once: one server can keep up with more than one client makes.
const CLIENTS: usize = 2;
/// A run of the client; whole seconds only.
const SECONDS: usize = 3;

/// OpenSSL's server. It is killed when dropped.
struct Peer {
    child: Child,
    address: SocketAddr,
}

impl Peer {
    fn start(dir: &TempDir) -> Peer {
        let address = free_address();
        let child = Command::new(program("openssl"))
            // With -www it does not look at its standard input, which would be its end.
            .args([
                "s_server",
                "-quiet",
                "-www",
                "-accept",
                &address.to_string(),
            ])
            .arg("-cert")
            .arg(dir.path().join("cert.pem"))
            .arg("-key")
            .arg(dir.path().join("key.pem"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("openssl runs");
        let peer = Peer { child, address };
        until("s_server to listen", || TcpStream::connect(address).ok());
        peer
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Full handshakes, with TLS 1.3 and an ECDSA key of P-256, and nothing after them.
pub fn handshakes(effort: &Effort) -> Tables {
    let dir = TempDir::with_prefix("gatepost-").expect("a temporary folder");
    let made = Command::new(gatepost())
        .args(["tls", "self-signed", "--name", "mx.example.org", "--out"])
        .arg(dir.path())
        .output()
        .expect("gatepost runs");
    assert!(made.status.success(), "{made:?}");
    let at = dir.path().display();
    let server = Server::start(&format!(
        "loglevel = \"notice\"\n[[listen]]\ntls = \"implicit\"\n[limits]\nmax_connections_per_ip = 1000\n\
         [tls]\ncert = \"{at}/cert.pem\"\nkey = \"{at}/key.pem\"\n"
    ));
    let peer = Peer::start(&dir);
    let subjects = [
        ("openssl s_server", peer.address),
        ("Gatepost", server.address()),
    ];
    let seconds = SECONDS.div_ceil(effort.divisor);
    let figures = interleaved(effort.rounds, subjects.len(), |subject| {
        load(subjects[subject].1, seconds)
    });
    let mut table = Table::new(
        "Full handshakes, TLS 1.3, TLS_AES_256_GCM_SHA384, ECDSA P-256, 2 clients at once",
        &["", "handshakes/s", "of s_server", "to reach"],
    );
    for (subject, (name, _)) in subjects.iter().enumerate() {
        let over = ratios(&figures[subject], &figures[0]);
        table.rows.push(vec![
            (*name).to_owned(),
            format!("{:.0}", median(&figures[subject])),
            spread(&over),
            match subject {
                0 => String::new(),
                _ => Target::AtLeast(1.0).verdict(median(&over)),
            },
        ]);
    }
    vec![table]
}

/// Handshakes per second that `openssl s_time` gets done.
fn load(server: SocketAddr, seconds: usize) -> f64 {
    let clients: Vec<Child> = (0..CLIENTS)
        .map(|_| {
            Command::new(program("openssl"))
                .args(["s_time", "-new", "-tls1_3", "-connect", &server.to_string()])
                .args(["-ciphersuites", "TLS_AES_256_GCM_SHA384"])
                .args(["-time", &seconds.to_string()])
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn()
                .expect("openssl runs")
        })
        .collect();
    clients.into_iter().map(rate).sum()
}

/// From its line `8310 connections in 4 real seconds, 0 bytes read per connection`.
fn rate(client: Child) -> f64 {
    let output = client.wait_with_output().expect("openssl ends");
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text
        .lines()
        .find(|line| line.contains("real seconds"))
        .unwrap_or_else(|| panic!("openssl s_time: {text}"));
    let numbers: Vec<f64> = line
        .split_whitespace()
        .filter_map(|word| word.parse().ok())
        .collect();
    numbers[0] / numbers[1]
}
