//! Whether a new file is likely to stay small, by what became of the last ones made beside it.

use crate::limits::{BIRTH_DIRS_MAX, SMALL_FILE_BYTES};
use lru::LruCache;
use parking_lot::Mutex;
use std::num::NonZeroUsize;

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

    /// The next file made in `dir` is likely to be small: the last one was, or, in a directory without one, the last of all.
    pub(crate) fn likely_small(&self, dir: u64) -> bool {
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
        assert!(!births.likely_small(7), "nothing is known");
        births.grew_to(7, 4096);
        assert!(births.likely_small(7) && births.likely_small(8));
        births.grew_to(9, 1 << 30);
        assert!(births.likely_small(7) && !births.likely_small(8) && !births.likely_small(9));
    }
}
