//! Every bound of the vfs crate, by name.

/// Bytes of a name.
pub const NAME_BYTES_MAX: usize = 255;
/// Hard links of one inode.
pub const NLINK_MAX: u32 = 65_000;
/// Bytes of a backing block: the unit of allocation, of sealing at rest and of `st_blocks`.
pub const BLOCK_BYTES: u64 = 4096;
/// Blocks of a chunk.
pub const CHUNK_BLOCKS: usize = cessfs_sync::limits::CHUNK_BYTES / BLOCK_BYTES as usize;
/// Files up to this many bytes live inline in the metadata store and travel in the delta.
pub const INLINE_BYTES_MAX: usize = 4096;
/// Bytes of one xattr value (Linux: XATTR_SIZE_MAX).
pub const XATTR_VALUE_MAX: usize = 65_536;
/// Largest file: what an `off_t` can say.
pub const FILE_BYTES_MAX: u64 = i64::MAX as u64;
/// Links of a directory (2 + subdirectories): what a signed 32-bit count can say, as XFS has it.
pub const DIR_NLINK_MAX: u32 = i32::MAX as u32;
/// Bytes of a symlink's target (Linux: PATH_MAX less the final NUL).
pub const SYMLINK_BYTES_MAX: usize = 4095;
/// Bytes of an xattr name (Linux: XATTR_NAME_MAX).
pub const XATTR_NAME_MAX: usize = 255;
/// Bytes of the list of an inode's xattr names, NULs included (Linux: XATTR_LIST_MAX).
pub const XATTR_LIST_MAX: usize = 65_536;
/// Xattrs of one inode: as many as always fit the list.
pub const XATTRS_MAX: u32 = (XATTR_LIST_MAX / (XATTR_NAME_MAX + 1)) as u32;
/// Inodes kept in memory though nobody uses them; about 400 bytes each.
pub const INODES_CACHED_MAX: usize = 65_536;
/// Locks the inode table is spread over.
pub const INODE_SHARDS: usize = 16;
/// Least recently used inodes looked at for one that may go, per insertion.
pub const INODE_EVICT_TRIES: usize = 8;
/// Reads of a record without the table's lock before one is made with it.
pub const INODE_LOAD_TRIES: usize = 3;
/// Inode numbers reserved at a time; a crash skips at most this many.
pub const INO_BLOCK: u64 = 4096;
/// Dentry buckets (also empty ones: names that are not there) kept in memory.
pub const DENTRIES_CACHED_MAX: usize = 65_536;
/// Locks the dentry cache is spread over.
pub const DENTRY_SHARDS: usize = 16;
/// Records read at a time by a directory listing or a sweep of the store.
pub const SCAN_PAGE: usize = 256;
/// Inodes whose access times may run ahead of the store before all of them are journaled.
pub const LAZY_INODES_MAX: usize = 4096;
/// Inodes journaled by one batch when lazy changes are written.
pub const LAZY_BATCH: usize = 64;
/// Names that may share one 62-bit hash: two is luck, this many is an attack on the key.
pub const BUCKET_NAMES_MAX: usize = 64;
/// Inodes that `statfs` promises; numbers have 64 bits, the disk ends first.
pub const INODES_MAX: u64 = 1 << 40;
/// Directories on the way up to the root: beyond it the way is taken for a loop.
pub const TREE_DEPTH_MAX: usize = 1 << 20;
/// Bytes that a marked record is taken to add to a delta, for a rough size of what is pending.
pub const DELTA_RECORD_BYTES: u64 = 128;
/// Sentences that a check of the tree gives; whoever needs more has lost the tree.
pub const FINDINGS_MAX: usize = 1000;

const _: () = assert!(INODES_CACHED_MAX.is_multiple_of(INODE_SHARDS));
const _: () = assert!(DENTRIES_CACHED_MAX.is_multiple_of(DENTRY_SHARDS));
const _: () = assert!(XATTRS_MAX as usize * (XATTR_NAME_MAX + 1) <= XATTR_LIST_MAX);
