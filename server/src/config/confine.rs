//! `confine`: what a plugin's program may use up, who it is, and what it may do.

use std::path::PathBuf;
use std::time::Duration;

use gatepost_protocol::settings::Kind;
use nix::unistd::User;

use super::reader::{Item, Keys, Reader};

/// Below this no interpreter starts: measured, Python with asyncio takes 8 to 16 MB, Perl with sockets less than 4.
const LEAST_MEMORY: u64 = 16 << 20;
const MOST_MEMORY: u64 = 1 << 50;
/// Standard streams, the channel, and what an interpreter opens to read its libraries.
const LEAST_FILES: u64 = 16;
const MOST_FILES: u64 = 1 << 20;
const MOST_PROCESSES: u64 = 1 << 20;

/// How a program is held. By default it is not: no limit, the daemon's user, and all that this user may.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Confinement {
    /// Bytes of memory that each of its processes may have for data.
    pub memory: Option<u64>,
    /// CPU time that each of its processes has; whole seconds, at least one.
    pub cpu: Option<Duration>,
    /// Descriptors that each of its processes may have open.
    pub open_files: Option<u64>,
    /// Processes and threads that its user may have.
    pub processes: Option<u64>,
    /// Bytes of memory that it, all its workers and all that they start may have together.
    pub total_memory: Option<u64>,
    /// Processes and threads that these may be.
    pub total_processes: Option<u64>,
    /// The user that it becomes.
    pub user: Option<String>,
    /// Whether programs that it starts gain nothing by their set-user-ID and set-group-ID bits.
    pub no_new_privs: bool,
    /// Whether it is kept from the network.
    pub no_network: bool,
    /// The only folders that it may write to, besides its own; `None`: wherever its user may.
    pub write: Option<Vec<PathBuf>>,
}

impl Confinement {
    /// Whether its workers are to be in a control group.
    pub fn has_group(&self) -> bool {
        self.total_memory.is_some() || self.total_processes.is_some()
    }

    /// Whether its workers need a folder that others of the daemon's user have not.
    pub fn has_folder(&self) -> bool {
        self.user.is_some() || self.write.is_some()
    }
}

/// Reads the table.
pub(super) fn read(reader: &mut Reader, item: &Item<'_>) -> Option<Confinement> {
    let mut keys = reader.table(item)?;
    let mut number = |reader: &mut Reader, key, kind, least, most, suffix| match keys.get(key) {
        Some(item) => reader.number(item, kind, least, most, suffix).map(Some),
        None => Some(None),
    };
    let size = Kind::Size;
    let memory = number(reader, "memory", size, LEAST_MEMORY, MOST_MEMORY, " bytes");
    let files = (LEAST_FILES, MOST_FILES);
    let open_files = number(reader, "open_files", Kind::Integer, files.0, files.1, "");
    let processes = number(reader, "processes", Kind::Integer, 1, MOST_PROCESSES, "");
    let key = "total_memory";
    let total_memory = number(reader, key, size, LEAST_MEMORY, MOST_MEMORY, " bytes");
    let (key, most) = ("total_processes", MOST_PROCESSES);
    let total_processes = number(reader, key, Kind::Integer, 1, most, "");
    let cpu = optional(reader, &mut keys, "cpu", cpu);
    let user = optional(reader, &mut keys, "user", user);
    let network = optional(reader, &mut keys, "network", Reader::boolean);
    let write = optional(reader, &mut keys, "write", Reader::folders);
    let own = optional(reader, &mut keys, "no_new_privs", Reader::boolean);
    let (process_key, own_key) = (keys.key_span("processes"), keys.key_span("no_new_privs"));
    keys.finish(reader);
    let (user, write, no_network) = (user?, write?, network? == Some(false));
    if let Some(span) = process_key
        && user.is_none()
    {
        reader.mistake(
            span,
            "the system counts all processes of a user, the daemon among them: give the plugin a `user` of its own",
        );
        return None;
    }
    let held = no_network || write.is_some();
    if own? == Some(false) && held {
        reader.mistake(
            own_key.unwrap_or_default(),
            "what is kept from the network, or from writing, has no new privileges: remove this, or `network` and `write`",
        );
        return None;
    }
    Some(Confinement {
        memory: memory?,
        cpu: cpu?,
        open_files: open_files?,
        processes: processes?,
        total_memory: total_memory?,
        total_processes: total_processes?,
        no_new_privs: own?.unwrap_or(held || user.is_some()),
        user,
        no_network,
        write,
    })
}

/// A key that need not be there; `None` where it is wrong.
fn optional<'a, T>(
    reader: &mut Reader,
    keys: &mut Keys<'a>,
    key: &'static str,
    read: impl FnOnce(&mut Reader, &'a Item<'a>) -> Option<T>,
) -> Option<Option<T>> {
    match keys.get(key) {
        Some(item) => read(reader, item).map(Some),
        None => Some(None),
    }
}

fn cpu(reader: &mut Reader, item: &Item<'_>) -> Option<Duration> {
    let cpu = reader.duration(item)?;
    if cpu.subsec_nanos() != 0 {
        reader.mistake(item.span(), "the system counts whole seconds of CPU time");
        return None;
    }
    Some(cpu)
}

fn user(reader: &mut Reader, item: &Item<'_>) -> Option<String> {
    let name = reader.some_text(item)?;
    match User::from_name(name) {
        Ok(Some(user)) if user.uid.is_root() => {
            reader.mistake(
                item.span(),
                format!("`{name}` is the superuser, who is held by nothing"),
            );
            None
        }
        Ok(Some(_)) => Some(name.to_owned()),
        _ => {
            reader.mistake(
                item.span(),
                format!(
                    "there is no user `{name}` on this machine; make one, such as by `useradd --system {name}`"
                ),
            );
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{PluginKind, parse};

    fn read(confine: &str) -> Result<Confinement, String> {
        let text = format!("[[plugin]]\nname = 'x'\nrun = ['sh']\nconfine = {{ {confine} }}\n");
        let config = parse(&text, "x", &[]).map_err(|mistakes| mistakes.to_string())?;
        match &config.plugins[0].kind {
            PluginKind::Run(program) => Ok(*program.confine.clone()),
            other => panic!("{other:?}"),
        }
    }

    #[track_caller]
    fn assert_wrong(confine: &str, message: &str) {
        let shown = read(confine).unwrap_err();
        assert!(shown.contains(message), "{shown}");
    }

    #[test]
    fn each_setting_is_read() {
        let all = read(
            "memory = '256MB', cpu = '1h', open_files = 64, processes = 10, total_memory = '1GB', total_processes = 50, user = 'nobody', network = false, write = ['/tmp']",
        );
        let expected = Confinement {
            memory: Some(256 << 20),
            cpu: Some(Duration::from_secs(3600)),
            open_files: Some(64),
            processes: Some(10),
            total_memory: Some(1 << 30),
            total_processes: Some(50),
            user: Some("nobody".to_owned()),
            no_new_privs: true,
            no_network: true,
            write: Some(vec!["/tmp".into()]),
        };
        assert_eq!(all.unwrap(), expected);
        assert_eq!(read("").unwrap(), Confinement::default());
    }

    #[test]
    fn no_new_privileges_where_something_is_kept_from_it() {
        for (confine, expected) in [
            ("memory = '256MB'", false),
            ("memory = '256MB', no_new_privs = true", true),
            ("user = 'nobody'", true),
            ("user = 'nobody', no_new_privs = false", false),
            ("network = true", false),
            ("network = false", true),
            ("write = []", true),
        ] {
            assert_eq!(read(confine).unwrap().no_new_privs, expected, "{confine}");
        }
    }

    #[test]
    fn what_cannot_be_is_a_mistake() {
        assert_wrong("memory = '1MB'", "must be from 16777216 to ");
        assert_wrong("cpu = '500ms'", "whole seconds of CPU time");
        assert_wrong("open_files = 3", "must be from 16 to ");
        assert_wrong("processes = 9", "give the plugin a `user` of its own");
        assert_wrong("user = 'no such'", "there is no user `no such`");
        assert_wrong("user = 'root'", "is the superuser");
        assert_wrong("write = ['/no/such']", "there is no folder `/no/such`");
        let both = "has no new privileges";
        assert_wrong("network = false, no_new_privs = false", both);
        assert_wrong("write = [], no_new_privs = false", both);
        assert_wrong("memmory = '1GB'", "did you mean `memory`?");
    }
}
