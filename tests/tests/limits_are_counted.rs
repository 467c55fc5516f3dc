//! Every limit that is exceeded is counted under the name of its setting, and the log says how often when the daemon ends.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use gatepost::report::Limit;
use gatepost_tests::programs;
use gatepost_tests::server::Server;
use gatepost_tests::smtp::Client;
use gatepost_tests::wait::PATIENCE;

/// A limit, a configuration that makes it small, and a client that goes beyond it once.
struct Case {
    limit: Limit,
    head: &'static str,
    exceed: fn(SocketAddr),
}

/// Those of the daemon itself, which no client exceeds at will: the tests beside their code count them.
const INSIDE: [Limit; 7] = [
    Limit::PluginDelay,
    Limit::Quarantine,
    Limit::PluginCircuit,
    Limit::PluginRequests,
    Limit::PluginEvents,
    Limit::LogLines,
    Limit::JournalRecords,
];

const PASSWORDS: &str = "[[listen]]\nauth = \"always\"\n[limits]\nmax_auth_failures = 2\n\
    [[plugin]]\nname = \"auth/auth_flat_file\"\n";

const CASES: &[Case] = &[
    Case {
        limit: Limit::Connections,
        head: "[limits]\nmax_connections = 1",
        exceed: second_connection,
    },
    Case {
        limit: Limit::ConnectionsPerIp,
        head: "[limits]\nmax_connections_per_ip = 1",
        exceed: second_connection,
    },
    Case {
        limit: Limit::ConnectionsPerNetwork,
        head: "[limits]\nmax_connections_per_network = 1",
        exceed: second_connection,
    },
    Case {
        limit: Limit::ProxyHeader,
        head: "[[listen]]\nproxy_from = [\"127.0.0.1\"]\n[limits]\ncommand_timeout = \"100ms\"",
        exceed: |address| assert_eq!(all_of(connect(address)), ""),
    },
    Case {
        limit: Limit::TlsHandshake,
        head: "[[listen]]\ntls = \"implicit\"\n[limits]\ncommand_timeout = \"100ms\"",
        exceed: |address| assert_eq!(all_of(connect(address)), ""),
    },
    Case {
        limit: Limit::TlsHandshake,
        head: "[[listen]]\ntls = \"starttls\"\n[limits]\ncommand_timeout = \"1s\"",
        exceed: |address| {
            let mut client = Client::greet(address);
            client.ask("STARTTLS", "220");
            assert_eq!(client.reply(), "");
        },
    },
    Case {
        limit: Limit::HelloTimeout,
        head: "[limits]\nhello_timeout = \"100ms\"",
        exceed: |address| ends(Client::connect(address), "421"),
    },
    Case {
        limit: Limit::CommandTimeout,
        head: "[limits]\ncommand_timeout = \"1s\"",
        exceed: |address| ends(Client::connect(address), "421"),
    },
    Case {
        limit: Limit::StressTimeout,
        head: "[limits]\nmax_connections = 10",
        exceed: |address| {
            let mut clients = Vec::from_iter((0..10).map(|_| Client::connect(address)));
            ends(clients.remove(0), "421 4.3.2");
        },
    },
    Case {
        limit: Limit::UnreadReplies,
        head: "[limits]\ncommand_timeout = \"1s\"\nmax_idle_commands = 1000000",
        exceed: |address| {
            let mut stream = connect(address);
            // Until the daemon, which can write no more replies, hangs up.
            while stream.write_all(&b"HELP\r\n".repeat(1000)).is_ok() {}
        },
    },
    Case {
        limit: Limit::SessionTimeout,
        head: "[limits]\nsession_timeout = \"1s\"",
        exceed: |address| ends(Client::connect(address), "421"),
    },
    Case {
        limit: Limit::CommandLine,
        head: "[limits]\nmax_command_line = 512",
        exceed: |address| {
            Client::greet(address).ask(&"x".repeat(511), "500 5.5.2");
        },
    },
    Case {
        limit: Limit::AuthLine,
        head: PASSWORDS,
        exceed: |address| {
            let mut client = Client::greet(address);
            client.ask("AUTH PLAIN", "334");
            client.ask(&"A".repeat(12289), "500 5.5.6");
        },
    },
    Case {
        limit: Limit::Errors,
        head: "[limits]\nmax_errors = 2",
        exceed: |address| {
            let mut client = Client::greet(address);
            client.ask("DATA", "503");
            client.ask("DATA", "503");
            ends(client, "421");
        },
    },
    Case {
        limit: Limit::AuthFailures,
        head: PASSWORDS,
        exceed: |address| {
            let mut client = Client::greet(address);
            client.ask("AUTH PLAIN AGJvYgAx", "535");
            client.ask("AUTH PLAIN AGJvYgAy", "535");
            ends(client, "421");
        },
    },
    Case {
        limit: Limit::UnknownCommands,
        head: "[limits]\nmax_unknown_commands = 2",
        exceed: |address| {
            let mut client = Client::greet(address);
            client.ask("FROB", "500");
            client.ask("FROB", "500");
            ends(client, "421");
        },
    },
    Case {
        limit: Limit::IdleCommands,
        head: "[limits]\nmax_idle_commands = 2",
        exceed: |address| {
            let mut client = Client::greet(address);
            client.ask("NOOP", "250");
            ends(client, "421");
        },
    },
    Case {
        limit: Limit::Transactions,
        head: "[limits]\nmax_transactions = 1",
        exceed: |address| {
            let mut client = Client::greet(address);
            client.deliver(b"Subject: one\r\n\r\n");
            client.ask("MAIL FROM:<alice@client.example>", "421");
        },
    },
    Case {
        limit: Limit::Recipients,
        head: "[limits]\nmax_recipients = 1",
        exceed: |address| {
            let mut client = Client::greet(address);
            client.ask("MAIL FROM:<alice@client.example>", "250");
            client.ask("RCPT TO:<bob@example.org>", "250");
            client.ask("RCPT TO:<carol@example.org>", "452");
        },
    },
    Case {
        limit: Limit::DataTimeout,
        head: "[limits]\ndata_timeout = \"1s\"",
        exceed: |address| {
            let mut client = Client::greet(address);
            client.open_message();
            ends(client, "421");
        },
    },
    Case {
        limit: Limit::DataRate,
        head: "[limits]\ndata_timeout = \"2s\"\nmin_data_rate = \"1KB\"",
        exceed: |address| {
            let mut client = Client::greet(address);
            client.open_message();
            // What is too slow takes its time: three times half the timeout.
            for _ in 0..3 {
                std::thread::sleep(Duration::from_secs(1));
                client.send(b"x");
            }
            ends(client, "421 4.4.2 Your message comes too slowly");
        },
    },
    Case {
        limit: Limit::Size,
        head: "[limits]\nmax_size = 1000",
        exceed: |address| {
            Client::greet(address).ask("MAIL FROM:<alice@client.example> SIZE=1001", "552");
        },
    },
    Case {
        limit: Limit::Size,
        head: "[limits]\nmax_size = 100",
        exceed: |address| refused(address, &b"0123456789\r\n".repeat(10), "552"),
    },
    Case {
        limit: Limit::Size,
        head: "[limits]\nmax_size = 100",
        exceed: |address| {
            let mut client = Client::greet(address);
            client.ask("MAIL FROM:<alice@client.example>", "250");
            client.ask("RCPT TO:<bob@example.org>", "250");
            client.send(b"BDAT 101 LAST\r\n");
            client.send(&[b'x'; 101]);
            client.expect("552");
        },
    },
    Case {
        limit: Limit::MessageMemory,
        head: "[limits]\nmemory_per_message = \"64KB\"\nmemory_for_messages = \"8KB\"",
        exceed: |address| {
            let message = b"this line is thirty-two bytes.\r\n".repeat(1000);
            refused(address, &message, "250");
        },
    },
    Case {
        limit: Limit::DataLine,
        head: "[limits]\nmax_data_line = 1000",
        exceed: |address| {
            let line = [b"\r\n", &[b'x'; 999][..], b"\r\n"].concat();
            refused(address, &line, "554");
        },
    },
    Case {
        limit: Limit::Header,
        head: "[limits]\nmax_header = 1000",
        exceed: |address| refused(address, &b"A: b\r\n".repeat(200), "552"),
    },
    Case {
        limit: Limit::HeaderFields,
        head: "[limits]\nmax_header_fields = 1",
        exceed: |address| refused(address, b"A: b\r\nC: d\r\n\r\n", "552"),
    },
    Case {
        limit: Limit::ReceivedFields,
        head: "",
        exceed: |address| refused(address, &b"Received: x\r\n".repeat(101), "554"),
    },
];

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("the daemon takes a connection");
    for set in [TcpStream::set_read_timeout, TcpStream::set_write_timeout] {
        set(&stream, Some(PATIENCE)).expect("a time limit can be set");
    }
    stream
}

/// What the daemon says up to the end.
fn all_of(mut stream: TcpStream) -> String {
    let mut said = String::new();
    stream.read_to_string(&mut said).expect("it hangs up");
    said
}

fn second_connection(address: SocketAddr) {
    let first = Client::connect(address);
    let said = all_of(connect(address));
    assert!(said.starts_with("421 "), "{said:?}");
    drop(first);
}

/// The daemon's last word, and its end.
fn ends(mut client: Client, code: &str) {
    client.expect(code);
    assert_eq!(client.reply(), "");
}

fn refused(address: SocketAddr, message: &[u8], code: &str) {
    let reply = Client::greet(address).deliver(message);
    assert!(reply.starts_with(code), "{reply:?}");
}

/// What the log says of limits at the end of a daemon whose client goes beyond this one.
fn told(case: &Case) -> Vec<String> {
    let mut server = Server::start(case.head);
    (case.exceed)(server.address());
    assert!(server.stop().success());
    let told = |line: String| {
        line.split_once(" - limits: ")
            .map(|(_, told)| told.to_owned())
    };
    server.log().into_iter().filter_map(told).collect()
}

#[test]
fn each_is_counted_once_and_no_other_with_it() {
    std::thread::scope(|scope| {
        for case in CASES {
            scope.spawn(move || {
                let name = case.limit.name();
                assert_eq!(told(case), [format!("{name} 1")], "{}", case.head);
            });
        }
    });
}

#[test]
fn who_keeps_within_them_is_in_no_line() {
    let mut server = Server::start("");
    Client::greet(server.address()).deliver(b"Subject: x\r\n\r\n");
    assert!(server.stop().success());
    assert!(!server.log().iter().any(|line| line.contains("limits: ")));
}

#[test]
fn each_has_a_case_here_and_a_place_in_the_manual() {
    let manual = programs::root().join("docs/configuration.md");
    let manual = std::fs::read_to_string(manual).unwrap();
    for limit in Limit::ALL {
        let has_case = CASES.iter().any(|case| case.limit == limit);
        assert!(has_case || INSIDE.contains(&limit), "{limit:?}");
        assert!(manual.contains(&format!("`{}`", limit.name())), "{limit:?}");
    }
}
