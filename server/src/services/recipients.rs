//! Whether an address is one of ours: asked of the plugins once for all who want to know, and kept for a while.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{Shared, WeakShared};
use gatepost_protocol::{Address, BoxFuture, ServiceError, Validity};
use tokio::time::Instant;

use super::question::Question;

/// Asks the plugins that hook `recipient_valid`.
pub type RecipientHook =
    Box<dyn Fn(&Address) -> BoxFuture<'static, Result<Told, ServiceError>> + Send + Sync>;

/// What the plugins say of an address.
#[derive(Clone, Copy, Debug)]
pub struct Told {
    /// Whether it is ours.
    pub validity: Validity,
    /// How long that may be kept, where the plugin says so.
    pub keep: Option<Duration>,
}

/// How long a recipient is known: who is removed gets mail for so long.
const KEEP_VALID: Duration = Duration::from_secs(300);
/// How long it is known that there is none: who is new gets no mail for so long.
const KEEP_OTHERS: Duration = Duration::from_secs(60);
/// The longest that a plugin may ask for.
const KEEP_MOST: Duration = Duration::from_secs(3600);
/// Answers that are kept; somebody may be trying all names there are.
const KEPT: usize = 16_384;
/// How long an answer may take: more than a hook may, so that a plugin's own reason is seen first.
const PATIENCE: Duration = Duration::from_secs(45);
/// How many questions may lead to one another.
const DEEPEST: usize = 8;

type Answer = Result<Validity, ServiceError>;
type Asking = Shared<BoxFuture<'static, Answer>>;

/// Who is asked, what is known, and what is being asked.
#[derive(Default)]
pub struct Recipients(Arc<State>);

#[derive(Default)]
struct State {
    hook: OnceLock<RecipientHook>,
    known: Mutex<Known>,
    asked: Mutex<Asked>,
}

/// Questions on their way, by address.
#[derive(Default)]
struct Asked {
    next: u64,
    by_address: HashMap<String, (u64, WeakShared<BoxFuture<'static, Answer>>)>,
}

impl Recipients {
    /// From now on plugins are asked. Only the first call counts.
    pub fn ask(&self, hook: RecipientHook) {
        let _ = self.0.hook.set(hook);
    }

    /// Whether an address is ours; nobody knows where nobody is asked.
    pub fn valid(&self, address: &Address) -> BoxFuture<'static, Answer> {
        let Some(hook) = self.0.hook.get() else {
            return now(Validity::Unknown);
        };
        let name = address.to_lowercase();
        if let Some(validity) = lock(&self.0.known).get(&name) {
            return now(validity);
        }
        let Some(within) = Question::at_hand() else {
            return self.0.ask_for_all(hook, address, name).boxed();
        };
        if within.addresses().any(|asked| asked == name) || within.addresses().count() >= DEEPEST {
            return now(Validity::Unknown);
        }
        // Not shared: who already asks about this one may be waiting for us. Not kept: in a circle the answer is another one.
        let asked = ask(hook, address, Question::new(name, Some(within)));
        Box::pin(async move { asked.await.map(|told| told.validity) })
    }
}

impl State {
    /// Joins who asks about an address already, or asks. Who leaves may leave, as long as one goes on waiting.
    fn ask_for_all(
        self: &Arc<State>,
        hook: &RecipientHook,
        address: &Address,
        name: String,
    ) -> Asking {
        let mut asked = lock(&self.asked);
        let on_its_way = asked.by_address.get(&name);
        if let Some(asking) = on_its_way.and_then(|(_, asking)| asking.upgrade()) {
            return asking;
        }
        asked.next += 1;
        let number = asked.next;
        let answer = ask(hook, address, Question::new(name.clone(), None));
        let place = Place {
            state: self.clone(),
            name: name.clone(),
            number,
        };
        let answer = async move {
            let told = answer.await?;
            lock(&place.state.known).put(&place.name, told);
            Ok(told.validity)
        };
        let asking = answer.boxed().shared();
        if let Some(weak) = asking.downgrade() {
            asked.by_address.insert(name, (number, weak));
        }
        asking
    }
}

/// A place among the questions on their way, given up when there is an answer, or nobody waits for one.
struct Place {
    state: Arc<State>,
    name: String,
    number: u64,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut asked = lock(&self.state.asked);
        // Another may have begun anew after the last one left.
        if asked
            .by_address
            .get(&self.name)
            .is_some_and(|(number, _)| *number == self.number)
        {
            asked.by_address.remove(&self.name);
        }
    }
}

fn ask(
    hook: &RecipientHook,
    address: &Address,
    question: Arc<Question>,
) -> impl Future<Output = Result<Told, ServiceError>> + Send + use<> {
    let told = Question::answered(question, hook(address));
    async move {
        let late = |_| {
            Err(ServiceError::temporary(format!(
                "no answer within {PATIENCE:?}"
            )))
        };
        tokio::time::timeout(PATIENCE, told)
            .await
            .unwrap_or_else(late)
    }
}

fn now(validity: Validity) -> BoxFuture<'static, Answer> {
    Box::pin(std::future::ready(Ok(validity)))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Answers, by address. What was not wanted for the longest time goes first, half of all at once.
#[derive(Default)]
struct Known {
    recent: HashMap<String, (Validity, Instant)>,
    older: HashMap<String, (Validity, Instant)>,
}

impl Known {
    fn get(&mut self, name: &str) -> Option<Validity> {
        let now = Instant::now();
        let fresh = |(_, until): &&(Validity, Instant)| *until > now;
        if let Some((validity, _)) = self.recent.get(name).filter(fresh) {
            return Some(*validity);
        }
        let (validity, until) = self.older.remove(name).filter(|(_, until)| *until > now)?;
        self.insert(name, validity, until);
        Some(validity)
    }

    fn put(&mut self, name: &str, told: Told) {
        let usual = match told.validity {
            Validity::Valid => KEEP_VALID,
            Validity::Invalid | Validity::Unknown => KEEP_OTHERS,
        };
        let keep = told.keep.map_or(usual, |keep| keep.min(KEEP_MOST));
        if !keep.is_zero() {
            self.insert(name, told.validity, Instant::now() + keep);
        }
    }

    fn insert(&mut self, name: &str, validity: Validity, until: Instant) {
        if self.recent.len() >= KEPT / 2 {
            self.older = std::mem::take(&mut self.recent);
        }
        self.recent.insert(name.to_owned(), (validity, until));
    }
}

#[cfg(test)]
mod tests;
