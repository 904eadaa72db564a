//! What of sealed blocks is durable, and what an older copy of a block may replace.

use super::{Chunk, Fresh, Sealed, Slot, TagTable, slot_place};
use crate::backing::{Backing, BackingError, BlockAt};
use std::ops::RangeBounds;
use std::sync::Arc;
use std::sync::atomic::Ordering;

impl Fresh {
    /// Takes notice of what a chunk's table says now.
    pub(super) fn note(&mut self, chunk: &Chunk, tags: &TagTable) {
        let key = (chunk.ino, chunk.number);
        for (chunks, is_one) in [
            (&mut self.chunks, tags.any_fresh()),
            (&mut self.uncopied, tags.any_uncopied()),
        ] {
            if is_one {
                chunks.insert(key);
            } else {
                chunks.remove(&key);
            }
        }
    }

    pub(super) fn forget(&mut self, key: &(u64, u64)) {
        self.chunks.remove(key);
        self.uncopied.remove(key);
    }
}

impl Sealed {
    /// Chunks with blocks that are not known to be durable. They stay in memory until they are.
    pub(super) fn fresh_chunks(&self, range: impl RangeBounds<(u64, u64)>) -> Vec<Arc<Chunk>> {
        let keys: Vec<(u64, u64)> = self.fresh.lock().chunks.range(range).copied().collect();
        self.tables_of(&keys)
    }

    fn tables_of(&self, keys: &[(u64, u64)]) -> Vec<Arc<Chunk>> {
        let tables = self.tables.lock();
        keys.iter().filter_map(|key| tables.peek(*key).cloned()).collect()
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
            self.fresh.lock().note(chunk, &tags);
        }
        Ok(result?)
    }

    /// See [`Backing::unsynced`].
    pub(super) fn unsynced_blocks(&self, ino: u64, max: usize) -> Option<Vec<(BlockAt, u32)>> {
        // Versions begin anew where something was punched out: only when that is durable they tell what is newer.
        if self.files.is_cut(ino) {
            return None;
        }
        let uncopied = self
            .fresh
            .lock()
            .uncopied
            .range((ino, 0)..=(ino, u64::MAX))
            .copied()
            .collect::<Vec<_>>();
        let mut found = Vec::new();
        for chunk in self.tables_of(&uncopied) {
            let tags = chunk.tags.lock();
            found.extend(tags.uncopied().filter_map(|block| {
                let slot = tags.current(block)?;
                Some((chunk.at(block), tags.entry(slot, block).version))
            }));
            if found.len() > max {
                return None;
            }
        }
        Some(found)
    }

    /// See [`Backing::copied`].
    pub(super) fn note_copies(&self, blocks: &[(BlockAt, u32)]) {
        for (at, version) in blocks {
            let Some(chunk) = self.tables_of(&[(at.ino, at.chunk)]).pop() else {
                continue;
            };
            let mut tags = chunk.tags.lock();
            let current = tags.current(at.block).map(|slot| tags.entry(slot, at.block).version);
            if current == Some(*version) {
                tags.set_copied(at.block);
                self.fresh.lock().note(&chunk, &tags);
            }
        }
    }

    /// Reads what the other slot of a torn block holds, if that is asked for and there is something.
    pub(super) fn open_older(
        &self,
        chunk: &Chunk,
        slot: Slot,
        block: usize,
        data: &mut [u8],
    ) -> Result<bool, BackingError> {
        if !self.falls_back.load(Ordering::Relaxed) {
            return Ok(false);
        }
        let entry = *chunk.tags.lock().entry(slot, block);
        self.files.read(slot_place(chunk.at(block), slot), data)?;
        Ok(Self::open(chunk, block, &entry, data))
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
