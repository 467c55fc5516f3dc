//! Python's smtplib and scramp authenticate, over a pipe, against the mechanisms behind AUTH.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use data_encoding::BASE64;
use gatepost::dialog::sasl::{
    self, Context, Failure, Identity, Mechanism, Question, Reply, Secret, Step,
};
use gatepost_tests::programs;

/// What both ends know of their TLS connection.
const CHANNEL: &str = "thirty-two bytes of tls-exporter";
/// Needs preparing (RFC 4013): clients that type it otherwise mean the same.
const PASSWORD: &str = "pencil\u{a0}\u{2168}";

/// Ends well if it was let in, and with status 7 if it was not.
const CLIENT: &str = r#"
import smtplib, sys
from scramp import ScramClient
from scramp.core import CbName

# scramp knows the types of binding for which it can ask Python's TLS; these bytes are given.
CbName.SUPPORTED_TYPES, CbName.UNSUPPORTED_TYPES = frozenset({'tls-exporter'}), frozenset()

class Pipe:
    def sendall(self, line):
        sys.stdout.buffer.write(line)
        sys.stdout.buffer.flush()
    def makefile(self, mode):
        return sys.stdin.buffer
    def close(self):
        pass

class Client(smtplib.SMTP):
    def _get_socket(self, host, port, timeout):
        return Pipe()

class Scram:
    def __init__(self, mechanism, user, password, channel):
        self.client = ScramClient([mechanism], user, password, channel_binding=('tls-exporter', channel.encode()))
        self.steps = [self.first, self.last, self.end]
    def __call__(self, challenge=None):
        return self.steps.pop(0)((challenge or b'').decode())
    def first(self, challenge):
        return self.client.get_client_first()
    def last(self, challenge):
        self.client.set_server_first(challenge)
        return self.client.get_client_final()
    def end(self, challenge):
        self.client.set_server_final(challenge)
        return ''

mechanism, user, password, channel, initial = sys.argv[1:]
client = Client('pipe', 25, local_hostname='client.example')
client.user, client.password = user, password
if mechanism.startswith('SCRAM'):
    answer = Scram(mechanism, user, password, channel)
else:
    answer = getattr(client, 'auth_' + mechanism.lower().replace('-', '_'))
try:
    client.auth(mechanism, answer, initial_response_ok=initial == 'true')
except smtplib.SMTPAuthenticationError:
    sys.exit(7)
"#;

/// Lets a client try its password and its channel, with an initial response or without.
fn attempt(
    mechanism: Mechanism,
    [real, tried]: [&str; 2],
    channel: &str,
    initial: bool,
) -> Result<Identity, Failure> {
    let mut client = Command::new("python3")
        .args(["-c", CLIENT, mechanism.name(), "tim, too", tried, channel])
        .arg(initial.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("Python 3 is there");
    let mut output = client.stdin.take().expect("it is piped");
    let mut input = BufReader::new(client.stdout.take().expect("it is piped")).lines();
    let mut say = |reply: &str| output.write_all(format!("{reply}\r\n").as_bytes());
    let mut read = || input.next().expect("the client speaks").expect("in ASCII");
    let decode = |text: &str| BASE64.decode(text.as_bytes()).expect("base64");

    say("220 mx.example.org").expect("the client reads");
    let command = read();
    let mut words = command.split(' ').skip(1);
    assert_eq!(words.next(), Some(mechanism.name()), "{command}");
    let response = words.next().map(decode);
    assert_eq!(
        response.is_some(),
        initial && mechanism != Mechanism::CramMd5
    );
    let context = Context {
        hostname: "mx.example.org",
        channel_binding: Some(CHANNEL.as_bytes()),
        plus_offered: mechanism == Mechanism::ScramSha256Plus,
    };
    let mut step = sasl::start(mechanism, &context, response.as_deref());
    let end = loop {
        step = match step {
            Step::Challenge(text, exchange) => {
                say(&format!("334 {}", BASE64.encode(&text))).expect("the client reads");
                exchange.step(&decode(&read()))
            }
            Step::Ask(question, pending) => pending.answered(reply(&question, real)),
            Step::Done(identity) => break Ok(identity),
            Step::Failed(failure) => break Err(failure),
        }
    };
    say(if end.is_ok() { "235 in" } else { "535 out" }).expect("the client reads");
    let status = client.wait().expect("it ends").code();
    assert_eq!(status, Some(if end.is_ok() { 0 } else { 7 }));
    end
}

fn reply(question: &Question, real: &str) -> Reply {
    match question {
        Question::Password { password, .. } if password.reveal() == real => Reply::Accepted(None),
        Question::Secret { .. } | Question::Digest { .. } => Reply::Password(Secret::new(real)),
        _ => Reply::Refused,
    }
}

#[test]
fn sasl_clients() {
    let scramp = Command::new("python3")
        .args(["-c", "import scramp"])
        .stderr(Stdio::null())
        .status();
    if !scramp.expect("Python 3 is there").success() {
        return programs::missing("Python has no scramp: run `make setup`");
    }
    let tim = Identity {
        user: "tim, too".to_owned(),
        authzid: None,
    };
    for mechanism in [
        Mechanism::Plain,
        Mechanism::Login,
        Mechanism::CramMd5,
        Mechanism::ScramSha256,
        Mechanism::ScramSha256Plus,
    ] {
        let is_scram = mechanism.name().starts_with("SCRAM");
        // smtplib sends nothing but ASCII.
        let same = if is_scram {
            [PASSWORD, "pencil \u{2168}"]
        } else {
            ["pencil", "pencil"]
        };
        for initial in [true, false] {
            let end = attempt(mechanism, same, CHANNEL, initial);
            assert_eq!(end.as_ref(), Ok(&tim), "{}", mechanism.name());
        }
        let end = attempt(mechanism, ["pencil", "Pencil"], CHANNEL, true);
        assert_eq!(end, Err(Failure::Credentials), "{}", mechanism.name());
    }
    let elsewhere = attempt(
        Mechanism::ScramSha256Plus,
        ["pencil", "pencil"],
        "another",
        true,
    );
    assert!(matches!(elsewhere, Err(Failure::ChannelBinding(_))));
}
