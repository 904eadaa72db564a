//! The erasure code of the CESS network: a 32 MiB segment becomes 4 data and 8 parity fragments of 8 MiB.
//!
//! All hashes that a declaration needs come from one pass over a pack's body ([`pack_hashes`]), which holds 1 MiB. Any four
//! of twelve columns give the segment back ([`decode`]), or only the part of it that is wanted ([`decode_shard`]); any byte
//! range of any column can be computed from the same range of the four data shards ([`column_range`]), so that what a miner
//! returns can be checked without encoding the segment again.
//!
//! Promises that the bytes are those every other CESS client computes: GF(2^8) with polynomial 0x11D, systematic
//! Vandermonde matrix, contiguous data shards (facts 2.1). Hashes are SHA-256 over segment and fragments, and the id of
//! a file is the Merkle root over its segments ([`file_id()`]). Nothing here knows keys, chunks or miners.
//!
//! All of it is CPU work that blocks the calling thread; async callers move it to a blocking thread.

mod code;
mod file_id;
pub mod geometry;
mod hash;
mod hashes;
#[cfg(target_arch = "x86_64")]
mod lanes;
pub mod limits;
mod pack;

pub use code::{column_range, decode, decode_shard, encode};
pub use file_id::file_id;
pub use hash::{sha256, sha256_of};
pub use hashes::{Fid, SegmentHashes, Sha256Hash};
pub use pack::{HASH_GROUP, pack_hashes};

/// Why a decode was refused. Both kinds are mistakes of the caller about what it has, never a property of the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ErasureError {
    /// A column is not in 0..12, or given twice.
    #[error("column {0} is outside 0..12 or given twice")]
    Column(u8),
    /// Shards that belong together differ in length.
    #[error("shard of {got} bytes where {want} were expected")]
    Length {
        /// Bytes expected.
        want: usize,
        /// Bytes given.
        got: usize,
    },
}

#[cfg(test)]
mod tests;
