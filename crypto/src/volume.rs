//! The keys of one volume: chunk ids and padding here, frames in [`crate::frame`].

use std::sync::Arc;

use chacha20::ChaCha20;
use chacha20::cipher::{KeyIvInit, StreamCipher, StreamCipherSeek};

use crate::at_rest::AtRestKeys;
use crate::derive::{self, FORMAT_VERSION, Key};
use crate::id::{ChunkId, PackSeq, VolumeId};
use crate::limits::PAD_BYTES_MAX;

/// Keys of one volume. Cheap to clone (shared inside), zeroized when the last clone goes.
#[derive(Clone)]
pub struct VolumeKeys(Arc<Inner>);

struct Inner {
    volume: VolumeId,
    chunk_id: Key,
    frame: Key,
    pad: Key,
    at_rest: AtRestKeys,
}

impl VolumeKeys {
    pub(crate) fn new(volume: VolumeId, key: &Key) -> VolumeKeys {
        let child = |label| derive::tree_key(&key[..], label, b"");
        VolumeKeys(Arc::new(Inner {
            volume,
            chunk_id: child(derive::CHUNK_ID),
            frame: child(derive::FRAME),
            pad: child(derive::PAD),
            at_rest: AtRestKeys::new(volume, &child(derive::AT_REST)),
        }))
    }

    /// The volume these keys belong to.
    pub fn volume(&self) -> VolumeId {
        self.0.volume
    }

    /// Name of a chunk: keyed BLAKE3 of the plaintext. Without the key nobody can test a guess at the content.
    pub fn chunk_id(&self, plaintext: &[u8]) -> ChunkId {
        ChunkId(*blake3::keyed_hash(&self.0.chunk_id, plaintext).as_bytes())
    }

    /// Fills `out` with the keystream that pads a pack's unused tail (never zeros: the zero fragment has one public hash
    /// network-wide). `offset` is the byte offset within the pack; any range gives the same bytes as one long fill.
    ///
    /// # Panics
    /// If the range ends past [`PAD_BYTES_MAX`], eight times the longest CESS file: the caller's arithmetic is broken.
    pub fn pad(&self, seq: PackSeq, offset: u64, out: &mut [u8]) {
        let end = offset.checked_add(out.len() as u64);
        assert!(
            end.is_some_and(|end| end <= PAD_BYTES_MAX),
            "padding past the longest pack: offset={offset}"
        );
        let mut item = [0; 9];
        item[0] = FORMAT_VERSION;
        item[1..].copy_from_slice(&seq.0.to_le_bytes());
        let key = derive::item_key(&self.0.pad, &item);
        // One key per pack, so the nonce has nothing to separate.
        let mut cipher = ChaCha20::new((&*key).into(), &[0; 12].into());
        out.fill(0);
        if !out.is_empty() {
            cipher.seek(offset);
            cipher.apply_keystream(out);
        }
    }

    /// The keys of the local disk.
    pub fn at_rest(&self) -> AtRestKeys {
        self.0.at_rest.clone()
    }

    /// Parent of the frame keys.
    pub(crate) fn frame_parent(&self) -> &Key {
        &self.0.frame
    }
}
