//! Plugins of qpsmtpd that misbehave where a dialogue cannot show it: while they are loaded, and beside the session of somebody else. What each
//! does to its own session is in `tests/dialogs/perl-faults`.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use gatepost_tests::programs;
use gatepost_tests::server::{Server, gatepost};
use gatepost_tests::smtp::Client;
use gatepost_tests::wait::until;
use nix::sys::signal::Signal;

const MESSAGE: &[u8] = b"Subject: x\r\n\r\nhello\r\n";

/// Runs the daemon with a plugin that cannot be loaded; what it says on standard error before it ends.
fn said_at_start(code: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("bad"), code).unwrap();
    let sdk = programs::root().join("sdk-perl");
    let configuration = format!(
        "
        hostname = \"mx.example.org\"
        spool_dir = \"spool\"
        sdk_perl = \"{}\"
        [[listen]]
        addr = \"127.0.0.1:0\"
        [[plugin]]
        qpsmtpd = \"bad\"
        plugin_dirs = [\".\"]
        ",
        sdk.display()
    );
    fs::write(folder.path().join("gatepost.toml"), configuration).unwrap();
    let output = Command::new("timeout")
        .arg("60")
        .arg(gatepost())
        .args(["run", "-c", "gatepost.toml"])
        .current_dir(folder.path())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    let code = output.status.code();
    assert!(
        code.is_some_and(|code| code != 0 && code != 124),
        "{code:?} {said}"
    );
    said
}

#[test]
fn a_plugin_that_does_not_compile_is_named_with_its_line() {
    let said = said_at_start("sub hook_rcpt { return DECLINED }\nsub register { my $self = ; }\n");
    assert!(said.contains("syntax error at "), "{said}");
    assert!(said.contains("bad line 2"), "{said}");
}

#[test]
fn a_plugin_that_dies_in_register_is_named_with_its_line() {
    let said = said_at_start("sub register {\n    die 'no more';\n}\n");
    assert!(said.contains("no more at "), "{said}");
    assert!(said.contains("bad line 2"), "{said}");
}

#[test]
fn a_plugin_that_exits_in_register_is_named_with_its_line() {
    let said = said_at_start("sub register {\n    exit 3;\n}\n");
    assert!(
        said.contains("the plugin bad called exit(3) while it was loaded at "),
        "{said}"
    );
    assert!(said.contains("bad line 2"), "{said}");
}

/// A server with a plugin that makes the file `here`, and then does something, at the recipient bad@example.org.
fn with_bad(deed: &str) -> Server {
    let head = "
        [[plugin]]
        qpsmtpd = \"bad\"
        plugin_dirs = [\"$DIR\"]
        timeout = \"1h\"
        on_error = \"tempfail\"
        [[plugin]]
        name = \"rcpt_ok\"
        [[plugin]]
        name = \"queue/maildir\"
        [files]
        \"bad\" = '''
sub hook_rcpt {
    my ($self, $transaction, $recipient) = @_;
    return DECLINED unless $recipient->user eq 'bad';
    open my $here, '>', '$DIR/here' or die $!;
    close $here;
    DEED
    return DECLINED;
}
'''
    ";
    Server::start(&head.replace("DEED", deed))
}

/// Two clients in the middle of a transaction; when the plugin is at its deed with one, the other goes on, and delivers.
fn beside(server: &Server) -> Client {
    let mut calm = Client::greet(server.address());
    calm.ask("MAIL FROM:<carol@client.example>", "250");
    let mut own = Client::greet(server.address());
    own.ask("MAIL FROM:<alice@client.example>", "250");
    own.send(b"RCPT TO:<bad@example.org>\r\n");
    // A line of the log would wait for the hook's end.
    until("the plugin at its deed", || {
        server.dir().join("here").exists().then_some(())
    });
    calm.ask("RCPT TO:<bob@example.org>", "250");
    calm.ask("RSET", "250");
    let reply = calm.deliver(MESSAGE);
    assert!(reply.starts_with("250 2."), "{reply:?}");
    own
}

#[test]
fn nobody_else_feels_a_plugin_that_never_ends() {
    let server = with_bad("1 while 1;");
    beside(&server);
}

#[test]
fn nobody_else_feels_a_plugin_that_exits() {
    let server = with_bad("exit 3;");
    let mut own = beside(&server);
    own.expect("450");
    server.wait_for_log("who ended the worker", |text| {
        text.contains("the plugin bad called exit(3) in the hook rcpt at ")
            && text.contains("bad line ")
    });
}

/// Parent and child come back out of the plugin: one answer goes out, and the session has the next for its next command.
#[test]
fn nobody_else_feels_a_plugin_that_forks() {
    let server = with_bad("fork; $self->log(LOGINFO, 'pass, out');");
    let mut own = beside(&server);
    own.expect("250");
    own.ask("RCPT TO:<bob@example.org>", "250");
    own.ask("NOOP", "250");
    server.wait_for_log("whose child it was", |text| {
        text.contains("bad: a child of it came back out of the plugin, and is ended at ")
            && text.contains("bad line ")
    });
}

/// A child that nobody waits for, and that would stay, holds up neither an answer nor the daemon's end, and ends with it.
#[test]
fn a_child_that_stays_ends_with_the_daemon() {
    let mut server = with_bad(
        "if (my $pid = fork) { $self->log(LOGINFO, \"pass, child $pid\") } else { sleep 3600 while 1 }",
    );
    let mut own = beside(&server);
    own.expect("250");
    own.ask("RSET", "250");
    server.wait_for_log("whose child it is", |text| {
        text.contains("bad: left a child behind, which still runs at ")
            && text.contains("bad line ")
    });
    let line = server.wait_for_log("the child", |text| text.contains("pass, child "));
    let child = line.rsplit(' ').next().unwrap();
    let process = Path::new("/proc").join(child);
    assert!(process.exists(), "{line}");
    own.ask("QUIT", "221");
    assert!(server.stop().success());
    until("the end of the child", || {
        let stat = fs::read_to_string(process.join("stat"));
        stat.is_err().then_some(())
    });
}

/// The daemon is killed while a worker is busy for ever: nobody is left to end it but the process that it was forked from.
#[test]
fn a_plugin_that_never_ends_ends_behind_a_daemon_that_was_killed() {
    let mut server = with_bad(
        "open my $me, '>', '$DIR/pid.new'; print $me $$; close $me; rename '$DIR/pid.new', '$DIR/pid'; 1 while 1;",
    );
    beside(&server);
    let pid = until("the worker's number", || {
        fs::read_to_string(server.dir().join("pid")).ok()
    });
    let stat = Path::new("/proc").join(pid).join("stat");
    assert!(stat.exists());
    server.signal(Signal::SIGKILL);
    server.wait();
    until("the end of the worker", || {
        // Whoever inherits it may not have looked at it yet.
        let stat = fs::read_to_string(&stat);
        stat.map_or(Some(()), |stat| stat.contains(") Z ").then_some(()))
    });
}
