//! The look at a backing file that others wrote: what of it is new to the records.
//!
//! | the chunk was | found | becomes |
//! |---|---|---|
//! | clean | same blocks, hashes to its id, zeros after what is stored | clean |
//! | clean | anything else | dirty |
//! | dirty | | dirty, and whatever was submitted of it is out of date |
//! | anything | no data | a hole |
//!
//! A look syncs the file first: then the next store through a mapping moves its times again, and what is written during or
//! after the look is found by the next one. The last look needs no sync: there is nobody left who could write.

use super::super::piece::ChunkAt;
use super::super::{BLOCK, CHUNK, Shared, chunk_len};
use super::{PASS_BYTES_MAX, Pass, Stamp};
use crate::backing::sparse;
use crate::error::VfsError;
use crate::inode::{Inode, InodeState};
use crate::limits::{
    CHUNK_BLOCKS, EVICT_BATCH, INLINE_BYTES_MAX, PASS_CLOSE_CHUNKS_MAX, PASS_LOOK_EVERY, PASS_LOOK_SHARE,
};
use crate::records::{BlockMap, Extent};
use cessfs_sync::Batch;
use std::collections::BTreeMap;
use std::fs::File;
use std::sync::Arc;

/// First byte of the keys that note: others may have written to this file's backing file; it is to be believed.
pub(crate) const PASS_PREFIX: &[u8] = b"p";

/// Key of that note.
pub(super) fn pass_key(ino: u64) -> Vec<u8> {
    [PASS_PREFIX, &ino.to_be_bytes()].concat()
}

/// Who looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Looker {
    /// Whoever hands everything over, also for a snapshot, before he sees whether all of it is.
    HandsOver,
    /// The background, which steps aside while a snapshot is taken: what was handed over for it stays complete.
    Background,
    /// Whoever closed the file. The same, and it must not take long.
    Close,
}

impl Shared {
    /// Nothing may turn dirty that this one finds. Asked with the mutation guard held: then it stays so.
    fn must_not_look(&self, who: Looker) -> bool {
        who != Looker::HandsOver && self.core.marks.is_frozen()
    }

    /// Looks at a file that passes. What is written meanwhile is found by the next look.
    pub(crate) fn look(&self, inode: &Arc<Inode>, who: Looker) -> Result<(), VfsError> {
        let file = match &inode.state.read().data.pass {
            Some(pass) if pass.noted && pass.may_have_changed()? => pass.file.clone(),
            _ => return Ok(()),
        };
        let began = self.core.clock.monotonic();
        if let Err(e) = file.sync_data() {
            self.note_failure(inode, e.into());
        }
        let suspects = {
            let _guard = self.core.marks.enter_unseen();
            if self.must_not_look(who) {
                return Ok(());
            }
            let mut state = inode.state.write();
            self.look_at_blocks(inode.ino, &mut state, false)?
        };
        let compared = self.compare(inode, &suspects, who);
        if !matches!(compared, Ok(true)) {
            // The next look has to begin anew.
            if let Some(pass) = &mut inode.state.write().data.pass {
                pass.changed = true;
            }
            return compared.map(drop);
        }
        let now = self.core.clock.monotonic();
        if let Some(pass) = &mut inode.state.write().data.pass {
            let took = now.saturating_sub(began);
            pass.look_at = now + PASS_LOOK_EVERY.max(took * PASS_LOOK_SHARE);
        }
        Ok(())
    }

    /// Ends a pass that nobody uses any more; false if somebody does, or if it is to take its time for that and must not.
    pub(crate) fn settle(&self, inode: &Arc<Inode>, who: Looker) -> Result<bool, VfsError> {
        if self.core.config.read_only {
            // The note is for the next mount.
            return Ok(inode.state.read().data.pass.is_none());
        }
        let (suspects, opened) = {
            let _guard = self.core.marks.enter_unseen();
            let mut state = inode.state.write();
            let InodeState { opens, data, .. } = &*state;
            let Some(pass) = &data.pass else { return Ok(true) };
            if self.must_not_look(who) || *opens > 0 || !sparse::is_alone(&pass.file)? {
                return Ok(false);
            }
            let opened = pass.opened;
            let suspects = match pass.noted {
                true => self.look_at_blocks(inode.ino, &mut state, true)?,
                false => Vec::new(),
            };
            if suspects.is_empty() {
                return self.end_pass(inode.ino, &mut state).map(|()| true);
            }
            // Until they are compared, and if it is opened meanwhile, nothing of it is known to be unchanged.
            if let Some(pass) = &mut state.data.pass {
                pass.changed = true;
            }
            if who == Looker::Close && suspects.len() > PASS_CLOSE_CHUNKS_MAX {
                return Ok(false);
            }
            (suspects, opened)
        };
        if !self.compare(inode, &suspects, who)? {
            return Ok(false);
        }
        let _guard = self.core.marks.enter_unseen();
        let mut state = inode.state.write();
        let InodeState { opens, data, .. } = &*state;
        match &data.pass {
            None => Ok(true),
            // Opened again meanwhile: whoever closes it last looks again.
            Some(pass) if *opens > 0 || pass.opened != opened => Ok(false),
            Some(_) => self.end_pass(inode.ino, &mut state).map(|()| true),
        }
    }

    /// The records say what the backing file holds; the note goes.
    fn end_pass(&self, ino: u64, state: &mut InodeState) -> Result<(), VfsError> {
        let noted = state.data.pass.as_ref().is_some_and(|pass| pass.noted);
        if noted {
            self.backing.written_by_others(ino)?;
            state.data.exact = !state.record.inline;
            if state.record.size > PASS_BYTES_MAX {
                // What lay beyond is durable where it belongs; so must be the records of it.
                self.core.store.barrier()?;
                state
                    .data
                    .pass
                    .iter()
                    .try_for_each(|pass| pass.file.set_len(PASS_BYTES_MAX))?;
                state.data.exact = false;
            }
            let mut batch = Batch::new();
            batch.delete(pass_key(ino));
            self.core.store.commit(batch)?;
        }
        state.data.pass = None;
        self.forget_pass(ino);
        if state.record.inline {
            self.outgrown(ino);
        }
        Ok(())
    }

    pub(in crate::data) fn forget_pass(&self, ino: u64) {
        self.backing.let_go(ino);
        self.passing.lock().remove(&ino);
    }

    /// Brings size, times and block maps up to date, and gives the clean chunks whose content is to be compared. `last`:
    /// nobody can write any more.
    fn look_at_blocks(&self, ino: u64, state: &mut InodeState, last: bool) -> Result<Vec<u64>, VfsError> {
        let Some(pass) = &state.data.pass else {
            return Ok(Vec::new());
        };
        let (file, seen) = (pass.file.clone(), pass.seen);
        let found = Stamp::of(&file)?;
        if !pass.changed && found.is_content_of(&seen) {
            return Ok(Vec::new());
        }
        let mut times = found;
        times.times_after(&self.core, &seen, &state.record);
        (state.record.mtime, state.record.ctime, state.record.atime) = (times.mtime, times.ctime, times.atime);
        let suspects = if state.record.inline && found.size <= INLINE_BYTES_MAX as u64 {
            self.take_inline(ino, state, &file, found.size)?;
            Vec::new()
        } else {
            self.take_blocks(ino, state, &file, found.size, last)?
        };
        self.backing.written_by_others(ino)?;
        if let Some(pass) = &mut state.data.pass {
            pass.changed = !last && found.is_young(&self.core);
            pass.seen = found;
        }
        Ok(suspects)
    }

    /// A small file that was made passing becomes a record.
    fn take_inline(&self, ino: u64, state: &mut InodeState, file: &File, size: u64) -> Result<(), VfsError> {
        let bytes = Shared::read_passing(file, 0, size as usize)?;
        state.record.size = bytes.len() as u64;
        state.record.blocks = u64::from(!bytes.is_empty());
        let mut batch = Batch::new();
        self.put_inline(ino, &bytes, &mut batch);
        self.core.put_inode(&mut batch, ino, &state.record);
        self.core.store.commit(batch)?;
        state.lazy = false;
        Ok(())
    }

    /// What passes and was counted as a record has extents from now on.
    pub(super) fn leave_record(&self, ino: u64, state: &mut InodeState) -> Result<(), VfsError> {
        if state.record.inline {
            let mut batch = Batch::new();
            self.put_inline(ino, &[], &mut batch);
            state.record.inline = false;
            state.record.blocks = 0;
            self.core.put_inode(&mut batch, ino, &state.record);
            self.core.store.commit(batch)?;
        }
        Ok(())
    }

    fn take_blocks(
        &self,
        ino: u64,
        state: &mut InodeState,
        file: &File,
        size: u64,
        last: bool,
    ) -> Result<Vec<u64>, VfsError> {
        self.leave_record(ino, state)?;
        // What lies beyond the first part is moved when nobody writes any more, and not part of the file before.
        let overhang: BTreeMap<u64, BlockMap> = match last && size > PASS_BYTES_MAX {
            true => self.backing.copy_overhang(ino)?.into_iter().collect(),
            false => BTreeMap::new(),
        };
        let size = if last { size } else { size.min(PASS_BYTES_MAX) };
        state.record.size = size;
        let mut suspects = Vec::new();
        for chunk in self.chunks_there(ino, state, file)? {
            let blocks = match overhang.get(&chunk) {
                Some(blocks) => *blocks,
                None if chunk * CHUNK >= PASS_BYTES_MAX => continue,
                None => sparse::data_blocks(file, chunk)?,
            };
            let before = state.data.extent(&self.core, ino, chunk)?;
            let now = as_found(&before, blocks, chunk_len(size, chunk));
            if before.dirty || now.dirty || now.blocks.is_empty() {
                if before.dirty || now != before {
                    self.set_extent(ino, state, chunk, &now)?;
                }
            } else {
                suspects.push(chunk);
            }
            let time = self.core.clock.monotonic();
            state.data.set_ahead(time, 0);
            if state.data.must_journal(time) {
                self.journal_locked(ino, state, None)?;
            }
        }
        state.data.set_ahead(self.core.clock.monotonic(), 0);
        self.journal_locked(ino, state, None)?;
        Ok(suspects)
    }

    /// Turns those of these clean chunks dirty that are not what the network has; false if a snapshot came between. No lock is held
    /// while they are hashed.
    fn compare(&self, inode: &Arc<Inode>, suspects: &[u64], who: Looker) -> Result<bool, VfsError> {
        for page in suspects.chunks(EVICT_BATCH) {
            let mut changed = Vec::new();
            for &chunk in page {
                if let Some(change) = self.differs(inode, chunk)? {
                    changed.push((chunk, change));
                }
            }
            if changed.is_empty() {
                continue;
            }
            let _guard = self.core.marks.enter_unseen();
            if self.must_not_look(who) {
                return Ok(false);
            }
            let mut state = inode.state.write();
            if state.gone {
                return Ok(true);
            }
            for (chunk, change) in changed {
                let (mut now, last) = state
                    .data
                    .with_slot(&self.core, inode.ino, chunk, |slot| (slot.now, slot.changed))?;
                if now.dirty || last != change {
                    continue;
                }
                now.turn_dirty();
                now.valid = now
                    .valid
                    .max(end_of(&now.blocks).min(chunk_len(state.record.size, chunk)));
                self.set_extent(inode.ino, &mut state, chunk, &now)?;
            }
            state.data.set_ahead(self.core.clock.monotonic(), 0);
            self.journal_locked(inode.ino, &mut state, None)?;
        }
        Ok(true)
    }

    /// The last change of a clean chunk whose content is not what the network has.
    fn differs(&self, inode: &Arc<Inode>, chunk: u64) -> Result<Option<u64>, VfsError> {
        let (content, len, id, change) = {
            let state = inode.state.read();
            if state.gone {
                return Ok(None);
            }
            let (mut extent, change) = state
                .data
                .with_slot(&self.core, inode.ino, chunk, |slot| (slot.now, slot.changed))?;
            let Some((id, len)) = extent.stored.filter(|_| extent.resident && !extent.dirty) else {
                return Ok(None);
            };
            let end = end_of(&extent.blocks).min(chunk_len(state.record.size, chunk));
            extent.valid = extent.valid.max(end);
            let at = ChunkAt { ino: inode.ino, chunk };
            (self.read_chunk(at, &extent, len.max(end))?, len as usize, id, change)
        };
        let (stored, rest) = content.split_at(len.min(content.len()));
        let same = self.core.keys.chunk_id(stored) == id && rest.iter().all(|byte| *byte == 0);
        Ok((!same).then_some(change))
    }

    /// Looks at every file that others may write; ends the passes of those that nobody uses.
    pub(crate) fn look_at_all(&self) -> Result<(), VfsError> {
        self.tend(Looker::HandsOver, |_| true)
    }

    /// One round of the background: ends what nobody uses, looks at what is due.
    pub(crate) fn tend_passes(&self) -> Result<(), VfsError> {
        let now = self.core.clock.monotonic();
        self.tend(Looker::Background, |pass| now >= pass.look_at)
    }

    /// Ends the passes of what nobody uses, as far as it goes: what fails is told in the errors, and stays.
    pub(crate) fn end_passes(&self) {
        let _ = self.tend(Looker::Background, |_| false);
    }

    fn tend(&self, who: Looker, due: impl Fn(&Pass) -> bool) -> Result<(), VfsError> {
        if self.core.config.read_only {
            return Ok(());
        }
        let passing: Vec<Arc<Inode>> = self.passing.lock().values().cloned().collect();
        let mut first_error = None;
        for inode in passing {
            let tended = self.settle(&inode, who).and_then(|over| {
                let is_due = !over && inode.state.read().data.pass.as_ref().is_some_and(&due);
                if is_due { self.look(&inode, who) } else { Ok(()) }
            });
            if let Err(e) = tended {
                self.errors
                    .add(format!("inode {}: cannot be looked at: {e}", inode.ino));
                first_error.get_or_insert(e);
            }
        }
        first_error.map_or(Ok(()), Err)
    }

    /// Believes the backing files that the last mount left notes about; some may still be written by who had them open. What is
    /// in them is found in the background, as of any file that others write. On a volume that must not change they stay what is read.
    pub(crate) fn resume_passes(&self) -> Result<(), VfsError> {
        for ino in self.noted_inos(PASS_PREFIX)? {
            let inode = match self.core.inodes.get(&self.core, ino) {
                Ok(inode) => inode,
                Err(VfsError::Stale) => {
                    self.drop_note(ino)?;
                    continue;
                }
                Err(e) => return Err(e),
            };
            let file = self.backing.whole_file(ino, false)?;
            let Some(file) = file else {
                if !inode.state.read().record.inline {
                    self.errors.add(format!("inode {ino}: its backing file is gone"));
                }
                self.drop_note(ino)?;
                continue;
            };
            let mut pass = Pass::new(file)?;
            let mut state = inode.state.write();
            (pass.noted, pass.durable, pass.changed) = (true, true, true);
            pass.seen.mtime = state.record.mtime;
            pass.seen.atime = state.record.atime;
            pass.seen.ctime = Default::default();
            self.start_pass(&inode, &mut state, pass);
        }
        Ok(())
    }

    fn drop_note(&self, ino: u64) -> Result<(), VfsError> {
        if self.core.config.read_only {
            return Ok(());
        }
        let mut batch = Batch::new();
        batch.delete(pass_key(ino));
        Ok(self.core.store.commit(batch)?)
    }

    /// Adds the end of a pass to the batch that deletes its inode.
    pub(in crate::data) fn discard_pass(&self, ino: u64, state: &mut InodeState, batch: &mut Batch) -> bool {
        let Some(_) = state.data.pass.take() else { return false };
        batch.delete(pass_key(ino));
        self.forget_pass(ino);
        true
    }

    /// An inode that has a pass is left alone by the comparison with the journal: it is looked at instead.
    pub(crate) fn is_noted(&self, ino: u64) -> Result<bool, VfsError> {
        Ok(self.core.store.get(&pass_key(ino))?.is_some())
    }
}

/// Bytes up to the end of the last of these blocks.
fn end_of(blocks: &BlockMap) -> u32 {
    let last = (0..CHUNK_BLOCKS).rev().find(|block| blocks.contains(*block));
    last.map_or(0, |block| ((block + 1) * BLOCK) as u32)
}

/// What an extent becomes whose backing file has data in `blocks`, in a chunk of `len` bytes. Clean if it may still be what
/// the network has.
pub(super) fn as_found(before: &Extent, mut blocks: BlockMap, len: u32) -> Extent {
    blocks.remove_range((len as usize).div_ceil(BLOCK)..CHUNK_BLOCKS);
    let mut now = *before;
    let mut gone = before.blocks;
    gone.remove_all(&blocks);
    let is_same = before.blocks == blocks && before.valid <= len && (before.resident || blocks.is_empty());
    if is_same && !before.dirty {
        return now;
    }
    now.turn_dirty();
    now.cut(len);
    for (run, _) in gone.runs(0..CHUNK_BLOCKS).into_iter().filter(|(_, is_gone)| *is_gone) {
        now.drop_blocks(run);
    }
    now.reserved.remove_all(&blocks);
    if blocks.is_empty() {
        return Extent {
            reserved: now.reserved,
            ..Extent::default()
        };
    }
    now.turn_dirty();
    now.resident = true;
    now.blocks = blocks;
    now.valid = now.valid.max(end_of(&blocks).min(len));
    now
}

#[cfg(test)]
mod tests {
    use super::*;
    use cessfs_crypto::ChunkId;

    fn map(blocks: std::ops::Range<usize>) -> BlockMap {
        let mut map = BlockMap::default();
        map.insert_range(blocks);
        map
    }

    fn clean(blocks: std::ops::Range<usize>, valid: u32) -> Extent {
        Extent {
            stored: Some((ChunkId([7; 32]), valid)),
            valid,
            resident: true,
            blocks: map(blocks),
            ..Extent::default()
        }
    }

    #[test]
    fn what_looks_the_same_is_compared() {
        let before = clean(0..3, 10_000);
        assert_eq!(as_found(&before, map(0..3), 10_000), before);
        assert_eq!(
            as_found(&before, map(0..3), 12_288),
            before,
            "grown within its last block"
        );
        assert_eq!(as_found(&Extent::default(), map(0..0), 0), Extent::default());
    }

    #[test]
    fn new_blocks_cut_ends_and_holes_turn_a_chunk_dirty() {
        let before = clean(0..3, 10_000);
        let grown = as_found(&before, map(0..5), 20_480);
        assert!(grown.dirty && grown.resident && grown.blocks == map(0..5) && grown.valid == 20_480);
        assert_eq!(
            grown.kept.map(|kept| (kept.valid, kept.blocks)),
            Some((10_000, map(0..3)))
        );
        let cut = as_found(&before, map(0..3), 5000);
        assert!(cut.dirty && cut.blocks == map(0..2) && cut.valid == 5000);
        assert_eq!(cut.kept.map(|kept| (kept.valid, kept.blocks)), Some((5000, map(0..2))));
        let punched = as_found(&before, map(0..1), 10_000);
        assert!(punched.dirty && punched.blocks == map(0..1));
        assert_eq!(punched.kept.map(|kept| kept.blocks), Some(map(0..1)));
    }

    #[test]
    fn without_data_a_chunk_is_a_hole_but_for_what_is_reserved() {
        let mut before = clean(0..3, 10_000);
        before.reserved = map(8..10);
        let empty = as_found(&before, map(0..0), 50_000);
        assert_eq!(
            empty,
            Extent {
                reserved: map(8..10),
                ..Extent::default()
            }
        );
        let written = as_found(&empty, map(9..10), 50_000);
        assert!(written.dirty && written.resident && written.kept.is_none());
        assert_eq!((written.reserved, written.valid), (map(8..9), 40_960));
    }
}
