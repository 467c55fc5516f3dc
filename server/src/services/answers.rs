//! Answers about addresses that plugins have to be asked for: asked for once for all who want to know, and kept for a while.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{Shared, WeakShared};
use gatepost_protocol::BoxFuture;
use gatepost_protocol::settings::parse_duration;
use tokio::time::Instant;

use super::question::Question;
use super::recent::Recent;

/// How long a yes is kept.
const KEEP_YES: Duration = Duration::from_secs(300);
/// How long it is kept that there is nothing.
const KEEP_NO: Duration = Duration::from_secs(60);
/// The longest that a plugin may ask for.
const KEEP_MOST: Duration = Duration::from_secs(3600);

/// How long an answer is kept: as a plugin says in `values` (docs/protocol.md §5.4), else by whether it is a yes.
pub fn kept_for(values: &[String], is_yes: bool) -> Duration {
    let said = values.first().and_then(|text| parse_duration(text));
    let usual = if is_yes { KEEP_YES } else { KEEP_NO };
    said.map_or(usual, |said| said.min(KEEP_MOST))
}

/// How many questions may lead to one another.
pub(super) const DEEPEST: usize = 8;

type Asking<T, E> = Shared<BoxFuture<'static, Result<T, E>>>;
type WeakAsking<T, E> = WeakShared<BoxFuture<'static, Result<T, E>>>;

/// What is known about addresses, and what is being asked about them.
pub struct Answers<T, E>(Arc<State<T, E>>);

struct State<T, E> {
    known: Mutex<Recent<(T, Instant)>>,
    asked: Mutex<Asked<T, E>>,
}

/// Questions on their way, by name.
struct Asked<T, E> {
    next: u64,
    by_name: HashMap<String, (u64, WeakAsking<T, E>)>,
}

impl<T, E> Answers<T, E>
where
    T: Clone + Send + Sync + 'static,
    E: Clone + Send + Sync + 'static,
{
    /// Keeps so many answers.
    pub fn new(kept: usize) -> Answers<T, E> {
        Answers(Arc::new(State {
            known: Mutex::new(Recent::new(kept)),
            asked: Mutex::new(Asked {
                next: 0,
                by_name: HashMap::new(),
            }),
        }))
    }

    /// The answer to the question called `name`: the one that is kept, or what `ask` brings, which says too for how long it may be kept. Who asks in a
    /// circle, or too deep within other questions, gets `in_circle` at once.
    pub fn about<F>(
        &self,
        name: String,
        in_circle: T,
        ask: impl FnOnce() -> F,
    ) -> BoxFuture<'static, Result<T, E>>
    where
        F: Future<Output = Result<(T, Duration), E>> + Send + 'static,
    {
        if let Some(answer) = self.known(&name) {
            return now(answer);
        }
        let Some(within) = Question::at_hand() else {
            return self.ask_for_all(name, ask).boxed();
        };
        if within.names().any(|asked| asked == name) || within.names().count() >= DEEPEST {
            return now(in_circle);
        }
        // Not shared: who already asks about this one may be waiting for us. Not kept: in a circle the answer is another one.
        let asked = Question::answered(Question::new(name, Some(within)), ask());
        Box::pin(async move { asked.await.map(|(answer, _)| answer) })
    }

    fn known(&self, name: &str) -> Option<T> {
        let mut known = lock(&self.0.known);
        let (answer, until) = known.get(name)?;
        if until > Instant::now() {
            return Some(answer);
        }
        known.remove(name);
        None
    }

    /// Joins who asks already, or asks. Who leaves may leave, as long as one goes on waiting.
    fn ask_for_all<F>(&self, name: String, ask: impl FnOnce() -> F) -> Asking<T, E>
    where
        F: Future<Output = Result<(T, Duration), E>> + Send + 'static,
    {
        let mut asked = lock(&self.0.asked);
        let on_its_way = asked.by_name.get(&name);
        if let Some(asking) = on_its_way.and_then(|(_, asking)| asking.upgrade()) {
            return asking;
        }
        asked.next += 1;
        let number = asked.next;
        let answer = Question::answered(Question::new(name.clone(), None), ask());
        let place = Place {
            state: self.0.clone(),
            name: name.clone(),
            number,
        };
        let answer = async move {
            let (answer, keep) = answer.await?;
            if !keep.is_zero() {
                let kept = (answer.clone(), Instant::now() + keep);
                lock(&place.state.known).insert(place.name.clone(), kept);
            }
            Ok(answer)
        };
        let asking = answer.boxed().shared();
        if let Some(weak) = asking.downgrade() {
            asked.by_name.insert(name, (number, weak));
        }
        asking
    }

    #[cfg(test)]
    pub(super) fn on_their_way(&self) -> usize {
        lock(&self.0.asked).by_name.len()
    }
}

/// A place among the questions on their way, given up when there is an answer, or nobody waits for one.
struct Place<T, E> {
    state: Arc<State<T, E>>,
    name: String,
    number: u64,
}

impl<T, E> Drop for Place<T, E> {
    fn drop(&mut self) {
        let mut asked = lock(&self.state.asked);
        // Another may have begun anew after the last one left.
        if asked
            .by_name
            .get(&self.name)
            .is_some_and(|(number, _)| *number == self.number)
        {
            asked.by_name.remove(&self.name);
        }
    }
}

fn now<T: Send + 'static, E: Send + 'static>(answer: T) -> BoxFuture<'static, Result<T, E>> {
    Box::pin(std::future::ready(Ok(answer)))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
