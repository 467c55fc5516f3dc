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

/// Messages per second with ten plugins on every hook, and the ratio of the two.
pub fn same_plugins(effort: &Effort) -> Tables {
    let lines: Vec<String> = lines().collect();
    let peer = Prefork::start(&lines, WORKERS).map_err(|why| not_measured("qpsmtpd", &why));
    let gatepost = Server::start(&gatepost());
    let at_2_kb = LOADS.iter().filter(|load| load.name != "c");
    at_2_kb
        .map(|load| {
            let figures = interleaved(effort.rounds, 2, |subject| match (subject, &peer) {
                (0, _) => load.run(gatepost.address(), effort.divisor * PART),
                (_, Ok(peer)) => load.run(peer.address(), effort.divisor * PART),
                (_, Err(_)) => f64::NAN,
            });
            table(load, &figures, peer.as_ref().err())
        })
        .collect()
}

fn table(load: &Load, figures: &[Vec<f64>], no_peer: Option<&String>) -> Table {
    let title = format!(
        "{}: {}; {COPIES} Perl plugins on every hook, {WORKERS} workers, accepted and dropped",
        load.name, load.about
    );
    let mut table = Table::new(&title, &["", "messages/s", "of qpsmtpd", "to reach"]);
    let (own, peer) = (&figures[0], &figures[1]);
    let rate = |figures: &[f64]| format!("{:.0}", median(figures));
    let (peer_rate, over, target) = match no_peer {
        Some(why) => (why.clone(), String::new(), String::new()),
        None => {
            let ratios = ratios(own, peer);
            let verdict = Target::AtLeast(5.0).verdict(median(&ratios));
            (rate(peer), spread(&ratios), verdict)
        }
    };
    let none = String::new;
    table.rows = vec![
        vec!["qpsmtpd-prefork".to_owned(), peer_rate, none(), none()],
        vec!["Gatepost".to_owned(), rate(own), over, target],
    ];
    table
}

/// The lines of `config/plugins`, in order.
fn lines() -> impl Iterator<Item = String> {
    let idle = (0..COPIES).map(|number| format!("idle:{number}"));
    idle.chain(["nowhere".to_owned()])
}

fn gatepost() -> String {
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
workers = {{ min = {WORKERS}, max = {WORKERS} }}
"
        )
    });
    std::iter::once(head.to_owned()).chain(plugins).collect()
}
