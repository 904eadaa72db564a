//! Truncation, extension and the end of a file's content. None of them needs the network.

use super::logged::blocks_of;
use super::state::{DIRTY_PREFIX, dirty_key, holed_key, kept_key, put_extent, spill_key};
use super::young::inline_blocks;
use super::{BLOCK, CHUNK, Shared};
use crate::error::VfsError;
use crate::inode::{Inode, InodeState};
use crate::limits::{CHUNK_BLOCKS, FILE_BYTES_MAX, INLINE_BYTES_MAX, SCAN_PAGE};
use crate::records::{self, Extent};
use cessfs_sync::Batch;

/// First byte of the keys that note: extents of this deleted inode are still to be deleted.
const DELETION_PREFIX: &[u8] = b"t";

/// Key of that note.
pub(crate) fn deletion_key(ino: u64) -> Vec<u8> {
    [DELETION_PREFIX, &ino.to_be_bytes()].concat()
}

impl Shared {
    pub(super) fn set_size(
        &self,
        inode: &Inode,
        state: &mut InodeState,
        size: u64,
        batch: &mut Batch,
    ) -> Result<(), VfsError> {
        let ino = inode.ino;
        if size > FILE_BYTES_MAX {
            return Err(VfsError::TooLarge);
        }
        state.data.will_tell();
        if state.data.pass.is_some() {
            return self.set_size_passing(ino, state, size);
        }
        // What is cut stays a record, however large that is; what grows only if it stays small.
        if state.record.inline && size <= state.record.size.max(INLINE_BYTES_MAX as u64) {
            let mut bytes = self.inline_bytes(ino, state.record.size)?;
            let growth = inline_blocks(size).saturating_sub(state.record.blocks);
            self.core.quotas.admit_growth(inode, &state.record, growth)?;
            bytes.resize(size as usize, 0);
            self.put_inline(ino, &bytes, batch);
            state.record.blocks = inline_blocks(size);
        } else if state.record.inline {
            self.spill(ino, state)?;
        } else if size <= state.record.size {
            // Also to the same size: blocks reserved beyond the end are given back, as other filesystems do.
            self.truncate(ino, state, size, batch)?;
            self.cut_spilled(ino, state, size..u64::MAX, batch)?;
        }
        state.record.size = size;
        Ok(())
    }

    fn truncate(&self, ino: u64, state: &mut InodeState, size: u64, batch: &mut Batch) -> Result<(), VfsError> {
        let first_gone = size.div_ceil(CHUNK);
        let cut = (size % CHUNK) as u32;
        self.delete_extents(ino, state, first_gone, batch)?;
        if cut > 0 {
            self.cut_chunk(ino, state, size / CHUNK, cut, batch)?;
        }
        Ok(())
    }

    /// Deletes the extents from chunk `first` on. More than a page of them goes in batches of its own, from the end, each with
    /// the size it leaves.
    fn delete_extents(&self, ino: u64, state: &mut InodeState, first: u64, batch: &mut Batch) -> Result<(), VfsError> {
        let mut gone: Vec<(u64, Extent)> = Vec::new();
        self.each_extent(ino, first, &mut |chunk, extent| {
            gone.push((chunk, extent));
            Ok(())
        })?;
        let mut freed: u64 = 0;
        let in_memory = {
            let cache = state.data.chunks.lock();
            let there = |chunk| cache.peek(chunk).map(|(now, _)| (chunk, now));
            cache
                .numbers_from(first)
                .into_iter()
                .filter_map(there)
                .collect::<Vec<_>>()
        };
        let is_in_memory = |chunk: &u64| in_memory.binary_search_by_key(chunk, |(other, _)| *other).is_ok();
        for (_, extent) in gone.iter().filter(|(chunk, _)| !is_in_memory(chunk)) {
            freed += extent.allocated();
        }
        freed += in_memory.iter().map(|(_, extent)| extent.allocated()).sum::<u64>();
        state.data.logged.void(ino, blocks_of(first).start..u64::MAX, batch);
        let mut chunks: Vec<u64> = gone.iter().chain(&in_memory).map(|(chunk, _)| *chunk).collect();
        chunks.sort_unstable();
        chunks.dedup();
        self.dirty.lock().forget_from(ino, first);
        state.data.exact &= chunks.is_empty();
        state.data.chunks.lock().forget_from(first);
        state.record.blocks = state.record.blocks.saturating_sub(freed);
        self.give_back_chunks(ino, &chunks);
        let mut left: u64 = gone.iter().map(|(_, extent)| extent.allocated()).sum();
        while gone.len() > SCAN_PAGE {
            let page = gone.split_off(gone.len() - SCAN_PAGE);
            left -= page.iter().map(|(_, extent)| extent.allocated()).sum::<u64>();
            let mut early = Batch::new();
            self.stage(ino, state, &mut early)?;
            self.delete_page(ino, &page, &mut early);
            let mut record = state.record.clone();
            record.size = page
                .first()
                .map_or(record.size, |(chunk, _)| record.size.min(chunk * CHUNK));
            record.blocks += left;
            state.data.put_record(&self.core, ino, &record, &mut early);
            self.core.store.commit(early)?;
        }
        self.delete_page(ino, &gone, batch);
        Ok(())
    }

    fn delete_page(&self, ino: u64, page: &[(u64, Extent)], batch: &mut Batch) {
        for (chunk, extent) in page {
            self.core.marks.mark(batch, &records::extent_key(ino, *chunk));
            put_extent(batch, ino, *chunk, extent, &Extent::default());
        }
    }

    /// Cuts a chunk to its first `len` bytes. What the network has stays good for them.
    fn cut_chunk(
        &self,
        ino: u64,
        state: &mut InodeState,
        chunk: u64,
        len: u32,
        batch: &mut Batch,
    ) -> Result<(), VfsError> {
        let before = state.data.extent(&self.core, ino, chunk)?;
        let is_longer = |extent: &Extent| {
            let mut cut = *extent;
            shorten(&mut cut, len);
            cut != *extent
        };
        // What the store still has of it may be more than there is.
        let journaled = state.data.with_slot(&self.core, ino, chunk, |slot| slot.journaled)?;
        if !is_longer(&before) && !is_longer(&journaled) {
            return Ok(());
        }
        let change = state.data.next_change();
        let (journaled_before, journaled, now) = state.data.with_slot(&self.core, ino, chunk, |slot| {
            let journaled_before = slot.journaled;
            // A chunk the store still has in its old state is cut in that state too.
            if slot.unsynced.is_some() {
                shorten(&mut slot.journaled, len);
            }
            shorten(&mut slot.now, len);
            if slot.unsynced.is_none() {
                slot.needs_mark = true;
            }
            slot.changed = change;
            let journaled = if slot.unsynced.is_some() {
                slot.journaled
            } else {
                slot.now
            };
            (journaled_before, journaled, slot.now)
        })?;
        self.core.marks.mark(batch, &records::extent_key(ino, chunk));
        put_extent(batch, ino, chunk, &journaled_before, &journaled);
        if !journaled.dirty {
            // It may have one of which `journaled_before` does not tell: see `stage`.
            batch.delete(dirty_key(ino, chunk));
        }
        let blocks = blocks_of(chunk);
        let kept = u64::from(len).div_ceil(BLOCK as u64);
        state.data.logged.void(ino, blocks.start + kept..blocks.end, batch);
        state.record.blocks = (state.record.blocks + now.allocated()).saturating_sub(before.allocated());
        if now.dirty {
            self.touch_dirty(ino, chunk, &now);
        } else {
            self.dirty.lock().forget(ino, chunk);
        }
        self.give_back_chunks(ino, &[chunk]);
        Ok(())
    }

    /// Deletes what the content of a deleted inode left in the store: with the batch that deletes the inode, or, of a large
    /// file, afterwards, so that the deletion itself takes no longer than that of a small one.
    pub(super) fn discard(&self, ino: u64, state: &mut InodeState, batch: &mut Batch) -> Result<(), VfsError> {
        self.dirty.lock().forget_from(ino, 0);
        state.data.chunks.lock().forget_from(0);
        state.data.ahead = None;
        state.data.failure = None;
        self.drop_copies(ino, state, u64::MAX, batch);
        state.data.drop_unsure(ino, batch);
        self.pending.lock().remove(&ino);
        self.recent.lock().pop(&ino);
        self.young.forget(ino);
        let inline = records::inline_key(ino);
        if state.record.inline || state.data.spill.is_some() {
            self.core.marks.mark(batch, &inline);
            batch.delete(inline);
            batch.delete(spill_key(ino));
        }
        for note in [kept_key(ino), holed_key(ino)] {
            if !state.record.inline && self.core.store.get(&note)?.is_some() {
                batch.delete(note);
            }
        }
        state.data.spill = None;
        let passed = self.discard_pass(ino, state, batch);
        if state.record.inline && !passed {
            return Ok(());
        }
        if self.delete_page_of(ino, batch)? {
            batch.put(deletion_key(ino), records::encode_counter(0));
        }
        self.reclaim.lock().file(ino);
        Ok(())
    }

    /// Adds the deletion of a page of extents to `batch`; true if there may be more.
    fn delete_page_of(&self, ino: u64, batch: &mut Batch) -> Result<bool, VfsError> {
        let prefix = records::extent_prefix(ino);
        let page = self.core.store.scan(&prefix, &prefix, SCAN_PAGE)?;
        for (key, _) in &page {
            let (_, chunk) = records::parse_extent_key(key)?;
            self.core.marks.mark(batch, key);
            batch.delete(key.clone());
            batch.delete(dirty_key(ino, chunk));
        }
        Ok(page.len() == SCAN_PAGE)
    }

    /// Deletes the extents of an inode that is no more, page by page, and then the note that asked for it.
    pub(super) fn delete_content(&self, ino: u64) -> Result<(), VfsError> {
        loop {
            let _guard = self.core.marks.enter();
            let mut batch = Batch::new();
            let more = self.delete_page_of(ino, &mut batch)?;
            if !more {
                batch.delete(deletion_key(ino));
            }
            self.core.store.commit(batch)?;
            if !more {
                return Ok(());
            }
        }
    }

    /// Queues the deletions that the last mount did not finish.
    pub(super) fn resume_deletions(&self) -> Result<(), VfsError> {
        let mut from = DELETION_PREFIX.to_vec();
        loop {
            let page = self.core.store.scan(DELETION_PREFIX, &from, SCAN_PAGE)?;
            let Some((last, _)) = page.last() else { return Ok(()) };
            from.clone_from(last);
            from.push(0);
            for (key, _) in &page {
                let ino = records::parse_ino_key(key)?;
                self.dirty.lock().forget_from(ino, 0);
                self.reclaim.lock().file(ino);
            }
        }
    }

    /// Queues what the last mount left dirty.
    pub(super) fn load_dirty(&self) -> Result<(), VfsError> {
        let mut from = DIRTY_PREFIX.to_vec();
        loop {
            let page = self.core.store.scan(DIRTY_PREFIX, &from, SCAN_PAGE)?;
            let Some((last, _)) = page.last() else { return Ok(()) };
            from.clone_from(last);
            from.push(0);
            for (key, _) in &page {
                let (ino, chunk) = records::parse_extent_key(key)?;
                if let Some(value) = self.core.store.get(&records::extent_key(ino, chunk))? {
                    self.touch_dirty(ino, chunk, &Extent::decode(&value)?);
                }
            }
        }
    }
}

/// Cuts an extent to its first `len` bytes, reserved blocks included; without an allocated block left it is a hole.
fn shorten(extent: &mut Extent, len: u32) {
    extent
        .reserved
        .remove_range((len as usize).div_ceil(BLOCK)..CHUNK_BLOCKS);
    extent.cut(len);
}
