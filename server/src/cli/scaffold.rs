//! `gatepost plugin new`: a folder with a plugin, its tests, a dialogue and a configuration.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::ValueEnum;

/// The languages a plugin can be begun in.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Language {
    /// Rust
    Rust,
    /// Python
    Python,
    /// Perl, with qpsmtpd's API
    Perl,
}

/// Makes the folder `name` and what belongs into it, and says what to do next. `sdk` finds a part of Gatepost's own files by name.
pub fn create(
    language: Language,
    name: &str,
    sdk: impl Fn(&str) -> Option<PathBuf>,
) -> Result<String, String> {
    let fits = |character: char| character.is_ascii_alphanumeric() || character == '_';
    if !name.chars().all(fits) || !name.starts_with(|first: char| first.is_ascii_lowercase()) {
        return Err(format!(
            "`{name}` cannot be the name of a plugin: take lower-case letters, digits and underscores"
        ));
    }
    let folder = Path::new(name);
    if folder.exists() {
        return Err(format!(
            "`{name}` exists already: take another name, or remove it first"
        ));
    }
    let found = |part: &str| {
        sdk(part).map_or_else(
            || format!("/usr/share/gatepost/{part}"),
            |path| path.display().to_string(),
        )
    };
    let python_path = found("sdk-python/src");
    let perl_lib = found("sdk-perl/lib");
    let (files, run, program, test): (Vec<(String, &str)>, String, String, String) = match language
    {
        Language::Python => (
            vec![
                (
                    format!("{name}.py"),
                    include_str!("templates/python/plugin.py"),
                ),
                (
                    format!("test_{name}.py"),
                    include_str!("templates/python/test_plugin.py"),
                ),
            ],
            format!(
                "run = [\"python3\", \"{name}.py\"]\nenv = {{ PYTHONPATH = \"{python_path}\" }}    # not needed after `pip install`"
            ),
            format!("{name}.py"),
            format!("PYTHONPATH={python_path} python3 -m unittest"),
        ),
        Language::Perl => (
            vec![
                (
                    format!("{name}.pl"),
                    include_str!("templates/perl/plugin.pl"),
                ),
                (format!("{name}.t"), include_str!("templates/perl/plugin.t")),
            ],
            format!("qpsmtpd = \"{name}.pl\"\nplugin_dirs = [\".\"]"),
            format!("{name}.pl"),
            format!("prove -I{perl_lib} {name}.t"),
        ),
        Language::Rust => (
            vec![
                (
                    "Cargo.toml".to_owned(),
                    include_str!("templates/rust/Cargo.toml.template"),
                ),
                (
                    "src/main.rs".to_owned(),
                    include_str!("templates/rust/main.rs"),
                ),
            ],
            format!("run = [\"target/release/{name}\"]"),
            format!("target/release/{name}"),
            "cargo test && cargo build --release".to_owned(),
        ),
    };
    let mut files = files;
    files.push((
        format!("{name}.smtp"),
        include_str!("templates/plugin.smtp"),
    ));
    files.push((
        "gatepost.toml".to_owned(),
        include_str!("templates/gatepost.toml"),
    ));
    for (file, template) in &files {
        let text = template
            .replace("PROGRAM", &program)
            .replace("PROTOCOL", &found("protocol"))
            .replace("NAME", name)
            .replace("RUN", &run);
        write_new(&folder.join(file), &text)
            .map_err(|error| format!("cannot write {name}/{file}: {error}"))?;
    }
    Ok(format!(
        "{name}/ holds a plugin that refuses recipients by a list. Next:\n\n    cd {name}\n    {test}\n    gatepost plugin test {program} {name}.smtp\n    gatepost run -c gatepost.toml\n"
    ))
}

fn write_new(file: &Path, text: &str) -> io::Result<()> {
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::File::create_new(file)?.write_all(text.as_bytes())
}
