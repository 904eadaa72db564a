//! `keys.json` on disk: what serde sees, and the checks between it and [`KeySlots`].
//!
//! Bytes are lower-case hexadecimal. Unknown fields, unknown kinds, a second slot of a kind, a KDF that does not belong to the
//! kind, and costs out of bounds are all refused, so nothing in the file can be ignored by one version and trusted by another.

use serde::{Deserialize, Serialize};

use super::kdf::{Kdf, KdfCost};
use super::{KeySlots, Slot, SlotKind};
use crate::id::VolumeId;

const FORMAT: &str = "cessfs-keys";
const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SlotsFile {
    format: String,
    version: u32,
    volume: String,
    slots: Vec<SlotFile>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SlotFile {
    kind: SlotKind,
    kdf: KdfFile,
    salt: String,
    nonce: String,
    commitment: String,
    wrapped: String,
}

#[derive(Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "kebab-case", deny_unknown_fields)]
enum KdfFile {
    Argon2id { memory_kib: u32, passes: u32, lanes: u32 },
    HkdfSha256,
}

impl From<KeySlots> for SlotsFile {
    fn from(slots: KeySlots) -> SlotsFile {
        SlotsFile {
            format: FORMAT.to_owned(),
            version: VERSION,
            volume: hex::encode(slots.volume.0),
            slots: slots.slots.into_iter().map(SlotFile::from).collect(),
        }
    }
}

impl From<Slot> for SlotFile {
    fn from(slot: Slot) -> SlotFile {
        SlotFile {
            kind: slot.kind,
            kdf: match slot.kdf {
                Kdf::Argon2id(KdfCost {
                    memory_kib,
                    passes,
                    lanes,
                }) => KdfFile::Argon2id {
                    memory_kib,
                    passes,
                    lanes,
                },
                Kdf::HkdfSha256 => KdfFile::HkdfSha256,
            },
            salt: hex::encode(slot.salt),
            nonce: hex::encode(slot.nonce),
            commitment: hex::encode(slot.commitment),
            wrapped: hex::encode(slot.wrapped),
        }
    }
}

impl TryFrom<SlotsFile> for KeySlots {
    /// What is wrong with the file; [`KeySlots::from_json`] makes a [`CryptoError::KeyFile`](crate::CryptoError::KeyFile) of it.
    type Error = String;

    fn try_from(file: SlotsFile) -> Result<KeySlots, String> {
        if file.format != FORMAT || file.version != VERSION {
            return Err(format!("not a {FORMAT} file of version {VERSION}"));
        }
        let mut slots: Vec<Slot> = Vec::with_capacity(file.slots.len());
        for slot in file.slots {
            let slot = Slot::try_from(slot)?;
            if slots.iter().any(|other| other.kind == slot.kind) {
                return Err(format!("two {} slots", slot.kind));
            }
            slots.push(slot);
        }
        Ok(KeySlots {
            volume: VolumeId(bytes("volume", &file.volume)?),
            slots,
        })
    }
}

impl TryFrom<SlotFile> for Slot {
    /// What is wrong with the file; [`KeySlots::from_json`] makes a [`CryptoError::KeyFile`](crate::CryptoError::KeyFile) of it.
    type Error = String;

    fn try_from(file: SlotFile) -> Result<Slot, String> {
        let kdf = match (file.kind, file.kdf) {
            (
                SlotKind::Passphrase,
                KdfFile::Argon2id {
                    memory_kib,
                    passes,
                    lanes,
                },
            ) => {
                let cost = KdfCost {
                    memory_kib,
                    passes,
                    lanes,
                };
                cost.check()?;
                Kdf::Argon2id(cost)
            }
            (SlotKind::Phrase | SlotKind::KeyFile, KdfFile::HkdfSha256) => Kdf::HkdfSha256,
            (kind, _) => return Err(format!("wrong kdf for a {kind} slot")),
        };
        Ok(Slot {
            kind: file.kind,
            kdf,
            salt: bytes("salt", &file.salt)?,
            nonce: bytes("nonce", &file.nonce)?,
            commitment: bytes("commitment", &file.commitment)?,
            wrapped: bytes("wrapped", &file.wrapped)?,
        })
    }
}

fn bytes<const N: usize>(field: &str, text: &str) -> Result<[u8; N], String> {
    let mut out = [0; N];
    hex::decode_to_slice(text, &mut out).map_err(|error| format!("{field}: {error}"))?;
    Ok(out)
}
