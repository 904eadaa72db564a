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
