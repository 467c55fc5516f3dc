//! 250 means kept: the message's file and its folder are synced before the client hears of it.

use std::ffi::OsString;

use gatepost_tests::programs;
use gatepost_tests::server::Server;
use gatepost_tests::smtp::Client;

#[test]
fn synced_before_250() {
    let Some(strace) = programs::needed("strace") else {
        return;
    };
    let mut server = Server::start_inside("", |dir| {
        let calls = "trace=fsync,fdatasync,syncfs,link,linkat,rename,renameat,renameat2,write,writev,sendto,sendmsg";
        let options = ["-D", "-f", "-y", "-s", "64", "-e", calls, "-o"].map(OsString::from);
        let mut words = vec![strace.clone().into_os_string()];
        words.extend(options);
        words.extend([dir.join("trace").into(), "--".into()]);
        words
    });
    let mut client = Client::greet(server.address());
    let reply = client.deliver(b"Subject: x\r\n\r\nhello\r\n");
    assert!(reply.starts_with("250 2."), "{reply:?}");
    let delivered = server.delivered().remove(0);
    client.ask("QUIT", "221");
    server.stop();

    let trace = std::fs::read_to_string(server.dir().join("trace")).expect("strace wrote it");
    let lines: Vec<&str> = trace.lines().collect();
    // The 354 is the last thing the client heard before the 250 of its message.
    let position = |what: &str, from: usize, found: &dyn Fn(&str) -> bool| {
        let at = lines[from..].iter().position(|line| found(line));
        from + at.unwrap_or_else(|| panic!("no {what} in\n{trace}"))
    };
    let data = position("354", 0, &|line| line.contains("\"354 "));
    let kept = position("250", data, &|line| line.contains("\"250 "));
    let before = &lines[data..kept];
    let synced = |path: &str| {
        before.iter().any(|line| {
            let sync =
                line.contains("fsync(") || line.contains("fdatasync(") || line.contains("syncfs(");
            sync && line.contains(path)
        })
    };
    let maildir = server.stage().mail.to_string_lossy().into_owned();
    let folder = delivered
        .parent()
        .expect("it lies in a folder")
        .to_string_lossy()
        .into_owned();
    assert!(
        synced(&format!("<{folder}>")),
        "the folder was not synced:\n{}",
        before.join("\n")
    );
    assert!(
        synced(&format!("<{maildir}/tmp/")) || synced(&format!("<{maildir}/new/")),
        "the file was not synced:\n{}",
        before.join("\n")
    );
}
