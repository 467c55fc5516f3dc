//! `gatepost import qpsmtpd`: a site as qpsmtpd has it becomes a configuration that runs, with every line of `config/plugins` in its place.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use gatepost_tests::server::{Server, gatepost};
use gatepost_tests::smtp::Client;

const SITE: &[(&str, &str)] = &[
    (
        "config/plugins",
        "# who may relay\nrelay\n#dnsbl reject 0\nearlytalker wait 0\n$include own.list\nhelo policy lenient loglevel -1\nbadmailfrom reject 0\n\
         badrcptto\nwants_spf\nnot_there 1\nrcpt_ok\nqueue/maildir mail %d\n",
    ),
    ("config/own.list", "greet_twice:2 \"a b\"\n"),
    ("config/me", "mx.example.net\n"),
    ("config/databytes", "12345\n"),
    ("config/timeout", "600\n"),
    ("config/smtpgreeting", "hello there\n"),
    ("config/logging", "logging/warn LOGDEBUG\n"),
    ("config/rcpthosts", "# ours\nexample.org\n"),
    ("config/badmailfrom", "@evil.example\n"),
    (
        "config/badrcptto",
        "/(?=x)y/ no lookaround in the built-in\n",
    ),
    (
        "plugins/greet_twice",
        "use File::Temp;\nsub register { my ($self, $qp, @args) = @_; $self->{said} = \"@args\" }\n\
         sub hook_mail { my $self = shift; $self->log(LOGINFO, \"pass, told $self->{said}\"); return DECLINED }\n",
    ),
    (
        "plugins/badrcptto",
        "sub hook_rcpt { my $self = shift; $self->log(LOGINFO, 'pass, the old one'); return DECLINED }\n",
    ),
    (
        "plugins/wants_spf",
        "use Mail::SPF::No::Such;\nsub hook_mail { return DECLINED }\n",
    ),
];

fn site() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in SITE {
        let path = dir.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    dir
}

fn run(dir: &Path, words: &[&str]) -> Output {
    let mut command = Command::new(gatepost());
    command.args(words).current_dir(dir).stdin(Stdio::null());
    command.output().unwrap()
}

/// The configuration, and the report.
fn import(dir: &Path, more: &[&str]) -> (String, String) {
    let output = run(dir, &[&["import", "qpsmtpd", "."], more].concat());
    let report = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{report}");
    (String::from_utf8(output.stdout).unwrap(), report)
}

/// Asserts that these stand in the text in this order.
fn in_order(text: &str, wanted: &[&str]) {
    let mut rest = text;
    for want in wanted {
        match rest.split_once(want) {
            Some((_, behind)) => rest = behind,
            None => panic!("no {want:?} at its place in:\n{text}"),
        }
    }
}

#[test]
fn every_line_is_in_its_place() {
    let dir = site();
    let (config, report) = import(dir.path(), &[]);
    let here = dir.path().display();
    in_order(
        &config,
        &[
            "hostname = \"mx.example.net\"",
            &format!("flat_files = \"{here}/"),
            "# config/logging: logging/warn LOGDEBUG\n",
            "loglevel = \"debug\"",
            "[[listen]]",
            "max_size = 12345\n",
            "command_timeout = \"600s\"",
            "# who may relay\n",
            "# The built-in: ",
            "name = \"relay\"\n",
            "#dnsbl reject 0\n",
            "name = \"earlytalker\"\n",
            "# $include own.list\n",
            "qpsmtpd = 'greet_twice:2 \"a b\"'\n",
            "name = \"helo\"\npolicy = \"lenient\"\nloglevel = \"-1\"\n",
            "name = \"badmailfrom\"\nreject = false\n",
            "# Not the built-in: ",
            "qpsmtpd = \"badrcptto\"\n",
            "# Left out: Can't locate Mail/SPF/No/Such.pm",
            "#qpsmtpd = \"wants_spf\"\n",
            "# Left out: there is no plugin file `not_there`",
            "#qpsmtpd = \"not_there 1\"\n",
            "name = \"rcpt_ok\"\n",
            &format!("name = \"queue/maildir\"\npath = \"{here}/"),
        ],
    );
    // The trial's copies of flat files are gone.
    assert!(!config.contains("addresses"), "{config}");
    for line in [
        "relay: built-in relay\n",
        "greet_twice:2 \"a b\": Perl; uses File::Temp\n",
        "uses Mail::SPF::No::Such; missing: Mail::SPF::No::Such (libmail-spf-perl)\n",
        "not_there 1: LEFT OUT: there is no plugin file",
        "config/smtpgreeting: no counterpart",
        "apt-get install libmail-spf-perl\n",
        "2 of 10 plugins are left out",
    ] {
        assert!(report.contains(line), "{line}\n{report}");
    }
}

#[test]
fn what_comes_out_passes_the_check_and_is_not_written_over() {
    let dir = site();
    let (printed, _) = import(dir.path(), &[]);
    import(dir.path(), &["-o", "gatepost.toml"]);
    let file = dir.path().join("gatepost.toml");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), printed);
    let checked = run(dir.path(), &["check"]);
    let errors = String::from_utf8_lossy(&checked.stderr);
    assert!(checked.status.success(), "{errors}");
    let chain = String::from_utf8(checked.stdout).unwrap();
    let mail = chain
        .lines()
        .find(|line| line.starts_with("mail "))
        .unwrap();
    assert!(mail.ends_with("greet_twice:2, badmailfrom"), "{chain}");
    let again = run(
        dir.path(),
        &["import", "qpsmtpd", ".", "-o", "gatepost.toml"],
    );
    assert_eq!(again.status.code(), Some(2));
    assert_eq!(std::fs::read_to_string(&file).unwrap(), printed);
}

#[test]
fn every_line_can_stay_perl() {
    let dir = site();
    std::fs::write(
        dir.path().join("config/plugins"),
        "greet_twice\nbadrcptto\ngreet_twice\ncheck_loop\n",
    )
    .unwrap();
    std::fs::write(dir.path().join("plugins/check_loop"), "").unwrap();
    let (config, report) = import(&dir.path().join("config"), &["--perl"]);
    in_order(
        &config,
        &[
            "qpsmtpd = \"greet_twice\"\n",
            "qpsmtpd = \"badrcptto\"\n",
            "name = \"greet_twice:2\"\nqpsmtpd = \"greet_twice\"\n",
        ],
    );
    assert!(report.contains("badrcptto: Perl\n"), "{report}");
    assert!(report.contains("check_loop: Perl; BEWARE: "), "{report}");
}

#[test]
fn a_daemon_takes_mail_with_it() {
    let dir = site();
    let (config, _) = import(dir.path(), &[]);
    // A test's daemon has places and a listener of its own.
    let own = |line: &&str| {
        !["[[listen]]", "addr =", "spool_dir ="]
            .iter()
            .any(|start| line.starts_with(start))
    };
    let head: Vec<&str> = config.lines().filter(own).collect();
    let server = Server::start(&head.join("\n"));
    let mut client = Client::greet(server.address());
    let reply = client.deliver(b"From: alice@client.example\r\nSubject: x\r\n\r\nhello\r\n");
    assert!(reply.starts_with("250"), "{reply}");
    assert_eq!(
        std::fs::read_dir(dir.path().join("mail/example.org/new"))
            .unwrap()
            .count(),
        1
    );
    for wanted in [
        "greet_twice:2: pass, told \"a b\"",
        "badrcptto: pass, the old one",
    ] {
        server.wait_for_log(wanted, |text| text.contains(wanted));
    }
}

#[test]
fn who_could_use_cram_md5_still_can() {
    let dir = site();
    let plugins = dir.path().join("config/plugins");
    std::fs::write(
        &plugins,
        "auth/auth_flat_file\nrcpt_ok\nqueue/maildir mail\n",
    )
    .unwrap();
    std::fs::write(
        dir.path().join("config/flat_auth_pw"),
        "bob@example.org:secret\n",
    )
    .unwrap();
    let (config, _) = import(dir.path(), &[]);
    in_order(
        &config,
        &[
            "auth = \"always\"",
            "[auth]",
            "mechanisms = [\"CRAM-MD5\", \"PLAIN\", \"LOGIN\"]",
            "name = \"auth/auth_flat_file\"",
        ],
    );
    std::fs::write(&plugins, "rcpt_ok\nqueue/maildir mail\n").unwrap();
    assert!(!import(dir.path(), &[]).0.contains("mechanisms"));
}
