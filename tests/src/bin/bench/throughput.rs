//! Messages per second: through the chain into nothing, and safely to disk.

use gatepost_tests::server::Server;

use crate::disk::write_and_sync;
use crate::load::{LOADS, Load, Sink};
use crate::postfix::Postfix;
use crate::rounds::{interleaved, median, ratios, spread};
use crate::table::{Table, Target};
use crate::{Effort, Tables};

/// Nothing but accepting the recipient and the message; the log keeps to what is wrong, since the sink has none.
const BARE: &str = "
loglevel = \"notice\"

[limits]
max_connections_per_ip = 1000
max_transactions = 1000000

[[plugin]]
name = \"rcpt_ok\"
";

const DISCARD: &str = "
[[plugin]]
name = \"queue/discard\"
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

/// Accepting and dropping, beside smtp-sink, with and without child plugins.
pub fn discard(effort: &Effort) -> Tables {
    let sink = Sink::start();
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
            let figures = interleaved(effort.rounds, subjects.len() + 1, |subject| {
                let address = match subject.checked_sub(1) {
                    None => sink.address,
                    Some(subject) => subjects[subject].server.address(),
                };
                load.run(address, effort.divisor)
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
    table
}

/// Writers that the loads at 2 KB keep busy.
const WRITERS: usize = 20;

/// Safely to disk, beside Postfix's own queue and beside files that are written and synced one by one.
pub fn durable(effort: &Effort) -> Tables {
    let maildir = Server::start(&format!("{BARE}\n[[plugin]]\nname = \"queue/maildir\"\n"));
    let postfix = Postfix::start();
    if let Err(why) = &postfix {
        eprintln!("\n*** {why} ***\n");
    }
    let folder = tempfile::tempdir().expect("a folder to write to");
    let at_2_kb = LOADS.iter().filter(|load| load.name != "c");
    at_2_kb
        .map(|load| {
            let figures = interleaved(effort.rounds, 3, |subject| match subject {
                0 => {
                    let rate = load.run(maildir.address(), effort.divisor);
                    std::fs::remove_dir_all(maildir.stage().mail.join("new"))
                        .expect("what was delivered can be removed");
                    std::fs::create_dir(maildir.stage().mail.join("new"))
                        .expect("the Maildir can be made again");
                    rate
                }
                1 => {
                    let messages = load.messages(effort.divisor);
                    write_and_sync(&folder.path().join("plain"), WRITERS, messages)
                        .expect("the disk takes the messages")
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
    let mut table = Table::new(
        &title,
        &["", "messages/s", "Gatepost's over it", "to reach"],
    );
    let own = &figures[0];
    table.rows.push(vec![
        "queue/maildir".to_owned(),
        format!("{:.0}", median(own)),
        String::new(),
        String::new(),
    ]);
    let plain = format!("write and sync, {WRITERS} threads, no SMTP");
    for (name, other, target) in [
        (plain.as_str(), &figures[1], 1.0),
        ("Postfix, own queue", &figures[2], 2.5),
    ] {
        let ratios = ratios(own, other);
        table.rows.push(match no_postfix {
            Some(why) if target > 1.0 => {
                vec![name.to_owned(), why.clone(), String::new(), String::new()]
            }
            _ => vec![
                name.to_owned(),
                format!("{:.0}", median(other)),
                spread(&ratios),
                Target::AtLeast(target).verdict(median(&ratios)),
            ],
        });
    }
    table
}
