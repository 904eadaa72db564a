//! Which keys may have been marked in the current generation: a Bloom filter, so that the mark of a key that was never
//! marked (that of nearly every new record) need not be looked for in the store.
//!
//! It promises in one direction only. A key it does not know was not marked since the generation began, which was when nothing
//! could be marked in it yet. A key it knows may have been, or was going to be in a batch that came to nothing, or shares its
//! bits with others: the store decides.

use crate::limits::MARKS_TRIED_BITS;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::sync::atomic::{AtomicU64, Ordering};

/// Bits of each key.
const PROBES: u32 = 3;

pub(super) struct Tried {
    words: Vec<AtomicU64>,
    /// The same in every process: two runs of one history ask the store the same things.
    hasher: BuildHasherDefault<DefaultHasher>,
}

impl Tried {
    pub(super) fn new() -> Tried {
        Tried {
            words: (0..MARKS_TRIED_BITS / 64).map(|_| AtomicU64::new(0)).collect(),
            hasher: BuildHasherDefault::default(),
        }
    }

    /// Adds a key; true if it may have been there before.
    pub(super) fn insert(&self, key: &[u8]) -> bool {
        let hash = self.hasher.hash_one(key);
        let step = (hash >> 32) | 1;
        let mut known = true;
        for probe in 0..u64::from(PROBES) {
            let bit = hash.wrapping_add(probe.wrapping_mul(step)) as usize % MARKS_TRIED_BITS;
            let mask = 1 << (bit % 64);
            known &= self.words[bit / 64].fetch_or(mask, Ordering::AcqRel) & mask != 0;
        }
        known
    }

    /// A new generation begins; nobody is inside a change.
    pub(super) fn clear(&self) {
        for word in &self.words {
            word.store(0, Ordering::Release);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_added_is_known_and_little_else() {
        let tried = Tried::new();
        let key = |n: u32| n.to_be_bytes();
        let first: usize = (0..10_000).map(|n| usize::from(tried.insert(&key(n)))).sum();
        assert!(first < 100, "{first} of 10,000 new keys seemed known");
        assert!((0..10_000).all(|n| tried.insert(&key(n))));
        tried.clear();
        assert!(!tried.insert(&key(1)));
    }
}
