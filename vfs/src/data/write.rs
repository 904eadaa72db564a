//! Writes: into the record, into the backing file; never further while the writer waits, unless it must fetch first.

use super::fetch::{Attempt, Fetched, Want};
use super::piece::ChunkAt;
use super::young::inline_blocks;
use super::{BLOCK, CHUNK, Piece, Shared, pieces};
use crate::Later;
use crate::backing::Prepared;
use crate::core::AtRest;
use crate::error::VfsError;
use crate::inode::{Inode, InodeState};
use crate::limits::{BLOCK_BYTES, FILE_BYTES_MAX, PREPARE_BYTES_MIN, WRITE_AHEAD_BYTES_MIN};
use crate::records::{BlockMap, Extent};
use crate::stages;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

/// Whether a write leaves nothing of a chunk that is not here.
fn replaces(extent: &Extent, range: &Range<usize>) -> bool {
    let is_whole = range.start == 0 && range.end >= extent.valid as usize;
    !extent.resident && (extent.stored.is_none() || is_whole)
}

/// Whether a write changes no block in part that only the network has.
fn covers(extent: &Extent, range: &Range<usize>) -> bool {
    let beneath = extent.beneath().blocks;
    let is_cut = |edge: usize| !edge.is_multiple_of(BLOCK) && beneath.contains(edge / BLOCK);
    !is_cut(range.start) && (range.end >= extent.valid as usize || !is_cut(range.end))
}

/// What was prepared of a write, by chunk.
type Ready = BTreeMap<u64, Prepared>;

impl Shared {
    pub(super) fn write(self: Arc<Self>, inode: &Arc<Inode>, offset: u64, data: &[u8]) -> Result<Later<u32>, VfsError> {
        let len = u32::try_from(data.len()).map_err(|_| VfsError::Invalid("too many bytes in one write"))?;
        let end = offset.checked_add(u64::from(len)).filter(|end| *end <= FILE_BYTES_MAX);
        if end.is_none() {
            return Err(VfsError::TooLarge);
        }
        if data.is_empty() {
            return Ok(Later::Ready(0));
        }
        // What the network has, too, is in nobody's way.
        let takes = || self.disk_takes(u64::from(len));
        if !(takes() || self.give_way() && takes()) {
            return Err(VfsError::NoSpace("the cache disk is full"));
        }
        self.touch_recent(inode.ino);
        let mut ready = self.prepare(inode.ino, offset, data);
        match self.try_write(inode, offset, data, &Fetched::new(), &mut ready)? {
            Attempt::Done(written) => Ok(Later::Ready(written)),
            needs => {
                let (inode, data) = (inode.clone(), data.to_vec());
                Ok(Later::Wait(Box::pin(async move {
                    let again = |fetched: &Fetched| self.try_write(&inode, offset, &data, fetched, &mut Ready::new());
                    self.until_done(&inode, offset, needs, again).await
                })))
            }
        }
    }

    /// What of a large write can be done before the inode is locked, so that the kernel's writeback uses more than one core.
    fn prepare(&self, ino: u64, offset: u64, data: &[u8]) -> Ready {
        if data.len() < PREPARE_BYTES_MIN || !self.has_room() {
            return Ready::new();
        }
        let prepared = pieces(offset, offset + data.len() as u64)
            .into_iter()
            .filter_map(|piece| {
                let chunk = piece.chunk;
                let start = (chunk * CHUNK + piece.range.start as u64 - offset) as usize;
                let bytes = &data[start..start + piece.range.len()];
                Some((chunk, self.prepare_range(ChunkAt { ino, chunk }, &piece.range, bytes)?))
            });
        prepared.collect()
    }

    fn try_write(
        &self,
        inode: &Arc<Inode>,
        offset: u64,
        data: &[u8],
        fetched: &Fetched,
        ready: &mut Ready,
    ) -> Result<Attempt<u32>, VfsError> {
        if !self.has_room() {
            return Ok(Attempt::Room);
        }
        let guard = self.core.marks.enter();
        let waiting = stages::LOCK_CONTENT.enter();
        let mut locked = inode.state.write();
        drop(waiting);
        locked.check_alive()?;
        let result = self.write_locked(inode, &mut locked, offset, data, fetched, ready);
        // Whatever came of it: a part may have been written.
        self.core.quotas.settle(inode, &locked.record);
        let must_sync = locked.data.must_sync();
        drop(locked);
        drop(guard);
        let written = result?;
        match &written {
            Attempt::Done(_) if must_sync => self.persist(inode)?,
            Attempt::Done(len) => self.write_ahead(inode.ino, offset, *len as usize),
            Attempt::Fetch(_) | Attempt::Room => {}
        }
        Ok(written)
    }

    /// Lets the disk begin with large writes, while the writer goes on. What is small is better gathered.
    fn write_ahead(&self, ino: u64, offset: u64, len: usize) {
        if len < WRITE_AHEAD_BYTES_MIN {
            return;
        }
        for piece in pieces(offset, offset + len as u64) {
            if piece.range.len() >= WRITE_AHEAD_BYTES_MIN {
                self.backing.will_sync(ino, piece.chunk);
            }
        }
    }

    fn write_locked(
        &self,
        inode: &Arc<Inode>,
        state: &mut InodeState,
        offset: u64,
        data: &[u8],
        fetched: &Fetched,
        ready: &mut Ready,
    ) -> Result<Attempt<u32>, VfsError> {
        let end = offset + data.len() as u64;
        if state.data.pass.is_some() {
            return self.write_passing(inode.ino, state, offset, data).map(Attempt::Done);
        }
        if self.stays_record(inode.ino, &state.record, offset, end) {
            let growth = inline_blocks(state.record.size.max(end)).saturating_sub(state.record.blocks);
            self.core.quotas.admit_growth(inode, &state.record, growth)?;
            self.write_inline(inode.ino, state, offset as usize, data)?;
            return Ok(Attempt::Done(data.len() as u32));
        }
        if state.record.inline {
            self.spill(inode.ino, state)?;
            self.keep_pending(inode);
        }
        let wants = self.bases(inode, state, offset, end, fetched)?;
        if !wants.is_empty() {
            return Ok(Attempt::Fetch(wants));
        }
        self.admit_blocks(inode, state, offset, end)?;
        let mut written = 0;
        for piece in pieces(offset, end) {
            let bytes = &data[written..written + piece.range.len()];
            match self.write_piece(inode.ino, state, &piece, bytes, ready.remove(&piece.chunk)) {
                Ok(()) => written += bytes.len(),
                Err(VfsError::Damaged { .. }) if written == 0 && self.distrust(inode, state, piece.chunk)? => {
                    return Ok(Attempt::Fetch(self.bases(inode, state, offset, end, fetched)?));
                }
                Err(e) if written == 0 => return Err(e),
                Err(_) => break,
            }
        }
        self.finish_write(inode, state, offset + written as u64, written as u64)?;
        Ok(Attempt::Done(written as u32))
    }

    /// Asks the quota of the inode's tree, if there is one, for the blocks that content at `offset..end` would add.
    ///
    /// # Errors
    /// `Quota`.
    pub(super) fn admit_blocks(
        &self,
        inode: &Inode,
        state: &InodeState,
        offset: u64,
        end: u64,
    ) -> Result<(), VfsError> {
        if state.record.quota == 0 {
            return Ok(());
        }
        let mut growth = 0;
        for piece in pieces(offset, end) {
            let there = state.data.extent(&self.core, inode.ino, piece.chunk)?;
            let mut wanted = BlockMap::default();
            wanted.insert_range(piece.range.start / BLOCK..piece.range.end.div_ceil(BLOCK));
            wanted.remove_all(&there.blocks);
            wanted.remove_all(&there.reserved);
            growth += wanted.count();
        }
        self.core.quotas.admit_growth(inode, &state.record, growth)
    }

    /// Makes the chunks resident of which the write changes a block in part that only the network has; returns those that must
    /// be fetched for it.
    fn bases(
        &self,
        inode: &Arc<Inode>,
        state: &mut InodeState,
        offset: u64,
        end: u64,
        fetched: &Fetched,
    ) -> Result<Vec<Want>, VfsError> {
        let mut wants = Vec::new();
        for piece in pieces(offset, end) {
            let extent = state.data.extent(&self.core, inode.ino, piece.chunk)?;
            let Some((id, len)) = extent.stored else { continue };
            if extent.resident || replaces(&extent, &piece.range) || covers(&extent, &piece.range) {
                continue;
            }
            match fetched.get(&piece.chunk).filter(|(got, _)| *got == id) {
                Some((_, bytes)) => self.fill_chunk(inode, state, piece.chunk, id, bytes, None)?,
                None => wants.push(Want {
                    chunk: piece.chunk,
                    id,
                    len,
                }),
            }
        }
        Ok(wants)
    }

    /// Writes bytes of one chunk that is resident, a hole, replaced as a whole, or written over in whole blocks.
    fn write_piece(
        &self,
        ino: u64,
        state: &mut InodeState,
        piece: &Piece,
        bytes: &[u8],
        ready: Option<Prepared>,
    ) -> Result<(), VfsError> {
        let at = ChunkAt {
            ino,
            chunk: piece.chunk,
        };
        let before = state.data.extent(&self.core, ino, piece.chunk)?;
        let mut extent = before;
        let replaces = replaces(&before, &piece.range);
        extent.turn_dirty();
        if replaces {
            extent.resident = true;
            extent.valid = 0;
            extent.blocks = BlockMap::default();
            extent.over = BlockMap::default();
        }
        let mut local = extent.local();
        let result = self.write_range(at, &mut local, piece.range.clone(), bytes, ready);
        // Damage is found before anything is written. What is not here yet goes on being what the network has.
        if matches!(result, Err(VfsError::Damaged { .. })) || (result.is_err() && !before.resident) {
            return result.map(|_| ());
        }
        extent.take_in(&local);
        let torn = self.may_be_torn(&before, &extent);
        // A write that failed half-way may have changed what was there.
        let change = state.data.next_change();
        let generation = self.core.marks.generation();
        state.data.with_slot(&self.core, ino, piece.chunk, |slot| {
            slot.now = extent;
            slot.changed = change;
            slot.needs_mark |= slot.lacks_mark(generation);
            // The store goes on saying that the network has the old content until the new one is durable.
            if replaces && before.stored.is_some() {
                slot.unsynced = Some(change);
            } else if let Ok(unsure) = &result {
                state.data.set_unsure(slot, change, unsure);
                state.data.set_unsure(slot, change, &torn);
            }
        })?;
        state.record.blocks = (state.record.blocks + extent.allocated()).saturating_sub(before.allocated());
        self.touch_dirty(ino, piece.chunk, &extent);
        result.map(|_| ())
    }

    /// Blocks that were written over what is not here, and of which a power cut may leave some sectors. What those of them hold that
    /// were not written, the network has; a sealed block is there whole, or not.
    fn may_be_torn(&self, before: &Extent, now: &Extent) -> BlockMap {
        let mut torn = BlockMap::default();
        if self.core.config.at_rest == AtRest::Plain {
            torn = now.over;
            torn.remove_all(&before.over);
        }
        torn
    }

    /// Size and times after a write that ended at `end`; journals if too much is ahead of the store.
    fn finish_write(&self, inode: &Arc<Inode>, state: &mut InodeState, end: u64, bytes: u64) -> Result<(), VfsError> {
        if end > state.record.size {
            state.record.size = end;
            state.data.will_tell();
        }
        self.core.stamp_written(&mut state.record, &mut state.data.untold);
        let now = self.core.clock.monotonic();
        state.data.set_ahead(now, bytes);
        self.keep_pending(inode);
        if state.data.must_journal(now) {
            self.journal_locked(inode.ino, state, None)?;
        }
        Ok(())
    }

    /// Makes a chunk what `now` says, in memory: the journal follows. Whoever waited for it to be written back waits no more
    /// if it is not dirty.
    pub(super) fn set_extent(
        &self,
        ino: u64,
        state: &mut InodeState,
        chunk: u64,
        now: &Extent,
    ) -> Result<(), VfsError> {
        self.unlog(ino, state, chunk)?;
        let change = state.data.next_change();
        let generation = self.core.marks.generation();
        let before = state.data.with_slot(&self.core, ino, chunk, |slot| {
            let before = std::mem::replace(&mut slot.now, *now);
            slot.changed = change;
            slot.needs_mark |= slot.lacks_mark(generation);
            // The store may say of it what is: nothing in the backing file has to be durable first.
            if !now.resident && !now.is_patched() {
                slot.unsynced = None;
            }
            before
        })?;
        state.record.blocks = (state.record.blocks + now.allocated()).saturating_sub(before.allocated());
        if now.dirty {
            self.touch_dirty(ino, chunk, now);
        } else {
            self.dirty.lock().forget(ino, chunk);
        }
        Ok(())
    }

    /// Tells the writeback that a chunk changed.
    pub(crate) fn touch_dirty(&self, ino: u64, chunk: u64, extent: &Extent) {
        let bytes = extent.blocks.count() * BLOCK_BYTES;
        let (now, delay) = (self.core.clock.monotonic(), self.core.config.writeback_delay);
        self.dirty.lock().touch(ino, chunk, bytes, now, delay);
        debug_assert!(extent.valid as u64 <= CHUNK);
    }
}
