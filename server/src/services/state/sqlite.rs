//! The state store in a SQLite file.
//!
//! Write-ahead log with `synchronous = NORMAL`: a crash of the daemon loses nothing, a power failure at most the last writes, and never the
//! file. That is right for counters and lists that plugins can earn again, and saves a sync for each of them.

use std::path::Path;
use std::time::Duration;

use gatepost_protocol::ServiceError;
use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};

use super::{Store, counter, sooner};

/// How long to wait for another process that has the file, such as the daemon we are replacing.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS state (key TEXT PRIMARY KEY, value BLOB NOT NULL, expiry INTEGER) WITHOUT ROWID;
    CREATE INDEX IF NOT EXISTS state_expiry ON state (expiry) WHERE expiry IS NOT NULL;
";

/// The opened file.
pub struct Sqlite(Connection);

fn failed(error: rusqlite::Error) -> ServiceError {
    ServiceError::temporary(format!("state: {error}"))
}

fn write(
    connection: &Connection,
    key: &str,
    value: &[u8],
    expiry: Option<i64>,
) -> rusqlite::Result<()> {
    connection
        .prepare_cached("INSERT OR REPLACE INTO state (key, value, expiry) VALUES (?1, ?2, ?3)")?
        .execute(params![key, value, expiry])?;
    Ok(())
}

fn read(
    connection: &Connection,
    key: &str,
    now: i64,
) -> rusqlite::Result<Option<(Vec<u8>, Option<i64>)>> {
    connection
        .prepare_cached(
            "SELECT value, expiry FROM state WHERE key = ?1 AND (expiry IS NULL OR expiry > ?2)",
        )?
        .query_row(params![key, now], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()
}

impl Store for Sqlite {
    fn open(path: &Path) -> Result<Sqlite, ServiceError> {
        let open = || -> rusqlite::Result<Connection> {
            let connection = Connection::open(path)?;
            connection.busy_timeout(BUSY_TIMEOUT)?;
            connection.pragma_update(None, "journal_mode", "WAL")?;
            connection.pragma_update(None, "synchronous", "NORMAL")?;
            connection.execute_batch(SCHEMA)?;
            Ok(connection)
        };
        open().map(Sqlite).map_err(|error| {
            ServiceError::temporary(format!("state: cannot open {}: {error}", path.display()))
        })
    }

    fn get(&mut self, key: &str, now: i64) -> Result<Option<Vec<u8>>, ServiceError> {
        let found = read(&self.0, key, now).map_err(failed)?;
        Ok(found.map(|(value, _)| value))
    }

    fn set(&mut self, key: &str, value: &[u8], expiry: Option<i64>) -> Result<(), ServiceError> {
        write(&self.0, key, value, expiry).map_err(failed)
    }

    fn add(
        &mut self,
        key: &str,
        add: i64,
        now: i64,
        expiry: Option<i64>,
    ) -> Result<i64, ServiceError> {
        // Immediate: the lock is taken before the read, so no other process adds in between.
        let transaction = self
            .0
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(failed)?;
        let (old, expiry) = match read(&transaction, key, now).map_err(failed)? {
            Some((value, begun)) => (counter(key, &value)?, sooner(begun, expiry)),
            None => (0, expiry),
        };
        let sum = old.saturating_add(add);
        write(&transaction, key, sum.to_string().as_bytes(), expiry).map_err(failed)?;
        transaction.commit().map_err(failed)?;
        Ok(sum)
    }

    fn delete(&mut self, key: &str) -> Result<(), ServiceError> {
        let done = self.0.execute("DELETE FROM state WHERE key = ?1", [key]);
        done.map(drop).map_err(failed)
    }

    fn sweep(&mut self, now: i64) -> Result<(), ServiceError> {
        let done = self
            .0
            .execute("DELETE FROM state WHERE expiry <= ?1", [now]);
        done.map(drop).map_err(failed)
    }
}
