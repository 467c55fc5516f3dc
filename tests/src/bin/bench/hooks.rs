//! A hook's round trip to an idle child, through the real chain and host, in this process.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Instant;

use gatepost::chain::{Chain, Entry, Rules, Visit};
use gatepost::config::{self, Config};
use gatepost::host::{self, Processes};
use gatepost::services::{Core, DnsConfig};
use gatepost_protocol::{Address, Args, Hook, Policy, Session, Verdict};
use gatepost_tests::server::{complete, new_folder};

use crate::rounds::{interleaved, median, percentile};
use crate::table::{Table, Target};
use crate::throughput::child;
use crate::{Effort, Tables};

/// Round trips of a subject in a round.
const TRIPS: usize = 5000;

/// What makes an SDK leave its fast codec alone.
const BUILT_IN_CODEC: &str = "GATEPOST_CODEC = \"builtin\"";

/// A chain of children, and who is to be measured.
struct Subject {
    name: String,
    chain: Arc<Chain>,
    /// Microseconds.
    target: Option<f64>,
    _processes: Processes,
    _dir: tempfile::TempDir,
}

pub fn round_trips(effort: &Effort) -> Tables {
    let runtime = gatepost::cli::runtime().expect("a runtime");
    let with_env = |language: &str, env: &str| match language {
        "Python" => child(language, "bench").replace("env = { ", &format!("env = {{ {env}, ")),
        _ => child(language, "bench") + &format!("env = {{ {env} }}\n"),
    };
    let twenty: String = (1..=20)
        .map(|number| child("Perl", &format!("bench{number}")))
        .collect();
    let subjects: Vec<Subject> = [
        ("Rust", child("Rust", "bench"), Some(40.0)),
        ("Python, fast codec", child("Python", "bench"), Some(60.0)),
        (
            "Python, built-in codec",
            with_env("Python", BUILT_IN_CODEC),
            Some(120.0),
        ),
        ("Perl, fast codec", child("Perl", "bench"), Some(60.0)),
        (
            "Perl, built-in codec",
            with_env("Perl", BUILT_IN_CODEC),
            Some(120.0),
        ),
        ("20 Perl plugins in one process, fast codec", twenty, None),
    ]
    .into_iter()
    .map(|(name, plugins, target)| runtime.block_on(start(name, &plugins, target)))
    .collect();

    let mut p99 = vec![Vec::new(); subjects.len()];
    let p50 = interleaved(effort.rounds, subjects.len(), |subject| {
        let trips = runtime.block_on(measure(&subjects[subject], TRIPS / effort.divisor));
        p99[subject].push(percentile(&trips, 99));
        median(&trips)
    });

    let columns = ["", "p50", "p99", "to reach"];
    let mut table = Table::new("A hook's round trip (rcpt) to an idle child", &columns);
    for ((subject, p50), p99) in subjects.iter().zip(&p50).zip(&p99) {
        let target = subject
            .target
            .map(|target| Target::AtMost(target).verdict(median(p50)));
        table.rows.push(vec![
            subject.name.clone(),
            format!("{:.0} µs", median(p50)),
            format!("{:.0} µs", median(p99)),
            target.unwrap_or_default(),
        ]);
    }
    let (one, twenty) = (&p50[3], &p50[5]);
    let times: Vec<f64> = twenty
        .iter()
        .zip(one)
        .map(|(twenty, one)| twenty / one)
        .collect();
    table.rows.push(vec![
        "20 Perl plugins over one".to_owned(),
        format!("{:.2}", median(&times)),
        String::new(),
        Target::AtMost(1.5).verdict(median(&times)),
    ]);
    vec![table]
}

async fn start(name: &str, plugins: &str, target: Option<f64>) -> Subject {
    let (dir, places) = new_folder();
    let head = complete(plugins, &places);
    head.prepare(dir.path()).expect("the folder can be filled");
    let config = config::parse(&head.config, "benchmark", &gatepost::plugins::all())
        .unwrap_or_else(|mistakes| panic!("{mistakes}"));
    let core = host::Core {
        hostname: config.hostname.clone(),
        spool_dir: config.spool_dir.clone(),
        services: Arc::new(services(&config)),
        patience: host::Patience::default(),
    };
    let started = Processes::start(&config.plugins, &core).await;
    let (processes, started) = started.unwrap_or_else(|errors| panic!("{errors:?}"));
    let entries = started.into_iter().map(|started| Entry {
        name: started.name,
        plugin: started.plugin,
        rules: Rules::new(Policy::default(), Policy::default(), None, None),
        when: None,
    });
    Subject {
        name: name.to_owned(),
        chain: Arc::new(Chain::new(entries.collect())),
        target,
        _processes: processes,
        _dir: dir,
    }
}

fn services(config: &Config) -> Core {
    let no_files = Arc::new(|_: &str| Ok(Vec::new()));
    let no_log = Arc::new(|_: &str, _, _: &str| {});
    Core::new(DnsConfig::default(), no_files, config.state.clone(), no_log)
}

/// Microseconds of each round trip, one after the other, from a task of its own as a session's is.
async fn measure(subject: &Subject, trips: usize) -> Vec<f64> {
    let chain = subject.chain.clone();
    let measured = tokio::spawn(async move {
        let address = Address::parse("bob@example.org").expect("an address");
        let mut visit = Visit::new(Session {
            id: "3f9a1c".into(),
            ..Session::default()
        });
        let mut times = Vec::with_capacity(trips);
        for trip in 0..trips + trips / 10 {
            let args = Args::Address {
                address: Cow::Borrowed(&address),
                parameters: Cow::Owned(Default::default()),
            };
            let started = Instant::now();
            let decision = chain.run(&mut visit, Hook::Rcpt, &args, None).await;
            let elapsed = started.elapsed();
            assert_eq!(decision.verdict, Verdict::Declined);
            // The first ones warm the caches up.
            if trip >= trips / 10 {
                times.push(elapsed.as_secs_f64() * 1e6);
            }
        }
        times
    });
    measured.await.expect("measuring does not panic")
}
