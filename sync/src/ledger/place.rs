//! Where a chunk lies: the value under `K` and its id.

use crate::pack::ChunkEntry;
use crate::store::StoreError;
use cessfs_crypto::{ChunkId, PackSeq};

const PLACE_VERSION: u8 = 1;

/// A chunk's frame in a pack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The pack.
    pub seq: PackSeq,
    /// Where the frame starts in its body.
    pub offset: u64,
    /// Bytes of the frame, nonce and tag included.
    pub len: u32,
}

impl Place {
    pub(crate) fn new(seq: PackSeq, entry: &ChunkEntry) -> Place {
        Place {
            seq,
            offset: entry.offset,
            len: entry.len,
        }
    }

    pub(crate) fn key(id: ChunkId) -> Vec<u8> {
        let mut key = Vec::with_capacity(33);
        key.push(b'K');
        key.extend_from_slice(&id.0);
        key
    }

    /// Version, pack, offset, length: 21 bytes, little-endian.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(21);
        out.push(PLACE_VERSION);
        out.extend_from_slice(&self.seq.0.to_le_bytes());
        out.extend_from_slice(&self.offset.to_le_bytes());
        out.extend_from_slice(&self.len.to_le_bytes());
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Place, StoreError> {
        let fields = || {
            let (version, rest) = bytes.split_first()?;
            let (seq, rest) = rest.split_first_chunk()?;
            let (offset, rest) = rest.split_first_chunk()?;
            let len: &[u8; 4] = rest.try_into().ok()?;
            (*version == PLACE_VERSION).then(|| Place {
                seq: PackSeq(u64::from_le_bytes(*seq)),
                offset: u64::from_le_bytes(*offset),
                len: u32::from_le_bytes(*len),
            })
        };
        fields().ok_or_else(|| StoreError::Corrupt("chunk location".into()))
    }
}
