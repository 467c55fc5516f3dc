//! `user_config`: folders with the settings of single users, laid out like those of qpsmtpd's plugin of that name.

use std::collections::BTreeSet;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use gatepost_protocol::{Address, Definition, Level};

use super::mistakes::{Mistake, Mistakes};
use super::origins::MaxSize;
use super::reader::{Item, Reader};
use super::source_text::SourceText;
use super::{Config, FlatFiles, Scope, Stamp, core, parse_user};
use crate::report;

/// The file with settings as within `[user."…"]`.
const SETTINGS: &str = "gatepost.toml";
/// The flat file with the biggest message in bytes; qmail's, and qpsmtpd's.
const SIZE: &str = "databytes";
/// The most bytes of a file that is read as a whole.
const MAX_FILE: u64 = 256 << 10;
/// The most files of a folder that are looked at.
const MAX_FILES: usize = 1000;
/// Bytes of a name in a folder (NAME_MAX).
const MAX_NAME: usize = 255;

/// Where users have folders with settings of their own: a path with places for what an address consists of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserFolders(Vec<Piece>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    /// `%u`: the local part.
    Local,
    /// `%h`: the domain.
    Domain,
    /// `%a`: both.
    Address,
}

/// Reads the setting. The folder that all users' folders are in must be there.
pub(super) fn read(reader: &mut Reader, item: &Item<'_>) -> Option<UserFolders> {
    let text = reader.some_text(item)?;
    let folders = match UserFolders::parse(text) {
        Ok(folders) => folders,
        Err(message) => {
            reader.mistake(item.span(), message);
            return None;
        }
    };
    let fixed = text.split('%').next().unwrap_or_default();
    match fixed.rsplit_once('/') {
        Some((parent, _)) if !parent.is_empty() => {
            core::is_folder(reader, item, Path::new(parent)).then_some(folders)
        }
        _ => Some(folders),
    }
}

impl UserFolders {
    fn parse(text: &str) -> Result<UserFolders, String> {
        let mut pieces = Vec::new();
        let mut plain = String::new();
        let mut characters = text.chars();
        while let Some(character) = characters.next() {
            if character != '%' {
                plain.push(character);
                continue;
            }
            let piece = match characters.next() {
                Some('u') => Piece::Local,
                Some('h') => Piece::Domain,
                Some('a') => Piece::Address,
                Some('%') => {
                    plain.push('%');
                    continue;
                }
                other => {
                    let other = other.map(String::from).unwrap_or_default();
                    return Err(format!(
                        "`%{other}` stands for nothing: there are %u (the local part), %h (the domain), %a (the address), and %% for a %"
                    ));
                }
            };
            pieces.push(Piece::Text(std::mem::take(&mut plain)));
            pieces.push(piece);
        }
        if pieces.is_empty() {
            return Err(
                "a folder for each user has %u (the local part), %h (the domain) or %a (the address) in its path"
                    .to_owned(),
            );
        }
        pieces.push(Piece::Text(plain));
        Ok(UserFolders(pieces))
    }

    /// The folder of a user, whether it is there or not. `None` for an address that could lead to another folder than its own: such a user has none.
    pub fn folder_of(&self, address: &Address) -> Option<PathBuf> {
        let mut path = String::new();
        for piece in &self.0 {
            match piece {
                Piece::Text(text) => path.push_str(text),
                Piece::Local => path.push_str(&safe(&address.local_unquoted())?),
                Piece::Domain => path.push_str(&safe(address.domain()?)?),
                Piece::Address => path.push_str(&safe(address.as_str())?),
            }
        }
        Some(path.into())
    }
}

/// A part of an address as a part of a path, in lower case; `None` where it would be more than that.
fn safe(part: &str) -> Option<String> {
    let part = part.to_lowercase();
    let is_safe = !part.is_empty()
        && part.len() <= MAX_NAME
        && !part.starts_with('.')
        && !part.contains("..")
        && !part.contains(|c: char| c == '/' || c == '\\' || c.is_control());
    is_safe.then_some(part)
}

/// What tells whether a user's folder has changed, but for what is in flat files: these are looked at when they are used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FolderState {
    folder: Stamp,
    settings: Option<Stamp>,
    size: Option<Stamp>,
}

impl FolderState {
    /// The state that a folder is in; `None` where there is none. Blocks for the file system: three `stat`, or one where there is no folder.
    ///
    /// # Errors
    /// Nobody can say whether it is there: a folder above it must not be looked into.
    pub fn of(folder: &Path) -> Result<Option<FolderState>, Mistakes> {
        let metadata = match std::fs::metadata(folder) {
            Ok(metadata) if metadata.is_dir() => metadata,
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                return Err(unreadable(folder, &error).into());
            }
            _ => return Ok(None),
        };
        let file = |name| {
            let metadata = std::fs::metadata(folder.join(name));
            metadata.ok().as_ref().map(Stamp::of)
        };
        Ok(Some(FolderState {
            folder: Stamp::of(&metadata),
            settings: file(SETTINGS),
            size: file(SIZE),
        }))
    }

    /// Whether a further change would show.
    pub fn is_settled(&self) -> bool {
        let files = [&self.settings, &self.size].into_iter().flatten();
        files.chain([&self.folder]).all(Stamp::is_settled)
    }
}

/// What a user's folder holds.
#[derive(Debug)]
pub struct UserSettings {
    /// The settings.
    pub scope: Scope,
    /// The names of flat files.
    pub files: BTreeSet<String>,
    /// What works, but surely not as it was meant.
    pub warnings: Mistakes,
}

/// Reads a user's folder. `config` is the site's configuration, `definitions` the built-in plugins. Blocks for the file system.
///
/// # Errors
/// All that is wrong with it, at once.
pub fn read_user_folder(
    folder: &Path,
    address: &Address,
    config: &Config,
    definitions: &[Definition],
) -> Result<UserSettings, Mistakes> {
    let address = address.to_lowercase();
    let (mut scope, warnings) = match read_file(&folder.join(SETTINGS))? {
        Some(text) => parse_user(
            &text,
            &folder.join(SETTINGS),
            &address,
            &config.plugins,
            definitions,
        )?,
        None => Default::default(),
    };
    let file = folder.join(SIZE);
    if let Some(text) = read_file(&file)?
        && let Some(most) = databytes(&text, &file)?
    {
        scope.max_size.get_or_insert(MaxSize {
            bytes: most,
            origin: format!("{SIZE} = {most} ({})", file.display()).into(),
        });
    }
    let entries = std::fs::read_dir(folder);
    let entries = entries.map_err(|error| unreadable(folder, &error))?;
    let names = entries
        .take(MAX_FILES)
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let is_flat = |name: &String| {
        let is_other = name.starts_with('.') || name == SETTINGS || name == SIZE;
        !is_other && folder.join(name).is_file()
    };
    Ok(UserSettings {
        scope,
        files: names.filter(is_flat).collect(),
        warnings,
    })
}

/// The lines of a flat file in a user's folder; none where there is no such file, and where it cannot be read, which the log has. Blocks for the file system.
pub fn user_file(folder: &Path, name: &str) -> Vec<String> {
    if name == SETTINGS {
        return Vec::new();
    }
    match FlatFiles::new(folder.to_owned()).lines(name) {
        Ok(lines) => lines.to_vec(),
        Err(error) => {
            let text = format_args!("left out: {error}");
            report::line(Level::Warn, "", None, "flat_files", text);
            Vec::new()
        }
    }
}

fn unreadable(file: &Path, error: &std::io::Error) -> Mistake {
    Mistake::in_file(file, format!("cannot be read: {error}"))
}

/// A file's text; `None` where it is not there.
fn read_file(path: &Path) -> Result<Option<String>, Mistakes> {
    let read = std::fs::File::open(path).and_then(|file| {
        let mut bytes = Vec::new();
        file.take(MAX_FILE + 1).read_to_end(&mut bytes)?;
        Ok(bytes)
    });
    let bytes = match read {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unreadable(path, &error).into()),
    };
    let wrong = |message: &str| Err(Mistake::in_file(path, message).into());
    if bytes.len() as u64 > MAX_FILE {
        return wrong("is bigger than 256 KB");
    }
    match String::from_utf8(bytes) {
        Ok(text) => Ok(Some(text)),
        Err(_) => wrong("this is not UTF-8"),
    }
}

/// The first value of the file; 0 is as much as there can be.
fn databytes(text: &str, file: &Path) -> Result<Option<u64>, Mistakes> {
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        let value = line.trim();
        if value.is_empty() || value.starts_with('#') {
            start += line.len();
            continue;
        }
        return match value.parse() {
            Ok(0) => Ok(Some(core::MAX_SIZE)),
            Ok(most) if most <= core::MAX_SIZE => Ok(Some(most)),
            _ => {
                let source = SourceText::new(file, text);
                let span = start..start + line.trim_end().len();
                let message = format!(
                    "expected bytes, from 1 to {}, or 0 for any number",
                    core::MAX_SIZE
                );
                Err(Mistake::at(&source, &span, message).into())
            }
        };
    }
    Ok(None)
}

#[cfg(test)]
mod tests;
