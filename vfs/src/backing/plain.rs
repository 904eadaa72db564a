//! The plain layout: every byte where it is in the file itself.
//!
//! For disks that are encrypted already. Because the offsets are the file's own, a file that is fully resident in its first
//! part can be handed to the kernel as it is. A torn or silently changed block is the disk's to notice.

use super::files::PartAt;
use super::{Backing, BackingError, BackingFile, BlockAt, Files, sparse};
use crate::limits::{BACKING_PART_CHUNKS, BLOCK_BYTES, CHUNK_BLOCKS, SMALL_FILE_BYTES};
use crate::records::BlockMap;
use cessfs_sync::limits::CHUNK_BYTES;
use nix::unistd::Whence;
use std::collections::BTreeSet;
use std::fs::File;
use std::ops::Range;
use std::sync::Arc;

/// Backing files that look like the files they stand for.
pub(super) struct Plain {
    files: Files,
}

impl Plain {
    pub(super) fn new(files: Files) -> Plain {
        Plain { files }
    }
}

fn place(at: BlockAt) -> PartAt {
    PartAt {
        ino: at.ino,
        part: at.chunk / BACKING_PART_CHUNKS,
        offset: (at.chunk % BACKING_PART_CHUNKS) * CHUNK_BYTES as u64 + at.block as u64 * BLOCK_BYTES,
    }
}

impl Backing for Plain {
    fn read(&self, at: BlockAt, out: &mut [u8]) -> Result<(), BackingError> {
        Ok(self.files.read(place(at), out)?)
    }

    fn will_read_first(&self, ino: u64) {
        let at = BlockAt {
            ino,
            chunk: 0,
            block: 0,
        };
        self.files.will_read(place(at), SMALL_FILE_BYTES);
    }

    fn will_sync(&self, ino: u64, chunk: u64) {
        self.files
            .will_sync(place(BlockAt { ino, chunk, block: 0 }), CHUNK_BYTES as u64);
    }

    fn write(&self, at: BlockAt, data: &[u8]) -> Result<(), BackingError> {
        Ok(self.files.write(place(at), data)?)
    }

    fn copy(&self, from: BlockAt, to: BlockAt, blocks: usize) -> Result<bool, BackingError> {
        Ok(self.files.copy(place(from), place(to), blocks as u64 * BLOCK_BYTES)?)
    }

    fn punch(&self, ino: u64, chunk: u64, blocks: Range<usize>) -> Result<(), BackingError> {
        let bytes = blocks.len() as u64 * BLOCK_BYTES;
        let block = blocks.start;
        self.files.punch(place(BlockAt { ino, chunk, block }), bytes)?;
        self.files.note_cut(ino);
        Ok(())
    }

    fn may_hold_older(&self, ino: u64, chunk: u64, blocks: Range<usize>) -> Result<bool, BackingError> {
        let (block, bytes) = (blocks.start, blocks.len() as u64 * BLOCK_BYTES);
        let held = self.files.holds_data(place(BlockAt { ino, chunk, block }), bytes);
        Ok(self.files.is_cut(ino) || held?)
    }

    fn sync(&self, ino: u64) -> Result<(), BackingError> {
        Ok(self.files.sync(ino)?)
    }

    fn sync_all(&self) -> Result<(), BackingError> {
        Ok(self.files.sync_all()?)
    }

    fn restore(&self, at: BlockAt, _version: u32, data: &[u8]) -> Result<(), BackingError> {
        // Blocks have no versions here, and nobody is told of one: there is nothing that could be newer.
        self.write(at, data)
    }

    fn sync_disk(&self) -> Result<(), BackingError> {
        Ok(self.files.sync_disk()?)
    }

    fn remove(&self, ino: u64) -> Result<(), BackingError> {
        Ok(self.files.remove(ino)?)
    }

    fn empty(&self, ino: u64) -> Result<(), BackingError> {
        Ok(self.files.empty(ino)?)
    }

    fn repair(&self, _ino: u64, _chunk: u64, _written: &BlockMap) -> Result<BlockMap, BackingError> {
        Ok(BlockMap::default())
    }

    fn next_held(&self, ino: u64, from: u64) -> Result<Option<(u64, BlockMap)>, BackingError> {
        let from = place(BlockAt {
            ino,
            chunk: from,
            block: 0,
        });
        let Some(found) = self.files.next_data(from)? else {
            return Ok(None);
        };
        let offset = found.offset - found.offset % CHUNK_BYTES as u64;
        let held = self.files.data_blocks(PartAt { offset, ..found })?;
        let chunk = found.part * BACKING_PART_CHUNKS + offset / CHUNK_BYTES as u64;
        Ok(Some((chunk, held)))
    }

    fn tidy(&self, _ino: u64, _chunk: u64) -> Result<(), BackingError> {
        Ok(())
    }

    fn used_bytes(&self) -> u64 {
        self.files.used_bytes()
    }

    fn recount(&self, visit: &mut dyn FnMut(BackingFile)) -> Result<(), BackingError> {
        Ok(self.files.recount(visit)?)
    }

    fn whole_file(&self, ino: u64, make: bool) -> Result<Option<Arc<File>>, BackingError> {
        Ok(self.files.pin(ino, make)?)
    }

    fn whole_files_max(&self) -> usize {
        self.files.pins_max()
    }

    fn written_by_others(&self, ino: u64) -> Result<(), BackingError> {
        Ok(self.files.written_by_others(ino)?)
    }

    fn is_cut(&self, ino: u64) -> bool {
        self.files.is_cut(ino)
    }

    fn let_go(&self, ino: u64) {
        self.files.unpin(ino);
    }

    fn copy_overhang(&self, ino: u64) -> Result<Vec<(u64, BlockMap)>, BackingError> {
        let mut copied = Vec::new();
        let Some(file) = self.files.pin(ino, false)? else {
            return Ok(copied);
        };
        let mut from = BACKING_PART_CHUNKS;
        while let Some(at) = sparse::seek(&file, from * CHUNK_BYTES as u64, Whence::SeekData)? {
            let chunk = at / CHUNK_BYTES as u64;
            let blocks = sparse::data_blocks(&file, chunk)?;
            let mut bytes = vec![0; CHUNK_BYTES];
            let offset = chunk * CHUNK_BYTES as u64;
            self.files.read(PartAt { ino, part: 0, offset }, &mut bytes)?;
            for (run, _) in blocks.runs(0..CHUNK_BLOCKS).into_iter().filter(|(_, there)| *there) {
                let block = run.start;
                let range = run.start * BLOCK_BYTES as usize..run.end * BLOCK_BYTES as usize;
                self.files.write(place(BlockAt { ino, chunk, block }), &bytes[range])?;
            }
            copied.push((chunk, blocks));
            from = chunk + 1;
        }
        if !copied.is_empty() {
            self.files.sync(ino)?;
        }
        Ok(copied)
    }

    fn expect_used(&self, bytes: u64) {
        self.files.expect_used(bytes);
    }

    fn inodes_in(&self, number: usize) -> Result<BTreeSet<u64>, BackingError> {
        Ok(self.files.inodes_in(number)?)
    }
}
