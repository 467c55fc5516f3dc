//! Where the project's programs are, and the ones that a test needs from the system.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The project's folder.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("this crate lies in a folder of the project")
        .to_owned()
}

/// The folder with the programs that were built along with this one, in the same profile.
///
/// They are brought up to date first, once: Cargo builds the programs of another package only if it is told to. `make test` builds
/// everything before it runs anything, and says so with `GATEPOST_BUILT`.
pub fn bin() -> PathBuf {
    static BIN: OnceLock<PathBuf> = OnceLock::new();
    BIN.get_or_init(|| {
        let mut bin = std::env::current_exe().expect("a running program has a file");
        bin.pop();
        if bin.ends_with("deps") {
            bin.pop();
        }
        if std::env::var_os("GATEPOST_BUILT").is_none() {
            build(bin.ends_with("release"));
        }
        bin
    })
    .clone()
}

/// With the flags of `make test`, so that the two do not build the same crates twice.
fn build(release: bool) {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--quiet", "--workspace", "--all-targets"]);
    if release {
        cargo.arg("--release");
    }
    let status = cargo.current_dir(root()).status();
    assert!(
        status.is_ok_and(|status| status.success()),
        "the programs under test could not be built"
    );
}

/// Looks for a program of the system. Where it is missing the test that needs it says so loudly and is over; in CI (`CI=true`) it fails.
///
/// ```no_run
/// let Some(swaks) = gatepost_tests::programs::needed("swaks") else { return };
/// ```
pub fn needed(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // Postfix's programs for load are not on everybody's path.
    let found = std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/usr/local/sbin".into()])
        .map(|folder| folder.join(name))
        .find(|file| file.is_file());
    if found.is_none() {
        missing(&format!("`{name}` is not installed: run `make setup`"));
    }
    found
}

/// An address of loopback with a port that was free a moment ago, for a program that cannot choose one itself.
pub fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .expect("a port of loopback is free")
}

/// Says loudly that a test cannot be made here, and why; fails in CI.
pub fn missing(why: &str) {
    let in_ci = std::env::var("CI").is_ok_and(|ci| ci == "true");
    assert!(!in_ci, "not tested: {why}");
    eprintln!("\n*** NOT TESTED: {why} ***\n");
}
