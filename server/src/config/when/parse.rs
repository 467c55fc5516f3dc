//! The grammar of a condition:
//!
//! ```text
//! any        = all { "||" all }
//! all        = not { "&&" not }
//! not        = "!" not | "(" any ")" | comparison
//! comparison = name [ operator literal | "in" text ]
//! ```

use std::net::IpAddr;

use gatepost_protocol::Points;
use gatepost_protocol::settings::nearest;
use ipnet::IpNet;

use super::{Name, Node, NumberName, Order, TextName};

/// What went wrong, and at which byte.
type Wrong = (usize, String);

/// Parentheses and `!` within each other; reading and evaluating go as deep.
const MAX_DEPTH: usize = 50;

pub(super) fn parse(text: &str) -> Result<Node, Wrong> {
    let mut parser = Parser { text, at: 0 };
    let node = parser.any(0)?;
    match parser.rest() {
        "" => Ok(node),
        rest if rest.starts_with(')') => Err(parser.wrong("this `)` closes nothing")),
        rest if rest.starts_with(['&', '|', '=']) => {
            Err(parser.wrong("expected `&&`, `||` or a comparison with `==`"))
        }
        _ => Err(parser.wrong("expected `&&` or `||` before this")),
    }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
}

/// A value to compare with.
enum Literal<'a> {
    Text(&'a str),
    Number(i64),
}

impl<'a> Parser<'a> {
    fn wrong(&self, message: impl Into<String>) -> Wrong {
        (self.at, message.into())
    }

    /// What follows, behind white space.
    fn rest(&mut self) -> &'a str {
        let rest = &self.text[self.at..];
        let trimmed = rest.trim_start();
        self.at += rest.len() - trimmed.len();
        trimmed
    }

    fn take(&mut self, token: &str) -> bool {
        let found = self.rest().starts_with(token);
        if found {
            self.at += token.len();
        }
        found
    }

    fn any(&mut self, depth: usize) -> Result<Node, Wrong> {
        self.several("||", Node::Any, |parser| {
            parser.several("&&", Node::All, |parser| parser.not(depth))
        })
    }

    fn several(
        &mut self,
        operator: &str,
        join: fn(Vec<Node>) -> Node,
        operand: impl Fn(&mut Self) -> Result<Node, Wrong>,
    ) -> Result<Node, Wrong> {
        let first = operand(self)?;
        if !self.take(operator) {
            return Ok(first);
        }
        let mut nodes = vec![first, operand(self)?];
        while self.take(operator) {
            nodes.push(operand(self)?);
        }
        Ok(join(nodes))
    }

    fn not(&mut self, depth: usize) -> Result<Node, Wrong> {
        if depth > MAX_DEPTH {
            return Err(self.wrong("too many parentheses and `!` within each other"));
        }
        if self.take("!") {
            return Ok(Node::Not(Box::new(self.not(depth + 1)?)));
        }
        let open = self.at;
        if self.take("(") {
            let node = self.any(depth + 1)?;
            if !self.take(")") {
                return match self.rest() {
                    "" => Err((open, "this `(` is never closed".to_owned())),
                    _ => Err(self.wrong("expected `&&`, `||` or `)` before this")),
                };
            }
            return Ok(node);
        }
        self.comparison()
    }

    fn comparison(&mut self) -> Result<Node, Wrong> {
        let name = self.name()?;
        if self.take_word("in") {
            return self.network(name);
        }
        let Some(order) = Order::ALL.iter().find(|order| self.take(order.name())) else {
            return Ok(Node::Set(name));
        };
        match name {
            Name::RelayClient | Name::Tls | Name::EarlyTalker => {
                let name = name.name();
                let message =
                    format!("`{name}` is true or false by itself: write `{name}` or `!{name}`");
                Err((self.at - order.name().len(), message))
            }
            Name::RemoteIp => self.address(*order),
            Name::Text(name) => self.text(name, *order),
            Name::Number(name) => self.number(name, *order),
        }
    }

    fn word(&mut self) -> &'a str {
        let rest = self.rest();
        let end = rest
            .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
            .unwrap_or(rest.len());
        &rest[..end]
    }

    fn take_word(&mut self, word: &str) -> bool {
        self.word() == word && self.take(word)
    }

    fn name(&mut self) -> Result<Name, Wrong> {
        let word = self.word();
        if let Some(name) = Name::all().find(|name| name.name() == word) {
            self.at += word.len();
            return Ok(name);
        }
        if self.rest().is_empty() {
            return Err(self.wrong("a name is missing here, such as `direction`"));
        }
        if word.is_empty() || word.starts_with(|c: char| c.is_ascii_digit()) {
            return Err(self.wrong("expected a name, such as `direction`"));
        }
        let names = Name::all().map(Name::name);
        let hint = match nearest(word, names.clone()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("known here: {}", names.collect::<Vec<_>>().join(", ")),
        };
        Err(self.wrong(format!("unknown name `{word}`; {hint}")))
    }

    fn literal(&mut self) -> Result<Literal<'a>, Wrong> {
        let rest = self.rest();
        if let Some(quote) = rest.chars().next().filter(|c| matches!(c, '"' | '\'')) {
            let Some(end) = rest[1..].find(quote) else {
                return Err(self.wrong("this text is never closed"));
            };
            self.at += end + 2;
            return Ok(Literal::Text(&rest[1..=end]));
        }
        let sign = usize::from(rest.starts_with('-'));
        let digits = rest[sign..].bytes().take_while(u8::is_ascii_digit).count();
        match rest[..sign + digits].parse() {
            Ok(number) => {
                self.at += sign + digits;
                Ok(Literal::Number(number))
            }
            Err(_) if digits > 0 => Err(self.wrong("this number is too large")),
            Err(_) => Err(self.wrong("expected a text in quotes or a whole number")),
        }
    }

    /// A text literal for a name that is text.
    fn text_literal(&mut self, name: &str) -> Result<(usize, &'a str), Wrong> {
        self.rest();
        let start = self.at;
        match self.literal()? {
            Literal::Text(text) => Ok((start, text)),
            Literal::Number(_) => Err((start, format!("`{name}` is text: expected it in quotes"))),
        }
    }

    /// `==` or `!=`, for what has no order.
    fn equality(&self, name: &str, order: Order) -> Result<bool, Wrong> {
        match order {
            Order::Equal => Ok(true),
            Order::Unequal => Ok(false),
            other => Err((
                self.at - other.name().len(),
                format!("`{name}` is text: it compares with `==` and `!=` only"),
            )),
        }
    }

    fn text(&mut self, name: TextName, order: Order) -> Result<Node, Wrong> {
        let equal = self.equality(name.name(), order)?;
        let (start, text) = self.text_literal(name.name())?;
        let directions = ["inbound", "submission", "relay", "local"];
        if name == TextName::Direction && !directions.contains(&text) {
            let message = match nearest(text, directions.into_iter()) {
                Some(near) => format!("unknown direction \"{text}\"; did you mean \"{near}\"?"),
                None => {
                    format!(
                        "unknown direction \"{text}\"; known: {}",
                        directions.join(", ")
                    )
                }
            };
            return Err((start, message));
        }
        Ok(Node::Text(name, equal, text.to_owned()))
    }

    fn number(&mut self, name: NumberName, order: Order) -> Result<Node, Wrong> {
        let rest = self.rest();
        let start = self.at;
        if name.has_fractions() {
            let is_of_number = |byte: &u8| byte.is_ascii_digit() || matches!(byte, b'-' | b'.');
            let length = rest.bytes().take_while(is_of_number).count();
            if let Some(Points(number)) = Points::parse(&rest[..length]) {
                self.at += length;
                return Ok(Node::Number(name, order, number));
            }
            let message = "`score` is a number: expected one such as 5 or 7.5, without quotes";
            return Err((start, message.to_owned()));
        }
        match self.literal()? {
            Literal::Number(number) => Ok(Node::Number(name, order, number)),
            Literal::Text(_) => Err((
                start,
                format!("`{}` is a number: expected one without quotes", name.name()),
            )),
        }
    }

    fn address(&mut self, order: Order) -> Result<Node, Wrong> {
        let equal = self.equality("remote_ip", order)?;
        let (start, text) = self.text_literal("remote_ip")?;
        match text.parse::<IpAddr>() {
            Ok(address) => Ok(Node::Address(equal, address.to_canonical())),
            Err(_) if text.parse::<IpNet>().is_ok() => Err((
                start,
                format!("\"{text}\" is a network: write `remote_ip in \"{text}\"`"),
            )),
            Err(_) => Err((start, format!("\"{text}\" is no IP address"))),
        }
    }

    fn network(&mut self, name: Name) -> Result<Node, Wrong> {
        if name != Name::RemoteIp {
            let message = format!(
                "`in` is for `remote_ip`; compare `{}` with `==`",
                name.name()
            );
            return Err((self.at - "in".len(), message));
        }
        let (start, text) = self.text_literal("remote_ip")?;
        let network = text
            .parse::<IpNet>()
            .or_else(|_| text.parse::<IpAddr>().map(IpNet::from))
            .map_err(|_| {
                let message = format!(
                    "\"{text}\" is no network, such as \"192.0.2.0/24\" or \"2001:db8::/32\""
                );
                (start, message)
            })?;
        Ok(Node::Network(network))
    }
}
