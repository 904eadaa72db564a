//! Records of the metadata store: their keys and values.
//!
//! | key | value |
//! |---|---|
//! | `i` ino | [`InodeRecord`] |
//! | `d` parent hash | [`DentryBucket`]: the names of that hash (nearly always one) |
//! | `e` ino chunk | [`Extent`] |
//! | `b` ino | the bytes of an inline file |
//! | `x` ino hash | one extended attribute: name and value |
//! | `o` ino | orphan: unlinked while open |
//! | `m` key | change mark: `key` changed since the last sealed cut |
//! | `s` name | singletons (next inode number, clean-unmount flag, …) |
//!
//! Numbers in keys are big-endian, so that key order is number order. No key holds a name: hashes only.

use crate::attr::{FileKind, Timestamp};
use crate::limits::CHUNK_BLOCKS;
use cessfs_crypto::ChunkId;

/// An inode as stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InodeRecord {
    pub kind: FileKind,
    pub perm: u16,
    pub nlink: u32,
    pub uid: u32,
    pub gid: u32,
    pub rdev: u32,
    pub size: u64,
    /// 4096-byte blocks allocated over all extents (inline files: 1 if not empty).
    pub blocks: u64,
    pub atime: Timestamp,
    pub mtime: Timestamp,
    pub ctime: Timestamp,
    pub btime: Timestamp,
    /// Directories: the parent. Others: 0.
    pub parent: u64,
    /// Regular files: content is in `b`, not in extents.
    pub inline: bool,
    /// A sealed delta has carried this inode's content before (see delta.rs).
    pub carried: bool,
    /// Symlinks: the target.
    pub target: Vec<u8>,
}

/// Which blocks of a chunk hold data; the rest are holes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BlockMap(pub [u64; CHUNK_BLOCKS / 64]);

/// One chunk of a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extent {
    /// What the network holds (or will, once its pack is sealed) for this chunk, with its length in bytes.
    pub stored: Option<(ChunkId, u32)>,
    /// Bytes from the chunk's start that `stored` still speaks for: a truncation shrinks it, what lies beyond reads as zeros.
    pub valid: u32,
    /// The backing file holds the chunk's content.
    pub resident: bool,
    /// The backing file is newer than `stored`.
    pub dirty: bool,
    /// Allocated blocks.
    pub blocks: BlockMap,
}

/// The names of one directory that share a hash.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DentryBucket(pub Vec<Dentry>);

/// A name and what it names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dentry {
    pub name: Vec<u8>,
    pub ino: u64,
    pub kind: FileKind,
}
