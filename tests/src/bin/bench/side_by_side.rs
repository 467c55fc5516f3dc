//! Gatepost and its peers with the same messages and the same load: what each reaches, and what it takes.

use crate::load::{LOADS, Load};
use crate::peers::gatepost::GATEPOST;
use crate::peers::sink::YARDSTICK;
use crate::peers::{ALL, Keep, Peer, Server, Wanted, not_measured, processes};
use crate::plot::{Panel, Plot};
use crate::rounds::{interleaved, median, ratios, spread};
use crate::table::{Table, Target};
use crate::{Effort, Tables};

/// As many sessions as a load has at once.
const SESSIONS: usize = 20;

/// The part of a load that all subjects are given, at most.
const PART: usize = 2;

/// Tables of every load, accepted and dropped, and a plot of them.
pub fn dropped(effort: &Effort) -> Tables {
    tables(
        &comparison(Keep::Nothing, effort),
        "performance-peers.svg",
        "Messages per second and processor time of Gatepost's peers, which drop what they get, of Gatepost's",
    )
}

/// The same with messages kept on disk.
pub fn kept(effort: &Effort) -> Tables {
    tables(
        &comparison(Keep::Messages, effort),
        "performance-peers-kept.svg",
        "Messages per second and processor time of Gatepost's peers, which keep what they get, of Gatepost's",
    )
}

fn tables(loads: &[Figures], file: &'static str, about: &'static str) -> Tables {
    let mut tables: Tables = loads.iter().map(table).collect();
    if let Some(last) = tables.last_mut() {
        last.plot = Some(Plot {
            file,
            about,
            panels: loads.iter().map(panel).collect(),
        });
    }
    tables
}

/// One load's figures of all subjects.
struct Figures {
    load: &'static Load,
    keep: Keep,
    subjects: Vec<Subject>,
}

/// Gatepost is the first.
const OWN: usize = 0;

struct Subject {
    peer: &'static Peer,
    measured: Result<Measured, String>,
}

/// Round by round.
#[derive(Default)]
struct Measured {
    /// Messages per second.
    rate: Vec<f64>,
    /// Seconds of processor time for a thousand messages.
    cpu: Vec<f64>,
}

/// Every load with this kind of keeping. What is kept is measured at 2 KB: at 1 MB it is the disk that is measured.
fn comparison(keep: Keep, effort: &Effort) -> Vec<Figures> {
    let mut peers: Vec<&'static Peer> = vec![&GATEPOST];
    match keep {
        Keep::Nothing => peers.push(&YARDSTICK),
        Keep::Messages => peers.retain(|peer| peer.kept.is_some()),
    }
    peers.extend(ALL);
    let wanted = Wanted {
        keep,
        no_op: false,
        sessions: SESSIONS,
    };
    let mut servers: Vec<_> = peers.iter().map(|peer| peer.start(wanted)).collect();
    let loads = LOADS
        .iter()
        .filter(|load| keep == Keep::Nothing || load.name != "c");
    loads
        .map(|load| measure(load, keep, &peers, &mut servers, effort))
        .collect()
}

type Started = Result<Box<dyn Server>, String>;

/// Rounds of one load. Who does not take a message is out from there on.
fn measure(
    load: &'static Load,
    keep: Keep,
    peers: &[&'static Peer],
    servers: &mut [Started],
    effort: &Effort,
) -> Figures {
    let mut cpu = vec![Vec::new(); peers.len()];
    let rates = interleaved(effort.rounds, peers.len(), |subject| {
        let divisor = effort.divisor * PART * peers[subject].part;
        let Ok(server) = &servers[subject] else {
            return f64::NAN;
        };
        match run(load, server.as_ref(), divisor) {
            Ok((rate, seconds)) => {
                cpu[subject].push(seconds);
                rate
            }
            Err(said) => {
                let why = not_measured(peers[subject].name, &said);
                servers[subject] = Err(why);
                f64::NAN
            }
        }
    });
    let measured = rates.into_iter().zip(cpu).zip(servers.iter());
    let subjects = measured
        .zip(peers)
        .map(|(((rate, cpu), server), &peer)| Subject {
            peer,
            measured: match server {
                Ok(_) => Ok(Measured { rate, cpu }),
                Err(why) => Err(why.clone()),
            },
        })
        .collect();
    Figures {
        load,
        keep,
        subjects,
    }
}

/// Messages per second, and seconds of the server's processor time for a thousand of them.
pub fn run(load: &Load, server: &dyn Server, divisor: usize) -> Result<(f64, f64), String> {
    let roots = server.roots();
    let before = processes::cpu(&roots);
    let rate = load.try_run(server.address(), divisor)?;
    let seconds = processes::cpu(&roots) - before;
    server.forget();
    Ok((rate, seconds * 1000.0 / load.messages(divisor) as f64))
}

fn table(figures: &Figures) -> Table {
    let load = figures.load;
    let how = match figures.keep {
        Keep::Nothing => "accepted and dropped",
        Keep::Messages => "on disk before 250",
    };
    let title = format!("Peers, {}: {}; {how}", load.name, load.about);
    let columns = match figures.keep {
        Keep::Nothing => ["", "messages/s", "of smtp-sink"],
        Keep::Messages => ["", "messages/s", "kept where, and what is synced"],
    };
    let mut columns = columns.to_vec();
    columns.extend([
        "Gatepost's over it",
        "to reach",
        "CPU s per 1000",
        "of Gatepost's",
        "to reach",
    ]);
    let mut table = Table::new(&title, &columns);
    let own = figures.subjects[OWN].measured.as_ref();
    let sink = figures
        .subjects
        .iter()
        .find(|subject| subject.is_yardstick());
    let sink = sink.and_then(|sink| sink.measured.as_ref().ok());
    for (index, subject) in figures.subjects.iter().enumerate() {
        let measured = match (&subject.measured, own) {
            (Ok(measured), Ok(own)) => (measured, own),
            (Err(why), _) | (_, Err(why)) => {
                let mut row = vec![subject.peer.name.to_owned(), why.clone()];
                row.resize(columns.len(), String::new());
                table.rows.push(row);
                continue;
            }
        };
        let (measured, own) = measured;
        let of_sink = sink.map(|sink| ratios(&measured.rate, &sink.rate));
        let over = ratios(&own.rate, &measured.rate);
        let cpu = ratios(&measured.cpu, &own.cpu);
        let (rate_target, cpu_target) = match (&of_sink, index) {
            (Some(of_sink), OWN) => {
                // Of smtp-sink's rate.
                let least = if load.name == "c" { 8.0 } else { 1.0 };
                let target = Target::AtLeast(least).verdict(median(of_sink));
                (format!("{target} (smtp-sink)"), String::new())
            }
            _ if index == OWN || subject.is_yardstick() => Default::default(),
            _ => {
                let least = match figures.keep {
                    Keep::Messages if subject.peer.name == "Postfix" => 3.0,
                    _ => 1.0,
                };
                (
                    Target::AtLeast(least).verdict(median(&over)),
                    Target::AtLeast(1.0).verdict(median(&cpu)),
                )
            }
        };
        table.rows.push(vec![
            subject.peer.name.to_owned(),
            format!("{:.0}", median(&measured.rate)),
            match of_sink {
                Some(of_sink) => spread(&of_sink),
                None => subject.peer.kept.unwrap_or_default().to_owned(),
            },
            spread(&over),
            rate_target,
            format!("{:.3}", median(&measured.cpu)),
            spread(&cpu),
            cpu_target,
        ]);
    }
    table
}

impl Subject {
    fn is_yardstick(&self) -> bool {
        std::ptr::eq(self.peer, &YARDSTICK)
    }
}

fn panel(figures: &Figures) -> Panel {
    let load = figures.load;
    let how = match figures.keep {
        Keep::Nothing => "dropped",
        Keep::Messages => "kept on disk",
    };
    let own = figures.subjects[OWN].measured.as_ref();
    let bars = figures.subjects.iter().map(|subject| {
        let relative = match (&subject.measured, own) {
            (Ok(measured), Ok(own)) => Some((
                median(&ratios(&measured.rate, &own.rate)),
                median(&ratios(&measured.cpu, &own.cpu)),
            )),
            _ => None,
        };
        (subject.peer.name, relative)
    });
    Panel {
        title: format!("{}; {how}", load.about),
        bars: bars.collect(),
    }
}
