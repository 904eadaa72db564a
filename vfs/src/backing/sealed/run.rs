//! Writing sealed blocks, a run at a time: data, then entries.
//!
//! A block that is not durable is written over in its own slot, so a write that fails half-way may leave new data under an old
//! entry. What got through whole gets its entry all the same: then it is the new version. What is torn can be read no more, and
//! perhaps an fsync promised it by way of a copy in the store: no sync of the inode succeeds from then on, so the copy stays.

use super::{BLOCK, Chunk, Prepared, Run, Sealed, entry_place, push_run, slot_place};
use crate::backing::BackingError;
use crate::backing::tags::{ENTRY_BYTES, Entry, TagTable};
use crate::limits::SEAL_BUFFERS_MAX;
use std::io;

impl Sealed {
    /// Writes sealed blocks from `first` on. The table says what was written of them, also if that is not all.
    pub(super) fn write_sealed(
        &self,
        chunk: &Chunk,
        tags: &mut TagTable,
        first: usize,
        ready: Prepared,
    ) -> Result<(), BackingError> {
        let mut runs = Vec::new();
        for (block, (slot, _)) in (first..).zip(&ready.targets) {
            push_run(&mut runs, *slot, block);
        }
        for run in &runs {
            let within = run.blocks.start - first..run.blocks.end - first;
            let bytes = &ready.bytes[within.start * BLOCK..within.end * BLOCK];
            self.write_run(chunk, tags, run, bytes, &ready.entries[within])?;
        }
        let mut spare = self.spare.lock();
        if spare.len() < SEAL_BUFFERS_MAX {
            spare.push(ready.bytes);
        }
        Ok(())
    }

    fn write_run(
        &self,
        chunk: &Chunk,
        tags: &mut TagTable,
        run: &Run,
        bytes: &[u8],
        entries: &[Entry],
    ) -> Result<(), BackingError> {
        let start = chunk.at(run.blocks.start);
        let (done, mut result) = self.files.write_some(slot_place(start, run.slot), bytes);
        let whole = &entries[..done / BLOCK];
        let mut entered = 0;
        if !whole.is_empty() {
            let place = entry_place(start, run.slot);
            let (done, written) = self.files.write_some(place, &TagTable::encode_run(whole));
            entered = done / ENTRY_BYTES;
            result = result.and(written);
        }
        for (block, entry) in run.blocks.clone().zip(&whole[..entered]) {
            tags.set_entry(run.slot, block, *entry);
            tags.set_fresh(block);
        }
        self.fresh.lock().note(chunk, tags);
        if let Err(e) = &result {
            self.look_for_torn(chunk, tags, run, entered, e);
        }
        Ok(result?)
    }

    /// After a write of a run that failed with `error` once `entered` blocks of it were there.
    fn look_for_torn(&self, chunk: &Chunk, tags: &TagTable, run: &Run, entered: usize, error: &io::Error) {
        let mut rest = run.blocks.clone().skip(entered);
        let is_torn = |block| {
            let entry = tags.entry(run.slot, block);
            let counts = tags.current(block) == Some(run.slot);
            counts && !self.slot_opens(chunk, run.slot, block, entry).unwrap_or(false)
        };
        if rest.any(is_torn) {
            self.files.give_up(chunk.ino, error);
        }
    }
}
