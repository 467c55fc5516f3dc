//! Plugins outside the daemon: `run`, `attach` and `qpsmtpd`, and whether what they name is there.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use gatepost_protocol::settings::nearest;
use nix::unistd::{AccessFlags, access};

use super::confine::{self, Confinement};
use super::parts;
use super::plugin::base_name;
use super::reader::{Item, Keys, Reader};
use super::types::{PluginKind, Program, Source};

/// The largest pool of workers.
const MAX_WORKERS: i64 = 64;

/// The largest pool of workers for qpsmtpd's plugins where the operator says nothing: as many processes as qpsmtpd-prefork has.
const QPSMTPD_WORKERS: usize = 15;

/// Programs whose first argument is a file to run.
const INTERPRETERS: [&str; 8] = ["python", "perl", "ruby", "node", "php", "lua", "bash", "sh"];

/// The Perl SDK's folder among Gatepost's own files.
const SDK_PERL: &str = "sdk-perl";

/// The program of the Perl SDK that runs qpsmtpd's plugin files.
const PERL_HOST: &str = "bin/gatepost-perl";

pub(super) fn run(reader: &mut Reader, keys: &mut Keys<'_>) -> Option<(PluginKind, Source)> {
    refuse(
        reader,
        keys,
        &["plugin_dirs"],
        "is for plugins with `qpsmtpd`",
    );
    let source = source(reader, keys, true);
    let options = Options::read(reader, keys, 1);
    let item = keys.get("run")?;
    let command = reader.list(item)?;
    let Some((program, rest)) = command.split_first() else {
        reader.mistake(
            item.span(),
            "the command is empty; write the program and its arguments, such as [\"python3\", \"vip.py\"]",
        );
        return None;
    };
    check_program(reader, program);
    check_script(reader, program.0, rest);
    let argv = command.iter().map(|(word, _)| (*word).to_owned()).collect();
    Some((PluginKind::Run(options?.program(argv)), source?))
}

pub(super) fn attach(reader: &mut Reader, keys: &mut Keys<'_>) -> Option<(PluginKind, Source)> {
    refuse(
        reader,
        keys,
        &[
            "plugin_dirs",
            "env",
            "workers",
            "exclusive",
            "process",
            "confine",
        ],
        "is for plugins that gatepost starts; this one is attached",
    );
    let source = source(reader, keys, false);
    let item = keys.get("attach")?;
    let path = reader
        .text(item)?
        .strip_prefix("unix:")
        .filter(|path| !path.is_empty());
    match path {
        Some(path) => Some((PluginKind::Attach(path.into()), source?)),
        None => {
            reader.mistake(
                item.span(),
                "expected \"unix:PATH\", such as \"unix:/run/vip.sock\"",
            );
            None
        }
    }
}

pub(super) fn qpsmtpd(
    reader: &mut Reader,
    keys: &mut Keys<'_>,
    sdk_perl: Option<&Path>,
) -> Option<(PluginKind, Source)> {
    refuse(
        reader,
        keys,
        &["source", "args"],
        "is said by the line of `qpsmtpd` already",
    );
    let options = Options::read(reader, keys, QPSMTPD_WORKERS);
    let dirs = plugin_dirs(reader, keys);
    let item = keys.get("qpsmtpd")?;
    let line = reader.some_text(item)?;
    if !line.bytes().all(|byte| matches!(byte, b' '..=b'~' | b'\t')) {
        reader.mistake(
            item.span(),
            "a line of qpsmtpd's `config/plugins` holds printable ASCII only",
        );
        return None;
    }
    let mut words = line.split_whitespace().map(str::to_owned);
    let name = words.next()?;
    if let Some(dirs) = &dirs {
        check_plugin_file(reader, item.span(), &name, dirs);
    }
    if sdk_perl.is_none() {
        let looked: Vec<String> = parts::places(SDK_PERL)
            .iter()
            .map(|place| place.display().to_string())
            .collect();
        reader.mistake(
            item.span(),
            format!(
                "the Perl SDK, which runs this, was not found in {}; say where it is with `sdk_perl`",
                looked.join(", ")
            ),
        );
    }
    let perl = ("perl", item.span());
    check_program(reader, &perl);
    let host = sdk_perl?.join(PERL_HOST);
    let argv = vec!["perl".to_owned(), host.to_str()?.to_owned()];
    let source = Source {
        name: Some(name),
        dirs: dirs?,
        args: words.collect(),
    };
    Some((PluginKind::Run(options?.program(argv)), source))
}

/// Keys that make no sense on this kind of plugin.
fn refuse(reader: &mut Reader, keys: &Keys<'_>, names: &[&str], why: &str) {
    for name in names {
        if let Some(span) = keys.key_span(name) {
            reader.mistake(span, format!("`{name}` {why}"));
        }
    }
}

/// `source` and `args`.
fn source(reader: &mut Reader, keys: &mut Keys<'_>, here: bool) -> Option<Source> {
    let mut source = Source::default();
    if let Some(item) = keys.get("source") {
        let name = reader.some_text(item)?;
        // A name without a slash may be one that the program knows by itself.
        if here && name.contains('/') && !Path::new(name).is_file() {
            reader.mistake(item.span(), format!("there is no file `{name}`"));
        }
        source.name = Some(name.to_owned());
    }
    if let Some(item) = keys.get("args") {
        let args = reader.list(item)?;
        source.args = args.into_iter().map(|(arg, _)| arg.to_owned()).collect();
    }
    Some(source)
}

/// How a program is run, besides its command.
struct Options {
    env: BTreeMap<String, String>,
    workers: (usize, usize),
    exclusive: bool,
    process: Option<String>,
    confine: Confinement,
}

impl Options {
    /// `most`: how many workers there are at most where `workers` says nothing.
    fn read(reader: &mut Reader, keys: &mut Keys<'_>, most: usize) -> Option<Options> {
        let env = match keys.get("env") {
            Some(item) => environment(reader, item),
            None => Some(BTreeMap::new()),
        };
        let workers = match keys.get("workers") {
            Some(item) => workers(reader, item),
            None => Some((1, most)),
        };
        let exclusive = match keys.get("exclusive") {
            Some(item) => reader.boolean(item)?,
            None => false,
        };
        let process = match keys.get("process") {
            Some(item) => Some(reader.some_text(item)?.to_owned()),
            None => None,
        };
        let confine = match keys.get("confine") {
            Some(item) => confine::read(reader, item),
            None => Some(Confinement::default()),
        };
        Some(Options {
            env: env?,
            workers: workers?,
            exclusive,
            process,
            confine: confine?,
        })
    }

    fn program(self, argv: Vec<String>) -> Program {
        Program {
            argv,
            env: self.env,
            workers: self.workers,
            exclusive: self.exclusive,
            process: self.process,
            confine: Box::new(self.confine),
        }
    }
}

fn environment(reader: &mut Reader, item: &Item<'_>) -> Option<BTreeMap<String, String>> {
    let keys = reader.table(item)?;
    let mut env = BTreeMap::new();
    for (key, span, item) in keys.rest() {
        if key.is_empty() || key.contains(['=', '\0']) {
            let message = format!("`{key}` is no name for an environment variable");
            reader.mistake(span, message);
        } else if ["GATEPOST_FD", "GATEPOST_DAEMON"].contains(&key) {
            reader.mistake(span, format!("`{key}` is set by gatepost itself"));
        } else if let Some(value) = reader.text_or_secret(item) {
            if value.contains('\0') {
                reader.mistake(item.span(), "an environment variable cannot hold a NUL");
            }
            env.insert(key.to_owned(), value);
        }
    }
    Some(env)
}

fn workers(reader: &mut Reader, item: &Item<'_>) -> Option<(usize, usize)> {
    if item.get_ref().as_table().is_none() {
        reader.mistake(
            item.span(),
            "expected a table, such as { min = 1, max = 4 }",
        );
        return None;
    }
    let mut keys = reader.table(item)?;
    let (min, max) = (keys.get("min"), keys.get("max"));
    keys.finish(reader);
    let mut count = |item: Option<&Item<'_>>| {
        let Some(item) = item else {
            return Some(None);
        };
        let number = reader.integer(item)?;
        if !(1..=MAX_WORKERS).contains(&number) {
            reader.mistake(item.span(), format!("must be from 1 to {MAX_WORKERS}"));
            return None;
        }
        usize::try_from(number).ok().map(Some)
    };
    let (least, most) = (count(min), count(max));
    let least = least?.unwrap_or(1);
    let most = most?.unwrap_or(least);
    if least > most {
        reader.mistake(item.span(), format!("`min` is {least} and `max` is {most}"));
        return None;
    }
    Some((least, most))
}

fn check_program(reader: &mut Reader, (program, span): &(&str, Range<usize>)) {
    let span = span.clone();
    if program.is_empty() {
        reader.mistake(span, "the program's name is empty");
    } else if !program.contains('/') {
        if !in_path(program) {
            let hint = if Path::new(program).is_file() {
                format!("write \"./{program}\" for the file here")
            } else {
                "install it, or write its whole path".to_owned()
            };
            reader.mistake(
                span,
                format!("there is no program `{program}` in PATH; {hint}"),
            );
        }
    } else if !Path::new(program).exists() {
        reader.mistake(
            span,
            format!("there is no file `{program}` (a relative path starts in the folder that gatepost is started in)"),
        );
    } else if !is_program(Path::new(program)) {
        reader.mistake(
            span,
            format!("`{program}` cannot be executed; try `chmod +x {program}`, or name the program that runs it first"),
        );
    }
}

/// An interpreter is there, but is what it shall run?
fn check_script(reader: &mut Reader, program: &str, arguments: &[(&str, Range<usize>)]) {
    let name = program.rsplit('/').next().unwrap_or(program);
    let name = name.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.');
    let Some((script, span)) = arguments.first() else {
        return;
    };
    if INTERPRETERS.contains(&name) && !script.starts_with('-') && !Path::new(script).exists() {
        reader.mistake(
            span.clone(),
            format!("there is no file `{script}` (a relative path starts in the folder that gatepost is started in)"),
        );
    }
}

fn in_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| is_program(&folder.join(program)))
}

fn is_program(path: &Path) -> bool {
    path.is_file() && access(path, AccessFlags::X_OK).is_ok()
}

/// The folders of qpsmtpd's plugin files; `plugins` as in qpsmtpd where none are named.
fn plugin_dirs(reader: &mut Reader, keys: &mut Keys<'_>) -> Option<Vec<PathBuf>> {
    let Some(item) = keys.get("plugin_dirs") else {
        return Some(vec![PathBuf::from("plugins")]);
    };
    reader.folders(item)
}

fn check_plugin_file(reader: &mut Reader, span: Range<usize>, name: &str, dirs: &[PathBuf]) {
    // `My::Plugin` is a Perl module, found by Perl.
    let file = base_name(name);
    if file.contains("::") || dirs.iter().any(|dir| dir.join(file).is_file()) {
        return;
    }
    let there: Vec<String> = dirs.iter().flat_map(|dir| plugin_files(dir)).collect();
    let hint = match nearest(file, there.iter().map(String::as_str)) {
        Some(near) => format!("did you mean `{near}`?"),
        None => "is `plugin_dirs` right?".to_owned(),
    };
    let dirs: Vec<String> = dirs.iter().map(|dir| dir.display().to_string()).collect();
    reader.mistake(
        span,
        format!(
            "there is no plugin file `{file}` in {}; {hint}",
            dirs.join(", ")
        ),
    );
}

/// The plugin files of a folder and, as qpsmtpd has them, of its subfolders: `ident/p0f`.
fn plugin_files(dir: &Path) -> Vec<String> {
    let entries = |dir: &Path| -> Vec<PathBuf> {
        std::fs::read_dir(dir)
            .map(|entries| entries.flatten().map(|entry| entry.path()).collect())
            .unwrap_or_default()
    };
    let (folders, mut files): (Vec<PathBuf>, Vec<PathBuf>) =
        entries(dir).into_iter().partition(|path| path.is_dir());
    files.extend(folders.iter().flat_map(|folder| entries(folder)));
    files
        .iter()
        .filter_map(|file| Some(file.strip_prefix(dir).ok()?.to_str()?.to_owned()))
        .collect()
}

/// The Perl SDK's folder as the `sdk_perl` key names it, or where it is found.
pub(super) fn sdk_perl(reader: &mut Reader, item: Option<&Item<'_>>) -> Option<PathBuf> {
    let Some(item) = item else {
        return parts::places(SDK_PERL)
            .into_iter()
            .find(|place| place.join(PERL_HOST).is_file());
    };
    let folder = PathBuf::from(reader.some_text(item)?);
    if !folder.join(PERL_HOST).is_file() {
        let message = format!("there is no file `{}`", folder.join(PERL_HOST).display());
        reader.mistake(item.span(), message);
    }
    Some(folder)
}
