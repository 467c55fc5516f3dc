//! 250 means kept: the message's file is synced before readers see it, then its folder is synced, then the client hears of it. So it is with the notification about a recipient who refused what others took.

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use gatepost_tests::programs;
use gatepost_tests::refusals::bob_refuses;
use gatepost_tests::server::Server;
use gatepost_tests::smtp::Client;
use nix::fcntl::OFlag;

const CALLS: &str = "trace=openat,fsync,fdatasync,link,linkat,rename,renameat,renameat2,write,writev,sendto,sendmsg";

/// Delivers so many messages while strace watches, with more options for it; returns each message's file in the Maildir and the trace. `None` without
/// strace.
fn traced(
    messages: usize,
    options: impl Fn(&Path) -> Vec<String>,
) -> Option<(Vec<String>, String)> {
    let mut delivered = Vec::new();
    let (_, trace) = watched("", options, |server, client| {
        for _ in 0..messages {
            let reply = client.deliver(b"Subject: x\r\n\r\nhello\r\n");
            assert!(reply.starts_with("250 2."), "{reply:?}");
            let files = server.delivered();
            let mut files = files.iter().map(|file| file.to_string_lossy().into_owned());
            let new = files.find(|file| !delivered.contains(file));
            delivered.push(new.expect("a file in the Maildir"));
        }
    })?;
    Some((delivered, trace))
}

/// Runs a server with this head while strace watches, with more options for it, and a client that does something; returns what is left of the server, and the trace. `None` without strace.
fn watched(
    head: &str,
    options: impl Fn(&Path) -> Vec<String>,
    act: impl FnOnce(&Server, &mut Client),
) -> Option<(Server, String)> {
    let strace = programs::needed("strace")?;
    let mut server = Server::start_inside(head, |dir| {
        let mut words = vec![strace.clone().into_os_string()];
        words.extend(["-D", "-f", "-y", "-s", "64", "-e", CALLS].map(OsString::from));
        words.extend(options(&dir.join("mail")).into_iter().map(OsString::from));
        words.extend(["-o".into(), dir.join("trace").into(), "--".into()]);
        words
    });
    let mut client = Client::greet(server.address());
    act(&server, &mut client);
    client.ask("QUIT", "221");
    server.stop();
    let trace = std::fs::read_to_string(server.dir().join("trace")).expect("strace wrote it");
    Some((server, trace))
}

/// A system call, from the line of the trace where it begins to the one where it ends.
struct Call {
    process: String,
    /// As strace writes it, with the result.
    text: String,
    begin: usize,
    end: usize,
}

impl Call {
    fn is(&self, names: &[&str]) -> bool {
        let name = self.text.split('(').next().unwrap_or_default();
        names.contains(&name)
    }

    fn succeeded(&self) -> bool {
        self.text.ends_with(" = 0")
    }
}

/// Calls that are interrupted by other threads' take two lines of a trace.
fn calls(trace: &str) -> Vec<Call> {
    let mut calls: Vec<Call> = Vec::new();
    for (number, line) in trace.lines().enumerate() {
        let (process, text) = line.split_once(' ').expect("a process, then a call");
        let text = text.trim_start();
        if text.starts_with("--- ") || text.starts_with("+++ ") {
            continue;
        }
        if text.starts_with("<... ") {
            let begun = calls.iter_mut().rfind(|call| call.process == process);
            let begun = begun.expect("what is resumed was begun");
            let (_, rest) = text.split_once("resumed>").expect("strace's form");
            begun.text.push_str(rest);
            begun.end = number;
        } else {
            calls.push(Call {
                process: process.to_owned(),
                text: text.trim_end_matches(" <unfinished ...>").to_owned(),
                begin: number,
                end: number,
            });
        }
    }
    calls
}

/// The first call that is as wanted; panics where there is none.
fn find<'a>(calls: &'a [Call], what: &str, found: impl Fn(&Call) -> bool) -> &'a Call {
    let call = calls.iter().find(|call| found(call));
    call.unwrap_or_else(|| {
        let all: Vec<&str> = calls.iter().map(|call| call.text.as_str()).collect();
        panic!("{what} is not there in\n{}", all.join("\n"))
    })
}

const SYNC: [&str; 2] = ["fsync", "fdatasync"];
const NAME: [&str; 5] = ["link", "linkat", "rename", "renameat", "renameat2"];

/// How each message came to its name: `linkat`, or `rename`. Panics unless it was synced before that, and its folder between that and the 250.
fn ways(files: &[String], trace: &str) -> Vec<String> {
    let calls = calls(trace);
    let find = |what: &str, found: &dyn Fn(&Call) -> bool| find(&calls, what, found);
    let mut answered = 0;
    let way = |file: &String| {
        // The 354 is the last thing the client heard before the 250 of its message.
        let data = find("a 354", &|call| {
            call.text.contains("\"354 ") && call.begin > answered
        });
        let kept = find("a 250", &|call| {
            call.text.contains("\"250 ") && call.begin > data.end
        });
        answered = kept.end;
        let named = find(&format!("the name {file}, before the 250,"), &|call| {
            let given = call.is(&NAME) && call.text.contains(&format!(", \"{file}\""));
            given && call.succeeded() && call.end < kept.begin
        });
        let folder = Path::new(file).parent().expect("it lies in a folder");
        let maildir = folder.parent().expect("of a Maildir");
        let origin = named.text.split('"').nth(1).expect("a name's origin");
        // As -y shows a descriptor: with its number, and the path of its file.
        let origin = match origin.strip_prefix("/proc/self/fd/") {
            Some(number) => format!("({number}<{}/", maildir.display()),
            None => format!("<{origin}>"),
        };
        find(&format!("a sync of {origin} before {file}"), &|call| {
            let synced = call.is(&SYNC) && call.text.contains(&origin) && call.succeeded();
            synced && call.begin > data.end && call.end < named.begin
        });
        let folder = format!("<{}>", folder.display());
        find(
            &format!("a sync of the folder between {file} and the 250"),
            &|call| {
                let synced = call.is(&SYNC) && call.text.contains(&folder) && call.succeeded();
                synced && call.begin > named.end && call.end < kept.begin
            },
        );
        named.text.split('(').next().unwrap_or_default().to_owned()
    };
    files.iter().map(way).collect()
}

#[test]
fn without_a_name_until_it_is_linked() {
    let possible = OpenOptions::new()
        .write(true)
        .custom_flags(OFlag::O_TMPFILE.bits())
        .open(std::env::temp_dir());
    if let Err(error) = possible {
        programs::missing(&format!(
            "a file without a name: the folder for temporary files cannot have one: {error}"
        ));
        return;
    }
    let Some((files, trace)) = traced(1, |_| Vec::new()) else {
        return;
    };
    assert_eq!(ways(&files, &trace), ["linkat"]);
}

#[test]
fn through_tmp_where_files_cannot_be_linked() {
    let refuse = |_: &Path| {
        ["-e", "inject=linkat:error=EPERM"]
            .map(str::to_owned)
            .to_vec()
    };
    let Some((files, trace)) = traced(2, refuse) else {
        return;
    };
    assert_eq!(ways(&files, &trace), ["rename", "rename"]);
    let tried = trace.matches("INJECTED").count();
    assert!(tried <= 1, "{tried} times, and once is enough:\n{trace}");
}

#[test]
fn through_tmp_where_files_must_have_names() {
    // Only a file without a name is opened by the folder's. strace shows no other calls then.
    let refuse = |mail: &Path| {
        for folder in ["tmp", "new", "cur"] {
            std::fs::create_dir_all(mail.join(folder)).expect("a Maildir can be made");
        }
        let tmp = mail.join("tmp").to_string_lossy().into_owned();
        let refuse = "inject=openat:error=EOPNOTSUPP".to_owned();
        vec!["-P".to_owned(), tmp, "-e".to_owned(), refuse]
    };
    let Some((files, trace)) = traced(2, refuse) else {
        return;
    };
    assert_eq!(files.len(), 2);
    let tried = trace.matches("INJECTED").count();
    assert_eq!(tried, 1, "once is enough:\n{trace}");
}

/// Our own mail stays where it is.
const NOT_OUR_OWN: &str = r#"[[plugin]]
name = "queue/maildir"
when = 'direction != "local"'
"#;

#[test]
fn a_notification_is_on_disk_before_the_250_of_what_it_is_about() {
    let told = |_: &Server, client: &mut Client| {
        client.ask("MAIL FROM:<alice@client.example>", "250");
        client.ask("RCPT TO:<carol@example.org>", "250");
        client.ask("RCPT TO:<bob@example.org>", "250");
        client.ask("DATA", "354");
        client.ask("Subject: x\r\n\r\nhello\r\n.", "250");
    };
    let Some((server, trace)) = watched(&bob_refuses("", NOT_OUR_OWN), |_| Vec::new(), told) else {
        return;
    };
    let calls = calls(&trace);
    let data = find(&calls, "a 354", |call| call.text.contains("\"354 "));
    let kept = find(&calls, "a 250 for the message", |call| {
        call.text.contains("\"250 ") && call.begin > data.end
    });
    let spool = server.dir().join("spool");
    let outbox = spool.join("outbox");
    let files = gatepost::cli::transcript::files(&outbox);
    let named = files
        .iter()
        .find(|file| file.extension().is_some_and(|it| it == "json"));
    let named = named.expect("the notification waits");
    let path = |extension: &str| {
        named
            .with_extension(extension)
            .to_string_lossy()
            .into_owned()
    };
    let rename = find(&calls, "the envelope's name", |call| {
        let is_it = call.text.contains(&path("tmp")) && call.text.contains(&path("json"));
        call.is(&NAME) && is_it && call.succeeded()
    });
    let synced = |what: &str, after: usize, before: usize| {
        let shown = format!("<{what}>");
        find(&calls, &format!("a sync of {what} in time"), |call| {
            let synced = call.is(&SYNC) && call.text.contains(&shown) && call.succeeded();
            synced && call.begin > after && call.end < before
        });
    };
    // What comes later is an attempt to deliver it.
    let written = |what: &str| {
        let shown = format!("<{what}>");
        let writes = calls.iter().filter(|call| {
            call.is(&["write", "writev"]) && call.text.contains(&shown) && call.end < rename.begin
        });
        let last = writes.map(|call| call.end).max();
        last.unwrap_or_else(|| panic!("nothing is written to {what} in\n{trace}"))
    };
    synced(&path("msg"), written(&path("msg")), rename.begin);
    synced(&path("tmp"), written(&path("tmp")), rename.begin);
    synced(&outbox.to_string_lossy(), rename.end, kept.begin);
    // The folder itself was made for it.
    synced(&spool.to_string_lossy(), data.end, kept.begin);
}
