//! Passes silently on five hooks: what remains is the cost of asking. As `bench-plugin echo MICROSECONDS` it speaks no protocol at all and returns
//! every byte of its standard input after so much work: the floor that a round trip stands on. As `bench-plugin milter SOCKET` and
//! `bench-plugin opensmtpd-filter` it is the same for Gatepost's peers.

mod filter;
mod milter;

use std::io::{self, Read, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use gatepost_protocol::{Answer, Call, Definition, Hook, Outcome, Plugin, Subscription, serve};

static PLUGINS: [Definition; 1] = [Definition {
    name: "bench",
    about: "passes silently",
    settings: Vec::new,
    build: |_| Ok(Arc::new(Silent)),
}];

struct Silent;

impl Plugin for Silent {
    fn subscriptions(&self) -> Vec<Subscription> {
        use Hook::*;
        [Connect, Helo, Ehlo, Mail, Rcpt, DataPost]
            .map(|hook| Subscription::to(hook, &[]))
            .into()
    }

    fn call<'a>(&'a self, _call: &'a Call<'a>) -> Answer<'a> {
        Outcome::declined().into()
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    match &arguments[1..] {
        [echo, work] if echo == "echo" => {
            let work = work.parse().expect("microseconds");
            // The end of the pipe either way.
            let _ = return_bytes(Duration::from_micros(work));
            ExitCode::SUCCESS
        }
        [milter, socket] if milter == "milter" => ended(milter::serve(Path::new(socket))),
        [filter] if filter == "opensmtpd-filter" => ended(filter::serve()),
        _ => serve(&PLUGINS),
    }
}

fn ended(how: io::Result<()>) -> ExitCode {
    match how {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench-plugin: {error}");
            ExitCode::FAILURE
        }
    }
}

fn return_bytes(work: Duration) -> io::Result<()> {
    let mut byte = [0];
    loop {
        io::stdin().read_exact(&mut byte)?;
        let started = Instant::now();
        while started.elapsed() < work {
            std::hint::spin_loop();
        }
        let mut out = io::stdout();
        out.write_all(&byte)?;
        out.flush()?;
    }
}
