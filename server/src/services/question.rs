//! Which questions about addresses the running task works at. A plugin that is asked about an address may ask about others, such as what an
//! alias stands for; that it asks in a circle shows here.

use std::sync::Arc;

tokio::task_local! {
    static AT_HAND: Option<Arc<Question>>;
}

/// A question about an address, and the one that led to it.
#[derive(Debug)]
pub struct Question {
    /// Tells it from all others: what is asked, and the address in lower case.
    name: String,
    within: Option<Arc<Question>>,
}

impl Question {
    /// A question asked by who works at `within`.
    pub(super) fn new(name: String, within: Option<Arc<Question>>) -> Arc<Question> {
        Arc::new(Question { name, within })
    }

    /// What the running task works at.
    pub fn at_hand() -> Option<Arc<Question>> {
        AT_HAND.try_with(Clone::clone).ok().flatten()
    }

    /// Works at `question`.
    pub(super) async fn answered<T>(question: Arc<Question>, work: impl Future<Output = T>) -> T {
        AT_HAND.scope(Some(question), work).await
    }

    /// Does something as who works at `question`.
    pub fn during<T>(question: Option<Arc<Question>>, work: impl FnOnce() -> T) -> T {
        AT_HAND.sync_scope(question, work)
    }

    /// The names, from the question itself to the one that led to all others.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        let first = Some(self);
        std::iter::successors(first, |question| question.within.as_deref())
            .map(|question| &*question.name)
    }
}
