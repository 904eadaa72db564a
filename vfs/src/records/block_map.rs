//! Sets of blocks of a chunk.

use super::BlockMap;
use crate::limits::CHUNK_BLOCKS;
use std::ops::Range;

impl BlockMap {
    /// The set has this block.
    pub fn contains(&self, block: usize) -> bool {
        self.0[block / 64] >> (block % 64) & 1 == 1
    }

    /// Adds a block.
    pub fn insert(&mut self, block: usize) {
        self.0[block / 64] |= 1 << (block % 64);
    }

    /// Takes a block out.
    pub fn remove(&mut self, block: usize) {
        self.0[block / 64] &= !(1 << (block % 64));
    }

    /// Adds blocks.
    pub fn insert_range(&mut self, blocks: Range<usize>) {
        blocks.for_each(|block| self.insert(block));
    }

    /// Takes blocks out.
    pub fn remove_range(&mut self, blocks: Range<usize>) {
        blocks.for_each(|block| self.remove(block));
    }

    /// Adds every block of `other`.
    pub fn insert_all(&mut self, other: &BlockMap) {
        for (word, more) in self.0.iter_mut().zip(other.0) {
            *word |= more;
        }
    }

    /// Takes every block of `other` out.
    pub fn remove_all(&mut self, other: &BlockMap) {
        for (word, gone) in self.0.iter_mut().zip(other.0) {
            *word &= !gone;
        }
    }

    /// Blocks that are in both sets.
    pub fn common(&self, other: &BlockMap) -> BlockMap {
        let mut common = *self;
        for (word, there) in common.0.iter_mut().zip(other.0) {
            *word &= there;
        }
        common
    }

    /// The two sets share a block.
    pub fn intersects(&self, other: &BlockMap) -> bool {
        self.0.iter().zip(other.0).any(|(word, more)| word & more != 0)
    }

    /// The first block from `from` on that is in the set (`there`) or not in it.
    pub fn first(&self, from: usize, there: bool) -> Option<usize> {
        (from..CHUNK_BLOCKS).find(|block| self.contains(*block) == there)
    }

    /// Blocks in the set.
    pub fn count(&self) -> u64 {
        self.0.iter().map(|word| u64::from(word.count_ones())).sum()
    }

    /// The set has no block.
    pub fn is_empty(&self) -> bool {
        self.0 == [0; CHUNK_BLOCKS / 64]
    }

    /// Cuts `within` into runs of neighbours that are all in the set (true) or all not (false).
    pub fn runs(&self, within: Range<usize>) -> Vec<(Range<usize>, bool)> {
        let mut runs: Vec<(Range<usize>, bool)> = Vec::new();
        for block in within {
            let there = self.contains(block);
            match runs.last_mut() {
                Some((run, same)) if *same == there => run.end = block + 1,
                _ => runs.push((block..block + 1, there)),
            }
        }
        runs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_behave_as_sets() {
        let mut map = BlockMap::default();
        assert!(map.is_empty());
        map.insert_range(60..70);
        map.remove(63);
        assert_eq!(map.count(), 9);
        assert!(map.contains(64) && !map.contains(63) && !map.contains(70));
        assert_eq!(
            map.runs(58..72),
            vec![
                (58..60, false),
                (60..63, true),
                (63..64, false),
                (64..70, true),
                (70..72, false)
            ]
        );
        let mut other = BlockMap::default();
        other.insert(255);
        other.insert(64);
        assert_eq!(map.common(&other).runs(0..256)[1], (64..65, true));
        other.remove(64);
        map.insert_all(&other);
        assert!(map.contains(255));
        map.remove_all(&other);
        map.remove_range(0..256);
        assert!(map.is_empty());
    }
}
