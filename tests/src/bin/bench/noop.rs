//! What a plugin without effect adds to a transaction, in Gatepost and in its peers: the same server without and with it, in turn.

use crate::load::{ALONE, LOADS, Load};
use crate::peers::gatepost::{GATEPOST, PERL, PYTHON};
use crate::peers::{ALL, Keep, Peer, Server, Wanted, not_measured};
use crate::rounds::median;
use crate::side_by_side::run;
use crate::table::{Table, Target};
use crate::{Effort, Tables};

/// The part of a load that all subjects are given, at most.
const PART: usize = 2;

const SESSIONS: usize = 20;

/// Added microseconds a message, under load and for one client alone.
pub fn added(effort: &Effort) -> Tables {
    let mut peers: Vec<&'static Peer> = vec![&GATEPOST, &PYTHON, &PERL];
    // Two workers run the same plugin in the same way.
    peers.extend(
        ALL.iter()
            .filter(|peer| peer.no_op.is_some() && peer.name != "Haraka, two workers"),
    );
    let pairs: Vec<_> = peers.iter().map(|peer| pair(peer)).collect();
    let mut subjects: Vec<_> = peers.into_iter().zip(pairs).collect();
    [&LOADS[0], &ALONE]
        .map(|load| table(load, &mut subjects, effort))
        .into()
}

/// Without and with the plugin.
type Pair = Result<[Box<dyn Server>; 2], String>;

fn pair(peer: &Peer) -> Pair {
    let start = |no_op| {
        peer.start(Wanted {
            keep: Keep::Nothing,
            no_op,
            sessions: SESSIONS,
        })
    };
    Ok([start(false)?, start(true)?])
}

/// Of each round.
#[derive(Default)]
struct Figures {
    rates: [Vec<f64>; 2],
    /// Microseconds a message.
    time: Vec<f64>,
    /// Microseconds of processor time a message.
    cpu: Vec<f64>,
}

fn table(load: &Load, subjects: &mut [(&'static Peer, Pair)], effort: &Effort) -> Table {
    let mut figures: Vec<_> = subjects.iter().map(|_| Figures::default()).collect();
    for _ in 0..effort.rounds {
        for ((peer, pair), figures) in subjects.iter_mut().zip(&mut figures) {
            let Ok(servers) = pair else { continue };
            let divisor = effort.divisor * PART * peer.part;
            let [without, with] = [0, 1].map(|which| run(load, servers[which].as_ref(), divisor));
            match (without, with) {
                (Ok(without), Ok(with)) => figures.add(without, with),
                (Err(said), _) | (_, Err(said)) => *pair = Err(not_measured(peer.name, &said)),
            }
        }
    }
    let title = format!("What a plugin without effect adds, {}", load.about);
    let columns = [
        "",
        "the plugin",
        "messages/s without",
        "with",
        "added to a message",
        "to reach",
        "processor time added",
    ];
    let mut table = Table::new(&title, &columns);
    let own = subjects[0].1.is_ok().then(|| median(&figures[0].time));
    for ((peer, pair), figures) in subjects.iter().zip(&figures) {
        let mut row = vec![
            peer.name.to_owned(),
            peer.no_op.unwrap_or_default().to_owned(),
        ];
        match pair {
            Ok(_) => {
                let time = median(&figures.time);
                let target = own.filter(|_| peer.name != GATEPOST.name);
                // Gatepost's, which has to be below this one's.
                let target = target.map(|own| {
                    let verdict = Target::AtMost(time.round()).verdict(own.round());
                    format!("Gatepost's {verdict}")
                });
                row.extend([
                    format!("{:.0}", median(&figures.rates[0])),
                    format!("{:.0}", median(&figures.rates[1])),
                    microseconds(&figures.time),
                    target.unwrap_or_default(),
                    microseconds(&figures.cpu),
                ]);
            }
            Err(why) => row.push(why.clone()),
        }
        row.resize(columns.len(), String::new());
        table.rows.push(row);
    }
    table
}

impl Figures {
    fn add(&mut self, without: (f64, f64), with: (f64, f64)) {
        self.rates[0].push(without.0);
        self.rates[1].push(with.0);
        self.time.push(1e6 / with.0 - 1e6 / without.0);
        // Seconds for a thousand are milliseconds for one.
        self.cpu.push((with.1 - without.1) * 1e3);
    }
}

/// The median, the least and the most. Less than nothing is what the rounds differ by.
fn microseconds(figures: &[f64]) -> String {
    let least = figures.iter().copied().fold(f64::INFINITY, f64::min);
    let most = figures.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    format!("{:.0} µs ({least:.0} to {most:.0})", median(figures))
}
