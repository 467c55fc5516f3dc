//! Random sessions in SMTP and LMTP, held against a model of the protocol (`tests/src/model.rs`): every command gets a reply that is right in its state, however the
//! client's bytes are cut up, and what is delivered is what was acknowledged.
//!
//! `SESSIONS=20000` plays more, `SEED=…` those of a run that failed. A session that fails is made as short as it can be, and shown.

use std::collections::VecDeque;
use std::fmt::Write;
use std::sync::{Arc, Mutex};

use gatepost::config;
use gatepost::dialog::{LMTP, SMTP};
use gatepost_protocol::plugin::Subscription;
use gatepost_protocol::{Answer, Args, Call, Hook, Outcome, Plugin, Verdict};
use gatepost_tests::fuzz::client::converse;
use gatepost_tests::model::{
    self, Acknowledged, MAX_RECIPIENTS, MAX_SIZE, Replies, Step, UNWANTED,
};
use gatepost_tests::processes::{Dice, number_from};
use gatepost_tests::server::Server;
use gatepost_tests::smtp::Client;

/// Steps of a session.
const STEPS: usize = 60;

/// Nothing else is to end a session, or to refuse what the model would take.
fn limits() -> String {
    format!(
        "[limits]
        max_recipients = {MAX_RECIPIENTS}
        max_size = {MAX_SIZE}
        max_errors = 1000
        max_unknown_commands = 1000
        max_idle_commands = 1000
        max_auth_failures = 1000
        "
    )
}

/// Decides as the model says, and notes what it was given to keep.
#[derive(Default)]
struct Keeper(Mutex<Vec<Acknowledged>>);

impl Plugin for Keeper {
    fn subscriptions(&self) -> Vec<Subscription> {
        [Hook::Auth, Hook::Rcpt, Hook::DataPost, Hook::Queue]
            .map(|hook| Subscription::to(hook, &[]))
            .into()
    }

    fn call<'a>(&'a self, call: &'a Call<'a>) -> Answer<'a> {
        match call.args {
            Args::Auth(shown) => {
                let is_right = shown.password.as_deref() == Some("sesame");
                let deny = Outcome::declined().with_verdict(Verdict::Deny);
                if is_right { Outcome::ok("") } else { deny }.into()
            }
            Args::Address { address, .. } => match address.local() {
                "bad" => Outcome::declined().with_verdict(Verdict::Deny).into(),
                "later" => Outcome::declined().with_verdict(Verdict::DenySoft).into(),
                _ => Outcome::ok("").into(),
            },
            _ => Answer::later(self.judge(call)),
        }
    }
}

impl Keeper {
    async fn judge(&self, call: &Call<'_>) -> Outcome {
        let message = call.message.expect("there is one here");
        let text = message
            .read(0, usize::MAX)
            .await
            .expect("it can be read")
            .to_vec();
        if call.hook == Hook::Queue {
            let transaction = &call.session.transaction;
            self.0.lock().unwrap().push(Acknowledged {
                text,
                recipients: transaction
                    .recipients
                    .iter()
                    .map(|it| it.as_str().to_owned())
                    .collect(),
            });
            return Outcome::ok("");
        }
        match text.windows(UNWANTED.len()).any(|part| part == UNWANTED) {
            true => Outcome::declined().with_verdict(Verdict::Deny),
            false => Outcome::declined(),
        }
    }
}

/// The codes of replies.
fn codes(told: &str) -> VecDeque<u16> {
    let last = told
        .lines()
        .filter(|line| line.as_bytes().get(3) == Some(&b' '));
    last.map(|line| line[..3].parse().expect("a code"))
        .collect()
}

/// Plays a session in memory. An error says where server and model part.
fn play(steps: &[Step], is_lmtp: bool, lengths: &[usize]) -> Result<(), String> {
    let session = model::play(steps, is_lmtp);
    let keeper = Arc::new(Keeper::default());
    let config = config::parse(&limits(), "a test", &[]).map_err(|wrong| wrong.to_string())?;
    let mut left = [session.sent.concat(), b"QUIT\r\n".to_vec()].concat();
    let mut blocks = VecDeque::new();
    for length in lengths.iter().cycle() {
        let rest = left.split_off(left.len().min(*length));
        blocks.push_back(std::mem::replace(&mut left, rest));
        if left.is_empty() {
            break;
        }
    }
    let dialect = if is_lmtp { &LMTP } else { &SMTP };
    let config = gatepost_tests::fuzz::with_spool(config);
    let told = converse(dialect, config, keeper.clone(), false, blocks);
    let told = String::from_utf8(told).map_err(|_| "replies are no UTF-8")?;
    let mut codes = codes(&told);
    let mut check = |what: &str, expected: &[u16]| match codes.pop_front() {
        Some(code) if expected.contains(&code) => Ok(()),
        code => Err(format!(
            "{what}: {code:?}, and not one of {expected:?}\n{told}"
        )),
    };
    check("the greeting", &[220])?;
    for (number, (step, expected)) in steps.iter().zip(&session.expected).enumerate() {
        for expected in expected {
            check(&format!("step {}, {step:?}", number + 1), expected)?;
        }
    }
    check("QUIT", &[221])?;
    if let Some(code) = codes.pop_front() {
        return Err(format!("{code} to nothing\n{told}"));
    }
    let kept = std::mem::take(&mut *keeper.0.lock().unwrap());
    match kept == session.acknowledged {
        true => Ok(()),
        false => Err(format!(
            "kept {kept:#?}\nacknowledged {:#?}",
            session.acknowledged
        )),
    }
}

/// The same session without what it fails without.
fn shortened(mut steps: Vec<Step>, fails: impl Fn(&[Step]) -> bool) -> Vec<Step> {
    let mut at = 0;
    while at < steps.len() {
        let mut without = steps.clone();
        without.remove(at);
        if fails(&without) {
            (steps, at) = (without, 0);
        } else {
            at += 1;
        }
    }
    steps
}

#[test]
fn every_reply_is_right_in_its_state_and_what_is_kept_was_acknowledged() {
    let sessions = number_from("SESSIONS", 300);
    let seed = number_from("SEED", u64::from(std::process::id()) | 1 << 40);
    println!("SEED={seed} SESSIONS={sessions}");
    let (mut steps_made, mut acknowledged) = (0, 0);
    for number in 0..sessions {
        // A session can be had alone.
        let mut dice = Dice(seed + number);
        let is_lmtp = dice.below(4) == 0;
        let lengths: Vec<usize> = match dice.below(2) {
            0 => vec![usize::MAX],
            _ => (0..5).map(|_| dice.below(40) as usize + 1).collect(),
        };
        let steps = model::steps(&mut dice, STEPS, is_lmtp, 0);
        if let Err(why) = play(&steps, is_lmtp, &lengths) {
            let steps = shortened(steps, |steps| play(steps, is_lmtp, &lengths).is_err());
            let short = play(&steps, is_lmtp, &lengths).expect_err("so it was shortened");
            let protocol = if is_lmtp { "LMTP" } else { "SMTP" };
            panic!(
                "SEED={} SESSIONS=1 in {protocol}: {}\n\nAs short as it gets: {steps:#?}\n{short}",
                seed + number,
                why.lines().next().unwrap_or_default()
            );
        }
        steps_made += steps.len();
        acknowledged += model::play(&steps, is_lmtp).acknowledged.len();
    }
    println!(
        "{sessions} sessions, {steps_made} steps, {acknowledged} messages acknowledged and kept"
    );
    assert!(
        acknowledged as u64 > sessions,
        "sessions hardly ever get to a message"
    );
}

/// Decides as [`Keeper`] does.
const HEAD: &str = r#"
[files]
"judge.py" = '''
import gatepost

@gatepost.hook("rcpt")
def rcpt(session, address):
    if str(address).startswith("bad@"):
        return gatepost.deny("no")
    if str(address).startswith("later@"):
        return gatepost.denysoft("not now")
    return gatepost.ok()

@gatepost.hook("auth")
def auth(session, password):
    return gatepost.ok() if password == "sesame" else gatepost.deny("no")

@gatepost.hook("data_post")
def data_post(session):
    if b"X-Unwanted: yes" in session.message.read(0, 100000):
        return gatepost.deny("no")

gatepost.run()
'''
[[listen]]
auth = "always"
[[plugin]]
name = "judge"
run = ["python3", "$DIR/judge.py"]
env = { PYTHONPATH = "$ROOT/sdk-python/src" }
immune = false
[[plugin]]
name = "queue/maildir"
"#;

/// What the daemon says to a step, read reply by reply.
fn check_step(client: &mut Client, number: usize, step: &Step, sent: &[u8], expected: &Replies) {
    client.send(sent);
    for expected in expected {
        let reply = client.reply();
        let code = reply.get(..3).and_then(|code| code.parse().ok());
        let is_right = code.is_some_and(|code: u16| expected.contains(&code));
        assert!(
            is_right,
            "step {number}, {step:?}: {reply:?}, and not one of {expected:?}"
        );
    }
}

#[test]
fn so_it_is_with_the_daemon_and_its_maildir() {
    let seed = number_from("SEED", u64::from(std::process::id()) | 1 << 40);
    println!("SEED={seed}");
    let server = Server::start(&format!("{}{HEAD}", limits()));
    let mut acknowledged = Vec::new();
    for number in 0..6 {
        let mut dice = Dice(seed + number);
        let steps = model::steps(&mut dice, STEPS, false, number * 1000);
        let session = model::play(&steps, false);
        let mut client = Client::connect(server.address());
        let sent = session.sent.iter().zip(&session.expected);
        for (number, (step, (sent, expected))) in steps.iter().zip(sent).enumerate() {
            check_step(&mut client, number + 1, step, sent, expected);
        }
        client.ask("QUIT", "221");
        acknowledged.extend(session.acknowledged.into_iter().map(|message| message.text));
    }
    let mut delivered: Vec<Vec<u8>> = server
        .delivered()
        .iter()
        .map(|file| std::fs::read(file).expect("it can be read"))
        .collect();
    // Our own header fields stand above.
    for text in &acknowledged {
        let at = delivered
            .iter()
            .position(|delivered| delivered.ends_with(text));
        let mut shown = String::new();
        write!(shown, "{}", text.escape_ascii()).expect("a text takes everything");
        delivered.swap_remove(at.unwrap_or_else(|| panic!("not delivered: {shown}")));
    }
    assert!(
        delivered.is_empty(),
        "nobody was told of {} messages",
        delivered.len()
    );
    assert!(server.spooled().is_empty());
}
