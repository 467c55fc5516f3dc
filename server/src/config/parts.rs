//! Where Gatepost's own files are: the SDKs and the protocol crate.

use std::path::PathBuf;

/// Where a part may be: installed with the daemon, in the tree the daemon was built in (`target/release`, and `target/release/deps` for
/// tests), or here.
pub fn places(part: &str) -> Vec<PathBuf> {
    let executable = std::env::current_exe().unwrap_or_default();
    let above = |steps: usize| executable.ancestors().nth(steps);
    let installed = above(2).map(|prefix| prefix.join("share/gatepost").join(part));
    let built = [3, 4].map(|steps| above(steps).map(|tree| tree.join(part)));
    let places = [installed]
        .into_iter()
        .chain(built)
        .chain([Some(PathBuf::from("./").join(part))]);
    places.flatten().collect()
}

/// The path of a part, such as `sdk-python/src`, if it is anywhere.
pub fn find(part: &str) -> Option<PathBuf> {
    places(part)
        .into_iter()
        .find_map(|place| place.canonicalize().ok())
}
