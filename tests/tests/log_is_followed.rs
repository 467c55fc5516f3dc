//! The logging plugins of Debian's package qpsmtpd, and one in Python, are told what the daemon logs.

use std::fs;
use std::path::Path;

use gatepost_tests::programs;
use gatepost_tests::server::Server;
use gatepost_tests::smtp::Client;
use gatepost_tests::wait::until;

/// The folder of the package's plugins; `None`, said loudly, where it was not unpacked.
fn package() -> Option<String> {
    let package = programs::root().join(".qpsmtpd/usr/share/qpsmtpd/plugins");
    if !package.is_dir() {
        programs::missing("the package qpsmtpd is not unpacked: run `make setup`");
        return None;
    }
    Some(package.display().to_string())
}

fn lines(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

/// What the log has, without time, session and hook; what plugins print is not told.
fn texts(log: &[String]) -> Vec<String> {
    let lines = log.iter().filter(|line| !line.contains(": stderr: "));
    let text = |line: &String| {
        let rest = line.splitn(3, ' ').nth(2)?;
        let rest = match rest.strip_prefix('(') {
            Some(rest) => rest.split_once(") ")?.1,
            None => rest,
        };
        Some(rest.to_owned())
    };
    lines.filter_map(text).collect()
}

fn session(server: &Server) {
    let mut client = Client::greet(server.address());
    client.ask("MAIL FROM:<eve@spam.example>", "550");
    client.ask("MAIL FROM:<alice@client.example>", "250");
    client.ask("RCPT TO:<bob@example.org>", "250");
    client.ask("DATA", "354");
    client.send(b"Subject: x\r\n\r\nx\r\n.\r\n");
    client.expect("250");
    client.ask("QUIT", "221");
}

#[test]
fn every_line_is_told_once_and_in_order() {
    let Some(package) = package() else { return };
    let head = format!(
        "
        loglevel = \"debug\"
        [[plugin]]
        qpsmtpd = \"logging/file loglevel LOGDEBUG tsformat %s $DIR/lines\"
        plugin_dirs = [\"{package}\"]
        [[plugin]]
        qpsmtpd = \"badmailfrom\"
        plugin_dirs = [\"{package}\"]
        [[plugin]]
        name = \"rcpt_ok\"
        [[plugin]]
        name = \"queue/maildir\"
        [files]
        \"config/badmailfrom\" = \"@spam.example\"
        "
    );
    let server = Server::start(&head);
    session(&server);
    let path = server.dir().join("lines");
    let is_last = |line: &String| line.contains("(disconnect) ");
    until("the last line of the session", || {
        server.log().iter().any(is_last).then_some(())
    });
    // Of what was logged before, the plugin's process may have been told or not.
    let first = "listen: listening on";
    let expected = until("the lines of the plugin", || {
        let logged = texts(&server.log());
        let logged = logged.iter().skip_while(|text| !text.starts_with(first));
        // The file has no names, but for the core's; the plugin leaves out what is its own.
        let message = |text: &String| match text.split_once(": ") {
            Some(("logging/file", _)) => None,
            Some(("badmailfrom" | "rcpt_ok" | "queue/maildir", rest)) => Some(rest.to_owned()),
            _ => Some(text.clone()),
        };
        let logged: Vec<String> = logged.filter_map(message).collect();
        let told: Vec<String> = lines(&path)
            .iter()
            .map(|line| line.split_once("]: ").unwrap().1.to_owned())
            .skip_while(|text| !text.starts_with(first))
            .collect();
        (told.len() >= logged.len()).then_some((logged, told))
    });
    assert_eq!(expected.0, expected.1);
    assert!(expected.1.iter().any(|line| line.starts_with("fail")));
    assert!(expected.1.iter().any(|line| line.starts_with("listen: ")));
}

/// Each session has a worker of its own, which is not there yet when the first line of it is logged.
#[test]
fn all_lines_of_a_session_are_told_to_its_worker() {
    const SESSIONS: usize = 6;
    let plugins = tempfile::tempdir().unwrap();
    let code = r#"
sub note {
    open my $lines, '>>', "$DIR/lines" or die $!;
    syswrite $lines, "$$ $_[0]\n";
}
sub hook_logging { my ($self, $transaction, $level, $hook, $plugin, @log) = @_; note($1) if "@log" =~ /connection from (\S+)/; return DECLINED }
sub hook_connect { my $self = shift; note('hook ' . join ':', map { $self->connection->$_ } qw(remote_ip remote_port)); return DECLINED }
"#;
    let here = plugins.path().display().to_string();
    fs::write(plugins.path().join("own"), code.replace("$DIR", &here)).unwrap();
    let head = format!(
        "
        loglevel = \"debug\"
        [[plugin]]
        qpsmtpd = \"own\"
        plugin_dirs = [\"{here}\"]
        [[plugin]]
        name = \"rcpt_ok\"
        [[plugin]]
        name = \"queue/maildir\"
        "
    );
    let server = Server::start(&head);
    let clients: Vec<Client> = (0..SESSIONS)
        .map(|_| Client::greet(server.address()))
        .collect();
    let told = lines(&plugins.path().join("lines"));
    drop(clients);
    assert_eq!(told.len(), 2 * SESSIONS, "{told:#?}");
    for hook in told.iter().filter(|line| line.contains(" hook ")) {
        // Behind the line, and in the same process.
        let line = hook.replace(" hook ", " ");
        let place = |wanted: &String| told.iter().position(|line| line == wanted);
        assert!(
            place(&line).is_some_and(|at| Some(at) < place(hook)),
            "{told:#?}"
        );
    }
}

/// What it writes is a line of the daemon's log: it must not be told of that.
#[test]
fn what_a_follower_prints_comes_back_to_nobody() {
    let Some(package) = package() else { return };
    let warn = |process: &str| {
        format!(
            "
            [[plugin]]
            name = \"warn:{process}\"
            qpsmtpd = \"logging/warn LOGINFO\"
            plugin_dirs = [\"{package}\"]
            process = \"{process}\"
            "
        )
    };
    let python = tempfile::tempdir().unwrap();
    let file = python.path().join("audit.py");
    let code = r#"
import gatepost
from gatepost import hook

@hook("log")
def heard(session, level, plugin, hook, message):
    session.log(f"heard {level} {plugin} {hook} {message}")
    print(f"printed {message}")

if __name__ == "__main__":
    gatepost.run()
"#;
    fs::write(&file, code).unwrap();
    let head = format!(
        "
        {}{}
        [[plugin]]
        name = \"audit\"
        run = [\"python3\", \"{}\"]
        env = {{ PYTHONPATH = \"{}\" }}
        [[plugin]]
        name = \"rcpt_ok\"
        [[plugin]]
        name = \"queue/maildir\"
        ",
        warn("one"),
        warn("two"),
        file.display(),
        programs::root().join("sdk-python/src").display(),
    );
    let mut server = Server::start(&head);
    let mut client = Client::greet(server.address());
    client.ask("MAIL FROM:<alice@client.example>", "250");
    client.ask("RCPT TO:<bob@example.org>", "250");
    let found = "pass, example.org in rcpthosts";
    let said = [
        format!("one: stderr: * (rcpt) rcpt_ok: {found}"),
        format!("two: stderr: * (rcpt) rcpt_ok: {found}"),
        format!("audit: heard info rcpt_ok rcpt {found}"),
        format!("audit: stdout: printed {found}"),
    ];
    let times = |log: &[String]| {
        let is_said = |line: &&String, said: &String| {
            let (before, behind) = said.split_once('*').unwrap_or((said, said));
            line.contains(before) && line.ends_with(behind)
        };
        said.iter()
            .map(|said| log.iter().filter(|line| is_said(line, said)).count())
            .collect::<Vec<_>>()
    };
    until("each of them to hear it", || {
        times(&server.log())
            .iter()
            .all(|times| *times > 0)
            .then_some(())
    });
    client.ask("QUIT", "221");
    server.stop();
    // To its end, after which no line could cause another.
    let log = server.log();
    assert_eq!(times(&log), [1; 4], "{log:#?}");
    assert!(
        !log.iter().any(|line| line.contains("heard warn one")),
        "{log:#?}"
    );
}

/// Behind a reload the lines of a session are told where it still is, all others to who has taken the place of that.
#[test]
fn nothing_is_told_twice_behind_a_reload() {
    let plugins = tempfile::tempdir().unwrap();
    let here = plugins.path().display().to_string();
    let code = r#"
sub hook_logging {
    my ($self, $transaction, $level, $hook, $plugin, @log) = @_;
    open my $lines, '>>', "$DIR/lines" or die $!;
    syswrite $lines, "$$ @log\n";
    return DECLINED;
}
sub hook_helo { return DECLINED }
*hook_ehlo = \&hook_helo;
"#;
    fs::write(plugins.path().join("own"), code.replace("$DIR", &here)).unwrap();
    let head = format!(
        "
        [[plugin]]
        qpsmtpd = \"own\"
        plugin_dirs = [\"{here}\"]
        [[plugin]]
        name = \"rcpt_ok\"
        [[plugin]]
        name = \"queue/maildir\"
        [files]
        \"config/rcpthosts\" = \"old.example\\nnew.example\\n\"
        "
    );
    let server = Server::start(&head);
    let mut old = Client::greet(server.address());
    assert_eq!(server.command(&["reload"]).0, Some(0));
    let mut new = Client::greet(server.address());
    for (client, recipient) in [(&mut old, "bob@old.example"), (&mut new, "bob@new.example")] {
        client.ask("MAIL FROM:<alice@client.example>", "250");
        client.ask(&format!("RCPT TO:<{recipient}>"), "250");
    }
    let told = |what: &str| {
        let lines = lines(&plugins.path().join("lines"));
        let found = lines.iter().filter_map(|line| line.strip_suffix(what));
        found.map(str::to_owned).collect::<Vec<_>>()
    };
    let all = [
        " pass, old.example in rcpthosts",
        " pass, new.example in rcpthosts",
        " reload: the new configuration is in force",
    ];
    until("the lines of both", || {
        all.iter().all(|what| !told(what).is_empty()).then_some(())
    });
    new.ask("QUIT", "221");
    old.ask("QUIT", "221");
    let by = all.map(told);
    assert!(by.iter().all(|by| by.len() == 1), "{by:?}");
    assert_ne!(by[0], by[1], "{by:?}");
}
