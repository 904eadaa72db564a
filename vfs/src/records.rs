//! Records of the metadata store: their keys and values.
//!
//! | key | value |
//! |---|---|
//! | `i` ino | [`InodeRecord`] |
//! | `d` parent hash | [`DentryBucket`]: the names of that hash (nearly always one) |
//! | `e` ino chunk | [`Extent`] |
//! | `b` ino | the bytes of an inline file |
//! | `x` ino hash | [`XattrBucket`]: the extended attributes whose names have that hash (nearly always one) |
//! | `o` ino | orphan: unlinked while open |
//! | `q` ino | [`QuotaRecord`]: this directory's tree has a quota |
//! | `r` id | [`TrashRecord`]: a deleted file that can be had back |
//! | `n` number | [`SnapshotRecord`]: the tree as of a pack, under a name |
//! | `m` generation key | change mark: `key` changed since the last sealed cut ([`Marks`](crate::delta::Marks)) |
//! | `v` key | value of `key` at the instant of the cut being written |
//! | `w` ino chunk | the chunk is dirty: its content is not known to be in a sealed pack (no value) |
//! | `s` name | singletons (next inode number, clean-unmount flag, …) |
//!
//! Numbers in keys are big-endian, so that key order is number order. No key holds a name: hashes only. Values are
//! little-endian behind a version byte; `docs/FORMAT-records.md` has the byte tables. The same values travel in metadata
//! deltas, so a version, once released, is read for ever.
//!
//! Decoding is strict: every byte is accounted for, and what decodes encodes to the same bytes again.

use crate::attr::{FileKind, Timestamp};
use crate::limits::{BLOCK_BYTES, CHUNK_BLOCKS};
use cessfs_crypto::ChunkId;

mod block_map;
mod codec;
mod kept;
mod keys;
mod snapshot;

pub use codec::{RecordError, decode_counter, decode_pair, encode_counter, encode_pair};
pub use kept::{QuotaPhase, QuotaRecord, TrashRecord};
pub use keys::{
    CLEAN_KEY, DENTRY_PREFIX, EXTENT_PREFIX, FILES_KEY, INLINE_PREFIX, INODE_PREFIX, MARK_PREFIX, NEXT_INO_KEY,
    ORPHAN_PREFIX, QUOTA_PREFIX, SINGLETON_PREFIX, SNAPSHOT_PREFIX, TRASH_PREFIX, XATTR_PREFIX, dentry_key,
    dentry_prefix, extent_key, extent_prefix, inline_key, inode_key, orphan_key, parse_dentry_key, parse_extent_key,
    parse_ino_key, quota_key, snapshot_key, trash_key, xattr_key, xattr_prefix,
};
pub use snapshot::{SnapshotRecord, is_snapshot_name};

/// An inode as stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InodeRecord {
    /// Type; never changes.
    pub kind: FileKind,
    /// Permission bits, 0o7777.
    pub perm: u16,
    /// Hard links; directories: 2 + subdirectories.
    pub nlink: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Device files: the device number. Others: 0.
    pub rdev: u32,
    /// Bytes. Symlinks: of the target. Directories and special files: 0.
    pub size: u64,
    /// 4096-byte blocks allocated over all extents (inline files: 1 if not empty).
    pub blocks: u64,
    /// Last access.
    pub atime: Timestamp,
    /// Last change of content.
    pub mtime: Timestamp,
    /// Last change of the inode.
    pub ctime: Timestamp,
    /// Birth.
    pub btime: Timestamp,
    /// Directories: the parent. Others: 0.
    pub parent: u64,
    /// Extended attributes.
    pub xattrs: u32,
    /// Regular files: content is in `b`, not in extents.
    pub inline: bool,
    /// Symlinks: the target.
    pub target: Vec<u8>,
    /// The directory whose quota it counts for; 0: none.
    pub quota: u64,
    /// Regular files without links: the id of its trash record; 0: not in the trash.
    pub trash: u64,
}

impl InodeRecord {
    /// A new inode of this kind: one link (directories: two), no content, born now. Regular files start inline.
    pub fn new(kind: FileKind, perm: u16, uid: u32, gid: u32, now: Timestamp) -> InodeRecord {
        InodeRecord {
            kind,
            perm,
            nlink: if kind == FileKind::Directory { 2 } else { 1 },
            uid,
            gid,
            rdev: 0,
            size: 0,
            blocks: 0,
            atime: now,
            mtime: now,
            ctime: now,
            btime: now,
            parent: 0,
            xattrs: 0,
            inline: kind == FileKind::Regular,
            target: Vec::new(),
            quota: 0,
            trash: 0,
        }
    }
}

/// Which blocks of a chunk hold data; the rest are holes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BlockMap(pub [u64; CHUNK_BLOCKS / 64]);

/// What of a chunk's stored content still belonged to the file when the chunk was written over.
///
/// Blocks that were punched out and bytes that were cut off since the content was stored are not part of it: whoever falls
/// back to what is stored must not see them again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Bytes from the chunk's start.
    pub valid: u32,
    /// Blocks.
    pub blocks: BlockMap,
}

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
    /// Blocks that hold data. Of stored content only these count: a block that was punched out is not in the map, whatever
    /// the network has at its place.
    pub blocks: BlockMap,
    /// Blocks that are allocated and never written (`fallocate`): they read as zeros, count as taken, and are holes to
    /// `lseek`. None of them is in `blocks`.
    pub reserved: BlockMap,
    /// Dirty chunks with stored content: what of that content to fall back to. `None`: all of it up to `valid`.
    pub kept: Option<Kept>,
    /// Blocks that were written over stored content which is not here: the backing file holds these, the network the rest.
    /// Only of dirty chunks that are not resident, and all of those have some; all of them are in `blocks`.
    pub over: BlockMap,
}

impl Extent {
    /// Blocks that count as taken.
    pub fn allocated(&self) -> u64 {
        self.blocks.count() + self.reserved.count()
    }

    /// A part of the chunk is here, written over content that is not.
    pub fn is_patched(&self) -> bool {
        !self.over.is_empty()
    }

    /// The chunk as far as the backing file holds it.
    pub fn local(&self) -> Extent {
        let blocks = if self.resident { self.blocks } else { self.over };
        Extent { blocks, ..*self }
    }

    /// The backing file holds more of it now, as told by what [`local`](Extent::local) gave.
    pub fn take_in(&mut self, local: &Extent) {
        self.valid = local.valid;
        self.reserved = local.reserved;
        if self.resident {
            self.blocks = local.blocks;
        } else {
            self.over = local.blocks;
            self.blocks.insert_all(&local.blocks);
        }
    }

    /// The chunk as far as only the stored content has it.
    pub fn beneath(&self) -> Extent {
        let mut beneath = *self;
        if self.resident {
            beneath.blocks = BlockMap::default();
        }
        beneath.blocks.remove_all(&self.over);
        beneath.valid = self.kept.map_or(self.valid, |kept| kept.valid);
        beneath
    }

    /// The backing file is about to be newer than what is stored.
    pub fn turn_dirty(&mut self) {
        if self.dirty {
            return;
        }
        self.dirty = true;
        let (valid, blocks) = (self.valid, self.blocks);
        self.kept = self.stored.map(|_| Kept { valid, blocks });
    }

    /// Takes blocks out of what the chunk holds.
    pub fn drop_blocks(&mut self, gone: std::ops::Range<usize>) {
        self.blocks.remove_range(gone.clone());
        if let Some(kept) = &mut self.kept {
            kept.blocks.remove_range(gone.clone());
        }
        self.over.remove_range(gone);
        self.settle_if_bare();
        self.settle_if_empty();
    }

    /// Bytes from `len` on are zeros from now on; so the blocks that only hold such bytes go. Reserved blocks stay.
    pub fn cut(&mut self, len: u32) {
        self.valid = self.valid.min(len);
        if let Some(kept) = &mut self.kept {
            kept.valid = kept.valid.min(len);
        }
        self.drop_blocks((len as usize).div_ceil(BLOCK_BYTES as usize)..CHUNK_BLOCKS);
    }

    /// Nothing is left of what was written over the stored content: it is what the chunk is.
    pub fn settle_if_bare(&mut self) {
        if self.dirty && !self.resident && self.over.is_empty() {
            self.valid = self.beneath().valid.min(self.valid);
            self.dirty = false;
            self.kept = None;
        }
    }

    /// A chunk that holds no data is a hole, but for the blocks reserved in it.
    fn settle_if_empty(&mut self) {
        if self.blocks.is_empty() {
            let reserved = self.reserved;
            *self = Extent {
                reserved,
                ..Extent::default()
            };
        }
    }
}

/// The names of one directory that share a hash.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DentryBucket(pub Vec<Dentry>);

/// A name and what it names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dentry {
    /// 1..=255 bytes.
    pub name: Vec<u8>,
    /// The inode.
    pub ino: u64,
    /// Its type.
    pub kind: FileKind,
}

impl DentryBucket {
    /// The entry called `name`.
    pub fn find(&self, name: &[u8]) -> Option<&Dentry> {
        self.0.iter().find(|dentry| dentry.name == name)
    }
}

/// The extended attributes of one inode whose names share a hash.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct XattrBucket(pub Vec<Xattr>);

/// An extended attribute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Xattr {
    /// With its namespace: `user.comment`. 1..=255 bytes.
    pub name: Vec<u8>,
    /// 0..=65536 bytes.
    pub value: Vec<u8>,
}

#[cfg(test)]
mod tests;
