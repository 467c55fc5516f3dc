//! Plugins with `confine`, in Python and in Perl, that take what they are not to have: each comes up against its limit, the log says so, and
//! nobody else feels it.

use std::fs::{self, Permissions};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use gatepost_tests::programs;
use gatepost_tests::server::{Server, gatepost};
use gatepost_tests::smtp::Client;
use nix::libc;
use nix::sys::signal::Signal;
use nix::unistd::{Pid, User, geteuid};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch};
use tempfile::TempDir;

const MESSAGE: &[u8] = b"Subject: x\r\n\r\nhello\r\n";

/// The line of the plugin in either language.
const LANGUAGES: [&str; 2] = [
    "run = ['python3', '$ROOT/tests/plugins/offender.py']",
    "qpsmtpd = 'offender'\nplugin_dirs = ['$ROOT/tests/plugins/qpsmtpd']",
];

/// A user of its own, and everything but CPU time bounded.
const ALL: &str = "user = 'nobody', memory = '160MB', open_files = 40, processes = 60, network = false, write = ['ALLOWED']";

/// Whether a plugin of the user nobody can be had here; says so where not.
fn others_can_run() -> bool {
    if !geteuid().is_root() {
        programs::missing("only root can start a plugin as another user");
        return false;
    }
    let sdk = programs::root().join("sdk-python/src/gatepost/__init__.py");
    let reads = Command::new(gatepost())
        .args(["confine", "--user", "nobody", "--", "test", "-r"])
        .arg(&sdk)
        .status()
        .unwrap();
    if !reads.success() {
        programs::missing("the project is in a folder that the user nobody cannot read");
    }
    reads.success()
}

/// A folder that everybody may write to, as far as its permissions go.
fn open_folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), Permissions::from_mode(0o777)).unwrap();
    let there = folder.path().join("there");
    fs::write(&there, "x").unwrap();
    fs::set_permissions(there, Permissions::from_mode(0o666)).unwrap();
    folder
}

/// A server with the offender, who is asked about clients that say EHLO bad.example, and the places that it tries.
struct Scene {
    server: Server,
    outside: TempDir,
    allowed: TempDir,
    listener: TcpListener,
}

impl Scene {
    fn new(language: &str, confine: &str) -> Scene {
        let (outside, allowed) = (open_folder(), open_folder());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        let at = |folder: &TempDir| folder.path().display().to_string();
        let confine = confine.replace("ALLOWED", &at(&allowed));
        let server = Server::start(&format!(
            "
            [[plugin]]
            name = 'offender'
            {language}
            env = {{ PYTHONPATH = '$ROOT/sdk-python/src', OUTSIDE = '{}', ALLOWED = '{}', PORT = '{port}' }}
            confine = {{ {confine} }}
            timeout = '1h'
            on_error = 'tempfail'
            when = 'hello_host == \"bad.example\"'

            [[plugin]]
            name = 'rcpt_ok'

            [[plugin]]
            name = 'queue/maildir'
            ",
            at(&outside),
            at(&allowed)
        ));
        Scene {
            server,
            outside,
            allowed,
            listener,
        }
    }

    /// Has the offender do something; the reply begins with `code`, and the log says `said` of it.
    fn does(&self, deed: &str, code: &str, said: &[&str]) {
        let mut client = self.client();
        client.ask(&format!("RCPT TO:<{deed}@example.org>"), code);
        for said in said {
            self.server.wait_for_log(said, |line| {
                line.contains("offender") && line.contains(said)
            });
        }
    }

    fn client(&self) -> Client {
        let mut client = Client::connect(self.server.address());
        client.ask("EHLO bad.example", "250");
        client.ask("MAIL FROM:<alice@client.example>", "250");
        client
    }

    /// Somebody else gets a message through.
    fn others_deliver(&self) {
        let mut calm = Client::greet(self.server.address());
        let reply = calm.deliver(MESSAGE);
        assert!(reply.starts_with("250 2."), "{reply:?}");
    }
}

fn folder_names(folder: &Path) -> Vec<String> {
    let names = fs::read_dir(folder).unwrap();
    let mut names: Vec<_> = names
        .map(|name| name.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn each_limit_holds_in_each_language() {
    if !others_can_run() {
        return;
    }
    let nobody = User::from_name("nobody").unwrap().unwrap();
    let who = format!(
        "who: {} {} [{}] no_new_privs 1, cannot be root",
        nobody.uid, nobody.gid, nobody.gid
    );
    for (language, out_of_memory) in LANGUAGES.into_iter().zip(["MemoryError", "Out of memory"]) {
        let scene = Scene::new(language, ALL);
        scene.does("who", "250", &[&who]);
        scene.does("memory", "450", &[out_of_memory]);
        scene.does("files", "450", &["Too many open files"]);
        scene.does("fork", "450", &["Resource temporarily unavailable"]);
        scene.does("connect", "450", &["Permission denied"]);
        scene.does("write", "450", &["Permission denied"]);
        scene.does("cut", "450", &["Permission denied"]);
        scene.does("allowed", "250", &["allowed: written"]);
        scene.others_deliver();
        let log = scene.server.log();
        let denied = log
            .iter()
            .filter(|line| line.contains("offender: error") && line.contains("Permission denied"));
        assert_eq!(denied.count(), 3, "{log:#?}");
        assert!(scene.listener.accept().is_err(), "it came through");
        assert_eq!(folder_names(scene.outside.path()), ["there"]);
        assert_eq!(fs::read(scene.outside.path().join("there")).unwrap(), b"x");
        assert_eq!(folder_names(scene.allowed.path()), ["file", "there"]);
    }
}

/// Whether control groups can be made here; says so where not.
fn groups_can_be_made(confine: &str) -> bool {
    let server = tempfile::tempdir().unwrap();
    let config = server.path().join("gatepost.toml");
    let text = format!(
        "spool_dir = '{}'\n[[listen]]\naddr = '127.0.0.1:0'\n[[plugin]]\nname = 'x'\nrun = ['true']\nconfine = {{ {confine} }}\n",
        server.path().join("spool").display()
    );
    fs::write(&config, text).unwrap();
    let mut check = Command::new(gatepost());
    let output = check.arg("check").arg("-c").arg(config).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    let can = !said.contains("control group");
    if !can {
        programs::missing(&format!("no control groups can be made: {said}"));
    }
    can
}

/// Whatever the workers of a plugin start is with them in their group; it counts for all of them together, and ends with them.
#[test]
fn a_group_is_bounded_as_a_whole_and_ends_with_the_daemon() {
    let confine = "total_memory = '100MB', total_processes = 24";
    if !groups_can_be_made(confine) {
        return;
    }
    for language in LANGUAGES {
        let mut scene = Scene::new(language, confine);
        scene.does("who", "250", &["who: "]);
        scene.does("fork", "450", &["Resource temporarily unavailable"]);
        scene.does(
            "memory",
            "450",
            &["the memory of its control group is used up"],
        );
        scene.others_deliver();
        if language.starts_with("run") {
            scene.server.wait_for_log("another worker", |line| {
                line.contains("worker 1 is ready again")
            });
        }
        scene.does("allowed", "250", &["allowed: written"]);
        let groups = groups_of(scene.server.pid());
        assert!(!groups.is_empty(), "it is in a group");
        assert!(scene.server.stop().success());
        for group in groups {
            assert!(!group.exists(), "{}", group.display());
        }
    }
}

/// What a daemon that was killed leaves is removed by the next one.
#[test]
fn groups_of_a_killed_daemon_are_removed() {
    let confine = "total_processes = 24";
    if !groups_can_be_made(confine) {
        return;
    }
    let mut killed = Scene::new(LANGUAGES[0], confine);
    let left = groups_of(killed.server.pid());
    assert!(!left.is_empty(), "it has a group");
    killed.server.signal(Signal::SIGKILL);
    killed.server.wait();
    let mut next = Scene::new(LANGUAGES[0], confine);
    next.does("who", "250", &["who: "]);
    for group in left {
        assert!(!group.exists(), "{}", group.display());
    }
    // It removes its own.
    assert!(next.server.stop().success());
}

/// The control groups that a daemon has made.
fn groups_of(daemon: Pid) -> Vec<PathBuf> {
    let output = Command::new("find")
        .args(["/sys/fs/cgroup", "-type", "d", "-name"])
        .arg(format!("gatepost-plugin.{daemon}.*"))
        .output()
        .unwrap();
    let folders = String::from_utf8(output.stdout).unwrap();
    folders.lines().map(PathBuf::from).collect()
}

#[test]
fn cpu_time_ends_and_nobody_else_waits() {
    for language in LANGUAGES {
        let scene = Scene::new(language, "cpu = '2s', no_new_privs = true");
        scene.does("who", "250", &["no_new_privs 1, "]);
        let mut client = scene.client();
        client.send(b"RCPT TO:<spin@example.org>\r\n");
        scene.others_deliver();
        client.expect("450");
        scene
            .server
            .wait_for_log("the signal of an end of CPU time", |line| {
                line.contains("offender") && line.contains("died of signal 24")
            });
        if language.starts_with("run") {
            scene.server.wait_for_log("another worker", |line| {
                line.contains("worker 1 is ready again")
            });
        }
        // A copy of what loaded a Perl plugin is there at once.
        scene.does("allowed", "250", &["allowed: written"]);
    }
}

/// Without settings that ask for it, nothing is taken: the offender writes, connects, is who the daemon is, and gains what set-user-ID programs give.
#[test]
fn what_is_not_asked_for_is_not_taken() {
    let scene = Scene::new(LANGUAGES[0], "open_files = 64");
    let root = match geteuid().is_root() {
        true => "no_new_privs 0, can be root",
        false => "no_new_privs 0, cannot be root",
    };
    scene.does("who", "250", &[root]);
    scene.does("connect", "250", &["connect: connected"]);
    scene.does("write", "250", &["write: inside, and outside"]);
    scene.does("files", "450", &["Too many open files"]);
}

/// What `gatepost check` says of a plugin with this `confine`, in this thread's state.
fn check(confine: &str) -> Output {
    check_as(&mut Command::new(gatepost()), confine)
}

/// The same by a command that becomes `gatepost` with the arguments that it is given.
fn check_as(gatepost: &mut Command, confine: &str) -> Output {
    let folder = open_folder();
    let plugin = programs::root().join("plugin-examples/python/refuse_recipient.py");
    let configuration = format!(
        "
        hostname = 'mx.example.org'
        spool_dir = 'spool'
        [[plugin]]
        name = 'vip'
        run = ['python3', '{}']
        env = {{ PYTHONPATH = '{}' }}
        addresses = []
        confine = {{ {confine} }}
        ",
        plugin.display(),
        programs::root().join("sdk-python/src").display(),
    );
    fs::write(folder.path().join("gatepost.toml"), configuration).unwrap();
    gatepost
        .args(["check", "-c", "gatepost.toml"])
        .current_dir(folder.path())
        .output()
        .unwrap()
}

/// The same where the kernel refuses a system call, as one without it does.
fn check_without(call: libc::c_long, confine: &'static str) -> Output {
    // A filter is of a thread and what it starts: it ends with this one.
    std::thread::spawn(move || {
        let filter = SeccompFilter::new(
            [(call, Vec::new())].into(),
            SeccompAction::Allow,
            SeccompAction::Errno(libc::ENOSYS.unsigned_abs()),
            TargetArch::try_from(std::env::consts::ARCH).unwrap(),
        );
        let filter: BpfProgram = filter.unwrap().try_into().unwrap();
        seccompiler::apply_filter(&filter).unwrap();
        check(confine)
    })
    .join()
    .unwrap()
}

fn assert_refused(output: &Output, what: &str, to_do: &str) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("gatepost.toml:4:9: "), "{said}");
    assert!(said.contains(what) && said.contains(to_do), "{said}");
}

#[test]
fn a_plugin_is_not_started_with_less_than_was_asked() {
    let output = check("network = false, write = []");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert_refused(
        &check_without(libc::SYS_landlock_create_ruleset, "write = []"),
        "`write`: this kernel cannot keep a program from writing elsewhere: ",
        "Landlock as of Linux 6.2",
    );
    assert_refused(
        &check_without(libc::SYS_seccomp, "network = false"),
        "`network`: this kernel cannot keep a program from the network: ",
        "remove `network`",
    );
    assert_refused(
        &check("open_files = 1048576"),
        "`open_files` cannot be set to 1048576",
        "lower `open_files`",
    );
}

#[test]
fn who_is_not_root_cannot_have_plugins_of_other_users() {
    let other = "user = 'daemon'";
    let output = if !geteuid().is_root() {
        check(other)
    } else if others_can_run() {
        let mut command = Command::new(gatepost());
        command.args(["confine", "--user", "nobody", "--"]);
        check_as(command.arg(gatepost()), other)
    } else {
        return;
    };
    let to_do = "only a daemon that runs as root can have plugins with a `user`";
    assert_refused(&output, "cannot be given to the plugin's user", to_do);
}
