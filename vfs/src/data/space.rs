//! Space: what `fallocate` asks for. Nothing here writes or fetches what a block map can say.
//!
//! A block is data, reserved, or a hole. To reserve and to zero whole blocks only moves them between the maps; punched out,
//! they are in none. So a chunk that the network has and the cache has not is changed without it: its stored content stays
//! what it is, and the map says what of it still shows. Only the few bytes at the ends of a range that cover a block in
//! part are written, and only where there is data; that may need the chunk.

use super::fetch::{Attempt, Fetched, Want};
use super::piece::ChunkAt;
use super::{BLOCK, CHUNK, Piece, Shared, pieces};
use crate::Later;
use crate::error::VfsError;
use crate::inode::{Inode, InodeState};
use crate::limits::{FILE_BYTES_MAX, INLINE_BYTES_MAX};
use crate::records::Extent;
use crate::request::SpaceChange;
use cessfs_sync::Batch;
use std::ops::{ControlFlow, Range};
use std::sync::Arc;

/// A range of a file, and what becomes of it.
#[derive(Clone, Debug)]
pub(super) struct SpaceCall {
    pub(super) what: SpaceChange,
    pub(super) range: Range<u64>,
    /// The file becomes as long as the range's end, if it is shorter.
    pub(super) grows: bool,
    /// Blocks that may be taken at most.
    pub(super) free_blocks: u64,
}

impl Shared {
    pub(super) fn change_space(self: Arc<Self>, inode: &Arc<Inode>, call: SpaceCall) -> Result<Later<()>, VfsError> {
        if call.range.end > FILE_BYTES_MAX {
            return Err(VfsError::TooLarge);
        }
        self.touch_recent(inode.ino);
        match self.try_space(inode, &call, &Fetched::new())? {
            Attempt::Done(()) => Ok(Later::Ready(())),
            needs => {
                let inode = inode.clone();
                Ok(Later::Wait(Box::pin(async move {
                    let again = |fetched: &Fetched| self.try_space(&inode, &call, fetched);
                    self.until_done(&inode, call.range.start, needs, again).await
                })))
            }
        }
    }

    fn try_space(&self, inode: &Arc<Inode>, call: &SpaceCall, fetched: &Fetched) -> Result<Attempt<()>, VfsError> {
        let guard = self.core.marks.enter();
        let mut locked = inode.state.write();
        let state = &mut *locked;
        state.check_alive()?;
        if state.data.pass.is_some() {
            self.change_space_passing(inode.ino, state, call)?;
            return Ok(Attempt::Done(()));
        }
        if state.record.inline && call.stays_inline(state.record.size) {
            let growth = u64::from(call.what != SpaceChange::Punch).saturating_sub(state.record.blocks);
            self.core.quotas.admit_growth(inode, &state.record, growth)?;
            self.change_inline(inode.ino, state, call)?;
            return Ok(Attempt::Done(()));
        }
        self.check_space(state, call)?;
        if state.record.inline {
            self.spill(inode.ino, state)?;
        }
        state.data.set_ahead(self.core.clock.monotonic(), 0);
        self.keep_pending(inode);
        let wants = self.edge_bases(inode, state, call, fetched)?;
        if !wants.is_empty() {
            return Ok(Attempt::Fetch(wants));
        }
        if call.what != SpaceChange::Punch {
            self.admit_blocks(inode, state, call.range.start, call.range.end)?;
        }
        let pieces = self.pieces_to_change(inode.ino, state, call)?;
        for piece in &pieces {
            match self.change_piece(inode.ino, state, call.what, piece) {
                Ok(()) => {}
                Err(VfsError::Damaged { .. }) if self.distrust(inode, state, piece.chunk)? => {
                    return Ok(Attempt::Fetch(self.edge_bases(inode, state, call, fetched)?));
                }
                Err(e) => return Err(e),
            }
            if state.data.must_journal(self.core.clock.monotonic()) {
                self.journal_locked(inode.ino, state, None)?;
            }
        }
        if call.grows && call.range.end > state.record.size {
            state.data.will_tell();
            state.record.size = call.range.end;
        }
        let now = self.core.now();
        state.record.mtime = now;
        state.record.ctime = now;
        state.data.set_ahead(self.core.clock.monotonic(), 0);
        if call.what != SpaceChange::Reserve {
            let mut batch = Batch::new();
            self.cut_spilled(inode.ino, state, call.range.clone(), &mut batch)?;
            self.core.store.commit(batch)?;
        }
        // Before any space is given back: the journal must not promise what is no longer there.
        self.journal_locked(inode.ino, state, None)?;
        if call.what != SpaceChange::Reserve {
            let chunks: Vec<u64> = pieces.iter().map(|piece| piece.chunk).collect();
            self.give_back_chunks(inode.ino, &chunks);
        }
        let must_sync = state.data.must_sync();
        drop(locked);
        drop(guard);
        if must_sync {
            self.persist(inode)?;
        }
        Ok(Attempt::Done(()))
    }

    /// Refuses to take more blocks than there are: a later write into them would fail.
    pub(super) fn check_space(&self, state: &InodeState, call: &SpaceCall) -> Result<(), VfsError> {
        if call.what == SpaceChange::Punch {
            return Ok(());
        }
        let blocks = call.range.end.div_ceil(BLOCK as u64) - call.range.start / BLOCK as u64;
        if blocks.saturating_sub(state.record.blocks) > call.free_blocks {
            return Err(VfsError::NoSpace("less is free than was to be allocated"));
        }
        Ok(())
    }

    /// The parts of chunks that change. Holes need not be punched, however many there are.
    pub(super) fn pieces_to_change(
        &self,
        ino: u64,
        state: &InodeState,
        call: &SpaceCall,
    ) -> Result<Vec<Piece>, VfsError> {
        if call.what != SpaceChange::Punch {
            return Ok(pieces(call.range.start, call.range.end));
        }
        let mut found = Vec::new();
        self.walk(ino, state, call.range.start / CHUNK, &mut |chunk, _| {
            let start = chunk.saturating_mul(CHUNK);
            if start >= call.range.end {
                return ControlFlow::Break(());
            }
            let range = call.range.start.max(start)..call.range.end.min(start + CHUNK);
            let range = (range.start - start) as usize..(range.end - start) as usize;
            found.push(Piece { chunk, range });
            ControlFlow::Continue(())
        })?;
        Ok(found)
    }

    /// Makes the absent chunks resident of which bytes of a block must be zeroed; returns those that must be fetched for it.
    fn edge_bases(
        &self,
        inode: &Arc<Inode>,
        state: &mut InodeState,
        call: &SpaceCall,
        fetched: &Fetched,
    ) -> Result<Vec<Want>, VfsError> {
        let mut wants = Vec::new();
        if call.what == SpaceChange::Reserve {
            return Ok(wants);
        }
        for piece in end_pieces(&call.range) {
            let extent = state.data.extent(&self.core, inode.ino, piece.chunk)?;
            let Some((id, len)) = extent.stored.filter(|_| !extent.resident) else {
                continue;
            };
            if edges(&extent, &piece.range).is_empty() {
                continue;
            }
            let chunk = piece.chunk;
            match fetched.get(&chunk).filter(|(got, _)| *got == id) {
                Some((_, bytes)) => self.fill_chunk(inode, state, chunk, id, bytes, None)?,
                None => wants.push(Want { chunk, id, len }),
            }
        }
        Ok(wants)
    }

    /// Changes a part of one chunk.
    fn change_piece(&self, ino: u64, state: &mut InodeState, what: SpaceChange, piece: &Piece) -> Result<(), VfsError> {
        let at = ChunkAt {
            ino,
            chunk: piece.chunk,
        };
        let before = state.data.extent(&self.core, ino, piece.chunk)?;
        let mut now = before;
        let (start, end) = (piece.range.start, piece.range.end);
        let whole = start.div_ceil(BLOCK)..end / BLOCK;
        let mut written = false;
        if what != SpaceChange::Reserve {
            for edge in edges(&before, &piece.range) {
                written = true;
                now.turn_dirty();
                let zeros = vec![0; edge.len()];
                match self.write_range(at, &mut now, edge, &zeros, None) {
                    Ok(unsure) => debug_assert!(unsure.is_empty(), "only blocks that hold data have edges"),
                    // Damage is found before anything is written.
                    Err(damaged @ VfsError::Damaged { .. }) => return Err(damaged),
                    Err(e) => {
                        self.set_extent(ino, state, piece.chunk, &now)?;
                        return Err(e);
                    }
                }
            }
            if end >= before.valid as usize {
                now.cut(start as u32);
            }
            now.drop_blocks(whole.clone());
        }
        if what == SpaceChange::Punch {
            now.reserved.remove_range(whole);
        } else {
            now.reserved.insert_range(start / BLOCK..end.div_ceil(BLOCK));
            now.reserved.remove_all(&now.blocks);
        }
        // A dirty chunk whose bytes changed looks as before, but what was submitted of it is out of date.
        if written || now != before {
            self.set_extent(ino, state, piece.chunk, &now)?;
        }
        Ok(())
    }

    /// The same in a file whose bytes are a record, and stay one.
    fn change_inline(&self, ino: u64, state: &mut InodeState, call: &SpaceCall) -> Result<(), VfsError> {
        let mut record = state.record.clone();
        if call.grows {
            record.size = record.size.max(call.range.end);
        }
        let mut bytes = self.inline_bytes(ino, record.size)?;
        let whole = call.range.start == 0 && call.range.end >= record.size;
        if call.what != SpaceChange::Reserve {
            let end = bytes.len().min(usize::try_from(call.range.end).unwrap_or(usize::MAX));
            let start = end.min(usize::try_from(call.range.start).unwrap_or(usize::MAX));
            bytes[start..end].fill(0);
        }
        if call.what != SpaceChange::Punch {
            record.blocks = record.blocks.max(1);
        } else if whole {
            record.blocks = 0;
            bytes.clear();
        }
        let now = self.core.now();
        record.mtime = now;
        record.ctime = now;
        let mut batch = Batch::new();
        self.put_inline(ino, &bytes, &mut batch);
        self.core.put_inode(&mut batch, ino, &record);
        self.core.store.commit(batch)?;
        state.record = record;
        state.lazy = false;
        Ok(())
    }
}

impl SpaceCall {
    /// An inline file of this size need not outgrow its record for this. Of more than one block some may become holes, and a
    /// record has none.
    fn stays_inline(&self, size: u64) -> bool {
        let is_small = size <= INLINE_BYTES_MAX as u64 || self.what == SpaceChange::Reserve;
        let ends_inside = self.range.end <= INLINE_BYTES_MAX as u64 || (self.what == SpaceChange::Punch && !self.grows);
        is_small && ends_inside
    }
}

/// The first and the last part of a chunk in `range`; only these cover blocks in part.
fn end_pieces(range: &Range<u64>) -> Vec<Piece> {
    let first = pieces(range.start, range.end.min((range.start / CHUNK + 1) * CHUNK));
    let last_start = (range.end - 1) / CHUNK * CHUNK;
    if last_start <= range.start {
        return first;
    }
    first.into_iter().chain(pieces(last_start, range.end)).collect()
}

/// Bytes of `range` that lie in blocks it covers in part, and that hold data which has to become zeros. None at the end of
/// what is valid: there the chunk is cut.
fn edges(extent: &Extent, range: &Range<usize>) -> Vec<Range<usize>> {
    if range.end >= extent.valid as usize {
        return Vec::new();
    }
    let head = range.start..range.end.min(range.start.next_multiple_of(BLOCK));
    let tail = (range.end / BLOCK * BLOCK).max(head.end)..range.end;
    let holds_data = |edge: &Range<usize>| !edge.is_empty() && extent.blocks.contains(edge.start / BLOCK);
    [head, tail].into_iter().filter(holds_data).collect()
}
