//! The least that a round trip to another process costs on this machine: a byte there and back over two pipes, and nothing else.

use std::io::{Read, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Instant;

use gatepost_tests::programs::bin;

/// A process that returns every byte.
pub struct Floor {
    pub name: String,
    child: Child,
    to: ChildStdin,
    from: ChildStdout,
}

impl Floor {
    /// Starts one that is busy for so many microseconds before it answers.
    pub fn start(name: &str, work: u32) -> Floor {
        let mut child = Command::new(bin().join("bench-plugin"))
            .args(["echo", &work.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("bench-plugin starts");
        Floor {
            name: name.to_owned(),
            to: child.stdin.take().expect("it was asked for"),
            from: child.stdout.take().expect("it was asked for"),
            child,
        }
    }

    /// Microseconds of each round trip, one after the other.
    pub fn measure(&mut self, trips: usize) -> Vec<f64> {
        let mut byte = [0];
        let mut trip = || -> std::io::Result<f64> {
            let started = Instant::now();
            self.to.write_all(&byte)?;
            self.from.read_exact(&mut byte)?;
            Ok(started.elapsed().as_secs_f64() * 1e6)
        };
        (0..trips)
            .map(|_| trip().expect("bench-plugin answers"))
            .collect()
    }
}

impl Drop for Floor {
    fn drop(&mut self) {
        // It would end by itself with its standard input; nobody is to be left behind in any case.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
