//! Programs that are held: how they are started, what they have of the file system, and what is done to them before they run.
//!
//! Between fork and exec little is safe to do, so the daemon starts itself anew as `gatepost confine`, which gives up what the program is not
//! to have ([`hold`]) and becomes the program: same process, same descriptors.

mod folder;
mod group;
mod held;
mod network;
mod write;

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::unistd::User;

pub(super) use folder::Folder;
pub(super) use group::Group;
pub use group::clear_groups;
pub use held::hold;

use crate::config::{Confinement, Program};

/// Ourselves: the file that runs, also where another has its name by now.
const OURSELVES: &str = "/proc/self/exe";

/// What starts a program as it is to be held, without its own environment. `folder` is the one that it may write to, `group` the control group that it is in.
pub(super) fn command(
    program: &Program,
    folder: Option<&Folder>,
    group: Option<&Group>,
) -> Command {
    let confine = &program.confine;
    let mut command = if **confine == Confinement::default() {
        Command::new(&program.argv[0])
    } else {
        let mut command = Command::new(OURSELVES);
        command
            .arg0("gatepost")
            .arg("confine")
            .args(words(confine, folder, group))
            .arg("--")
            .arg(&program.argv[0]);
        command
    };
    command.args(&program.argv[1..]);
    if let Some(folder) = folder {
        command.env("TMPDIR", folder.for_temporary_files());
    }
    // As login(1) sets them, so that it looks for its own files in its own home.
    let user = confine.user.as_deref().map(User::from_name);
    if let Some(Ok(Some(user))) = user {
        command
            .env("HOME", &user.dir)
            .env("USER", &user.name)
            .env("LOGNAME", &user.name);
    }
    command
}

/// The options of `gatepost confine`.
fn words(confine: &Confinement, folder: Option<&Folder>, group: Option<&Group>) -> Vec<OsString> {
    let mut words: Vec<OsString> = Vec::new();
    let mut option = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            words.extend([name.into(), value.into()]);
        }
    };
    let number = |number: Option<u64>| number.map(|number| number.to_string());
    option("--memory", number(confine.memory));
    option(
        "--cpu",
        confine.cpu.map(|cpu| format!("{}s", cpu.as_secs())),
    );
    option("--open-files", number(confine.open_files));
    option("--processes", number(confine.processes));
    option("--user", confine.user.clone());
    if confine.no_new_privs {
        words.push("--no-new-privs".into());
    }
    if confine.no_network {
        words.push("--no-network".into());
    }
    for folder in group.map(Group::folders).unwrap_or_default() {
        words.extend(["--group".into(), folder.into()]);
    }
    if let Some(write) = &confine.write {
        let own = folder.map(Folder::path);
        for folder in own.into_iter().chain(write.iter().map(|it| &**it)) {
            words.extend(["--write".into(), folder.into()]);
        }
    }
    words
}
