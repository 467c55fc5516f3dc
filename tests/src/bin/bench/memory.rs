//! Memory: with many idle connections, and while a large message comes in.

use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use gatepost_tests::server::Server;
use gatepost_tests::smtp::Client;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpSocket, TcpStream};

use crate::table::{Table, Target};
use crate::{Effort, Tables};

/// Of the kernel's KB.
pub const MB: f64 = 1024.0;

/// The large message.
const LARGE: usize = 100 << 20;

pub fn measure(effort: &Effort) -> Tables {
    let mut table = Table::new(
        "Memory of the daemon",
        &["", "before", "then", "more", "to reach"],
    );
    table.rows.push(idle(effort.connections));
    table.rows.push(large_message());
    vec![table]
}

/// Connections that heard the greeting and said nothing.
fn idle(connections: usize) -> Vec<String> {
    let connections = raise_descriptors(connections);
    let server = Server::start(
        "loglevel = \"notice\"\n[limits]\nmax_connections = 20000\nmax_connections_per_ip = 20000\n",
    );
    let before = memory(&server, "VmRSS");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let open = runtime.block_on(open_many(server.address(), connections));
    let then = memory(&server, "VmRSS");
    drop(open);
    let name = format!("{connections} idle connections");
    let target = (connections == 10_000).then(|| Target::AtMost(150.0).verdict(then / MB));
    row(&name, before, then, target)
}

/// Lets this process, and the daemons that it starts, have as many descriptors as may be. Returns how many connections that makes possible, of
/// those that are wanted.
pub fn raise_descriptors(connections: usize) -> usize {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit can be read");
    setrlimit(Resource::RLIMIT_NOFILE, most, most).expect("a limit can be raised to its maximum");
    connections.min(most as usize - 200)
}

/// Opens connections from several addresses of loopback, so that no address runs out of ports.
pub async fn open_many(server: SocketAddr, connections: usize) -> Vec<TcpStream> {
    let mut open = Vec::with_capacity(connections);
    for number in 0..connections {
        let from = Ipv4Addr::new(127, 0, 1, (number / 1000 + 1) as u8);
        let socket = TcpSocket::new_v4().expect("a socket");
        socket
            .bind(SocketAddr::new(IpAddr::V4(from), 0))
            .expect("every address 127.x.y.z is ours");
        let mut stream = socket
            .connect(server)
            .await
            .expect("the daemon takes a connection");
        let mut greeting = [0; 4];
        stream.read_exact(&mut greeting).await.expect("a greeting");
        assert_eq!(&greeting, b"220 ");
        open.push(stream);
    }
    open
}

/// A message of 100 MB on its way into a Maildir.
fn large_message() -> Vec<String> {
    let server = Server::start("loglevel = \"notice\"\n[limits]\nmax_size = \"200MB\"\n");
    let mut client = Client::greet(server.address());
    // Once a small one, so that what any message needs is there.
    assert!(client.deliver(b"Subject: small\r\n\r\n").starts_with("250"));
    let before = memory(&server, "VmRSS");
    forget_peak(&server);
    client.open_message();
    client.send(b"Subject: large\r\n\r\n");
    let line = [&[b'x'; 76][..], b"\r\n"].concat();
    let block = line.repeat(1 << 10);
    for _ in 0..LARGE.div_ceil(block.len()) {
        client.send(&block);
    }
    client.send(b".\r\n");
    client.expect("250");
    let then = memory(&server, "VmHWM");
    let target = Target::AtMost(16.0).verdict((then - before) / MB);
    row(
        "one message of 100 MB, the peak",
        before,
        then,
        Some(target),
    )
}

fn row(name: &str, before: f64, then: f64, target: Option<String>) -> Vec<String> {
    vec![
        name.to_owned(),
        format!("{:.1} MB", before / MB),
        format!("{:.1} MB", then / MB),
        format!("{:.1} MB", (then - before) / MB),
        target
            .map(|target| target.replacen(',', " MB,", 1))
            .unwrap_or_default(),
    ]
}

/// A line of /proc/PID/status, in KB.
pub fn memory(server: &Server, key: &str) -> f64 {
    let mut status = String::new();
    std::fs::File::open(format!("/proc/{}/status", server.pid()))
        .and_then(|mut file| file.read_to_string(&mut status))
        .expect("the daemon runs");
    status
        .lines()
        .find_map(|line| {
            line.strip_prefix(key)?
                .strip_prefix(':')?
                .split_whitespace()
                .next()
        })
        .and_then(|number| number.parse().ok())
        .expect("the kernel says how much memory a process has")
}

/// Lets the peak begin again (proc(5), clear_refs).
pub fn forget_peak(server: &Server) {
    std::fs::write(format!("/proc/{}/clear_refs", server.pid()), "5")
        .expect("the daemon's process is ours");
}
