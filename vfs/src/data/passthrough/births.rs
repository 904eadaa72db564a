//! Whether a new file is likely to stay small, by what became of the last ones made beside it.

use crate::limits::{BIRTH_DIRS_MAX, SMALL_FILE_BYTES};
use lru::LruCache;
use parking_lot::Mutex;
use std::num::NonZeroUsize;

/// The end of the name of SQLite's write-ahead log. It lives as long as its database is open and has an fsync for each commit, while
/// the rollback journal made before it, small and soon gone, speaks for small files.
const GROWS: &[u8] = b"-wal";

/// What became of new files, by directory and over all.
pub(crate) struct Births(Mutex<Seen>);

struct Seen {
    dirs: LruCache<u64, bool>,
    last_was_small: bool,
}

impl Births {
    pub(crate) fn new() -> Births {
        let dirs = NonZeroUsize::new(BIRTH_DIRS_MAX).expect("the limit is not zero");
        Births(Mutex::new(Seen {
            dirs: LruCache::new(dirs),
            last_was_small: false,
        }))
    }

    /// A file made in `dir` was closed with this size.
    pub(crate) fn grew_to(&self, dir: u64, bytes: u64) {
        let mut seen = self.0.lock();
        let small = bytes <= SMALL_FILE_BYTES;
        seen.dirs.put(dir, small);
        seen.last_was_small = small;
    }

    /// A new file in `dir` is likely to be small: the last one was, or, in a directory without one, the last of all. What is known to
    /// grow is not.
    pub(crate) fn likely_small(&self, dir: u64, name: &[u8]) -> bool {
        if name.ends_with(GROWS) {
            return false;
        }
        let mut seen = self.0.lock();
        let last = seen.last_was_small;
        seen.dirs.get(&dir).copied().unwrap_or(last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_one_tells() {
        let births = Births::new();
        let small = |dir| births.likely_small(dir, b"photo");
        assert!(!small(7), "nothing is known");
        births.grew_to(7, 4096);
        assert!(small(7) && small(8));
        assert!(!births.likely_small(7, b"a.db-wal") && births.likely_small(7, b"a.db-journal"));
        births.grew_to(9, 1 << 30);
        assert!(small(7) && !small(8) && !small(9));
    }
}
