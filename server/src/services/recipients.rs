//! Whether an address is one of ours, as the plugins say.

use std::sync::OnceLock;
use std::time::Duration;

use gatepost_protocol::{Address, BoxFuture, ServiceError, Validity};

use super::answers::Answers;

/// Asks the plugins that hook `recipient_valid`.
pub type RecipientHook =
    Box<dyn Fn(&Address) -> BoxFuture<'static, Result<Told, ServiceError>> + Send + Sync>;

/// What the plugins say of an address.
#[derive(Clone, Copy, Debug)]
pub struct Told {
    /// Whether it is ours.
    pub validity: Validity,
    /// How long that may be kept.
    pub keep: Duration,
}

/// Answers that are kept; somebody may be trying all names there are.
const KEPT: usize = 16_384;
/// How long an answer may take: more than a hook may, so that a plugin's own reason is seen first.
const PATIENCE: Duration = Duration::from_secs(45);

type Answer = Result<Validity, ServiceError>;

/// Who is asked, and what is known.
pub struct Recipients {
    hook: OnceLock<RecipientHook>,
    answers: Answers<Validity, ServiceError>,
}

impl Default for Recipients {
    fn default() -> Recipients {
        Recipients {
            hook: OnceLock::new(),
            answers: Answers::new(KEPT),
        }
    }
}

impl Recipients {
    /// From now on plugins are asked. Only the first call counts.
    pub fn ask(&self, hook: RecipientHook) {
        let _ = self.hook.set(hook);
    }

    /// Whether an address is ours; nobody knows where nobody is asked.
    pub fn valid(&self, address: &Address) -> BoxFuture<'static, Answer> {
        let Some(hook) = self.hook.get() else {
            return Box::pin(std::future::ready(Ok(Validity::Unknown)));
        };
        let ask = || answer(hook(address));
        self.answers
            .about(address.to_lowercase(), Validity::Unknown, ask)
    }
}

/// The answer in time, and how long it may be kept.
async fn answer(
    told: BoxFuture<'static, Result<Told, ServiceError>>,
) -> Result<(Validity, Duration), ServiceError> {
    let late = |_| {
        Err(ServiceError::temporary(format!(
            "no answer within {PATIENCE:?}"
        )))
    };
    let Told { validity, keep } = tokio::time::timeout(PATIENCE, told)
        .await
        .unwrap_or_else(late)?;
    Ok((validity, keep))
}

#[cfg(test)]
mod tests;
