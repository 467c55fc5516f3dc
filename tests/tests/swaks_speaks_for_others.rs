//! swaks says whose connection it is: by XCLIENT, and by both versions of the PROXY protocol.

use std::process::Command;

use gatepost_tests::programs;
use gatepost_tests::server::Server;

#[test]
fn swaks_speaks_for_another_client() {
    let Some(swaks) = programs::needed("swaks") else {
        return;
    };
    let xclient = [
        "--xclient-addr",
        "192.0.2.7",
        "--xclient-name",
        "front.example",
    ];
    let proxy = |version: &'static str| {
        [
            ["--proxy-version", version],
            [
                "--proxy-family",
                if version == "1" { "TCP4" } else { "AF_INET" },
            ],
            ["--proxy-source", "192.0.2.7"],
            ["--proxy-source-port", "40000"],
            ["--proxy-dest", "198.51.100.1"],
            ["--proxy-dest-port", "25"],
        ]
        .concat()
    };
    for (setting, arguments, received) in [
        (
            "xclient_from",
            xclient.to_vec(),
            "(front.example [192.0.2.7])",
        ),
        ("proxy_from", proxy("1"), "([192.0.2.7])"),
        ("proxy_from", proxy("2"), "([192.0.2.7])"),
    ] {
        let server = Server::start(&format!("[[listen]]\n{setting} = ['127.0.0.1']"));
        let output = Command::new(&swaks)
            .args(["--server", "127.0.0.1", "--helo", "client.example"])
            .args(["--port", &server.address().port().to_string()])
            .args(["--from", "alice@client.example", "--to", "bob@example.org"])
            .args(&arguments)
            .output()
            .expect("swaks runs");
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        let message = String::from_utf8(server.message()).expect("it is text");
        let expected = format!("Received: from client.example {received}");
        assert!(message.contains(&expected), "{arguments:?}: {message}");
    }
}
