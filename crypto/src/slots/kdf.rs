//! From what the user offers to the keys of a slot.
//!
//! ```text
//! secret     = Argon2id v1.3 (passphrase, salt, cost), 32 bytes | phrase entropy | key file content
//! prk        = HKDF-Extract-SHA256 (salt = the slot's salt, secret)
//! kek        = HKDF-Expand (prk, "cessfs/v1/slot/kek" ‖ 0 ‖ header)
//! commitment = HKDF-Expand (prk, "cessfs/v1/slot/commitment" ‖ 0 ‖ header)
//! ```

use argon2::{Algorithm, Argon2, Params, Version};
use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::Zeroizing;

use super::{HEADER_BYTES, SALT_BYTES};
use crate::derive::{self, Key};
use crate::error::CryptoError;
use crate::limits::{
    KDF_LANES_MAX, KDF_MEMORY_KIB_MAX, KDF_MEMORY_KIB_MIN, KDF_PASSES_MAX, KEY_FILE_BYTES_MAX, KEY_FILE_BYTES_MIN,
    PASSPHRASE_BYTES_MAX,
};

/// Argon2id cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KdfCost {
    /// Memory in KiB, 8192 (8 MiB) ..= 4194304 (4 GiB).
    pub memory_kib: u32,
    /// Passes over it, 1..=16.
    pub passes: u32,
    /// Lanes, 1..=16.
    pub lanes: u32,
}

impl KdfCost {
    /// 192 MiB, three passes: three times the memory of RFC 9106's second recommendation (64 MiB, three passes), and less than
    /// the 250 MiB that a mount may take.
    pub const DEFAULT: KdfCost = KdfCost {
        memory_kib: 192 * 1024,
        passes: 3,
        lanes: 1,
    };

    /// Says what is out of bounds.
    pub(super) fn check(self) -> Result<(), String> {
        let bounds = [
            ("memory_kib", self.memory_kib, KDF_MEMORY_KIB_MIN, KDF_MEMORY_KIB_MAX),
            ("passes", self.passes, 1, KDF_PASSES_MAX),
            ("lanes", self.lanes, 1, KDF_LANES_MAX),
        ];
        match bounds
            .into_iter()
            .find(|(_, value, least, most)| !(least..=most).contains(&value))
        {
            Some((name, value, least, most)) => Err(format!("{name}={value} is outside {least}..={most}")),
            None => Ok(()),
        }
    }
}

/// How a slot's secret is stretched.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kdf {
    Argon2id(KdfCost),
    HkdfSha256,
}

/// Empty passphrases are refused: they would look like encryption.
pub(super) fn check_passphrase(passphrase: &[u8]) -> Result<(), CryptoError> {
    if passphrase.is_empty() {
        return Err(CryptoError::Refused("the passphrase is empty".to_owned()));
    }
    if passphrase.len() > PASSPHRASE_BYTES_MAX {
        return Err(CryptoError::Refused(format!(
            "the passphrase is longer than {PASSPHRASE_BYTES_MAX} bytes"
        )));
    }
    Ok(())
}

/// A key file is not stretched, so it must have room for a whole key's entropy.
pub(super) fn check_key_file(content: &[u8]) -> Result<(), CryptoError> {
    if !(KEY_FILE_BYTES_MIN..=KEY_FILE_BYTES_MAX).contains(&content.len()) {
        let length = content.len();
        return Err(CryptoError::Refused(format!(
            "the key file has {length} bytes, outside {KEY_FILE_BYTES_MIN}..={KEY_FILE_BYTES_MAX}"
        )));
    }
    Ok(())
}

/// The two keys of a slot.
pub(super) struct SlotKeys {
    pub(super) kek: Key,
    pub(super) commitment: Key,
}

impl SlotKeys {
    pub(super) fn derive(
        kdf: Kdf,
        salt: &[u8; SALT_BYTES],
        input: &[u8],
        header: &[u8; HEADER_BYTES],
    ) -> Result<SlotKeys, CryptoError> {
        let prk = match kdf {
            Kdf::Argon2id(cost) => Hkdf::<Sha256>::new(Some(salt), &stretch(input, salt, cost)?[..]),
            Kdf::HkdfSha256 => Hkdf::<Sha256>::new(Some(salt), input),
        };
        Ok(SlotKeys {
            kek: derive::expand(&prk, derive::SLOT_KEK, header),
            commitment: derive::expand(&prk, derive::SLOT_COMMITMENT, header),
        })
    }
}

fn stretch(passphrase: &[u8], salt: &[u8], cost: KdfCost) -> Result<Key, CryptoError> {
    let params =
        Params::new(cost.memory_kib, cost.passes, cost.lanes, Some(32)).expect("the bounds are Argon2's, narrowed");
    let mut key = Zeroizing::new([0; 32]);
    match Argon2::new(Algorithm::Argon2id, Version::V0x13, params).hash_password_into(passphrase, salt, &mut key[..]) {
        Ok(()) => Ok(key),
        Err(argon2::Error::OutOfMemory) => Err(CryptoError::Memory {
            memory_kib: cost.memory_kib,
        }),
        Err(other) => unreachable!("salt and passphrase lengths are bounded: {other}"),
    }
}
