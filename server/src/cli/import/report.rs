//! What became of each plugin, what it uses, and what is missing on this machine.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use super::Site;
use super::chain::{Entry, Item, Place};
use super::modules::{package, present, used};
use crate::config::parts;

/// Perl plugins that load, and do not what they are there for (docs/porting.md).
const HAZARDS: &[(&str, &str)] = &[(
    "check_loop",
    "it refuses every message, in qpsmtpd too: use `loop`",
)];

/// Prints to standard error; `notes` are about the rest of the configuration.
pub fn print(site: &Site, items: &[Item], notes: &[String]) {
    let entries: Vec<&Entry> = items.iter().filter_map(Item::entry).collect();
    let uses: Vec<BTreeSet<String>> = entries
        .iter()
        .map(|entry| modules_of(site, entry))
        .collect();
    let all = uses.iter().flatten().cloned().collect();
    let sdk = parts::find("sdk-perl");
    let present = present(&all, sdk.as_deref(), site.lib.as_deref());
    eprint!("{}", describe(&entries, &uses, &present, notes));
}

fn modules_of(site: &Site, entry: &Entry) -> BTreeSet<String> {
    if matches!(entry.place, Place::BuiltIn(_) | Place::Core) {
        return BTreeSet::new();
    }
    let bytes = entry.file(site).and_then(|file| std::fs::read(file).ok());
    let mut modules = used(&String::from_utf8_lossy(&bytes.unwrap_or_default()));
    if entry.words.is_module() {
        modules.insert(entry.words.plugin().to_owned());
    }
    modules
}

fn describe(
    entries: &[&Entry],
    uses: &[BTreeSet<String>],
    present: &BTreeMap<String, bool>,
    notes: &[String],
) -> String {
    let mut text = String::new();
    let mut packages = BTreeSet::new();
    for (entry, uses) in entries.iter().zip(uses) {
        let what = match &entry.place {
            Place::BuiltIn(it) => format!("built-in {}", it.name),
            Place::Core => "done by the core".to_owned(),
            Place::Perl(None) => "Perl".to_owned(),
            Place::Perl(Some(why)) => format!("Perl, not the built-in: {why}"),
            Place::Out(why) => format!("LEFT OUT: {why}"),
        };
        let _ = write!(text, "{}: {what}", entry.words.text());
        if !uses.is_empty() {
            let uses: Vec<&str> = uses.iter().map(String::as_str).collect();
            let _ = write!(text, "; uses {}", uses.join(", "));
        }
        for module in uses {
            match present.get(module) {
                Some(true) => (),
                Some(false) => {
                    let package = package(module);
                    let _ = write!(text, "; missing: {module} ({package})");
                    if !package.contains(' ') {
                        packages.insert(package);
                    }
                }
                None => {
                    let _ = write!(text, "; {module}: Perl did not say whether it is there");
                }
            }
        }
        let hazard = HAZARDS.iter().find(|(name, _)| *name == entry.words.file());
        if let (Some((_, hazard)), Place::Perl(_)) = (hazard, &entry.place) {
            let _ = write!(text, "; BEWARE: {hazard}");
        }
        text.push('\n');
    }
    for note in notes {
        let _ = writeln!(text, "{note}");
    }
    if !packages.is_empty() {
        let packages: Vec<String> = packages.into_iter().collect();
        let _ = writeln!(
            text,
            "To have what is missing: apt-get install {}",
            packages.join(" ")
        );
    }
    let left_out = entries
        .iter()
        .filter(|entry| matches!(entry.place, Place::Out(_)))
        .count();
    if left_out > 0 {
        let _ = writeln!(
            text,
            "{left_out} of {} plugins are left out: they are comments in the configuration, and do nothing until that is mended.",
            entries.len()
        );
    }
    text
}
