//! Reading files that are written as qpsmtpd's `config/plugins` is: a plugin a line, with its arguments.

use std::path::{Path, PathBuf};

/// Files that one may lead to over `$include`.
const MAX_FILES: usize = 1000;

/// Plugins in whose place the daemon's own log is.
pub const OWN_LOG: [&str; 2] = ["logging/warn", "logging/devnull"];

/// A line of such a file, in its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    /// An empty line, or a comment with its `#`.
    Comment(String),
    /// A plugin with its arguments.
    Plugin(Words),
}

/// A plugin's line, cut at white space. Quotes mean nothing to qpsmtpd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Words(Vec<String>);

impl Words {
    /// `None` where there is no word.
    pub fn of(line: &str) -> Option<Words> {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        (!words.is_empty()).then_some(Words(words))
    }

    /// The plugin as it is written: `ident/p0f:2`, `My::Plugin`.
    pub fn plugin(&self) -> &str {
        &self.0[0]
    }

    /// The plugin's file: without the number of a copy.
    pub fn file(&self) -> &str {
        match self.plugin().rsplit_once(':') {
            Some((file, number)) if !file.is_empty() && is_number(number) => file,
            _ => self.plugin(),
        }
    }

    /// Whether it is a Perl module, such as `My::Plugin`.
    pub fn is_module(&self) -> bool {
        self.plugin().contains("::")
    }

    pub fn arguments(&self) -> &[String] {
        &self.0[1..]
    }

    /// The line, with single spaces.
    pub fn text(&self) -> String {
        self.0.join(" ")
    }
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// The lines of the file `name` in the folder `config`, those of included files where they are included; and what could not be read, in words.
pub fn read(config: &Path, name: &str) -> (Vec<Line>, Vec<String>) {
    let mut reading = Reading {
        config,
        lines: Vec::new(),
        troubles: Vec::new(),
        open: Vec::new(),
        files: 0,
    };
    reading.file(&config.join(name));
    (reading.lines, reading.troubles)
}

/// The plugins of `config/logging` that are more than the daemon's own log: what qpsmtpd loads before all others.
pub fn logging(config: &Path) -> Vec<Line> {
    let lines = match config.join("logging").exists() {
        true => read(config, "logging").0,
        false => Vec::new(),
    };
    let is_more = |line: &Line| match line {
        Line::Plugin(words) => !OWN_LOG.contains(&words.file()),
        Line::Comment(_) => false,
    };
    let mut plugins: Vec<Line> = lines.into_iter().filter(is_more).collect();
    if !plugins.is_empty() {
        plugins.insert(0, Line::Comment("# From config/logging.".to_owned()));
    }
    plugins
}

struct Reading<'a> {
    config: &'a Path,
    lines: Vec<Line>,
    troubles: Vec<String>,
    /// The files on the way here.
    open: Vec<PathBuf>,
    files: usize,
}

impl Reading<'_> {
    fn file(&mut self, path: &Path) {
        self.files += 1;
        if self.open.iter().any(|open| open == path) || self.files > MAX_FILES {
            return self.trouble(path, "includes itself, or there are too many files");
        }
        if path.is_dir() {
            return self.folder(path);
        }
        let bytes = match std::fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) => return self.trouble(path, &error.to_string()),
        };
        self.open.push(path.to_owned());
        for line in String::from_utf8_lossy(&bytes).lines().map(str::trim) {
            let included = line
                .strip_prefix("$include")
                .filter(|rest| rest.starts_with(char::is_whitespace));
            if let Some(name) = included {
                self.lines.push(Line::Comment(format!("# {line}")));
                self.file(&self.config.join(name.trim()));
            } else if line.starts_with('#') {
                self.lines.push(Line::Comment(printable(line)));
            } else {
                let line = Words::of(line);
                self.lines
                    .push(line.map_or(Line::Comment(String::new()), Line::Plugin));
            }
        }
        self.open.pop();
    }

    fn folder(&mut self, path: &Path) {
        let entries = match std::fs::read_dir(path) {
            Ok(entries) => entries,
            Err(error) => return self.trouble(path, &error.to_string()),
        };
        let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        files.retain(|file| file.is_file());
        files.sort();
        for file in files {
            self.file(&file);
        }
    }

    fn trouble(&mut self, path: &Path, what: &str) {
        let text = format!("{}: {what}", path.display());
        self.lines
            .push(Line::Comment(format!("# Not read: {}", printable(&text))));
        self.troubles.push(format!("not read: {text}"));
    }
}

/// Without what a comment in TOML must not hold.
pub fn printable(text: &str) -> String {
    text.replace(|c: char| c.is_control() && c != '\t', "?")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn comment(text: &str) -> Line {
        Line::Comment(text.to_owned())
    }

    fn plugin(text: &str) -> Line {
        Line::Plugin(Words::of(text).unwrap())
    }

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        dir
    }

    #[test]
    fn lines_and_comments_keep_their_places() {
        let text = "# first\n\n  relay only 1 \r\n#dnsbl reject 0\nhelp a \"b c\" # d\n";
        let dir = folder(&[("plugins", text)]);
        let (lines, troubles) = read(dir.path(), "plugins");
        let help = Words(
            ["help", "a", "\"b", "c\"", "#", "d"]
                .map(str::to_owned)
                .into(),
        );
        let expected = [
            comment("# first"),
            comment(""),
            plugin("relay only 1"),
            comment("#dnsbl reject 0"),
            Line::Plugin(help),
        ];
        assert_eq!(lines, expected);
        assert!(troubles.is_empty());
    }

    #[test]
    fn included_lines_stand_where_they_are_included() {
        let dir = folder(&[
            (
                "plugins",
                "a\n$include more/b\n$include many\n$include gone\nz",
            ),
            ("more/b", "b\n$include plugins"),
            ("many/2", "d"),
            ("many/1", "c"),
        ]);
        let (lines, troubles) = read(dir.path(), "plugins");
        let plugins: Vec<String> = lines
            .iter()
            .filter_map(|line| match line {
                Line::Plugin(words) => Some(words.text()),
                Line::Comment(_) => None,
            })
            .collect();
        assert_eq!(plugins, ["a", "b", "c", "d", "z"]);
        assert_eq!(lines[1], comment("# $include more/b"));
        assert_eq!(troubles.len(), 2, "{troubles:?}");
        assert!(troubles[0].contains("includes itself"), "{troubles:?}");
        assert!(troubles[1].contains("gone"), "{troubles:?}");
    }

    #[test]
    fn copies_and_modules() {
        for (line, file, is_module) in [
            ("ident/p0f:2 /var/p0f", "ident/p0f", false),
            ("dnsbl", "dnsbl", false),
            ("My::Plugin x", "My::Plugin", true),
            (":2", ":2", false),
        ] {
            let words = Words::of(line).unwrap();
            assert_eq!(
                (words.file(), words.is_module()),
                (file, is_module),
                "{line}"
            );
        }
    }
}
