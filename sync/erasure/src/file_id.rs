//! The id of a CESS file: a Merkle root over its segments' hashes.
//!
//! The network knows two rules and its chain checks neither (facts 2.2); ours is the one of the CESS Go SDK: raw 32-byte
//! hashes, parent = SHA-256(left || right), an odd node is paired with itself, and a single segment is hashed with itself.

use crate::hash::sha256;
use crate::{Fid, Sha256Hash};

/// The fid of a file of these segments, in order.
///
/// # Panics
/// Without any segment: a CESS file has at least one.
pub fn file_id(segments: &[Sha256Hash]) -> Fid {
    assert!(!segments.is_empty(), "a file has at least one segment");
    let mut level: Vec<Sha256Hash> = segments.to_vec();
    loop {
        level = level
            .chunks(2)
            .map(|pair| parent(pair[0], *pair.last().unwrap_or(&pair[0])))
            .collect();
        if let [root] = level[..] {
            return Fid(root.0);
        }
    }
}

fn parent(left: Sha256Hash, right: Sha256Hash) -> Sha256Hash {
    let mut both = [0; 64];
    both[..32].copy_from_slice(&left.0);
    both[32..].copy_from_slice(&right.0);
    sha256(&both)
}
