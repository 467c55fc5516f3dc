//! Whether an address is one of ours, as the plugins say.

use std::sync::{Arc, PoisonError, RwLock};
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
#[derive(Default)]
pub struct Recipients(RwLock<Option<Arc<Asked>>>);

struct Asked {
    hook: RecipientHook,
    answers: Answers<Validity, ServiceError>,
}

impl Recipients {
    /// From now on these plugins are asked, or nobody; what others said is forgotten.
    pub fn ask(&self, hook: Option<RecipientHook>) {
        let asked = hook.map(|hook| {
            Arc::new(Asked {
                hook,
                answers: Answers::new(KEPT),
            })
        });
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = asked;
    }

    fn asked(&self) -> Option<Arc<Asked>> {
        let asked = self.0.read().unwrap_or_else(PoisonError::into_inner);
        asked.clone()
    }

    /// Whether an address is ours; nobody knows where nobody is asked.
    pub fn valid(&self, address: &Address) -> BoxFuture<'static, Answer> {
        let Some(asked) = self.asked() else {
            return Box::pin(std::future::ready(Ok(Validity::Unknown)));
        };
        let ask = || answer((asked.hook)(address));
        asked
            .answers
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
