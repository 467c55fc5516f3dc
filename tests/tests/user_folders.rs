//! Settings in users' folders, for who asks: `gatepost explain` names their places, and `gatepost check --user` what is wrong with them.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use gatepost_tests::server::{gatepost, new_folder};

const CONFIG: &str = r#"hostname = "mx.example.org"
spool_dir = "$DIR/spool"
user_config = "$DIR/users/%h/%u"

[[plugin]]
name = "badmailfrom"
addresses = ["@evil.example"]
reject = false

[[plugin]]
name = "rcpt_ok"
hosts = ["example.org"]

[[plugin]]
name = "queue/maildir"
path = "$DIR/mail"
"#;

/// A folder with the configuration, and these files of users.
fn configured(files: &[(&str, &str)]) -> tempfile::TempDir {
    let (dir, _) = new_folder();
    let config = CONFIG.replace("$DIR", &dir.path().to_string_lossy());
    std::fs::create_dir(dir.path().join("users")).unwrap();
    for (name, text) in files.iter().copied().chain([("gatepost.toml", &*config)]) {
        let path = dir.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    dir
}

fn run(dir: &Path, command: &str, arguments: &[&str]) -> Output {
    Command::new(gatepost())
        .args([command, "-c", "gatepost.toml"])
        .args(arguments)
        .current_dir(dir)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

#[test]
fn explain_names_the_files_of_a_user() {
    let dir = configured(&[
        (
            "users/example.org/bob/gatepost.toml",
            "# Bob's\nplugin.badmailfrom.reject = true\n",
        ),
        (
            "users/example.org/bob/badmailfrom",
            "alice@client.example\n",
        ),
    ]);
    let arguments = "--ip 192.0.2.1 --helo x --from alice@client.example --rcpt bob@example.org";
    let arguments: Vec<&str> = arguments.split(' ').collect();
    let output = run(dir.path(), "explain", &arguments);
    let said = String::from_utf8(output.stdout).unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    let folder = dir.path().join("users/example.org/bob");
    let folder = folder.display();
    for expected in [
        format!("by {folder}/badmailfrom\n"),
        format!("by [user.\"bob@example.org\"] reject = true ({folder}/gatepost.toml:2)\n"),
    ] {
        assert!(said.contains(&expected), "{expected}{said}{errors}");
    }
}

#[test]
fn check_shows_what_is_wrong_with_a_user() {
    let dir = configured(&[
        (
            "users/example.org/bob/gatepost.toml",
            "max_size = '1KB'\nplugin.badmailfrom.rejects = true\n",
        ),
        ("users/example.org/carol/badmailfrom", ""),
    ]);
    let users = ["carol@example.org", "BOB@example.org", "dave@example.org"];
    let arguments: Vec<&str> = users.iter().flat_map(|user| ["--user", user]).collect();
    let output = run(dir.path(), "check", &arguments);
    let said = String::from_utf8(output.stdout).unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    let folder = dir.path().join("users/example.org");
    let folder = folder.display();
    assert_eq!(
        errors,
        format!(
            "{folder}/bob/gatepost.toml:2:20: unknown setting `rejects`; did you mean `reject`?\n\
             \u{20}   2 | plugin.badmailfrom.rejects = true\n\
             \u{20}     |                    ^^^^^^^\n"
        )
    );
    assert_eq!(output.status.code(), Some(2));
    let users: Vec<&str> = said.lines().filter(|line| line.contains('@')).collect();
    let expected = [
        format!("carol@example.org: the folder {folder}/carol"),
        "dave@example.org: no settings but those in the configuration".to_owned(),
    ];
    assert_eq!(users, expected, "{said}");
    let other = run(dir.path(), "check", &["--user", "carol@example.org"]);
    assert!(other.status.success());
}
