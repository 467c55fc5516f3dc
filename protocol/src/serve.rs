//! A Rust plugin as a process of its own: the plugin's side of the protocol (docs/protocol.md).

mod plugins;
mod remote;
#[cfg(test)]
mod tests;
mod view;
mod worker;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::AsyncRead;
use tokio::net::unix::pipe;
use tokio::net::{UnixListener, UnixStream};

use crate::channel::{ChannelError, FrameReader, FrameWriter, Sink};
use crate::plugin::Definition;

use worker::Worker;

/// What the environment variable says where two pipes are given: read from 3, write to 4.
const PIPES: &str = "3,4";

const USAGE: &str = "this is a Gatepost plugin: the server starts it. Put

    [[plugin]]
    name = \"NAME\"
    run = [\"/path/to/this/program\"]

into gatepost.toml; or start it by hand with --listen unix:/run/NAME.sock and put attach = \"unix:/run/NAME.sock\" there instead of run.";

/// Runs as a plugin process until the core is gone; for `fn main() -> ExitCode`. Which of `definitions` a configured plugin is, its `source`
/// says, or its name; where there is only one it is that. With `--listen unix:PATH` on the command line it waits for the core to come.
pub fn serve(definitions: &'static [Definition]) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return explain(&format!("cannot start: {error}"), 1),
    };
    let arguments: Vec<String> = std::env::args().collect();
    let listen = arguments
        .windows(2)
        .find(|pair| pair[0] == "--listen")
        .map(|pair| pair[1].as_str());
    runtime.block_on(async {
        if let Some(address) = listen {
            return match address.strip_prefix("unix:") {
                Some(path) => wait_for_core(definitions, path).await,
                None => explain("--listen takes unix:PATH", 2),
            };
        }
        if std::env::var("GATEPOST_FD").ok().as_deref() != Some(PIPES) {
            return explain(USAGE, 2);
        }
        match open_pipes() {
            Ok((reader, writer)) => finish(converse(definitions, reader, writer).await),
            Err(error) => explain(
                &format!("the pipes on descriptors {PIPES} cannot be used: {error}"),
                1,
            ),
        }
    })
}

fn explain(text: &str, code: u8) -> ExitCode {
    eprintln!("{text}");
    ExitCode::from(code)
}

fn finish(ended: Result<(), String>) -> ExitCode {
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => explain(&reason, 1),
    }
}

/// The inherited descriptors are opened anew, close-on-exec, and the inherited ones closed: the plugin's own children must not hold them.
fn open_pipes() -> std::io::Result<(pipe::Receiver, Sink)> {
    let reader = pipe::OpenOptions::new().open_receiver("/proc/self/fd/3")?;
    let writer = pipe::OpenOptions::new().open_sender("/proc/self/fd/4")?;
    for descriptor in [3, 4] {
        nix::unistd::close(descriptor)?;
    }
    Ok((reader, Sink::Pipe(writer)))
}

async fn wait_for_core(definitions: &'static [Definition], path: &str) -> ExitCode {
    // A socket left by an earlier run is in the way; one that somebody listens on is not ours to take.
    if UnixStream::connect(path).await.is_err() {
        let _ = std::fs::remove_file(path);
    }
    let listener = match UnixListener::bind(path) {
        Ok(listener) => listener,
        Err(error) => return explain(&format!("cannot listen on {path}: {error}"), 1),
    };
    loop {
        match listener.accept().await {
            Ok((socket, _)) => {
                tokio::spawn(async move {
                    let (reader, writer) = socket.into_split();
                    if let Err(reason) = converse(definitions, reader, Sink::Unix(writer)).await {
                        eprintln!("{reason}");
                    }
                });
            }
            Err(error) => return explain(&format!("cannot listen on {path} any more: {error}"), 1),
        }
    }
}

/// How long answers that are ready may be kept back for those behind them.
const HOLD: Duration = Duration::from_micros(200);

fn broken(error: ChannelError) -> String {
    format!("the server broke the plugin protocol: {error}")
}

/// Serves one channel to its end.
async fn converse<R>(
    definitions: &'static [Definition],
    source: R,
    sink: Sink,
) -> Result<(), String>
where
    R: AsyncRead + Unpin,
{
    let mut reader = FrameReader::new(source);
    let worker = Arc::new(Worker::new(definitions, FrameWriter::new(sink)));
    let conversation = async {
        worker.greet();
        loop {
            let Some(first) = reader.next().await.map_err(broken)? else {
                return Ok(());
            };
            worker.hold();
            let mut held = Instant::now();
            let mut next = Some(first);
            while let Some(payload) = next {
                if let Err(reason) = worker.receive(&payload) {
                    // What it said of that goes out first.
                    worker.release();
                    return Err(reason);
                }
                // Nobody is to wait long for an answer because others are being worked on.
                if held.elapsed() > HOLD {
                    worker.release();
                    worker.hold();
                    held = Instant::now();
                }
                next = reader.buffered().map_err(broken)?;
            }
            worker.release();
        }
    };
    tokio::select! {
        ended = conversation => ended,
        // The core is gone: the reader will see that too, and there is nobody to tell.
        _ = worker.flush() => Ok(()),
    }
}
