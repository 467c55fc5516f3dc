//! TLS with real clients: both ways to begin it, certificates by name, replaced while the daemon runs, and those of clients.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Output, Stdio};

use gatepost_tests::programs;
use gatepost_tests::server::{Server, gatepost};
use gatepost_tests::wait::until;
use tempfile::TempDir;

/// A daemon that listens twice: first with STARTTLS, then with TLS from the start. `tls` are further lines for the table `[tls]`.
fn start(certificates: &Path, tls: &str) -> (Server, SocketAddr) {
    let certificates = certificates.display();
    let server = Server::start(&format!(
        "[[listen]]\ntls = \"starttls\"\n[[listen]]\ntls = \"implicit\"\n\
         [tls]\ncert = \"{certificates}/cert.pem\"\nkey = \"{certificates}/key.pem\"\n{tls}"
    ));
    let line = server.wait_for_log("the second listener", |text| {
        text.starts_with("listen: listening on ") && text.ends_with(", TLS)")
    });
    let address = line.split(' ').nth_back(2).map(str::parse);
    let implicit = address.expect("the line has words").expect("an address");
    (server, implicit)
}

/// A folder with a certificate for a name, as an operator makes one.
fn certificate(name: &str) -> TempDir {
    let dir = TempDir::with_prefix("gatepost-").expect("a temporary folder");
    make_certificate(name, dir.path());
    dir
}

fn make_certificate(name: &str, dir: &Path) {
    let output = Command::new(gatepost())
        .args(["tls", "self-signed", "--name", name, "--out"])
        .arg(dir)
        .output()
        .expect("the program runs");
    assert!(output.status.success(), "{output:?}");
}

fn openssl(arguments: &[&str]) -> Command {
    let mut command = Command::new("openssl");
    command.args(arguments);
    command
}

/// A whole session of `openssl s_client`: what it says of the certificate, and of the end.
fn s_client(server: SocketAddr, arguments: &[&str]) -> Output {
    let mut child = openssl(&["s_client", "-ign_eof", "-crlf", "-connect"])
        .arg(server.to_string())
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("openssl runs");
    let mut stdin = child.stdin.take().expect("it was asked for");
    // Where the server hung up there is nobody to say it to.
    let _ = stdin.write_all(b"QUIT\n");
    drop(stdin);
    child.wait_with_output().expect("it ends")
}

/// Whose certificate a server showed.
fn subject(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().find_map(|line| line.strip_prefix("subject="));
    line.unwrap_or_else(|| panic!("{output:?}")).to_owned()
}

#[test]
fn openssl_sees_the_certificate_for_the_name_it_asks_for_and_a_clean_end() {
    if programs::needed("openssl").is_none() {
        return;
    }
    let (usual, mail, wild) = (
        certificate("mx.example.org"),
        certificate("mail.example.com"),
        certificate("*.example.net"),
    );
    let entry = |dir: &TempDir, names: &str| {
        let dir = dir.path().display();
        format!(
            "[[tls.certificate]]\ncert = \"{dir}/cert.pem\"\nkey = \"{dir}/key.pem\"\n{names}\n"
        )
    };
    let others = entry(
        &mail,
        "names = [\"smtp.example.com\", \"mail.example.com\"]",
    ) + &entry(&wild, "");
    let (server, implicit) = start(usual.path(), &others);
    let starttls = server.address();
    for (name, expected) in [
        ("mx.example.org", "mx.example.org"),
        ("smtp.example.com", "mail.example.com"),
        ("MAIL.example.com", "mail.example.com"),
        ("any.example.net", "*.example.net"),
        ("not.any.example.net", "mx.example.org"),
        ("other.example", "mx.example.org"),
    ] {
        for (address, how) in [(starttls, &["-starttls", "smtp"][..]), (implicit, &[])] {
            let output = s_client(address, &[how, &["-servername", name]].concat());
            assert_eq!(subject(&output), format!("CN = {expected}"), "{name}");
            let said = String::from_utf8_lossy(&output.stdout);
            assert!(said.contains("221 2.0.0"), "{output:?}");
            let errors = String::from_utf8_lossy(&output.stderr);
            assert!(!errors.contains("unexpected eof"), "{errors}");
        }
    }
    let output = s_client(implicit, &["-noservername", "-tls1_2"]);
    assert_eq!(subject(&output), "CN = mx.example.org");
    let line = server.wait_for_log("a session with TLS 1.2", |text| text.contains("TLSv1.2"));
    assert!(line.contains("TLSv1.2, TLS_ECDHE_ECDSA_WITH_"), "{line}");
    assert!(!line.contains("server name"), "{line}");
}

#[test]
fn the_oldest_version_is_the_operators() {
    if programs::needed("openssl").is_none() {
        return;
    }
    let usual = certificate("mx.example.org");
    let (server, implicit) = start(usual.path(), "min_version = \"1.3\"\n");
    let output = s_client(implicit, &["-tls1_2"]);
    assert!(!output.status.success(), "{output:?}");
    server.wait_for_log("the refusal", |text| text.contains("closed, TLS failed: "));
    assert_eq!(
        subject(&s_client(implicit, &["-tls1_3"])),
        "CN = mx.example.org"
    );
}

/// An encrypted session that stays open.
struct Session {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl Session {
    fn open(server: SocketAddr, arguments: &[&str]) -> Session {
        let mut child = openssl(&["s_client", "-quiet", "-crlf", "-connect"])
            .arg(server.to_string())
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("openssl runs");
        let mut session = Session {
            to: child.stdin.take().expect("it was asked for"),
            from: BufReader::new(child.stdout.take().expect("it was asked for")),
            child,
        };
        session.expect("220 ");
        session
    }

    fn ask(&mut self, command: &str, reply: &str) {
        writeln!(self.to, "{command}").expect("openssl reads");
        self.expect(reply);
    }

    fn expect(&mut self, reply: &str) {
        let mut line = String::new();
        self.from.read_line(&mut line).expect("openssl writes");
        assert!(line.starts_with(reply), "{line}");
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn new_files_hold_for_new_sessions_and_bad_ones_for_none() {
    if programs::needed("openssl").is_none() {
        return;
    }
    let (files, next) = (
        certificate("old.example.org"),
        certificate("new.example.org"),
    );
    let (server, implicit) = start(files.path(), "");
    let mut session = Session::open(implicit, &[]);
    let install = |name: &str| {
        let to = files.path().join(name);
        std::fs::copy(next.path().join(name), to).expect("a file can be written");
    };
    let shown = || subject(&s_client(implicit, &[]));
    assert_eq!(shown(), "CN = old.example.org");
    // The new certificate does not go with the old key.
    install("cert.pem");
    let line = until("a complaint", || {
        assert_eq!(shown(), "CN = old.example.org");
        let wanted = |line: &String| line.contains("the old certificates stay");
        server.log().into_iter().find(wanted)
    });
    assert!(
        line.contains("is not the key of the certificate in"),
        "{line}"
    );
    install("key.pem");
    until("the new certificate", || {
        (shown() == "CN = new.example.org").then_some(())
    });
    session.ask("NOOP", "250 ");
}

/// RFC 9266 §3: with TLS 1.2 two connections may have the same exported keys, so that there is nothing to bind to.
#[test]
fn scram_is_bound_to_no_channel_of_tls_1_2() {
    if programs::needed("openssl").is_none() {
        return;
    }
    let usual = certificate("mx.example.org");
    let auth = "[auth]\nmechanisms = [\"SCRAM-SHA-256-PLUS\", \"SCRAM-SHA-256\"]\n\
                [[plugin]]\nname = \"auth/auth_flat_file\"\n[files]\n\"config/flat_auth_pw\" = \"bob:secret\\n\"\n";
    let (_server, implicit) = start(usual.path(), auth);
    for (version, offer) in [
        ("-tls1_2", "250-AUTH SCRAM-SHA-256"),
        ("-tls1_3", "250-AUTH SCRAM-SHA-256-PLUS SCRAM-SHA-256"),
    ] {
        let mut session = Session::open(implicit, &[version]);
        writeln!(session.to, "EHLO client.example").expect("openssl reads");
        let mut lines = session.from.by_ref().lines().map_while(Result::ok);
        let offered = lines.find(|line| line.starts_with("250-AUTH ") || line.starts_with("250 "));
        assert_eq!(
            offered.as_deref().map(str::trim_end),
            Some(offer),
            "{version}"
        );
    }
}

/// A certificate that `issuer` signs, or nobody else.
fn client_certificate(dir: &Path, name: &str, issuer: Option<&str>) -> [String; 2] {
    let file = |name: &str, what: &str| dir.join(format!("{name}{what}.pem")).display().to_string();
    let (cert, key) = (file(name, ""), file(name, "-key"));
    let mut command = openssl(&["req", "-x509", "-newkey", "ec", "-nodes", "-batch"]);
    command.args(["-pkeyopt", "ec_paramgen_curve:prime256v1", "-days", "2"]);
    command.args([
        "-subj",
        &format!("/CN={name}"),
        "-keyout",
        &key,
        "-out",
        &cert,
    ]);
    if let Some(issuer) = issuer {
        command.args(["-CA", &file(issuer, ""), "-CAkey", &file(issuer, "-key")]);
        command.args(["-addext", &format!("subjectAltName=DNS:{name}.example")]);
        command.args(["-addext", "basicConstraints=critical,CA:false"]);
    }
    let output = command.output().expect("openssl runs");
    assert!(output.status.success(), "{output:?}");
    [cert, key]
}

#[test]
fn clients_are_asked_for_certificates_and_those_that_verify_have_a_name() {
    if programs::needed("openssl").is_none() {
        return;
    }
    let files = certificate("mx.example.org");
    let [ca, _] = client_certificate(files.path(), "ca", None);
    let [good, good_key] = client_certificate(files.path(), "good", Some("ca"));
    let [alien, alien_key] = client_certificate(files.path(), "alien", None);
    let good = ["-cert", &good, "-key", &good_key];
    let alien = ["-cert", &alien, "-key", &alien_key];

    let asking = format!("client_ca = \"{ca}\"\nclient_cert = \"request\"\n");
    let (server, implicit) = start(files.path(), &asking);
    for (arguments, name) in [
        (&good[..], Some("good.example")),
        (&alien, None),
        (&[], None),
    ] {
        let before = server.log().len();
        let output = s_client(implicit, arguments);
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(said.contains("221 2.0.0"), "{output:?}");
        let line = until("the session in the log", || {
            let log = server.log().split_off(before);
            log.into_iter().find(|line| line.contains("TLS begins"))
        });
        let expected = name.map(|name| format!("client certificate of {name}"));
        assert_eq!(
            line.contains("client certificate"),
            expected.is_some(),
            "{line}"
        );
        assert!(line.ends_with(&expected.unwrap_or_default()), "{line}");
    }

    let requiring = format!("client_ca = \"{ca}\"\nclient_cert = \"require\"\n");
    let (server, implicit) = start(files.path(), &requiring);
    for (arguments, welcome) in [(&good[..], true), (&alien, false), (&[], false)] {
        let before = server.log().len();
        let output = s_client(implicit, arguments);
        let said = String::from_utf8_lossy(&output.stdout);
        assert_eq!(said.contains("221 2.0.0"), welcome, "{output:?}");
        until("the session in the log", || {
            let wanted = if welcome { "TLS begins" } else { "TLS failed" };
            let log = server.log().split_off(before);
            log.into_iter().find(|line| line.contains(wanted))
        });
    }
}

/// Everything in the message, and that it came encrypted.
fn assert_delivered_encrypted(server: &Server) {
    let message = String::from_utf8_lossy(&server.message()).into_owned();
    assert!(message.contains(" with ESMTPS id "), "{message}");
    assert!(message.contains("Subject: in secret"), "{message}");
}

#[test]
fn smtplib_sends_encrypted() {
    const CLIENT: &str = "
import smtplib, ssl, sys
port, ca = sys.argv[1:]
context = ssl.create_default_context(cafile=ca)
with smtplib.SMTP('mx.example.org', int(port), local_hostname='client.example') as smtp:
    smtp.starttls(context=context)
    assert not smtp.has_extn('starttls') or smtp.ehlo() and not smtp.has_extn('starttls')
    smtp.sendmail('alice@client.example', ['bob@example.org'], 'Subject: in secret\\r\\n\\r\\nhello\\r\\n')
";
    // No name server knows the name that the certificate is for.
    let client = format!(
        "import socket\nreal = socket.getaddrinfo\nsocket.getaddrinfo = lambda host, *rest, **more: real('127.0.0.1', *rest, **more)\n{CLIENT}"
    );
    let files = certificate("mx.example.org");
    let (server, _) = start(files.path(), "");
    let status = Command::new("python3")
        .args(["-c", &client, &server.address().port().to_string()])
        .arg(files.path().join("cert.pem"))
        .status();
    assert!(status.expect("Python 3 is there").success());
    assert_delivered_encrypted(&server);
}

#[test]
fn swaks_sends_encrypted() {
    let Some(swaks) = programs::needed("swaks") else {
        return;
    };
    let files = certificate("mx.example.org");
    for (at_once, how) in [(false, "-tls"), (true, "-tlsc")] {
        let (server, implicit) = start(files.path(), "");
        let address = if at_once { implicit } else { server.address() };
        let output = Command::new(&swaks)
            .args(["--server", "127.0.0.1", "--helo", "client.example", how])
            .args(["--port", &address.port().to_string()])
            .args(["--from", "alice@client.example", "--to", "bob@example.org"])
            .args(["--header", "Subject: in secret"])
            .output()
            .expect("swaks runs");
        assert!(output.status.success(), "{output:?}");
        assert_delivered_encrypted(&server);
    }
}

#[test]
fn posttls_finger_is_content() {
    let Some(finger) = programs::needed("posttls-finger") else {
        return;
    };
    let files = certificate("mx.example.org");
    let (server, _) = start(files.path(), "");
    let mut child = Command::new(finger)
        .args(["-c", "-l", "secure", "-F"])
        .arg(files.path().join("cert.pem"))
        .arg(format!("[127.0.0.1]:{}", server.address().port()))
        .arg("mx.example.org")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("posttls-finger runs");
    let mut said = String::new();
    for stream in [
        &mut child.stdout.take().expect("it was asked for") as &mut dyn Read,
        &mut child.stderr.take().expect("it was asked for"),
    ] {
        stream.read_to_string(&mut said).expect("it is text");
    }
    let status = child.wait().expect("it ends");
    assert!(status.success(), "{said}");
    assert!(
        said.contains("Verified TLS connection established"),
        "{said}"
    );
}

#[test]
fn self_signed_overwrites_nothing() {
    let files = certificate("mx.example.org");
    let key = files.path().join("key.pem");
    let mode = std::os::unix::fs::MetadataExt::mode(&key.metadata().expect("it is there"));
    assert_eq!(mode & 0o777, 0o600);
    let before = std::fs::read(&key).expect("it can be read");
    let output = Command::new(gatepost())
        .args(["tls", "self-signed", "--out"])
        .arg(files.path())
        .output()
        .expect("the program runs");
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("is there already"), "{said}");
    assert_eq!(std::fs::read(&key).expect("it can be read"), before);
}

#[test]
fn an_expired_certificate_is_a_warning() {
    if programs::needed("openssl").is_none() {
        return;
    }
    let dir = TempDir::with_prefix("gatepost-").expect("a temporary folder");
    let make = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout key.pem -out new.pem -subj /CN=x.example.org -batch \
                && openssl x509 -in new.pem -signkey key.pem -days -1 -out cert.pem";
    let output = Command::new("sh")
        .args(["-c", make])
        .current_dir(dir.path())
        .output()
        .expect("a shell is there");
    assert!(output.status.success(), "{output:?}");
    let config =
        "[tls]\ncert = \"cert.pem\"\nkey = \"key.pem\"\n[[plugin]]\nname = \"queue/discard\"\n";
    std::fs::write(dir.path().join("gatepost.toml"), config).expect("a file can be written");
    let output = Command::new(gatepost())
        .arg("check")
        .current_dir(dir.path())
        .output()
        .expect("the program runs");
    assert!(output.status.success(), "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr);
    let expected = "gatepost.toml:2:8: warning: the certificate in `cert.pem` expired on ";
    assert!(said.starts_with(expected), "{said}");
}
