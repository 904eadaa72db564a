//! Reads: from the record, from holes, from the backing file, from the network.

use super::fetch::{Attempt, Fetched, Want};
use super::piece::ChunkAt;
use super::{BLOCK, CHUNK, Piece, Shared, pieces};
use crate::Later;
use crate::error::VfsError;
use crate::inode::{Inode, InodeState};
use crate::limits::{FETCH_ROUNDS_MAX, PREFETCH_CHUNKS, PREFETCH_DISORDER_BYTES, PREFETCH_STREAK};
use crate::records::Extent;
use crate::stages;
use bytes::Bytes;
use cessfs_sync::FetchError;
use futures::FutureExt;
use std::ops::Range;
use std::sync::Arc;

/// What was read. What came from the network for it is not in the cache yet: the reader need not wait for that.
pub struct Content {
    bytes: Vec<u8>,
    pub(super) fetched: Option<(Arc<Shared>, Arc<Inode>, Fetched)>,
}

impl Content {
    /// The bytes of the file.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Puts what was fetched into the cache, which takes a millisecond for each chunk; to be called once the reader has the
    /// bytes. Dropped instead it is fetched again by the next reader.
    pub fn keep(self) -> Vec<u8> {
        if let Some((shared, inode, fetched)) = self.fetched {
            shared.fill(&inode, &fetched);
        }
        self.bytes
    }
}

impl From<Vec<u8>> for Content {
    /// What did not come from the network.
    fn from(bytes: Vec<u8>) -> Content {
        Content { bytes, fetched: None }
    }
}

impl Shared {
    pub(super) fn read(self: Arc<Self>, inode: &Arc<Inode>, offset: u64, len: u32) -> Result<Later<Content>, VfsError> {
        self.touch_recent(inode.ino);
        if offset == 0 {
            self.foresee(inode);
        }
        match self.try_read(inode, offset, len, &Fetched::new())? {
            Attempt::Done(bytes) => Ok(Later::Ready(bytes.into())),
            Attempt::Fetch(wants) => {
                let mut reading = self.read_later(inode.clone(), offset, len, wants).boxed();
                // Fetched ahead: it is here, and no other thread need be woken for it.
                Ok(match reading.as_mut().now_or_never() {
                    Some(content) => Later::Ready(content?),
                    None => Later::Wait(reading),
                })
            }
            Attempt::Room => unreachable!("a read takes no room"),
        }
    }

    async fn read_later(
        self: Arc<Self>,
        inode: Arc<Inode>,
        offset: u64,
        len: u32,
        mut wants: Vec<Want>,
    ) -> Result<Content, VfsError> {
        let mut fetched = Fetched::new();
        for _ in 0..FETCH_ROUNDS_MAX {
            if let Err(e) = self.fetch(&wants, &mut fetched).await {
                self.errors.add(format!("inode {} at byte {offset}: {e}", inode.ino));
                return Err(e);
            }
            match self.try_read(&inode, offset, len, &fetched)? {
                Attempt::Done(bytes) => {
                    let fetched = Some((self, inode, fetched));
                    return Ok(Content { bytes, fetched });
                }
                Attempt::Fetch(more) => wants = more,
                Attempt::Room => unreachable!("a read takes no room"),
            }
        }
        Err(FetchError::Unavailable("the content keeps changing while it is fetched".into()).into())
    }

    fn try_read(&self, inode: &Inode, offset: u64, len: u32, fetched: &Fetched) -> Result<Attempt<Vec<u8>>, VfsError> {
        let waiting = stages::LOCK_CONTENT.enter();
        let state = inode.state.read();
        drop(waiting);
        state.check_alive()?;
        if let Some(pass) = &state.data.pass {
            return Shared::read_passing(&pass.file, offset, len as usize).map(Attempt::Done);
        }
        let end = state.record.size.min(offset.saturating_add(u64::from(len)));
        if offset >= end {
            return Ok(Attempt::Done(Vec::new()));
        }
        if state.record.inline {
            let bytes = self.inline_bytes(inode.ino, state.record.size)?;
            return Ok(Attempt::Done(bytes[offset as usize..end as usize].to_vec()));
        }
        let mut out = vec![0; (end - offset) as usize];
        let mut wants = Vec::new();
        for piece in pieces(offset, end) {
            let start = (piece.chunk * CHUNK + piece.range.start as u64 - offset) as usize;
            let out = &mut out[start..start + piece.range.len()];
            wants.extend(self.read_piece(inode, &state, &piece, fetched, out)?);
        }
        if !wants.is_empty() {
            return Ok(Attempt::Fetch(wants));
        }
        self.hint_ahead(inode, &state, offset, end);
        Ok(Attempt::Done(out))
    }

    /// Reads bytes of one chunk, or tells what to fetch first.
    fn read_piece(
        &self,
        inode: &Inode,
        state: &InodeState,
        piece: &Piece,
        fetched: &Fetched,
        out: &mut [u8],
    ) -> Result<Option<Want>, VfsError> {
        let chunk = piece.chunk;
        let mut extent = state.data.extent(&self.core, inode.ino, chunk)?;
        if extent.resident {
            let at = ChunkAt { ino: inode.ino, chunk };
            // It was fetched a moment ago, and most of it is read after that: what was sealed for the cache need not be opened.
            if let Some(bytes) = self.at_hand(&extent) {
                copy_visible(&extent, &bytes, &piece.range, out);
                return Ok(None);
            }
            match self.read_range(at, &extent, piece.range.clone(), out) {
                Err(VfsError::Damaged { .. }) if self.distrust(inode, state, chunk)? => {
                    // From here on it is what the network has.
                    extent = state.data.extent(&self.core, inode.ino, chunk)?;
                }
                other => return other.map(|()| None),
            }
        }
        let Some((id, len)) = extent.stored else {
            out.fill(0);
            return Ok(None);
        };
        let beneath = extent.beneath();
        let blocks = piece.range.start / BLOCK..piece.range.end.div_ceil(BLOCK);
        let is_here = extent.is_patched() && !blocks.into_iter().any(|block| beneath.blocks.contains(block));
        match fetched.get(&chunk).filter(|(got, _)| *got == id) {
            _ if is_here => out.fill(0),
            Some((_, bytes)) => copy_visible(&beneath, bytes, &piece.range, out),
            None => return Ok(Some(Want { chunk, id, len })),
        }
        self.read_over(inode, state, chunk, &extent, &piece.range, out)?;
        Ok(None)
    }

    /// Reads the blocks of `range` that were written over content which is not here.
    fn read_over(
        &self,
        inode: &Inode,
        state: &InodeState,
        chunk: u64,
        extent: &Extent,
        range: &Range<usize>,
        out: &mut [u8],
    ) -> Result<(), VfsError> {
        let at = ChunkAt { ino: inode.ino, chunk };
        let blocks = range.start / BLOCK..range.end.div_ceil(BLOCK);
        for (run, here) in extent.over.runs(blocks) {
            let bytes = range.start.max(run.start * BLOCK)..range.end.min(run.end * BLOCK);
            let out = &mut out[bytes.start - range.start..bytes.end - range.start];
            if here && let Err(e) = self.read_range(at, &extent.local(), bytes, out) {
                if matches!(e, VfsError::Damaged { .. }) {
                    self.distrust(inode, state, chunk)?;
                }
                return Err(e);
            }
        }
        Ok(())
    }

    /// What a chunk holds, if it is in memory still since it came from the network, and nothing was written since.
    fn at_hand(&self, extent: &Extent) -> Option<Bytes> {
        let (id, len) = extent.stored.filter(|_| !extent.dirty)?;
        let bytes = self.core.chunks.at_hand(id)?;
        (bytes.len() == len as usize).then_some(bytes)
    }

    /// A block of the chunk is damaged. If the network has the same content the cached copy is given up, and true returned;
    /// otherwise the damage is told.
    pub(super) fn distrust(&self, inode: &Inode, state: &InodeState, chunk: u64) -> Result<bool, VfsError> {
        let replaceable = state.data.with_slot(&self.core, inode.ino, chunk, |slot| {
            let replaceable = slot.now.stored.is_some() && !slot.now.dirty;
            if replaceable {
                slot.now.resident = false;
                // Nothing of it has to be durable any more, and what is written over it waits for nothing.
                slot.unsynced = None;
            }
            replaceable
        })?;
        let next = if replaceable {
            "it is fetched again"
        } else {
            "nobody else has it"
        };
        self.errors.add(format!(
            "inode {}: the cache of chunk {chunk} is damaged; {next}",
            inode.ino
        ));
        Ok(replaceable)
    }

    /// Tells the chunk store, and the disk, what a sequential reader will want next.
    fn hint_ahead(&self, inode: &Inode, state: &InodeState, offset: u64, end: u64) {
        let hints = {
            let mut cursor = state.data.cursor.lock();
            // What the kernel reads ahead comes as several requests, and not in order.
            if offset.abs_diff(cursor.next) <= PREFETCH_DISORDER_BYTES {
                cursor.streak = cursor.streak.saturating_add(1);
                cursor.next = cursor.next.max(end);
            } else {
                (cursor.streak, cursor.hinted, cursor.next) = (0, 0, end);
            }
            if cursor.streak < PREFETCH_STREAK {
                return;
            }
            let end = cursor.next;
            let first = cursor.hinted.max(end / CHUNK + 1);
            let last = (end / CHUNK + 1 + PREFETCH_CHUNKS).min(state.record.size.div_ceil(CHUNK));
            cursor.hinted = last.max(first);
            first..last
        };
        let (mut chunks, mut ids) = (Vec::new(), Vec::new());
        for chunk in hints {
            match state.data.extent(&self.core, inode.ino, chunk) {
                Ok(extent) if !extent.resident => {
                    if let Some((id, _)) = extent.stored {
                        chunks.push(chunk);
                        ids.push(id);
                    }
                }
                Ok(_) => self.backing.will_read(inode.ino, chunk),
                Err(_) => return,
            }
        }
        if ids.is_empty() {
            return;
        }
        // What is not on its way is hinted at again by the next read.
        if let Some(&left) = chunks.get(self.core.chunks.prefetch(&ids)) {
            let mut cursor = state.data.cursor.lock();
            cursor.hinted = cursor.hinted.min(left);
        }
    }
}

/// Copies `range` of a chunk's stored content as the file shows it: without what was cut off and punched out since.
pub(crate) fn copy_visible(extent: &Extent, stored: &[u8], range: &Range<usize>, out: &mut [u8]) {
    out.fill(0);
    let valid = stored.len().min(extent.valid as usize);
    for (run, there) in extent.blocks.runs(range.start / BLOCK..range.end.div_ceil(BLOCK)) {
        let from = (run.start * BLOCK).max(range.start).min(valid);
        let to = (run.end * BLOCK).min(range.end).min(valid);
        if there && from < to {
            out[from - range.start..to - range.start].copy_from_slice(&stored[from..to]);
        }
    }
}
