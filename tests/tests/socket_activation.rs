//! Sockets that systemd listens on (LISTEN_FDS), and what it is told (NOTIFY_SOCKET): docs/running.md.

use std::net::SocketAddr;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use gatepost_tests::programs;
use gatepost_tests::server::{Server, gatepost};
use gatepost_tests::smtp::Client;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const CHAIN: &str = "[[plugin]]\nname = \"rcpt_ok\"\n[[plugin]]\nname = \"queue/maildir\"\n";

/// Does what systemd does: listens, and becomes the daemon with the sockets from descriptor 3 on.
const MANAGER: &str = r#"
import os, socket, sys
addresses, notify, command = sys.argv[1].split(), sys.argv[2], sys.argv[3:]
kept = []
for address in addresses:
    if address.startswith("/"):
        it = socket.socket(socket.AF_UNIX)
        it.bind(address)
    else:
        host, port = address.rsplit(":", 1)
        it = socket.socket()
        it.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        it.bind((host, int(port)))
    it.listen(16)
    kept.append(os.dup2(it.fileno(), 30 + len(kept)))
for number, socket in enumerate(kept):
    os.dup2(socket, 3 + number)
    os.set_inheritable(3 + number, True)
    os.close(socket)
os.environ.update(LISTEN_FDS=str(len(kept)), LISTEN_PID=str(os.getpid()), NOTIFY_SOCKET=notify, WATCHDOG_USEC="200000", WATCHDOG_PID=str(os.getpid()))
os.execvp(command[0], command)
"#;

fn manager(dir: &Path, sockets: &str) -> Vec<std::ffi::OsString> {
    let notify = dir.join("notify").display().to_string();
    let words = ["python3", "-c", MANAGER, sockets, &notify];
    words.iter().map(Into::into).collect()
}

/// What the manager is told next, the watchdog's news aside.
fn told(socket: &UnixDatagram) -> String {
    let mut message = [0; 4096];
    loop {
        let length = socket.recv(&mut message).expect("the manager is told");
        let text = String::from_utf8_lossy(&message[..length]).into_owned();
        if text != "WATCHDOG=1" {
            return text;
        }
    }
}

#[test]
fn it_serves_at_the_sockets_it_is_given_and_says_how_it_is() {
    let address = programs::free_address();
    let (mut notified, mut lmtp) = (None, None);
    let listen = format!(
        "[[listen]]\naddr = \"{address}\"\n[[listen]]\naddr = \"unix:$DIR/lmtp\"\nprotocol = \"lmtp\"\n{CHAIN}"
    );
    let wrap = std::cell::RefCell::new((&mut notified, &mut lmtp));
    let server = Server::start_inside(&listen, |dir| {
        let mut wrap = wrap.borrow_mut();
        let socket = UnixDatagram::bind(dir.join("notify")).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        *wrap.0 = Some(socket);
        let path = dir.join("lmtp");
        let sockets = format!("{address} {}", path.display());
        *wrap.1 = Some(path);
        manager(dir, &sockets)
    });
    let (notified, lmtp) = (notified.unwrap(), lmtp.unwrap());
    assert_eq!(told(&notified), "READY=1");
    assert_eq!(server.address(), address);
    assert!(
        Client::greet(address)
            .deliver(b"Subject: x\r\n\r\n")
            .starts_with("250 ")
    );
    std::os::unix::net::UnixStream::connect(&lmtp).unwrap();
    let (code, _, errors) = server.command(&["reload"]);
    assert_eq!((code, &*errors), (Some(0), ""));
    let reloading = told(&notified);
    let since = reloading.strip_prefix("RELOADING=1\nMONOTONIC_USEC=");
    assert!(
        since.is_some_and(|since| since.parse::<u64>().is_ok()),
        "{reloading}"
    );
    assert_eq!(told(&notified), "READY=1");
    let (code, text, errors) = server.command(&["upgrade"]);
    assert_eq!((code, &*errors), (Some(0), ""));
    let pid: i32 = text.split(' ').nth(1).unwrap().parse().unwrap();
    assert_eq!(told(&notified), format!("MAINPID={pid}\nREADY=1"));
    assert!(
        Client::greet(address)
            .deliver(b"Subject: x\r\n\r\n")
            .starts_with("250 ")
    );
    let mut message = [0; 64];
    let length = notified.recv(&mut message).unwrap();
    assert_eq!(&message[..length], b"WATCHDOG=1");
    kill(Pid::from_raw(pid), Signal::SIGTERM).unwrap();
    assert_eq!(told(&notified), "STOPPING=1");
    gatepost_tests::wait::until("the end of the new daemon", || {
        std::fs::read_to_string(format!("/proc/{pid}/status"))
            .map_or(true, |status| status.contains("State:\tZ"))
            .then_some(())
    });
    assert!(lmtp.exists(), "the file is the manager's");
}

#[test]
fn a_socket_that_nobody_configured_is_a_mistake() {
    let dir = tempfile::tempdir().unwrap();
    let refused = |sockets: &str, listen: SocketAddr| {
        let config = dir.path().join("gatepost.toml");
        let spool = dir.path().join("spool");
        let text = format!(
            "spool_dir = \"{}\"\n[[listen]]\naddr = \"{listen}\"\n",
            spool.display()
        );
        std::fs::write(&config, text).unwrap();
        let words = manager(dir.path(), sockets);
        let mut command = Command::new(&words[0]);
        command
            .args(&words[1..])
            .arg(gatepost())
            .args(["run", "-c"])
            .arg(&config);
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    let (given, configured) = (programs::free_address(), programs::free_address());
    let errors = refused(&given.to_string(), configured);
    let wanted = format!("a socket at {given} was passed (LISTEN_FDS)");
    assert!(errors.contains(&wanted), "{errors}");
}
