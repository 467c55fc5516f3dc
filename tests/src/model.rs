//! A reference model of SMTP's state machine (RFC 5321 §3.3, §4.1.4; RFC 3030 for chunks, RFC 4954 for AUTH, RFC 2033 for LMTP), and random sessions to hold a server
//! against. The model knows nothing of the server: a step is a command with what belongs to it, and the model says which replies are right, and what has been
//! acknowledged once they came.

use crate::processes::Dice;

/// Recipients of a transaction, at most.
pub const MAX_RECIPIENTS: usize = 4;
/// Bytes of a message, at most.
pub const MAX_SIZE: usize = 2000;
/// The name and password of the one user, as PLAIN has them.
pub const GOOD_LOGIN: &str = "AHRpbQBzZXNhbWU=";
const WRONG_LOGIN: &str = "AHRpbQBvcGVu";

/// What a client does.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// EHLO, HELO or LHLO.
    Hello(&'static str),
    /// With parameters.
    Mail(&'static str),
    /// A local part: `good…` is taken, `bad` refused for good, `later` for now.
    Rcpt(&'static str),
    /// DATA and, where that is allowed, a message.
    Data(Message),
    /// So much of a message, from here to there, and whether that is the end of it.
    Bdat(Vec<u8>, bool),
    /// AUTH PLAIN, with the right password or another.
    Auth(bool),
    /// RSET.
    Rset,
    /// NOOP.
    Noop,
    /// VRFY of somebody.
    Vrfy,
    /// HELP.
    Help,
    /// A command that nobody has.
    Unknown,
    /// A line that ends in a CR and a NUL before its CRLF.
    Garbage,
}

/// A message: the lines of its body, and whether a plugin refuses it at the end.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    id: u64,
    lines: &'static str,
    is_unwanted: bool,
}

/// What the model expects of a step: one reply after the other, each with one of these codes.
pub type Replies = Vec<&'static [u16]>;

/// A message that was acknowledged.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Acknowledged {
    /// Its bytes, without the dots that were doubled.
    pub text: Vec<u8>,
    /// Who is to get it.
    pub recipients: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Greeted {
    No,
    /// By HELO: nothing was offered.
    Plainly,
    WithExtensions,
}

#[derive(Debug)]
struct Transaction {
    parameters: &'static str,
    recipients: Vec<String>,
    /// What came by BDAT.
    chunks: Option<Vec<u8>>,
}

impl Transaction {
    fn is_binary(&self) -> bool {
        self.parameters.contains("BINARYMIME")
    }
}

/// The state of a session.
#[derive(Debug)]
pub struct Model {
    is_lmtp: bool,
    greeted: Greeted,
    authenticated: bool,
    transaction: Option<Transaction>,
    /// A chunk was refused, and so will those behind it; so many replies the last of them gets.
    refused: Option<usize>,
    acknowledged: Vec<Acknowledged>,
}

/// A session: what the client sends, and the replies to each step.
#[derive(Debug, Default)]
pub struct Session {
    /// The bytes of each step.
    pub sent: Vec<Vec<u8>>,
    /// The replies to each step.
    pub expected: Vec<Replies>,
    /// In the order of their acknowledgements.
    pub acknowledged: Vec<Acknowledged>,
}

/// Plays steps through the model.
pub fn play(steps: &[Step], is_lmtp: bool) -> Session {
    let mut model = Model {
        is_lmtp,
        greeted: Greeted::No,
        authenticated: false,
        transaction: None,
        refused: None,
        acknowledged: Vec::new(),
    };
    let mut session = Session::default();
    for step in steps {
        let (sent, expected) = model.take(step);
        session.sent.push(sent);
        session.expected.push(expected);
    }
    session.acknowledged = model.acknowledged;
    session
}

impl Model {
    /// What is sent for a step, and what comes back.
    fn take(&mut self, step: &Step) -> (Vec<u8>, Replies) {
        let line = |text: &str| format!("{text}\r\n").into_bytes();
        match step {
            Step::Hello(verb) => {
                let reply: &[u16] = match (*verb == "LHLO") == self.is_lmtp {
                    true => {
                        // §4.1.4: it may come again, and is a RSET then.
                        (self.transaction, self.refused) = (None, None);
                        self.greeted = match *verb {
                            "HELO" => Greeted::Plainly,
                            _ => Greeted::WithExtensions,
                        };
                        &[250]
                    }
                    false => &[500],
                };
                (line(&format!("{verb} client.example")), vec![reply])
            }
            Step::Mail(parameters) => {
                let sent = line(&format!("MAIL FROM:<alice@client.example>{parameters}"));
                (sent, vec![self.mail(parameters)])
            }
            Step::Rcpt(local) => (
                line(&format!("RCPT TO:<{local}@example.org>")),
                vec![self.rcpt(local)],
            ),
            Step::Data(message) => self.data(message),
            Step::Bdat(chunk, is_last) => {
                let last = if *is_last { " LAST" } else { "" };
                let mut sent = line(&format!("BDAT {}{last}", chunk.len()));
                sent.extend_from_slice(chunk);
                (sent, self.bdat(chunk, *is_last))
            }
            Step::Auth(is_right) => {
                let login = if *is_right { GOOD_LOGIN } else { WRONG_LOGIN };
                (
                    line(&format!("AUTH PLAIN {login}")),
                    vec![self.auth(*is_right)],
                )
            }
            Step::Rset => {
                (self.transaction, self.refused) = (None, None);
                (line("RSET"), vec![&[250]])
            }
            // These bear on nothing (§4.1.1.5 to .9).
            Step::Noop => (line("NOOP x"), vec![&[250]]),
            Step::Vrfy => (line("VRFY bob"), vec![&[250, 251, 252, 550, 551, 553]]),
            Step::Help => (line("HELP"), vec![&[211, 214]]),
            Step::Unknown => (line("XYZZY"), vec![&[500, 502]]),
            Step::Garbage => (line("NOOP\r\0"), vec![&[500, 501]]),
        }
    }

    /// §3.3: a transaction is begun once, behind a greeting; parameters are those of what was offered.
    fn mail(&mut self, parameters: &'static str) -> &'static [u16] {
        if self.greeted == Greeted::No || self.transaction.is_some() {
            return &[503];
        }
        let with_extensions = self.greeted == Greeted::WithExtensions;
        match parameters {
            " SIZE=99999" => return &[552],
            " BODY=BINARYMIME" | " SMTPUTF8" if !with_extensions => return &[501, 504, 555],
            " FLAVOUR=sweet" => return &[501, 504, 555],
            " BODY=8BIT" => return &[501],
            _ => {}
        }
        self.refused = None;
        self.transaction = Some(Transaction {
            parameters,
            recipients: Vec::new(),
            chunks: None,
        });
        &[250]
    }

    fn rcpt(&mut self, local: &str) -> &'static [u16] {
        match &mut self.transaction {
            None => &[503],
            // RFC 3030 §2.
            Some(transaction) if transaction.chunks.is_some() => &[503],
            // §4.5.3.1.10.
            Some(transaction) if transaction.recipients.len() == MAX_RECIPIENTS => &[452],
            Some(_) if local == "bad" => &[550],
            Some(_) if local == "later" => &[450],
            Some(transaction) => {
                transaction.recipients.push(format!("{local}@example.org"));
                &[250]
            }
        }
    }

    fn data(&mut self, message: &Message) -> (Vec<u8>, Replies) {
        let mut sent = b"DATA\r\n".to_vec();
        let fits =
            |transaction: &Transaction| transaction.chunks.is_none() && !transaction.is_binary();
        let refusal: &[u16] = match &self.transaction {
            None => &[503],
            Some(transaction) if transaction.recipients.is_empty() => &[503, 554],
            Some(transaction) if !fits(transaction) => &[503],
            Some(_) => {
                let text = message.text();
                sent.extend_from_slice(&with_dots(&text));
                let mut replies: Replies = vec![&[354]];
                replies.extend(self.end(text, message.is_unwanted));
                return (sent, replies);
            }
        };
        (sent, vec![refusal])
    }

    /// RFC 3030 §2: what is refused is read all the same, and those chunks that follow are refused with it.
    fn bdat(&mut self, chunk: &[u8], is_last: bool) -> Replies {
        let refusals = |times: usize| -> Replies { vec![&[503]; times] };
        if let Some(times) = self.refused {
            if !is_last {
                return refusals(1);
            }
            self.refused = None;
            return refusals(times);
        }
        let Some(transaction) = &mut self.transaction else {
            self.refused = (!is_last).then_some(if self.is_lmtp { 0 } else { 1 });
            return refusals(1);
        };
        let recipients = transaction.recipients.len();
        let each = if self.is_lmtp { recipients } else { 1 };
        if recipients == 0 {
            self.transaction = None;
            self.refused = (!is_last).then_some(each);
            return refusals(if is_last { each } else { 1 });
        }
        let is_binary = transaction.is_binary();
        let text = transaction.chunks.get_or_insert_default();
        text.extend_from_slice(chunk);
        let fault = fault(text, is_binary, is_last);
        if !is_last {
            let Some(reply) = fault else {
                return vec![&[250]];
            };
            self.transaction = None;
            self.refused = Some(each);
            return vec![reply];
        }
        let text = std::mem::take(text);
        if let Some(reply) = fault {
            self.transaction = None;
            return vec![reply; each];
        }
        let is_unwanted = text.windows(UNWANTED.len()).any(|part| part == UNWANTED);
        self.end(text, is_unwanted)
    }

    /// The replies to a whole message: one, or in LMTP one for each recipient (RFC 2033 §4.2).
    fn end(&mut self, text: Vec<u8>, is_unwanted: bool) -> Replies {
        let transaction = self.transaction.take().expect("there is a message");
        let recipients = transaction.recipients;
        let times = if self.is_lmtp { recipients.len() } else { 1 };
        let reply: &[u16] = match is_unwanted {
            true => &[552],
            false => {
                self.acknowledged.push(Acknowledged { text, recipients });
                &[250]
            }
        };
        vec![reply; times]
    }

    /// RFC 4954 §3, §4.
    fn auth(&mut self, is_right: bool) -> &'static [u16] {
        let is_out_of_place = self.greeted != Greeted::WithExtensions
            || self.authenticated
            || self.transaction.is_some();
        match is_right {
            _ if is_out_of_place => &[503],
            true => {
                self.authenticated = true;
                &[235]
            }
            false => &[535],
        }
    }
}

/// What is wrong with a message that came by BDAT so far: its size, or a CR or LF that stands alone (§2.3.8), which may be in the body of a binary one.
fn fault(text: &[u8], is_binary: bool, is_last: bool) -> Option<&'static [u16]> {
    let is_empty_line = |at: usize| {
        let ends_before = at == 0 || text[at - 1] == b'\n';
        ends_before && (text[at..].starts_with(b"\n") || text[at..].starts_with(b"\r\n"))
    };
    let held = match is_binary {
        false => text,
        true => match (0..text.len()).find(|at| is_empty_line(*at)) {
            Some(end) => &text[..end],
            None if is_last => text,
            None => b"",
        },
    };
    // The other half may come with the next chunk.
    let held = match is_last {
        true => held,
        false => held.strip_suffix(b"\r").unwrap_or(held),
    };
    let pairs = held.windows(2).filter(|pair| pair == b"\r\n").count();
    let is_bare = [b'\r', b'\n']
        .iter()
        .any(|end| held.iter().filter(|byte| *byte == end).count() != pairs);
    match (text.len() > MAX_SIZE, is_bare) {
        (true, true) => Some(&[552, 554]),
        (true, false) => Some(&[552]),
        (false, true) => Some(&[554]),
        (false, false) => None,
    }
}

/// In a message that a plugin refuses.
pub const UNWANTED: &[u8] = b"X-Unwanted: yes";

impl Message {
    /// As it is before dots are doubled.
    pub fn text(&self) -> Vec<u8> {
        let unwanted = if self.is_unwanted {
            "X-Unwanted: yes\r\n"
        } else {
            ""
        };
        let (id, lines) = (self.id, self.lines);
        format!("X-Id: {id};\r\n{unwanted}\r\n{lines}").into_bytes()
    }
}

/// As it goes over the wire (§4.5.2), with its end.
fn with_dots(text: &[u8]) -> Vec<u8> {
    let mut sent = Vec::new();
    for line in text.split_inclusive(|byte| *byte == b'\n') {
        if line.first() == Some(&b'.') {
            sent.push(b'.');
        }
        sent.extend_from_slice(line);
    }
    sent.extend_from_slice(b".\r\n");
    sent
}

const LINES: &[&str] = &[
    "",
    "hello\r\n",
    ".\r\n..\r\n.hello\r\n",
    "QUIT\r\nRSET\r\nMAIL FROM:<eve@client.example>\r\n",
    "BDAT 5 LAST\r\n.\r\n\r\n",
];

fn one<T: Copy>(dice: &mut Dice, all: &[T]) -> T {
    all[dice.below(all.len() as u64) as usize]
}

/// Steps at random: transactions, in which something may be missing, twice or out of place, and commands by themselves. `first` numbers the messages.
pub fn steps(dice: &mut Dice, number: usize, is_lmtp: bool, first: u64) -> Vec<Step> {
    let mut steps = Vec::with_capacity(number);
    while steps.len() < number {
        let message = Message {
            id: first + steps.len() as u64,
            lines: one(dice, LINES),
            is_unwanted: dice.below(6) == 0,
        };
        if dice.below(3) > 0 {
            steps.push(single(dice, is_lmtp, &message));
            continue;
        }
        if dice.below(2) == 0 {
            steps.push(Step::Hello(if is_lmtp { "LHLO" } else { "EHLO" }));
        }
        steps.push(Step::Mail(one(
            dice,
            &["", " BODY=8BITMIME", " BODY=BINARYMIME", " SMTPUTF8"],
        )));
        for _ in 0..=dice.below(MAX_RECIPIENTS as u64 + 1) {
            steps.push(Step::Rcpt(one(dice, RECIPIENTS)));
            if dice.below(10) == 0 {
                steps.push(single(dice, is_lmtp, &message));
            }
        }
        match dice.below(2) {
            0 => steps.push(Step::Data(message)),
            _ => chunks(dice, &message, &mut steps),
        }
    }
    steps.truncate(number);
    steps
}

const RECIPIENTS: &[&str] = &["good", "good2", "good3", "bad", "later"];

const PARAMETERS: &[&str] = &[
    "",
    "",
    " SIZE=100",
    " BODY=8BITMIME",
    " BODY=BINARYMIME",
    " SMTPUTF8",
    " SIZE=99999",
    " FLAVOUR=sweet",
    " BODY=8BIT",
];

/// A command by itself.
fn single(dice: &mut Dice, is_lmtp: bool, message: &Message) -> Step {
    let hellos = match is_lmtp {
        true => ["LHLO", "LHLO", "EHLO"],
        false => ["EHLO", "HELO", "LHLO"],
    };
    match dice.below(14) {
        0 | 1 => Step::Hello(one(dice, &hellos)),
        2 | 3 => Step::Mail(one(dice, PARAMETERS)),
        4 | 5 => Step::Rcpt(one(dice, RECIPIENTS)),
        6 => Step::Data(message.clone()),
        7 => Step::Bdat(b"X: y\r\n".to_vec(), dice.below(2) == 0),
        8 => Step::Auth(dice.below(3) > 0),
        9 => Step::Rset,
        10 => Step::Noop,
        11 => Step::Vrfy,
        12 => Step::Garbage,
        _ if dice.below(2) == 0 => Step::Help,
        _ => Step::Unknown,
    }
}

/// A message in chunks, sometimes without its end, or with something in between; sometimes too big.
fn chunks(dice: &mut Dice, message: &Message, steps: &mut Vec<Step>) {
    let mut text = message.text();
    if dice.below(8) == 0 {
        text.extend_from_slice("0123456789abcdef\r\n".repeat(MAX_SIZE / 16).as_bytes());
    }
    while dice.below(3) > 0 {
        let cut = dice.below(text.len() as u64 + 1) as usize;
        let rest = text.split_off(cut);
        steps.push(Step::Bdat(std::mem::replace(&mut text, rest), false));
        match dice.below(12) {
            0 => steps.push(Step::Noop),
            1 => steps.push(Step::Rcpt("good")),
            2 => steps.push(Step::Data(message.clone())),
            3 => steps.push(Step::Mail("")),
            _ => {}
        }
    }
    if dice.below(6) > 0 {
        steps.push(Step::Bdat(text, true));
    }
}
