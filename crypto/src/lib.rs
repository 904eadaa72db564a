//! Keys, sealing and labels of cessfs.
//!
//! Pure: no I/O, no clock, no async; randomness is an argument ([`Entropy`]). Everything that leaves the machine or
//! rests on its disk is sealed with keys made here. Formats: `docs/FORMAT.md`; what each adversary learns:
//! `docs/THREATS.md`.
#![forbid(unsafe_code)]
// Skeleton: signatures are agreed, bodies follow.
#![allow(unused_variables, missing_docs, clippy::unimplemented, clippy::todo)]

use zeroize::Zeroizing;

/// Where random bytes come from. The process has one real source, built in the binary's wiring; simulations seed theirs.
pub trait Entropy: Send {
    fn fill(&mut self, out: &mut [u8]);
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct ChunkId(pub [u8; 32]);
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct VolumeId(pub [u8; 16]);
/// Number of a pack within its volume, from 1, never reused.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct PackSeq(pub u64);

#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct AccountId(pub [u8; 32]);
/// SS58 prefix of CESS test networks (facts 1.2).
pub const SS58_PREFIX: u16 = 11330;
impl AccountId {
    pub fn to_ss58(&self, prefix: u16) -> String {
        unimplemented!()
    }
    /// Accepts any prefix; returns it with the account.
    pub fn from_ss58(text: &str) -> Result<(AccountId, u16), CryptoError> {
        unimplemented!()
    }
}

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CryptoError {
    #[error("not a valid 24-word recovery phrase: {0}")]
    Phrase(String),
    #[error("not a valid SS58 address: {0}")]
    Address(String),
    #[error("the passphrase, phrase or key file does not open this volume")]
    WrongSecret,
    #[error("sealed data is damaged or belongs elsewhere")]
    Sealed,
    #[error("the key file is damaged: {0}")]
    KeyFile(String),
}

/// The 24-word recovery phrase; zeroized on drop, never printed by Debug.
pub struct Phrase(Zeroizing<String>);
impl Phrase {
    pub fn generate(entropy: &mut dyn Entropy) -> Phrase {
        unimplemented!()
    }
    /// Whitespace and case tolerant; exactly 24 words; says which word is wrong.
    pub fn parse(text: &str) -> Result<Phrase, CryptoError> {
        unimplemented!()
    }
    pub fn words(&self) -> &str {
        &self.0
    }
    pub fn secret(&self) -> VolumeSecret {
        unimplemented!()
    }
}

/// What a key slot wraps: the root key and the account's mini secret. Zeroized on drop.
pub struct VolumeSecret {
    pub(crate) root: Zeroizing<[u8; 32]>,
    pub(crate) account: Zeroizing<[u8; 32]>,
}
impl VolumeSecret {
    pub fn account_key(&self) -> AccountKey {
        unimplemented!()
    }
    pub fn label_key(&self) -> LabelKey {
        unimplemented!()
    }
    pub fn volume_keys(&self, volume: VolumeId) -> VolumeKeys {
        unimplemented!()
    }
}

/// The sr25519 account of the phrase (Substrate rule), signing context "substrate".
#[derive(Clone)]
pub struct AccountKey(());
impl AccountKey {
    pub fn from_seed(seed: &[u8; 32]) -> AccountKey {
        unimplemented!()
    }
    pub fn account_id(&self) -> AccountId {
        unimplemented!()
    }
    pub fn sign(&self, message: &[u8], entropy: &mut dyn Entropy) -> [u8; 64] {
        unimplemented!()
    }
}

/// What a sealed frame of a pack is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum FrameKind {
    Chunk = 1,
    Delta = 2,
    Directory = 3,
    Header = 4,
    Footer = 5,
}
/// What a frame is bound to; part of its AAD and of its key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FrameId {
    Chunk(ChunkId),
    Pack { seq: PackSeq, kind: FrameKind, index: u32 },
}
/// Bytes that sealing adds: 12 nonce + 16 tag.
pub const SEAL_OVERHEAD: usize = 28;

/// Keys of one volume. Cheap to clone (shared inside), zeroized when the last clone goes.
#[derive(Clone)]
pub struct VolumeKeys(());
impl VolumeKeys {
    pub fn volume(&self) -> VolumeId {
        unimplemented!()
    }
    /// Keyed BLAKE3 of the plaintext.
    pub fn chunk_id(&self, plaintext: &[u8]) -> ChunkId {
        unimplemented!()
    }
    /// Appends nonce ‖ ciphertext ‖ tag to `out`.
    pub fn seal(&self, frame: FrameId, plaintext: &[u8], entropy: &mut dyn Entropy, out: &mut Vec<u8>) {
        unimplemented!()
    }
    pub fn open(&self, frame: FrameId, sealed: &[u8]) -> Result<Vec<u8>, CryptoError> {
        unimplemented!()
    }
    /// Keystream that fills a pack's unused tail (never zeros: F8). `offset` is the byte offset within the pack.
    pub fn pad(&self, seq: PackSeq, offset: u64, out: &mut [u8]) {
        unimplemented!()
    }
    pub fn at_rest(&self) -> AtRestKeys {
        unimplemented!()
    }
}

/// What a pack's public file name hides: 63 URL-safe base64 characters on chain.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PackLabel {
    pub volume: VolumeId,
    pub seq: PackSeq,
    pub epoch: u32,
    pub kind: PackKind,
}
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum PackKind {
    Data = 1,
    Checkpoint = 2,
}
#[derive(Clone)]
pub struct LabelKey(());
impl LabelKey {
    pub fn seal(&self, label: &PackLabel) -> String {
        unimplemented!()
    }
    /// `None` if the name is not a label of this phrase.
    pub fn open(&self, name: &[u8]) -> Option<PackLabel> {
        unimplemented!()
    }
}

/// Keys for what rests on the local disk (AES-256-GCM-SIV: rewritten in place).
#[derive(Clone)]
pub struct AtRestKeys(());
impl AtRestKeys {
    /// Key for the backing blocks of one inode.
    pub fn inode(&self, ino: u64) -> InodeKey {
        unimplemented!()
    }
    /// Seals a metadata record's value; `key` (the record's key in the store) is the AAD.
    pub fn seal_record(&self, key: &[u8], value: &[u8], entropy: &mut dyn Entropy) -> Vec<u8> {
        unimplemented!()
    }
    pub fn open_record(&self, key: &[u8], sealed: &[u8]) -> Result<Vec<u8>, CryptoError> {
        unimplemented!()
    }
    /// 62-bit keyed hash of a name within its directory: the dentry's key and readdir cookie. Used in both at-rest modes.
    pub fn name_hash(&self, parent: u64, name: &[u8]) -> u64 {
        unimplemented!()
    }
}
#[derive(Clone)]
pub struct InodeKey(());
impl InodeKey {
    /// Encrypts one 4096-byte backing block in place; returns the tag. AAD = volume, ino, block number, version.
    pub fn seal_block(&self, block: u64, version: u32, nonce: &[u8; 12], data: &mut [u8]) -> [u8; 16] {
        unimplemented!()
    }
    pub fn open_block(
        &self,
        block: u64,
        version: u32,
        nonce: &[u8; 12],
        tag: &[u8; 16],
        data: &mut [u8],
    ) -> Result<(), CryptoError> {
        unimplemented!()
    }
}

/// The slots that wrap one [`VolumeSecret`], as stored in `keys.json` (mode 0600). Changing a passphrase rewrites one slot.
#[derive(Clone, serde::Serialize, serde::Deserialize)]
pub struct KeySlots {}
/// Argon2id cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KdfCost {
    pub memory_kib: u32,
    pub passes: u32,
    pub lanes: u32,
}
impl KdfCost {
    pub const DEFAULT: KdfCost = KdfCost {
        memory_kib: 256 * 1024,
        passes: 3,
        lanes: 1,
    };
}
impl KeySlots {
    pub fn new(volume: VolumeId) -> KeySlots {
        unimplemented!()
    }
    pub fn volume(&self) -> VolumeId {
        unimplemented!()
    }
    /// Adds or replaces the passphrase slot.
    pub fn set_passphrase(
        &mut self,
        secret: &VolumeSecret,
        passphrase: &[u8],
        cost: KdfCost,
        entropy: &mut dyn Entropy,
    ) -> Result<(), CryptoError> {
        unimplemented!()
    }
    pub fn set_phrase(
        &mut self,
        secret: &VolumeSecret,
        phrase: &Phrase,
        entropy: &mut dyn Entropy,
    ) -> Result<(), CryptoError> {
        unimplemented!()
    }
    pub fn set_key_file(
        &mut self,
        secret: &VolumeSecret,
        key_file: &[u8],
        entropy: &mut dyn Entropy,
    ) -> Result<(), CryptoError> {
        unimplemented!()
    }
    pub fn open_passphrase(&self, passphrase: &[u8]) -> Result<VolumeSecret, CryptoError> {
        unimplemented!()
    }
    pub fn open_phrase(&self, phrase: &Phrase) -> Result<VolumeSecret, CryptoError> {
        unimplemented!()
    }
    pub fn open_key_file(&self, key_file: &[u8]) -> Result<VolumeSecret, CryptoError> {
        unimplemented!()
    }
    pub fn to_json(&self) -> String {
        unimplemented!()
    }
    pub fn from_json(text: &str) -> Result<KeySlots, CryptoError> {
        unimplemented!()
    }
}
