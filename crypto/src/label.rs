//! Labels: the public file name of a pack on chain, and what it hides.
//!
//! ```text
//! label, 47 bytes -> 63 characters of URL-safe base64 without padding (the chain's limit is 63)
//!   0   1  format version (1), in the clear
//!   1  30  AES-256-GCM-SIV ciphertext of
//!            0  16  volume
//!           16   8  pack seq, little endian
//!           24   4  writer epoch, little endian
//!           28   1  kind (PackKind)
//!           29   1  flags, zero
//!  31  16  tag;  AAD = "cessfs/v1/pack-label" ‖ version byte;  nonce = 12 zero bytes
//! ```
//! The nonce is fixed on purpose. 63 characters leave no room for one, and GCM-SIV with a fixed nonce is a deterministic
//! cipher that reveals only whether two plaintexts are equal. No two are: a volume's pack seq is never reused. In return
//! a label can be computed again after a crash, and found in the account's list.

use aes_gcm_siv::Aes256GcmSiv;
use aes_gcm_siv::aead::{AeadInOut, KeyInit};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::derive::{FORMAT_VERSION, Key, LABEL_AAD};
use crate::id::{PackSeq, VolumeId};

/// Characters of a label: exactly the chain's limit for file names (facts 1.2, `NameStrLimit`).
pub const LABEL_CHARS: usize = 63;

pub(crate) const BODY_BYTES: usize = 30;
const TAG_BYTES: usize = 16;
const LABEL_BYTES: usize = 1 + BODY_BYTES + TAG_BYTES;
const _: () = assert!(LABEL_CHARS == (LABEL_BYTES * 8).div_ceil(6));

/// See the module head: labels are unique, and GCM-SIV tolerates the rest.
const NONCE: [u8; 12] = [0; 12];

/// What a pack's public file name hides: 63 URL-safe base64 characters on chain.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PackLabel {
    /// The volume the pack belongs to.
    pub volume: VolumeId,
    /// Its number there.
    pub seq: PackSeq,
    /// The writer's epoch, which fences out an older writer.
    pub epoch: u32,
    /// What recovery finds inside.
    pub kind: PackKind,
}

/// What recovery finds in a pack.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum PackKind {
    /// Chunks and a metadata delta.
    Data = 1,
    /// A whole metadata tree: recovery may start here.
    Checkpoint = 2,
}

/// The key of labels, one per phrase. Cheap to clone.
#[derive(Clone)]
pub struct LabelKey(Aes256GcmSiv);

impl LabelKey {
    pub(crate) fn new(key: &Key) -> LabelKey {
        LabelKey(Aes256GcmSiv::new((&**key).into()))
    }

    /// The file name that hides `label`. The same label always gives the same name.
    pub fn seal(&self, label: &PackLabel) -> String {
        let mut body = [0; BODY_BYTES];
        body[..16].copy_from_slice(&label.volume.0);
        body[16..24].copy_from_slice(&label.seq.0.to_le_bytes());
        body[24..28].copy_from_slice(&label.epoch.to_le_bytes());
        body[28] = label.kind as u8;
        self.seal_body(&body)
    }

    /// Seals what [`open`](LabelKey::open) will find, whatever it is.
    pub(crate) fn seal_body(&self, plaintext: &[u8; BODY_BYTES]) -> String {
        let mut bytes = [0; LABEL_BYTES];
        bytes[0] = FORMAT_VERSION;
        let (body, tag) = bytes[1..].split_at_mut(BODY_BYTES);
        body.copy_from_slice(plaintext);
        let sum = self
            .0
            .encrypt_inout_detached(&NONCE.into(), &aad(), body.into())
            .expect("30 bytes are within any bound");
        tag.copy_from_slice(&sum);
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// `None` if the name is not a label of this phrase: other programs may keep files in the same account.
    pub fn open(&self, name: &[u8]) -> Option<PackLabel> {
        if name.len() != LABEL_CHARS {
            return None;
        }
        let mut bytes = [0; LABEL_BYTES];
        // Strict: unused bits of the last character must be zero, so a label has one spelling.
        let length = URL_SAFE_NO_PAD.decode_slice(name, &mut bytes).ok()?;
        if length != LABEL_BYTES || bytes[0] != FORMAT_VERSION {
            return None;
        }
        let (body, tag) = bytes[1..].split_at_mut(BODY_BYTES);
        let tag: &[u8; TAG_BYTES] = (&*tag).try_into().expect("the rest is the tag");
        self.0
            .decrypt_inout_detached(&NONCE.into(), &aad(), (&mut *body).into(), tag.into())
            .ok()?;
        if body[29] != 0 {
            return None;
        }
        Some(PackLabel {
            volume: VolumeId(body[..16].try_into().expect("16 bytes")),
            seq: PackSeq(u64::from_le_bytes(body[16..24].try_into().expect("8 bytes"))),
            epoch: u32::from_le_bytes(body[24..28].try_into().expect("4 bytes")),
            kind: match body[28] {
                1 => PackKind::Data,
                2 => PackKind::Checkpoint,
                _ => return None,
            },
        })
    }
}

fn aad() -> [u8; LABEL_AAD.len() + 1] {
    let mut aad = [FORMAT_VERSION; LABEL_AAD.len() + 1];
    aad[..LABEL_AAD.len()].copy_from_slice(LABEL_AAD.as_bytes());
    aad
}
