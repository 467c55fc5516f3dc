//! Which lines of qpsmtpd's `config/plugins` a built-in can take over, with what settings, and how it differs then.

use std::path::Path;

use super::lines::Words;

/// A built-in that may take over.
struct BuiltIn {
    name: &'static str,
    /// Its name before qpsmtpd 0.94.
    former: Option<&'static str>,
    /// What is different (docs/plugins.md has all of it).
    note: &'static str,
    /// Flat files, and the settings whose form their lines have.
    files: &'static [(&'static str, &'static str)],
    /// Flat files that qpsmtpd reads as CDB files only.
    maps: &'static [&'static str],
    settings: fn(&mut Arguments<'_>) -> Result<(), String>,
}

const BUILT_INS: &[BuiltIn] = &[
    BuiltIn {
        name: "relay",
        former: Some("check_relay"),
        note: "the variable RELAYCLIENT is not read, and morerelayclients is a text file",
        files: &[
            ("clients", "relayclients"),
            ("clients", "morerelayclients"),
            ("not_clients", "norelayclients"),
        ],
        maps: &["morerelayclients"],
        settings: |arguments| {
            arguments.pairs(|set, key, value| match key {
                "only" => {
                    set.truth("only", value);
                    Some(())
                }
                _ => None,
            })
        },
    },
    BuiltIn {
        name: "dnsbl",
        former: None,
        note: "it refuses at RCPT, and closes the connection only with a reject_type that says so; how long the DNS may take is the daemon's to decide",
        files: &[("zones", "dnsbl_zones"), ("allow", "dnsbl_allow")],
        maps: &[],
        settings: |arguments| {
            if let [kind] = arguments.words {
                arguments.set.reject_type(kind);
                return Ok(());
            }
            arguments.pairs(|set, key, value| match key {
                "timeout" => Some(()),
                _ => set.usual(key, value),
            })
        },
    },
    BuiltIn {
        name: "earlytalker",
        former: Some("check_earlytalker"),
        note: "the greeting waits by greet_delay above, and is said before the client is refused",
        files: &[],
        maps: &[],
        settings: earlytalker,
    },
    BuiltIn {
        name: "helo",
        former: Some("check_spamhelo"),
        note: "forged address literals are found, those of private networks are let through, and a DNS that does not answer is an error",
        files: &[("hosts", "badhelo")],
        maps: &[],
        settings: |arguments| {
            arguments.pairs(|set, key, value| match (key, value) {
                ("policy", "lenient" | "rfc" | "strict") => {
                    set.text("policy", value);
                    Some(())
                }
                // qpsmtpd's has these, and does nothing with them.
                ("timeout" | "dns_timeout" | "reject_type", _) => Some(()),
                _ => set.usual(key, value),
            })
        },
    },
    BuiltIn {
        name: "badmailfrom",
        former: Some("check_badmailfrom"),
        note: "it behaves the same; the patterns are Rust's regular expressions",
        files: &[("addresses", "badmailfrom")],
        maps: &[],
        settings: |arguments| arguments.pairs(|set, key, value| set.usual(key, value)),
    },
    BuiltIn {
        name: "badrcptto",
        former: Some("check_badrcptto"),
        note: "the client is told the address that it gave, not the pattern; `reject` would work",
        files: &[("addresses", "badrcptto")],
        maps: &[],
        settings: |arguments| {
            arguments.pairs(|set, key, value| (key == "loglevel").then(|| set.loglevel(value)))
        },
    },
    BuiltIn {
        name: "rcpt_ok",
        former: None,
        note: "whitelisted clients cannot relay, only those that may; morercpthosts is a text file",
        files: &[("hosts", "rcpthosts"), ("hosts", "morercpthosts")],
        maps: &["morercpthosts"],
        settings: |arguments| {
            arguments.pairs(|set, key, value| (key == "loglevel").then(|| set.loglevel(value)))
        },
    },
    BuiltIn {
        name: "naughty",
        former: None,
        note: "the connection is closed only where a reject_type says so",
        files: &[],
        maps: &[],
        settings: |arguments| {
            arguments.pairs(|set, key, value| match key {
                "reject" => {
                    let phase = value.to_ascii_lowercase();
                    let known = ["connect", "mail", "rcpt", "data", "data_post"];
                    known
                        .contains(&phase.as_str())
                        .then(|| set.text("phase", &phase))
                }
                _ => set.usual(key, value),
            })
        },
    },
    BuiltIn {
        name: "headers",
        former: None,
        note: "the client is told what is wrong, and `reject` alone decides",
        files: &[],
        maps: &[],
        settings: |arguments| {
            arguments.pairs(|set, key, value| match key {
                "require" => {
                    let names: Vec<&str> = value.split(',').map(str::trim).collect();
                    set.list("require", &names);
                    Some(())
                }
                "past" | "future" => value.parse().ok().map(|days| set.integer(key, days)),
                _ => set.usual(key, value),
            })
        },
    },
    BuiltIn {
        name: "auth/auth_flat_file",
        former: None,
        note: "it can serve SCRAM too, where [auth] offers it",
        files: &[],
        maps: &[],
        settings: |arguments| {
            arguments.pairs(|set, key, value| (key == "loglevel").then(|| set.loglevel(value)))
        },
    },
    BuiltIn {
        name: "queue/maildir",
        former: None,
        note: "it syncs before it answers, and the permissions are 0700",
        files: &[],
        maps: &[],
        settings: maildir,
    },
    BuiltIn {
        name: "queue/smtp-forward",
        former: None,
        note: "a message is not taken when the server refuses some of its recipients",
        files: &[],
        maps: &[],
        settings: |arguments| match arguments.words {
            [server] => {
                arguments.set.text("server", server);
                Ok(())
            }
            [server, port] if port.parse::<u16>().is_ok() => {
                arguments.set.text("server", server);
                arguments.set.integer("port", port.parse().unwrap_or(25));
                Ok(())
            }
            [_, _, ..] => Err("it has no xclient".to_owned()),
            [] => Err("no server is named".to_owned()),
        },
    },
];

/// What a line becomes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Translated {
    pub name: &'static str,
    pub note: &'static str,
    /// `key = value`.
    pub settings: Vec<String>,
    /// Flat files, and the settings whose form their lines have.
    pub files: &'static [(&'static str, &'static str)],
    /// How many seconds the greeting has to wait.
    pub greet_delay: Option<u32>,
}

/// The built-in for a line. `None` where there is none of that name; an error where there is one, and something cannot be translated.
///
/// `home` is the folder that relative paths start in, `config` that of the flat files.
pub fn translate(words: &Words, home: &Path, config: &Path) -> Option<Result<Translated, String>> {
    let named = |it: &&BuiltIn| it.name == words.file() || it.former == Some(words.file());
    let built_in = BUILT_INS.iter().find(named)?;
    for map in built_in.maps {
        if config.join(format!("{map}.cdb")).exists() && !config.join(map).exists() {
            let why =
                format!("{map}.cdb is a CDB file; it needs the text that it was made from, {map}");
            return Some(Err(why));
        }
    }
    let mut arguments = Arguments {
        words: words.arguments(),
        home,
        set: Set(Translated {
            name: built_in.name,
            note: built_in.note,
            files: built_in.files,
            ..Translated::default()
        }),
    };
    let translated = (built_in.settings)(&mut arguments);
    Some(translated.map(|()| arguments.set.0))
}

/// A line's arguments, and what becomes of them.
struct Arguments<'a> {
    words: &'a [String],
    home: &'a Path,
    set: Set,
}

struct Set(Translated);

impl Arguments<'_> {
    /// Arguments by twos; `each` says by `None` that a pair has no counterpart.
    fn pairs(&mut self, each: impl Fn(&mut Set, &str, &str) -> Option<()>) -> Result<(), String> {
        if !self.words.len().is_multiple_of(2) {
            return Err("its arguments are no pairs of a name and a value".to_owned());
        }
        for pair in self.words.chunks_exact(2) {
            each(&mut self.set, &pair[0], &pair[1])
                .ok_or_else(|| format!("`{} {}` has no counterpart", pair[0], pair[1]))?;
        }
        Ok(())
    }
}

impl Set {
    fn value(&mut self, key: &str, value: impl Into<toml::Value>) {
        self.0
            .settings
            .retain(|line| !line.starts_with(&format!("{key} = ")));
        self.0.settings.push(format!("{key} = {}", value.into()));
    }

    fn text(&mut self, key: &str, value: &str) {
        self.value(key, value);
    }

    fn integer(&mut self, key: &str, value: i64) {
        self.value(key, value);
    }

    fn list(&mut self, key: &str, values: &[&str]) {
        self.value(key, values.to_vec());
    }

    /// What Perl takes for true.
    fn truth(&mut self, key: &str, value: &str) {
        self.value(key, value != "0");
    }

    /// What qpsmtpd's own base class reads.
    fn usual(&mut self, key: &str, value: &str) -> Option<()> {
        match (key, value) {
            ("reject", "naughty") => self.text("reject", "naughty"),
            ("reject", _) => self.truth("reject", value),
            ("reject_type", _) => self.reject_type(value),
            ("loglevel", _) => self.loglevel(value),
            _ => return None,
        }
        Some(())
    }

    /// Words that qpsmtpd does not know change nothing.
    fn reject_type(&mut self, value: &str) {
        let lower = value.to_ascii_lowercase();
        match (lower.as_str(), value) {
            ("temp" | "soft", _) => self.text("reject_type", "temp"),
            ("perm" | "hard", _) => self.text("reject_type", "perm"),
            (_, "disconnect" | "temp_disconnect") => self.text("reject_type", value),
            _ => (),
        }
    }

    /// A digit is a level, with a sign it is a step; 0 and anything else are dropped by qpsmtpd.
    fn loglevel(&mut self, value: &str) {
        let steps = value.strip_prefix(['+', '-']);
        let number = steps.unwrap_or(value).parse::<usize>().unwrap_or(0).min(7);
        match (number, steps) {
            (0, _) => (),
            (_, Some(_)) => self.text("loglevel", &format!("{}{number}", &value[..1])),
            (_, None) => self.text("loglevel", super::core::LEVELS[number]),
        }
    }
}

fn earlytalker(arguments: &mut Arguments<'_>) -> Result<(), String> {
    let mut deferred = false;
    let mut check_at = Vec::new();
    if !arguments.words.len().is_multiple_of(2) {
        return Err("with an odd number of arguments qpsmtpd's does nothing".to_owned());
    }
    arguments.set.0.greet_delay = Some(1);
    for pair in arguments.words.chunks_exact(2) {
        let (key, value) = (pair[0].as_str(), pair[1].as_str());
        let set = &mut arguments.set;
        match key {
            "wait" => match value.parse() {
                Ok(seconds) => set.0.greet_delay = Some(seconds),
                Err(_) => return Err(format!("`wait {value}` is no number of seconds")),
            },
            "action" => match value {
                "log" => set.value("reject", false),
                "denysoft" => set.text("reject_type", "temp"),
                _ => (),
            },
            "defer-reject" => deferred = value != "0",
            "check-at" => check_at.push(value.to_ascii_uppercase()),
            _ => set
                .usual(key, value)
                .ok_or_else(|| format!("`{key} {value}` has no counterpart"))?,
        }
    }
    let mut places = Vec::new();
    if check_at.is_empty() || check_at.iter().any(|at| at == "CONNECT") {
        places.push(if deferred { "mail" } else { "helo" });
    }
    if check_at.iter().any(|at| at == "DATA") {
        places.push("data");
    }
    if places.is_empty() {
        return Err("its check-at names no known place".to_owned());
    }
    arguments.set.list("check_at", &places);
    Ok(())
}

fn maildir(arguments: &mut Arguments<'_>) -> Result<(), String> {
    let (folder, pattern) = match arguments.words {
        [folder] => (folder, ""),
        [folder, pattern] => (folder, pattern.as_str()),
        [folder, pattern, mode] if mode == "700" => (folder, pattern.as_str()),
        [_, _, mode] => return Err(format!("the permissions are 0700, not {mode}")),
        _ => return Err("expected a folder, and perhaps a pattern and permissions".to_owned()),
    };
    let plain = |c: char| c.is_ascii_alphanumeric() || "-/_.".contains(c);
    if !folder.chars().all(plain) || pattern.contains(['{', '}']) {
        return Err("its path holds signs that mean something else here".to_owned());
    }
    let pattern = pattern
        .replace("%l", "{local}")
        .replace("%d", "{domain}")
        .replace("%u", "{address}");
    if pattern.contains('%') {
        return Err("its pattern holds more than %l, %d and %u".to_owned());
    }
    let path = arguments.home.join(folder);
    let path = path.join(pattern.trim_start_matches('/'));
    let path = path.to_string_lossy();
    arguments.set.text("path", path.trim_end_matches('/'));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(line: &str) -> Option<Result<Vec<String>, String>> {
        let words = Words::of(line).unwrap();
        let nowhere = Path::new("/site");
        let translated = translate(&words, nowhere, nowhere)?;
        Some(translated.map(|it| it.settings))
    }

    #[test]
    fn every_built_in_exists() {
        let all = crate::plugins::all();
        for built_in in BUILT_INS {
            let definition = all.iter().find(|it| it.name == built_in.name).unwrap();
            for (key, file) in built_in.files {
                let settings = (definition.settings)();
                assert!(settings.iter().any(|it| it.name == *key), "{key}");
                assert!(crate::plugins::flat_files(built_in.name).contains(file));
            }
        }
    }

    #[test]
    fn arguments_that_have_a_counterpart() {
        for (line, expected) in [
            ("relay only 1", &["only = true"][..]),
            ("check_relay", &[]),
            ("dnsbl soft", &["reject_type = \"temp\""]),
            (
                "dnsbl:2 reject naughty timeout 5 loglevel -1",
                &["reject = \"naughty\"", "loglevel = \"-1\""],
            ),
            (
                "helo policy strict reject_type temp",
                &["policy = \"strict\""],
            ),
            (
                "badmailfrom reject 0 loglevel 6",
                &["reject = false", "loglevel = \"info\""],
            ),
            (
                "headers require From,Date past 5",
                &["require = [\"From\", \"Date\"]", "past = 5"],
            ),
            ("naughty reject data", &["phase = \"data\""]),
            ("earlytalker", &["check_at = [\"helo\"]"]),
            (
                "earlytalker wait 3 action log defer-reject 1 check-at CONNECT check-at DATA",
                &["reject = false", "check_at = [\"mail\", \"data\"]"],
            ),
            (
                "queue/maildir mail %d/%l",
                &["path = \"/site/mail/{domain}/{local}\""],
            ),
            ("queue/maildir /var/mail", &["path = \"/var/mail\""]),
            (
                "queue/smtp-forward mx 26",
                &["server = \"mx\"", "port = 26"],
            ),
        ] {
            assert_eq!(settings(line).unwrap().unwrap(), expected, "{line}");
        }
    }

    #[test]
    fn arguments_that_have_none() {
        for line in [
            "relay only",
            "badrcptto reject 0",
            "helo policy loose",
            "earlytalker wait",
            "queue/maildir mail %d 755",
            "queue/maildir mail/%d",
            "queue/smtp-forward mx 25 xclient",
            "naughty reject hook_queue_post",
        ] {
            assert!(settings(line).unwrap().is_err(), "{line}");
        }
        assert_eq!(settings("greylisting"), None);
    }
}
