//! What of sealed blocks is durable, and what an older copy of a block may replace.

use super::{Chunk, Sealed, Slot};
use crate::backing::{Backing, BackingError, BlockAt};
use crate::limits::CHUNK_BLOCKS;
use std::ops::RangeBounds;
use std::sync::Arc;

impl Sealed {
    /// Chunks with blocks that are not known to be durable. They stay in memory until they are.
    pub(super) fn fresh_chunks(&self, range: impl RangeBounds<(u64, u64)>) -> Vec<Arc<Chunk>> {
        let keys: Vec<(u64, u64)> = self.fresh.lock().range(range).copied().collect();
        let tables = self.tables.lock();
        keys.iter().filter_map(|key| tables.peek(key).cloned()).collect()
    }

    /// Runs `sync` and then knows that what was fresh in these chunks before it is durable.
    pub(super) fn sync_tables(
        &self,
        chunks: Vec<Arc<Chunk>>,
        sync: impl FnOnce() -> std::io::Result<()>,
    ) -> Result<(), BackingError> {
        let covered: Vec<_> = chunks.iter().filter(|chunk| chunk.tags.lock().begin_sync()).collect();
        let result = sync();
        for chunk in covered {
            let mut tags = chunk.tags.lock();
            tags.end_sync(result.is_ok());
            if !tags.any_fresh() {
                self.fresh.lock().remove(&(chunk.ino, chunk.number));
            }
        }
        Ok(result?)
    }

    /// See [`Backing::unsynced`].
    pub(super) fn unsynced_blocks(&self, ino: u64, max: usize) -> Option<Vec<(BlockAt, u32)>> {
        // Versions begin anew where something was punched out: only when that is durable they tell what is newer.
        if self.files.is_cut(ino) {
            return None;
        }
        let mut found = Vec::new();
        for chunk in self.fresh_chunks((ino, 0)..=(ino, u64::MAX)) {
            let tags = chunk.tags.lock();
            let fresh = (0..CHUNK_BLOCKS).filter(|block| tags.is_fresh(*block));
            found.extend(fresh.filter_map(|block| {
                let slot = tags.current(block)?;
                Some((chunk.at(block), tags.entry(slot, block).version))
            }));
            if found.len() > max {
                return None;
            }
        }
        Some(found)
    }

    /// See [`Backing::restore`].
    pub(super) fn restore_block(&self, at: BlockAt, version: u32, data: &[u8]) -> Result<(), BackingError> {
        let chunk = self.chunk(at.ino, at.chunk)?;
        for slot in [Slot::A, Slot::B] {
            let entry = *chunk.tags.lock().entry(slot, at.block);
            // Also below a newer one that is torn: there `repair` goes back to it.
            if entry.version >= version && self.slot_opens(&chunk, slot, at.block, &entry)? {
                return Ok(());
            }
        }
        self.write(at, data)
    }
}
