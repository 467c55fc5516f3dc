//! The password as it is: PLAIN (RFC 4616) and LOGIN (draft-murchison-sasl-login).

use super::question::{Identity, Question, Reply, Secret};
use super::{Awaited, Failure, Outcome, Pending, State, Step, challenge, misfit, name, prep, text};

/// Asks for the name. The draft says `User Name` with a NUL; clients look for this.
pub const NAME_PROMPT: &str = "Username:";
/// Asks for the password, likewise.
const PASSWORD_PROMPT: &str = "Password:";

/// PLAIN's only message: `[authzid] NUL authcid NUL passwd`.
pub fn plain(response: &[u8]) -> Outcome {
    let mut parts = text(response)?.split('\0');
    let (Some(authzid), Some(user), Some(password), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(Failure::Malformed("not three fields with NUL between"));
    };
    let authzid = match authzid {
        "" => None,
        authzid => Some(name(authzid)?),
    };
    check(Identity::new(name(user)?, authzid), password)
}

pub fn login_name(response: &[u8]) -> Outcome {
    let user = name(text(response)?)?;
    challenge(PASSWORD_PROMPT, State::LoginPassword(user))
}

pub fn login_password(user: String, response: &[u8]) -> Outcome {
    check(Identity::new(user, None), text(response)?)
}

fn check(identity: Identity, password: &str) -> Outcome {
    // A password that cannot be prepared, or of which nothing is left, is nobody's (RFC 4616 §2).
    let password =
        prep::prepare(password).ok_or(Failure::Malformed("a password that SASLprep forbids"))?;
    let question = Question::Password {
        identity: identity.clone(),
        password: Secret::new(password),
    };
    Ok(Step::Ask(question, Pending(Awaited::Verdict(identity))))
}

pub fn answered(identity: Identity, reply: Reply) -> Outcome {
    match reply {
        Reply::Accepted(known) => Ok(Step::Done(Identity::new(
            known.unwrap_or(identity.user),
            identity.authzid,
        ))),
        Reply::Refused => Err(Failure::Credentials),
        _ => misfit(),
    }
}
