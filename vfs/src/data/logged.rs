//! Blocks of which the store keeps a copy, because an fsync promised them and their backing file was not synced.
//!
//! A backing file takes long to sync: a sealed block that was durable goes to its other slot, and the filesystem below
//! notes down where that is. So an fsync of few blocks puts them into the store beside what the store has to say of the file, in one
//! batch: one barrier makes both durable (`docs/decisions/0016-content-in-the-log.md`). The file is synced later, for
//! many blocks at once, and then the copies go.
//!
//! ```text
//!   written --fsync, few blocks--> copied --sync of the file--> durable, the copy goes with the next batch
//!                                    |
//!                                    +--cut off, deleted, evicted--> the copy goes with the batch that says so
//! ```
//!
//! Promises: a copy is in the store as long as a power cut may leave less in the backing file. After one, it is put back only
//! where the backing file has no version as new ([`Backing::restore`](crate::backing::Backing::restore)), so nothing newer is
//! lost; that comes before anything else is looked at.
//! Refuses: files of which something has to be durable *before* the store may speak of it
//! ([`has_order`](super::DataState::has_order)), and those of which something was punched out since their last sync.

use super::state::spill_key;
use super::{BLOCK, Shared};
use crate::backing::BlockAt;
use crate::error::VfsError;
use crate::inode::{Inode, InodeState};
use crate::limits::{CHUNK_BLOCKS, FSYNC_LOG_BLOCKS_MAX, LOGGED_AGE_MAX, LOGGED_BLOCKS_MAX, SCAN_PAGE};
use crate::records::{self, Extent, RecordError};
use crate::stages;
use cessfs_sync::Batch;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// First byte of the keys that hold copies: then the inode, and the block within the file. The value: the version of the block in
/// the backing file (4, little endian), and its bytes.
pub(crate) const LOGGED_PREFIX: &[u8] = b"l";
const VERSION_BYTES: usize = 4;

fn logged_key(ino: u64, block: u64) -> Vec<u8> {
    [LOGGED_PREFIX, &ino.to_be_bytes(), &block.to_be_bytes()].concat()
}

fn parse_key(key: &[u8]) -> Result<BlockAt, RecordError> {
    let (ino, block) = records::parse_extent_key(key)?;
    Ok(BlockAt {
        ino,
        chunk: block / CHUNK_BLOCKS as u64,
        block: (block % CHUNK_BLOCKS as u64) as usize,
    })
}

fn encode(version: u32) -> Vec<u8> {
    let mut value = Vec::with_capacity(VERSION_BYTES + BLOCK);
    value.extend_from_slice(&version.to_le_bytes());
    value.resize(VERSION_BYTES + BLOCK, 0);
    value
}

fn decode(value: &[u8]) -> Result<(u32, &[u8]), RecordError> {
    let (version, bytes) = value
        .split_first_chunk::<VERSION_BYTES>()
        .filter(|(_, bytes)| bytes.len() == BLOCK)
        .ok_or(RecordError::Short)?;
    Ok((u32::from_le_bytes(*version), bytes))
}

/// Copies of one inode's blocks in the store.
#[derive(Debug, Default)]
pub(crate) struct Logged {
    blocks: BTreeMap<u64, Copy>,
    /// When the first of them was made; monotonic.
    since: Duration,
}

#[derive(Clone, Copy, Debug)]
struct Copy {
    /// Of the block in the backing file; 0: the block is void, and the copy gone with it.
    version: u32,
    /// The last change when it was made: a sync that began after it makes it unnecessary.
    change: u64,
}

impl Logged {
    pub(crate) fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }

    fn is_aged(&self, now: Duration) -> bool {
        !self.is_empty() && now.saturating_sub(self.since) >= LOGGED_AGE_MAX
    }

    #[cfg(test)]
    fn has(&self, block: u64, version: u32) -> bool {
        self.blocks.get(&block).is_some_and(|copy| copy.version == version)
    }

    fn has_any(&self, blocks: Range<u64>) -> bool {
        self.blocks.range(blocks).next().is_some()
    }

    /// Notes copies that were committed; tells how many blocks had none before.
    fn add(&mut self, copies: impl Iterator<Item = (u64, u32)>, change: u64, now: Duration) -> usize {
        if self.is_empty() {
            self.since = now;
        }
        let before = self.blocks.len();
        let copy = |(block, version)| (block, Copy { version, change });
        self.blocks.extend(copies.map(copy));
        self.blocks.len() - before
    }

    /// Adds the end of copies to `batch` that no power cut needs any more, and tells how many.
    fn drop_synced(&mut self, ino: u64, change: u64, batch: &mut Batch) -> usize {
        let before = self.blocks.len();
        self.blocks.retain(|block, copy| {
            let needed = copy.change > change;
            if !needed {
                batch.delete(logged_key(ino, *block));
            }
            needed
        });
        before - self.blocks.len()
    }

    /// Adds the end of the copies of these blocks to `batch`, which says that nobody needs the blocks.
    pub(crate) fn void(&mut self, ino: u64, blocks: Range<u64>, batch: &mut Batch) {
        for (block, copy) in self.blocks.range_mut(blocks) {
            // Remembered until the next sync: what adds to a batch does not know whether it will be committed.
            copy.version = 0;
            batch.delete(logged_key(ino, *block));
        }
    }
}

/// Blocks of a chunk within its file.
pub(crate) fn blocks_of(chunk: u64) -> Range<u64> {
    let first = chunk.saturating_mul(CHUNK_BLOCKS as u64);
    first..first.saturating_add(CHUNK_BLOCKS as u64)
}

impl Shared {
    /// Makes an inode durable by way of the store alone, if its content is a record or few of its blocks are not durable; false if
    /// that is not for it, and then nothing was done.
    pub(super) fn fsync_by_log(&self, inode: &Arc<Inode>, data_only: bool) -> Result<bool, VfsError> {
        let guard = self.core.marks.enter_unseen();
        let mut locked = inode.state.write();
        let state = &mut *locked;
        state.check_alive()?;
        if let Some(error) = &state.data.failure {
            return Err(error.clone());
        }
        if state.data.has_order() || state.data.pass.is_some() {
            return Ok(false);
        }
        let mut batch = Batch::new();
        let Some(copies) = self.copy_unsynced(inode.ino, state, &mut batch)? else {
            return Ok(false);
        };
        let change = state.data.begin_sync();
        // It outgrew a record that was empty: with the copies there is nothing left to wait for.
        if state.data.spill.take().is_some_and(|spill| spill.noted) {
            batch.delete(spill_key(inode.ino));
        }
        if data_only && !state.record.inline && state.data.is_promised() {
            if !batch.is_empty() {
                self.core.store.commit(batch)?;
            }
        } else {
            self.journal_with(inode.ino, state, None, batch)?;
        }
        if !copies.is_empty() {
            self.backing.copied(&copies);
            let copies = copies.iter().map(|(at, version)| (at.in_file(), *version));
            let more = state.data.logged.add(copies, change, self.core.clock.monotonic());
            self.logged_blocks.fetch_add(more, Ordering::Relaxed);
            self.keep_pending(inode);
        }
        // Whatever was told until now is in a batch: nobody else has the lock.
        let told = state.data.told();
        drop(locked);
        drop(guard);
        self.core.store.barrier()?;
        inode.state.write().data.set_promised(told);
        Ok(true)
    }

    /// Adds a copy of every block to `batch` that is not durable and has none; tells which and of what version. `None` if it is
    /// not known what is not durable, or if that is too much.
    fn copy_unsynced(
        &self,
        ino: u64,
        state: &InodeState,
        batch: &mut Batch,
    ) -> Result<Option<Vec<(BlockAt, u32)>>, VfsError> {
        if state.record.inline {
            return Ok(Some(Vec::new()));
        }
        let Some(unsynced) = self.backing.unsynced(ino, LOGGED_BLOCKS_MAX) else {
            return Ok(None);
        };
        let mut wanted = Vec::new();
        for (at, version) in unsynced {
            // What was cut off since it was written is nobody's.
            if state
                .data
                .extent(&self.core, ino, at.chunk)?
                .local()
                .blocks
                .contains(at.block)
            {
                wanted.push((at, version));
            }
        }
        let in_use = self.logged_blocks.load(Ordering::Relaxed);
        if wanted.len() > FSYNC_LOG_BLOCKS_MAX || in_use + wanted.len() > LOGGED_BLOCKS_MAX {
            return Ok(None);
        }
        let _span = stages::LOG_BLOCKS.enter();
        let mut copies = Vec::with_capacity(wanted.len());
        for (at, version) in wanted {
            let mut value = encode(version);
            if self.backing.read(at, &mut value[VERSION_BYTES..]).is_err() {
                // Whoever syncs it will see for himself.
                return Ok(None);
            }
            batch.put(logged_key(ino, at.in_file()), value);
            copies.push((at, version));
        }
        Ok(Some(copies))
    }

    /// The copies of an inode's blocks have to be replaced by a sync of its backing file: they are old, or all together many.
    pub(super) fn copies_are_due(&self, state: &InodeState, now: Duration) -> bool {
        let many = self.logged_blocks.load(Ordering::Relaxed) >= LOGGED_BLOCKS_MAX / 2;
        state.data.logged.is_aged(now) || (many && !state.data.logged.is_empty())
    }

    /// Adds the end of the copies to `batch` that a sync which began after `change` made unnecessary.
    pub(super) fn drop_copies(&self, ino: u64, state: &mut InodeState, change: u64, batch: &mut Batch) {
        let gone = state.data.logged.drop_synced(ino, change, batch);
        self.logged_blocks.fetch_sub(gone, Ordering::Relaxed);
    }

    /// The same in a batch of its own.
    pub(super) fn end_copies(&self, inode: &Arc<Inode>, change: u64) -> Result<(), VfsError> {
        {
            let state = inode.state.read();
            if state.data.logged.is_empty() && state.data.failure.is_none() {
                return Ok(());
            }
        }
        let _guard = self.core.marks.enter_unseen();
        let mut state = inode.state.write();
        // What could not be made durable once is not believed to be so later.
        if let Some(error) = &state.data.failure {
            return Err(error.clone());
        }
        let mut batch = Batch::new();
        self.drop_copies(inode.ino, &mut state, change, &mut batch);
        Ok(self.core.store.commit(batch)?)
    }

    /// Makes a chunk's backing file durable if the store has copies of its blocks, before the chunk becomes another.
    pub(super) fn unlog(&self, ino: u64, state: &mut InodeState, chunk: u64) -> Result<(), VfsError> {
        if !state.data.logged.has_any(blocks_of(chunk)) {
            return Ok(());
        }
        if let Err(e) = self.backing.sync(ino) {
            let is_undecided = e.lacks_descriptors();
            let error = VfsError::from(e);
            if !is_undecided {
                state.data.failure.get_or_insert(error.clone());
            }
            return Err(error);
        }
        let mut batch = Batch::new();
        self.drop_copies(ino, state, u64::MAX, &mut batch);
        Ok(self.core.store.commit(batch)?)
    }

    /// After an unclean end: puts copies back where the backing file has nothing as new; then, unless the volume must not change,
    /// lets them go. Tells which inodes had some.
    pub(crate) fn put_copies_back(&self) -> Result<BTreeSet<u64>, VfsError> {
        let mut all = BTreeSet::new();
        let mut from = LOGGED_PREFIX.to_vec();
        loop {
            let page = self.core.store.scan(LOGGED_PREFIX, &from, SCAN_PAGE)?;
            let Some((last, _)) = page.last() else { return Ok(all) };
            from.clone_from(last);
            from.push(0);
            let mut inos = BTreeSet::new();
            let mut batch = Batch::new();
            for (key, value) in page {
                let at = parse_key(&key)?;
                let (version, bytes) = decode(&value)?;
                if self.is_used(at)? {
                    self.backing.restore(at, version, bytes)?;
                    inos.insert(at.ino);
                }
                batch.delete(key);
            }
            inos.iter().try_for_each(|ino| self.backing.sync(*ino))?;
            all.extend(inos);
            if !self.core.config.read_only {
                self.core.store.commit(batch)?;
                self.core.store.barrier()?;
            }
        }
    }

    /// Whether the store says that the block is in the cache and part of its file.
    fn is_used(&self, at: BlockAt) -> Result<bool, VfsError> {
        if self.core.store.get(&records::inode_key(at.ino))?.is_none() {
            return Ok(false);
        }
        let Some(extent) = self.core.store.get(&records::extent_key(at.ino, at.chunk))? else {
            return Ok(false);
        };
        let extent = Extent::decode(&extent)?;
        Ok(extent.local().blocks.contains(at.block))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sync_ends_the_copies_of_what_came_before_it() {
        let mut logged = Logged::default();
        assert_eq!(logged.add([(1, 4), (2, 1)].into_iter(), 5, Duration::ZERO), 2);
        assert_eq!(logged.add([(2, 2), (300, 1)].into_iter(), 6, Duration::from_secs(1)), 1);
        assert!(logged.has(2, 2) && !logged.has(2, 1));
        assert!(logged.has_any(blocks_of(1)) && !logged.has_any(blocks_of(2)));
        assert!(logged.is_aged(LOGGED_AGE_MAX) && !logged.is_aged(LOGGED_AGE_MAX / 2));
        let mut batch = Batch::new();
        assert_eq!(logged.drop_synced(7, 5, &mut batch), 1);
        assert_eq!(batch.ops.len(), 1);
        assert!(logged.has(2, 2) && !logged.has(1, 4));
    }

    #[test]
    fn a_copy_that_is_void_is_no_copy() {
        let mut logged = Logged::default();
        logged.add([(1, 4), (2, 9)].into_iter(), 5, Duration::ZERO);
        let mut batch = Batch::new();
        logged.void(7, 2..3, &mut batch);
        assert!(logged.has(1, 4) && !logged.has(2, 9));
        assert_eq!(batch.ops.len(), 1);
    }

    #[test]
    fn copies_read_back_and_nothing_else_is_one() {
        let mut value = encode(7);
        value[VERSION_BYTES] = 9;
        let (version, bytes) = decode(&value).unwrap();
        assert_eq!((version, bytes.len(), bytes[0]), (7, BLOCK, 9));
        assert!(decode(&value[1..]).is_err() && decode(&[]).is_err());
        let at = parse_key(&logged_key(5, 300)).unwrap();
        assert_eq!((at.ino, at.chunk, at.block), (5, 1, 44));
        assert!(parse_key(&logged_key(5, 300)[1..]).is_err());
    }
}
