//! No network, by a filter of system calls: no socket but of this machine's files.

use std::collections::BTreeMap;

use nix::libc;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

/// On x86-64 a system call has a second number, with this bit, where the kernel knows the ABI x32.
const X32: i64 = 0x4000_0000;

/// Keeps this process from making sockets of other families than Unix, of which workers are made and local daemons reached.
///
/// # Errors
/// The kernel cannot.
pub(super) fn none() -> Result<(), String> {
    let filter = filter().map_err(|error| cannot(&error))?;
    seccompiler::apply_filter(&filter).map_err(|error| cannot(&error))
}

fn filter() -> Result<BpfProgram, seccompiler::BackendError> {
    let other = SeccompCondition::new(
        0,
        SeccompCmpArgLen::Dword,
        SeccompCmpOp::Ne,
        u64::from(libc::AF_UNIX.unsigned_abs()),
    )?;
    let socket = vec![SeccompRule::new(vec![other])?];
    let mut rules = BTreeMap::from([
        (libc::SYS_socket, socket),
        // It makes sockets, too, past this filter; whoever has no io_uring goes on without.
        (libc::SYS_io_uring_setup, Vec::new()),
    ]);
    if cfg!(target_arch = "x86_64") {
        let again: Vec<_> = rules
            .iter()
            .map(|(call, rules)| (call | X32, rules.clone()))
            .collect();
        rules.extend(again);
    }
    SeccompFilter::new(
        rules,
        SeccompAction::Allow,
        SeccompAction::Errno(libc::EACCES.unsigned_abs()),
        TargetArch::try_from(std::env::consts::ARCH)?,
    )?
    .try_into()
}

fn cannot(error: &dyn std::fmt::Display) -> String {
    format!(
        "`network`: this kernel cannot keep a program from the network: {error}; that takes one with CONFIG_SECCOMP_FILTER, on x86-64, AArch64 or RISC-V: remove `network`, or run the plugin as a service with `PrivateNetwork=yes`, and `attach` it"
    )
}
