//! MAIL and RCPT as they go to the next server: with the parameters that our client gave, as far as that server offers their extension.
//!
//! `AUTH=` is not passed on: a server that we do not log in to believes none (RFC 4954 §5).

use gatepost_protocol::{Address, Parameters, Transaction};

use super::smtp_client::Failure;

/// What a server offers in its answer to EHLO.
#[derive(Default)]
pub struct Offers {
    /// RFC 2920.
    pub pipelining: bool,
    /// RFC 6152.
    pub eight_bit: bool,
    /// RFC 3030 §2.
    pub chunking: bool,
    /// RFC 3030 §3.
    pub binary: bool,
    /// RFC 1870; with the limit, where it names one.
    pub size: Option<Option<u64>>,
    /// RFC 6531.
    pub smtputf8: bool,
    /// RFC 3461.
    pub dsn: bool,
}

impl Offers {
    /// Takes in a line of the answer.
    pub fn read(&mut self, line: &str) {
        let mut words = line.split_whitespace();
        let keyword = words.next().unwrap_or_default();
        match keyword.to_ascii_uppercase().as_str() {
            "PIPELINING" => self.pipelining = true,
            "8BITMIME" => self.eight_bit = true,
            "CHUNKING" => self.chunking = true,
            "BINARYMIME" => self.binary = true,
            "SIZE" => self.size = Some(words.next().and_then(|limit| limit.parse().ok())),
            "SMTPUTF8" => self.smtputf8 = true,
            "DSN" => self.dsn = true,
            _ => {}
        }
    }
}

/// MAIL or RCPT.
#[derive(Debug, PartialEq, Eq)]
pub struct Command {
    /// With its path: how it is called in replies and logs.
    pub name: String,
    /// Each with a space in front.
    pub parameters: String,
}

/// Whether there is any server that the message could go to.
pub fn check(transaction: &Transaction) -> Result<(), Failure> {
    let parameters = &transaction.sender_parameters;
    if parameters.contains_key("REQUIRETLS") {
        return Err(Failure::NeedsTls);
    }
    Ok(())
}

/// MAIL first, then RCPT for each recipient. `size` is the message's, in bytes.
pub fn commands(
    transaction: &Transaction,
    offers: &Offers,
    size: u64,
) -> Result<Vec<Command>, Failure> {
    let null = Address::null();
    let sender = transaction.sender.as_ref().unwrap_or(&null);
    let utf8 = smtputf8(sender, transaction, offers)?;
    let given = &transaction.sender_parameters;
    let mut mail = Command {
        name: format!("MAIL FROM:{sender}"),
        parameters: String::new(),
    };
    if offers.size.is_some() {
        mail.add("SIZE", Some(&size.to_string()));
    }
    match value(given, "BODY") {
        Some(body) if body.eq_ignore_ascii_case("8BITMIME") && offers.eight_bit => {
            mail.add("BODY", Some("8BITMIME"));
        }
        Some(body) if body.eq_ignore_ascii_case("BINARYMIME") => {
            mail.add("BODY", Some("BINARYMIME"));
        }
        _ => {}
    }
    if utf8 {
        mail.add("SMTPUTF8", None);
    }
    if offers.dsn {
        mail.pass(given, "RET", utf8);
        mail.pass(given, "ENVID", utf8);
    }
    let mut commands = vec![mail];
    for (at, recipient) in transaction.recipients.iter().enumerate() {
        let mut rcpt = Command {
            name: format!("RCPT TO:{recipient}"),
            parameters: String::new(),
        };
        if offers.dsn {
            rcpt.pass(transaction.parameters_of(at), "NOTIFY", utf8);
            rcpt.pass(transaction.parameters_of(at), "ORCPT", utf8);
        }
        commands.push(rcpt);
    }
    Ok(commands)
}

/// Whether MAIL says SMTPUTF8. A message that was announced with it and needs it nowhere may go without (RFC 6531 §3.2).
fn smtputf8(sender: &Address, transaction: &Transaction, offers: &Offers) -> Result<bool, Failure> {
    let mut addresses = std::iter::once(sender).chain(&transaction.recipients);
    let address = addresses.find(|address| address.needs_smtputf8());
    if offers.smtputf8 {
        return Ok(address.is_some() || transaction.is_smtputf8());
    }
    if let Some(address) = address {
        return Err(Failure::NeedsUtf8(Some(address.clone())));
    }
    let header = transaction.header.as_ref();
    if transaction.is_smtputf8() && header.is_some_and(|header| !header.to_bytes().is_ascii()) {
        return Err(Failure::NeedsUtf8(None));
    }
    Ok(false)
}

fn value<'a>(parameters: &'a Parameters, keyword: &str) -> Option<&'a str> {
    parameters.get(keyword)?.as_deref()
}

impl Command {
    fn add(&mut self, keyword: &str, value: Option<&str>) {
        self.parameters.extend([" ", keyword]);
        if let Some(value) = value {
            self.parameters.extend(["=", value]);
        }
    }

    /// Passes on what our client gave. Without SMTPUTF8 an ORCPT outside ASCII is written in ASCII (RFC 6533 §3).
    fn pass(&mut self, given: &Parameters, keyword: &str, utf8: bool) {
        if let Some(value) = value(given, keyword) {
            let ascii = |c: char| match c.is_ascii() || utf8 {
                true => c.to_string(),
                false => format!("\\x{{{:X}}}", u32::from(c)),
            };
            let value: String = value.chars().map(ascii).collect();
            self.add(keyword, Some(&value));
        }
    }
}
