//! Eviction: what the network is known to hold may leave the cache.

/// What an eviction did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EvictReport {
    /// Bytes of content dropped from the cache.
    pub evicted_bytes: u64,
    /// Bytes of content kept.
    pub kept_bytes: u64,
    /// Chunks kept because the network is not known to hold them yet.
    pub kept_unconfirmed_chunks: u64,
}
