//! The state store in memory, for a daemon built without SQLite. It begins empty at every start.

use std::collections::HashMap;
use std::path::Path;

use gatepost_protocol::ServiceError;

use super::{Store, counter, sooner};

/// Keys to values with their expiry.
#[derive(Default)]
pub struct Memory(HashMap<String, (Vec<u8>, Option<i64>)>);

fn lives(expiry: Option<i64>, now: i64) -> bool {
    expiry.is_none_or(|expiry| expiry > now)
}

impl Store for Memory {
    fn open(_path: &Path) -> Result<Memory, ServiceError> {
        Ok(Memory::default())
    }

    fn get(&mut self, key: &str, now: i64) -> Result<Option<Vec<u8>>, ServiceError> {
        let found = self.0.get(key).filter(|(_, expiry)| lives(*expiry, now));
        Ok(found.map(|(value, _)| value.clone()))
    }

    fn set(&mut self, key: &str, value: &[u8], expiry: Option<i64>) -> Result<(), ServiceError> {
        self.0.insert(key.to_owned(), (value.to_vec(), expiry));
        Ok(())
    }

    fn add(
        &mut self,
        key: &str,
        add: i64,
        now: i64,
        expiry: Option<i64>,
    ) -> Result<i64, ServiceError> {
        let found = self.0.get(key).filter(|(_, expiry)| lives(*expiry, now));
        let (old, expiry) = match found {
            Some((value, begun)) => (counter(key, value)?, sooner(*begun, expiry)),
            None => (0, expiry),
        };
        let sum = old.saturating_add(add);
        self.set(key, sum.to_string().as_bytes(), expiry)?;
        Ok(sum)
    }

    fn delete(&mut self, key: &str) -> Result<(), ServiceError> {
        self.0.remove(key);
        Ok(())
    }

    fn sweep(&mut self, now: i64) -> Result<(), ServiceError> {
        self.0.retain(|_, (_, expiry)| lives(*expiry, now));
        Ok(())
    }
}
