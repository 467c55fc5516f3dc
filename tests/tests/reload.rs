//! `gatepost reload` and SIGHUP: what is there goes on, what comes is served anew, and a mistake changes nothing (docs/reload.md).

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use gatepost_tests::server::Server;
use gatepost_tests::smtp::Client;
use gatepost_tests::wait::until;
use nix::sys::signal::Signal;

/// A Python plugin that says its version, and one in Perl, whose workers are forked.
const HEAD: &str = r#"
[files]
"version.py" = '''
import gatepost

VERSION = "1"

@gatepost.hook("vrfy")
def vrfy(session):
    return gatepost.ok(reply="version " + VERSION)

gatepost.run()
'''
"stamp" = '''
sub hook_data_post {
    my ($self, $transaction) = @_;
    $transaction->header->add('X-Stamp', $self->qp->connection->remote_ip);
    return DECLINED;
}
'''
[[plugin]]
name = "version"
run = ["python3", "$DIR/version.py"]
env = { PYTHONPATH = "$ROOT/sdk-python/src" }
[[plugin]]
qpsmtpd = "stamp"
plugin_dirs = ["$DIR"]
workers = { min = 1, max = 3 }
[[plugin]]
name = "rcpt_ok"
[[plugin]]
name = "queue/maildir"
"#;

/// Edits a file in the server's folder.
fn edit(server: &Server, name: &str, from: &str, to: &str) {
    let path = server.dir().join(name);
    let text = std::fs::read_to_string(&path).expect("it can be read");
    assert!(text.contains(from), "{text}");
    std::fs::write(path, text.replacen(from, to, 1)).expect("it can be written");
}

fn reload(server: &Server) {
    let (code, text, errors) = server.command(&["reload"]);
    assert_eq!((code, &*text, &*errors), (Some(0), "", ""));
}

/// The processes of the plugin.
fn workers(server: &Server) -> usize {
    let script = server.dir().join("version.py");
    let processes = std::fs::read_dir("/proc")
        .expect("there is /proc")
        .flatten();
    let commands = processes.filter_map(|it| std::fs::read(it.path().join("cmdline")).ok());
    commands
        .filter(|command| String::from_utf8_lossy(command).contains(&*script.to_string_lossy()))
        .count()
}

#[test]
fn a_session_goes_on_with_what_it_began_with_and_the_next_has_the_new() {
    let server = Server::start(HEAD);
    let mut old = Client::greet(server.address());
    old.ask("VRFY bob", "250 2.1.5 version 1");
    edit(&server, "version.py", "\"1\"", "\"2\"");
    edit(
        &server,
        "gatepost.toml",
        "hostname = \"mx.example.org\"",
        "hostname = \"mx2.example.org\"",
    );
    reload(&server);
    old.ask("VRFY bob", "250 2.1.5 version 1");
    assert!(old.deliver(b"Subject: old\r\n\r\n").starts_with("250 "));
    let mut new = Client::greet(server.address());
    new.ask("VRFY bob", "250 2.1.5 version 2");
    assert!(new.ask("HELP", "214").len() > 4);
    assert!(new.deliver(b"Subject: new\r\n\r\n").starts_with("250 "));
    assert_eq!(workers(&server), 2);
    old.ask("QUIT", "221");
    until("the end of the old plugin process", || {
        (workers(&server) == 1).then_some(())
    });
    server.signal(Signal::SIGHUP);
    server.wait_for_log("a reload", |text| {
        text == "reload: the new configuration is in force"
    });
    new.ask("VRFY bob", "250 2.1.5 version 2");
}

#[test]
fn the_code_of_one_plugin_alone() {
    const OTHER: &str = r#"
[[plugin]]
name = "other"
run = ["python3", "$DIR/other.py"]
env = { PYTHONPATH = "$ROOT/sdk-python/src" }
"#;
    let server = Server::start(
        &HEAD
            .replace(
                "[[plugin]]\nname = \"rcpt_ok\"",
                &format!("{OTHER}[[plugin]]\nname = \"rcpt_ok\""),
            )
            .replace(
                "[files]",
                r#"
[files]
"other.py" = '''
import gatepost, os

@gatepost.hook("noop")
def noop(session):
    return gatepost.ok(reply="process %d" % os.getpid())

gatepost.run()
'''
"#,
            ),
    );
    let process = || Client::greet(server.address()).ask("NOOP", "250");
    let before = process();
    edit(&server, "version.py", "\"1\"", "\"2\"");
    let (code, _, errors) = server.command(&["reload", "version"]);
    assert_eq!((code, &*errors), (Some(0), ""));
    Client::greet(server.address()).ask("VRFY bob", "250 2.1.5 version 2");
    assert_eq!(process(), before, "it was left alone");
    let (code, _, errors) = server.command(&["reload", "vresion"]);
    assert_eq!(code, Some(2));
    assert!(errors.contains("no plugin `vresion`"), "{errors}");
    edit(
        &server,
        "version.py",
        "import gatepost",
        "import gatepost, nothing",
    );
    let (code, _, errors) = server.command(&["reload", "version"]);
    assert_eq!(code, Some(2), "{errors}");
    assert_eq!(process(), before, "and so it is where another fails");
    edit(&server, "version.py", ", nothing", "");
    reload(&server);
    assert_ne!(process(), before);
}

#[test]
fn a_mistake_is_named_and_changes_nothing() {
    let server = Server::start(HEAD);
    let config = server.dir().join("gatepost.toml");
    edit(
        &server,
        "version.py",
        "import gatepost",
        "import gatepost; sys.exit(3)",
    );
    let (code, _, errors) = server.command(&["reload"]);
    assert_eq!(code, Some(2));
    assert!(
        errors.contains("NameError: name 'sys' is not defined"),
        "{errors}"
    );
    edit(&server, "version.py", "; sys.exit(3)", "");
    let before = std::fs::read_to_string(&config).expect("it can be read");
    std::fs::write(&config, before.replace("rcpt_ok", "rcpt_okay")).expect("it can be written");
    let (code, _, errors) = server.command(&["reload"]);
    assert_eq!(code, Some(2));
    assert!(
        errors.contains("rcpt_okay") && errors.contains("gatepost.toml:"),
        "{errors}"
    );
    server.signal(Signal::SIGHUP);
    server.wait_for_log("a refusal", |text| {
        text == "reload: nothing is changed: the configuration of before is in force"
    });
    let mut client = Client::greet(server.address());
    client.ask("VRFY bob", "250 2.1.5 version 1");
    assert!(client.deliver(b"Subject: x\r\n\r\n").starts_with("250 "));
    assert_eq!(workers(&server), 1, "nothing is left of what failed");
}

#[test]
fn listeners_come_and_go_and_what_takes_a_restart_is_said() {
    let server = Server::start(HEAD);
    let socket = server.dir().join("lmtp");
    let listen = format!(
        "[[listen]]\naddr = \"unix:{}\"\nprotocol = \"lmtp\"\n\n[[listen]]",
        socket.display()
    );
    edit(&server, "gatepost.toml", "[[listen]]", &listen);
    reload(&server);
    assert!(socket.exists());
    let mut client = Client::greet(server.address());
    edit(&server, "gatepost.toml", &listen, "[[listen]]");
    edit(
        &server,
        "gatepost.toml",
        "hostname =",
        "log_format = \"json\"
hostname =",
    );
    let (code, text, _) = server.command(&["reload"]);
    assert_eq!(code, Some(0));
    assert!(text.contains("`log_format` differs"), "{text}");
    until("the end of a socket", || (!socket.exists()).then_some(()));
    client.ask("NOOP", "250");
}

#[test]
fn no_session_fails_while_all_is_made_anew_again_and_again() {
    let server = Server::start(HEAD);
    let (address, is_over, sent) = (
        server.address(),
        AtomicBool::new(false),
        AtomicUsize::new(0),
    );
    let reloads = std::env::var("ROUNDS").map_or(15, |rounds| rounds.parse().expect("a number"));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    let mut client = Client::greet(address);
                    for _ in 0..3 {
                        client.ask("VRFY bob", "250 2.1.5 version 1");
                        let reply = client.deliver(b"Subject: x\r\n\r\nhello\r\n");
                        assert!(reply.starts_with("250 "), "{reply}");
                        sent.fetch_add(1, Ordering::Relaxed);
                    }
                    client.ask("QUIT", "221");
                }
            });
        }
        for _ in 0..reloads {
            std::thread::sleep(Duration::from_millis(200));
            reload(&server);
        }
        is_over.store(true, Ordering::Relaxed);
    });
    let sent = sent.into_inner();
    assert_eq!(server.delivered().len(), sent);
    println!("{reloads} reloads, {sent} messages, none refused");
    until("the end of all processes but the last", || {
        (workers(&server) == 1).then_some(())
    });
}
