//! Root binds, and the daemon is its user's for good; so are its plugins and files. A user asks for no more (docs/running.md).

use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::process::Command;
use std::sync::atomic::{AtomicU16, Ordering};

use gatepost_tests::programs;
use gatepost_tests::server::{Server, gatepost};
use gatepost_tests::smtp::Client;
use nix::sys::signal::Signal;
use nix::unistd::{Pid, User, geteuid};

/// Who the daemon becomes: there on every system, with nothing of its own.
const USER: &str = "nobody";

/// A plugin that tries to become root, and says who it is.
const HEAD: &str = r#"
run_as = "nobody"
spool_dir = "$DIR/own"
[[listen]]
addr = "ADDRESS"
[files]
"who.py" = '''
import gatepost, os

@gatepost.hook("vrfy")
def vrfy(session):
    try:
        os.setuid(0)
        return gatepost.ok(reply="root")
    except PermissionError:
        return gatepost.ok(reply="users %s groups %s" % (os.getresuid(), os.getgroups()))

gatepost.run()
'''
[[plugin]]
name = "who"
run = ["python3", "$DIR/who.py"]
env = { PYTHONPATH = "$ROOT/sdk-python/src" }
[[plugin]]
name = "rcpt_ok"
[[plugin]]
name = "queue/maildir"
"#;

fn is_root() -> bool {
    let is_root = geteuid().is_root();
    if !is_root {
        programs::missing("only root can become another user: run the tests as root for these");
    }
    is_root
}

/// Another one each time.
fn privileged_address() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(1023);
    loop {
        let port = NEXT.fetch_sub(1, Ordering::Relaxed);
        assert!(port > 512, "a port below 1024 is free");
        let addr = SocketAddr::from(([127, 0, 0, 1], port));
        if TcpListener::bind(addr).is_ok() {
            return addr;
        }
    }
}

/// What the system says of a process, in a line of its `status`.
fn status(pid: Pid, name: &str) -> Vec<String> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let line = line.unwrap_or_else(|| panic!("no {name} in {status}"));
    line.split_whitespace().map(str::to_owned).collect()
}

/// A server in a folder that its user may enter.
fn start(head: &str) -> Server {
    let user = User::from_name(USER).unwrap().expect("there is nobody");
    Server::start_inside(head, |dir| {
        let mode = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(dir, mode).unwrap();
        std::fs::create_dir_all(dir.join("mail")).unwrap();
        for folder in [dir.to_owned(), dir.join("mail")] {
            chown(folder, Some(user.uid.as_raw()), Some(user.gid.as_raw())).unwrap();
        }
        Vec::new()
    })
}

#[test]
fn root_binds_and_becomes_its_user_for_good() {
    if !is_root() {
        return;
    }
    let user = User::from_name(USER).unwrap().expect("there is nobody");
    let (uid, gid) = (user.uid.to_string(), user.gid.to_string());
    let address = privileged_address();
    let server = start(&HEAD.replace("ADDRESS", &address.to_string()));
    assert_eq!(server.address(), address);
    let mut client = Client::greet(address);
    let who = client.ask("VRFY bob", "250");
    assert!(
        who.contains(&format!("users ({uid}, {uid}, {uid})")),
        "{who}"
    );
    assert!(!who.contains("groups [0") && !who.contains(" 0]"), "{who}");
    assert!(client.deliver(b"Subject: x\r\n\r\n").starts_with("250 "));
    let threads = std::fs::read_dir(format!("/proc/{}/task", server.pid())).unwrap();
    let mut seen = 0;
    for thread in threads {
        let thread = thread
            .unwrap()
            .file_name()
            .to_string_lossy()
            .parse()
            .unwrap();
        let thread = Pid::from_raw(thread);
        assert_eq!(status(thread, "Uid:"), vec![uid.clone(); 4]);
        assert_eq!(status(thread, "Gid:"), vec![gid.clone(); 4]);
        let groups = status(thread, "Groups:");
        assert!(
            groups.contains(&gid) && !groups.contains(&"0".to_owned()),
            "{groups:?}"
        );
        for capabilities in ["CapEff:", "CapPrm:", "CapInh:", "CapAmb:"] {
            assert_eq!(status(thread, capabilities), ["0000000000000000"]);
        }
        seen += 1;
    }
    assert!(seen > 1, "there are threads");
    let delivered = server.delivered();
    let files = [
        server.dir().join("own/control"),
        server.dir().join("own"),
        delivered[0].clone(),
    ];
    for file in files {
        let metadata = std::fs::metadata(&file).unwrap();
        let owner = (metadata.uid(), metadata.gid());
        assert_eq!(
            owner,
            (user.uid.as_raw(), user.gid.as_raw()),
            "{}",
            file.display()
        );
    }
    // What only root could do is not done again, and the daemon says so; what is there stays.
    let config = server.dir().join("gatepost.toml");
    let before = std::fs::read_to_string(&config).unwrap();
    let more = format!(
        "{before}\n[[listen]]\naddr = \"{}\"\n",
        privileged_address()
    );
    std::fs::write(&config, more).unwrap();
    let (code, _, errors) = server.command(&["reload"]);
    assert_eq!(code, Some(2), "{errors}");
    assert!(errors.contains("ports below 1024 need root"), "{errors}");
    client.ask("NOOP", "250");
    std::fs::write(&config, before).unwrap();
    let (code, _, errors) = server.command(&["reload"]);
    assert_eq!((code, &*errors), (Some(0), ""));
}

#[test]
fn an_upgrade_needs_no_root_for_a_privileged_port() {
    if !is_root() {
        return;
    }
    let address = privileged_address();
    let server = start(&HEAD.replace("ADDRESS", &address.to_string()));
    let (code, text, errors) = server.command(&["upgrade"]);
    assert_eq!((code, &*errors), (Some(0), ""), "{:?}", server.log());
    let pid: i32 = text.split(' ').nth(1).unwrap().parse().unwrap();
    let pid = Pid::from_raw(pid);
    let is_served = TcpStream::connect(address).map(|_| ());
    let ids = status(pid, "Uid:");
    nix::sys::signal::kill(pid, Signal::SIGKILL).unwrap();
    is_served.unwrap();
    let user = User::from_name(USER).unwrap().expect("there is nobody");
    assert_eq!(ids, vec![user.uid.to_string(); 4]);
}

#[test]
fn who_cannot_become_its_user_does_not_start() {
    let attempt = |run_as: &str, through: &[&str]| {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("gatepost.toml");
        let mut file = std::fs::File::create(&config).unwrap();
        let spool = folder.path().join("spool");
        let text = format!(
            "run_as = \"{run_as}\"\nspool_dir = \"{}\"\n",
            spool.display()
        );
        file.write_all(text.as_bytes()).unwrap();
        let open = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(folder.path(), open).unwrap();
        let gatepost = gatepost();
        let mut words = through
            .iter()
            .map(std::ffi::OsStr::new)
            .chain([gatepost.as_os_str()]);
        let mut command = Command::new(words.next().unwrap());
        command.args(words).args(["run", "-c"]).arg(&config);
        let output = command.current_dir(folder.path()).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        assert!(!spool.exists(), "nothing was made");
        String::from_utf8(output.stderr).unwrap()
    };
    let unknown = attempt("no-such-user", &[]);
    assert!(
        unknown.contains("there is no user `no-such-user`"),
        "{unknown}"
    );
    let root = attempt("root", &[]);
    assert!(root.contains("name another user"), "{root}");
    if !is_root() {
        let other = attempt(USER, &[]);
        assert!(other.contains("only root can become `nobody`"), "{other}");
        return;
    }
    let Some(setpriv) = programs::needed("setpriv") else {
        return;
    };
    let words = [
        setpriv.to_str().unwrap(),
        "--reuid=1",
        "--regid=1",
        "--clear-groups",
    ];
    let other = attempt(USER, &words);
    assert!(other.contains("only root can become `nobody`"), "{other}");
}
