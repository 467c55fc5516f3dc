//! What ten thousand connections of slow clients cost the others.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use gatepost_tests::server::Server;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::load::LOADS;
use crate::memory::{open_many, raise_descriptors};
use crate::rounds::{interleaved, median, ratios, spread};
use crate::table::{Table, Target};
use crate::{Effort, Tables};

const SERVER: &str = "
loglevel = \"notice\"

[limits]
max_connections = 20000
max_connections_per_ip = 20000
max_transactions = 1000000

[[plugin]]
name = \"rcpt_ok\"

[[plugin]]
name = \"queue/discard\"
";

/// Each slow client sends a byte of its command in this time.
const PERIOD: Duration = Duration::from_secs(10);

/// Slow clients, as long as it lives.
struct Slow {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Slow {
    fn hold(server: &Server, connections: usize) -> Slow {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        let mut open = runtime.block_on(open_many(server.address(), connections));
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                runtime.block_on(trickle(&mut open, &stopped));
            }
        });
        Slow {
            stop,
            thread: Some(thread),
        }
    }
}

/// A byte from each of them.
async fn trickle(open: &mut [TcpStream], stopped: &AtomicBool) {
    let part = open.len().div_ceil(100).max(1);
    for some in open.chunks_mut(part) {
        if stopped.load(Ordering::Relaxed) {
            return;
        }
        for stream in some {
            stream
                .write_all(b"N")
                .await
                .expect("the daemon still listens");
        }
        tokio::time::sleep(PERIOD / 100).await;
    }
}

impl Drop for Slow {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It panics where the daemon cut a slow client off, which the ratio would not show.
            thread
                .join()
                .expect("the slow clients were held to the end");
        }
    }
}

pub fn clients(effort: &Effort) -> Tables {
    let connections = raise_descriptors(effort.connections);
    let alone = Server::start(SERVER);
    let shared = Server::start(SERVER);
    let _slow = Slow::hold(&shared, connections);
    let title =
        format!("With {connections} connections of slow clients, a byte each in ten seconds");
    let columns = ["", "without them", "with them", "ratio", "to reach"];
    let mut table = Table::new(&title, &columns);
    for load in LOADS.iter().filter(|load| load.name != "c") {
        let figures = interleaved(effort.rounds, 2, |subject| {
            let server = [&alone, &shared][subject];
            load.run(server.address(), effort.divisor)
        });
        let ratios = ratios(&figures[1], &figures[0]);
        table.rows.push(vec![
            format!("{}: {}", load.name, load.about),
            format!("{:.0}/s", median(&figures[0])),
            format!("{:.0}/s", median(&figures[1])),
            spread(&ratios),
            Target::AtLeast(0.9).verdict(median(&ratios)),
        ]);
    }
    vec![table]
}
