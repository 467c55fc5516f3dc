use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use gatepost_protocol::testing::FakeServices;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use super::*;
use crate::chain::Chain;
use crate::message::Spool;
use crate::outbox::Outbox;

struct Daemon {
    address: SocketAddr,
    stop: CancellationToken,
    over: JoinHandle<()>,
    _spool: TempDir,
}

fn config(spool: &TempDir, addr: &str) -> Config {
    let mut config = crate::message::spool::tests::config(spool.path(), 0, 0);
    config.listen = vec![Listen::at(addr.parse().unwrap())];
    config
}

fn start(max_connections: usize, max_connections_per_ip: usize) -> Daemon {
    let spool = tempfile::tempdir().unwrap();
    let mut config = config(&spool, "127.0.0.1:0");
    config.limits.max_connections = max_connections;
    config.limits.max_connections_per_ip = max_connections_per_ip;
    let stop = CancellationToken::new();
    let listeners = Listeners::new(Inherited::default(), stop.clone());
    let bindings = listeners.bind(&config).unwrap();
    let Address::Tcp(address) = bindings.0[0].address else {
        panic!("it is TCP")
    };
    let outbox = Outbox::open(&config).unwrap();
    let shared = Arc::new(Shared {
        spool: Arc::new(Spool::open(&config).unwrap()),
        services: Arc::new(FakeServices::default()),
        chain: Arc::new(Chain::new(Vec::new())),
        store: Some(outbox.store().clone()),
        outbox: Some(outbox),
        journal: None,
        apart: Arc::default(),
        config: Arc::new(config),
    });
    listeners.serve(Service::new(shared, None), bindings);
    Daemon {
        address,
        over: tokio::spawn(async move { listeners.run().await }),
        stop,
        _spool: spool,
    }
}

type Replies = Lines<BufReader<TcpStream>>;

/// Connects, and gives the first line.
async fn connect(daemon: &Daemon) -> (Replies, String) {
    let stream = TcpStream::connect(daemon.address).await.unwrap();
    let mut replies = BufReader::new(stream).lines();
    let first = next(&mut replies).await;
    (replies, first)
}

async fn next(replies: &mut Replies) -> String {
    let line = tokio::time::timeout(Duration::from_secs(20), replies.next_line());
    line.await.unwrap().unwrap().unwrap_or_default()
}

#[tokio::test]
async fn clients_beyond_the_limits_are_told_so_and_slots_come_back() {
    for (max, max_per_ip, reason) in [
        (2, 10, "421 4.7.0 Too many connections;"),
        (10, 2, "421 4.7.0 Too many connections from"),
    ] {
        let daemon = start(max, max_per_ip);
        let (mut one, first) = connect(&daemon).await;
        assert!(first.starts_with("220 "), "{first}");
        let (_two, _) = connect(&daemon).await;
        let (mut three, first) = connect(&daemon).await;
        assert!(first.starts_with(reason), "{first}");
        assert_eq!(next(&mut three).await, "");
        one.get_mut().write_all(b"QUIT\r\n").await.unwrap();
        next(&mut one).await;
        assert_eq!(next(&mut one).await, "");
        // The slot is free a moment after the connection is closed.
        let deadline = std::time::Instant::now() + Duration::from_secs(20);
        while !connect(&daemon).await.1.starts_with("220 ") {
            assert!(std::time::Instant::now() < deadline);
        }
    }
}

#[tokio::test]
async fn a_stop_closes_the_door_and_tells_who_is_idle() {
    let daemon = start(10, 10);
    let (mut idle, _) = connect(&daemon).await;
    daemon.stop.cancel();
    assert!(next(&mut idle).await.starts_with("421 4.3.2"));
    drop(idle);
    tokio::time::timeout(Duration::from_secs(20), daemon.over)
        .await
        .unwrap()
        .unwrap();
    assert!(TcpStream::connect(daemon.address).await.is_err());
}

#[tokio::test]
async fn an_address_that_cannot_be_had_is_named_with_what_to_do() {
    let daemon = start(1, 1);
    let spool = tempfile::tempdir().unwrap();
    for (addr, hint) in [
        (daemon.address.to_string().as_str(), "`ss -ltnp`"),
        ("192.0.2.1:2525", "`ip address`"),
    ] {
        let error = Listeners::new(Inherited::default(), CancellationToken::new())
            .bind(&config(&spool, addr))
            .err()
            .unwrap()
            .to_string();
        assert!(
            error.starts_with(&format!("cannot listen on {addr}: ")) && error.contains(hint),
            "{error}"
        );
    }
}
