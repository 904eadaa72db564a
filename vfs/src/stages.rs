//! The stages of this room's work whose time is counted ([`cessfs_sync::stages`]).

use cessfs_sync::stages::Stage;

/// Waiting for the locks of the inodes that an operation changes.
pub static LOCK_INODES: Stage = Stage::new("lock", "inodes");
/// Waiting for the lock of a file that is read, or of one that is written.
pub static LOCK_CONTENT: Stage = Stage::new("lock", "content");
/// Waiting until a cut of the metadata has moved the generation on.
pub static LOCK_MARKS: Stage = Stage::new("lock", "marks");
/// Reading backing files.
pub static CACHE_READ: Stage = Stage::new("disk", "cache_read");
/// Writing backing files.
pub static CACHE_WRITE: Stage = Stage::new("disk", "cache_write");
/// Making backing files durable.
pub static CACHE_SYNC: Stage = Stage::new("disk", "cache_sync");
/// Copying blocks into the store for an fsync.
pub static LOG_BLOCKS: Stage = Stage::new("store", "log_blocks");
/// Sealing a run of blocks.
pub static SEAL_BLOCKS: Stage = Stage::new("crypto", "seal_blocks");
/// Opening a run of blocks.
pub static OPEN_BLOCKS: Stage = Stage::new("crypto", "open_blocks");
/// Finding a chunk's id: a keyed hash over its content.
pub static HASH_CHUNK: Stage = Stage::new("crypto", "hash_chunk");
/// One round of housekeeping.
pub static HOUSEKEEPING: Stage = Stage::new("store", "housekeeping");

/// Every stage of this crate.
pub static ALL: &[&Stage] = &[
    &LOCK_INODES,
    &LOCK_CONTENT,
    &LOCK_MARKS,
    &CACHE_READ,
    &CACHE_WRITE,
    &CACHE_SYNC,
    &LOG_BLOCKS,
    &SEAL_BLOCKS,
    &OPEN_BLOCKS,
    &HASH_CHUNK,
    &HOUSEKEEPING,
];
