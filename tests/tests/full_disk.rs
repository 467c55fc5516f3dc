//! A full disk, under the spool and under the Maildir: 451, nothing acknowledged or left behind, and recovery without a restart.

use std::ffi::OsString;
use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::process::Command;

use gatepost_tests::programs;
use gatepost_tests::server::Server;
use gatepost_tests::smtp::Client;

/// Bytes of the small disk.
const DISK: usize = 4 << 20;

/// The daemon, with `folder` (`mail` or `spool`) on a small disk of its own. `None`, loudly, where this machine gives us no such disk.
fn on_small_disk(folder: &str) -> Option<Server> {
    // A mount namespace of the daemon's own keeps the machine as it is, and works without being root where the system allows it.
    let mount = format!("mount -t tmpfs -o size={DISK} small \"$0/{folder}\"");
    let as_root = nix::unistd::geteuid().is_root();
    let flags = if as_root { "-m" } else { "-rm" };
    let possible = Command::new("unshare")
        .args([flags, "sh", "-c", "mount -t tmpfs small /mnt"])
        .output()
        .is_ok_and(|output| output.status.success());
    if !possible {
        programs::missing(
            "a full disk: this machine lets us mount nothing, not even in a namespace",
        );
        return None;
    }
    let config = "[limits]\nmemory_per_message = \"64KB\"";
    let script = format!("{mount} && exec \"$@\"");
    Some(Server::start_inside(config, |dir| {
        let words = ["unshare", flags, "sh", "-c", &script];
        let words = words.into_iter().map(OsString::from);
        words.chain([dir.into()]).collect()
    }))
}

/// Fills the small disk, as the daemon sees it, but for a few kilobytes.
fn fill(server: &Server, folder: &str) -> PathBuf {
    let dir = server.dir().join(folder);
    let inside = dir.strip_prefix("/").expect("an absolute path");
    let filler = PathBuf::from(format!("/proc/{}/root", server.pid()))
        .join(inside)
        .join("filler");
    let mut file = File::create(&filler).expect("a file on the small disk");
    file.write_all(&vec![b'x'; DISK - (16 << 10)])
        .expect("it is large enough");
    filler
}

fn message() -> Vec<u8> {
    let mut message = b"Subject: large\r\n\r\n".to_vec();
    message.extend(b"this line is thirty-two bytes.\r\n".repeat(32 << 10));
    message
}

fn full(folder: &str, reason: &str) {
    let Some(mut server) = on_small_disk(folder) else {
        return;
    };
    let filler = fill(&server, folder);
    let mut client = Client::greet(server.address());
    for _ in 0..2 {
        let reply = client.deliver(&message());
        assert!(reply.starts_with("451 4.3."), "{reply:?}");
    }
    server.wait_for_log("a line about the disk", |text| {
        text.contains(reason) && text.contains("No space left on device")
    });
    std::fs::remove_file(filler).expect("the filler can be removed");
    let reply = client.deliver(&message());
    assert!(reply.starts_with("250 2."), "{reply:?}");
    client.ask("QUIT", "221");
    assert!(server.stop().success());
}

#[test]
fn of_the_spool() {
    full("spool", "spool");
}

#[test]
fn of_the_maildir() {
    full("mail", "queue/maildir");
}
