//! Keys for what rests on the local disk.
//!
//! AES-256-GCM-SIV (RFC 8452) throughout: records and blocks are rewritten in place, and a nonce that repeats after a
//! rolled-back disk or a cloned machine then reveals equality, not content.
//!
//! ```text
//! record = nonce (12) ‖ ciphertext ‖ tag (16)                   AAD = the record's key in the store
//! block  = 4096 bytes in place; nonce and tag are kept apart    AAD, 37 bytes, integers little endian:
//!                                                                 0   1  format version (1)
//!                                                                 1  16  volume
//!                                                                17   8  inode
//!                                                                25   8  block number
//!                                                                33   4  version
//! inode key = keyed BLAKE3 of  version byte ‖ inode (8, little endian)  under the inode parent
//! name hash = keyed BLAKE3 of  parent inode (8, little endian) ‖ name,  first 8 bytes little endian, low 62 bits
//! ```

use std::sync::Arc;

use aes_gcm_siv::Aes256GcmSiv;
use aes_gcm_siv::aead::{AeadInOut, KeyInit};

use crate::derive::{self, FORMAT_VERSION, Key};
use crate::entropy::{Entropy, fresh};
use crate::error::CryptoError;
use crate::id::VolumeId;

const NONCE_BYTES: usize = 12;
/// Random bytes that sealing a record takes.
pub const RECORD_NONCE_BYTES: usize = NONCE_BYTES;
const TAG_BYTES: usize = 16;
const BLOCK_AAD_BYTES: usize = 37;
/// Name hashes keep two bits free for the store's and the kernel's own cookies.
const NAME_HASH_MASK: u64 = (1 << 62) - 1;

/// Keys for what rests on the local disk. Cheap to clone (shared inside), zeroized when the last clone goes.
#[derive(Clone)]
pub struct AtRestKeys(Arc<Inner>);

struct Inner {
    volume: VolumeId,
    record: Aes256GcmSiv,
    name: Key,
    inode: Key,
}

impl AtRestKeys {
    pub(crate) fn new(volume: VolumeId, key: &Key) -> AtRestKeys {
        let child = |label| derive::tree_key(&key[..], label, b"");
        AtRestKeys(Arc::new(Inner {
            volume,
            record: Aes256GcmSiv::new((&*child(derive::RECORD)).into()),
            name: child(derive::NAME),
            inode: child(derive::INODE),
        }))
    }

    /// Key for the backing blocks of one inode. Keep it while the inode is open: it holds the cipher's key schedule.
    pub fn inode(&self, ino: u64) -> InodeKey {
        let mut item = [0; 9];
        item[0] = FORMAT_VERSION;
        item[1..].copy_from_slice(&ino.to_le_bytes());
        let key = derive::item_key(&self.0.inode, &item);
        InodeKey(Arc::new(InodeInner {
            volume: self.0.volume,
            ino,
            cipher: Aes256GcmSiv::new((&*key).into()),
        }))
    }

    /// Seals a metadata record's value; `key` (the record's key in the store) is the AAD, so that records can't be swapped.
    pub fn seal_record(&self, key: &[u8], value: &[u8], entropy: &mut dyn Entropy) -> Vec<u8> {
        let nonce: [u8; NONCE_BYTES] = fresh(entropy);
        let mut sealed = Vec::with_capacity(NONCE_BYTES + value.len() + TAG_BYTES);
        sealed.extend_from_slice(&nonce);
        sealed.extend_from_slice(value);
        let tag = self
            .0
            .record
            .encrypt_inout_detached(&nonce.into(), key, (&mut sealed[NONCE_BYTES..]).into())
            .expect("a record is far below 64 GiB");
        sealed.extend_from_slice(&tag);
        sealed
    }

    /// The value of a record that was sealed under the same `key`.
    ///
    /// # Errors
    /// [`CryptoError::Sealed`] if it is damaged, truncated or was moved from another key.
    pub fn open_record(&self, key: &[u8], sealed: &[u8]) -> Result<Vec<u8>, CryptoError> {
        let (nonce, rest) = sealed.split_first_chunk::<NONCE_BYTES>().ok_or(CryptoError::Sealed)?;
        let (ciphertext, tag) = rest.split_last_chunk::<TAG_BYTES>().ok_or(CryptoError::Sealed)?;
        let mut value = ciphertext.to_vec();
        self.0
            .record
            .decrypt_inout_detached(nonce.into(), key, value.as_mut_slice().into(), tag.into())
            .map_err(|_| CryptoError::Sealed)?;
        Ok(value)
    }

    /// 62-bit keyed hash of a name within its directory: the dentry's key and readdir cookie. Used in both at-rest modes.
    /// Collisions are possible and the caller's to resolve; without the key nobody can provoke them.
    pub fn name_hash(&self, parent: u64, name: &[u8]) -> u64 {
        let mut hasher = blake3::Hasher::new_keyed(&self.0.name);
        let hash = hasher.update(&parent.to_le_bytes()).update(name).finalize();
        let (first, _) = hash.as_bytes().split_first_chunk().expect("32 bytes have 8");
        u64::from_le_bytes(*first) & NAME_HASH_MASK
    }
}

/// Key of one inode's backing blocks. Cheap to clone (shared inside), zeroized when the last clone goes.
#[derive(Clone)]
pub struct InodeKey(Arc<InodeInner>);

struct InodeInner {
    volume: VolumeId,
    ino: u64,
    cipher: Aes256GcmSiv,
}

impl InodeKey {
    /// Encrypts one 4096-byte backing block in place; returns the tag. AAD = volume, ino, block number, version.
    pub fn seal_block(&self, block: u64, version: u32, nonce: &[u8; 12], data: &mut [u8]) -> [u8; 16] {
        self.0
            .cipher
            .encrypt_inout_detached(nonce.into(), &self.block_aad(block, version), data.into())
            .expect("a block is far below 64 GiB")
            .into()
    }

    /// Decrypts one block in place.
    ///
    /// # Errors
    /// [`CryptoError::Sealed`] if it is damaged, stale (another version) or was moved; `data` then holds no plaintext.
    pub fn open_block(
        &self,
        block: u64,
        version: u32,
        nonce: &[u8; 12],
        tag: &[u8; 16],
        data: &mut [u8],
    ) -> Result<(), CryptoError> {
        self.0
            .cipher
            .decrypt_inout_detached(nonce.into(), &self.block_aad(block, version), data.into(), tag.into())
            .map_err(|_| CryptoError::Sealed)
    }

    fn block_aad(&self, block: u64, version: u32) -> [u8; BLOCK_AAD_BYTES] {
        let mut aad = [0; BLOCK_AAD_BYTES];
        aad[0] = FORMAT_VERSION;
        aad[1..17].copy_from_slice(&self.0.volume.0);
        aad[17..25].copy_from_slice(&self.0.ino.to_le_bytes());
        aad[25..33].copy_from_slice(&block.to_le_bytes());
        aad[33..].copy_from_slice(&version.to_le_bytes());
        aad
    }
}
