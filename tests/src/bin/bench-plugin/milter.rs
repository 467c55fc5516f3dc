//! A milter that says "continue" to connect, HELO, MAIL, RCPT and the end of the message, and asks not to be told of anything else.

use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

/// Of the protocol, as Postfix and Sendmail speak it.
const VERSION: u32 = 6;

/// SMFIP_NOBODY, NOHDRS, NOEOH, NOUNKNOWN and NODATA: the body, headers, end of headers, unknown commands and DATA stay where they are.
const LEFT_OUT: u32 = 0x10 | 0x20 | 0x40 | 0x100 | 0x200;

/// Listens on a socket of the file system, with a thread for each connection, until it is killed.
pub fn serve(socket: &Path) -> io::Result<()> {
    let listener = UnixListener::bind(socket)?;
    // Postfix comes as a user of its own.
    std::fs::set_permissions(socket, std::fs::Permissions::from_mode(0o777))?;
    for stream in listener.incoming() {
        let stream = stream?;
        std::thread::spawn(move || match converse(stream) {
            Err(error) if error.kind() != ErrorKind::UnexpectedEof => {
                eprintln!("the milter: {error}");
            }
            _ => {}
        });
    }
    Ok(())
}

fn converse(mut stream: UnixStream) -> io::Result<()> {
    let mut packet = Vec::new();
    loop {
        let mut length = [0; 4];
        stream.read_exact(&mut length)?;
        packet.resize(u32::from_be_bytes(length) as usize, 0);
        stream.read_exact(&mut packet)?;
        match packet.first() {
            Some(b'O') => stream.write_all(&options())?,
            // Macros, an abort, and the end of a session of several have no answer.
            Some(b'D' | b'A' | b'K') => {}
            Some(b'Q') | None => return Ok(()),
            Some(_) => stream.write_all(b"\0\0\0\x01c")?,
        }
    }
}

/// The answer to the negotiation of options: no changes to the message, and what is left out.
fn options() -> Vec<u8> {
    let words = [VERSION, 0, LEFT_OUT].map(u32::to_be_bytes).concat();
    let length = 1 + words.len() as u32;
    [&length.to_be_bytes(), b"O".as_slice(), &words].concat()
}
