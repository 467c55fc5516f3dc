//! Plugins of qpsmtpd as its processes gave it to them: a session has a process of its own, forked from one that has them loaded.

use std::collections::BTreeSet;
use std::fs;
use std::thread;

use gatepost_tests::server::Server;
use gatepost_tests::smtp::Client;
use gatepost_tests::wait::until;
use tempfile::TempDir;

const SESSIONS: usize = 8;
/// The most that a further worker may have for itself alone, in KiB.
const MEMORY: u64 = 8 * 1024;

fn plugin(code: &str, settings: &str) -> (TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path().display().to_string();
    let code = code
        .replace("$DIR", &here)
        .replace("$SESSIONS", &SESSIONS.to_string());
    fs::write(folder.path().join("own"), code).unwrap();
    let head = format!(
        "
        [[plugin]]
        qpsmtpd = \"own\"
        plugin_dirs = [\"{here}\"]
        {settings}
        [[plugin]]
        name = \"rcpt_ok\"
        [[plugin]]
        name = \"queue/maildir\"
        "
    );
    (folder, head)
}

/// In KiB.
fn private_memory(pid: &str) -> u64 {
    let maps = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let private = maps.lines().filter(|line| line.starts_with("Private_"));
    private
        .map(|line| {
            let number = line.split_whitespace().nth(1).unwrap();
            number.parse::<u64>().unwrap()
        })
        .sum()
}

/// Each waits in the hook until all of them are in it: in one process, or in fewer than there are sessions, none would ever come out.
const MEET: &str = r#"
sub hook_connect {
    my $self = shift;
    open my $here, '>', "$DIR/in.$$" or die $!;
    close $here;
    for (1 .. 3000) {
        my @in = glob "$DIR/in.*";
        return (DECLINED) if @in >= $SESSIONS;
        select undef, undef, undef, 0.01;
    }
    return (DENYSOFT, 'nobody else came');
}
sub hook_mail { my $self = shift; $self->log(LOGINFO, "pass, process $$"); return DECLINED }
"#;

#[test]
fn sessions_do_not_wait_for_each_other_and_share_memory() {
    let (folder, head) = plugin(MEET, "");
    let server = Server::start(&head);
    let address = server.address();
    let meeting = (0..SESSIONS).map(|_| {
        thread::spawn(move || {
            let mut client = Client::greet(address);
            client.ask("MAIL FROM:<alice@client.example>", "250");
            client
        })
    });
    let meeting: Vec<_> = meeting.collect();
    let clients: Vec<Client> = meeting
        .into_iter()
        .map(|thread| thread.join().unwrap())
        .collect();
    let processes = until("a line of each session", || {
        let log = server.log();
        let said = log
            .iter()
            .filter_map(|line| line.split_once("own: pass, process "))
            .map(|(_, process)| process.trim().to_owned());
        let said: Vec<String> = said.collect();
        (said.len() == SESSIONS).then_some(said)
    });
    let different: BTreeSet<&String> = processes.iter().collect();
    assert_eq!(different.len(), SESSIONS, "{processes:?}");
    for process in &processes {
        let memory = private_memory(process);
        assert!(memory <= MEMORY, "{process} has {memory} KiB for itself");
    }
    drop(clients);
    drop(folder);
}

#[test]
fn a_worker_that_ends_takes_nobody_with_it() {
    let code = r#"
sub hook_helo { my ($self, $transaction, $host) = @_; exit 3 if $host eq 'exit.example'; return DECLINED }
*hook_ehlo = \&hook_helo;
sub hook_mail { my $self = shift; $self->log(LOGINFO, "pass, process $$"); return DECLINED }
"#;
    let (_folder, head) = plugin(code, "on_error = \"tempfail\"");
    let server = Server::start(&head);
    let mut calm = Client::greet(server.address());
    let mut other = Client::connect(server.address());
    other.ask("EHLO exit.example", "450");
    calm.ask("MAIL FROM:<alice@client.example>", "250");
    // Another has taken the place of the one that is gone.
    other.ask("EHLO client.example", "250");
    server.wait_for_log("who ended the worker", |text| {
        text.contains("the plugin own called exit(3) in the hook ehlo")
    });
    server.wait_for_log("the worker's replacement", |text| {
        text.contains("is ready again")
    });
    let mut next = Client::greet(server.address());
    next.ask("MAIL FROM:<alice@client.example>", "250");
}

/// One session's host is the package's: with two sessions in a worker at once it would be the other's.
#[test]
fn exclusive_workers_have_one_session_at_a_time() {
    let code = r#"
our $host;
sub hook_helo { my ($self, $transaction, $said) = @_; $host = $said; $self->log(LOGINFO, "pass, $said"); return DECLINED }
*hook_ehlo = \&hook_helo;
sub hook_mail { my $self = shift; return $host eq $self->qp->connection->hello_host ? DECLINED : DENY }
"#;
    let settings = "exclusive = true\nworkers = { min = 1, max = 2 }";
    let (_folder, head) = plugin(code, settings);
    let server = Server::start(&head);
    let greets = |host: &str| {
        let mut client = Client::connect(server.address());
        client.send(format!("EHLO {host}\r\n").as_bytes());
        client
    };
    let mut one = greets("one.example");
    one.expect("250");
    let mut two = greets("two.example");
    two.expect("250");
    let mut three = greets("three.example");
    for client in [&mut one, &mut two] {
        client.ask("MAIL FROM:<alice@client.example>", "250");
        client.ask("RSET", "250");
    }
    let has_greeted = || {
        let mut log = server.log().into_iter();
        log.any(|line| line.contains("own: pass, three.example"))
    };
    assert!(!has_greeted(), "{:?}", server.log());
    one.ask("QUIT", "221");
    three.expect("250");
    until("three's turn", || has_greeted().then_some(()));
    three.ask("MAIL FROM:<alice@client.example>", "250");
    two.ask("MAIL FROM:<alice@client.example>", "250");
}
