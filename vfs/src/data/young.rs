//! Files that came into being a moment ago: up to 16 KiB they stay one record, as small ones do for good.
//!
//! Most of what programs write is soon gone (a rollback journal, a temporary file) or promised at once, and a backing file would be
//! made, synced and removed for it. In the record it is durable with one flush of the journal, and goes without a trace. What
//! is still there after some seconds, when there are many, or when its content is to be sent, gets its backing file
//! (`docs/decisions/0021-young-files.md`).
//!
//! Promises: a young file is what an inline file is, in every respect but its size.
//! Refuses: to hold more than [`YOUNG_FILES_MAX`], and files with holes in front of what is written.

use super::{BLOCK, Shared};
use crate::error::VfsError;
use crate::inode::InodeState;
use crate::limits::{INLINE_BYTES_MAX, YOUNG_AGE_MAX, YOUNG_BYTES_MAX, YOUNG_FILES_MAX};
use crate::records::InodeRecord;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::time::Duration;

/// The young files of a volume, by inode: since when (monotonic). A record as large as theirs may also be there without being
/// known here, after a crash: it stays one until it is written again.
#[derive(Debug, Default)]
pub(super) struct Young(Mutex<BTreeMap<u64, Duration>>);

impl Young {
    /// Takes a file in if there is room for it; true if it is in.
    fn admit(&self, ino: u64, now: Duration) -> bool {
        let mut since = self.0.lock();
        if since.len() >= YOUNG_FILES_MAX && !since.contains_key(&ino) {
            return false;
        }
        since.entry(ino).or_insert(now);
        true
    }

    pub(super) fn forget(&self, ino: u64) {
        self.0.lock().remove(&ino);
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.0.lock().is_empty()
    }

    /// Those that were taken in at `until` or before, or all.
    fn since(&self, until: Option<Duration>) -> Vec<u64> {
        let since = self.0.lock();
        let due = since
            .iter()
            .filter(|(_, since)| until.is_none_or(|until| **since <= until));
        due.map(|(ino, _)| *ino).collect()
    }
}

/// Blocks that an inline file of this size counts for.
pub(crate) fn inline_blocks(size: u64) -> u64 {
    size.div_ceil(BLOCK as u64)
}

impl Shared {
    /// A write of bytes up to `end` leaves the file a record: a small one, or one that is young and has no hole.
    pub(super) fn stays_record(&self, ino: u64, record: &InodeRecord, offset: u64, end: u64) -> bool {
        if !record.inline {
            return false;
        }
        let size = record.size.max(end);
        if size <= INLINE_BYTES_MAX as u64 {
            return true;
        }
        size <= YOUNG_BYTES_MAX as u64 && offset <= record.size && self.young.admit(ino, self.core.clock.monotonic())
    }

    /// Gives those files a backing file that are young no more; or all of them. Where that fails, for lack of room or because the
    /// disk does, nothing is lost: they stay records, and are tried again.
    pub(crate) fn settle_young(&self, all: bool) {
        let until = self.core.clock.monotonic().checked_sub(YOUNG_AGE_MAX);
        let due = match (all, until) {
            (true, _) => self.young.since(None),
            (false, Some(until)) => self.young.since(Some(until)),
            (false, None) => Vec::new(),
        };
        for ino in due {
            let Err(e) = self.end_youth(ino) else { continue };
            tracing::debug!("inode {ino} stays a record: {e}");
            if matches!(e, VfsError::NoSpace(_)) {
                return;
            }
        }
    }

    fn end_youth(&self, ino: u64) -> Result<(), VfsError> {
        let Some(inode) = self.if_there(ino)? else {
            self.young.forget(ino);
            return Ok(());
        };
        let _guard = self.core.marks.enter_unseen();
        if self.core.marks.is_frozen() {
            // What is dirty was handed over for a snapshot, which has this file's content as a record.
            return Ok(());
        }
        let mut locked = inode.state.write();
        let state: &mut InodeState = &mut locked;
        let is_young = state.record.inline && state.record.size > INLINE_BYTES_MAX as u64;
        if state.gone || !is_young || state.data.pass.is_some() {
            self.young.forget(ino);
            return Ok(());
        }
        self.spill(ino, state)?;
        self.keep_pending(&inode);
        self.core.quotas.settle(&inode, &state.record);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_so_many_and_no_more() {
        let young = Young::default();
        for ino in 0..YOUNG_FILES_MAX as u64 {
            assert!(young.admit(ino, Duration::from_secs(ino)));
        }
        assert!(!young.admit(u64::MAX, Duration::ZERO));
        assert!(young.admit(3, Duration::from_secs(9)), "who is in stays in");
        assert_eq!(young.since(Some(Duration::from_secs(3))), [0, 1, 2, 3]);
        assert_eq!(young.since(None).len(), YOUNG_FILES_MAX);
        young.forget(3);
        assert!(young.admit(u64::MAX, Duration::ZERO));
    }

    #[test]
    fn a_record_counts_for_the_blocks_it_would_take() {
        assert_eq!([0, 1, 4096, 4097, 16384].map(inline_blocks), [0, 1, 1, 2, 4]);
    }
}
