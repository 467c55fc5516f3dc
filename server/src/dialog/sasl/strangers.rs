//! Users that do not exist. SCRAM must show a client a salt before it knows whether the client is anybody, and this must not tell who exists.

use std::sync::{LazyLock, OnceLock};

use super::question::ScramKeys;
use super::random;
use super::scram::{SALT, derive, sign};

/// How the secrets of real users look to a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// They come as passwords: keys are made while the client waits.
    Password,
    /// They come as keys.
    Keys { salt: usize, iterations: u32 },
}

impl Kind {
    pub fn of(keys: &ScramKeys) -> Kind {
        Kind::Keys {
            salt: keys.salt.len(),
            iterations: keys.iterations,
        }
    }
}

/// Makes strangers look like the first user whose secret was given. Where users' secrets are of several kinds, those of another than the
/// first can be told from strangers.
pub struct Strangers {
    key: [u8; 32],
    kind: OnceLock<Kind>,
}

impl Strangers {
    pub fn new() -> Strangers {
        Strangers {
            key: random(),
            kind: OnceLock::new(),
        }
    }

    /// Those of this process.
    pub fn of_process() -> &'static Strangers {
        static STRANGERS: LazyLock<Strangers> = LazyLock::new(Strangers::new);
        &STRANGERS
    }

    /// A real user's secret is of this kind.
    pub fn saw(&self, kind: Kind) {
        self.kind.get_or_init(|| kind);
    }

    /// A salt that a user keeps for as long as the process runs.
    pub fn salt(&self, user: &str, length: usize) -> Vec<u8> {
        let block = |number: u32| {
            sign(
                &self.key,
                &[&number.to_be_bytes(), user.as_bytes()].concat(),
            )
        };
        (0..).flat_map(block).take(length).collect()
    }

    /// Keys that no password fits, made with as much work as real ones.
    pub fn keys(&self, user: &str) -> ScramKeys {
        match *self.kind.get().unwrap_or(&Kind::Password) {
            Kind::Password => derive(&random::<32>(), self.salt(user, SALT)),
            Kind::Keys { salt, iterations } => ScramKeys {
                salt: self.salt(user, salt),
                iterations,
                stored_key: random(),
                server_key: random(),
            },
        }
    }
}
