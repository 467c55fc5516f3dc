//! The files that qpsmtpd's core reads itself, as settings of the daemon.

use std::path::Path;

use super::Site;
use super::lines::{Line, OWN_LOG, Words, printable, read};
use crate::config::FlatFiles;

/// By their numbers.
pub const LEVELS: [&str; 8] = [
    "emerg", "alert", "crit", "error", "warn", "notice", "info", "debug",
];

/// Files of qpsmtpd's core that have no counterpart, and what there is instead.
const NO_COUNTERPART: &[(&str, &str)] = &[
    (
        "smtpgreeting",
        "the greeting is the host name; a plugin can add lines to it at `connect`",
    ),
    (
        "me-auth-results",
        "`hostname` is the name in Authentication-Results",
    ),
    ("tls_ciphers", "the ciphers are rustls's"),
    (
        "tls_protocols",
        "`min_version` in [tls] says how old TLS may be",
    ),
];

/// The beginning of the configuration: a line each, and what has no counterpart.
pub struct Head {
    pub lines: Vec<String>,
    pub report: Vec<String>,
}

/// What the chain wants of the daemon.
#[derive(Default)]
pub struct Wanted {
    pub greet_delay: Option<u32>,
    /// The arguments of the plugin `tls`.
    pub tls: Option<Vec<String>>,
    /// Some plugin knows users.
    pub auth: bool,
    /// One of them checks digests of CRAM-MD5.
    pub cram_md5: bool,
}

struct Files<'a> {
    files: FlatFiles,
    config: &'a Path,
    head: Head,
}

/// Reads the files of the core.
pub fn head(site: &Site, wanted: &Wanted) -> Head {
    let mut files = Files {
        files: FlatFiles::new(site.config.clone()),
        config: &site.config,
        head: Head {
            lines: Vec::new(),
            report: Vec::new(),
        },
    };
    files.say(&format!(
        "# Made by `gatepost import qpsmtpd` from {}.",
        site.config.display()
    ));
    files.say("# Plugins of qpsmtpd may name files relative to the folder that it was started in: start gatepost there, too.");
    files.say("");
    match files.first("me") {
        Some(name) => files.set("hostname", name),
        None => files.say("# config/me is not there: hostname is the machine's own name."),
    }
    files.set("flat_files", site.config.display().to_string());
    match files.first("spool_dir") {
        Some(dir) => files.set("spool_dir", site.home.join(dir).display().to_string()),
        None => files.say("# config/spool_dir is not there: spool_dir is ./spool."),
    }
    files.logging();
    files.say("");
    let has_tls = files.listen(site, wanted);
    if let (true, Some(paths)) = (has_tls, wanted.tls.as_deref()) {
        let [cert, key, _] = tls_files(site, paths);
        files.say("");
        files.say("[tls]");
        files.set("cert", cert);
        files.set("key", key);
    }
    if wanted.cram_md5 {
        files.say("");
        files.say("[auth]");
        files.set("mechanisms", vec!["CRAM-MD5", "PLAIN", "LOGIN"]);
    }
    files.say("");
    files.limits();
    files.say("");
    for (file, instead) in NO_COUNTERPART {
        if files.first(file).is_some() {
            files
                .head
                .report
                .push(format!("config/{file}: no counterpart; {instead}"));
        }
    }
    files.head
}

/// Certificate, key and authorities, as the plugin `tls` finds them.
fn tls_files(site: &Site, arguments: &[String]) -> [String; 3] {
    let ssl = site.home.join("ssl");
    let ssl = if ssl.is_dir() {
        ssl
    } else {
        site.config.join("ssl")
    };
    let file = |index: usize, usual: &str| {
        let path = arguments
            .get(index)
            .map_or_else(|| ssl.join(usual), |path| site.home.join(path));
        path.display().to_string()
    };
    [
        file(0, "qpsmtpd-server.crt"),
        file(1, "qpsmtpd-server.key"),
        file(2, "qpsmtpd-ca.crt"),
    ]
}

impl Files<'_> {
    fn first(&self, name: &str) -> Option<String> {
        self.files.lines(name).ok()?.first().cloned()
    }

    /// A file's number, which must be more than 0 to count.
    fn number(&self, name: &str) -> Option<i64> {
        let number = self.first(name)?.parse().ok()?;
        (number > 0).then_some(number)
    }

    fn say(&mut self, line: &str) {
        self.head.lines.push(printable(line));
    }

    fn set(&mut self, key: &str, value: impl Into<toml::Value>) {
        self.head.lines.push(format!("{key} = {}", value.into()));
    }

    fn logging(&mut self) {
        let lines = match self.config.join("logging").exists() {
            true => read(self.config, "logging").0,
            false => Vec::new(),
        };
        let plugins: Vec<&Words> = lines
            .iter()
            .filter_map(|line| match line {
                Line::Plugin(words) => Some(words),
                Line::Comment(_) => None,
            })
            .collect();
        let mut replaced = false;
        for words in &plugins {
            if OWN_LOG.contains(&words.file()) {
                self.say(&format!("# config/logging: {}", words.text()));
                replaced = true;
            }
        }
        if replaced {
            self.say("# Its place is taken by loglevel, log_format, and standard error, which the service manager keeps.");
        }
        if !plugins.is_empty() {
            self.head.report.push(
                "config/logging: the log goes to standard error, by `loglevel` and `log_format`; plugins are told what it has"
                    .to_owned(),
            );
        }
        let level = match plugins.first() {
            Some(words) => words.arguments().iter().find_map(|word| level(word)),
            None => self.first("loglevel").and_then(|word| level(&word)),
        };
        if let Some(level) = level {
            self.set("loglevel", level);
        }
    }

    /// Whether it encrypts.
    fn listen(&mut self, site: &Site, wanted: &Wanted) -> bool {
        let (ip, port) = (self.first("IP"), self.number("port"));
        if ip.is_none() && port.is_none() {
            self.say("# qpsmtpd is told on its command line where to listen, gatepost here.");
        }
        let ip = match ip.as_deref() {
            None => "127.0.0.1",
            Some("0") => "0.0.0.0",
            Some(ip) => ip,
        };
        let ip = if ip.contains(':') {
            format!("[{ip}]")
        } else {
            ip.to_owned()
        };
        let port = port.unwrap_or(2525);
        self.say("[[listen]]");
        self.set("addr", format!("{ip}:{port}"));
        if let Some(seconds) = wanted.greet_delay.filter(|seconds| *seconds > 0) {
            self.set("greet_delay", format!("{seconds}s"));
        }
        let missing = wanted.tls.as_deref().and_then(|paths| {
            // Without all three the plugin does nothing.
            tls_files(site, paths)
                .into_iter()
                .find(|file| !Path::new(file).is_file())
        });
        let has_tls = wanted.tls.is_some() && missing.is_none();
        if let Some(file) = missing {
            self.say(&format!(
                "# Without tls, as in qpsmtpd: there is no file {file}."
            ));
            self.head
                .report
                .push(format!("tls: off, as in qpsmtpd; there is no file {file}"));
        }
        if has_tls {
            self.set("tls", if port == 465 { "implicit" } else { "starttls" });
        }
        let before_auth = self
            .first("tls_before_auth")
            .is_some_and(|value| value != "0");
        if wanted.auth && !before_auth {
            self.say("# As in qpsmtpd without tls_before_auth: passwords may come unencrypted. \"tls\" is better.");
            self.set("auth", "always");
        }
        has_tls
    }

    fn limits(&mut self) {
        self.say("[limits]");
        match self.number("databytes") {
            Some(bytes) => self.set("max_size", bytes),
            None => {
                self.say("# Without config/databytes qpsmtpd had no limit; max_size is 50MB here.")
            }
        }
        if let Some(bytes) = self.number("size_threshold") {
            self.set("memory_per_message", bytes);
        }
        if let Some(seconds) = self
            .number("timeout")
            .or_else(|| self.number("timeoutsmtpd"))
        {
            self.set("command_timeout", format!("{seconds}s"));
            self.set("data_timeout", format!("{seconds}s"));
        }
    }
}

/// `LOGINFO` or `6`.
fn level(word: &str) -> Option<&'static str> {
    if let Ok(number) = word.parse::<usize>() {
        return LEVELS.get(number).copied();
    }
    let name = word.strip_prefix("LOG")?.to_ascii_lowercase();
    LEVELS.into_iter().find(|level| *level == name)
}
