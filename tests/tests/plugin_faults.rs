//! Plugin processes that misbehave in every way there is, and what the host makes of it: an answer in time for the hook at hand, a new worker
//! where the old one cannot be trusted, and nothing at all for the neighbours.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use gatepost::config::{Location, PluginConfig, PluginKind, Program, Source, Spans};
use gatepost::host::{Core, Counts, Patience, Process, Processes, StartError, Started};
use gatepost_protocol::outcome::BoxFuture;
use gatepost_protocol::plugin::{Host, Wants};
use gatepost_protocol::services::ServiceErrorCode;
use gatepost_protocol::{
    Address, Answer, Args, Bounce, Call, Departure, Disposition, DnsAnswer, Hook, Level, Outcome,
    Parameters, Policy, RecordType, ServiceError, Services, Session, Submission, Validity, Verdict,
};
use gatepost_tests::programs;

/// How long a hook may take here.
const DEADLINE: Duration = Duration::from_millis(800);

fn plugin(name: &str, argv: Vec<String>) -> PluginConfig {
    PluginConfig {
        name: name.into(),
        kind: PluginKind::Run(Program {
            argv,
            env: BTreeMap::new(),
            workers: (1, 1),
            exclusive: false,
            process: None,
            confine: Box::default(),
        }),
        source: Source::default(),
        settings: BTreeMap::new(),
        policy: Policy::default(),
        loglevel: None,
        timeout: None,
        spans: Spans::default(),
        shadow: Default::default(),
        when: None,
        location: Location {
            file: Path::new("gatepost.toml").into(),
            line: 1,
            column: 1,
        },
    }
}

fn misbehaving(name: &str, mode: &str) -> PluginConfig {
    let program = programs::bin().join("misbehave");
    let program = program.to_string_lossy().into_owned();
    plugin(name, vec![program, mode.to_owned()])
}

async fn start(
    spool: &Path,
    plugins: &[PluginConfig],
) -> Result<(Processes, Vec<Started>), Vec<StartError>> {
    let core = Core {
        hostname: "mx.example.org".to_owned(),
        spool_dir: spool.to_owned(),
        dns_server: None,
        services: Arc::new(NoServices),
        patience: Patience {
            hello: Duration::from_secs(2),
            ready: Duration::from_secs(5),
            owed: Duration::from_millis(200),
            frame: Duration::from_millis(200),
            term: Duration::from_millis(300),
            backoff: (Duration::from_millis(20), Duration::from_secs(1)),
            pause: (Duration::from_millis(300), Duration::from_secs(1)),
            idle: Duration::from_secs(60),
            steady: Duration::from_secs(60),
        },
    };
    Processes::start(plugins, &core).await
}

/// One plugin that misbehaves, beside one that does not.
struct Bench {
    processes: Processes,
    started: Vec<Started>,
    spool: tempfile::TempDir,
}

impl Bench {
    async fn new(mode: &str) -> Bench {
        let spool = tempfile::tempdir().unwrap();
        let plugins = [misbehaving("bad", mode), misbehaving("good", "behaves")];
        let (processes, started) = start(spool.path(), &plugins).await.unwrap();
        Bench {
            processes,
            started,
            spool,
        }
    }

    fn process(&self) -> &Process {
        &self.started[0].process
    }

    fn counts(&self) -> Counts {
        self.process().counts()
    }

    /// Asks the plugin that misbehaves.
    async fn ask(&self, session: &str, address: &str) -> Outcome {
        ask(&self.started[0], session, address).await
    }

    /// The neighbour in another process answers, and so does the plugin itself for another session, if need be from a new worker.
    async fn neighbours_go_on(&self) {
        assert_well(&ask(&self.started[1], "other", "alice@example.org").await);
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let outcome = self.ask("another", "alice@example.org").await;
            if outcome.disposition == Some(Disposition::Pass) {
                return;
            }
            assert!(Instant::now() < deadline, "it never came back: {outcome:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn end(self) {
        let began = Instant::now();
        let ending = self.processes.shutdown(Duration::from_millis(500));
        let ended = tokio::time::timeout(Duration::from_secs(10), ending).await;
        assert!(ended.is_ok(), "a process is there for ever");
        assert!(began.elapsed() < Duration::from_secs(3));
        let scratch = std::fs::read_dir(self.spool.path().join("plugins")).unwrap();
        let left: Vec<_> = scratch.map(|entry| entry.unwrap().path()).collect();
        assert!(left.is_empty(), "scratch folders are left: {left:?}");
    }
}

async fn ask(plugin: &Started, session: &str, address: &str) -> Outcome {
    let session = Session {
        id: session.into(),
        ..Session::default()
    };
    let address = Address::parse(address).unwrap();
    let args = Args::Address {
        address: Cow::Borrowed(&address),
        parameters: Cow::Owned(Parameters::new()),
    };
    let call = Call {
        hook: Hook::Rcpt,
        session: &session,
        args: &args,
        message: None,
        deadline: DEADLINE,
        settings: None,
        departure: &Departure::new(),
        speech: None,
    };
    match plugin.plugin.call(&call) {
        Answer::Now(outcome) => outcome,
        Answer::Later(outcome) => outcome.await,
    }
}

fn assert_well(outcome: &Outcome) {
    assert_eq!(outcome.disposition, Some(Disposition::Pass), "{outcome:?}");
}

/// What the host says for a hook that a fault cost.
async fn fault(mode: &str, says: &str, replaced: bool) {
    let bench = Bench::new(mode).await;
    assert_well(&bench.ask("first", "alice@example.org").await);
    let began = Instant::now();
    let (outcome, neighbour) = tokio::join!(
        bench.ask("first", "bad@example.org"),
        ask(&bench.started[1], "other", "alice@example.org")
    );
    let took = began.elapsed();
    assert_well(&neighbour);
    assert_eq!(
        outcome.disposition,
        Some(Disposition::Error),
        "{mode}: {outcome:?}"
    );
    assert!(
        outcome.message.contains(says),
        "{mode}: {}",
        outcome.message
    );
    // A fault that the channel shows is answered when it shows, a silence at the deadline.
    let most = DEADLINE + Duration::from_millis(600);
    assert!(took < most, "{mode}: {took:?}");
    bench.neighbours_go_on().await;
    if replaced {
        wait_for(mode, || bench.counts().restarts == 1).await;
        bench.neighbours_go_on().await;
    } else {
        assert_eq!(bench.counts().restarts, 0, "{mode}");
    }
    bench.end().await;
}

async fn wait_for(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !holds() {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_death_in_a_hook_is_told_with_its_exit_status() {
    let says = "bad gave no answer at rcpt, after ";
    fault("dies-in-hook", says, true).await;
    fault("dies-in-hook", ": it exited with status 3", true).await;
}

#[tokio::test]
async fn what_a_dead_process_leaves_behind_holds_up_nothing_and_is_ended() {
    fault("leaves-a-child", ": it exited with status 3", true).await;
    let left = std::fs::read_dir("/proc").unwrap().filter_map(|process| {
        let command = std::fs::read(process.ok()?.path().join("cmdline")).ok()?;
        let command = String::from_utf8_lossy(&command).into_owned();
        command.contains("left-by-misbehave").then_some(command)
    });
    assert_eq!(left.collect::<Vec<_>>(), Vec::<String>::new());
}

#[tokio::test]
async fn a_process_that_gives_up_is_replaced() {
    fault("gives-up", "it gave up: the database is gone", true).await;
}

#[tokio::test]
async fn what_is_no_frame_ends_the_worker() {
    let broke = "it broke the plugin protocol: ";
    // `HTTP` is a length of more than a gigabyte.
    fault(
        "garbage",
        &format!("{broke}a frame of 1213486160 bytes"),
        true,
    )
    .await;
    fault(
        "huge-length",
        &format!("{broke}a frame of 4294967295 bytes"),
        true,
    )
    .await;
    fault(
        "two-gigabytes",
        &format!("{broke}a frame of 2147483648 bytes"),
        true,
    )
    .await;
    fault("zero-length", &format!("{broke}an empty frame"), true).await;
}

#[tokio::test]
async fn a_frame_that_does_not_end_is_a_fault() {
    fault("half-frame", "it began a frame and did not finish it", true).await;
}

#[tokio::test]
async fn a_process_without_its_channel_is_replaced() {
    fault("closes-channel", "it closed its channel", true).await;
}

#[tokio::test]
async fn a_worker_that_never_answers_is_replaced() {
    fault("never-answers", "no answer within 800 ms", true).await;
    fault("stops-reading", "no answer within 800 ms", true).await;
}

#[tokio::test]
async fn a_worker_that_ignores_sigterm_is_killed() {
    fault("ignores-sigterm", "no answer within 800 ms", true).await;
}

#[tokio::test]
async fn an_answer_after_cancel_is_late_but_keeps_the_worker() {
    let bench = Bench::new("answers-after-cancel").await;
    let outcome = bench.ask("first", "bad@example.org").await;
    assert_eq!(outcome.message, "no answer within 800 ms");
    wait_for("a late result", || bench.counts().late == 1).await;
    assert_well(&bench.ask("first", "alice@example.org").await);
    assert_eq!((bench.counts().restarts, bench.counts().timeouts), (0, 1));
    bench.end().await;
}

#[tokio::test]
async fn three_silences_in_a_row_end_a_worker_at_once() {
    let bench = Bench::new("answers-after-cancel").await;
    for _ in 0..3 {
        bench.ask("first", "bad@example.org").await;
    }
    wait_for("a new worker", || bench.counts().restarts == 1).await;
    bench.neighbours_go_on().await;
    bench.end().await;
}

#[tokio::test]
async fn a_second_result_and_one_for_nothing_are_counted_and_ignored() {
    for mode in ["answers-twice", "unknown-id"] {
        let bench = Bench::new(mode).await;
        for _ in 0..2 {
            assert_well(&bench.ask("first", "bad@example.org").await);
        }
        wait_for(mode, || bench.counts().late == 2).await;
        bench.neighbours_go_on().await;
        assert_eq!(bench.counts().restarts, 0, "{mode}");
        bench.end().await;
    }
}

#[tokio::test]
async fn a_result_that_breaks_the_rules_costs_that_result_alone() {
    for (mode, says) in [
        (
            "wrong-plugin-name",
            "an entry of `somebody else` where `bad` was to answer",
        ),
        ("unknown-verdict", "unknown variant `perhaps!`"),
        ("nonsense-code", "999 is no reply code"),
        ("two-results-too-many", "entries behind the last one"),
        ("bad-change", "unknown variant `chaos`"),
    ] {
        fault(mode, "protocol error: ", false).await;
        fault(mode, says, false).await;
    }
}

#[tokio::test]
async fn floods_and_stray_prints_do_no_harm() {
    let bench = Bench::new("prints-to-stdout").await;
    assert_well(&bench.ask("first", "alice@example.org").await);
    bench.end().await;
    let bench = Bench::new("floods").await;
    // The flood goes through before the answer does; it has to be read, not waited for.
    let outcome = bench.ask("first", "bad@example.org").await;
    assert!(
        outcome.disposition == Some(Disposition::Pass)
            || outcome.message == "no answer within 800 ms",
        "{outcome:?}"
    );
    bench.neighbours_go_on().await;
    bench.end().await;
}

#[tokio::test]
async fn a_session_goes_to_a_new_worker_after_a_death() {
    let bench = Bench::new("dies-in-hook").await;
    let died = bench.ask("first", "bad@example.org").await;
    assert_eq!(died.disposition, Some(Disposition::Error));
    wait_for("a new worker", || bench.counts().restarts == 1).await;
    let deadline = Instant::now() + Duration::from_secs(10);
    while bench.ask("first", "alice@example.org").await.disposition != Some(Disposition::Pass) {
        assert!(Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    bench.end().await;
}

#[tokio::test]
async fn while_no_worker_is_up_the_answer_is_an_error_at_once() {
    let bench = Bench::new("dies-in-hook").await;
    // The pause before the next start is doubled each time, so that it is long enough here to be met.
    for deaths in 1..=4 {
        bench.ask("first", "bad@example.org").await;
        wait_for("a death", || bench.counts().restarts == deaths).await;
        if deaths < 4 {
            bench.neighbours_go_on().await;
        }
    }
    let began = Instant::now();
    let outcome = bench.ask("first", "alice@example.org").await;
    assert!(began.elapsed() < Duration::from_millis(100));
    let down = "its process is down: it exited with status 3";
    assert!(outcome.message.ends_with(down), "{}", outcome.message);
    bench.neighbours_go_on().await;
    bench.end().await;
}

#[tokio::test]
async fn a_circuit_breaker_opens_probes_and_closes() {
    let bench = Bench::new("dies-in-hook").await;
    // What comes while its worker is down is no failure of the hook's.
    wait_until_open(&bench).await;
    assert_eq!(bench.counts().restarts, 5);
    let began = Instant::now();
    let outcome = bench.ask("second", "alice@example.org").await;
    assert!(began.elapsed() < Duration::from_millis(100));
    assert!(
        outcome.message.contains("its circuit breaker is open"),
        "{outcome:?}"
    );
    assert!(bench.counts().unasked >= 1);
    // The one that tries fails, and the breaker stays open without a word.
    let deadline = Instant::now() + Duration::from_secs(10);
    while bench.counts().restarts == 5 {
        assert!(Instant::now() < deadline, "nothing was tried");
        bench.ask("third", "bad@example.org").await;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let outcome = bench.ask("fourth", "alice@example.org").await;
    assert_eq!(outcome.disposition, Some(Disposition::Error));
    assert_eq!(bench.counts().openings, 1);
    // The next one is answered, and so is everybody from then on.
    bench.neighbours_go_on().await;
    assert_well(&bench.ask("fifth", "alice@example.org").await);
    assert_eq!(bench.counts().openings, 1);
    bench.end().await;
}

async fn wait_until_open(bench: &Bench) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while bench.counts().openings == 0 {
        assert!(Instant::now() < deadline, "it never opened");
        bench.ask("first", "bad@example.org").await;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn one_death_is_one_failure_however_many_it_was_asked() {
    let bench = Bench::new("dies-at-the-sixth").await;
    let ask = |session| bench.ask(session, "bad@example.org");
    tokio::join!(ask("1"), ask("2"), ask("3"), ask("4"), ask("5"), ask("6"));
    assert_eq!((bench.counts().errors, bench.counts().openings), (6, 0));
    bench.neighbours_go_on().await;
    bench.end().await;
}

async fn start_errors(plugins: &[PluginConfig]) -> Vec<StartError> {
    let spool = tempfile::tempdir().unwrap();
    match start(spool.path(), plugins).await {
        Ok(_) => panic!("it started"),
        Err(errors) => errors,
    }
}

#[tokio::test]
async fn all_that_does_not_start_is_said_at_once_and_what_to_do() {
    let plugins = [
        misbehaving("dies", "dies-before-hello"),
        misbehaving("good", "behaves"),
        misbehaving("newer", "wrong-version"),
        misbehaving("slow", "slow-hello"),
        plugin("missing", vec!["/nowhere/at/all".to_owned()]),
        plugin("absent", vec!["no-such-program".to_owned()]),
        plugin("data", vec!["/etc/passwd".to_owned()]),
        plugin("cat", vec!["cat".to_owned()]),
    ];
    let errors = start_errors(&plugins).await;
    let expected = [
        (
            "dies",
            "it exited with status 7 before it said `hello`; the last lines of its standard error:\n    there is no such library",
        ),
        (
            "newer",
            "it speaks version 2.4 of the plugin protocol, and gatepost 0.1.0 speaks 1.0: upgrade gatepost",
        ),
        ("slow", "it sent no `hello` within 2 s"),
        (
            "missing",
            "`/nowhere/at/all`: cannot be started: no such file",
        ),
        (
            "absent",
            "`no-such-program` is not in PATH: install it, or give its whole path",
        ),
        (
            "data",
            "`/etc/passwd` is not executable: run `chmod +x /etc/passwd`",
        ),
        (
            "cat",
            "`cat`: it exited with status 0 before it said `hello`",
        ),
    ];
    for ((plugin, says), error) in expected.into_iter().zip(&errors) {
        assert_eq!(&*error.plugin, plugin);
        assert!(error.message.contains(says), "{plugin}: {}", error.message);
    }
    assert_eq!(errors.len(), expected.len(), "{errors:?}");
}

/// A core that has nothing to offer.
struct NoServices;

fn none<T: Send + 'static>() -> BoxFuture<'static, Result<T, ServiceError>> {
    Box::pin(async { Err(ServiceError::new(ServiceErrorCode::Failed, "not here")) })
}

impl Services for NoServices {
    fn log(&self, _plugin: &str, _level: Level, _message: &str) {}

    fn dns(&self, _: &str, _: RecordType) -> BoxFuture<'static, Result<DnsAnswer, ServiceError>> {
        none()
    }

    fn config(&self, _: &str) -> BoxFuture<'static, Result<Vec<String>, ServiceError>> {
        none()
    }

    fn recipient_valid(&self, _: &Address) -> BoxFuture<'static, Result<Validity, ServiceError>> {
        none()
    }

    fn state_get(&self, _: &str) -> BoxFuture<'static, Result<Option<Vec<u8>>, ServiceError>> {
        none()
    }

    fn state_set(
        &self,
        _: &str,
        _: Vec<u8>,
        _: Option<Duration>,
    ) -> BoxFuture<'static, Result<(), ServiceError>> {
        none()
    }

    fn state_add(
        &self,
        _: &str,
        _: i64,
        _: Option<Duration>,
    ) -> BoxFuture<'static, Result<i64, ServiceError>> {
        none()
    }

    fn state_delete(&self, _: &str) -> BoxFuture<'static, Result<(), ServiceError>> {
        none()
    }

    fn submit(&self, _: Submission) -> BoxFuture<'static, Result<String, ServiceError>> {
        none()
    }

    fn bounce(&self, _: Bounce) -> BoxFuture<'static, Result<Option<String>, ServiceError>> {
        none()
    }
}

#[tokio::test]
async fn plugins_of_one_process_are_asked_in_one_request_and_stop_in_order() {
    let spool = tempfile::tempdir().unwrap();
    let plugins = ["one", "two", "three"].map(|name| misbehaving(name, "behaves"));
    let (processes, started) = start(spool.path(), &plugins).await.unwrap();
    let session = Session::default();
    let address = Address::parse("alice@example.org").unwrap();
    let args = Args::Address {
        address: Cow::Borrowed(&address),
        parameters: Cow::Owned(Parameters::new()),
    };
    let call = Call {
        hook: Hook::Rcpt,
        session: &session,
        args: &args,
        message: None,
        deadline: DEADLINE,
        settings: None,
        departure: &Departure::new(),
        speech: None,
    };
    assert_eq!(processes.iter().count(), 1);
    let process = &started[2].process;
    let outcomes = process
        .ask(&["one", "two", "three"], &Wants::default(), &call)
        .await;
    assert_eq!(outcomes.len(), 3);
    assert!(
        outcomes
            .iter()
            .all(|outcome| outcome.message == "all is well")
    );
    assert_eq!(outcomes[2].verdict, Some(Verdict::Declined));
    assert_eq!(process.counts().requests, 1);
    assert_eq!(process.name(), "one+2");
    processes.shutdown(Duration::from_secs(1)).await;
}

#[tokio::test]
async fn another_worker_is_started_for_a_new_session_when_all_are_busy() {
    let spool = tempfile::tempdir().unwrap();
    let mut pool = misbehaving("pool", "one-at-a-time");
    if let PluginKind::Run(program) = &mut pool.kind {
        program.workers = (1, 2);
    }
    let (processes, started) = start(spool.path(), &[pool]).await.unwrap();
    let plugin = &started[0];
    let wait = Duration::from_millis(50);
    let (first, second, third) = tokio::join!(
        ask(plugin, "first", "bad@example.org"),
        async {
            tokio::time::sleep(wait).await;
            ask(plugin, "second", "bad@example.org").await
        },
        // Both are busy then, and there are to be no more.
        async {
            tokio::time::sleep(wait * 4).await;
            ask(plugin, "third", "alice@example.org").await
        }
    );
    assert_eq!(
        [&*first.message, &*second.message],
        ["worker 1", "worker 2"]
    );
    assert!(third.message.starts_with("worker "), "{third:?}");
    for (session, outcome) in [("first", first), ("second", second), ("third", third)] {
        let again = ask(plugin, session, "alice@example.org").await;
        assert_eq!(
            again.message, outcome.message,
            "{session} stays where it is"
        );
    }
    processes.shutdown(Duration::from_secs(1)).await;
}
