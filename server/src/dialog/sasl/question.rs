//! What a mechanism asks, and what it may be told.

use std::fmt;

/// A password or token. Never printed.
#[derive(Clone)]
pub struct Secret(String);

impl Secret {
    /// Hides a text.
    pub fn new(text: impl Into<String>) -> Secret {
        Secret(text.into())
    }

    /// The text itself, for whoever checks it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

/// Who a client is, or says it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Whose credentials these are (authentication identity).
    pub user: String,
    /// Whom they want to act as (authorization identity), if that is somebody else. To be refused unless a plugin allows it.
    pub authzid: Option<String>,
}

impl Identity {
    pub(super) fn new(user: String, authzid: Option<String>) -> Identity {
        let authzid = authzid.filter(|authzid| *authzid != user);
        Identity { user, authzid }
    }
}

/// What a mechanism must know to go on. Names and passwords are as SASLprep leaves them (RFC 4013, without its rule for right-to-left text).
#[derive(Clone, Debug)]
pub enum Question {
    /// Is this their password? Answers: [`Reply::Accepted`], [`Reply::Refused`].
    Password {
        /// Who they say they are.
        identity: Identity,
        /// What they gave.
        password: Secret,
    },
    /// What is their secret? Answers: [`Reply::Password`], [`Reply::ScramKeys`], [`Reply::Refused`].
    Secret {
        /// Who they say they are.
        identity: Identity,
    },
    /// The same for CRAM-MD5, where whoever is asked may compare by itself. Answers: [`Reply::Password`], [`Reply::Accepted`], [`Reply::Refused`].
    Digest {
        /// Who they say they are.
        identity: Identity,
        /// What we sent.
        challenge: String,
        /// HMAC-MD5 of it, keyed with the password, as they say.
        digest: [u8; 16],
    },
    /// Is this bearer token good, and whose is it? Answers: [`Reply::Accepted`], [`Reply::Refused`].
    Token {
        /// Who they say they are; OAUTHBEARER lets them leave it to the token.
        user: Option<String>,
        /// What they gave (RFC 6750 §2.1).
        token: Secret,
    },
}

/// The answer to a question.
#[derive(Clone, Debug)]
pub enum Reply {
    /// The password or token is good. The name is whose it is, where whoever answered knows better than the client told.
    Accepted(Option<String>),
    /// It is not, or there is no such user.
    Refused,
    /// The user's password, as it is.
    Password(Secret),
    /// What SCRAM-SHA-256 keeps instead of a password.
    ScramKeys(ScramKeys),
    /// Nobody could tell, for now.
    Unavailable,
}

/// What a server keeps of a password for SCRAM-SHA-256 (RFC 5802 §3).
#[derive(Clone)]
pub struct ScramKeys {
    /// 1 to 1024 bytes.
    pub salt: Vec<u8>,
    /// 4096 (RFC 7677 §4) to 1,000,000.
    pub iterations: u32,
    /// The hash of the client's key, to check the client by.
    pub stored_key: [u8; 32],
    /// Shows the client that we know its password.
    pub server_key: [u8; 32],
}

// Whoever has these can play the server, and try passwords.
impl fmt::Debug for ScramKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}
