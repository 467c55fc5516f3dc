//! `[[plugin]]`: a place in the chain.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use gatepost_protocol::settings::nearest;
use gatepost_protocol::{Definition, Immune, OnError, Policy, Reject, RejectType, Settings, Value};

use super::mistakes::Spans;
use super::program;
use super::reader::{Item, Keys, Reader, integer};
use super::types::{LevelChange, PluginConfig, PluginKind, Shadow, Source};
use super::when::When;

/// The keys that mean the same on every plugin, or say where it runs. All others are the plugin's own.
pub(super) const CORE_KEYS: &[&str] = &[
    "name",
    "run",
    "attach",
    "qpsmtpd",
    "plugin_dirs",
    "source",
    "args",
    "env",
    "workers",
    "exclusive",
    "process",
    "confine",
    "reject",
    "reject_type",
    "loglevel",
    "on_error",
    "immune",
    "timeout",
    "shadow",
    "canary",
    "when",
];

/// Those of them that decide what becomes of what a plugin finds.
const UNIFORM_KEYS: [&str; 6] = [
    "reject",
    "reject_type",
    "on_error",
    "immune",
    "shadow",
    "canary",
];

/// The keys that say where a plugin runs; it has one of them at most.
pub(super) const KINDS: [&str; 3] = ["run", "attach", "qpsmtpd"];

/// Reads the chain.
pub(super) fn read_chain(
    reader: &mut Reader,
    item: &Item<'_>,
    sdk_perl: Option<&Path>,
    definitions: &[Definition],
) -> Vec<PluginConfig> {
    let mut chain = Chain::new(sdk_perl, definitions);
    let tables = reader.tables("plugin", item);
    tables
        .into_iter()
        .filter_map(|table| chain.plugin(reader, table))
        .collect()
}

/// Plugins of one list, whose names differ.
pub(super) struct Chain<'a> {
    sdk_perl: Option<&'a Path>,
    definitions: &'a [Definition],
    /// The names so far, and their lines.
    names: BTreeMap<String, usize>,
}

impl<'a> Chain<'a> {
    /// A list without any plugin so far.
    pub(super) fn new(sdk_perl: Option<&'a Path>, definitions: &'a [Definition]) -> Chain<'a> {
        Chain {
            sdk_perl,
            definitions,
            names: BTreeMap::new(),
        }
    }

    /// `None` where it cannot be said what plugin is meant; that has then been said.
    pub(super) fn plugin(&mut self, reader: &mut Reader, item: &Item<'_>) -> Option<PluginConfig> {
        let mut keys = reader.table(item)?;
        let header = item.span();
        for key in CORE_KEYS {
            keys.get(key);
        }
        let (settings, spans) = own_settings(reader, &keys, header.clone());
        let uniform = Uniform::read(reader, &mut keys);
        let shadow = shadow(reader, &mut keys);
        let kind_key = one_kind(reader, &keys)?;
        let described = match kind_key {
            Some("run") => program::run(reader, &mut keys),
            Some("attach") => program::attach(reader, &mut keys),
            Some(_) => program::qpsmtpd(reader, &mut keys, self.sdk_perl),
            None => self.built_in(reader, &mut keys, &header, &settings, &spans),
        };
        let default_name = match kind_key {
            Some("qpsmtpd") => described
                .as_ref()
                .and_then(|(_, source)| source.name.clone()),
            _ => None,
        };
        let name = self.name(reader, &mut keys, &header, default_name, kind_key.is_none());
        let (kind, source) = described?;
        Some(PluginConfig {
            name: name?.into(),
            kind,
            source,
            settings,
            policy: uniform.policy,
            loglevel: uniform.loglevel,
            timeout: uniform.timeout,
            shadow,
            when: uniform.when,
            location: reader.source.location(header.start),
            spans,
        })
    }

    fn name(
        &mut self,
        reader: &mut Reader,
        keys: &mut Keys<'_>,
        header: &Range<usize>,
        default: Option<String>,
        built_in: bool,
    ) -> Option<String> {
        let (name, span) = match (keys.get("name"), default) {
            (Some(item), _) => (reader.some_text(item)?.to_owned(), item.span()),
            (None, Some(name)) => (name, keys.key_span("qpsmtpd").unwrap_or_default()),
            // A broken `qpsmtpd` line has no name to give, and has been shown.
            (None, None) if keys.key_span("qpsmtpd").is_some() => return None,
            (None, None) => {
                reader.mistake(
                    header.clone(),
                    "`name` is missing: the plugin's name in the chain",
                );
                return None;
            }
        };
        if name.len() > 100 || !name.bytes().all(|byte| byte.is_ascii_graphic()) {
            reader.mistake(
                span,
                "a name has at most 100 characters: letters, digits and signs of ASCII, no spaces",
            );
            return None;
        }
        if let Some(line) = self.names.get(&name) {
            let base = base_name(&name);
            let hint = if built_in {
                format!("write \"{base}:2\" to have `{base}` twice")
            } else {
                "give this one another name".to_owned()
            };
            let message =
                format!("`{name}` is already the name of the plugin in line {line}; {hint}");
            reader.mistake(span, message);
            return None;
        }
        let line = reader.source.location(header.start).line;
        self.names.insert(name.clone(), line);
        Some(name)
    }

    fn built_in(
        &self,
        reader: &mut Reader,
        keys: &mut Keys<'_>,
        header: &Range<usize>,
        settings: &BTreeMap<String, Value>,
        spans: &Spans,
    ) -> Option<(PluginKind, Source)> {
        let item = keys.get("name")?;
        let name = base_name(item.get_ref().as_str()?);
        let Some(definition) = self.definitions.iter().find(|it| it.name == name) else {
            self.no_such_built_in(reader, keys, item.span(), name);
            return None;
        };
        for key in [
            "plugin_dirs",
            "source",
            "args",
            "env",
            "workers",
            "exclusive",
            "process",
            "confine",
        ] {
            if let Some(span) = keys.key_span(key) {
                let message = format!("`{key}` is for plugins with `run`; `{name}` is built in");
                reader.mistake(span, message);
            }
        }
        if let Err(errors) = Settings::check(&(definition.settings)(), settings) {
            for error in errors {
                let (span, message) = spans.place(error);
                // The header may miss several settings; each is to be said.
                if span == *header {
                    reader.another(span, message);
                } else {
                    reader.mistake(span, message);
                }
            }
        }
        Some((PluginKind::BuiltIn(name.to_owned()), Source::default()))
    }

    /// Either the name is misspelt, or the key that would have said where the plugin runs.
    fn no_such_built_in(
        &self,
        reader: &mut Reader,
        keys: &Keys<'_>,
        span: Range<usize>,
        name: &str,
    ) {
        let mut slips = keys
            .rest()
            .filter_map(|(key, span, _)| Some((key, span, nearest(key, KINDS.into_iter())?)));
        if let Some((key, span, meant)) = slips.next() {
            reader.mistake(
                span,
                format!("unknown setting `{key}`; did you mean `{meant}`?"),
            );
            return;
        }
        let names = || self.definitions.iter().map(|definition| definition.name);
        let hint = match nearest(name, names()) {
            Some(near) => format!("did you mean \"{near}\"?"),
            None => format!(
                "built in are {}; a plugin of your own needs `run`, `attach` or `qpsmtpd`",
                names().collect::<Vec<_>>().join(", ")
            ),
        };
        reader.mistake(
            span,
            format!("there is no built-in plugin `{name}`; {hint}"),
        );
    }
}

/// `badmailfrom` of `badmailfrom:2`, as in qpsmtpd's `config/plugins`.
pub(super) fn base_name(name: &str) -> &str {
    match name.rsplit_once(':') {
        Some((base, number))
            if !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()) =>
        {
            base
        }
        _ => name,
    }
}

/// Everything that is not the core's.
pub(super) fn own_settings(
    reader: &mut Reader,
    keys: &Keys<'_>,
    header: Range<usize>,
) -> (BTreeMap<String, Value>, Spans) {
    let mut settings = BTreeMap::new();
    let mut spans = Spans {
        source: Some(reader.source.clone()),
        header,
        settings: BTreeMap::new(),
        uniform: UNIFORM_KEYS
            .iter()
            .filter_map(|key| Some((*key, keys.key_span(key)?)))
            .collect(),
    };
    for (key, span, item) in keys.rest() {
        let (value, span) = reader.setting(span, item);
        settings.insert(key.to_owned(), value);
        spans.settings.insert(key.to_owned(), span);
    }
    (settings, spans)
}

/// The one key of [`KINDS`] that is set; `None` for a second one, which is a mistake.
fn one_kind(reader: &mut Reader, keys: &Keys<'_>) -> Option<Option<&'static str>> {
    let set: Vec<_> = KINDS
        .into_iter()
        .filter_map(|key| Some((key, keys.key_span(key)?)))
        .collect();
    match set.as_slice() {
        [] => Some(None),
        [(key, _)] => Some(Some(*key)),
        [(first, _), (second, span), ..] => {
            let message = format!("a plugin runs in one place: remove `{first}` or `{second}`");
            reader.mistake(span.clone(), message);
            None
        }
    }
}

/// The settings that mean the same on every plugin.
pub(super) struct Uniform {
    pub policy: Policy,
    pub loglevel: Option<LevelChange>,
    pub timeout: Option<std::time::Duration>,
    pub when: Option<When>,
}

impl Uniform {
    pub(super) fn read(reader: &mut Reader, keys: &mut Keys<'_>) -> Uniform {
        let reject = keys.get("reject");
        let reject_type = keys.get("reject_type");
        let policy = Policy {
            reject: reject.and_then(|item| reader.word(item, Reject::WORDS, Reject::from_value)),
            reject_type: reject_type
                .and_then(|item| reader.word(item, RejectType::WORDS, RejectType::from_value)),
            on_error: keys
                .get("on_error")
                .and_then(|item| reader.word(item, OnError::WORDS, OnError::from_value)),
            immune: keys
                .get("immune")
                .and_then(|item| reader.word(item, Immune::WORDS, Immune::from_value)),
        };
        if let Some(span) = keys.key_span("reject_type")
            && policy.reject == Some(Reject::Tolerate)
        {
            reader.warning(span, "`reject_type` does nothing where `reject` is false");
        }
        Uniform {
            policy,
            loglevel: keys
                .get("loglevel")
                .and_then(|item| level_change(reader, item)),
            timeout: keys.get("timeout").and_then(|item| reader.duration(item)),
            when: keys.get("when").and_then(|item| when(reader, item)),
        }
    }
}

fn shadow(reader: &mut Reader, keys: &mut Keys<'_>) -> Shadow {
    let always = keys.get("shadow").and_then(|item| reader.boolean(item));
    let Some(item) = keys.get("canary") else {
        return match always {
            Some(true) => Shadow::On,
            _ => Shadow::Off,
        };
    };
    if always.is_some() {
        let message = "`canary` says for whom `shadow` is false: remove one of them";
        reader.mistake(keys.key_span("canary").unwrap_or_default(), message);
    }
    let share = reader.text(item).map(Shadow::share);
    if share == Some(None) {
        let message = "expected a share of all clients, from \"0.01%\" to \"100%\"";
        reader.mistake(item.span(), message);
    }
    share.flatten().unwrap_or_default()
}

fn level_change(reader: &mut Reader, item: &Item<'_>) -> Option<LevelChange> {
    if let Some(steps) = integer(item).filter(|steps| *steps < 0) {
        reader.mistake(item.span(), format!("a step stands in quotes: \"{steps}\""));
        return None;
    }
    let step = item
        .get_ref()
        .as_str()
        .filter(|text| text.starts_with(['+', '-']));
    let Some(step) = step else {
        return reader.level(item).map(LevelChange::Fixed);
    };
    let change = LevelChange::parse(step);
    if change.is_none() {
        reader.mistake(item.span(), "expected a step from \"-7\" to \"+7\"");
    }
    change
}

fn when(reader: &mut Reader, item: &Item<'_>) -> Option<When> {
    let text = reader.text(item)?;
    match When::parse(text) {
        Ok(when) => Some(when),
        Err((offset, message)) => {
            let span = within(reader.source.slice(item.span()), text, offset)
                .map(|offset| item.span().start + offset)
                .map_or_else(|| item.span(), |start| start..start + 1);
            reader.mistake(span, message);
            None
        }
    }
}

/// Where a byte of a text stands in the text as it is written; `None` where escapes shift it.
fn within(written: &str, text: &str, offset: usize) -> Option<usize> {
    let quotes = ["'''", "\"\"\"", "'", "\""];
    let opening = quotes
        .into_iter()
        .find(|quote| written.starts_with(quote))?;
    let mut start = opening.len();
    // TOML drops a line end right behind the opening of a multi-line text.
    if start == 3 {
        let rest = &written[start..];
        start += rest.len()
            - rest
                .strip_prefix('\r')
                .unwrap_or(rest)
                .trim_start_matches('\n')
                .len();
    }
    written[start..].starts_with(text).then_some(start + offset)
}
