//! Perl plugins of qpsmtpd, in Gatepost and in Debian's own qpsmtpd-prefork.

use gatepost_tests::server::Server;

use crate::load::{LOADS, Load};
use crate::peers::qpsmtpd::Prefork;
use crate::peers::{Server as _, not_measured};
use crate::rounds::{interleaved, median, ratios, spread};
use crate::table::{Table, Target};
use crate::{Effort, Tables};

/// Of the plugin that has nothing to say, under both.
const COPIES: usize = 10;
/// Processes for sessions, under both: qpsmtpd's own default.
const WORKERS: usize = 15;
/// At a hundred or two messages a second, this part of a load is long enough.
const PART: usize = 10;

/// Messages per second with ten plugins on every hook, and the ratio to the peer: with as many workers as the peer has processes, where each session has
/// one of its own until there are more sessions, and with as many as there are processors, which sessions share.
pub fn same_plugins(effort: &Effort) -> Tables {
    let lines: Vec<String> = lines().collect();
    let peer = Prefork::start(&lines, WORKERS).map_err(|why| not_measured("qpsmtpd", &why));
    let few = std::thread::available_parallelism().map_or(2, |number| number.get());
    let own: Vec<(usize, Server)> = [WORKERS, few]
        .map(|workers| (workers, Server::start(&gatepost(workers))))
        .into();
    let at_2_kb = LOADS.iter().filter(|load| load.name != "c");
    at_2_kb
        .map(|load| {
            let run = |address| load.run(address, effort.divisor * PART);
            let figures = interleaved(effort.rounds, 1 + own.len(), |subject| {
                match (subject.checked_sub(1), &peer) {
                    (Some(at), _) => run(own[at].1.address()),
                    (None, Ok(peer)) => run(peer.address()),
                    (None, Err(_)) => f64::NAN,
                }
            });
            let workers: Vec<usize> = own.iter().map(|(workers, _)| *workers).collect();
            table(load, &figures, &workers, peer.as_ref().err())
        })
        .collect()
}

fn table(load: &Load, figures: &[Vec<f64>], workers: &[usize], no_peer: Option<&String>) -> Table {
    let title = format!(
        "{}: {}; {COPIES} Perl plugins on every hook, accepted and dropped",
        load.name, load.about
    );
    let mut table = Table::new(&title, &["", "messages/s", "of qpsmtpd", "to reach"]);
    let rate = |figures: &[f64]| format!("{:.0}", median(figures));
    let peer = &figures[0];
    let peer_rate = no_peer.cloned().unwrap_or_else(|| rate(peer));
    let none = String::new;
    table.rows = vec![vec![
        format!("qpsmtpd-prefork, {WORKERS} processes"),
        peer_rate,
        none(),
        none(),
    ]];
    table
        .rows
        .extend(workers.iter().zip(&figures[1..]).map(|(workers, own)| {
            let ratios = ratios(own, peer);
            let (over, verdict) = match no_peer {
                Some(_) => (none(), none()),
                None => (
                    spread(&ratios),
                    Target::AtLeast(5.0).verdict(median(&ratios)),
                ),
            };
            vec![
                format!("Gatepost, {workers} workers"),
                rate(own),
                over,
                verdict,
            ]
        }));
    table
}

/// The lines of `config/plugins`, in order.
fn lines() -> impl Iterator<Item = String> {
    let idle = (0..COPIES).map(|number| format!("idle:{number}"));
    idle.chain(["nowhere".to_owned()])
}

fn gatepost(workers: usize) -> String {
    let head = "
loglevel = \"notice\"

[limits]
max_connections_per_ip = 1000
max_transactions = 1000000
";
    let plugins = lines().map(|line| {
        format!(
            "
[[plugin]]
qpsmtpd = \"{line}\"
plugin_dirs = [\"$ROOT/tests/plugins/qpsmtpd\"]
workers = {{ min = {workers}, max = {workers} }}
"
        )
    });
    std::iter::once(head.to_owned()).chain(plugins).collect()
}
