//! Backing files: where resident content rests on the local disk, one sparse file per inode.
//!
//! Content is read and written in whole blocks of 4096 bytes; which blocks hold data is the extents' business, not ours.
//! Two layouts stand behind one seam: [`plain`] keeps the file's own offsets, [`sealed`] encrypts every block and never
//! overwrites one that was made durable (`docs/FORMAT-cache.md`, `docs/decisions/0002-sealed-cache-two-slots.md`).
//!
//! Promises: a block that was written reads back as it was or not at all (`sealed`; `plain` trusts the disk); what was
//! written before a [`sync`](Backing::sync) that succeeded survives a power cut, whatever is written after it.
//! Refuses: to know sizes, holes or chunk ids.

mod files;
mod plain;
mod recent;
mod sealed;
pub(crate) mod sparse;
mod tags;

use crate::core::AtRest;
use crate::error::VfsError;
use crate::limits::CHUNK_BLOCKS;
use crate::records::BlockMap;
use cessfs_crypto::{AtRestKeys, Entropy};
use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

#[cfg(test)]
pub(crate) use files::DESCRIPTORS;
use files::lacks_descriptors;
pub(crate) use files::{Files, Readahead};
pub(crate) use sealed::Prepared;

/// The start of a run of blocks within one chunk of one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BlockAt {
    pub(crate) ino: u64,
    pub(crate) chunk: u64,
    /// 0..256, within the chunk.
    pub(crate) block: usize,
}

impl BlockAt {
    /// Number of the block within the file.
    pub(crate) fn in_file(&self) -> u64 {
        self.chunk * CHUNK_BLOCKS as u64 + self.block as u64
    }
}

/// Why a backing file did not do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum BackingError {
    /// The disk said so.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// A block is not what was written there.
    #[error("block {} of inode {} is damaged", .0.in_file(), .0.ino)]
    Damaged(BlockAt),
    /// A block was rewritten four billion times.
    #[error("block {} of inode {} has no version left", .0.in_file(), .0.ino)]
    WornOut(BlockAt),
}

impl BackingError {
    /// There was no descriptor to be had.
    pub(crate) fn lacks_descriptors(&self) -> bool {
        matches!(self, BackingError::Io(e) if lacks_descriptors(e))
    }
}

impl From<BackingError> for VfsError {
    fn from(error: BackingError) -> VfsError {
        match error {
            BackingError::Io(e) => e.into(),
            BackingError::Damaged(at) => VfsError::Damaged {
                ino: at.ino,
                offset: at.in_file() * crate::limits::BLOCK_BYTES,
            },
            worn @ BackingError::WornOut(_) => io::Error::other(worn.to_string()).into(),
        }
    }
}

/// Blocks of backing files. Callers serialise writes of one inode; reads may run beside reads.
pub(crate) trait Backing: Send + Sync {
    /// Reads whole blocks, all of which were written.
    fn read(&self, at: BlockAt, out: &mut [u8]) -> Result<(), BackingError>;
    /// Blocks of the chunk are going to be read, one after the other: the disk may begin. Costs nothing that is waited for.
    fn will_read(&self, _ino: u64, _chunk: u64) {}
    /// The beginning of the first chunk is going to be read: the disk may begin.
    fn will_read_first(&self, _ino: u64) {}
    /// Reads what a reader of the first chunk needs before its bytes, for him to find it in memory. Waits for the disk. The caller
    /// reads the inode.
    fn read_ahead(&self, _ino: u64) {}
    /// Much of the chunk was written, and a sync is likely to follow: the disk may begin. Promises nothing.
    fn will_sync(&self, _ino: u64, _chunk: u64) {}
    /// Writes whole blocks.
    fn write(&self, at: BlockAt, data: &[u8]) -> Result<(), BackingError>;
    /// Does what of a write needs no lock, beside other writes of the inode. `None`: nothing to be gained.
    fn prepare(&self, _at: BlockAt, _data: &[u8]) -> Option<Prepared> {
        None
    }
    /// Writes whole blocks for which [`prepare`](Backing::prepare) was called, with the same place and data.
    fn write_prepared(&self, at: BlockAt, data: &[u8], _ready: Prepared) -> Result<(), BackingError> {
        self.write(at, data)
    }
    /// Copies whole blocks, all of which were written, without reading them; false if this layout or this disk cannot, and
    /// then nothing was written that counts.
    fn copy(&self, from: BlockAt, to: BlockAt, blocks: usize) -> Result<bool, BackingError>;
    /// Gives the space of these blocks of a chunk back. They must be written before they are read again.
    fn punch(&self, ino: u64, chunk: u64, blocks: Range<usize>) -> Result<(), BackingError>;
    /// Whether a power cut may leave in one of these blocks, none of which is in use, what it held before it was cut off or
    /// punched out. After a sync of what is written there it no longer may.
    fn may_hold_older(&self, ino: u64, chunk: u64, blocks: Range<usize>) -> Result<bool, BackingError>;
    /// Everything written to the inode before is durable when it returns.
    fn sync(&self, ino: u64) -> Result<(), BackingError>;
    /// The same for every inode.
    fn sync_all(&self) -> Result<(), BackingError>;
    /// Blocks of the inode that are not known to be durable and not [copied](Backing::copied), with the version that
    /// [`restore`](Backing::restore) wants. `None`: more than `max`, something was cut off or punched out and that is not durable,
    /// or this layout cannot tell.
    fn unsynced(&self, _ino: u64, _max: usize) -> Option<Vec<(BlockAt, u32)>> {
        None
    }
    /// The store has copies of these versions of blocks.
    fn copied(&self, _blocks: &[(BlockAt, u32)]) {}
    /// After an unclean end: writes what a block held as of `version`, unless that version or a newer one is there whole.
    fn restore(&self, at: BlockAt, version: u32, data: &[u8]) -> Result<(), BackingError>;
    /// After an unclean end, on a volume that must not change: from now on a block that is torn reads as what
    /// [`repair`](Backing::repair) would fall back to.
    fn fall_back(&self) {}
    /// What an earlier process wrote is durable when it returns, whatever it is.
    fn sync_disk(&self) -> Result<(), BackingError>;
    /// Deletes the files of an inode that is no more.
    fn remove(&self, ino: u64) -> Result<(), BackingError>;
    /// Deletes the files of an inode that may want new ones: a power cut may bring the old ones back, before the next sync.
    fn empty(&self, ino: u64) -> Result<(), BackingError>;
    /// After an unclean end: falls back to the last durable version of blocks whose newest one was torn. Returns the blocks
    /// of `written` of which no version is left.
    fn repair(&self, ino: u64, chunk: u64, written: &BlockMap) -> Result<BlockMap, BackingError>;
    /// The first chunk from `from` on for which the disk has anything, and for which of its blocks: perhaps for more, where the disk's
    /// own blocks are larger. `None`: there is none, or this layout cannot tell.
    fn next_held(&self, _ino: u64, _from: u64) -> Result<Option<(u64, BlockMap)>, BackingError> {
        Ok(None)
    }
    /// Gives back space that only older versions of the chunk's blocks take.
    fn tidy(&self, ino: u64, chunk: u64) -> Result<(), BackingError>;
    /// Bytes that all backing files take on the disk.
    fn used_bytes(&self) -> u64;
    /// Counts [`used_bytes`](Backing::used_bytes) anew, and visits every inode that has backing files on the way.
    fn recount(&self, visit: &mut dyn FnMut(BackingFile)) -> Result<(), BackingError>;
    /// The inode's first part, for others to read and write as the file itself; `make`: made if need be. It stays open until
    /// [`let_go`](Backing::let_go). `None` if there is none, or this layout keeps no such file.
    fn whole_file(&self, _ino: u64, _make: bool) -> Result<Option<Arc<File>>, BackingError> {
        Ok(None)
    }
    /// Whole files that may be open at a time. Whoever opens them counts.
    fn whole_files_max(&self) -> usize {
        0
    }
    /// Others may have written to the whole file: counts the space it takes, and lets the next sync not miss it.
    fn written_by_others(&self, _ino: u64) -> Result<(), BackingError> {
        Ok(())
    }
    /// A power cut may give back what was cut off or punched out of the inode since its last sync.
    fn is_cut(&self, ino: u64) -> bool;
    /// Nobody else has the whole file open any more.
    fn let_go(&self, _ino: u64) {}
    /// Copies what others wrote beyond the end of the first part to where it belongs, durably; tells which blocks of which
    /// chunks. The caller cuts the first part once the journal knows of them.
    fn copy_overhang(&self, _ino: u64) -> Result<Vec<(u64, BlockMap)>, BackingError> {
        Ok(Vec::new())
    }
    /// Takes this for what all backing files take, until they are counted anew.
    fn expect_used(&self, bytes: u64);
    /// Inodes that have backing files in one of the [`BACKING_DIRS`](crate::limits::BACKING_DIRS).
    fn inodes_in(&self, number: usize) -> Result<BTreeSet<u64>, BackingError>;
}

/// The backing files of one inode, as the disk tells.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BackingFile {
    pub(crate) ino: u64,
    /// Taken on the disk.
    pub(crate) bytes: u64,
    /// When one of them was last written.
    pub(crate) modified: SystemTime,
}

/// Opens the backing files under `dir`, making the directory if need be.
pub(crate) fn open(
    dir: &Path,
    at_rest: AtRest,
    keys: AtRestKeys,
    entropy: Arc<Mutex<dyn Entropy>>,
) -> Result<Arc<dyn Backing>, BackingError> {
    Ok(match at_rest {
        AtRest::Plain => Arc::new(plain::Plain::new(Files::open(dir, Readahead::Disk)?)),
        AtRest::Sealed => Arc::new(sealed::Sealed::new(Files::open(dir, Readahead::Asked)?, keys, entropy)),
    })
}

/// How many bytes of a write a disk takes, by its place in the part and its length; none: it is full.
#[cfg(test)]
pub(crate) type Takes = Arc<dyn Fn(u64, usize) -> usize + Send + Sync>;

/// Sealed backing files on a disk that takes no more of a write than `takes` says.
#[cfg(test)]
pub(crate) fn open_sealed_on(
    dir: &Path,
    keys: AtRestKeys,
    entropy: Arc<Mutex<dyn Entropy>>,
    takes: Takes,
) -> Result<Arc<dyn Backing>, BackingError> {
    let files = Files::open(dir, Readahead::Asked)?.taking(takes);
    Ok(Arc::new(sealed::Sealed::new(files, keys, entropy)))
}

#[cfg(test)]
mod tests;
