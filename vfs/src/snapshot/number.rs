//! Inode numbers of what is seen in a snapshot: the highest bit, the snapshot's number, the inode's own number.
//!
//! | bits | |
//! |---|---|
//! | 63 | 1: no live inode has it |
//! | 44..=62 | the snapshot, 1..=524286 |
//! | 0..=43 | the inode |
//!
//! So the same inode in two snapshots, and live, are three inodes to the kernel, which may remember all of them. The numbers
//! from `u64::MAX - 255` on are those of directories that are in no record: no snapshot has the number they would spell.

use crate::limits::{INO_BITS, SNAPSHOT_NUMBERS};

const SEEN: u64 = 1 << 63;
const INO_MASK: u64 = (1 << INO_BITS) - 1;

/// The number that inode `ino` has in a snapshot.
pub(crate) fn seen(snapshot: u64, ino: u64) -> u64 {
    debug_assert!((1..=SNAPSHOT_NUMBERS).contains(&snapshot) && ino <= INO_MASK);
    SEEN | (snapshot << INO_BITS) | (ino & INO_MASK)
}

/// Snapshot and inode, if the number is one of those.
pub(crate) fn split(number: u64) -> Option<(u64, u64)> {
    let snapshot = (number & !SEEN) >> INO_BITS;
    let is_seen = number & SEEN != 0 && (1..=SNAPSHOT_NUMBERS).contains(&snapshot);
    is_seen.then_some((snapshot, number & INO_MASK))
}

/// Whether an inode number is that of something in a snapshot: such inodes never change.
pub fn is_snapshot(number: u64) -> bool {
    split(number).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_lead_back_and_never_meet() {
        for snapshot in [1, 2, 77, SNAPSHOT_NUMBERS] {
            for ino in [1, 2, 1 << 40, INO_MASK] {
                let number = seen(snapshot, ino);
                assert_eq!(split(number), Some((snapshot, ino)));
                assert!(number > i64::MAX as u64 && !crate::is_virtual(number));
            }
        }
        for live in [0, 1, 1 << 44, i64::MAX as u64] {
            assert_eq!(split(live), None);
        }
        for virtual_dir in [u64::MAX - 255, u64::MAX] {
            assert_eq!(split(virtual_dir), None);
        }
    }
}
