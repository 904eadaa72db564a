//! What was used lately, of many inodes: found by inode and number, dropped one by one or an inode at a time.

use lru::LruCache;
use std::collections::BTreeSet;

/// Inode, and number of the part or chunk within it.
pub(super) type Key = (u64, u64);

/// Values by inode and number, the least recently used first to go. Who bounds it is whoever puts something in.
pub(super) struct Recent<V> {
    used: LruCache<Key, V>,
    /// The same keys in order, so that those of one inode need not be looked for among all.
    keys: BTreeSet<Key>,
}

impl<V> Default for Recent<V> {
    fn default() -> Recent<V> {
        Recent {
            used: LruCache::unbounded(),
            keys: BTreeSet::new(),
        }
    }
}

impl<V> Recent<V> {
    pub(super) fn len(&self) -> usize {
        self.used.len()
    }

    pub(super) fn contains(&self, key: Key) -> bool {
        self.used.contains(&key)
    }

    /// Marks it as used.
    pub(super) fn get(&mut self, key: Key) -> Option<&V> {
        self.used.get(&key)
    }

    /// Leaves its place in the order of use.
    pub(super) fn peek(&self, key: Key) -> Option<&V> {
        self.used.peek(&key)
    }

    pub(super) fn put(&mut self, key: Key, value: V) {
        self.used.put(key, value);
        self.keys.insert(key);
    }

    pub(super) fn pop(&mut self, key: Key) -> Option<V> {
        self.keys.remove(&key);
        self.used.pop(&key)
    }

    pub(super) fn pop_oldest(&mut self) -> Option<(Key, V)> {
        let oldest = self.used.pop_lru()?;
        self.keys.remove(&oldest.0);
        Some(oldest)
    }

    /// Takes all of an inode.
    pub(super) fn pop_inode(&mut self, ino: u64) -> Vec<(Key, V)> {
        let gone: Vec<Key> = self.keys.range((ino, 0)..=(ino, u64::MAX)).copied().collect();
        gone.into_iter().filter_map(|key| Some((key, self.pop(key)?))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_inode_goes_as_a_whole_and_nothing_else_does() {
        let mut recent = Recent::default();
        for key in [(1, 0), (2, 0), (2, 7), (2, u64::MAX), (3, 0)] {
            recent.put(key, key.0 * 10);
        }
        assert_eq!(recent.pop_inode(2), [((2, 0), 20), ((2, 7), 20), ((2, u64::MAX), 20)]);
        assert_eq!(recent.pop_inode(2), []);
        assert_eq!(recent.len(), 2);
        assert!(!recent.contains((2, 7)) && recent.contains((1, 0)) && recent.contains((3, 0)));
        assert_eq!(recent.keys.len(), 2);
    }

    #[test]
    fn the_least_recently_used_goes_first_and_looking_is_not_using() {
        let mut recent = Recent::default();
        for ino in 1..=3 {
            recent.put((ino, 0), ino);
        }
        assert_eq!(recent.get((1, 0)), Some(&1));
        assert_eq!(recent.peek((2, 0)), Some(&2));
        assert_eq!(recent.pop_oldest(), Some(((2, 0), 2)));
        assert_eq!(recent.pop((3, 0)), Some(3));
        assert_eq!(recent.pop_oldest(), Some(((1, 0), 1)));
        assert_eq!(recent.pop_oldest(), None);
        assert!(recent.keys.is_empty());
    }
}
