//! Inode numbers: issued once, never again, not even after a crash.
//!
//! The store holds a number no inode has reached; numbers below it are handed out from memory, and the stored one moves
//! on by a block before they run out. A crash skips the rest of a block.

use crate::error::VfsError;
use crate::limits::INO_BLOCK;
use crate::records;
use cessfs_sync::{Batch, MetaStore};
use parking_lot::Mutex;

/// Issues inode numbers.
pub(crate) struct InoCounter {
    range: Mutex<Range>,
}

struct Range {
    next: u64,
    /// What the store holds: numbers from here on are not ours yet.
    limit: u64,
}

impl InoCounter {
    pub(crate) fn new() -> InoCounter {
        InoCounter {
            range: Mutex::new(Range { next: 0, limit: 0 }),
        }
    }

    /// Starts at `next`: the stored number, or one above every inode there is.
    pub(crate) fn start(&self, next: u64) {
        *self.range.lock() = Range { next, limit: next };
    }

    /// A number never issued before.
    pub(crate) fn issue(&self, store: &dyn MetaStore) -> Result<u64, VfsError> {
        let mut range = self.range.lock();
        if range.next == range.limit {
            let limit = range
                .limit
                .checked_add(INO_BLOCK)
                .ok_or(VfsError::NoSpace("inode numbers are used up"))?;
            let mut batch = Batch::new();
            batch.put(records::NEXT_INO_KEY, records::encode_counter(limit));
            // Committed before any batch that uses one of these numbers, and batches survive in order.
            store.commit(batch)?;
            range.limit = limit;
        }
        let ino = range.next;
        range.next += 1;
        Ok(ino)
    }

    /// The next number to be issued.
    pub(crate) fn next(&self) -> u64 {
        self.range.lock().next
    }
}
