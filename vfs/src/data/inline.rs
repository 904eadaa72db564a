//! Small files: up to 4096 bytes as one record, or [a little more](super::young), until they outgrow it. They never come back.

use super::piece::ChunkAt;
use super::state::{Spill, kept_key, spill_key};
use super::young::inline_blocks;
use super::{BLOCK, Shared};
use crate::core::AtRest;
use crate::error::VfsError;
use crate::inode::{Inode, InodeState};
use crate::limits::{SECTOR_BYTES, YOUNG_BYTES_MAX};
use crate::records;
use cessfs_sync::Batch;
use std::ops::Range;
use std::sync::Arc;

impl Shared {
    /// The bytes of an inline file, padded with zeros to its size (at most [`YOUNG_BYTES_MAX`]).
    pub(super) fn inline_bytes(&self, ino: u64, size: u64) -> Result<Vec<u8>, VfsError> {
        // An empty file has no such record: no need to look.
        let stored = match size {
            0 => None,
            _ => self.core.store.get(&records::inline_key(ino))?,
        };
        let mut bytes = stored.unwrap_or_default();
        bytes.resize(size.min(YOUNG_BYTES_MAX as u64) as usize, 0);
        Ok(bytes)
    }

    /// Adds the bytes of an inline file to `batch`.
    pub(super) fn put_inline(&self, ino: u64, bytes: &[u8], batch: &mut Batch) {
        let key = records::inline_key(ino);
        self.core.marks.mark(batch, &key);
        if bytes.is_empty() {
            batch.delete(key);
        } else {
            batch.put(key, bytes);
        }
    }

    /// Writes into a file that stays inline, and journals it at once.
    pub(super) fn write_inline(
        &self,
        ino: u64,
        state: &mut InodeState,
        offset: usize,
        data: &[u8],
    ) -> Result<(), VfsError> {
        let end = offset + data.len();
        let size = state.record.size.max(end as u64);
        let mut bytes = self.inline_bytes(ino, state.record.size)?;
        bytes.resize(size as usize, 0);
        bytes[offset..end].copy_from_slice(data);
        let mut record = state.record.clone();
        record.size = size;
        record.blocks = inline_blocks(size);
        self.core.stamp_written(&mut record, &mut state.data.untold);
        let mut batch = Batch::new();
        self.put_inline(ino, &bytes, &mut batch);
        self.core.put_inode(&mut batch, ino, &record);
        self.core.store.commit(batch)?;
        state.record = record;
        state.lazy = false;
        Ok(())
    }

    /// Moves an inline file's bytes into its backing file. The record that held them stays until they are durable there.
    pub(super) fn spill(&self, inode_ino: u64, state: &mut InodeState) -> Result<(), VfsError> {
        debug_assert!(state.record.inline);
        let bytes = self.inline_bytes(inode_ino, state.record.size)?;
        let mut blocks = 0;
        if bytes.iter().any(|byte| *byte != 0) {
            let at = ChunkAt {
                ino: inode_ino,
                chunk: 0,
            };
            let mut extent = state.data.extent(&self.core, inode_ino, 0)?;
            extent.resident = true;
            extent.dirty = true;
            let written = self.write_range(at, &mut extent, 0..bytes.len(), &bytes, None);
            // It stays a record, and may have got a backing file.
            let unsure = written.inspect_err(|_| self.outgrown(inode_ino))?;
            blocks = extent.allocated();
            let change = state.data.next_change();
            state.data.spill = Some(Spill {
                change,
                noted: false,
                of_nothing: false,
            });
            state.data.with_slot(&self.core, inode_ino, 0, |slot| {
                slot.now = extent;
                slot.needs_mark = true;
                slot.changed = change;
                state.data.set_unsure(slot, change, &unsure);
            })?;
            self.touch_dirty(inode_ino, 0, &extent);
        } else {
            // Nothing to keep: the record may go as soon as the file is no longer inline.
            state.data.spill = Some(Spill {
                change: 0,
                noted: false,
                of_nothing: bytes.is_empty(),
            });
        }
        state.record.inline = false;
        state.record.blocks = blocks;
        self.young.forget(inode_ino);
        state.data.set_ahead(self.core.clock.monotonic(), bytes.len() as u64);
        Ok(())
    }

    /// Takes `range`, which was cut off or punched out, also from the record that an outgrown file still has: it must not come
    /// back with it.
    pub(super) fn cut_spilled(
        &self,
        ino: u64,
        state: &InodeState,
        range: Range<u64>,
        batch: &mut Batch,
    ) -> Result<(), VfsError> {
        if state.data.spill.is_none() || range.start >= YOUNG_BYTES_MAX as u64 {
            return Ok(());
        }
        let mut kept = self.core.store.get(&records::inline_key(ino))?.unwrap_or_default();
        let start = kept.len().min(range.start as usize);
        match usize::try_from(range.end) {
            Ok(end) if end < kept.len() => kept[start..end].fill(0),
            _ if start < kept.len() => kept.truncate(start),
            _ => return Ok(()),
        }
        self.put_inline(ino, &kept, batch);
        Ok(())
    }

    /// Adds the end of an outgrown `b` record to `batch` once its copy is durable, and tells whether it did.
    pub(super) fn end_spill(
        &self,
        ino: u64,
        state: &InodeState,
        synced: u64,
        batch: &mut Batch,
    ) -> Result<bool, VfsError> {
        let Some(spill) = state.data.spill else {
            return Ok(false);
        };
        if !spill.noted || spill.change > synced {
            return Ok(false);
        }
        let key = records::inline_key(ino);
        // A pack may have told it, and then it has to last until one tells of the chunk.
        if !self.core.marks.is_new_since_the_last_cut(&records::inode_key(ino))? {
            let first = state.data.extent(&self.core, ino, 0)?;
            let bytes = match first.dirty && first.stored.is_none() {
                true => self.core.store.get(&key)?,
                false => None,
            };
            if let Some(bytes) = bytes {
                batch.put(kept_key(ino), bytes);
            }
        }
        self.core.marks.mark(batch, &key);
        batch.delete(key);
        batch.delete(spill_key(ino));
        Ok(true)
    }

    /// Brings back what an outgrown `b` record holds if its copy never reached the disk; then ends the note.
    pub(crate) fn recover_spill(&self, inode: &Arc<Inode>) -> Result<(), VfsError> {
        let ino = inode.ino;
        let _guard = self.core.marks.enter();
        let mut state = inode.state.write();
        let state = &mut *state;
        let kept = self.core.store.get(&records::inline_key(ino))?.unwrap_or_default();
        if !state.record.inline {
            let len = kept.len().min(state.record.size as usize);
            for (block, kept) in kept[..len].chunks(BLOCK).enumerate() {
                self.recover_block(ino, state, block, kept)?;
            }
        }
        let change = state.data.last_change();
        state.data.spill = Some(Spill {
            change,
            noted: true,
            of_nothing: false,
        });
        state.data.set_ahead(self.core.clock.monotonic(), 0);
        self.keep_pending(inode);
        Ok(())
    }

    /// The same for one block of it; `kept`: what the record has.
    fn recover_block(&self, ino: u64, state: &mut InodeState, block: usize, kept: &[u8]) -> Result<(), VfsError> {
        let at = ChunkAt { ino, chunk: 0 };
        let range = block * BLOCK..block * BLOCK + kept.len();
        let mut extent = state.data.extent(&self.core, ino, 0)?;
        if extent.stored.is_some() && (!extent.dirty || extent.is_patched()) {
            return Ok(());
        }
        let mut found = vec![0; kept.len()];
        let readable = self.read_range(at, &extent, range.clone(), &mut found).is_ok();
        let wanted = match readable {
            true => filled(self.core.config.at_rest, &found, kept),
            false => kept.to_vec(),
        };
        if readable && wanted == found {
            return Ok(());
        }
        let before = extent.allocated();
        if !readable {
            extent.blocks.remove(block);
        }
        extent.turn_dirty();
        extent.resident = true;
        let unsure = self.write_range(at, &mut extent, range, &wanted, None)?;
        state.record.blocks = state.record.blocks.saturating_sub(before) + extent.allocated();
        let change = state.data.next_change();
        state.data.with_slot(&self.core, ino, 0, |slot| {
            slot.now = extent;
            slot.needs_mark = true;
            state.data.set_unsure(slot, change, &unsure);
        })?;
        self.touch_dirty(ino, 0, &extent);
        Ok(())
    }
}

/// What a power cut left of the copy of a record, with the record where the kernel never wrote the copy back: that reads as zeros.
/// Nothing of a plain file tells whether all sectors of a block were written; a sealed block is there whole, or cannot be read.
fn filled(at_rest: AtRest, found: &[u8], kept: &[u8]) -> Vec<u8> {
    let unit = match at_rest {
        AtRest::Plain => SECTOR_BYTES,
        AtRest::Sealed => BLOCK,
    };
    let mut filled = found.to_vec();
    for (there, kept) in filled.chunks_mut(unit).zip(kept.chunks(unit)) {
        if there.iter().all(|byte| *byte == 0) {
            there.copy_from_slice(kept);
        }
    }
    filled
}
