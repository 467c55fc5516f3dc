//! From root to a user, for good (docs/running.md#privileges).

use std::ffi::CString;
use std::fs::DirBuilder;
use std::os::unix::fs::{DirBuilderExt, chown};

use nix::unistd::{
    Gid, Uid, User, geteuid, getresgid, getresuid, initgroups, setresgid, setresuid, setuid,
};

use crate::config::Config;

/// Whether this process has privileges that it is to give up.
pub fn are_to_be_dropped(config: &Config) -> bool {
    config.run_as.is_some() && geteuid().is_root()
}

/// Becomes the user of the configuration, where there is one: all three user and group ids, and the groups of that user. To be called before there are threads. Makes `spool_dir` for
/// that user where there is none, since root alone may be able to.
///
/// # Errors
/// There is no such user, it is root, or this process is another user's; or the system refuses. The process is not to go on then.
pub fn drop(config: &Config) -> Result<(), String> {
    let Some(name) = &config.run_as else {
        return Ok(());
    };
    let user = User::from_name(name)
        .map_err(|error| format!("run_as: the user `{name}` cannot be looked up: {error}"))?
        .ok_or_else(|| {
            format!("run_as: there is no user `{name}`; make it (`useradd --system {name}`), or name another")
        })?;
    if user.uid.is_root() {
        return Err(format!(
            "run_as: `{name}` is root, who is not to serve strangers; name another user"
        ));
    }
    if !geteuid().is_root() {
        return match geteuid() == user.uid {
            true => Ok(()),
            false => Err(format!(
                "run_as: only root can become `{name}`, and this process is of user {}; start it as root or as `{name}`, or remove the line",
                geteuid()
            )),
        };
    }
    let spool = &config.spool_dir;
    if !spool.exists() {
        let made = DirBuilder::new().recursive(true).mode(0o750).create(spool);
        let owner = (Some(user.uid.as_raw()), Some(user.gid.as_raw()));
        made.and_then(|()| chown(spool, owner.0, owner.1))
            .map_err(|error| format!("spool_dir {}: {error}", spool.display()))?;
    }
    become_user(name, user.uid, user.gid)
        .map_err(|error| format!("run_as: this process cannot become `{name}`: {error}"))
}

fn become_user(name: &str, uid: Uid, gid: Gid) -> Result<(), String> {
    let said = |error: nix::Error| error.to_string();
    let account = CString::new(name).map_err(|error| error.to_string())?;
    // In this order: without being root, groups cannot be changed any more.
    initgroups(&account, gid).map_err(said)?;
    setresgid(gid, gid, gid).map_err(said)?;
    setresuid(uid, uid, uid).map_err(said)?;
    let (uids, gids) = (getresuid().map_err(said)?, getresgid().map_err(said)?);
    let is_user = [uids.real, uids.effective, uids.saved] == [uid; 3];
    let is_group = [gids.real, gids.effective, gids.saved] == [gid; 3];
    if !is_user || !is_group {
        return Err("the system says that it did, and it did not".to_owned());
    }
    // A capability that survives would make all of it worthless.
    if setuid(Uid::from_raw(0)).is_ok() {
        return Err("it could become root again".to_owned());
    }
    Ok(())
}
