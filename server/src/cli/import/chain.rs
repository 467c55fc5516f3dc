//! The chain: each line of `config/plugins` in its place, and what becomes of it.

use std::path::{Path, PathBuf};

use super::Site;
use super::built_ins::{self, Translated};
use super::core::Wanted;
use super::lines::{Line, Words, printable};
use crate::config::FlatFiles;

/// What becomes of a line.
#[derive(Clone, Debug)]
pub enum Place {
    BuiltIn(Translated),
    /// As it is; and why it is not the built-in, where there is one.
    Perl(Option<String>),
    /// The core does it.
    Core,
    /// It cannot be there, and why.
    Out(String),
}

/// A line of the chain.
pub enum Item {
    Comment(String),
    Plugin(Entry),
}

pub struct Entry {
    pub words: Words,
    pub place: Place,
    /// Its name in the chain.
    pub name: String,
}

/// The lines with what becomes of them, if nothing is found against it; with `perl` no built-in takes over.
pub fn place(lines: Vec<Line>, site: &Site, perl: bool) -> Vec<Item> {
    let mut names: Vec<String> = Vec::new();
    lines
        .into_iter()
        .map(|line| {
            let words = match line {
                Line::Comment(text) => return Item::Comment(text),
                Line::Plugin(words) => words,
            };
            let translated = match perl {
                true => None,
                false => built_ins::translate(&words, &site.home, &site.config),
            };
            let place = match translated {
                // Nobody but the core has the socket.
                _ if words.file() == "tls" => Place::Core,
                Some(Ok(translated)) => Place::BuiltIn(translated),
                Some(Err(why)) => Place::Perl(Some(why)),
                None => Place::Perl(None),
            };
            let name = free_name(&words, &place, &names);
            names.push(name.clone());
            Item::Plugin(Entry { words, place, name })
        })
        .collect()
}

/// qpsmtpd takes the same line twice, the chain takes a name once.
fn free_name(words: &Words, place: &Place, taken: &[String]) -> String {
    let written = words.plugin();
    let first = match place {
        Place::BuiltIn(it) => written.replacen(words.file(), it.name, 1),
        _ => written.to_owned(),
    };
    let base = first
        .split_once(':')
        .map_or(first.as_str(), |(base, _)| base);
    let base = if words.is_module() { &first } else { base };
    let copies = (2..).map(|number| format!("{base}:{number}"));
    std::iter::once(first.clone())
        .chain(copies)
        .find(|name| !taken.contains(name))
        .unwrap_or(first)
}

/// Plugins of qpsmtpd that hook `auth-cram-md5`, for which it offers CRAM-MD5.
const CHECK_DIGESTS: [&str; 2] = ["auth/auth_flat_file", "auth/auth_vpopmail_sql"];

/// What the chain wants of the daemon.
pub fn wanted(items: &[Item]) -> Wanted {
    let mut wanted = Wanted::default();
    for entry in items.iter().filter_map(Item::entry) {
        match &entry.place {
            Place::BuiltIn(it) => wanted.greet_delay = wanted.greet_delay.max(it.greet_delay),
            Place::Core => wanted.tls = Some(entry.words.arguments().to_vec()),
            _ => (),
        }
        let file = entry.words.file();
        if file.starts_with("auth/") && !matches!(entry.place, Place::Out(_)) {
            wanted.auth = true;
            wanted.cram_md5 |= CHECK_DIGESTS.contains(&file);
        }
    }
    wanted
}

impl Item {
    pub fn entry(&self) -> Option<&Entry> {
        match self {
            Item::Plugin(entry) => Some(entry),
            Item::Comment(_) => None,
        }
    }

    pub fn entry_mut(&mut self) -> Option<&mut Entry> {
        match self {
            Item::Plugin(entry) => Some(entry),
            Item::Comment(_) => None,
        }
    }
}

impl Entry {
    /// The lines for the configuration. `trial`: the flat files of built-ins stand in it, too, so that a check finds what does not fit there.
    pub fn lines(&self, site: &Site, trial: Option<&FlatFiles>) -> Vec<String> {
        let said = printable(&self.words.text());
        match &self.place {
            Place::Core => vec![
                format!("# {said}"),
                "# The core does it: see tls in [[listen]], and [tls].".to_owned(),
            ],
            Place::BuiltIn(it) => {
                let mut lines = vec![
                    format!("# {said}"),
                    format!("# The built-in: {}.", it.note),
                    "[[plugin]]".to_owned(),
                    format!("name = {}", text(&self.name)),
                ];
                lines.extend(it.settings.iter().cloned());
                if let Some(files) = trial {
                    lines.extend(tried(it, files));
                }
                lines
            }
            Place::Perl(why) => {
                let why = why
                    .iter()
                    .map(|why| format!("# Not the built-in: {}", printable(why)));
                why.chain(self.perl(site)).collect()
            }
            Place::Out(why) => {
                let why = format!("# Left out: {}", printable(why));
                let lines = self
                    .perl(site)
                    .into_iter()
                    .map(|line| format!("#{}", printable(&line)));
                std::iter::once(why).chain(lines).collect()
            }
        }
    }

    fn perl(&self, site: &Site) -> Vec<String> {
        let mut lines = vec!["[[plugin]]".to_owned()];
        if self.name != self.words.plugin() {
            lines.push(format!("name = {}", text(&self.name)));
        }
        lines.push(format!("qpsmtpd = {}", text(&self.words.text())));
        let dirs: Vec<String> = site
            .plugin_dirs
            .iter()
            .map(|dir| dir.display().to_string())
            .collect();
        lines.push(format!("plugin_dirs = {}", toml::Value::from(dirs)));
        if let Some(lib) = &site.lib {
            lines.push(format!(
                "env = {{ PERL5LIB = {} }}",
                text(&lib.display().to_string())
            ));
        }
        lines
    }

    /// Where the plugin's text is.
    pub fn file(&self, site: &Site) -> Option<PathBuf> {
        if self.words.is_module() {
            return site
                .lib
                .as_deref()
                .map(|lib| lib.join(module_file(self.words.plugin())))
                .filter(|file| file.is_file());
        }
        let file = |dir: &PathBuf| Some(dir.join(self.words.file())).filter(|file| file.is_file());
        site.plugin_dirs.iter().find_map(file)
    }
}

/// `My/Plugin.pm`.
pub fn module_file(module: &str) -> String {
    format!("{}.pm", module.replace("::", "/"))
}

/// The lines of the flat files, as settings.
fn tried(it: &Translated, files: &FlatFiles) -> Vec<String> {
    let mut lists: Vec<(&str, Vec<String>)> = Vec::new();
    for (key, file) in it.files {
        let lines = files.lines(file).unwrap_or_default();
        match lists.iter_mut().find(|(other, _)| other == key) {
            Some((_, list)) => list.extend(lines.iter().cloned()),
            None => lists.push((key, lines.to_vec())),
        }
    }
    let line = |(key, list): (&str, Vec<String>)| format!("{key} = {}", toml::Value::from(list));
    lists.into_iter().map(line).collect()
}

fn text(text: &str) -> String {
    toml::Value::from(text).to_string()
}

/// Whether a path is a folder with `plugins` as a file, as a configuration of qpsmtpd has it.
pub fn is_config(folder: &Path) -> bool {
    folder.join("plugins").is_file()
}
