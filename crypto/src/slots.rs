//! Key slots: `keys.json`, which wraps one [`VolumeSecret`] under whatever the user can offer.
//!
//! Each slot holds the same 64 bytes (root ‖ account mini secret) under its own key encryption key, so changing a passphrase
//! rewrites one slot and no data. What a slot promises:
//! * **Binding.** Its header (version, volume, kind, KDF and its cost, salt) is in both derivations and in the AAD: a slot
//!   moved to another volume, kind or cost does not open.
//! * **Commitment.** AES-GCM-SIV alone is not key committing: one crafted ciphertext can open under many keys, and each try
//!   would then test many passphrases (partitioning oracle). A 32-byte HKDF commitment to the key is compared first.
//! * **Bounds.** KDF costs outside [`crate::limits`] are refused on reading: too low is a downgrade, too high a denial of service.
//!
//! What it can't promise: that nobody deletes a slot, or puts an older `keys.json` back.

mod file;
mod kdf;

use std::fmt;

use aes_gcm_siv::Aes256GcmSiv;
use aes_gcm_siv::aead::{AeadInOut, KeyInit};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::derive::{FORMAT_VERSION, Key};
use crate::entropy::{Entropy, fresh};
use crate::error::CryptoError;
use crate::id::VolumeId;
use crate::limits::SLOTS_JSON_BYTES_MAX;
use crate::phrase::Phrase;
use crate::secret::VolumeSecret;

pub use kdf::KdfCost;
use kdf::{Kdf, SlotKeys};

/// Root key ‖ account mini secret.
const SECRET_BYTES: usize = 64;
const TAG_BYTES: usize = 16;
const NONCE_BYTES: usize = 12;
const SALT_BYTES: usize = 32;
const HEADER_BYTES: usize = 63;

/// What opens a slot.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
#[repr(u8)]
pub enum SlotKind {
    /// A passphrase, stretched with Argon2id.
    Passphrase = 1,
    /// The recovery phrase.
    Phrase = 2,
    /// The content of a file.
    KeyFile = 3,
}

impl fmt::Display for SlotKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SlotKind::Passphrase => "passphrase",
            SlotKind::Phrase => "phrase",
            SlotKind::KeyFile => "key-file",
        })
    }
}

/// The slots that wrap one [`VolumeSecret`], as stored in `keys.json` (mode 0600). At most one slot of each kind.
#[derive(Clone, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "file::SlotsFile", into = "file::SlotsFile")]
pub struct KeySlots {
    volume: VolumeId,
    slots: Vec<Slot>,
}

/// One wrapped copy of the secret. Nothing in it is secret.
#[derive(Clone)]
struct Slot {
    kind: SlotKind,
    kdf: Kdf,
    salt: [u8; SALT_BYTES],
    nonce: [u8; NONCE_BYTES],
    commitment: [u8; 32],
    wrapped: [u8; SECRET_BYTES + TAG_BYTES],
}

impl KeySlots {
    /// No slots yet, for `volume`.
    pub fn new(volume: VolumeId) -> KeySlots {
        KeySlots {
            volume,
            slots: Vec::new(),
        }
    }

    /// The volume whose secret is wrapped.
    pub fn volume(&self) -> VolumeId {
        self.volume
    }

    /// The kinds of slots there are, so that a caller knows what to ask for.
    pub fn kinds(&self) -> impl Iterator<Item = SlotKind> + '_ {
        self.slots.iter().map(|slot| slot.kind)
    }

    /// Drops the slot of this kind; false if there is none. The caller keeps at least one: the phrase itself opens without.
    pub fn remove(&mut self, kind: SlotKind) -> bool {
        let before = self.slots.len();
        self.slots.retain(|slot| slot.kind != kind);
        self.slots.len() != before
    }

    /// Adds or replaces the passphrase slot.
    ///
    /// # Errors
    /// [`CryptoError::Refused`] for an empty or overlong passphrase or a cost out of bounds, [`CryptoError::Memory`].
    pub fn set_passphrase(
        &mut self,
        secret: &VolumeSecret,
        passphrase: &[u8],
        cost: KdfCost,
        entropy: &mut dyn Entropy,
    ) -> Result<(), CryptoError> {
        kdf::check_passphrase(passphrase)?;
        cost.check().map_err(CryptoError::Refused)?;
        self.set(SlotKind::Passphrase, Kdf::Argon2id(cost), passphrase, secret, entropy)
    }

    /// Adds or replaces the phrase slot.
    ///
    /// # Errors
    /// None today; the phrase has full entropy.
    pub fn set_phrase(
        &mut self,
        secret: &VolumeSecret,
        phrase: &Phrase,
        entropy: &mut dyn Entropy,
    ) -> Result<(), CryptoError> {
        self.set(
            SlotKind::Phrase,
            Kdf::HkdfSha256,
            &phrase.entropy()[..],
            secret,
            entropy,
        )
    }

    /// Adds or replaces the key file slot; `key_file` is the file's whole content.
    ///
    /// # Errors
    /// [`CryptoError::Refused`] below 32 bytes or above 32 KiB. The content must be random: it is not stretched.
    pub fn set_key_file(
        &mut self,
        secret: &VolumeSecret,
        key_file: &[u8],
        entropy: &mut dyn Entropy,
    ) -> Result<(), CryptoError> {
        kdf::check_key_file(key_file)?;
        self.set(SlotKind::KeyFile, Kdf::HkdfSha256, key_file, secret, entropy)
    }

    /// Opens the passphrase slot. Takes the slot's memory and, at the default cost, about a second.
    ///
    /// # Errors
    /// [`CryptoError::WrongSecret`], [`CryptoError::NoSlot`], [`CryptoError::Memory`]; [`CryptoError::KeyFile`] if the
    /// secret is right and the wrapped key is damaged.
    pub fn open_passphrase(&self, passphrase: &[u8]) -> Result<VolumeSecret, CryptoError> {
        kdf::check_passphrase(passphrase).map_err(|_| CryptoError::WrongSecret)?;
        self.open(SlotKind::Passphrase, passphrase)
    }

    /// Opens the phrase slot.
    ///
    /// # Errors
    /// As [`KeySlots::open_passphrase`].
    pub fn open_phrase(&self, phrase: &Phrase) -> Result<VolumeSecret, CryptoError> {
        self.open(SlotKind::Phrase, &phrase.entropy()[..])
    }

    /// Opens the key file slot with the file's whole content.
    ///
    /// # Errors
    /// As [`KeySlots::open_passphrase`].
    pub fn open_key_file(&self, key_file: &[u8]) -> Result<VolumeSecret, CryptoError> {
        kdf::check_key_file(key_file).map_err(|_| CryptoError::WrongSecret)?;
        self.open(SlotKind::KeyFile, key_file)
    }

    /// The content of `keys.json`, indented, ending in a newline.
    pub fn to_json(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).expect("strings and numbers always serialize");
        text.push('\n');
        text
    }

    /// Reads `keys.json`.
    ///
    /// # Errors
    /// [`CryptoError::KeyFile`] for anything this version would not have written, KDF costs out of bounds included.
    pub fn from_json(text: &str) -> Result<KeySlots, CryptoError> {
        if text.len() > SLOTS_JSON_BYTES_MAX {
            return Err(CryptoError::KeyFile(format!(
                "larger than {SLOTS_JSON_BYTES_MAX} bytes"
            )));
        }
        serde_json::from_str(text).map_err(|error| CryptoError::KeyFile(error.to_string()))
    }

    fn set(
        &mut self,
        kind: SlotKind,
        kdf: Kdf,
        input: &[u8],
        secret: &VolumeSecret,
        entropy: &mut dyn Entropy,
    ) -> Result<(), CryptoError> {
        let slot = Slot::wrap(self.volume, kind, kdf, input, secret, entropy)?;
        match self.slots.iter_mut().find(|slot| slot.kind == kind) {
            Some(old) => *old = slot,
            None => self.slots.push(slot),
        }
        Ok(())
    }

    fn open(&self, kind: SlotKind, input: &[u8]) -> Result<VolumeSecret, CryptoError> {
        let slot = self
            .slots
            .iter()
            .find(|slot| slot.kind == kind)
            .ok_or(CryptoError::NoSlot(kind))?;
        slot.unwrap(self.volume, input)
    }
}

impl Slot {
    fn wrap(
        volume: VolumeId,
        kind: SlotKind,
        kdf: Kdf,
        input: &[u8],
        secret: &VolumeSecret,
        entropy: &mut dyn Entropy,
    ) -> Result<Slot, CryptoError> {
        let (salt, nonce) = (fresh(entropy), fresh(entropy));
        let mut slot = Slot {
            kind,
            kdf,
            salt,
            nonce,
            commitment: [0; 32],
            wrapped: [0; SECRET_BYTES + TAG_BYTES],
        };
        let header = slot.header(volume);
        let SlotKeys { kek, commitment } = SlotKeys::derive(kdf, &salt, input, &header)?;
        slot.commitment = *commitment;
        let (body, tag) = slot.wrapped.split_at_mut(SECRET_BYTES);
        body[..32].copy_from_slice(&secret.root[..]);
        body[32..].copy_from_slice(&secret.account[..]);
        let sum = Aes256GcmSiv::new((&*kek).into())
            .encrypt_inout_detached(&nonce.into(), &header, body.into())
            .expect("64 bytes are within any bound");
        tag.copy_from_slice(&sum);
        Ok(slot)
    }

    fn unwrap(&self, volume: VolumeId, input: &[u8]) -> Result<VolumeSecret, CryptoError> {
        let header = self.header(volume);
        let SlotKeys { kek, commitment } = SlotKeys::derive(self.kdf, &self.salt, input, &header)?;
        // Before the cipher sees anything: see the module head.
        if !bool::from(commitment[..].ct_eq(&self.commitment)) {
            return Err(CryptoError::WrongSecret);
        }
        let (body, tag) = self
            .wrapped
            .split_last_chunk::<TAG_BYTES>()
            .expect("longer than its tag");
        let mut plain = Zeroizing::new([0; SECRET_BYTES]);
        plain.copy_from_slice(body);
        Aes256GcmSiv::new((&*kek).into())
            .decrypt_inout_detached(&self.nonce.into(), &header, plain.as_mut_slice().into(), tag.into())
            .map_err(|_| CryptoError::KeyFile(format!("the {} slot is altered", self.kind)))?;
        let (mut root, mut account) = (Key::default(), Key::default());
        root.copy_from_slice(&plain[..32]);
        account.copy_from_slice(&plain[32..]);
        Ok(VolumeSecret { root, account })
    }

    /// What the slot is bound to, 63 bytes, integers little endian: format version (1), volume (16), kind (1), KDF (1),
    /// memory in KiB (4), passes (4), lanes (4), salt (32). The three costs are zero where the KDF has none.
    fn header(&self, volume: VolumeId) -> [u8; HEADER_BYTES] {
        let (kdf, cost) = match self.kdf {
            Kdf::Argon2id(cost) => (1, cost),
            Kdf::HkdfSha256 => (
                2,
                KdfCost {
                    memory_kib: 0,
                    passes: 0,
                    lanes: 0,
                },
            ),
        };
        let mut header = [0; HEADER_BYTES];
        header[0] = FORMAT_VERSION;
        header[1..17].copy_from_slice(&volume.0);
        header[17] = self.kind as u8;
        header[18] = kdf;
        header[19..23].copy_from_slice(&cost.memory_kib.to_le_bytes());
        header[23..27].copy_from_slice(&cost.passes.to_le_bytes());
        header[27..31].copy_from_slice(&cost.lanes.to_le_bytes());
        header[31..].copy_from_slice(&self.salt);
        header
    }
}
