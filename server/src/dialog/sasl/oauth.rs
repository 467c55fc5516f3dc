//! Bearer tokens: OAUTHBEARER (RFC 7628) and its forerunner XOAUTH2, which Google made and Microsoft speaks.

use super::gs2::{self, Binding};
use super::question::{Identity, Question, Reply, Secret};
use super::{Awaited, Failure, Outcome, Pending, State, Step, challenge, misfit, name, text};

/// Ends a field, and once more the message (RFC 7628 §3.1).
const SEPARATOR: char = '\x01';

/// One of the two.
#[derive(Clone, Copy, Debug)]
pub enum Dialect {
    Oauthbearer,
    Xoauth2,
}

impl Dialect {
    /// What a client is told whose token is no good (RFC 7628 §3.2.2). Where to get a better one is not ours to know.
    fn refusal(self) -> &'static str {
        match self {
            Dialect::Oauthbearer => r#"{"status":"invalid_token"}"#,
            Dialect::Xoauth2 => r#"{"status":"401","schemes":"bearer"}"#,
        }
    }

    fn refuse(self) -> Outcome {
        challenge(self.refusal(), State::BearerRefused)
    }
}

/// A client's only message: `gs2-header ^A auth=Bearer token ^A ^A`, or in XOAUTH2 `user=name ^A auth=Bearer token ^A ^A`. Other fields, as
/// `host` and `port`, are ignored.
pub fn bearer(dialect: Dialect, response: &[u8]) -> Outcome {
    let message = text(response)?;
    let (user, fields) = match dialect {
        Dialect::Oauthbearer => {
            let (header, rest) = gs2::split(message)?;
            // RFC 7628 §3 has no channel binding.
            if let Binding::By(_) = header.binding {
                return Err(Failure::ChannelBinding("not with OAUTHBEARER"));
            }
            let malformed = Failure::Malformed("no ^A behind the GS2 header");
            let fields = rest.strip_prefix(SEPARATOR).ok_or(malformed)?;
            (header.authzid, Fields::parse(fields)?)
        }
        Dialect::Xoauth2 => {
            let fields = Fields::parse(message)?;
            let user = fields.user.ok_or(Failure::Malformed("no `user=`"))?;
            (Some(name(user)?), fields)
        }
    };
    let Some((scheme, token)) = fields.auth.unwrap_or_default().split_once(' ') else {
        // Sent to hear what is wanted.
        return dialect.refuse();
    };
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(Failure::Malformed("not a bearer token"));
    }
    let token = token.trim_matches(' ');
    if token.is_empty() {
        return dialect.refuse();
    }
    if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(Failure::Malformed("a token that is not printable"));
    }
    let question = Question::Token {
        user: user.clone(),
        token: Secret::new(token),
    };
    let claim = Claim { dialect, user };
    Ok(Step::Ask(question, Pending(Awaited::Token(claim))))
}

/// The fields that matter.
#[derive(Default)]
struct Fields<'a> {
    user: Option<&'a str>,
    auth: Option<&'a str>,
}

impl Fields<'_> {
    fn parse(text: &str) -> Result<Fields<'_>, Failure> {
        let malformed = Failure::Malformed("not `name=value` with ^A behind each, and one more");
        let mut fields = Fields::default();
        let mut rest = text;
        while rest != "\x01" {
            let (field, behind) = rest.split_once(SEPARATOR).ok_or(malformed)?;
            let (name, value) = field.split_once('=').ok_or(malformed)?;
            let known = match name {
                "user" => &mut fields.user,
                "auth" => &mut fields.auth,
                _ => &mut None,
            };
            if known.replace(value).is_some() {
                return Err(Failure::Malformed("a field that comes twice"));
            }
            rest = behind;
        }
        Ok(fields)
    }
}

/// What the client wants to be let in by.
pub struct Claim {
    dialect: Dialect,
    user: Option<String>,
}

impl Claim {
    pub fn answered(self, reply: Reply) -> Outcome {
        match reply {
            Reply::Accepted(owner) => match (owner, self.user) {
                (Some(owner), claimed) => Ok(Step::Done(Identity::new(owner, claimed))),
                (None, Some(claimed)) => Ok(Step::Done(Identity::new(claimed, None))),
                (None, None) => Err(Failure::Unavailable(
                    "the token was accepted, and nobody told whose it is",
                )),
            },
            Reply::Refused => self.dialect.refuse(),
            _ => misfit(),
        }
    }
}
