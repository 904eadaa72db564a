//! Bytes of one chunk: holes, the end of what is valid, and blocks that are written in part.
//!
//! Bytes of a chunk from `valid` on are zeros, whatever the backing file holds there; so are blocks that are not allocated.
//! Both rules are applied here, by everybody who reads or writes resident content.

use super::{BLOCK, CHUNK, Shared};
use crate::backing::{BlockAt, Prepared};
use crate::error::VfsError;
use crate::limits::PREPARE_BYTES_MIN;
use crate::records::{BlockMap, Extent};
use std::ops::Range;

/// A resident chunk of a file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ChunkAt {
    pub(crate) ino: u64,
    pub(crate) chunk: u64,
}

impl ChunkAt {
    pub(crate) fn block(&self, block: usize) -> BlockAt {
        BlockAt {
            ino: self.ino,
            chunk: self.chunk,
            block,
        }
    }
}

/// A run of bytes within one chunk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) chunk: u64,
    /// Within the chunk.
    pub(crate) range: Range<usize>,
}

/// Cuts `offset..end` at chunk boundaries.
pub(crate) fn pieces(offset: u64, end: u64) -> Vec<Piece> {
    let mut out = Vec::new();
    let mut at = offset;
    while at < end {
        let chunk = at / CHUNK;
        let stop = end.min((chunk + 1) * CHUNK);
        out.push(Piece {
            chunk,
            range: (at - chunk * CHUNK) as usize..(stop - chunk * CHUNK) as usize,
        });
        at = stop;
    }
    out
}

/// Bytes of chunk `chunk` of a file of `size` bytes.
pub(crate) fn chunk_len(size: u64, chunk: u64) -> u32 {
    size.saturating_sub(chunk * CHUNK).min(CHUNK) as u32
}

impl Shared {
    /// Reads whole blocks of a resident chunk; `out` covers blocks from `first` on. True if the backing file holds more than
    /// zeros where something was cut off.
    fn read_blocks(&self, at: ChunkAt, extent: &Extent, first: usize, out: &mut [u8]) -> Result<bool, VfsError> {
        let last = first + out.len() / BLOCK;
        for (run, there) in extent.blocks.runs(first..last) {
            let out = &mut out[(run.start - first) * BLOCK..(run.end - first) * BLOCK];
            if there {
                self.backing.read(at.block(run.start), out)?;
            } else {
                out.fill(0);
            }
        }
        let valid = (extent.valid as usize).saturating_sub(first * BLOCK).min(out.len());
        let hidden = out[valid..].iter().any(|byte| *byte != 0);
        if hidden {
            out[valid..].fill(0);
        }
        Ok(hidden)
    }

    /// Reads bytes of a resident chunk.
    pub(crate) fn read_range(
        &self,
        at: ChunkAt,
        extent: &Extent,
        range: Range<usize>,
        out: &mut [u8],
    ) -> Result<(), VfsError> {
        debug_assert_eq!(range.len(), out.len());
        let (first, last) = (range.start / BLOCK, range.end.div_ceil(BLOCK));
        if range.start.is_multiple_of(BLOCK) && range.end.is_multiple_of(BLOCK) {
            self.read_blocks(at, extent, first, out)?;
            return Ok(());
        }
        let mut blocks = vec![0; (last - first) * BLOCK];
        self.read_blocks(at, extent, first, &mut blocks)?;
        out.copy_from_slice(&blocks[range.start - first * BLOCK..][..range.len()]);
        Ok(())
    }

    /// The first `len` bytes of a resident chunk.
    pub(crate) fn read_chunk(&self, at: ChunkAt, extent: &Extent, len: u32) -> Result<Vec<u8>, VfsError> {
        let mut out = vec![0; len as usize];
        self.read_range(at, extent, 0..len as usize, &mut out)?;
        Ok(out)
    }

    /// Prepares a write of bytes of one chunk, if it covers whole blocks and is large enough to be worth it.
    pub(super) fn prepare_range(&self, at: ChunkAt, range: &Range<usize>, bytes: &[u8]) -> Option<Prepared> {
        let whole = range.start.is_multiple_of(BLOCK) && range.end.is_multiple_of(BLOCK);
        if !whole || bytes.len() < PREPARE_BYTES_MIN {
            return None;
        }
        self.backing.prepare(at.block(range.start / BLOCK), bytes)
    }

    /// Writes bytes of a resident chunk, with what was prepared for them, if it was, and brings `extent`'s blocks and valid bytes
    /// up to date. Returns the blocks that had been cut off or punched out, and that a power cut may give back as they were
    /// before.
    pub(super) fn write_range(
        &self,
        at: ChunkAt,
        extent: &mut Extent,
        range: Range<usize>,
        bytes: &[u8],
        ready: Option<Prepared>,
    ) -> Result<BlockMap, VfsError> {
        debug_assert_eq!(range.len(), bytes.len());
        let (first, last) = (range.start / BLOCK, range.end.div_ceil(BLOCK));
        let tail = self.settle_tail(at, extent, &range)?;
        let mut unsure = BlockMap::default();
        for (run, named) in extent.blocks.runs(first..last) {
            if !named && self.backing.may_hold_older(at.ino, at.chunk, run.clone())? {
                unsure.insert_range(run);
            }
        }
        if range.start.is_multiple_of(BLOCK) && range.end.is_multiple_of(BLOCK) {
            match ready {
                Some(ready) => self.backing.write_prepared(at.block(first), bytes, ready)?,
                None => self.backing.write(at.block(first), bytes)?,
            }
        } else {
            let mut blocks = vec![0; (last - first) * BLOCK];
            if !range.start.is_multiple_of(BLOCK) {
                match tail {
                    Some((block, there)) if block == first => blocks[..BLOCK].copy_from_slice(&there),
                    _ => self.read_blocks(at, extent, first, &mut blocks[..BLOCK]).map(|_| ())?,
                }
            }
            let ends_inside = !range.end.is_multiple_of(BLOCK) && range.end < extent.valid as usize;
            if ends_inside && (last - 1 > first || range.start.is_multiple_of(BLOCK)) {
                let at_last = (last - 1 - first) * BLOCK;
                self.read_blocks(at, extent, last - 1, &mut blocks[at_last..])?;
            }
            blocks[range.start - first * BLOCK..][..range.len()].copy_from_slice(bytes);
            self.backing.write(at.block(first), &blocks)?;
        }
        extent.blocks.insert_range(first..last);
        extent.reserved.remove_range(first..last);
        extent.valid = extent.valid.max(range.end as u32);
        Ok(unsure)
    }

    /// Before `range` is written, and `valid` perhaps moves on: what follows the valid bytes in their last block must be the
    /// zeros it reads as, now and after a power cut. If not, they are made so and synced: once after a truncation into a block,
    /// at the first write there. Returns the block, if the write comes to it or passes it.
    fn settle_tail(
        &self,
        at: ChunkAt,
        extent: &Extent,
        range: &Range<usize>,
    ) -> Result<Option<(usize, Vec<u8>)>, VfsError> {
        let valid = extent.valid as usize;
        let block = valid / BLOCK;
        let is_partial = !valid.is_multiple_of(BLOCK) && extent.blocks.contains(block);
        if !is_partial || range.end <= block * BLOCK {
            return Ok(None);
        }
        let mut bytes = vec![0; BLOCK];
        match self.read_blocks(at, extent, block, &mut bytes) {
            Ok(false) => {}
            Ok(true) => {
                self.backing.write(at.block(block), &bytes)?;
                self.backing.sync(at.ino)?;
            }
            // Damaged, and about to be replaced.
            Err(_) if range.start <= block * BLOCK && range.end >= valid => return Ok(None),
            Err(e) => return Err(e),
        }
        Ok(Some((block, bytes)))
    }
}
