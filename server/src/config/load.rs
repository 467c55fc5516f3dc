//! Which file holds, and from its text to a [`Config`].

use std::path::Path;
use std::sync::Arc;

use gatepost_protocol::Definition;
use gatepost_protocol::settings::nearest;
use toml::Spanned;
use toml::de::DeTable;

use super::mistakes::{Mistake, Mistakes};
use super::reader::{Keys, Reader};
use super::source_text::SourceText;
use super::types::{Config, PluginConfig};
use super::{Scope, core, plugin, program, scopes};

/// The configuration of a daemon that was given none.
pub const BUILT_IN: &str = include_str!("built_in.toml");

/// Where a configuration is looked for, in this order.
const PLACES: [&str; 2] = ["gatepost.toml", "/etc/gatepost/gatepost.toml"];

/// Reads a configuration: the named file, else the first of `./gatepost.toml` and `/etc/gatepost/gatepost.toml` that
/// is there, else [`BUILT_IN`]. `definitions` are the built-in plugins.
///
/// Paths in it are relative to the current folder. Reads the files that secrets stand in, and looks whether programs
/// are there; opens no socket and starts nothing.
///
/// # Errors
/// All that is wrong with it, at once.
pub fn load(path: Option<&Path>, definitions: &[Definition]) -> Result<Config, Mistakes> {
    let found = path.or_else(|| PLACES.iter().map(Path::new).find(|place| place.exists()));
    let Some(file) = found else {
        return parse(BUILT_IN, "built-in configuration", definitions);
    };
    let bytes = std::fs::read(file)
        .map_err(|error| Mistake::in_file(file, format!("cannot be read: {error}")))?;
    let name = file.to_string_lossy();
    match String::from_utf8(bytes) {
        Ok(text) => parse(&text, &name, definitions),
        Err(error) => {
            let start = error.utf8_error().valid_up_to();
            let source = SourceText::new(file, &String::from_utf8_lossy(error.as_bytes()));
            Err(Mistake::at(&source, &(start..start + 1), "this is not UTF-8").into())
        }
    }
}

/// Reads a configuration's text; `file` is its name in mistakes. Otherwise like [`load`].
///
/// # Errors
/// All that is wrong with it, at once.
pub fn parse(text: &str, file: &str, definitions: &[Definition]) -> Result<Config, Mistakes> {
    let (mut reader, table) = begin(text, Path::new(file))?;
    let mut keys = Keys::new(table.get_ref());
    let mut config = core::read(&mut reader, &mut keys);
    config.origins = super::CoreOrigins::read(&mut reader, &keys, &config);
    let sdk_perl = program::sdk_perl(&mut reader, keys.get("sdk_perl"));
    if let Some(item) = keys.get("plugin") {
        config.plugins = plugin::read_chain(&mut reader, item, sdk_perl.as_deref(), definitions);
    }
    config.scopes = scopes::read(
        &mut reader,
        &mut keys,
        &config.plugins,
        sdk_perl.as_deref(),
        definitions,
    );
    keys.finish(&mut reader);
    let (mistakes, warnings) = reader.finish();
    if mistakes.is_empty() {
        config.warnings = Mistakes::new(warnings);
        Ok(config)
    } else {
        Err(Mistakes::new(mistakes))
    }
}

/// Reads the settings of a user that stand elsewhere than in the configuration, in the shape of what is within `[user."…"]`; but for plugins of the
/// user's own, which are built-ins. `address` is the user's, `file` the text's name in mistakes, `chain` what everybody has. Returns warnings, too.
///
/// # Errors
/// All that is wrong with it, at once.
pub fn parse_user(
    text: &str,
    file: &Path,
    address: &str,
    chain: &[PluginConfig],
    definitions: &[Definition],
) -> Result<(Scope, Mistakes), Mistakes> {
    let (mut reader, table) = begin(text, file)?;
    let keys = Keys::new(table.get_ref());
    let scope = scopes::read_user(&mut reader, keys, address, chain, definitions);
    let (mistakes, warnings) = reader.finish();
    if mistakes.is_empty() {
        Ok((scope, Mistakes::new(warnings)))
    } else {
        Err(Mistakes::new(mistakes))
    }
}

fn begin<'a>(text: &'a str, file: &Path) -> Result<(Reader, Spanned<DeTable<'a>>), Mistakes> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let source = Arc::new(SourceText::new(file, text));
    let (table, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        // What was recovered behind a slip in the syntax says nothing about the rest.
        return Err(syntax_mistakes(&source, &errors));
    }
    Ok((Reader::new(source), table))
}

/// One mistake a line: the parser goes on behind a slip, and stumbles over the same again.
fn syntax_mistakes(source: &SourceText, errors: &[toml::de::Error]) -> Mistakes {
    let located = errors.iter().map(|error| {
        let Some(span) = error.span() else {
            return Mistake::in_file(&source.location(0).file, error.message());
        };
        let message = syntax_message(source, &span, error.message());
        Mistake::at(source, &span, message)
    });
    let mut mistakes: Vec<Mistake> = Vec::new();
    for mistake in located {
        let line = |mistake: &Mistake| mistake.place.as_ref().map(|place| place.line);
        if line(&mistake).is_none() || mistakes.iter().all(|other| line(other) != line(&mistake)) {
            mistakes.push(mistake);
        }
    }
    Mistakes::new(mistakes)
}

/// The parser's words, but for those that only its author understands.
fn syntax_message(source: &SourceText, span: &std::ops::Range<usize>, message: &str) -> String {
    let text = source.slice(span.clone());
    let unquoted = message.starts_with("string values must be quoted");
    if unquoted && text.is_empty() {
        return "the value is missing".to_owned();
    }
    // `info` begins like `inf`, `text` like `true`, and neither is one.
    let word = text.starts_with(|c: char| c.is_ascii_alphabetic())
        && (message.starts_with("invalid float") || message.starts_with("invalid boolean"));
    if unquoted || word && nearest(text, ["true", "false"].into_iter()).is_none() {
        return "text stands in quotes: \"\u{2026}\"".to_owned();
    }
    if message == "duplicate key" {
        return format!("`{text}` is set already above");
    }
    message.to_owned()
}
