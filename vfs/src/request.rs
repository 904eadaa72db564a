//! What callers ask with and what the control side is told: plain values, no FUSE types.

use cessfs_crypto::ChunkId;

/// How a file is opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OpenFlags {
    /// For reading.
    pub read: bool,
    /// For writing.
    pub write: bool,
    /// Every write goes to the end of the file.
    pub append: bool,
    /// Cut to nothing (`O_TRUNC`).
    pub truncate: bool,
    /// Past the page cache (`O_DIRECT`).
    pub direct: bool,
    /// Every write is durable on this disk when it returns (`O_SYNC`, `O_DSYNC`).
    pub sync: bool,
}

/// What `renameat2` may ask.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RenameFlags {
    /// Fail if the new name exists.
    pub no_replace: bool,
    /// Swap the two names.
    pub exchange: bool,
    /// Leave a whiteout (a 0/0 character device) under the old name.
    pub whiteout: bool,
}

/// Whether an xattr may or must exist before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum XattrMode {
    /// Either.
    #[default]
    Any,
    /// It must not (`EEXIST`).
    Create,
    /// It must (`ENODATA`).
    Replace,
}

/// One chunk of a file, for `explain`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExtentInfo {
    /// Which chunk of the file.
    pub index: u64,
    /// What the network holds, or will once its pack is sealed.
    pub stored: Option<ChunkId>,
    /// Bytes of the file in this chunk.
    pub len: u32,
    /// In the cache.
    pub resident: bool,
    /// The cache is newer than the network.
    pub dirty: bool,
    /// In the metadata record itself.
    pub inline: bool,
}

/// What an eviction did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EvictReport {
    /// Bytes freed on the cache disk.
    pub evicted_bytes: u64,
    /// Bytes that had to stay.
    pub kept_bytes: u64,
    /// Chunks that stayed because no pack with them is confirmed yet (I1).
    pub kept_unconfirmed_chunks: u64,
}
