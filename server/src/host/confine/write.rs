//! No writes but to some folders, by Landlock: a process takes rights from itself and what it starts, whoever it is.

use std::path::{Path, PathBuf};

use landlock::{
    ABI, AccessFs, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd, RestrictionStatus,
    Ruleset, RulesetAttr, RulesetCreated, RulesetCreatedAttr, RulesetError, RulesetStatus,
};

/// The first that stops a file from being cut to nothing.
const WHOLE: ABI = ABI::V3;

/// Keeps this process from writing anywhere else; /dev/null takes what nobody wants.
///
/// # Errors
/// The kernel cannot, or a folder is not within reach.
pub(super) fn only_to(folders: &[PathBuf]) -> Result<(), String> {
    let all = AccessFs::from_write(WHOLE);
    let mut rules = Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(all)
        .and_then(Ruleset::create)
        .map_err(|error| cannot(&error))?;
    for folder in folders {
        rules = allow(rules, folder, all)?;
    }
    rules = allow(rules, Path::new("/dev/null"), AccessFs::WriteFile.into())?;
    match rules.restrict_self() {
        Ok(RestrictionStatus {
            ruleset: RulesetStatus::FullyEnforced,
            ..
        }) => Ok(()),
        Ok(_) => Err(cannot(&"it would do so in part only")),
        Err(error) => Err(cannot(&error)),
    }
}

fn allow(
    rules: RulesetCreated,
    path: &Path,
    access: BitFlags<AccessFs>,
) -> Result<RulesetCreated, String> {
    let shown = path.display();
    let opened = PathFd::new(path).map_err(|error| {
        format!("`write`: {shown} is not within the reach of the plugin's user: {error}")
    })?;
    rules
        .add_rule(PathBeneath::new(opened, access))
        .map_err(|error: RulesetError| format!("`write`: {shown} cannot be allowed: {error}"))
}

fn cannot(error: &dyn std::fmt::Display) -> String {
    format!(
        "`write`: this kernel cannot keep a program from writing elsewhere: {error}; that takes Landlock as of Linux 6.2, with `landlock` among the security modules that are on (boot parameter `lsm=`): remove `write`, or give the plugin a `user` that may write nowhere"
    )
}
