//! Frames: everything inside a pack is sealed as one of these.
//!
//! ```text
//! sealed frame = nonce (12) ‖ AES-256-GCM ciphertext (as long as the plaintext) ‖ tag (16)
//!
//! AAD, 59 bytes, integers little endian             frame key = keyed BLAKE3 of AAD[0..51] under the frame parent
//!   0   1  format version (1)
//!   1  16  volume
//!  17   1  kind (FrameKind)
//!  18   1  how the frame is named: 0 by content, 1 by position
//!  19  32  by content: chunk id; by position: pack seq (8) ‖ index (4) ‖ zeros (20)
//!  51   8  plaintext length
//! ```
//! A key per frame name and a fresh random nonce: a (key, nonce) pair repeats only if the *same* name is sealed 2^48 times.
//! A frame opens only as what it was sealed as: another kind, index, pack or volume is another key and another AAD.

use aes_gcm::Aes256Gcm;
use aes_gcm::aead::{AeadInOut, KeyInit};
use std::ops::Range;

use crate::derive::{self, FORMAT_VERSION};
use crate::entropy::{Entropy, fresh};
use crate::error::CryptoError;
use crate::id::{ChunkId, PackSeq};
use crate::limits::FRAME_PLAINTEXT_BYTES_MAX;
use crate::volume::VolumeKeys;

/// What a sealed frame of a pack is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum FrameKind {
    /// A chunk of a file.
    Chunk = 1,
    /// A metadata delta.
    Delta = 2,
    /// The pack's table of its chunks.
    Directory = 3,
    /// The pack's first frame.
    Header = 4,
    /// The pack's last frame.
    Footer = 5,
}

/// What a frame is bound to; part of its AAD and of its key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FrameId {
    /// A chunk, named by its content: its sealed bytes would open in any pack. What moves is sealed again all the same, under a
    /// fresh nonce, so that two packs show nothing in common.
    Chunk(ChunkId),
    /// Anything else, named by its place.
    Pack {
        /// The pack.
        seq: PackSeq,
        /// What the frame is.
        kind: FrameKind,
        /// Number of the frame among those of its kind in the pack, from 0.
        index: u32,
    },
}

const NONCE_BYTES: usize = 12;
const TAG_BYTES: usize = 16;
/// Bytes that sealing adds: 12 nonce + 16 tag.
pub const SEAL_OVERHEAD: usize = NONCE_BYTES + TAG_BYTES;

/// Length of the part of the AAD that names the frame.
const NAME_BYTES: usize = 51;
const AAD_BYTES: usize = NAME_BYTES + 8;

impl VolumeKeys {
    /// Appends nonce ‖ ciphertext ‖ tag to `out`: `plaintext.len() + SEAL_OVERHEAD` bytes.
    ///
    /// # Panics
    /// If the plaintext is longer than [`FRAME_PLAINTEXT_BYTES_MAX`] (64 GiB).
    pub fn seal(&self, frame: FrameId, plaintext: &[u8], entropy: &mut dyn Entropy, out: &mut Vec<u8>) {
        let aad = self.frame_aad(frame, plaintext.len());
        let nonce: [u8; NONCE_BYTES] = fresh(entropy);
        out.reserve(plaintext.len() + SEAL_OVERHEAD);
        out.extend_from_slice(&nonce);
        let body = out.len();
        out.extend_from_slice(plaintext);
        let tag = self
            .frame_cipher(&aad)
            .encrypt_inout_detached(&nonce.into(), &aad, (&mut out[body..]).into())
            .expect("the length was checked");
        out.extend_from_slice(&tag);
    }

    /// The plaintext of a frame that was sealed as `frame`.
    ///
    /// # Errors
    /// [`CryptoError::Sealed`] if a single bit differs, or if it was sealed as anything else.
    pub fn open(&self, frame: FrameId, sealed: &[u8]) -> Result<Vec<u8>, CryptoError> {
        let (nonce, rest) = sealed.split_first_chunk().ok_or(CryptoError::Sealed)?;
        let (ciphertext, tag) = rest.split_last_chunk().ok_or(CryptoError::Sealed)?;
        let mut plaintext = ciphertext.to_vec();
        self.decrypt(frame, nonce, &mut plaintext, tag)?;
        Ok(plaintext)
    }

    /// Opens a frame where it lies, and says where in it the plaintext is then.
    ///
    /// # Errors
    /// As [`open`](VolumeKeys::open); what the bytes are then is not said.
    pub fn open_in_place(&self, frame: FrameId, sealed: &mut [u8]) -> Result<Range<usize>, CryptoError> {
        let (nonce, rest) = sealed.split_first_chunk_mut().ok_or(CryptoError::Sealed)?;
        let (body, tag) = rest.split_last_chunk_mut().ok_or(CryptoError::Sealed)?;
        self.decrypt(frame, nonce, body, tag)?;
        Ok(NONCE_BYTES..NONCE_BYTES + body.len())
    }

    fn decrypt(
        &self,
        frame: FrameId,
        nonce: &[u8; NONCE_BYTES],
        body: &mut [u8],
        tag: &[u8; TAG_BYTES],
    ) -> Result<(), CryptoError> {
        if body.len() as u64 > FRAME_PLAINTEXT_BYTES_MAX {
            return Err(CryptoError::Sealed);
        }
        let aad = self.frame_aad(frame, body.len());
        self.frame_cipher(&aad)
            .decrypt_inout_detached(nonce.into(), &aad, body.into(), tag.into())
            .map_err(|_| CryptoError::Sealed)
    }

    fn frame_aad(&self, frame: FrameId, plaintext_length: usize) -> [u8; AAD_BYTES] {
        let length = plaintext_length as u64;
        assert!(length <= FRAME_PLAINTEXT_BYTES_MAX, "frame too long: {length}");
        let mut aad = [0; AAD_BYTES];
        aad[0] = FORMAT_VERSION;
        aad[1..17].copy_from_slice(&self.volume().0);
        match frame {
            FrameId::Chunk(ChunkId(id)) => {
                aad[17] = FrameKind::Chunk as u8;
                aad[19..51].copy_from_slice(&id);
            }
            FrameId::Pack { seq, kind, index } => {
                aad[17] = kind as u8;
                aad[18] = 1;
                aad[19..27].copy_from_slice(&seq.0.to_le_bytes());
                aad[27..31].copy_from_slice(&index.to_le_bytes());
            }
        }
        aad[NAME_BYTES..].copy_from_slice(&length.to_le_bytes());
        aad
    }

    fn frame_cipher(&self, aad: &[u8; AAD_BYTES]) -> Aes256Gcm {
        let key = derive::item_key(self.frame_parent(), &aad[..NAME_BYTES]);
        Aes256Gcm::new((&*key).into())
    }
}
