//! Memory of Gatepost and its peers while many sessions are open.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};

use gatepost_tests::wait::PATIENCE;

use crate::memory::raise_descriptors;
use crate::peers::gatepost::GATEPOST;
use crate::peers::{ALL, Keep, Peer, Wanted, not_measured, processes};
use crate::rounds::median;
use crate::table::{Table, Target};
use crate::{Effort, Tables};

/// Open at once, after EHLO.
const SESSIONS: usize = 500;

/// Starts of each server: memory varies little.
const STARTS: usize = 1;

pub fn memory(_effort: &Effort) -> Tables {
    raise_descriptors(SESSIONS);
    let title = format!("Peers: memory of all processes with {SESSIONS} sessions that said EHLO");
    let columns = [
        "",
        "without",
        "with them",
        "a session",
        "of Gatepost's",
        "to reach",
    ];
    let mut table = Table::new(&title, &columns);
    let own = measured(&GATEPOST);
    let mut row = |name: &str, figures: &Result<Figures, String>, target: bool| {
        let cells = match (figures, &own) {
            (Ok(figures), Ok(own)) => {
                let ratio = figures.with / own.with;
                let verdict = target.then(|| Target::AtLeast(1.0).verdict(ratio));
                vec![
                    format!("{:.1} MB", figures.without / 1024.0),
                    format!("{:.1} MB", figures.with / 1024.0),
                    format!(
                        "{:.0} KB",
                        (figures.with - figures.without) / SESSIONS as f64
                    ),
                    format!("{ratio:.1}"),
                    verdict.unwrap_or_default(),
                ]
            }
            (Err(why), _) | (_, Err(why)) => {
                let mut cells = vec![why.clone()];
                cells.resize(columns.len() - 1, String::new());
                cells
            }
        };
        let cells = std::iter::once(name.to_owned()).chain(cells);
        table.rows.push(cells.collect());
    };
    row(GATEPOST.name, &own, false);
    for peer in ALL {
        row(peer.name, &measured(peer), true);
    }
    vec![table]
}

/// KB.
struct Figures {
    without: f64,
    with: f64,
}

fn measured(peer: &Peer) -> Result<Figures, String> {
    let starts: Result<Vec<_>, String> = (0..STARTS).map(|_| once(peer)).collect();
    let starts = starts?;
    let middle = |which: fn(&Figures) -> f64| {
        let figures: Vec<f64> = starts.iter().map(which).collect();
        median(&figures)
    };
    Ok(Figures {
        without: middle(|figures| figures.without),
        with: middle(|figures| figures.with),
    })
}

fn once(peer: &Peer) -> Result<Figures, String> {
    let server = peer.start(Wanted {
        keep: Keep::Nothing,
        no_op: false,
        // Some more, since one that ended may be counted a while.
        sessions: SESSIONS + 50,
    })?;
    let roots = server.roots();
    // One first, so that what any session needs is there.
    let said = |error: std::io::Error| not_measured(peer.name, &error.to_string());
    drop(session(server.address()).map_err(said)?);
    let without = processes::memory(&roots) as f64;
    let open: std::io::Result<Vec<_>> = (0..SESSIONS).map(|_| session(server.address())).collect();
    let open = open.map_err(said)?;
    let with = processes::memory(&roots) as f64;
    drop(open);
    Ok(Figures { without, with })
}

/// Opens a session and says EHLO.
fn session(server: SocketAddr) -> std::io::Result<BufReader<TcpStream>> {
    let stream = TcpStream::connect(server)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut session = BufReader::new(stream);
    reply(&mut session, "220")?;
    session.get_mut().write_all(b"EHLO client.example\r\n")?;
    reply(&mut session, "250")?;
    Ok(session)
}

/// Reads a reply to its last line.
fn reply(session: &mut BufReader<TcpStream>, code: &str) -> std::io::Result<()> {
    loop {
        let mut line = String::new();
        session.read_line(&mut line)?;
        match line.strip_prefix(code).and_then(|rest| rest.chars().next()) {
            Some(' ') => return Ok(()),
            Some('-') => {}
            _ => return Err(std::io::Error::other(format!("it says {line:?}"))),
        }
    }
}
