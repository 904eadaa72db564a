//! Where directories lie: a memory of names seen on the way down, for whoever needs the way up.
//!
//! A directory's record knows its parent but not its own name. The kernel looks every directory up before it works in it, so
//! the names of those in use are seen; they are kept here, bounded, and kept true by whoever renames or removes. What was
//! forgotten is simply not known.

use crate::inode::ROOT_INO;
use crate::limits::{PLACES_MAX, TRASH_PATH_BYTES_MAX};
use lru::LruCache;
use parking_lot::Mutex;
use std::num::NonZeroUsize;

/// Parents and names of directories.
pub(crate) struct Places(Mutex<LruCache<u64, Place>>);

struct Place {
    parent: u64,
    name: Box<[u8]>,
}

impl Places {
    pub(crate) fn new() -> Places {
        let bound = NonZeroUsize::new(PLACES_MAX).expect("the limit is not zero");
        Places(Mutex::new(LruCache::new(bound)))
    }

    /// Directory `ino` is called `name` in `parent`, from now on.
    pub(crate) fn note(&self, ino: u64, parent: u64, name: &[u8]) {
        let place = Place {
            parent,
            name: name.into(),
        };
        self.0.lock().put(ino, place);
    }

    /// The directory is no more.
    pub(crate) fn forget(&self, ino: u64) {
        self.0.lock().pop(&ino);
    }

    /// The path of a directory from the root, with a slash before each name; empty for the root. `None` where part of it is
    /// not known, or it is longer than [`TRASH_PATH_BYTES_MAX`].
    pub(crate) fn path(&self, ino: u64) -> Option<Vec<u8>> {
        let mut places = self.0.lock();
        let (mut names, mut bytes, mut at) = (Vec::new(), 0, ino);
        while at != ROOT_INO {
            let place = places.get(&at)?;
            bytes += 1 + place.name.len();
            // Also what ends a loop, should two renames have been noted in another order than they happened.
            if bytes > TRASH_PATH_BYTES_MAX {
                return None;
            }
            names.push(place.name.clone());
            at = place.parent;
        }
        let mut path = Vec::with_capacity(bytes);
        for name in names.iter().rev() {
            path.push(b'/');
            path.extend_from_slice(name);
        }
        Some(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ways_up_are_known_as_far_as_they_were_seen() {
        let places = Places::new();
        assert_eq!(places.path(ROOT_INO), Some(Vec::new()));
        places.note(5, ROOT_INO, b"a");
        places.note(6, 5, b"b");
        assert_eq!(places.path(6), Some(b"/a/b".to_vec()));
        places.note(5, ROOT_INO, b"moved");
        assert_eq!(places.path(6), Some(b"/moved/b".to_vec()));
        places.note(7, 99, b"c");
        assert_eq!(places.path(7), None);
        places.forget(5);
        assert_eq!(places.path(6), None);
    }

    #[test]
    fn too_long_a_way_and_a_loop_come_to_an_end() {
        let places = Places::new();
        places.note(5, 6, b"a");
        places.note(6, 5, b"b");
        assert_eq!(places.path(5), None);
    }
}
