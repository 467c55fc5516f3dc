//! Messages per second: through the chain into nothing, and safely to disk.

use std::sync::Arc;

use gatepost_tests::postfix::Postfix;
use gatepost_tests::server::Server;

use crate::disk::{Folder, write_and_sync};
use crate::load::{LOADS, Load, Sink};
use crate::plain_sink;
use crate::rounds::{interleaved, median, ratios, spread};
use crate::table::{Table, Target};
use crate::{Effort, Tables};

/// Nothing but accepting the recipient and the message; the log keeps to what is wrong, since the sink has none.
pub const BARE: &str = "
loglevel = \"notice\"

[limits]
max_connections_per_ip = 1000
max_transactions = 1000000

[[plugin]]
name = \"rcpt_ok\"
";

pub const DISCARD: &str = "
[[plugin]]
name = \"queue/discard\"
";

pub const MAILDIR: &str = "
[[plugin]]
name = \"queue/maildir\"
";

/// A child plugin by its language; `name` tells several in one process apart.
pub fn child(language: &str, name: &str) -> String {
    let run = match language {
        "Rust" => "run = [\"$BIN/bench-plugin\"]",
        "Python" => {
            "run = [\"python3\", \"$ROOT/tests/plugins/bench.py\"]\nenv = { PYTHONPATH = \"$ROOT/sdk-python/src\" }"
        }
        _ => {
            "run = [\"perl\", \"$ROOT/sdk-perl/bin/gatepost-perl\"]\nsource = \"$ROOT/tests/plugins/bench.pl\""
        }
    };
    format!("\n[[plugin]]\nname = \"{name}\"\n{run}\n")
}

/// A subject that drops what it gets.
struct Dropping {
    name: String,
    server: Server,
    /// Of the sink's rate for loads a, b and c, or of the rate without plugins for all.
    over_sink: [Option<f64>; 3],
    over_bare: Option<f64>,
}

impl Dropping {
    fn start(name: &str, plugins: &str) -> Dropping {
        Dropping {
            name: name.to_owned(),
            server: Server::start(&format!("{BARE}{plugins}{DISCARD}")),
            over_sink: [None; 3],
            over_bare: None,
        }
    }
}

/// Accepting and dropping, beside smtp-sink, with and without child plugins; for large messages also beside a sink that does nothing but read.
pub fn discard(effort: &Effort) -> Tables {
    let sink = Sink::start();
    let plain = plain_sink::start(None);
    let mut subjects = vec![Dropping::start("no child plugin", "")];
    subjects[0].over_sink = [Some(0.9), Some(0.9), Some(5.0)];
    for (language, target) in [("Rust", 0.6), ("Python", 0.35), ("Perl", 0.35)] {
        let name = format!("{language} plugin on five hooks");
        let mut subject = Dropping::start(&name, &child(language, "bench"));
        subject.over_bare = Some(target);
        subjects.push(subject);
    }
    let many: String = (1..=20)
        .map(|number| child("Perl", &format!("bench{number}")))
        .collect();
    subjects.push(Dropping::start(
        "20 Perl plugins on five hooks, one process",
        &many,
    ));
    let measured = LOADS.iter().enumerate();
    measured
        .map(|(load_index, load)| {
            let mut addresses = vec![sink.address];
            addresses.extend(subjects.iter().map(|subject| subject.server.address()));
            if load.name == "c" {
                addresses.push(plain);
            }
            let figures = interleaved(effort.rounds, addresses.len(), |subject| {
                load.run(addresses[subject], effort.divisor)
            });
            table(load, load_index, &subjects, &figures)
        })
        .collect()
}

fn table(load: &Load, load_index: usize, subjects: &[Dropping], figures: &[Vec<f64>]) -> Table {
    let title = format!("{}: {}; accepted and dropped", load.name, load.about);
    let columns = [
        "",
        "messages/s",
        "of smtp-sink",
        "of no child plugin",
        "to reach",
    ];
    let mut table = Table::new(&title, &columns);
    let (sink, bare) = (&figures[0], &figures[1]);
    let row = |name: &str, own: &[f64], target: String| {
        vec![
            name.to_owned(),
            format!("{:.0}", median(own)),
            spread(&ratios(own, sink)),
            spread(&ratios(own, bare)),
            target,
        ]
    };
    table.rows.push(row("smtp-sink", sink, String::new()));
    for (subject, own) in subjects.iter().zip(&figures[1..]) {
        let over_sink = subject.over_sink[load_index]
            .map(|target| Target::AtLeast(target).verdict(median(&ratios(own, sink))));
        let over_bare = subject
            .over_bare
            .map(|target| Target::AtLeast(target).verdict(median(&ratios(own, bare))));
        let target = over_sink.or(over_bare).unwrap_or_default();
        table.rows.push(row(&subject.name, own, target));
    }
    if let Some(plain) = figures.get(subjects.len() + 1) {
        let name = "plain SMTP sink, large reads";
        table.rows.push(row(name, plain, String::new()));
    }
    table
}

/// Writers that the loads at 2 KB keep busy.
const WRITERS: usize = 20;

/// Safely to disk, beside a plain sink that syncs the same, the same syncs with no SMTP, and Postfix's own queue.
pub fn durable(effort: &Effort) -> Tables {
    let maildir = Server::start(&format!("{BARE}{MAILDIR}"));
    let postfix = Postfix::start().map_err(|why| format!("Postfix's queue is not measured: {why}"));
    if let Err(why) = &postfix {
        eprintln!("\n*** {why} ***\n");
    }
    let dir = tempfile::tempdir().expect("a folder to write to");
    let folder = Arc::new(Folder::make(dir.path()).expect("a folder can be made"));
    let sink = plain_sink::start(Some(Arc::clone(&folder)));
    let at_2_kb = LOADS.iter().filter(|load| load.name != "c");
    at_2_kb
        .map(|load| {
            let figures = interleaved(effort.rounds, 4, |subject| match subject {
                0 => {
                    let rate = load.run(maildir.address(), effort.divisor);
                    std::fs::remove_dir_all(maildir.stage().mail.join("new"))
                        .expect("what was delivered can be removed");
                    std::fs::create_dir(maildir.stage().mail.join("new"))
                        .expect("the Maildir can be made again");
                    rate
                }
                1 => {
                    let rate = load.run(sink, effort.divisor);
                    folder.empty().expect("what was kept can be removed");
                    rate
                }
                2 => {
                    let messages = load.messages(effort.divisor);
                    let rate = write_and_sync(&folder, WRITERS, messages)
                        .expect("the disk takes the messages");
                    folder.empty().expect("what was kept can be removed");
                    rate
                }
                _ => postfix.as_ref().map_or(f64::NAN, |postfix| {
                    let rate = load.run(postfix.address, effort.divisor);
                    postfix.forget();
                    rate
                }),
            });
            durable_table(load, &figures, postfix.as_ref().err())
        })
        .collect()
}

fn durable_table(load: &Load, figures: &[Vec<f64>], no_postfix: Option<&String>) -> Table {
    let title = format!(
        "{}: {}; file and folder synced before 250",
        load.name, load.about
    );
    let columns = ["", "messages/s", "Gatepost's over it", "to reach"];
    let mut table = Table::new(&title, &columns);
    let own = &figures[0];
    let mut row = |name: &str, rate: String, over: String, target: String| {
        table.rows.push(vec![name.to_owned(), rate, over, target]);
    };
    let rate = |figures: &[f64]| format!("{:.0}", median(figures));
    row("queue/maildir", rate(own), String::new(), String::new());
    let no_smtp = format!("write and sync, {WRITERS} threads, no SMTP");
    for (name, other, target) in [
        ("plain SMTP sink, write and sync", &figures[1], Some(1.0)),
        (no_smtp.as_str(), &figures[2], None),
        ("Postfix, own queue", &figures[3], Some(2.5)),
    ] {
        match no_postfix {
            Some(why) if other[0].is_nan() => {
                row(name, why.clone(), String::new(), String::new());
            }
            _ => {
                let ratios = ratios(own, other);
                let target = target
                    .map(|target| Target::AtLeast(target).verdict(median(&ratios)))
                    .unwrap_or_default();
                row(name, rate(other), spread(&ratios), target);
            }
        }
    }
    table
}
