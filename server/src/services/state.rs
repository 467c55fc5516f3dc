//! The state store: keys to bytes, for a time or for ever, shared by all workers of all plugins.
//!
//! With the feature `sqlite` it is a file and outlives the daemon; without, it is memory. The file is opened at the first call, so a site
//! whose plugins keep no state never has one.

#[cfg(any(test, not(feature = "sqlite")))]
mod memory;
#[cfg(feature = "sqlite")]
mod sqlite;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use gatepost_protocol::ServiceError;
use gatepost_protocol::services::ServiceErrorCode;
use tokio::sync::Mutex;

#[cfg(not(feature = "sqlite"))]
use memory::Memory as Opened;
#[cfg(feature = "sqlite")]
use sqlite::Sqlite as Opened;

/// The longest key, in bytes.
pub const MAX_KEY: usize = 1024;
/// The largest value, in bytes.
pub const MAX_VALUE: usize = 1024 * 1024;
/// Writes between two sweeps of what has expired.
const WRITES_PER_SWEEP: u64 = 1000;

/// An opened store. Its calls block; times are milliseconds since 1970.
trait Store: Sized {
    fn open(path: &std::path::Path) -> Result<Self, ServiceError>;
    fn get(&mut self, key: &str, now: i64) -> Result<Option<Vec<u8>>, ServiceError>;
    fn set(&mut self, key: &str, value: &[u8], expiry: Option<i64>) -> Result<(), ServiceError>;
    /// Adds to a counter, which begins at 0. The expiry counts where the counter begins: a window is not stretched by what falls into it. One that is later than what is given now began
    /// under a clock that was ahead, and would hold too long.
    fn add(
        &mut self,
        key: &str,
        add: i64,
        now: i64,
        expiry: Option<i64>,
    ) -> Result<i64, ServiceError>;
    fn delete(&mut self, key: &str) -> Result<(), ServiceError>;
    /// Forgets what has expired.
    fn sweep(&mut self, now: i64) -> Result<(), ServiceError>;
}

/// The store behind one lock: waiting for it costs no thread, working with it is done off the async threads.
pub struct State {
    path: PathBuf,
    shared: Arc<Mutex<Option<Shared>>>,
}

struct Shared {
    store: Opened,
    writes: u64,
}

impl State {
    pub fn new(path: PathBuf) -> State {
        State {
            path,
            shared: Arc::default(),
        }
    }

    pub async fn get(&self, key: String) -> Result<Option<Vec<u8>>, ServiceError> {
        check_key(&key)?;
        self.with(move |shared, now| shared.store.get(&key, now))
            .await
    }

    pub async fn set(
        &self,
        key: String,
        value: Vec<u8>,
        ttl: Option<Duration>,
    ) -> Result<(), ServiceError> {
        check_key(&key)?;
        if value.len() > MAX_VALUE {
            return Err(bad(format!(
                "state: the value of `{key}` has {} bytes; at most {MAX_VALUE} are kept",
                value.len()
            )));
        }
        self.write(move |store, now| store.set(&key, &value, expiry(now, ttl)))
            .await
    }

    pub async fn add(
        &self,
        key: String,
        add: i64,
        ttl: Option<Duration>,
    ) -> Result<i64, ServiceError> {
        check_key(&key)?;
        self.write(move |store, now| store.add(&key, add, now, expiry(now, ttl)))
            .await
    }

    pub async fn delete(&self, key: String) -> Result<(), ServiceError> {
        check_key(&key)?;
        self.with(move |shared, _| shared.store.delete(&key)).await
    }

    async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Opened, i64) -> Result<T, ServiceError> + Send + 'static,
    ) -> Result<T, ServiceError> {
        self.with(move |shared, now| {
            shared.writes += 1;
            if shared.writes.is_multiple_of(WRITES_PER_SWEEP) {
                shared.store.sweep(now)?;
            }
            work(&mut shared.store, now)
        })
        .await
    }

    async fn with<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Shared, i64) -> Result<T, ServiceError> + Send + 'static,
    ) -> Result<T, ServiceError> {
        let path = self.path.clone();
        let mut slot = Arc::clone(&self.shared).lock_owned().await;
        let done = tokio::task::spawn_blocking(move || {
            let shared = match &mut *slot {
                Some(shared) => shared,
                none => none.insert(Shared {
                    store: Opened::open(&path)?,
                    writes: 0,
                }),
            };
            work(shared, now())
        });
        done.await
            .unwrap_or_else(|error| Err(ServiceError::temporary(format!("state: {error}"))))
    }
}

fn bad(message: String) -> ServiceError {
    ServiceError::new(ServiceErrorCode::BadParams, message)
}

fn check_key(key: &str) -> Result<(), ServiceError> {
    if key.is_empty() || key.len() > MAX_KEY {
        return Err(bad(format!(
            "state: a key has 1 to {MAX_KEY} bytes, this one {}",
            key.len()
        )));
    }
    Ok(())
}

fn not_a_counter(key: &str) -> ServiceError {
    bad(format!("state: `{key}` holds no number to add to"))
}

/// Reads what [`Store::add`] wrote: a counter is kept as its decimal digits, which `state/get` shows as they are.
fn counter(key: &str, value: &[u8]) -> Result<i64, ServiceError> {
    let text = std::str::from_utf8(value).ok();
    text.and_then(|text| text.parse().ok())
        .ok_or_else(|| not_a_counter(key))
}

/// When a counter's window ends that began with one expiry and is given another.
fn sooner(begun: Option<i64>, given: Option<i64>) -> Option<i64> {
    begun.map(|begun| given.map_or(begun, |given| begun.min(given)))
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    milliseconds(since.unwrap_or_default())
}

fn milliseconds(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

fn expiry(now: i64, ttl: Option<Duration>) -> Option<i64> {
    ttl.map(|ttl| now.saturating_add(milliseconds(ttl)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What holds for every kind of store. Time is a number, so that nothing has to be waited for.
    fn behaves(mut store: impl Store) {
        assert_eq!(store.get("k", 0).unwrap(), None);
        store.set("k", b"\0bytes\xff", None).unwrap();
        assert_eq!(
            store.get("k", i64::MAX - 1).unwrap().unwrap(),
            b"\0bytes\xff"
        );
        store.set("k", b"short", Some(100)).unwrap();
        assert_eq!(store.get("k", 99).unwrap().unwrap(), b"short");
        assert_eq!(store.get("k", 100).unwrap(), None);

        assert_eq!(store.add("n", 2, 0, Some(100)).unwrap(), 2);
        assert_eq!(store.add("n", 3, 50, Some(150)).unwrap(), 5);
        assert_eq!(store.get("n", 60).unwrap().unwrap(), b"5");
        assert_eq!(
            store.add("n", -1, 100, None).unwrap(),
            -1,
            "the window is over"
        );
        assert_eq!(
            store.add("n", i64::MIN, 100, None).unwrap(),
            i64::MIN,
            "no wrap around"
        );

        assert_eq!(store.add("ahead", 1, 9000, Some(9100)).unwrap(), 1);
        assert_eq!(store.add("ahead", 1, 0, Some(100)).unwrap(), 2);
        assert_eq!(store.get("ahead", 100).unwrap(), None, "set back");

        store.set("text", b"no number", None).unwrap();
        let error = store.add("text", 1, 0, None).unwrap_err();
        assert_eq!(error.code, ServiceErrorCode::BadParams);

        store.set("old", b"x", Some(10)).unwrap();
        store.set("young", b"x", Some(1000)).unwrap();
        store.sweep(500).unwrap();
        assert_eq!(store.get("old", 0).unwrap(), None, "swept");
        assert!(store.get("young", 0).unwrap().is_some());
        store.delete("young").unwrap();
        assert_eq!(store.get("young", 0).unwrap(), None);
    }

    #[test]
    fn memory() {
        behaves(memory::Memory::open("unused".as_ref()).unwrap());
    }

    #[cfg(feature = "sqlite")]
    #[test]
    fn sqlite() {
        let dir = tempfile::tempdir().unwrap();
        behaves(sqlite::Sqlite::open(&dir.path().join("state")).unwrap());
    }

    #[tokio::test]
    async fn counters_lose_no_addition() {
        let dir = tempfile::tempdir().unwrap();
        let state = Arc::new(State::new(dir.path().join("state")));
        let adding: Vec<_> = (0..50)
            .map(|_| {
                let state = Arc::clone(&state);
                tokio::spawn(async move { state.add("n".into(), 1, None).await.unwrap() })
            })
            .collect();
        let mut sums = Vec::new();
        for sum in adding {
            sums.push(sum.await.unwrap());
        }
        sums.sort_unstable();
        assert_eq!(sums, (1..=50).collect::<Vec<i64>>());
    }

    #[tokio::test]
    async fn limits() {
        let dir = tempfile::tempdir().unwrap();
        let state = State::new(dir.path().join("state"));
        for key in [String::new(), "k".repeat(MAX_KEY + 1)] {
            let error = state.get(key).await.unwrap_err();
            assert_eq!(error.code, ServiceErrorCode::BadParams);
        }
        let most = vec![b'x'; MAX_VALUE];
        let key = "k".repeat(MAX_KEY);
        state.set(key.clone(), most.clone(), None).await.unwrap();
        assert_eq!(state.get(key.clone()).await.unwrap(), Some(most));
        let error = state
            .set(key, vec![b'x'; MAX_VALUE + 1], None)
            .await
            .unwrap_err();
        assert_eq!(error.code, ServiceErrorCode::BadParams);
    }

    #[cfg(feature = "sqlite")]
    #[tokio::test]
    async fn the_file_outlives_the_store_and_its_absence_is_no_disaster() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("missing/state");
        let state = State::new(path.clone());
        let error = state
            .set("k".into(), b"v".to_vec(), None)
            .await
            .unwrap_err();
        assert_eq!(error.code, ServiceErrorCode::Temporary);
        assert!(error.message.contains("missing/state"), "{error}");
        std::fs::create_dir(dir.path().join("missing")).unwrap();
        state.set("k".into(), b"v".to_vec(), None).await.unwrap();
        drop(state);
        let again = State::new(path);
        assert_eq!(again.get("k".into()).await.unwrap(), Some(b"v".to_vec()));
    }
}
