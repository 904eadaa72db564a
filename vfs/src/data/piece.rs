//! Bytes of one chunk: holes, the end of what is valid, and blocks that are written in part.
//!
//! Bytes of a chunk from `valid` on are zeros, whatever the backing file holds there; so are blocks that are not allocated.
//! Both rules are applied here, by everybody who reads or writes resident content.

use super::{BLOCK, Shared};
use crate::backing::{BlockAt, Prepared};
use crate::error::VfsError;
use crate::limits::PREPARE_BYTES_MIN;
use crate::records::Extent;
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

impl Shared {
    /// Reads whole blocks of a resident chunk; `out` covers blocks from `first` on.
    fn read_blocks(&self, at: ChunkAt, extent: &Extent, first: usize, out: &mut [u8]) -> Result<(), VfsError> {
        let last = first + out.len() / BLOCK;
        for (run, there) in extent.blocks.runs(first..last) {
            let out = &mut out[(run.start - first) * BLOCK..(run.end - first) * BLOCK];
            if there {
                self.backing.read(at.block(run.start), out)?;
            } else {
                out.fill(0);
            }
        }
        let valid = (extent.valid as usize).saturating_sub(first * BLOCK);
        if valid < out.len() {
            out[valid..].fill(0);
        }
        Ok(())
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
            return self.read_blocks(at, extent, first, out);
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

    /// Writes bytes of a resident chunk (with what was prepared for them, if it was) and brings `extent`'s blocks and valid bytes up to date.
    pub(super) fn write_range(
        &self,
        at: ChunkAt,
        extent: &mut Extent,
        range: Range<usize>,
        bytes: &[u8],
        ready: Option<Prepared>,
    ) -> Result<(), VfsError> {
        debug_assert_eq!(range.len(), bytes.len());
        self.clear_tail(at, extent, range.start)?;
        let (first, last) = (range.start / BLOCK, range.end.div_ceil(BLOCK));
        if range.start.is_multiple_of(BLOCK) && range.end.is_multiple_of(BLOCK) {
            match ready {
                Some(ready) => self.backing.write_prepared(at.block(first), bytes, ready)?,
                None => self.backing.write(at.block(first), bytes)?,
            }
        } else {
            let mut blocks = vec![0; (last - first) * BLOCK];
            if !range.start.is_multiple_of(BLOCK) {
                self.read_blocks(at, extent, first, &mut blocks[..BLOCK])?;
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
        Ok(())
    }

    /// Before `valid` moves on past `start`: what lies between in the backing file must be the zeros it reads as.
    fn clear_tail(&self, at: ChunkAt, extent: &Extent, start: usize) -> Result<(), VfsError> {
        let valid = extent.valid as usize;
        let block = valid / BLOCK;
        let partial = !valid.is_multiple_of(BLOCK) && extent.blocks.contains(block);
        // The block of `start` itself is read through the same rules before it is written.
        if !partial || start / BLOCK <= block {
            return Ok(());
        }
        let mut bytes = vec![0; BLOCK];
        self.read_blocks(at, extent, block, &mut bytes)?;
        Ok(self.backing.write(at.block(block), &bytes)?)
    }
}
