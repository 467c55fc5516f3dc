use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;

use super::*;
use crate::plugins::testing::{FakeServices, ask, built, line, plugin, session};
use gatepost_protocol::{Args, Value};

async fn say(plugin: &Arc<dyn Plugin>, address: &str) -> Outcome {
    let address = Address::parse_utf8(address).unwrap();
    let args = Args::Recipient(std::borrow::Cow::Owned(address));
    ask(plugin, Hook::RecipientValid, &session("192.0.2.1"), args).await
}

#[tokio::test]
async fn lists_count_as_they_are_now() {
    let services = FakeServices::new();
    let recipients = plugin(&DEFINITION, &services, []);
    let said = async |address| line(&say(&recipients, address).await);
    assert_eq!(
        said("bob@example.org").await,
        "skip, bob@example.org: there are no sources"
    );
    services.file("recipients", &["bob@example.org"]);
    assert_eq!(
        said("bob@example.org").await,
        "pass, bob@example.org is listed"
    );
    assert_eq!(
        said("eve@example.org").await,
        "fail, eve@example.org is not listed"
    );
    assert_eq!(said("postmaster").await, "pass, postmaster: no domain");
    assert_eq!(
        said("Postmaster@example.org").await,
        "pass, Postmaster@example.org"
    );
    let outcome = say(&recipients, "eve@example.org").await;
    assert_eq!(
        (outcome.values, outcome.verdict),
        (vec!["0s".to_owned()], None)
    );
}

#[test]
fn every_mistake_is_named() {
    let wrong: [(&str, Value); 5] = [
        ("addresses", ["bob@example.org", "bob"].into()),
        ("patterns", ["^("].into()),
        ("callout", "mx.example.org".into()),
        ("command", ["/no/such/program"].into()),
        ("domains", ["*.example.org"].into()),
    ];
    let errors = built(&DEFINITION, &FakeServices::new(), wrong)
        .err()
        .unwrap();
    let places: Vec<String> = errors.iter().map(|error| error.path.join(".")).collect();
    assert_eq!(
        places,
        [
            "addresses.1",
            "patterns.0",
            "domains.0",
            "callout",
            "command"
        ]
    );
    let empty: [(&str, Value); 1] = [("command", Value::List(Vec::new()))];
    let errors = built(&DEFINITION, &FakeServices::new(), empty)
        .err()
        .unwrap();
    assert!(
        errors[0].message.starts_with("the command is empty"),
        "{errors:?}"
    );
}

/// A server that says what the script has for the beginning of each command; an empty answer closes the connection. Counts connections.
async fn server(script: &'static [(&'static str, &'static str)]) -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let connections = Arc::new(AtomicUsize::new(0));
    let count = connections.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            count.fetch_add(1, Ordering::Relaxed);
            tokio::spawn(async move {
                stream.write_all(b"220 hello\r\n").await.unwrap();
                let mut stream = BufReader::new(stream);
                let mut command = String::new();
                while stream
                    .read_line(&mut command)
                    .await
                    .is_ok_and(|length| length > 0)
                {
                    let found = script.iter().find(|(start, _)| command.starts_with(start));
                    let answer = found.map_or("250 ok", |(_, answer)| answer);
                    if answer.is_empty() {
                        return;
                    }
                    let answer = format!("{answer}\r\n");
                    stream.get_mut().write_all(answer.as_bytes()).await.unwrap();
                    command.clear();
                }
            });
        }
    });
    (port, connections)
}

fn calling(scheme: &str, port: u16) -> Arc<dyn Plugin> {
    let url = format!("{scheme}://127.0.0.1:{port}");
    plugin(
        &DEFINITION,
        &FakeServices::new(),
        [("callout", url.as_str().into())],
    )
}

#[tokio::test]
async fn a_connection_is_used_again_until_it_is_closed() {
    let (port, connections) = server(&[
        ("RCPT TO:<eve", "550 who"),
        ("RCPT TO:<last", "250 ok\r\n421 enough"),
    ])
    .await;
    let recipients = calling("smtp", port);
    for (address, said) in [
        ("bob@example.org", "pass"),
        ("eve@example.org", "fail"),
        ("last@example.org", "pass"),
    ] {
        let outcome = say(&recipients, address).await;
        assert!(line(&outcome).starts_with(said), "{outcome:?}");
        assert_eq!(outcome.values, [""; 0], "it is kept");
    }
    assert_eq!(connections.load(Ordering::Relaxed), 1);
    assert!(line(&say(&recipients, "bob@example.org").await).starts_with("pass"));
    assert_eq!(connections.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn what_is_no_answer_about_the_address_is_none() {
    for (script, said) in [
        (&[("RCPT", "450 later")][..], "it says 450 later"),
        (
            &[("MAIL", "550 not from you")],
            "to MAIL FROM:<> it says 550 not from you",
        ),
        (
            &[("EHLO", "554 no"), ("HELO", "554 no")],
            "to HELO it says 554 no",
        ),
        (&[("RCPT", "")], "it closed the connection"),
        (&[("RCPT", "what?")], "its reply is none: `what?`"),
    ] {
        let (port, _) = server(script).await;
        let outcome = say(&calling("smtp", port), "bob@example.org").await;
        let expected = format!("error, bob@example.org: smtp://127.0.0.1:{port}: {said}");
        assert_eq!(line(&outcome), expected);
    }
    let (port, _) = server(&[("LHLO", "500 what")]).await;
    let outcome = say(&calling("lmtp", port), "bob@example.org").await;
    assert!(
        line(&outcome).ends_with(": to LHLO it says 500 what"),
        "{outcome:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_silent_server_is_not_waited_for_for_ever() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let outcome = say(&calling("smtp", port), "bob@example.org").await;
    assert!(
        line(&outcome).ends_with(": waited 15s for its greeting"),
        "{outcome:?}"
    );
}

#[tokio::test]
async fn addresses_outside_ascii_need_a_server_that_takes_them() {
    let (port, _) = server(&[]).await;
    let said = line(&say(&calling("smtp", port), "jörg@example.org").await);
    assert!(
        said.starts_with("fail, ") && said.ends_with(" offers no SMTPUTF8"),
        "{said}"
    );
    let (port, _) = server(&[
        ("EHLO", "250-hello\r\n250 SMTPUTF8"),
        ("MAIL FROM:<> SMTPUTF8", "250 ok"),
        ("MAIL", "550 say SMTPUTF8"),
    ])
    .await;
    let said = line(&say(&calling("smtp", port), "jörg@example.org").await);
    assert!(said.starts_with("pass, jörg@example.org"), "{said}");
}
