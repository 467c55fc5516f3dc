//! A large message by DATA and by BDAT (RFC 3030): time, and the daemon's peak of memory. The client is ours: no tool of Postfix's speaks BDAT.

use std::time::Instant;

use gatepost_tests::server::Server;
use gatepost_tests::smtp::Client;

use crate::memory::{MB, forget_peak, memory};
use crate::rounds::{interleaved, median, ratios, spread};
use crate::table::{Table, Target};
use crate::{Effort, Tables};

/// The message, about 100 MB of lines.
const BLOCKS: usize = 1344;
const LINES: usize = 1 << 10;

const HEAD: &str = "
loglevel = \"notice\"

[limits]
max_size = \"200MB\"
max_transactions = 1000

[[plugin]]
name = \"rcpt_ok\"

[[plugin]]
name = \"queue/discard\"
";

/// A way to send it.
struct Way {
    name: &'static str,
    /// Blocks of a chunk; none with DATA.
    chunk: Option<usize>,
}

const WAYS: [Way; 3] = [
    Way {
        name: "DATA",
        chunk: None,
    },
    Way {
        name: "BDAT, one chunk",
        chunk: Some(BLOCKS),
    },
    Way {
        name: "BDAT, chunks of 1 MB, each answered before the next",
        chunk: Some(14),
    },
];

pub fn large_message(effort: &Effort) -> Tables {
    let line = [&[b'x'; 76][..], b"\r\n"].concat();
    let block = line.repeat(LINES);
    let server = Server::start(HEAD);
    let mut client = Client::greet(server.address());
    let mut peaks = [const { Vec::new() }; WAYS.len()];
    // Once a small one, so that what any message needs is there.
    assert!(client.deliver(b"Subject: small\r\n\r\n").starts_with("250"));
    let before = memory(&server, "VmRSS");
    let seconds = interleaved(effort.rounds, WAYS.len(), |way| {
        forget_peak(&server);
        let started = Instant::now();
        send(&mut client, &block, WAYS[way].chunk);
        let seconds = started.elapsed().as_secs_f64();
        peaks[way].push(memory(&server, "VmHWM") - before);
        seconds
    });
    let mut table = Table::new(
        "A message of 100 MB into the spool, and dropped",
        &["", "seconds", "DATA's time over it", "peak", "to reach"],
    );
    for (at, way) in WAYS.iter().enumerate() {
        let faster = ratios(&seconds[0], &seconds[at]);
        let target = match way.chunk {
            Some(BLOCKS) => Target::AtLeast(1.0).verdict(median(&faster)),
            _ => String::new(),
        };
        table.rows.push(vec![
            way.name.to_owned(),
            format!("{:.2}", median(&seconds[at])),
            spread(&faster),
            format!("{:+.1} MB", median(&peaks[at]) / MB),
            target,
        ]);
    }
    vec![table]
}

fn send(client: &mut Client, block: &[u8], chunk: Option<usize>) {
    const HEADER: &[u8] = b"Subject: large\r\n\r\n";
    let Some(chunk) = chunk else {
        client.open_message();
        client.send(HEADER);
        (0..BLOCKS).for_each(|_| client.send(block));
        client.send(b".\r\n");
        client.expect("250");
        return;
    };
    client.ask("MAIL FROM:<alice@client.example>", "250");
    client.ask("RCPT TO:<bob@example.org>", "250");
    client.send(format!("BDAT {}\r\n", HEADER.len()).as_bytes());
    client.send(HEADER);
    client.expect("250");
    for begun in (0..BLOCKS).step_by(chunk) {
        let is_last = begun + chunk >= BLOCKS;
        let last = if is_last { " LAST" } else { "" };
        let blocks = chunk.min(BLOCKS - begun);
        client.send(format!("BDAT {}{last}\r\n", blocks * block.len()).as_bytes());
        (0..blocks).for_each(|_| client.send(block));
        client.expect("250");
    }
}
