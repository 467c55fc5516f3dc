//! The head of a dialogue: what it leaves unsaid of a configuration is filled in, so that a file shows what matters to it.

use std::path::{Path, PathBuf};

use toml::{Table, Value};

use super::beside::Wanted;
use super::parse::{Dialogue, Mistake};
use crate::cli::self_signed;

/// Folders that a head may name.
pub struct Places {
    /// `$DIR`: the dialogue's own folder, empty before and gone after it.
    pub dir: PathBuf,
    /// `$ROOT`: where `plugin-examples` and `sdk-python` are.
    pub root: PathBuf,
    /// `$BIN`: where built programs are.
    pub bin: PathBuf,
}

/// A head, completed.
#[derive(Debug)]
pub struct Head {
    /// The whole configuration, as TOML.
    pub config: String,
    /// Files to be written before the server starts, below `$DIR`, with their text.
    pub files: Vec<(PathBuf, String)>,
    /// What is to be started before the server.
    pub beside: Wanted,
}

/// The key of the head's own table of files. The daemon does not see it.
const FILES: &str = "files";

impl Head {
    /// Completes the head of a dialogue.
    pub fn of(dialogue: &Dialogue, places: &Places) -> Result<Head, Mistake> {
        let mistake = |offset: usize, message: &str| Mistake {
            file: dialogue.file.clone(),
            line: 1 + dialogue.head[..offset.min(dialogue.head.len())]
                .matches('\n')
                .count(),
            message: message.to_owned(),
        };
        let mut config: Table =
            places
                .fill_in(&dialogue.head)
                .parse()
                .map_err(|error: toml::de::Error| {
                    // The places stand for longer paths, but never for more lines.
                    let text = places.fill_in(&dialogue.head);
                    let start = error.span().map_or(0, |span| span.start);
                    let line = text[..start.min(text.len())].matches('\n').count();
                    Mistake {
                        line: line + 1,
                        ..mistake(0, error.message())
                    }
                })?;
        let mut files = vec![(
            PathBuf::from("config/rcpthosts"),
            "example.org\n".to_owned(),
        )];
        if let Some(named) = config.remove(FILES) {
            let named = named
                .as_table()
                .ok_or_else(|| mistake(0, "`files` is a table of file names and texts"))?;
            for (name, text) in named {
                let text = text
                    .as_str()
                    .ok_or_else(|| mistake(0, "the text of a file must be text"))?;
                files.push((PathBuf::from(name), text.to_owned()));
            }
        }
        let beside = Wanted::taken_from(&mut config)
            .map_err(|(key, why)| mistake(dialogue.head.find(&key).unwrap_or(0), &why))?;
        complete(&mut config, &places.dir);
        if let Some(hostname) = certificate_for(&config, &places.dir) {
            let made = self_signed::make(&[hostname.to_owned()])
                .map_err(|error| mistake(0, &error.to_string()))?;
            files.push(("tls/cert.pem".into(), made.cert));
            files.push(("tls/key.pem".into(), made.key));
        }
        Ok(Head {
            config: config.to_string(),
            files,
            beside,
        })
    }

    /// Writes the files and makes the folders that the configuration names.
    pub fn prepare(&self, dir: &Path) -> std::io::Result<()> {
        for folder in ["mail", "spool"] {
            std::fs::create_dir_all(dir.join(folder))?;
        }
        for (name, text) in &self.files {
            let file = dir.join(name);
            if let Some(folder) = file.parent() {
                std::fs::create_dir_all(folder)?;
            }
            std::fs::write(file, text)?;
        }
        Ok(())
    }
}

impl Places {
    fn fill_in(&self, text: &str) -> String {
        text.replace("$DIR", &self.dir.to_string_lossy())
            .replace("$ROOT", &self.root.to_string_lossy())
            .replace("$BIN", &self.bin.to_string_lossy())
    }
}

/// Adds what the head did not say.
fn complete(config: &mut Table, dir: &Path) {
    let text = |text: &str| Value::String(text.to_owned());
    let path = |name: &str| Value::String(dir.join(name).to_string_lossy().into_owned());
    let table = |entries: &[(&str, Value)]| {
        let entries = entries
            .iter()
            .map(|(key, value)| ((*key).to_owned(), value.clone()));
        Value::Table(entries.collect())
    };
    let state = format!("file:{}", dir.join("state").to_string_lossy());
    for (key, value) in [
        ("hostname", text("mx.example.org")),
        ("spool_dir", path("spool")),
        ("state", Value::String(state)),
        ("flat_files", path("config")),
        ("loglevel", text("info")),
        ("listen", Value::Array(vec![table(&[])])),
        (
            "plugin",
            Value::Array(vec![
                table(&[("name", text("rcpt_ok"))]),
                table(&[("name", text("queue/maildir"))]),
            ]),
        ),
    ] {
        config.entry(key).or_insert(value);
    }
    let listeners = config.get_mut("listen").and_then(Value::as_array_mut);
    for listener in listeners.into_iter().flatten() {
        if let Some(listener) = listener.as_table_mut() {
            listener.entry("addr").or_insert(text("127.0.0.1:0"));
        }
    }
    if encrypts(config) {
        let tls = config.entry("tls").or_insert(table(&[]));
        if let Some(tls) = tls.as_table_mut() {
            tls.entry("cert").or_insert(path("tls/cert.pem"));
            tls.entry("key").or_insert(path("tls/key.pem"));
        }
    }
    let plugins = config.get_mut("plugin").and_then(Value::as_array_mut);
    for plugin in plugins.into_iter().flatten() {
        if let Some(plugin) = plugin.as_table_mut()
            && plugin.get("name").and_then(Value::as_str) == Some("queue/maildir")
        {
            plugin.entry("path").or_insert(path("mail"));
        }
    }
}

/// Whether a listener does.
fn encrypts(config: &Table) -> bool {
    let listeners = config.get("listen").and_then(Value::as_array);
    listeners
        .into_iter()
        .flatten()
        .filter_map(|listener| listener.get("tls")?.as_str())
        .any(|tls| tls != "off")
}

/// The name for a certificate in the dialogue's own folder, if the configuration wants that one.
fn certificate_for<'a>(config: &'a Table, dir: &Path) -> Option<&'a str> {
    let cert = config.get("tls")?.get("cert")?.as_str()?;
    let hostname = config.get("hostname")?.as_str();
    hostname.filter(|_| Path::new(cert) == dir.join("tls/cert.pem"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(text: &str) -> Result<Head, Mistake> {
        let text = format!("# x\n{text}\n---\nS: 220 *\n");
        let dialogue = Dialogue::parse(Path::new("x.smtp"), &text).unwrap();
        let places = Places {
            dir: "/d".into(),
            root: "/r".into(),
            bin: "/b".into(),
        };
        Head::of(&dialogue, &places)
    }

    #[test]
    fn what_is_unsaid_is_filled_in() {
        let config: Table = head("").unwrap().config.parse().unwrap();
        assert_eq!(config["hostname"].as_str(), Some("mx.example.org"));
        assert_eq!(config["plugin"][1]["path"].as_str(), Some("/d/mail"));
        assert_eq!(config["listen"][0]["addr"].as_str(), Some("127.0.0.1:0"));
    }

    #[test]
    fn what_is_said_stays() {
        let head = head(concat!(
            "hostname = 'other.example'\n",
            "[[listen]]\nprotocol = 'lmtp'\n",
            "[files]\n'config/badmailfrom' = 'x'\n[[plugin]]\nname = 'vip'\nrun = ['$BIN/vip', '$ROOT/x']\n[limits]\nmax_size = '1MB'"
        ))
        .unwrap();
        let config: Table = head.config.parse().unwrap();
        assert_eq!(config["hostname"].as_str(), Some("other.example"));
        assert_eq!(config["plugin"].as_array().unwrap().len(), 1);
        assert_eq!(config["plugin"][0]["run"][0].as_str(), Some("/b/vip"));
        assert_eq!(config["limits"]["max_size"].as_str(), Some("1MB"));
        assert_eq!(config["listen"][0]["protocol"].as_str(), Some("lmtp"));
        assert_eq!(config["listen"][0]["addr"].as_str(), Some("127.0.0.1:0"));
        assert!(!config.contains_key("files"));
        assert_eq!(
            head.files.last().unwrap(),
            &(PathBuf::from("config/badmailfrom"), "x".to_owned())
        );
    }

    #[test]
    fn a_listener_that_encrypts_has_a_certificate() {
        let head = head("[[listen]]\ntls = 'starttls'").unwrap();
        let config: Table = head.config.parse().unwrap();
        assert_eq!(config["tls"]["key"].as_str(), Some("/d/tls/key.pem"));
        let written: Vec<_> = head.files.iter().map(|(name, _)| name.to_str()).collect();
        assert_eq!(written[1..], [Some("tls/cert.pem"), Some("tls/key.pem")]);
    }

    #[test]
    fn what_is_beside_the_daemon_is_none_of_its_configuration() {
        let head = head(concat!(
            "[dns]\n'mail.example A' = ['192.0.2.1', '192.0.2.2']\n",
            "[servers]\nLDAP = ['perl', '$DIR/ldap']\n"
        ))
        .unwrap();
        let config: Table = head.config.parse().unwrap();
        assert_eq!(config["dns_server"].as_str(), Some("$DNS"));
        assert!(!config.contains_key("dns") && !config.contains_key("servers"));
        assert!(head.beside.dns.is_some());
        assert_eq!(head.beside.servers[0].name, "LDAP");
        assert_eq!(head.beside.servers[0].command, ["perl", "/d/ldap"]);
    }

    #[test]
    fn a_mistake_has_its_line() {
        for text in [
            "a = 1\nb = $DIR",
            "[dns]\n'mail.example A' = 'x'",
            "[dns]\n'mail.example A' = 1",
            "[servers]\nDIR = ['true']",
            "[servers]\nldap = ['true']",
            "[servers]\nLDAP = 'true'",
        ] {
            let mistake = head(text).unwrap_err().to_string();
            assert!(mistake.starts_with("x.smtp:3: "), "{mistake}");
        }
    }
}
