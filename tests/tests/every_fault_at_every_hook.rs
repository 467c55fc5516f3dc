//! Every fault of a plugin at every hook, through the daemon: the client gets what `on_error` says, within the plugin's deadline and a margin, and
//! nobody else waits (docs/faults.md). What a plugin does on the wire is the same in every language; what its program does is tried in each.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::scope;
use std::time::{Duration, Instant};

use gatepost_protocol::Hook;
use gatepost_tests::server::Server;
use gatepost_tests::smtp::Client;

/// How long the plugin may take where the fault lasts that long. Its neighbours have to answer within it as well, on a machine with much else to do.
const SHORT: Duration = Duration::from_secs(1);
/// The same where nobody is to wait for it.
const LONG: Duration = Duration::from_secs(20);
/// What a busy machine may add. A plugin that hangs does so for 6 seconds.
const MARGIN: Duration = Duration::from_secs(3);

/// What the client meets, and when.
#[derive(Clone, Copy, PartialEq)]
enum Felt {
    /// `on_error`, when the deadline is over.
    AtTheDeadline,
    /// `on_error`, as soon as it happens.
    AtOnce,
    /// The plugin's own answer, which refuses for now.
    AsRefused,
    /// The plugin's own answer, which has nothing to say.
    Not,
}
use Felt::{AsRefused, AtOnce, AtTheDeadline, Not};

/// A session: what is sent, the reply as long as nothing goes wrong, and the hooks that decide about it.
///
/// All hooks are here but the events, which nobody waits for, those that belong to no session (`config`, `recipient_valid`, `user_config`), and
/// `received_line`, which refuses nothing and is followed by `data_post` before there is a reply.
const SESSION: &[(&str, &str, &[Hook])] = &[
    ("", "220", &[Hook::PreConnection, Hook::Connect]),
    ("HELO client.example", "250", &[Hook::HeloParse, Hook::Helo]),
    (
        "EHLO client.example",
        "250",
        &[Hook::EhloParse, Hook::Ehlo, Hook::Capabilities],
    ),
    (
        "AUTH PLAIN AGJvYkBleGFtcGxlLm9yZwBzZWNyZXQ=",
        "235",
        &[Hook::AuthMechanism, Hook::Auth],
    ),
    (
        "MAIL FROM:<alice@client.example>",
        "250",
        &[Hook::MailParse, Hook::MailPre, Hook::Mail],
    ),
    (
        "RCPT TO:<bob@example.org>",
        "250",
        &[Hook::RcptParse, Hook::RcptPre, Hook::Rcpt],
    ),
    ("DATA", "354", &[Hook::Data]),
    (
        "Subject: x\r\n\r\nhello\r\n.",
        "250",
        &[
            Hook::DataHeadersEnd,
            Hook::DataLines,
            Hook::DataPostHeaders,
            Hook::DataPost,
            Hook::QueuePre,
            Hook::Queue,
        ],
    ),
    ("RSET", "250", &[Hook::Rset]),
    ("NOOP", "250", &[Hook::Noop]),
    ("VRFY postmaster@example.org", "252", &[Hook::Vrfy]),
    ("HELP", "214", &[Hook::Help]),
    ("XYZZY", "500", &[Hook::UnrecognizedCommand]),
    ("QUIT", "221", &[Hook::Quit]),
];

/// The reply where a hook refuses for now, as `on_error = "tempfail"` does; `None` where there is nothing to refuse (docs/smtp.md).
fn refused(hook: Hook) -> Option<&'static str> {
    match hook {
        Hook::PreConnection | Hook::Data => Some("451"),
        // 450, or what the other one says with which it is asked in one request.
        Hook::Connect => Some("45"),
        Hook::AuthMechanism | Hook::Auth => Some("454"),
        Hook::DataHeadersEnd
        | Hook::DataLines
        | Hook::DataPostHeaders
        | Hook::DataPost
        | Hook::QueuePre
        | Hook::Queue => Some("452"),
        Hook::Rset
        | Hook::Noop
        | Hook::Vrfy
        | Hook::Help
        | Hook::UnrecognizedCommand
        | Hook::Quit => None,
        _ => Some("450"),
    }
}

#[derive(Clone, Copy)]
enum Language {
    Rust,
    Python,
    Perl,
}

/// The hooks that a fault is tried at.
fn hooks(language: Language, fault: usize) -> Vec<Hook> {
    let all = SESSION.iter().flat_map(|(.., hooks)| hooks.iter().copied());
    match language {
        Language::Rust => all.collect(),
        // Its processes take long to start: each fault is tried at every sixth hook, so that each hook meets one of the six.
        Language::Python => all.skip(fault).step_by(6).collect(),
        // qpsmtpd has no such hook.
        Language::Perl => all.filter(|hook| *hook != Hook::Capabilities).collect(),
    }
}

/// A daemon whose plugin goes wrong at the nth of the hooks for the client 127.0.1.n, so that no hook fails often enough for the circuit breaker.
fn start(language: Language, fault: &str, felt: Felt, hooks: &[Hook]) -> Server {
    let name = |hook: &Hook| match (language, hook) {
        (Language::Perl, Hook::PreConnection) => "pre-connection",
        (Language::Perl, Hook::AuthMechanism) => "auth-plain",
        (_, hook) => hook.name(),
    };
    let names: Vec<&str> = hooks.iter().map(name).collect();
    let quoted = names.join("\", \"");
    let plugin = match language {
        Language::Rust => format!("run = [\"$BIN/misbehave\", \"{fault}\", \"{quoted}\"]"),
        Language::Python => format!(
            "run = [\"python3\", \"$ROOT/tests/plugins/misbehave.py\"]\n\
            env = {{ PYTHONPATH = \"$ROOT/sdk-python/src\", FAULT = \"{fault}\", HOOKS = \"{}\" }}",
            names.join(" ")
        ),
        Language::Perl => format!(
            "qpsmtpd = \"misbehave {fault} {}\"\nplugin_dirs = [\"$ROOT/tests/plugins/qpsmtpd\"]",
            names.join(" ")
        ),
    };
    let workers = match (language, fault) {
        // Out of order is what several sessions at one worker are answered.
        (_, "out-of-order") => "workers = { min = 1, max = 1 }".to_owned(),
        // One for each session, and some for the neighbours.
        _ => format!(
            "workers = {{ min = {0}, max = {0} }}\nexclusive = true",
            hooks.len() + 2
        ),
    };
    let timeout = match felt {
        AtTheDeadline => SHORT,
        AtOnce | AsRefused | Not => LONG,
    };
    Server::start(&format!(
        "
        [limits]
        max_connections_per_ip = 100
        [[listen]]
        proxy_from = [\"127.0.0.1\"]
        auth = \"always\"
        [[plugin]]
        name = \"bad\"
        {plugin}
        {workers}
        timeout = \"{}s\"
        on_error = \"tempfail\"
        immune = false
        [[plugin]]
        name = \"auth/auth_flat_file\"
        [[plugin]]
        name = \"rcpt_ok\"
        [[plugin]]
        name = \"queue/maildir\"
        [files]
        \"config/flat_auth_pw\" = \"bob@example.org:secret\\n\"
        ",
        timeout.as_secs()
    ))
}

/// A session from this address, until the hook goes wrong or, without one, to its end. What was not as it should be; and the connection, still open.
fn session(server: &Server, from: &str, fails: Option<(Hook, Felt)>) -> (Vec<String>, Client) {
    let mut wrong = Vec::new();
    let mut client = Client::open(server.address());
    for (command, well, hooks) in SESSION {
        let line = match *command {
            "" => format!("PROXY TCP4 {from} 127.0.0.1 40000 25\r\n"),
            command => format!("{command}\r\n"),
        };
        let failing = fails.filter(|(hook, felt)| hooks.contains(hook) && *felt != Not);
        let code = failing.and_then(|(hook, _)| refused(hook)).unwrap_or(well);
        let least = match failing {
            Some((_, AtTheDeadline)) => SHORT,
            _ => Duration::ZERO,
        };
        let began = Instant::now();
        client.send(line.as_bytes());
        let reply = client.reply();
        let took = began.elapsed();
        if !reply.starts_with(code) || took < least || took > least + MARGIN {
            wrong.push(format!(
                "{command:?}: {reply:?} after {took:?}, not {code} after {least:?}"
            ));
        }
        if failing.is_some() || !reply.starts_with(well) {
            break;
        }
    }
    (wrong, client)
}

/// One fault at all hooks at the same time, beside clients of the same plugin that it does nothing wrong for. What was not as it should be.
fn everywhere(server: &Server, hooks: &[Hook], felt: Felt) -> Vec<String> {
    let over = AtomicBool::new(false);
    scope(|scope| {
        let neighbour = || {
            let mut wrong = Vec::new();
            while !over.load(Ordering::Relaxed) {
                wrong.extend(session(server, "127.0.0.1", None).0);
            }
            wrong
        };
        let neighbour = scope.spawn(neighbour);
        let spawn = |(number, hook): (usize, &Hook)| {
            let (hook, from) = (*hook, format!("127.0.1.{number}"));
            let client = scope.spawn(move || session(server, &from, Some((hook, felt))));
            (hook, client)
        };
        let clients: Vec<_> = hooks.iter().enumerate().map(spawn).collect();
        // The connections stay until all is over, so that each worker is still busy with its fault.
        let ended: Vec<_> = clients
            .into_iter()
            .map(|(hook, client)| (hook, client.join().unwrap()))
            .collect();
        over.store(true, Ordering::Relaxed);
        let mut wrong = Vec::new();
        for (hook, (said, _)) in &ended {
            wrong.extend(said.iter().map(|said| format!("at {hook}: {said}")));
        }
        let said = neighbour.join().unwrap();
        wrong.extend(said.iter().map(|said| format!("a neighbour: {said}")));
        wrong
    })
}

/// Stops the daemon, whose log has to name the plugin once for each hook that went wrong, and for no other.
fn stop(mut server: Server, errors: usize) -> Vec<String> {
    assert!(server.stop().success());
    let log = server.log();
    let named = log.iter().filter(|line| line.contains(") bad: error, "));
    let named: Vec<String> = named.cloned().collect();
    match named.len() == errors {
        true => Vec::new(),
        false => vec![format!("{errors} errors expected in the log: {named:#?}")],
    }
}

fn all(language: Language, faults: &[(&str, Felt)]) {
    let mut wrong = Vec::new();
    scope(|scope| {
        let mut stopping = Vec::new();
        for (number, (fault, felt)) in faults.iter().enumerate() {
            let hooks = hooks(language, number);
            let server = start(language, fault, *felt, &hooks);
            let said = everywhere(&server, &hooks, *felt);
            wrong.extend(said.into_iter().map(|said| format!("{fault} {said}")));
            let errors = match felt {
                AtTheDeadline | AtOnce => hooks.len(),
                AsRefused | Not => 0,
            };
            // A plugin that is still at its fault is given some seconds, in which the next one is tried.
            stopping.push((fault, scope.spawn(move || stop(server, errors))));
        }
        for (fault, stopping) in stopping {
            let said = stopping.join().unwrap();
            wrong.extend(said.into_iter().map(|said| format!("{fault}: {said}")));
        }
    });
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn in_rust_and_on_the_wire() {
    all(
        Language::Rust,
        &[
            ("never-answers", AtTheDeadline),
            ("dies-in-hook", AtOnce),
            ("leaks", AtTheDeadline),
            ("ignores-sigterm", AtTheDeadline),
            ("floods-stderr", Not),
            ("answers-after-cancel", AtTheDeadline),
            ("answers-twice", Not),
            ("out-of-order", AsRefused),
            ("garbage", AtOnce),
            ("wrong-id", AtTheDeadline),
            ("half-frame", AtTheDeadline),
            ("two-gigabytes", AtOnce),
            ("spins", AtTheDeadline),
        ],
    );
}

/// What goes wrong inside of a program, whatever it is written in.
const OF_PROGRAMS: &[(&str, Felt)] = &[
    ("hangs", AtTheDeadline),
    ("dies", AtOnce),
    ("leaks", AtTheDeadline),
    ("ignores-sigterm", AtTheDeadline),
    ("floods-stderr", Not),
    ("spins", AtTheDeadline),
];

#[test]
fn in_python() {
    all(Language::Python, OF_PROGRAMS);
}

#[test]
fn in_perl() {
    all(Language::Perl, OF_PROGRAMS);
}
