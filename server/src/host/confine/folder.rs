//! What a program that is held has of the file system for itself.

use std::fs::{DirBuilder, File, Metadata, Permissions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::unistd::{Gid, Uid, User, geteuid};
use tempfile::TempDir;

use crate::config::Confinement;

/// What the names of these folders begin with.
const PREFIX: &str = "gatepost-confined-";

/// How old a folder is at least that nobody holds: a younger one may be held in a moment.
const LEFT_BEHIND: Duration = Duration::from_secs(60);

/// A folder of one process and all of its workers, gone when dropped. Only the daemon's user makes and removes what is directly in it, so that nobody
/// else can put something in the place of what is given away.
pub struct Folder {
    dir: TempDir,
    /// Whom what is in it belongs to, where that is not the daemon's user.
    owner: Option<(Uid, Gid)>,
    /// Locked as long as it is needed: we clear away what daemons that were killed left, and others old temporary files, as systemd-tmpfiles does;
    /// both leave such a folder alone.
    _kept: File,
}

impl Folder {
    /// Makes it. The daemon's own folder is closed to other users: a process with a user of its own has its folder among the system's temporary files.
    /// The error says what to do.
    pub fn make(confine: &Confinement, among: &Path, name: &str) -> Result<Folder, String> {
        let temporary = std::env::temp_dir();
        let parent = match confine.user {
            Some(_) => &temporary,
            None => among,
        };
        let failed = |error: io::Error| {
            let parent = parent.display();
            format!(
                "its folder cannot be made in {parent}: {error}; see that the daemon may write there, and that the disk is not full"
            )
        };
        let owner = confine.user.as_deref().map(owner).transpose()?;
        // Others have to come through to what is theirs in it; its name is hard to guess, and what is in it is closed.
        let mode = if owner.is_some() { 0o711 } else { 0o700 };
        clear(parent);
        let dir = std::fs::create_dir_all(parent)
            .and_then(|()| {
                tempfile::Builder::new()
                    .prefix(&format!("{PREFIX}{name}."))
                    .permissions(Permissions::from_mode(mode))
                    .tempdir_in(parent)
            })
            .map_err(failed)?;
        let kept = File::open(dir.path())
            .and_then(|kept| kept.lock_shared().map(|()| kept))
            .map_err(failed)?;
        let folder = Folder {
            dir,
            owner,
            _kept: kept,
        };
        let temporary = folder.for_temporary_files();
        DirBuilder::new()
            .mode(0o700)
            .create(&temporary)
            .map_err(failed)?;
        folder.give(&temporary)?;
        Ok(folder)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The folder in it for temporary files.
    pub fn for_temporary_files(&self) -> PathBuf {
        self.path().join("tmp")
    }

    /// Gives to the process's user what the daemon has made directly in this folder. The error says what to do.
    pub fn give(&self, path: &Path) -> Result<(), String> {
        let Some((user, group)) = self.owner else {
            return Ok(());
        };
        chown(path, Some(user.as_raw()), Some(group.as_raw())).map_err(|error| {
            let path = path.display();
            format!("{path} cannot be given to the plugin's user: {error}; only a daemon that runs as root can have plugins with a `user`")
        })
    }
}

/// Removes the folders that daemons of this user have left. What cannot be removed stays: it is in nobody's way.
fn clear(parent: &Path) {
    for entry in std::fs::read_dir(parent).into_iter().flatten().flatten() {
        let is_old = |about: Metadata| {
            let age = about.modified().ok().and_then(|time| time.elapsed().ok());
            about.is_dir()
                && about.uid() == geteuid().as_raw()
                && age.is_some_and(|age| age >= LEFT_BEHIND)
        };
        if entry.file_name().as_bytes().starts_with(PREFIX.as_bytes())
            && entry.metadata().is_ok_and(is_old)
            && File::open(entry.path()).is_ok_and(|folder| folder.try_lock().is_ok())
        {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

fn owner(name: &str) -> Result<(Uid, Gid), String> {
    match User::from_name(name) {
        Ok(Some(user)) => Ok((user.uid, user.gid)),
        _ => Err(format!("there is no user `{name}` on this machine")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::SystemTime;

    #[test]
    fn what_a_killed_daemon_left_is_cleared_and_what_is_in_use_is_not() {
        let parent = tempfile::tempdir().unwrap();
        let age = |path: &Path| {
            let past = SystemTime::now() - 2 * LEFT_BEHIND;
            File::open(path).unwrap().set_modified(past).unwrap();
        };
        let make = || Folder::make(&Confinement::default(), parent.path(), "vip").unwrap();
        let in_use = make();
        let left = parent.path().join(format!("{PREFIX}vip.left"));
        std::fs::create_dir_all(left.join("tmp")).unwrap();
        let another = parent.path().join("another");
        std::fs::create_dir(&another).unwrap();
        let young = make();
        assert!(left.exists());
        for folder in [in_use.path(), &left, &another] {
            age(folder);
        }
        let next = make();
        assert!(!left.exists());
        for folder in [&in_use, &young, &next].map(Folder::path) {
            assert!(folder.join("tmp").exists());
        }
        assert!(another.exists());
        drop(in_use);
        assert_eq!(std::fs::read_dir(parent.path()).unwrap().count(), 3);
    }
}
