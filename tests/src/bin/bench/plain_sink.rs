//! A plain SMTP sink: a thread for each session, no chain, no limits and no look at what it gets. What it costs is what SMTP and the disk cost.
//!
//! It counts on a client that waits for every reply, as smtp-source does: what is read ends with a command, or with the end of data.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;

use crate::disk::Folder;

/// Sessions at once, more than any load has.
const SESSIONS: usize = 32;

/// Bytes of a read, so that a large message takes few.
const READ: usize = 256 << 10;

/// RFC 5321 §4.1.1.4.
const END_OF_DATA: &[u8; 5] = b"\r\n.\r\n";

/// Starts a sink that keeps each message in the folder before its 250, or drops it; returns where it listens. It runs as long as the benchmark.
pub fn start(folder: Option<Arc<Folder>>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port of loopback is free");
    let address = listener.local_addr().expect("it has an address");
    let listener = Arc::new(listener);
    for _ in 0..SESSIONS {
        let (listener, folder) = (Arc::clone(&listener), folder.clone());
        std::thread::spawn(move || {
            let mut buffer = vec![0; READ];
            while let Ok((stream, _)) = listener.accept() {
                // The client mentions a session that broke off, and that ends the benchmark.
                if let Err(error) = session(stream, folder.as_deref(), &mut buffer) {
                    eprintln!("the plain sink: {error}");
                }
            }
        });
    }
    address
}

fn session(mut stream: TcpStream, folder: Option<&Folder>, buffer: &mut [u8]) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.write_all(b"220 plain.example\r\n")?;
    while let Some(letter) = command(&mut stream, buffer)? {
        match letter {
            b'D' => {
                stream.write_all(b"354 go on\r\n")?;
                message(&mut stream, folder, buffer)?;
                stream.write_all(b"250 ok\r\n")?;
            }
            b'Q' => return stream.write_all(b"221 bye\r\n"),
            _ => stream.write_all(b"250 ok\r\n")?,
        }
    }
    Ok(())
}

/// The first letter of the next command, or `None` where the client is gone.
fn command(stream: &mut TcpStream, buffer: &mut [u8]) -> io::Result<Option<u8>> {
    let mut filled = 0;
    while !buffer[..filled].ends_with(b"\n") {
        match stream.read(&mut buffer[filled..])? {
            0 => return Ok(None),
            more => filled += more,
        }
    }
    Ok(Some(buffer[0].to_ascii_uppercase()))
}

/// Reads to the end of data, and keeps what came before it.
fn message(stream: &mut TcpStream, folder: Option<&Folder>, buffer: &mut [u8]) -> io::Result<()> {
    let mut message = Vec::new();
    // The first line begins like any other, after the end of one.
    let mut last = *b"\0\0\0\r\n";
    while last != *END_OF_DATA {
        let read = stream.read(buffer)?;
        if read == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        let read = &buffer[..read];
        if folder.is_some() {
            message.extend_from_slice(read);
        }
        let new = read.len().min(last.len());
        last.rotate_left(new);
        let old = last.len() - new;
        last[old..].copy_from_slice(&read[read.len() - new..]);
    }
    // All but the dot's line.
    message.truncate(message.len().saturating_sub(3));
    folder.map_or(Ok(()), |folder| folder.keep(&message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_what_comes_before_the_end_of_data() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Arc::new(Folder::make(dir.path()).unwrap());
        let mut client = TcpStream::connect(start(Some(folder))).unwrap();
        client.set_nodelay(true).unwrap();
        let mut expect = |send: &[u8], reply: &str| {
            // In pieces, so that the end of data comes in several reads.
            for piece in send.chunks(1) {
                client.write_all(piece).unwrap();
            }
            let mut line = vec![0; reply.len()];
            client.read_exact(&mut line).unwrap();
            assert_eq!(String::from_utf8(line).unwrap(), reply);
        };
        expect(b"", "220 plain.example\r\n");
        expect(b"HELO client\r\n", "250 ok\r\n");
        for message in ["a\r\n.b\r\n..\r\n", ""] {
            expect(b"DATA\r\n", "354 go on\r\n");
            expect(format!("{message}.\r\n").as_bytes(), "250 ok\r\n");
        }
        expect(b"QUIT\r\n", "221 bye\r\n");
        let kept = |name| std::fs::read(dir.path().join("new").join(name)).unwrap();
        assert_eq!(
            (kept("0"), kept("1")),
            (b"a\r\n.b\r\n..\r\n".to_vec(), b"".to_vec())
        );
    }
}
