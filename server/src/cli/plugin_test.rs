//! `gatepost plugin test`: a dialogue against a real server whose chain is this plugin and a Maildir.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use tempfile::TempDir;
use toml::{Table, Value};

use super::transcript::{Dialogue, Head, Places, perform};
use super::{FAILED, refuse};
use crate::config::parts;
use crate::plugins;

/// Plays the dialogue; prints where it went wrong, if it did.
pub fn test(plugin: &str, transcript: &Path) -> ExitCode {
    let Prepared {
        dialogue,
        head,
        program,
        dir,
    } = match prepare(plugin, transcript) {
        Ok(prepared) => prepared,
        Err(error) => return refuse(&error),
    };
    match perform(&dialogue, &head, &program, dir.path()) {
        Ok(()) => {
            println!("{}: ok", transcript.display());
            ExitCode::SUCCESS
        }
        Err(failure) => {
            eprintln!("{failure}");
            ExitCode::from(FAILED)
        }
    }
}

/// A dialogue, and what its server needs.
struct Prepared {
    dialogue: Dialogue,
    head: Head,
    /// This program, which is the server too.
    program: PathBuf,
    dir: TempDir,
}

fn prepare(plugin: &str, transcript: &Path) -> Result<Prepared, String> {
    let mut dialogue = Dialogue::read(transcript).map_err(|mistake| mistake.to_string())?;
    let mut head: Table = dialogue
        .head
        .parse()
        .map_err(|error| format!("the head of {}: {error}", transcript.display()))?;
    if head.contains_key("plugin") {
        return Err(format!(
            "{}: the chain of this dialogue is the plugin under test; put its settings under [settings] instead of [[plugin]]",
            transcript.display()
        ));
    }
    let settings = match head.remove("settings") {
        None => Table::new(),
        Some(Value::Table(settings)) => settings,
        Some(_) => return Err(format!("{}: `settings` is a table", transcript.display())),
    };
    let under_test = entry(plugin, settings)?;
    let dir = TempDir::with_prefix("gatepost-").map_err(|error| error.to_string())?;
    head.insert(
        "plugin".to_owned(),
        Value::Array(chain(under_test, dir.path())),
    );
    dialogue.head = head.to_string();
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let places = Places {
        dir: dir.path().to_owned(),
        root: parts::find(".").unwrap_or_default(),
        bin: program.parent().unwrap_or(Path::new("/")).to_owned(),
    };
    let head = Head::of(&dialogue, &places).map_err(|mistake| mistake.to_string())?;
    Ok(Prepared {
        dialogue,
        head,
        program,
        dir,
    })
}

/// The plugin under test as an entry of the configuration.
fn entry(plugin: &str, mut settings: Table) -> Result<Value, String> {
    let text = |text: &str| Value::String(text.to_owned());
    let file = Path::new(plugin);
    if plugins::all()
        .iter()
        .any(|definition| definition.name == plugin)
    {
        settings.insert("name".to_owned(), text(plugin));
        return Ok(settings.into());
    }
    let path: PathBuf = file
        .canonicalize()
        .map_err(|error| format!("`{plugin}` is neither a built-in plugin nor a file: {error}"))?;
    let name = file
        .file_stem()
        .map(|stem| stem.to_string_lossy().into_owned())
        .unwrap_or_default();
    let path = path.to_string_lossy();
    settings.insert("name".to_owned(), text(&name));
    let list = |items: &[&str]| Value::Array(items.iter().map(|item| text(item)).collect());
    match file.extension().and_then(|extension| extension.to_str()) {
        Some("py") => {
            settings.insert("run".to_owned(), list(&["python3", &path]));
            if let Some(sdk) = parts::find("sdk-python/src") {
                let env =
                    Table::from_iter([("PYTHONPATH".to_owned(), text(&sdk.to_string_lossy()))]);
                settings.insert("env".to_owned(), env.into());
            }
        }
        Some("pl") => {
            settings.insert("qpsmtpd".to_owned(), text(&path));
        }
        _ => {
            settings.insert("run".to_owned(), list(&[&path]));
        }
    }
    Ok(settings.into())
}

/// The plugin, then all mail into a Maildir.
fn chain(under_test: Value, dir: &Path) -> Vec<Value> {
    let mail = dir.join("mail").to_string_lossy().into_owned();
    let accept = Table::from_iter([
        ("name".to_owned(), Value::from("rcpt_ok")),
        (
            "hosts".to_owned(),
            Value::Array(vec![Value::from("example.org")]),
        ),
    ]);
    let keep = Table::from_iter([
        ("name".to_owned(), Value::from("queue/maildir")),
        ("path".to_owned(), Value::from(mail)),
    ]);
    vec![under_test, accept.into(), keep.into()]
}
