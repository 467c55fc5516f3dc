//! What a dialogue starts beside the daemon: a DNS, and programs that stand for the servers that plugins ask.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;

use toml::{Table, Value};

use super::daemon::PATIENCE;
use super::dns::{Dns, Zone};
use super::head::Head;

/// The keys of its tables in the head.
const DNS: &str = "dns";
const SERVERS: &str = "servers";

/// Names that stand for something else than a server of the dialogue.
const TAKEN: [&str; 4] = ["DIR", "ROOT", "BIN", "DNS"];

/// What a head names.
#[derive(Debug)]
pub struct Wanted {
    /// What the DNS knows, if there is to be one.
    pub dns: Option<Zone>,
    /// The programs.
    pub servers: Vec<Server>,
}

/// A program that is to be started.
#[derive(Debug)]
pub struct Server {
    /// What stands for it in the configuration and in files, behind a `$`.
    pub name: String,
    /// The program and its arguments.
    pub command: Vec<String>,
}

/// A key of a table, and what is wrong there.
type Wrong = (String, String);

impl Wanted {
    /// Takes the two tables out of a configuration, and makes the DNS the one that the daemon asks, unless that is said.
    pub fn taken_from(config: &mut Table) -> Result<Wanted, Wrong> {
        let dns = config.remove(DNS).map(|table| zone(&table)).transpose()?;
        if dns.is_some() {
            let address = Value::String("$DNS".to_owned());
            config.entry("dns_server").or_insert(address);
        }
        let servers = config.remove(SERVERS).map(|table| servers(&table));
        Ok(Wanted {
            dns,
            servers: servers.transpose()?.unwrap_or_default(),
        })
    }
}

fn wrong(key: &str, why: &str) -> Wrong {
    (key.to_owned(), why.to_owned())
}

/// A name may have a list of records of a type.
fn zone(table: &Value) -> Result<Zone, Wrong> {
    let table = table
        .as_table()
        .ok_or_else(|| wrong(DNS, "`dns` is a table of DNS records"))?;
    let mut zone = Zone::default();
    for (entry, data) in table {
        let one = std::slice::from_ref(data);
        for data in data.as_array().map_or(one, Vec::as_slice) {
            let data = data
                .as_str()
                .ok_or_else(|| wrong(entry, "a DNS record is a text, or several in a list"))?;
            zone.add(entry, data).map_err(|why| wrong(entry, &why))?;
        }
    }
    Ok(zone)
}

fn servers(table: &Value) -> Result<Vec<Server>, Wrong> {
    let table = table
        .as_table()
        .ok_or_else(|| wrong(SERVERS, "`servers` is a table of names and commands"))?;
    let server = |(name, command): (&String, &Value)| {
        let capital = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit();
        if !name.bytes().all(capital) || TAKEN.contains(&name.as_str()) {
            let why = "a server's name is of capital letters and digits, and none of";
            return Err(wrong(name, &format!("{why} {}", TAKEN.join(", "))));
        }
        let words = command.as_array().map(|words| {
            let words = words.iter().map(|word| Some(word.as_str()?.to_owned()));
            words.collect::<Option<Vec<String>>>()
        });
        let command = words.flatten().filter(|words| !words.is_empty());
        Ok(Server {
            name: name.clone(),
            command: command
                .ok_or_else(|| wrong(name, "a command is a list: a program and its arguments"))?,
        })
    };
    table.iter().map(server).collect()
}

/// All of it, running. It is ended when dropped.
pub struct Beside {
    programs: Vec<Child>,
    _dns: Option<Dns>,
    /// What stands for it in the head, and what it is.
    names: Vec<(String, String)>,
}

impl Beside {
    /// Starts what a head names, in `dir`, where its files are already; and writes into those files what it turned out to be. Blocks.
    /// An error says what did not come up.
    pub fn start(head: &Head, dir: &Path) -> Result<Beside, String> {
        let mut beside = Beside {
            programs: Vec::new(),
            _dns: None,
            names: Vec::new(),
        };
        if let Some(zone) = &head.beside.dns {
            let dns = Dns::start(zone.clone())
                .map_err(|error| format!("the DNS of the dialogue cannot listen: {error}"))?;
            beside
                .names
                .push(("$DNS".to_owned(), dns.address().to_string()));
            beside._dns = Some(dns);
        }
        for Server { name, command } in &head.beside.servers {
            let said = beside
                .run(command, dir)
                .map_err(|why| format!("the server {name} of the dialogue {why}"))?;
            beside.names.push((format!("${name}"), said));
        }
        for (name, text) in &head.files {
            let filled = beside.fill_in(text);
            if filled != *text {
                let file = dir.join(name);
                std::fs::write(&file, filled)
                    .map_err(|error| format!("{} cannot be written: {error}", file.display()))?;
            }
        }
        Ok(beside)
    }

    /// Puts what was started in the place of its name; of two names of which one is the begin of the other, the longer comes later in the table.
    pub fn fill_in(&self, text: &str) -> String {
        let fill_in = |text: String, (name, said): &(String, String)| text.replace(name, said);
        self.names.iter().rev().fold(text.to_owned(), fill_in)
    }

    /// Starts a program; what it says in its first line, once it listens. What it says later is of no interest.
    fn run(&mut self, command: &[String], dir: &Path) -> Result<String, String> {
        let mut child = Command::new(&command[0])
            .args(&command[1..])
            .current_dir(dir)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("cannot be started: {}: {error}", command[0]))?;
        let stdout = child.stdout.take().expect("standard output is a pipe");
        self.programs.push(child);
        let (tell, told) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                // Only the first has a reader.
                let _ = tell.send(line);
            }
        });
        told.recv_timeout(PATIENCE).map_err(|error| match error {
            mpsc::RecvTimeoutError::Timeout => "did not say in time where it listens".to_owned(),
            mpsc::RecvTimeoutError::Disconnected => {
                "ended, and did not say where it listens".to_owned()
            }
        })
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        for child in &mut self.programs {
            // It may have ended already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
