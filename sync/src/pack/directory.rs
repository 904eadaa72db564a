//! The directory: which chunk and which delta frame lies where.
//!
//! One stream of entries, first chunks then deltas, in pack order, cut into frames of 1 MiB of plaintext (the last one shorter).
//! Frames lie back to back, so each entry's place is known twice; the decoder demands that both agree.

use super::{Footer, HEADER_SEALED_BYTES, PackError};
use crate::limits::{CHUNK_BYTES, DELTA_FRAME_BYTES_MAX, DIRECTORY_FRAME_BYTES};
use cessfs_crypto::{ChunkId, Entropy, FrameId, FrameKind, PackSeq, SEAL_OVERHEAD, VolumeKeys};
use std::collections::HashSet;

/// Bytes of a chunk entry: id, offset, sealed length.
const CHUNK_ENTRY_BYTES: u64 = 32 + 8 + 4;
/// Bytes of a delta entry: offset, sealed length.
const DELTA_ENTRY_BYTES: u64 = 8 + 4;

/// A chunk frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkEntry {
    /// Whose plaintext it is.
    pub id: ChunkId,
    /// Where its frame starts in the pack.
    pub offset: u64,
    /// Bytes of the frame, nonce and tag included.
    pub len: u32,
}

/// A delta frame; its index is its place in the directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeltaEntry {
    /// Where its frame starts in the pack.
    pub offset: u64,
    /// Bytes of the frame, nonce and tag included.
    pub len: u32,
}

/// Everything a pack holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Directory {
    /// Chunk frames in pack order.
    pub chunks: Vec<ChunkEntry>,
    /// Delta frames in pack order.
    pub deltas: Vec<DeltaEntry>,
}

/// Sealed bytes of the directory of so many entries.
pub fn directory_sealed_bytes(chunks: u64, deltas: u64) -> u64 {
    let plain = chunks * CHUNK_ENTRY_BYTES + deltas * DELTA_ENTRY_BYTES;
    plain + plain.div_ceil(DIRECTORY_FRAME_BYTES as u64) * SEAL_OVERHEAD as u64
}

fn frame(seq: PackSeq, index: usize) -> FrameId {
    FrameId::Pack {
        seq,
        kind: FrameKind::Directory,
        index: index as u32,
    }
}

impl Directory {
    /// The sealed frames, back to back.
    pub fn seal(&self, keys: &VolumeKeys, seq: PackSeq, entropy: &mut dyn Entropy) -> Vec<u8> {
        let mut plain = Vec::new();
        for chunk in &self.chunks {
            plain.extend_from_slice(&chunk.id.0);
            plain.extend_from_slice(&chunk.offset.to_le_bytes());
            plain.extend_from_slice(&chunk.len.to_le_bytes());
        }
        for delta in &self.deltas {
            plain.extend_from_slice(&delta.offset.to_le_bytes());
            plain.extend_from_slice(&delta.len.to_le_bytes());
        }
        let mut out = Vec::with_capacity(plain.len() + SEAL_OVERHEAD);
        for (index, part) in plain.chunks(DIRECTORY_FRAME_BYTES).enumerate() {
            keys.seal(frame(seq, index), part, entropy, &mut out);
        }
        out
    }

    /// Opens the directory that `footer` describes; `sealed` are its [`Footer::directory_bytes`].
    pub fn open(keys: &VolumeKeys, footer: &Footer, sealed: &[u8]) -> Result<Directory, PackError> {
        if sealed.len() as u64 != footer.directory_bytes() {
            return Err(PackError::Malformed("length of the directory"));
        }
        let mut plain = Vec::with_capacity(sealed.len());
        for (index, part) in sealed.chunks(DIRECTORY_FRAME_BYTES + SEAL_OVERHEAD).enumerate() {
            let opened = keys
                .open(frame(footer.seq, index), part)
                .map_err(|_| PackError::Sealed("directory"))?;
            plain.extend_from_slice(&opened);
        }
        let chunk_bytes = footer.chunks as usize * CHUNK_ENTRY_BYTES as usize;
        let (chunks, deltas) = plain
            .split_at_checked(chunk_bytes)
            .ok_or(PackError::Malformed("length of the directory"))?;
        let directory = Directory {
            chunks: chunks
                .chunks_exact(CHUNK_ENTRY_BYTES as usize)
                .map(chunk_entry)
                .collect(),
            deltas: deltas
                .chunks_exact(DELTA_ENTRY_BYTES as usize)
                .map(delta_entry)
                .collect(),
        };
        directory.check(footer)?;
        Ok(directory)
    }

    /// Frames lie back to back from the header to the directory, none is empty or too long, no chunk comes twice.
    fn check(&self, footer: &Footer) -> Result<(), PackError> {
        let mut at = HEADER_SEALED_BYTES as u64;
        let mut seen = HashSet::with_capacity(self.chunks.len());
        for chunk in &self.chunks {
            at = follow(at, chunk.offset, chunk.len, CHUNK_BYTES)?;
            if !seen.insert(chunk.id) {
                return Err(PackError::Malformed("a chunk comes twice"));
            }
        }
        for delta in &self.deltas {
            at = follow(at, delta.offset, delta.len, DELTA_FRAME_BYTES_MAX)?;
        }
        match at == footer.directory_offset && self.deltas.len() == footer.deltas as usize {
            true => Ok(()),
            false => Err(PackError::Malformed("frames do not reach the directory")),
        }
    }
}

/// Checks one frame's place and returns where the next must start.
fn follow(at: u64, offset: u64, len: u32, plain_max: usize) -> Result<u64, PackError> {
    let plain = (len as usize).checked_sub(SEAL_OVERHEAD);
    if offset != at || !plain.is_some_and(|plain| (1..=plain_max).contains(&plain)) {
        return Err(PackError::Malformed("place or length of a frame"));
    }
    Ok(at + u64::from(len))
}

fn chunk_entry(bytes: &[u8]) -> ChunkEntry {
    let (id, rest) = bytes.split_first_chunk().expect("chunks_exact gives whole entries");
    let DeltaEntry { offset, len } = delta_entry(rest);
    ChunkEntry {
        id: ChunkId(*id),
        offset,
        len,
    }
}

fn delta_entry(bytes: &[u8]) -> DeltaEntry {
    let (offset, rest) = bytes.split_first_chunk().expect("chunks_exact gives whole entries");
    let len = rest.first_chunk().expect("chunks_exact gives whole entries");
    DeltaEntry {
        offset: u64::from_le_bytes(*offset),
        len: u32::from_le_bytes(*len),
    }
}
