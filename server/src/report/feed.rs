//! Lines of the log on their way to those who follow it: the hook `log` of plugins (docs/protocol.md §5.8).

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak};

use gatepost_protocol::{Hook, Level};
use tokio::sync::Notify;

use super::Limit;
use super::line::Line;

/// Bytes that may wait for one who follows; what comes then is dropped, and counted.
const MAX_WAITING: usize = 1 << 20;
/// What a line weighs besides its texts.
const FRAME: usize = 100;

static FEEDS: RwLock<Vec<Weak<Feed>>> = RwLock::new(Vec::new());
/// Whether anybody ever followed: without that a line costs one look at this.
static IS_FOLLOWED: AtomicBool = AtomicBool::new(false);

/// Who of those that follow is told of a line.
#[derive(Clone, Copy)]
pub enum Audience<'a> {
    /// Everybody.
    All,
    /// Everybody else.
    But(&'a Feed),
    /// Nobody.
    Nobody,
}

/// A line of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// How grave it is.
    pub level: Level,
    /// Empty where there is none.
    pub session: Box<str>,
    /// Where it was said.
    pub hook: Option<Hook>,
    /// Whose it is; `None`: the core's.
    pub plugin: Option<Box<str>>,
    /// What it says. One of the core's begins with its room.
    pub message: String,
}

/// The lines that wait for one who follows.
#[derive(Default)]
pub struct Feed {
    waiting: Mutex<Waiting>,
    came: Notify,
}

#[derive(Default)]
struct Waiting {
    lines: VecDeque<Entry>,
    weight: usize,
    dropped: u64,
}

/// Follows the log from here on, for as long as the feed is held.
pub fn follow() -> Arc<Feed> {
    let feed = Arc::new(Feed::default());
    let mut feeds = FEEDS.write().unwrap_or_else(PoisonError::into_inner);
    feeds.retain(|feed| feed.strong_count() > 0);
    feeds.push(Arc::downgrade(&feed));
    IS_FOLLOWED.store(true, Ordering::Relaxed);
    feed
}

/// Hands a line to those who follow.
pub(super) fn tell(line: &Line<'_>, audience: Audience<'_>) {
    if !IS_FOLLOWED.load(Ordering::Relaxed) || matches!(audience, Audience::Nobody) {
        return;
    }
    let feeds = FEEDS.read().unwrap_or_else(PoisonError::into_inner);
    let feeds = feeds.iter().filter_map(Weak::upgrade);
    let is_told = |feed: &Arc<Feed>| match audience {
        Audience::But(other) => !std::ptr::eq(&**feed, other),
        _ => true,
    };
    let mut message = None;
    for feed in feeds.filter(is_told) {
        let message = message.get_or_insert_with(|| line.message());
        feed.push(Entry {
            level: line.level,
            session: line.session.into(),
            hook: line.hook,
            plugin: line.is_plugin.then(|| line.plugin.into()),
            message: message.clone(),
        });
    }
}

impl Feed {
    fn push(&self, entry: Entry) {
        let mut waiting = self.lock();
        let weight = entry.weight();
        if waiting.weight + weight > MAX_WAITING {
            waiting.dropped += 1;
            super::count(Limit::PluginEvents);
            return;
        }
        waiting.weight += weight;
        waiting.lines.push_back(entry);
        drop(waiting);
        self.came.notify_one();
    }

    /// All that is there, in order, and how many lines were dropped since the last time.
    pub fn take(&self) -> (VecDeque<Entry>, u64) {
        let mut waiting = self.lock();
        waiting.weight = 0;
        let lines = std::mem::take(&mut waiting.lines);
        (lines, std::mem::take(&mut waiting.dropped))
    }

    /// Waits until something has come since the last time. For one who waits.
    pub async fn came(&self) {
        self.came.notified().await;
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // A line is added whole or not at all, whatever a thread died of.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    fn weight(&self) -> usize {
        let plugin = self.plugin.as_deref().unwrap_or_default();
        FRAME + self.message.len() + self.session.len() + plugin.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line<'a>(plugin: &'a str, is_plugin: bool, text: std::fmt::Arguments<'a>) -> Line<'a> {
        Line {
            level: Level::Notice,
            session: "3f9a1c",
            hook: Some(Hook::Rcpt),
            plugin,
            is_plugin,
            disposition: None,
            text,
        }
    }

    fn messages(feed: &Feed) -> Vec<String> {
        let (lines, _) = feed.take();
        lines.into_iter().map(|entry| entry.message).collect()
    }

    #[test]
    fn who_follows_is_told_in_order_and_who_said_it_may_be_left_out() {
        let (one, two) = (follow(), follow());
        for number in 0..3 {
            let text = format_args!("{number}\n");
            tell(&line("vip", true, text), Audience::All);
        }
        let text = format_args!("full");
        tell(&line("listen", false, text), Audience::But(&one));
        let text = format_args!("to nobody");
        tell(&line("vip", true, text), Audience::Nobody);
        assert_eq!(messages(&one), ["0?", "1?", "2?"]);
        let (mut lines, dropped) = two.take();
        assert_eq!(dropped, 0);
        let last = lines.pop_back();
        assert_eq!(
            last,
            Some(Entry {
                level: Level::Notice,
                session: "3f9a1c".into(),
                hook: Some(Hook::Rcpt),
                plugin: None,
                message: "listen: full".to_owned(),
            })
        );
        assert_eq!(lines.len(), 3);
        assert_eq!(lines[0].plugin.as_deref(), Some("vip"));
    }

    #[test]
    fn a_full_feed_drops_and_counts() {
        let feed = Feed::default();
        let entry = |message: String| Entry {
            level: Level::Info,
            session: "".into(),
            hook: None,
            plugin: None,
            message,
        };
        let sent = 3 * MAX_WAITING / 1024;
        for _ in 0..sent {
            feed.push(entry("x".repeat(1024)));
        }
        let (lines, dropped) = feed.take();
        assert!(lines.len() * (1024 + FRAME) <= MAX_WAITING);
        assert_eq!(lines.len() as u64 + dropped, sent as u64);
        assert!(dropped > 0);
        feed.push(entry("again".to_owned()));
        assert_eq!(messages(&feed), ["again"]);
    }
}
