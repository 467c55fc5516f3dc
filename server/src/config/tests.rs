use std::path::Path;
use std::time::Duration;

use gatepost_protocol::settings::Setting;
use gatepost_protocol::{
    Definition, Direction, Level, OnError, Reject, RejectType, SettingError, Value,
};
use proptest::prelude::*;

use super::*;

fn definitions() -> Vec<Definition> {
    let names = [
        "relay",
        "helo",
        "badmailfrom",
        "badrcptto",
        "rcpt_ok",
        "headers",
        "naughty",
        "queue/maildir",
    ];
    let define = |name| Definition {
        name,
        about: "",
        settings: || {
            vec![
                Setting::list("hosts", "the domains"),
                Setting::text("path", "the folder"),
                Setting::size("most", "how much").default("1KB"),
            ]
        },
        build: |_| Err(vec![SettingError::at("name", "not made here")]),
    };
    names.into_iter().map(define).collect()
}

fn read(text: &str) -> Config {
    parse(text, "gatepost.toml", &definitions()).unwrap_or_else(|mistakes| panic!("{mistakes}"))
}

fn mistakes(text: &str) -> String {
    parse(text, "gatepost.toml", &definitions())
        .unwrap_err()
        .to_string()
}

#[test]
fn a_mistake_sends_nothing_to_the_terminal_but_text() {
    let text = "[[plugin]]\nname = \"bad\\u001b[2J\\nname\tx\"\n";
    let shown = parse(text, "gatepost.toml", &definitions())
        .unwrap_err()
        .to_string();
    assert!(shown.contains("`bad?[2J?name x`"), "{shown}");
    assert!(!shown.contains(|c: char| c.is_control() && c != '\n'));
}

#[test]
fn an_empty_file_means_the_defaults() {
    let config = read("");
    assert!(!config.hostname.is_empty());
    assert_eq!(config.spool_dir, Path::new("./spool"));
    assert_eq!(config.state, Path::new("./spool/state"));
    assert_eq!(config.flat_files, None);
    assert_eq!(
        (config.loglevel, config.log_format),
        (Level::Info, LogFormat::Text)
    );
    assert_eq!(config.bare_newlines, BareNewlines::Reject);
    assert_eq!(config.listen.len(), 1);
    assert_eq!(
        config.listen[0].addr,
        Address::Tcp("127.0.0.1:2525".parse().unwrap())
    );
    assert_eq!(config.listen[0].direction, Direction::Inbound);
    assert!(config.plugins.is_empty() && config.warnings.is_empty());
    let limits = config.limits;
    assert_eq!((limits.max_size, limits.max_command_line), (50 << 20, 2048));
    assert_eq!(
        (limits.max_data_line, limits.max_header),
        (64 << 10, 256 << 10)
    );
    assert_eq!(
        (
            limits.max_recipients,
            limits.max_transactions,
            limits.max_errors
        ),
        (1000, 1000, 20)
    );
    assert_eq!(limits.command_timeout, Duration::from_secs(300));
    assert_eq!(limits.data_timeout, Duration::from_secs(180));
    assert_eq!(limits.session_timeout, Duration::from_secs(3600));
    assert_eq!(
        (limits.max_connections, limits.max_connections_per_ip),
        (2000, 20)
    );
    assert_eq!(limits.max_connections_per_network, None);
    assert_eq!(
        (
            limits.max_unknown_commands,
            limits.max_idle_commands,
            limits.max_header_fields
        ),
        (10, 100, 1000)
    );
    assert_eq!(limits.hello_timeout, Duration::from_secs(300));
    assert_eq!(limits.min_data_rate, 10);
    assert_eq!(
        (limits.memory_per_message, limits.memory_for_messages),
        (2 << 20, 64 << 20)
    );
}

#[test]
fn every_key_of_the_daemon_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let config = read(&format!(
        r#"
        hostname = "[192.0.2.1]"
        spool_dir = "/s"
        state = "file:/v/state"
        flat_files = "{}"
        loglevel = 7
        log_format = "json"
        bare_newlines = "keep"
        [[listen]]
        addr = "[::1]:587"
        protocol = "smtp"
        tls = "off"
        direction = "submission"
        proxy_from = ["10.0.0.0/8", "2001:db8::1"]
        xclient_from = ["192.0.2.1"]
        greet_delay = "5s"
        xforward_from = ["192.0.2.2"]
        [[listen]]
        addr = "127.0.0.1:0"
        direction = "relay"
        [[listen]]
        addr = "unix:/run/x.sock"
        mode = "0660"
        [limits]
        max_size = "1GB"
        max_command_line = 512
        max_data_line = "1000B"
        max_header = "1MB"
        max_recipients = 100
        max_transactions = 2
        max_errors = 3
        command_timeout = "4s"
        data_timeout = "500ms"
        session_timeout = "2h"
        max_connections = 5
        max_connections_per_ip = 6
        max_connections_per_network = 7
        max_unknown_commands = 8
        max_idle_commands = 9
        max_header_fields = 10
        hello_timeout = "11s"
        min_data_rate = "1KB"
        memory_per_message = 0
        memory_for_messages = "1KB"
        "#,
        dir.path().display()
    ));
    assert_eq!(config.hostname, "[192.0.2.1]");
    assert_eq!(
        (config.spool_dir.as_path(), config.state.as_path()),
        (Path::new("/s"), Path::new("/v/state"))
    );
    assert_eq!(config.flat_files.as_deref(), Some(dir.path()));
    assert_eq!(
        (config.loglevel, config.log_format),
        (Level::Debug, LogFormat::Json)
    );
    assert_eq!(config.bare_newlines, BareNewlines::Keep);
    let proxies = &config.listen[0].proxy_from;
    for (address, believed) in [
        ("10.1.2.3", true),
        ("::ffff:10.1.2.3", true),
        ("2001:db8::1", true),
        ("2001:db8::2", false),
        ("127.0.0.1", false),
    ] {
        assert_eq!(proxies.contains(address.parse().unwrap()), believed);
    }
    let (one, two) = ("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap());
    let (xclient, xforward) = (
        &config.listen[0].xclient_from,
        &config.listen[0].xforward_from,
    );
    assert!(xclient.contains(one) && !xclient.contains(two));
    assert!(xforward.contains(two) && !xforward.contains(one));
    assert_eq!(config.listen[1].proxy_from, Networks::default());
    assert_eq!(config.listen[2].addr, Address::Unix("/run/x.sock".into()));
    assert_eq!(config.listen[0].greet_delay, Duration::from_secs(5));
    assert_eq!(config.listen[1].greet_delay, Duration::ZERO);
    assert_eq!(config.listen[2].mode, Some(0o660));
    let directions: Vec<Direction> = config.listen.iter().map(|it| it.direction).collect();
    assert_eq!(
        directions,
        [Direction::Submission, Direction::Relay, Direction::Inbound]
    );
    let limits = config.limits;
    assert_eq!((limits.max_size, limits.max_command_line), (1 << 30, 512));
    assert_eq!((limits.max_data_line, limits.max_header), (1000, 1 << 20));
    assert_eq!(
        (
            limits.max_recipients,
            limits.max_transactions,
            limits.max_errors
        ),
        (100, 2, 3)
    );
    assert_eq!(limits.command_timeout, Duration::from_secs(4));
    assert_eq!(limits.data_timeout, Duration::from_millis(500));
    assert_eq!(limits.session_timeout, Duration::from_secs(7200));
    assert_eq!(
        (limits.max_connections, limits.max_connections_per_ip),
        (5, 6)
    );
    assert_eq!(limits.max_connections_per_network, Some(7));
    assert_eq!(
        (
            limits.max_unknown_commands,
            limits.max_idle_commands,
            limits.max_header_fields
        ),
        (8, 9, 10)
    );
    assert_eq!(limits.hello_timeout, Duration::from_secs(11));
    assert_eq!(limits.min_data_rate, 1024);
    assert_eq!(
        (limits.memory_per_message, limits.memory_for_messages),
        (0, 1024)
    );
}

#[test]
fn built_ins_and_the_uniform_settings() {
    let config = read(
        r#"
        [[plugin]]
        name = "badmailfrom"
        reject = "naughty"
        reject_type = "temp"
        loglevel = "-1"
        on_error = "skip"
        timeout = "10s"
        when = 'direction == "inbound"'
        hosts = ["a.example"]
        [[plugin]]
        name = "badmailfrom:2"
        reject = false
        loglevel = "debug"
        "#,
    );
    let [first, second] = config.plugins.as_slice() else {
        panic!("{:?}", config.plugins);
    };
    assert_eq!(
        (&*first.name, &*second.name),
        ("badmailfrom", "badmailfrom:2")
    );
    assert_eq!(first.kind, PluginKind::BuiltIn("badmailfrom".to_owned()));
    assert_eq!(second.kind, first.kind);
    assert_eq!(first.policy.reject, Some(Reject::Naughty));
    assert_eq!(first.policy.reject_type, Some(RejectType::Temp));
    assert_eq!(first.policy.on_error, Some(OnError::Skip));
    assert_eq!(second.policy.reject, Some(Reject::Tolerate));
    assert_eq!(first.loglevel, Some(LevelChange::Shift(-1)));
    assert_eq!(second.loglevel, Some(LevelChange::Fixed(Level::Debug)));
    assert_eq!(first.timeout, Some(Duration::from_secs(10)));
    assert!(first.when.is_some() && second.when.is_none());
    assert_eq!(first.settings.len(), 1);
    assert_eq!(first.settings["hosts"], Value::from(["a.example"]));
    assert_eq!(first.location.to_string(), "gatepost.toml:2:9");
}

#[test]
fn programs_and_attached_plugins() {
    let config = read(
        r#"
        [[plugin]]
        name = "vip"
        run = ["sh", "-c", "true"]
        source = "vip"
        args = ["x"]
        env = { LANG = "C", SECRET = { env = "PATH" } }
        workers = { min = 2 }
        process = "own"
        [[plugin]]
        name = "far"
        attach = "unix:/run/far.sock"
        domain = "example.org"
        "#,
    );
    let PluginKind::Run(program) = &config.plugins[0].kind else {
        panic!("{:?}", config.plugins[0]);
    };
    assert_eq!(program.argv, ["sh", "-c", "true"]);
    assert_eq!(program.env["LANG"], "C");
    assert_eq!(program.env["SECRET"], std::env::var("PATH").unwrap());
    assert_eq!(program.workers, (2, 2));
    assert_eq!(program.process.as_deref(), Some("own"));
    let source = &config.plugins[0].source;
    assert_eq!(
        (source.name.as_deref(), source.args.as_slice()),
        (Some("vip"), ["x".to_owned()].as_slice())
    );
    assert_eq!(
        config.plugins[1].kind,
        PluginKind::Attach("/run/far.sock".into())
    );
    assert_eq!(
        config.plugins[1].settings["domain"],
        Value::from("example.org")
    );
}

#[test]
fn lines_of_qpsmtpd_share_a_process() {
    let dir = tempfile::tempdir().unwrap();
    let here = dir.path().display();
    for file in [
        "bin/gatepost-perl",
        "plugins/ident/p0f",
        "plugins/noop_counter",
    ] {
        let path = dir.path().join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, "").unwrap();
    }
    let config = read(&format!(
        r#"
        sdk_perl = "{here}"
        [[plugin]]
        qpsmtpd = "ident/p0f  /tmp/.p0f_socket version 3"
        plugin_dirs = ["{here}/plugins"]
        reject = false
        [[plugin]]
        qpsmtpd = "noop_counter:2"
        plugin_dirs = ["{here}/plugins"]
        [[plugin]]
        name = "module"
        qpsmtpd = "My::Plugin"
        plugin_dirs = ["{here}/plugins"]
        "#
    ));
    let [p0f, noop, module] = config.plugins.as_slice() else {
        panic!("{:?}", config.plugins);
    };
    assert_eq!(
        (&*p0f.name, &*noop.name, &*module.name),
        ("ident/p0f", "noop_counter:2", "module")
    );
    assert!(p0f.kind == noop.kind && noop.kind == module.kind);
    let PluginKind::Run(program) = &p0f.kind else {
        panic!("{p0f:?}");
    };
    assert_eq!(
        program.argv,
        ["perl".to_owned(), format!("{here}/bin/gatepost-perl")]
    );
    assert_eq!(program.workers, (1, 15));
    assert_eq!(p0f.source.name.as_deref(), Some("ident/p0f"));
    assert_eq!(p0f.source.args, ["/tmp/.p0f_socket", "version", "3"]);
    assert_eq!(p0f.source.dirs, [dir.path().join("plugins")]);
    assert_eq!(noop.source.name.as_deref(), Some("noop_counter:2"));
}

#[test]
fn secrets_stand_elsewhere() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("secret");
    std::fs::write(&file, "s3cret\r\n").unwrap();
    let config = read(&format!(
        r#"
        [[plugin]]
        name = "vip"
        attach = "unix:/run/vip.sock"
        password = {{ file = "{0}" }}
        tokens = [{{ file = "{0}" }}, "plain"]
        path = {{ env = "PATH" }}
        both = {{ file = "a", env = "b" }}
        "#,
        file.display()
    ));
    let settings = &config.plugins[0].settings;
    assert_eq!(settings["password"], Value::from("s3cret"));
    assert_eq!(settings["tokens"], Value::from(["s3cret", "plain"]));
    assert_eq!(
        settings["path"].as_text(),
        std::env::var("PATH").ok().as_deref()
    );
    assert_eq!(settings["both"].get("file"), Some(&Value::from("a")));
}

#[test]
fn mistakes_found_later_lead_to_their_place() {
    let config = read(concat!(
        "[[plugin]]\n",
        "name = \"vip\"\n",
        "attach = \"unix:/run/vip.sock\"\n",
        "zones = [\"a\", \"b c\"]\n",
        "table = { deep = { key = 1 } }\n",
        "rejct = true\n",
    ));
    let error = |path: &[&str], message: &str| SettingError {
        path: path.iter().map(|step| (*step).to_owned()).collect(),
        message: message.to_owned(),
    };
    let errors = vec![
        error(&[], "`domain` is missing: whose"),
        error(&["zones", "1"], "not a domain name"),
        error(&["zones", "7"], "not there"),
        error(&["table", "deep", "key"], "expected text"),
        error(
            &["rejct"],
            "unknown setting `rejct`; it takes no settings of its own",
        ),
        error(&["nothing"], "something else"),
    ];
    let shown = Mistakes::from_settings(&config.plugins[0], errors).to_string();
    let expected = r#"gatepost.toml:1:1: `domain` is missing: whose
    1 | [[plugin]]
      | ^^^^^^^^^^
gatepost.toml:1:1: something else
    1 | [[plugin]]
      | ^^^^^^^^^^
gatepost.toml:4:9: not there
    4 | zones = ["a", "b c"]
      |         ^^^^^^^^^^^^
gatepost.toml:4:15: not a domain name
    4 | zones = ["a", "b c"]
      |               ^^^^^
gatepost.toml:5:26: expected text
    5 | table = { deep = { key = 1 } }
      |                          ^
gatepost.toml:6:1: unknown setting `rejct`; did you mean `reject`?
    6 | rejct = true
      | ^^^^^"#;
    assert_eq!(shown, expected);
    let shown = Mistakes::at_plugin(&config.plugins[0], "it does not answer").to_string();
    assert!(
        shown.starts_with("gatepost.toml:1:1: it does not answer\n"),
        "{shown}"
    );
}

#[test]
fn warnings_are_no_mistakes() {
    let config = read(concat!(
        "[limits]\nmax_recipients = 10\nmemory_per_message = \"1GB\"\n",
        "memory_for_messages = \"1MB\"\n",
        "[[plugin]]\nname = \"helo\"\nreject = false\nreject_type = \"temp\"\n",
    ));
    let shown = config.warnings.to_string();
    let heads: Vec<&str> = shown
        .lines()
        .filter(|line| line.contains(": warning: "))
        .map(|line| line.split(": warning: ").next().unwrap())
        .collect();
    assert_eq!(
        heads,
        [
            "gatepost.toml:2:1",
            "gatepost.toml:3:1",
            "gatepost.toml:8:1"
        ],
        "{shown}"
    );
}

#[test]
fn every_missing_setting_of_a_built_in_is_named() {
    let definition = Definition {
        name: "two",
        about: "",
        settings: || {
            vec![
                Setting::text("one", "the one").required(),
                Setting::text("other", "the other").required(),
            ]
        },
        build: |_| Err(Vec::new()),
    };
    let shown = parse("[[plugin]]\nname = \"two\"\n", "x", &[definition])
        .unwrap_err()
        .to_string();
    assert!(
        shown.contains("`one` is missing") && shown.contains("`other` is missing"),
        "{shown}"
    );
}

#[test]
fn the_built_in_configuration_holds() {
    let config = parse(BUILT_IN, "built-in configuration", &definitions()).unwrap();
    assert_eq!(config.plugins.len(), definitions().len());
    assert_eq!(config.listen[0].addr.to_string(), "127.0.0.1:2525");
    assert!(config.warnings.is_empty());
}

#[test]
fn a_file_that_is_named_must_be_there() {
    let mistakes = load(Some(Path::new("no/such.toml")), &[]).unwrap_err();
    let shown = mistakes.to_string();
    assert!(
        shown.starts_with("no/such.toml: cannot be read: "),
        "{shown}"
    );
}

#[test]
fn a_byte_order_mark_moves_no_column() {
    assert!(mistakes("\u{feff}x = 1").starts_with("gatepost.toml:1:1: unknown setting `x`"));
}

proptest! {
    #[test]
    fn no_text_makes_the_reader_panic(text in "(?s).{0,80}") {
        let _ = parse(&text, "x", &definitions()).map_err(|mistakes| mistakes.to_string());
    }

    #[test]
    fn no_slip_of_the_pen_makes_the_reader_panic(
        at in 0..BUILT_IN.len(), cut in 0usize..12, put in "[\\[\\]{}=\"'.,0-9a-z\n\t\u{e9}-]{0,4}"
    ) {
        let start = BUILT_IN.floor_char_boundary(at);
        let end = BUILT_IN.ceil_char_boundary((at + cut).min(BUILT_IN.len()));
        let text = format!("{}{put}{}", &BUILT_IN[..start], &BUILT_IN[end..]);
        if let Err(mistakes) = parse(&text, "x", &definitions()) {
            prop_assert!(!mistakes.is_empty());
            for mistake in mistakes.iter() {
                let place = mistake.place.as_ref().unwrap();
                prop_assert_eq!(text.split('\n').nth(place.line - 1).map(|line| line.trim_end_matches('\r')), Some(place.text.as_str()));
                prop_assert!(place.column + place.width <= place.text.chars().count() + 2);
            }
        }
    }
}

#[test]
fn the_documentation_names_every_key() {
    let docs = include_str!("../../../docs/configuration.md");
    let shown = mistakes(
        "zzzzzzzzzz = 1\n[limits]\nzzzzzzzzzz = 1\n[auth]\nzzzzzzzzzz = 1\n[tls]\nzzzzzzzzzz = 1\n[[tls.certificate]]\nzzzzzzzzzz = 1\n[[listen]]\nzzzzzzzzzz = 1\n[domain.\"example.org\"]\nzzzzzzzzzz = 1\n[outbox]\nzzzzzzzzzz = 1\n[quarantine]\nzzzzzzzzzz = 1\n[[plugin]]\nname = \"x\"\nrun = [\"sh\"]\nconfine = { zzzzzzzzzz = 1 }\n",
    );
    let mut keys: Vec<&str> = shown
        .lines()
        .filter_map(|line| line.split_once("known here: "))
        .flat_map(|(_, keys)| keys.split(", "))
        .collect();
    assert_eq!(
        keys.len(),
        23 + 22 + 1 + 6 + 3 + 11 + 2 + 8 + 3 + 10,
        "{shown}"
    );
    keys.extend(plugin::CORE_KEYS);
    for key in keys {
        let row = format!("| `{key}` |");
        let table = format!("| `[{key}]` |");
        let tables = format!("| `[[{key}]]` |");
        let inner = format!("| `[[tls.{key}]]` |");
        assert!(
            [row, table, tables, inner]
                .iter()
                .any(|row| docs.contains(row)),
            "{key}"
        );
    }
}
