//! What a service manager is told of the daemon's state: sd_notify(3), which is a datagram to the socket that NOTIFY_SOCKET names. Without that variable nothing happens.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use gatepost_protocol::Level;
use rustix::time::{ClockId, clock_gettime};

use crate::report;

/// Whose lines these are in the log.
const LOGGED_AS: &str = "gatepost";

/// A state of the daemon.
#[derive(Clone, Copy, Debug)]
pub enum State {
    /// It serves; after a start and after a reload.
    Ready,
    /// It makes everything anew; `Ready` follows, whatever comes of it.
    Reloading,
    /// It ends.
    Stopping,
    /// The daemon is this process from now on.
    MainProcess(u32),
    /// It is not stuck.
    Alive,
}

/// Tells it. What cannot be told is in the log, and nothing else comes of it.
pub fn tell(state: State) {
    let Some(name) = std::env::var_os("NOTIFY_SOCKET") else {
        return;
    };
    let message = match state {
        State::Ready => "READY=1".to_owned(),
        State::Reloading => {
            let now = clock_gettime(ClockId::Monotonic);
            // The manager takes a READY=1 for the end of this reload if it is younger than that.
            let micros = now.tv_sec * 1_000_000 + now.tv_nsec / 1000;
            format!("RELOADING=1\nMONOTONIC_USEC={micros}")
        }
        State::Stopping => "STOPPING=1".to_owned(),
        State::MainProcess(pid) => format!("MAINPID={pid}\nREADY=1"),
        State::Alive => "WATCHDOG=1".to_owned(),
    };
    let name = name.as_encoded_bytes();
    let address = match name.strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(std::path::Path::new(&*String::from_utf8_lossy(name))),
    };
    let sent = address.and_then(|address| {
        let socket = UnixDatagram::unbound()?;
        // Nobody waits for a manager that does not read.
        socket.set_nonblocking(true)?;
        socket.send_to_addr(message.as_bytes(), &address)
    });
    if let Err(error) = sent {
        let text = format_args!("the service manager is not told {message:?}: {error}");
        report::line(Level::Warn, "", None, LOGGED_AS, text);
    }
}

/// Says again and again that the daemon is not stuck, where the manager wants to hear it (`WatchdogSec=`). `is_successor`: it is another process than the manager started.
pub async fn keep_alive(is_successor: bool) {
    let number = |name| std::env::var(name).ok()?.parse::<u64>().ok();
    let is_ours = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
    let Some(time) = number("WATCHDOG_USEC").filter(|time| *time > 0 && (is_ours || is_successor))
    else {
        return;
    };
    // As sd_watchdog_enabled(3) advises: twice as often as is wanted.
    let mut turns = tokio::time::interval(Duration::from_micros((time / 2).max(1)));
    loop {
        turns.tick().await;
        tell(State::Alive);
    }
}
