//! Postfix, from Debian's package `postfix`: what it took is dropped by its access rule DISCARD, or held in its queue.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command};

use gatepost_tests::postfix::{HOLD, Postfix};
use gatepost_tests::programs;
use gatepost_tests::wait::until;
use nix::unistd::Pid;
use tempfile::TempDir;

use super::daemon::{self, pid_of};
use super::{Keep, Peer, Server, Wanted};

pub static PEER: Peer = Peer {
    name: "Postfix",
    kept: Some("own queue, held; file synced"),
    no_op: Some("milter, Rust"),
    part: 1,
    start,
};

fn start(wanted: Wanted) -> Result<Box<dyn Server>, String> {
    let milter = match wanted.no_op {
        true => Some(Milter::start()?),
        false => None,
    };
    let mut settings = match wanted.keep {
        Keep::Nothing => "smtpd_recipient_restrictions = check_recipient_access static:DISCARD\n",
        Keep::Messages => HOLD,
    }
    .to_owned();
    if let Some(milter) = &milter {
        settings += &format!("smtpd_milters = unix:{}\n", milter.socket().display());
    }
    // Or it waits a second a message where its queue manager does not keep up, and of what is dropped that one never hears.
    settings += "in_flow_delay = 0\n";
    // A process for each session, and some of its own.
    settings += &format!("default_process_limit = {}\n", wanted.sessions + 100);
    let postfix = Postfix::start_with(&settings)?;
    Ok(Box::new(Running {
        master: postfix.master()?,
        postfix,
        milter,
    }))
}

struct Running {
    postfix: Postfix,
    master: Pid,
    milter: Option<Milter>,
}

impl Server for Running {
    fn address(&self) -> SocketAddr {
        self.postfix.address
    }

    fn roots(&self) -> Vec<Pid> {
        let milter = self.milter.iter().map(|milter| pid_of(&milter.child));
        std::iter::once(self.master).chain(milter).collect()
    }

    fn forget(&self) {
        self.postfix.forget();
    }
}

/// The milter without effect. It is killed when dropped.
struct Milter {
    child: Child,
    dir: TempDir,
}

impl Milter {
    fn start() -> Result<Milter, String> {
        let dir = daemon::folder("milter-")?;
        let child = Command::new(programs::bin().join("bench-plugin"))
            .arg("milter")
            .arg(socket(dir.path()))
            .spawn()
            .map_err(|error| error.to_string())?;
        let milter = Milter { child, dir };
        until("the milter to listen", || {
            milter.socket().exists().then_some(())
        });
        Ok(milter)
    }

    fn socket(&self) -> std::path::PathBuf {
        socket(self.dir.path())
    }
}

fn socket(dir: &Path) -> std::path::PathBuf {
    dir.join("socket")
}

impl Drop for Milter {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
