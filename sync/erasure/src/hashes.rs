//! Names that are hashes.

use crate::limits::COLUMNS;

/// SHA-256 of a fragment or segment.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Sha256Hash(pub [u8; 32]);
/// Id of a CESS file (a pack) on chain: 64 hex characters there, 32 bytes here.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Fid(pub [u8; 32]);

/// SHA-256 of a segment and of its twelve fragments, columns 0..12.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentHashes {
    /// Of the 32 MiB.
    pub segment: Sha256Hash,
    /// Of each 8 MiB, data then parity.
    pub fragments: [Sha256Hash; COLUMNS],
}
