//! What the process that becomes a plugin gives up before it does.

use std::path::PathBuf;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::{Uid, User, getresgid, getresuid, initgroups, setresgid, setresuid, setuid};
use rustix::thread::{CapabilitySet, CapabilitySets};

use super::{group, network, write};
use crate::config::Confinement;

/// From the signal that ends a program whose CPU time is over to the one that it cannot catch.
const LAST_SECONDS: u64 = 5;

/// Gives up, for good, what a program is not to have, and goes into the folders `groups` of a control group. The process must have one thread only.
///
/// # Errors
/// What the system does not do, with the setting that asked for it, and what to do. The program must not be run then.
pub fn hold(confine: &Confinement, groups: &[PathBuf]) -> Result<(), String> {
    group::enter(groups)?;
    // The limits first: to raise one takes the rights that are given up next.
    limit("memory", Resource::RLIMIT_DATA, confine.memory, 0)?;
    let cpu = confine.cpu.map(|cpu| cpu.as_secs());
    limit("cpu", Resource::RLIMIT_CPU, cpu, LAST_SECONDS)?;
    limit("open_files", Resource::RLIMIT_NOFILE, confine.open_files, 0)?;
    limit("processes", Resource::RLIMIT_NPROC, confine.processes, 0)?;
    if let Some(user) = &confine.user {
        become_user(user)?;
    }
    if confine.no_new_privs {
        rustix::thread::set_no_new_privs(true)
            .map_err(|error| format!("`no_new_privs` cannot be set: {error}"))?;
    }
    if let Some(folders) = &confine.write {
        write::only_to(folders)?;
    }
    if confine.no_network {
        network::none()?;
    }
    Ok(())
}

fn limit(setting: &str, of: Resource, value: Option<u64>, more: u64) -> Result<(), String> {
    let Some(value) = value else {
        return Ok(());
    };
    setrlimit(of, value, value.saturating_add(more)).map_err(|error| {
        let most = getrlimit(of).map_or(0, |(_, hard)| hard);
        format!("`{setting}` cannot be set to {value}: {error}; the most that this process may have is {most}: lower `{setting}`, or raise that")
    })
}

fn become_user(name: &str) -> Result<(), String> {
    let user = match User::from_name(name) {
        Ok(Some(user)) => user,
        _ => return Err(format!("`user`: there is no user `{name}` on this machine")),
    };
    let failed = |error| {
        format!(
            "`user`: it cannot become the user `{name}`: {error}; only what runs as root can: run gatepost as root, or run the plugin as a service of that user, and `attach` it"
        )
    };
    let fully = || -> nix::Result<()> {
        let name = std::ffi::CString::new(name).map_err(|_| nix::errno::Errno::EINVAL)?;
        initgroups(&name, user.gid)?;
        setresgid(user.gid, user.gid, user.gid)?;
        setresuid(user.uid, user.uid, user.uid)
    };
    fully().map_err(failed)?;
    // Whoever was not the superuser keeps them over a change of user.
    let none = CapabilitySets {
        effective: CapabilitySet::empty(),
        permitted: CapabilitySet::empty(),
        inheritable: CapabilitySet::empty(),
    };
    rustix::thread::clear_ambient_capability_set()
        .and_then(|()| rustix::thread::set_capabilities(None, none))
        .map_err(|error| format!("`user`: its capabilities cannot be given up: {error}"))?;
    let (uids, gids) = (getresuid(), getresgid());
    let became = uids.is_ok_and(|it| [it.real, it.effective, it.saved] == [user.uid; 3])
        && gids.is_ok_and(|it| [it.real, it.effective, it.saved] == [user.gid; 3]);
    if !became || setuid(Uid::from_raw(0)).is_ok() {
        return Err(format!(
            "`user`: the system does not keep it at the user `{name}`: it is not started"
        ));
    }
    Ok(())
}
