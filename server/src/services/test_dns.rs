//! DNS servers for tests, in this process and on loopback.

use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::Name;
use hickory_resolver::proto::serialize::txt::Parser;
use hickory_server::Server;
use hickory_server::store::in_memory::InMemoryZoneHandler;
use hickory_server::zone_handler::{AxfrPolicy, Catalog, ZoneType};
use tokio::net::{TcpListener, UdpSocket};

use super::DnsConfig;

/// A server for zones that are given as text. It refuses questions about other names.
pub struct TestDns {
    config: DnsConfig,
    _server: Server<Catalog>,
}

impl TestDns {
    /// Serves zones: origin and records. The SOA record is added.
    pub async fn start(zones: &[(&str, &str)]) -> TestDns {
        let mut catalog = Catalog::new();
        for (origin, text) in zones {
            let name = Name::from_ascii(origin).unwrap();
            let text = format!("$TTL 60\n@ IN SOA ns admin 1 3600 600 86400 60\n{text}");
            let (name, records) = Parser::new(text, None, Some(name)).parse().unwrap();
            let zone = InMemoryZoneHandler::<TokioRuntimeProvider>::new(
                name.clone(),
                records,
                ZoneType::Primary,
                AxfrPolicy::Deny,
            )
            .unwrap();
            catalog.upsert(name.into(), vec![Arc::new(zone)]);
        }
        let (udp, tcp) = both_transports().await;
        let address = udp.local_addr().unwrap();
        let mut server = Server::new(catalog);
        server.register_socket(udp);
        server.register_listener(tcp, Duration::from_secs(5), 32);
        TestDns {
            config: config(address),
            _server: server,
        }
    }

    /// How to ask it.
    pub fn config(&self) -> DnsConfig {
        self.config.clone()
    }
}

/// A server that answers every question with SERVFAIL.
pub async fn servfail() -> DnsConfig {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut packet = [0; 512];
        while let Ok((length, from)) = socket.recv_from(&mut packet).await {
            packet[2] |= 0x80;
            packet[3] = 2;
            let _ = socket.send_to(&packet[..length], from).await;
        }
    });
    config(address)
}

/// A port that takes questions and answers none.
pub async fn dead() -> DnsConfig {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let _open = socket;
        std::future::pending::<()>().await;
    });
    DnsConfig {
        timeout: Duration::from_millis(200),
        ..config(address)
    }
}

fn config(address: std::net::SocketAddr) -> DnsConfig {
    DnsConfig {
        server: Some(address),
        timeout: Duration::from_secs(5),
    }
}

/// A port that is free for both transports.
async fn both_transports() -> (UdpSocket, TcpListener) {
    for _ in 0..100 {
        let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        if let Ok(tcp) = TcpListener::bind(udp.local_addr().unwrap()).await {
            return (udp, tcp);
        }
    }
    panic!("no port is free for UDP and TCP");
}
