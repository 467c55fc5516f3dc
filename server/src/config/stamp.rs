//! Whether a file has changed.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::time::{SystemTime, UNIX_EPOCH};

/// A file that changed so many seconds ago, or later, may change again without any sign of it: some file systems keep
/// whole seconds only.
const SETTLED_AFTER: i64 = 2;

/// What tells one state of a file from another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stamp {
    file: (u64, u64),
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    /// The state that a file is in.
    pub fn of(metadata: &Metadata) -> Stamp {
        Stamp {
            file: (metadata.dev(), metadata.ino()),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// Whether a further change would show: not for two seconds after the last.
    pub fn is_settled(&self) -> bool {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |now| i64::try_from(now.as_secs()).unwrap_or(i64::MAX));
        self.modified.0.max(self.changed.0) < now.saturating_sub(SETTLED_AFTER)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_settles_with_time() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut stamp = Stamp::of(&std::fs::metadata(file.path()).unwrap());
        assert!(!stamp.is_settled());
        stamp.modified.0 -= SETTLED_AFTER + 1;
        stamp.changed.0 -= SETTLED_AFTER + 1;
        assert!(stamp.is_settled());
    }
}
