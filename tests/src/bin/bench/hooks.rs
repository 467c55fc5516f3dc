//! A hook's round trip to an idle child, through the real chain and host, in this process.
//!
//! Measured twice: as the system places threads and processes, and with all of them on one processor. The difference is what it costs to wake an
//! idle processor, which on a virtual machine can be many times what Gatepost and the child cost.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Instant;

use gatepost::chain::{Chain, Entry, Rules, Visit};
use gatepost::config::{self, Config};
use gatepost::host::{self, Processes};
use gatepost::services::{Core, DnsConfig};
use gatepost_protocol::{Address, Args, Hook, Policy, Session, Verdict};
use gatepost_tests::server::{complete, new_folder};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

use crate::floor::Floor;
use crate::rounds::{interleaved, median, percentile, ratios};
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
    let free = figures(effort);
    // Threads and processes inherit the processor that this thread is bound to.
    let bound = std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let mut one = CpuSet::new();
            one.set(0).expect("there is a first processor");
            sched_setaffinity(Pid::from_raw(0), &one).expect("a thread may bind itself");
            figures(effort)
        });
        thread.join().expect("measuring does not panic")
    });
    let columns = [
        "",
        "p50",
        "p99",
        "to reach",
        "p50 on one processor",
        "to reach",
    ];
    let mut table = Table::new("A hook's round trip (rcpt) to an idle child", &columns);
    for (free, bound) in free.iter().zip(&bound) {
        let verdict = |figures: &Figures| {
            free.target
                .map(|target| Target::AtMost(target).verdict(median(&figures.p50)))
                .unwrap_or_default()
        };
        table.rows.push(vec![
            free.name.clone(),
            format!("{:.0} µs", median(&free.p50)),
            format!("{:.0} µs", median(&free.p99)),
            verdict(free),
            format!("{:.0} µs", median(&bound.p50)),
            verdict(bound),
        ]);
    }
    let times = |figures: &[Figures]| {
        let p50 = |name| {
            &figures
                .iter()
                .find(|figures| figures.name == name)
                .expect("it was measured")
                .p50
        };
        median(&ratios(p50(TWENTY), p50(ONE)))
    };
    let [free, bound] = [&free, &bound].map(|figures| times(figures));
    table.rows.push(vec![
        "20 Perl plugins over one".to_owned(),
        format!("{free:.2}"),
        String::new(),
        Target::AtMost(1.5).verdict(free),
        format!("{bound:.2}"),
        Target::AtMost(1.5).verdict(bound),
    ]);
    vec![table]
}

const ONE: &str = "Perl, fast codec";
const TWENTY: &str = "20 Perl plugins in one process, fast codec";

/// What was measured of a subject, a figure for each round, in microseconds.
struct Figures {
    name: String,
    target: Option<f64>,
    p50: Vec<f64>,
    p99: Vec<f64>,
}

/// Measures the floors and the children, on the processors that this thread may use.
fn figures(effort: &Effort) -> Vec<Figures> {
    let runtime = gatepost::cli::runtime().expect("a runtime");
    let with_env = |language: &str, env: &str| match language {
        "Python" => child(language, "bench").replace("env = { ", &format!("env = {{ {env}, ")),
        _ => child(language, "bench") + &format!("env = {{ {env} }}\n"),
    };
    let twenty: String = (1..=20)
        .map(|number| child("Perl", &format!("bench{number}")))
        .collect();
    let mut floors: Vec<Floor> = [
        ("A byte to a process that returns it at once", 0),
        ("A byte to a process that works for 30 µs first", 30),
    ]
    .map(|(name, work)| Floor::start(name, work))
    .into();
    let subjects: Vec<Subject> = [
        ("Rust", child("Rust", "bench"), Some(40.0)),
        ("Python, fast codec", child("Python", "bench"), Some(60.0)),
        (
            "Python, built-in codec",
            with_env("Python", BUILT_IN_CODEC),
            Some(120.0),
        ),
        (ONE, child("Perl", "bench"), Some(60.0)),
        (
            "Perl, built-in codec",
            with_env("Perl", BUILT_IN_CODEC),
            Some(120.0),
        ),
        (TWENTY, twenty, None),
    ]
    .into_iter()
    .map(|(name, plugins, target)| runtime.block_on(start(name, &plugins, target)))
    .collect();

    let count = floors.len() + subjects.len();
    let mut p99 = vec![Vec::new(); count];
    let p50 = interleaved(effort.rounds, count, |at| {
        let trips = TRIPS / effort.divisor;
        let times = match at.checked_sub(floors.len()) {
            None => floors[at].measure(trips),
            Some(subject) => runtime.block_on(measure(&subjects[subject], trips)),
        };
        p99[at].push(percentile(&times, 99));
        median(&times)
    });
    let names = floors.iter().map(|floor| (floor.name.clone(), None)).chain(
        subjects
            .iter()
            .map(|subject| (subject.name.clone(), subject.target)),
    );
    names
        .zip(p50)
        .zip(p99)
        .map(|(((name, target), p50), p99)| Figures {
            name,
            target,
            p50,
            p99,
        })
        .collect()
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
        dns_server: config.dns_server,
        services: Arc::new(services(&config)),
        patience: host::Patience::default(),
    };
    let started = Processes::start(&config.plugins, &core).await;
    let (processes, started) = started.unwrap_or_else(|errors| panic!("{errors:?}"));
    let entries = started.into_iter().map(|started| Entry {
        name: started.name,
        plugin: started.plugin,
        rules: Rules::new(Policy::default(), Policy::default(), None, None),
        origins: Default::default(),
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
